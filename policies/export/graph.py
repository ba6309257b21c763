"""From an actor and its contract to one ONNX model: clip, normalise, network, mean action; and from that joint targets in radians.

Built from the weights with onnx.helper, so that nothing depends on an exporter: opset 18, IR 10, batch 1, no external data, and
the same bytes for the same weights.
"""

import numpy as np
import onnx
import torch
from onnx import helper

from policies.export.errors import ExportError
from policies.export.layers import Graph, emit
from policies.networks import Actor
from policies.normalizer import CLIP_SIGMA
from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION
from robot.contract import ActionTerm, Contract

OPSET = 18  # loads on every onnxruntime a robot has today (1.14 and later)
IR_VERSION = 10
BASE_TERM = "joint_target"  # the observation term that relative actions add to
PRODUCER = "flexor"

# Operators the builder may write; a runtime that reads untrusted files can hold its allow-list against this.
OPERATORS = frozenset(
    "Add Clip Concat DequantizeLinear Elu Gather Gemm LayerNormalization Max Min Mul Relu Sigmoid Slice Sub Tanh".split()  # noqa: SIM905
)


def check_exportable(actor: Actor, contract: Contract) -> None:
    """Refuse an actor that does not belong to the contract or cannot be trusted.

    Raises:
        ExportError: A weight is NaN or infinite (named), the normaliser has seen nothing, the actor has other widths or clips to
            other ranges than the contract.
    """
    unlimited = {"inputs.low", "inputs.high"}  # may be infinite, not NaN
    for name, value in actor.state_dict().items():
        wrong = torch.isnan(value) if name in unlimited else ~torch.isfinite(value)
        if wrong.any():
            raise ExportError(
                f"weight {name} must be finite, got NaN or infinity in {int(wrong.sum())} of {value.numel()} elements.\n"
                f"  do: export an earlier checkpoint; this run has diverged"
            )
    widths = (actor.observation_size, actor.action_size)
    if widths != (contract.observation_size, contract.action_size):
        raise ExportError(
            f"actor takes {widths[0]} observations and gives {widths[1]} actions, the contract of {contract.env_id} has "
            f"{contract.observation_size} and {contract.action_size}"
        )
    if actor.normalizer.count.item() < 1.0:
        raise ExportError(
            "the actor's normaliser has seen no observations: the policy was trained on something else than it would get.\n"
            "  do: call actor.update_normalizer(observations) in training"
        )
    for name, ours, theirs in (
        ("low", actor.inputs.low, contract.observation_low),
        ("high", actor.inputs.high, contract.observation_high),
    ):
        different = np.flatnonzero(ours.cpu().numpy() != theirs)
        if different.size:
            i = int(different[0])
            raise ExportError(
                f"the actor clips observations to other ranges than the contract in {different.size} elements; "
                f"first: {name}[{i}] actor {ours[i].item()}, contract {theirs[i].item()}.\n"
                f"  do: build it with Actor.for_contract(contract, ...)"
            )


def relative_base(contract: Contract) -> np.ndarray:
    """Where in the observation the target in force of each action joint is, shape (m,) int64.

    Raises:
        ExportError: The contract observes no `joint_target`, or not that of every joint it moves.
    """
    term = next((term for term in contract.observation if term.name == BASE_TERM), None)
    missing = [joint for joint in contract.action.joints if term is None or joint not in term.elements]
    if term is None or missing:
        raise ExportError(
            f"actions of {contract.env_id} are relative, so the file needs the target in force of every joint it moves, but "
            f"the observation has {'no term' if term is None else 'a term without these joints:'} "
            f"{BASE_TERM if term is None else ', '.join(missing)}.\n"
            f"  do: add the term {BASE_TERM!r} over all action joints to the contract, or use absolute actions"
        )
    start = contract.slices[BASE_TERM].start
    return np.array([start + term.elements.index(joint) for joint in contract.action.joints], dtype=np.int64)


