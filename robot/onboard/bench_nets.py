"""Networks that nobody trained, for measuring: 98-512-256-128-29 and a GRU of 128, on 29 joints of the humanoid.

The sizes are those of a walking policy that unitree_rl_mjlab ships (871,168 bytes of weights); the humanoid's mock answers for the
robot. Weights are random, scaled so that activations stay in range.
"""

import io
import json

import numpy as np

from robot import artifacts
from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION, STATE_IN, STATE_OUT
from robot.contract import ActionTerm, Contract, Term
from robot.description import load as load_robot
from robot.description.model import RobotModel
from robot.errors import UnknownNameError
from robot.onboard.artifact import Artifact, from_bytes
from robot.onboard.onnxfile import Node, OnnxFile, Port
from robot.onboard.onnxwrite import write
from robot.onboard.operators import evaluate

ROBOT, ENV_ID = "humanoid", "bench/Idle-v0"
JOINTS, OBSERVATIONS = 29, 98
HIDDEN, CELLS = (512, 256, 128), 128
NETS = ("mlp", "gru")
GOLDEN = 32
SEED = 0


def bench_contract(model: RobotModel, control_hz: float) -> Contract:
    """98 observations of 29 joints and the IMU, 29 relative actions."""
    joints = tuple(motor.joint for motor in (*model.drives, *model.tendons))[:JOINTS]
    rows = [model.index(joint) for joint in joints]
    low, high = tuple(model.lower_rad[rows].tolist()), tuple(model.upper_rad[rows].tolist())

    def term(name: str, elements: tuple[str, ...], unit: str, frame: str, limit: float) -> Term:
        n = len(elements)
        return Term(name=name, elements=elements, unit=unit, frame=frame, low=(-limit,) * n, high=(limit,) * n)

    return Contract(
        env_id=ENV_ID,
        robot=model.name,
        robot_sha256=model.sha256,
        joint_names=model.joint_names,
        home_rad=tuple(model.home_rad.tolist()),
        control_hz=control_hz,
        observation=(
            term("joint_position", joints, "rad", "joint", 4.0),
            term("joint_velocity", joints, "rad/s", "joint", 30.0),
            term("joint_target", joints, "rad", "joint", 4.0),
            term("base_gyro", ("x", "y", "z"), "rad/s", "base", 10.0),
            term("projected_gravity", ("x", "y", "z"), "1", "base", 1.0),
            term("previous_action", joints[:5], "1", "action", 1.0),
        ),
        action=ActionTerm(
            joints=joints,
            mode="relative",
            scale_rad=(0.05,) * JOINTS,
            offset_rad=(0.0,) * JOINTS,
            lower_rad=low,
            upper_rad=high,
        ),
        motor_names=model.motor_names,
        servo_stiffness_n_m=tuple(t.servo_stiffness_n_m for t in model.tendons),
        servo_damping_n_s_m=tuple(t.servo_damping_n_s_m for t in model.tendons),
        drive_stiffness_nm_rad=tuple(d.servo_stiffness_nm_rad for d in model.drives),
        drive_damping_nm_s_rad=tuple(d.servo_damping_nm_s_rad for d in model.drives),
    )


