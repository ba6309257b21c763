"""Small artifacts for the tests of the onboard runtime: an MLP with its normaliser inside, made with onnx's own helper."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from robot import artifacts
from robot.contract import Contract
from robot.description import load
from robot.mock import reach_contract
from robot.onboard.artifact import Artifact, from_bytes

HAND = load("hand22")
CONTRACT = reach_contract(HAND, control_hz=50.0)
STD = 0.2


def f4(name: str, value: object) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name)


def model(
    contract: Contract = CONTRACT,
    *,
    hidden: tuple[int, ...] = (32, 32),
    normalise: bool = True,
    graph_contract: Contract | None = None,
    opset: int = 18,
    seed: int = 0,
    activations: tuple[str, ...] = ("Elu", "Tanh"),
    vigour: float = 1.0,
) -> onnx.ModelProto:
    """obs -> clip -> (normalise) -> Gemm, Elu, Gemm, Tanh, Gemm times vigour -> actions -> joint_targets."""
    rng = np.random.default_rng(seed)
    body = graph_contract or contract  # the contract the graph is built from, when a test wants them to disagree
    n, m = body.observation_size, body.action_size
    mean, std = rng.normal(0.0, 0.05, n), rng.uniform(0.1, 1.0, n)
    nodes, weights = [], []

    def node(op: str, output: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def weight(name: str, value: object) -> str:
        weights.append(f4(name, value))
        return name

    x = node("Max", "raised", "obs", weight("obs.low", body.observation_low[None]))
    x = node("Min", "clipped", x, weight("obs.high", body.observation_high[None]))
    if normalise:
        x = node("Sub", "centred", x, weight("mean", mean[None]))
        x = node("Mul", "scaled", x, weight("gain", 1.0 / std[None]))
        x = node("Clip", "limited", x, weight("z.low", -10.0), weight("z.high", 10.0))
    width = n
    for i, size in enumerate((*hidden, m)):
        w = weight(f"w{i}", rng.normal(0.0, width**-0.5, (size, width)) * (vigour if i == len(hidden) else 1.0))
        last = i == len(hidden)
        x = node(
            "Gemm",
            "actions" if last else f"gemm{i}",
            x,
            w,
            weight(f"b{i}", rng.normal(0, 0.1, size) * (vigour if last else 1.0)),
            transB=1,
        )
        if not last:
            x = node(activations[i % len(activations)], f"act{i}", x)
        width = size
    action = body.action
    x = node("Clip", "a.clipped", "actions", weight("a.low", -1.0), weight("a.high", 1.0))
    x = node("Mul", "a.scaled", x, weight("a.scale", np.array([action.scale_rad])))
    if action.mode == "relative":
        term = next(t for t in body.observation if t.name == "joint_target")
        start = body.slices["joint_target"].start
        at = np.array([start + term.elements.index(j) for j in action.joints], dtype=np.int64)
        weights.append(numpy_helper.from_array(at, "a.at"))
        base = node("Gather", "a.base", "obs", "a.at", axis=1)
    else:
        base = weight("a.offset", np.array([action.offset_rad]))
    x = node("Add", "a.moved", x, base)
    x = node("Max", "a.raised", x, weight("a.lower", np.array([action.lower_rad])))
    node("Min", "joint_targets", x, weight("a.upper", np.array([action.upper_rad])))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, n])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, m]) for name in ("actions", "joint_targets")],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(
        proto,
        {
            artifacts.CONTRACT_KEY: contract.to_json(),
            artifacts.CONTRACT_SHA256_KEY: contract.sha256,
            artifacts.EXPLORATION_KEY: json.dumps([STD] * contract.action_size),
            artifacts.NORMALIZER_KEY: json.dumps({"mean": mean.tolist(), "std": std.tolist()}),
        },
    )
    return proto


def golden(proto: onnx.ModelProto, contract: Contract = CONTRACT, n: int = 8, seed: int = 1) -> dict[str, np.ndarray]:
    """Golden arrays of a model, by an onnxruntime that is not ours."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(contract.observation_low, contract.observation_high, (n, contract.observation_size))
    obs = (0.3 * obs).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [session.run(["actions", "joint_targets"], {"obs": row[None]}) for row in obs]
    return {
        "obs": obs,
        "actions": np.concatenate([np.asarray(row[0]) for row in rows]),
        "joint_targets": np.concatenate([np.asarray(row[1]) for row in rows]),
    }


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def artifact(
    proto: onnx.ModelProto | None = None,
    contract: Contract = CONTRACT,
    *,
    arrays: dict[str, np.ndarray] | None = None,
    edit: Callable[[onnx.ModelProto], None] | None = None,
) -> Artifact:
    """An artifact in memory; `edit` changes the file after its golden vectors were taken."""
    proto = proto or model(contract)
    arrays = golden(proto, contract) if arrays is None else arrays
    if edit is not None:
        edit(proto)
    return from_bytes(proto.SerializeToString(), golden=npz(arrays), name="test_policy", version="v1")


def write(folder: Path, made: Artifact) -> Path:
    folder.mkdir(parents=True)
    (folder / "policy.onnx").write_bytes(made.onnx)
    (folder / "golden.npz").write_bytes(npz(made.golden))
    (folder / "card.md").write_text("# test policy\n")
    return folder