def joint_targets(contract: Contract, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """What the graph's `joint_targets` must be, in float64: the reference of the parity gate.

    Args:
        observation: shape (n, observation_size).
        action: Raw mean actions, shape (n, action_size).

    Returns:
        Targets, shape (n, action_size) [rad], in the order of `contract.action.joints`.
    """
    term = contract.action
    moved = np.asarray(term.scale_rad) * np.clip(action.astype(np.float64), -1.0, 1.0)
    if term.mode == "relative":
        moved += observation[:, relative_base(contract)].astype(np.float64)
    else:
        moved += np.asarray(term.offset_rad)
    return np.clip(moved, term.lower_rad, term.upper_rad)


def _limits(graph: Graph, name: str, x: str, low: np.ndarray, high: np.ndarray, output: str) -> str:
    """Element-wise clip; ONNX's Clip takes scalars only."""
    raised = graph.node("Max", f"{name}.raised", x, graph.constant(f"{name}.low", low[None]))
    return graph.node("Min", output, raised, graph.constant(f"{name}.high", high[None]))


def _targets(graph: Graph, contract: Contract) -> None:
    term: ActionTerm = contract.action
    low, high = graph.constant("action.low", np.float32(-1.0)), graph.constant("action.high", np.float32(1.0))
    clipped = graph.node("Clip", "action.clipped", ACTIONS, low, high)
    scale = graph.constant("action.scale_rad", np.array([term.scale_rad], dtype=np.float64))
    scaled = graph.node("Mul", "action.scaled", clipped, scale)
    if term.mode == "relative":  # from the observation as it came: the term's clip range is the network's affair
        base = graph.node(
            "Gather", "action.base", OBSERVATION, graph.constant("action.base_at", relative_base(contract)), axis=1
        )
    else:
        base = graph.constant("action.offset_rad", np.array([term.offset_rad], dtype=np.float64))
    moved = graph.node("Add", "action.moved", scaled, base)
    lower, upper = np.array(term.lower_rad), np.array(term.upper_rad)
    _limits(graph, "action.range", moved, lower, upper, JOINT_TARGETS)


def build(
    actor: Actor, contract: Contract, metadata: dict[str, str] | None = None, *, int8: bool = False
) -> onnx.ModelProto:
    """The model: `obs` [1, n] -> `actions` [1, m], `joint_targets` [1, m], with the metadata in sorted order.

    Joint targets are computed from float32 observations: they agree with `Interface.command`, which works in float64 on the
    robot's own target, to within `parity.TARGET_TOLERANCE_RAD`. With `int8` the weights are written in eight bits; they must be
    those that eight bits leave (`int8.quantized`).

    Raises:
        ExportError: See `check_exportable` and `relative_base`.
        UnsupportedLayerError: A layer without a row in `layers.LAYERS`.
    """
    check_exportable(actor, contract)
    graph = Graph(int8=int8)
    x = graph.input(OBSERVATION, contract.observation_size)
    inputs, normalizer = actor.inputs, actor.normalizer
    low, high = inputs.low.cpu().numpy(), inputs.high.cpu().numpy()
    if np.isfinite(low).any() or np.isfinite(high).any():
        x = _limits(graph, "inputs.range", x, low, high, "inputs.clipped")
    x = graph.node("Sub", "normalizer.centred", x, graph.constant("normalizer.shift", normalizer.shift[None]))
    x = graph.node("Mul", "normalizer.scaled", x, graph.constant("normalizer.gain", normalizer.gain[None]))
    sigma = [
        graph.constant(f"normalizer.{side}", np.float32(v)) for side, v in (("low", -CLIP_SIGMA), ("high", CLIP_SIGMA))
    ]
    x = graph.node("Clip", "normalizer.clipped", x, *sigma)
    x = emit(graph, "body", actor.body, x)
    x = emit(graph, "head", actor.head, x)
    # The last operator of the network is the output itself, whatever it was.
    if actor.squash == "tanh":
        graph.node("Tanh", ACTIONS, x)
    else:
        graph.nodes[-1].output[0] = ACTIONS
    _targets(graph, contract)
    outputs = list(graph.outputs)
    graph.outputs.clear()
    graph.output(ACTIONS, contract.action_size)
    graph.output(JOINT_TARGETS, contract.action_size)
    graph.outputs.extend(outputs)
    written = helper.make_graph(graph.nodes, contract.env_id, graph.inputs, graph.outputs, graph.constants)
    model = helper.make_model(
        written, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=PRODUCER
    )
    helper.set_model_props(model, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(model, full_check=True)
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The file's bytes; the same model gives the same bytes."""
    return model.SerializeToString(deterministic=True)
