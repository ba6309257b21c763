"""The operators a policy may use, in numpy: the allow-list and the numpy backend are the same table.

Each row is (attributes, inputs) -> output, as onnx/docs/Operators.md says for opsets 17 to 21. All shapes are static; a node
has one output.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from robot.onboard.onnxfile import Attribute, OnnxFile
from robot.onboard.refusals import ForbiddenOperatorError, GraphInterfaceError

Attributes = dict[str, Attribute]
Operator = Callable[..., np.ndarray]


def _gemm(a: Attributes, x: np.ndarray, w: np.ndarray, c: np.ndarray | None = None) -> np.ndarray:
    x = x.T if a.get("transA", 0) else x
    w = w.T if a.get("transB", 0) else w
    y = np.float32(a.get("alpha", 1.0)) * (x @ w)  # type: ignore[arg-type]
    return y if c is None else y + np.float32(a.get("beta", 1.0)) * c  # type: ignore[arg-type]


def _clip(a: Attributes, x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> np.ndarray:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _elu(a: Attributes, x: np.ndarray) -> np.ndarray:
    alpha = np.float32(a.get("alpha", 1.0))  # type: ignore[arg-type]
    return np.where(x < 0.0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _dequantize(a: Attributes, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if scale.ndim == 1:
        shape = [1] * x.ndim
        shape[int(a.get("axis", 1))] = scale.size  # type: ignore[arg-type]
        scale = scale.reshape(shape)
    return x.astype(scale.dtype) * scale


def _sigmoid(a: Attributes, x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)  # cannot overflow


def _layer_norm(a: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    axes = tuple(range(int(a.get("axis", -1)) % x.ndim, x.ndim))  # type: ignore[arg-type]
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = (centred * centred).mean(axis=axes, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(a.get("epsilon", 1e-5))) * scale  # type: ignore[arg-type]
    return y if bias is None else y + bias


def _slice(
    a: Attributes,
    x: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    where: list[Any] = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i])
        step = 1 if steps is None else int(steps[i])
        if step <= 0:
            raise ForbiddenOperatorError(f"Slice with step {step}; steps must be > 0")
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


# Moving numbers about, without arithmetic: these rows also run on indices (robot.onboard.codegen).
MOVES: dict[str, Operator] = {
    "Concat": lambda a, *xs: np.concatenate(xs, axis=int(a["axis"])),  # type: ignore[arg-type]
    "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[: int(a.get("axis", 1))])), -1),  # type: ignore[arg-type]
    "Gather": lambda a, x, at: np.take(x, at, axis=int(a.get("axis", 0))),  # type: ignore[arg-type]
    "Identity": lambda a, x: x,
    "Slice": _slice,
}

OPERATORS: dict[str, Operator] = {
    **MOVES,
    "Add": lambda a, x, y: x + y,
    "Clip": _clip,
    "Constant": lambda a: np.asarray(a["value"]),
    "DequantizeLinear": _dequantize,
    "Div": lambda a, x, y: x / y,
    "Elu": _elu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda a, x, y: x @ y,
    "Max": lambda a, x, *ys: np.maximum.reduce(np.broadcast_arrays(x, *ys)),
    "Min": lambda a, x, *ys: np.minimum.reduce(np.broadcast_arrays(x, *ys)),
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: np.maximum(x, np.float32(0.0)),
    "Sigmoid": _sigmoid,
    "Sub": lambda a, x, y: x - y,
    "Tanh": lambda a, x: np.tanh(x),
}


MAX_MADE_BYTES = 64 * 1024 * 1024  # by all nodes together; those of 512-256-128 make 10 kB


def check_operators(file: OnnxFile) -> None:
    """Refuse a graph with an operator outside the table, or nodes that are not in order.

    Raises:
        ForbiddenOperatorError: An unknown operator, another domain, or more than one output.
        GraphInterfaceError: A node reads what nothing before it made, or makes what nobody reads.
    """
    made = {"", *file.constants, *(port.name for port in file.inputs)}
    for node in file.nodes:
        if node.domain or node.op not in OPERATORS:
            full = f"{node.domain}.{node.op}" if node.domain else node.op
            raise ForbiddenOperatorError(
                f"operator {full!r} (node {node.name!r}) is not allowed. Known: {', '.join(sorted(OPERATORS))}"
            )
        if len(node.outputs) != 1:
            raise ForbiddenOperatorError(
                f"{node.op} (node {node.name!r}) must have one output, got {len(node.outputs)}"
            )
        missing = [name for name in node.inputs if name not in made]
        if missing:
            raise GraphInterfaceError(
                f"{node.op} (node {node.name!r}) reads {missing[0]!r}, which nothing before it makes"
            )
        made.add(node.outputs[0])
    missing = [port.name for port in file.outputs if port.name not in made]
    if missing:
        raise GraphInterfaceError(f"output {missing[0]!r} is made by no node")
    read = {port.name for port in file.outputs} | {name for node in file.nodes for name in node.inputs}
    for node in file.nodes:
        if node.outputs[0] not in read:  # some readers skip it, so its cost would not be judged
            raise GraphInterfaceError(f"{node.op} (node {node.name!r}) makes {node.outputs[0]!r}, which nobody reads")


def evaluate(file: OnnxFile, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of the graph for some inputs, by name; float32 throughout.

    Raises:
        GraphInterfaceError: Together they are larger than any policy's.
    """
    values: dict[str, Any] = {"": None, **file.constants, **inputs}
    made = 0
    for node in file.nodes:
        value = OPERATORS[node.op](node.attributes, *(values[name] for name in node.inputs))
        made += value.nbytes
        if made > MAX_MADE_BYTES:
            raise GraphInterfaceError(
                f"{node.op} (node {node.name!r}): the graph makes more than {MAX_MADE_BYTES:,} bytes of tensors"
            )
        values[node.outputs[0]] = value
    return values
