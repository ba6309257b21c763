"""May this artifact drive this robot? Every rule before the first command; every refusal has its own class (`refusals`).

Order, cheapest and safest first; a later step only sees what passed the earlier ones:

1. size, hash                          bytes only
2. external data, subgraphs, dtypes    our own reader, no native code (`onnxfile`)
3. operators, opset, inputs, outputs   `examine`
4. contract against robot, rate        `fits`
5. golden vectors, joint targets, random observations, time, in onnxruntime, in a child process with limits (`judge`)

1 and 2 happen when the artifact is loaded.
"""

import hashlib
import io
import struct
import subprocess
from dataclasses import dataclass

import msgspec
import numpy as np

from robot.artifacts import ACTIONS, JOINT_TARGETS, NORMALIZER_KEY, OBSERVATION, STATE_IN, STATE_OUT
from robot.contract import ContractMismatchError, Interface, OtherElementsError
from robot.description.model import RobotModel
from robot.onboard.artifact import Artifact, refusing
from robot.onboard.measures import unmeasured
from robot.onboard.operators import check_operators
from robot.onboard.processes import ROOT, python_module
from robot.onboard.refusals import (
    AlteredFileError,
    BadContractError,
    DtypeError,
    ElementsError,
    GraphInterfaceError,
    JointOrderError,
    JudgeError,
    MissingNormaliserError,
    OpsetError,
    OtherRobotError,
    RateError,
    StaleContractError,
    UnmeasuredError,
    by_name,
)
from robot.safety import LEAST_STD
from robot.state import RobotState

OPSETS = range(17, 22)  # LayerNormalization came with 17; robots carry onnxruntime 1.22 and later, which reads up to 22
IR_VERSIONS = range(8, 11)
JUDGE_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Admission:
    """An artifact that may drive a robot.

    Attributes:
        interface: The contract bound to the robot.
        figures: What the rehearsal saw.
    """

    artifact: Artifact
    interface: Interface
    figures: dict[str, float]


def examine(artifact: Artifact) -> None:
    """Rules on the file alone.

    Raises:
        OpsetError, ForbiddenOperatorError, GraphInterfaceError, DtypeError, MissingNormaliserError
    """
    file, contract = artifact.file, artifact.contract
    if file.ir_version not in IR_VERSIONS:
        raise OpsetError(f"file version must be {IR_VERSIONS[0]}..{IR_VERSIONS[-1]}, got {file.ir_version}")
    if set(file.opsets) != {""}:
        raise OpsetError(f"only ONNX's own operators are allowed, the file asks for domains {sorted(file.opsets)}")
    if file.opsets[""] not in OPSETS:
        raise OpsetError(f"opset must be {OPSETS[0]}..{OPSETS[-1]}, got {file.opsets['']}; export with opset 18")
    check_operators(file)
    _check_normaliser(artifact)
    n, m = contract.observation_size, contract.action_size
    recurrent = any(port.name == STATE_IN for port in file.inputs)
    state = next((port.shape for port in file.inputs if port.name == STATE_IN), ())
    for kind, ports, expected in (
        ("input", file.inputs, {OBSERVATION: (1, n), **({STATE_IN: state} if recurrent else {})}),
        ("output", file.outputs, {ACTIONS: (1, m), JOINT_TARGETS: (1, m), **({STATE_OUT: state} if recurrent else {})}),
    ):
        seen = {port.name: port.shape for port in ports}
        if seen != expected or (recurrent and (len(state) != 2 or state[0] != 1 or state[1] < 1)):
            raise GraphInterfaceError(f"graph {kind}s must be {expected} for this contract, got {seen}")
        for port in ports:
            if port.dtype != "FLOAT":
                raise DtypeError(f"{kind} {port.name!r} must be FLOAT, got {port.dtype}")


def _check_normaliser(artifact: Artifact) -> None:
    """An exporter that forgot the normaliser takes golden vectors from the graph without it, and they agree.

    Raises:
        MissingNormaliserError: No node takes the mean away, or none divides by the standard deviation.
    """
    if artifact.normaliser is None:
        return
    file, mean, std = artifact.file, artifact.normaliser.mean, np.maximum(artifact.normaliser.std, LEAST_STD)
    for what, ops in (("mean", {"Sub": mean, "Add": -mean}), ("standard deviation", {"Mul": 1.0 / std, "Div": std})):
        if not any(
            name in file.constants and _is(file.constants[name], ops[node.op])
            for node in file.nodes
            if node.op in ops
            for name in node.inputs
        ):
            raise MissingNormaliserError(
                f"{NORMALIZER_KEY} in the file's metadata says how observations were normalised, and no node of the graph "
                f"applies that {what}; was it left behind in training's wrapper?"
            )


def _is(constant: np.ndarray, expected: np.ndarray) -> bool:
    flat = np.broadcast_to(constant.reshape(-1), expected.shape) if constant.size == 1 else constant.reshape(-1)
    return flat.shape == expected.shape and np.allclose(flat, expected, rtol=1e-4, atol=1e-6)


