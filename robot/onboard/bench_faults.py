"""Faults that have made robots fall, put into a good file one by one: how many are refused before the first command, and as what."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from robot import artifacts
from robot.artifacts import OBSERVATION
from robot.contract import Contract
from robot.description import load as load_robot
from robot.onboard import protobuf as pb
from robot.onboard.admission import admit
from robot.onboard.artifact import from_bytes
from robot.onboard.bench_nets import ROBOT, bench_contract, golden_of, net_file, to_artifact
from robot.onboard.onnxfile import OnnxFile
from robot.onboard.onnxwrite import bytes_field, number_field, tensor, write
from robot.onboard.refusals import AdmissionError

EXPECTED = {
    "swapped joints": "JointOrderError",
    "swapped joints in the graph": "JointTargetsError",
    "wrong scale": "JointTargetsError",
    "missing normaliser": "MissingNormaliserError",
    "stale contract": "StaleContractError",
    "other quaternion order": "BadContractError",
    "zero gains": "ZeroGainsError",
    "truncated file": "TruncatedFileError",
    "external data": "ExternalDataError",
    "unknown operator": "ForbiddenOperatorError",
    "other opset": "OpsetError",
    "wrong dtype": "DtypeError",
    "no fault": "",
}
Case = tuple[bytes, bytes]  # policy.onnx, golden.npz


def _with_contract(file: OnnxFile, contract: Contract) -> OnnxFile:
    """The file with another contract, announced consistently: what an export for the wrong robot would write."""
    announced = {artifacts.CONTRACT_KEY: contract.to_json(), artifacts.CONTRACT_SHA256_KEY: contract.sha256}
    return replace(file, metadata={**file.metadata, **announced})


def _with_text(file: OnnxFile, old: str, new: str) -> OnnxFile:
    text = file.metadata[artifacts.CONTRACT_KEY]
    assert old in text
    return replace(file, metadata={**file.metadata, artifacts.CONTRACT_KEY: text.replace(old, new)})


def _swapped(values: tuple) -> tuple:
    return (values[1], values[0], *values[2:])


def _without_normaliser(file: OnnxFile) -> OnnxFile:
    nodes = [node for node in file.nodes if node.name not in ("centred", "scaled", "limited")]
    nodes = [
        replace(node, inputs=tuple("clipped" if name == "limited" else name for name in node.inputs)) for node in nodes
    ]
    return replace(file, nodes=tuple(nodes))


def _external(data: bytes) -> bytes:
    """A weight that lives in another file (TensorProto.data_location = EXTERNAL)."""
    weight = tensor("elsewhere", np.zeros(4, dtype=np.float32))[: -len(bytes_field(9, bytes(16)))]
    weight += bytes_field(13, bytes_field(1, "location") + bytes_field(2, "policy.onnx.data")) + number_field(14, 1)
    out = b""
    for number, wire, value in pb.fields(memoryview(data)):
        if wire == pb.VARINT:
            out += number_field(number, int(value))  # type: ignore[arg-type]
        else:
            body = bytes(value)  # type: ignore[arg-type]
            out += bytes_field(number, body + bytes_field(5, weight) if number == 7 else body)
    return out


def seeded_faults() -> dict[str, Callable[[], AdmissionError | None]]:
    """By name, what the runtime says to a file with that fault; None where it would drive the robot with it."""
    model = load_robot(ROBOT)
    contract = bench_contract(model, 50.0)
    good = net_file("mlp", contract)
    golden = golden_of(good, contract)
    change = msgspec.structs.replace

    def tried(file: OnnxFile, arrays: dict[str, np.ndarray] | None = None) -> AdmissionError | None:
        try:
            admit(to_artifact(file, arrays or golden, "faulty"), model)
        except AdmissionError as error:
            return error
        return None

    def tried_bytes(data: bytes) -> AdmissionError | None:
        try:
            admit(from_bytes(data), model)
        except AdmissionError as error:
            return error
        return None

    def consistent(file: OnnxFile) -> AdmissionError | None:
        """The faulty exporter took its golden vectors from the faulty graph."""
        return tried(file, golden_of(file, contract))

    scaled = {**good.constants, "a.scale": good.constants["a.scale"] * np.float32(2.0)}
    gathered = {**good.constants, "a.at": good.constants["a.at"][[1, 0, *range(2, len(good.constants["a.at"]))]]}
    last = good.nodes[-1]
    unknown = (*good.nodes[:-1], replace(last, op="Softsign"))
    wrong_port = tuple(replace(p, dtype="DOUBLE") if p.name == OBSERVATION else p for p in good.inputs)
    zero = change(contract, drive_stiffness_nm_rad=(0.0, *contract.drive_stiffness_nm_rad[1:]))
    return {
        "swapped joints": lambda: tried(
            _with_contract(good, change(contract, joint_names=_swapped(contract.joint_names)))
        ),
        "swapped joints in the graph": lambda: consistent(replace(good, constants=gathered)),
        "wrong scale": lambda: consistent(replace(good, constants=scaled)),
        "missing normaliser": lambda: consistent(_without_normaliser(good)),
        "stale contract": lambda: tried(_with_contract(good, change(contract, robot_sha256="0" * 64))),
        "other quaternion order": lambda: tried(_with_text(good, '"xyzw"', '"wxyz"')),
        "zero gains": lambda: tried(_with_contract(good, zero)),
        "truncated file": lambda: tried_bytes(write(good)[:-5000]),
        "external data": lambda: tried_bytes(_external(write(good))),
        "unknown operator": lambda: tried(replace(good, nodes=unknown)),
        "other opset": lambda: tried(replace(good, opsets={"": 11})),
        "wrong dtype": lambda: tried(replace(good, inputs=wrong_port)),
        "no fault": lambda: tried(good),
    }