class _Writer:
    """Nodes and weights of a graph under construction."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(seed)

    def node(self, op: str, output: str, *inputs: str, **attributes: int | float) -> str:
        named = {key: value for key, value in attributes.items()}
        self.nodes.append(Node(op=op, domain="", name=output, inputs=inputs, outputs=(output,), attributes=named))  # type: ignore[arg-type]
        return output

    def constant(self, name: str, value: object) -> str:
        array = np.asarray(value)
        self.constants[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def gemm(self, output: str, x: str, inputs: int, outputs: int) -> str:
        weight = self._rng.normal(0.0, inputs**-0.5, (outputs, inputs))
        bias = self._rng.normal(0.0, 0.1, outputs)
        names = self.constant(f"{output}.weight", weight), self.constant(f"{output}.bias", bias)
        return self.node("Gemm", output, x, *names, transB=1)


def _gru(w: _Writer, x: str, inputs: int) -> str:
    """Explicit gates, as policies/export/layers.py writes them."""
    from_x, from_h = w.gemm("from_x", x, inputs, 3 * CELLS), w.gemm("from_h", STATE_IN, CELLS, 3 * CELLS)
    axis, part = w.constant("axis", [1]), {}
    for i, gate in enumerate("rzn"):
        ends = w.constant(f"{gate}.start", [i * CELLS]), w.constant(f"{gate}.end", [(i + 1) * CELLS])
        part[gate] = [
            w.node("Slice", f"{gate}.{s}", source, *ends, axis) for s, source in (("x", from_x), ("h", from_h))
        ]
    r, z = (w.node("Sigmoid", gate, w.node("Add", f"{gate}.sum", *part[gate])) for gate in "rz")
    new = w.node("Tanh", "n", w.node("Add", "n.sum", part["n"][0], w.node("Mul", "reset", r, part["n"][1])))
    kept = w.node("Mul", "kept", z, w.node("Sub", "change", STATE_IN, new))
    return w.node("Add", STATE_OUT, new, kept)


def net_file(kind: str, contract: Contract, seed: int = SEED) -> OnnxFile:
    """A graph as an export writes it: clip, normalise, network, joint targets.

    Raises:
        UnknownNameError: `kind` is none of `NETS`.
    """
    if kind not in NETS:
        raise UnknownNameError("network", kind, NETS)
    w, n, m = _Writer(seed), contract.observation_size, contract.action_size
    mean, std = np.zeros(n), np.full(n, 0.7)
    x = w.node("Max", "raised", OBSERVATION, w.constant("low", contract.observation_low[None]))
    x = w.node("Min", "clipped", x, w.constant("high", contract.observation_high[None]))
    x = w.node("Sub", "centred", x, w.constant("mean", mean[None]))
    x = w.node("Mul", "scaled", x, w.constant("gain", 1.0 / std[None]))
    x = w.node("Clip", "limited", x, w.constant("z.low", -10.0), w.constant("z.high", 10.0))
    width = n
    if kind == "gru":
        x, width = _gru(w, x, n), CELLS
    for i, size in enumerate(HIDDEN if kind == "mlp" else (CELLS,)):
        x = w.node("Elu", f"elu{i}", w.gemm(f"layer{i}", x, width, size), alpha=1.0)
        width = size
    w.gemm(ACTIONS, x, width, m)
    action = contract.action
    x = w.node("Clip", "a.clipped", ACTIONS, w.constant("a.low", -1.0), w.constant("a.high", 1.0))
    x = w.node("Mul", "a.scaled", x, w.constant("a.scale", [action.scale_rad]))
    start = contract.slices["joint_target"].start
    w.constant("a.at", start + np.arange(m))
    x = w.node("Add", "a.moved", x, w.node("Gather", "a.base", OBSERVATION, "a.at", axis=1))
    x = w.node("Max", "a.raised", x, w.constant("a.lower", [action.lower_rad]))
    w.node("Min", JOINT_TARGETS, x, w.constant("a.upper", [action.upper_rad]))

    def port(name: str, size: int) -> Port:
        return Port(name=name, dtype="FLOAT", shape=(1, size))

    state = [(STATE_IN, STATE_OUT)] if kind == "gru" else []
    return OnnxFile(
        ir_version=10,
        opsets={"": 18},
        metadata={
            artifacts.CONTRACT_KEY: contract.to_json(),
            artifacts.CONTRACT_SHA256_KEY: contract.sha256,
            artifacts.EXPLORATION_KEY: json.dumps([0.1] * m),
            artifacts.NORMALIZER_KEY: json.dumps({"mean": mean.tolist(), "std": std.tolist()}),
        },
        nodes=tuple(w.nodes),
        constants=w.constants,
        inputs=(port(OBSERVATION, n), *(port(name, CELLS) for name, _ in state)),
        outputs=(port(ACTIONS, m), port(JOINT_TARGETS, m), *(port(name, CELLS) for _, name in state)),
    )


def golden_of(file: OnnxFile, contract: Contract, seed: int = SEED) -> dict[str, np.ndarray]:
    """Golden vectors by the operator table in numpy, the recurrent state carried along."""
    rng = np.random.default_rng(seed)
    rows = (0.3 * rng.uniform(contract.observation_low, contract.observation_high, (GOLDEN, OBSERVATIONS))).astype(
        np.float32
    )
    state = {p.name: np.zeros(p.shape, dtype=np.float32) for p in file.inputs if p.name == STATE_IN}
    found: dict[str, list[np.ndarray]] = {}
    for row in rows:
        inputs = {OBSERVATION: row[None], **state}
        values = evaluate(file, inputs)
        for name in (*inputs, *(p.name for p in file.outputs)):
            found.setdefault(name, []).append(values[name])
        state = {name: values[STATE_OUT] for name in state}
    return {name: np.concatenate(values).astype(np.float32) for name, values in found.items()}


def to_artifact(file: OnnxFile, golden: dict[str, np.ndarray], name: str) -> Artifact:
    packed = io.BytesIO()
    np.savez(packed, **golden)  # type: ignore[arg-type]
    return from_bytes(write(file), golden=packed.getvalue(), name=name, version="v0")


def bench_net(kind: str, control_hz: float = 50.0) -> Artifact:
    """An artifact in memory.

    Args:
        kind: One of `NETS`.
        control_hz: Of its contract.
    """
    contract = bench_contract(load_robot(ROBOT), control_hz)
    file = net_file(kind, contract)
    return to_artifact(file, golden_of(file, contract), f"bench_{kind}")