def resting(model: RobotModel) -> RobotState:
    """A robot at home with every sensor it can have, an object at its base."""
    n, motors = len(model.joints), len(model.motor_names)
    floating, upright = model.floating, np.array([0.0, 0.0, 0.0, 1.0])
    return RobotState(
        time_s=0.0,
        q_rad=model.home_rad.copy(),
        qd_rad_s=np.zeros(n),
        target_rad=model.home_rad.copy(),
        motor_rad=np.zeros(motors),
        motor_rad_s=np.zeros(motors),
        motor_current_a=np.zeros(motors),
        motor_temperature_c=np.full(motors, 25.0),
        tip_force_n=np.zeros(len(model.tips)),
        imu_gyro_rad_s=np.zeros(3 if floating else 0),
        imu_quat_xyzw=upright if floating else np.zeros(0),
        object_pose=np.concatenate([np.zeros(3), upright]),
    )


def fits(artifact: Artifact, model: RobotModel, control_hz: float | None = None) -> Interface:
    """Rules on the contract and the robot.

    Raises:
        OtherRobotError, JointOrderError, StaleContractError: The contract is for another robot, for its joints in another
            order, or for an older description of it.
        ElementsError: Its observation is of elements that the robot has under other names or in another order.
        UnmeasuredError: The policy observes what the robot has no sensor for.
        BadContractError: It observes what no description has.
        RateError: The robot runs at another rate.
    """
    contract = artifact.contract
    try:
        with refusing(BadContractError, "the contract cannot be followed"):
            interface = contract.bind(model)
            interface.observe(resting(model), interface.memory())
    except BadContractError as bad:
        error = bad.__cause__
        if not isinstance(error, ContractMismatchError):
            raise
        if isinstance(error, OtherElementsError):
            raise ElementsError(str(error)) from error
        if contract.robot != model.name:
            raise OtherRobotError(str(error)) from error
        if contract.joint_names != model.joint_names or contract.motor_names != model.motor_names:
            raise JointOrderError(str(error)) from error
        raise StaleContractError(str(error)) from error
    blind = unmeasured(contract, model)
    if blind:
        lines = "\n".join(f"  {term}: {why}" for term, why in blind)
        raise UnmeasuredError(f"{artifact.label} observes what {model.name} cannot measure:\n{lines}")
    if control_hz is not None and abs(control_hz - contract.control_hz) > 1e-6 * contract.control_hz:
        raise RateError(
            f"{artifact.label} was trained at {contract.control_hz:g} Hz, the robot runs at {control_hz:g} Hz"
        )
    return interface


def admit(
    artifact: Artifact,
    model: RobotModel,
    *,
    control_hz: float | None = None,
    expected_sha256: str | None = None,
    seed: int = 0,
) -> Admission:
    """Apply every rule.

    Args:
        artifact: From `robot.onboard.artifact.load`.
        model: The robot it shall drive.
        control_hz: The robot's control rate, None if it follows the contract.
        expected_sha256: What the signed assignment says policy.onnx hashes to, None if nobody said.
        seed: Of the random observations.

    Raises:
        AdmissionError: Its class says why not.
    """
    seen = hashlib.sha256(artifact.onnx).hexdigest()
    if expected_sha256 is not None and seen != expected_sha256:
        raise AlteredFileError(
            f"policy.onnx was announced with sha256 {expected_sha256[:12]}, its bytes have {seen[:12]}"
        )
    examine(artifact)
    interface = fits(artifact, model, control_hz)
    return Admission(artifact=artifact, interface=interface, figures=judge(artifact, seed=seed))


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge process prints: a refusal's class and text, or figures."""

    error: str = ""
    text: str = ""
    figures: dict[str, float] = {}


def case(artifact: Artifact, seed: int) -> bytes:
    """What the judge process reads: seed, length of the policy, the policy, the golden arrays as .npz."""
    golden = io.BytesIO()
    np.savez(golden, **artifact.golden)  # type: ignore[arg-type]
    return struct.pack("<QQ", seed, len(artifact.onnx)) + artifact.onnx + golden.getvalue()


def judge(artifact: Artifact, *, seed: int = 0, timeout_s: float = JUDGE_TIMEOUT_S) -> dict[str, float]:
    """Rehearse in a child process with limits on memory, time, files; it dies with this one.

    Raises:
        AdmissionError: What the rehearsal refused, or JudgeError when the child did not live to say.
    """
    try:
        done = subprocess.run(
            python_module("robot.onboard.judge"),
            input=case(artifact, seed),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired as error:
        raise JudgeError(f"trying {artifact.label} took more than {timeout_s:g} s") from error
    try:
        verdict = msgspec.json.decode(done.stdout, type=Verdict)
    except msgspec.MsgspecError as error:
        words = done.stderr[-500:].decode(errors="replace").strip()
        raise JudgeError(f"trying {artifact.label} ended with exit code {done.returncode}: {words}") from error
    if verdict.error:
        raise by_name(verdict.error)(verdict.text)
    return verdict.figures
