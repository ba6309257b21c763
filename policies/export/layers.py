"""How each layer is written as ONNX operators: one row per layer type, gates of recurrent cells written out.

Explicit gates instead of the GRU operator: exporters have got its `linear_before_reset` silently wrong, and plain operators
convert to generated C and to int8.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from policies.export.errors import UnsupportedLayerError
from policies.export.int8 import levels
from policies.networks import Residual
from robot.artifacts import STATE_IN, STATE_OUT


@dataclass
class Graph:
    """A graph under construction. Every method returns the name of what it made; names follow from the calls alone."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    int8: bool = False

    def matrix(self, name: str, weight: Tensor) -> str:
        """A weight matrix: float32, or int8 rows with a scale each that the graph multiplies out."""
        if not self.int8:
            return self.constant(name, weight)
        q, scale = levels(weight.detach().cpu().numpy())
        self.constants.append(numpy_helper.from_array(q, f"{name}.int8"))
        return self.node("DequantizeLinear", name, f"{name}.int8", self.constant(f"{name}.scale", scale), axis=0)

    def constant(self, name: str, value: np.ndarray | np.floating | Tensor) -> str:
        """A float32 or int64 constant."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=kind), name))
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes) -> str:
        """One operator; its output has the node's name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def input(self, name: str, width: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]))
        return name

    def output(self, name: str, width: int) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]))
        return name


def _linear(graph: Graph, name: str, layer: nn.Linear, x: str) -> str:
    weight = graph.matrix(f"{name}.weight", layer.weight)  # (outputs, inputs), as torch keeps it
    terms = [weight] if layer.bias is None else [weight, graph.constant(f"{name}.bias", layer.bias)]
    return graph.node("Gemm", name, x, *terms, transB=1)


def _layer_norm(graph: Graph, name: str, layer: nn.LayerNorm, x: str) -> str:
    weight, bias = graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)
    return graph.node("LayerNormalization", name, x, weight, bias, axis=-1, epsilon=layer.eps)


def _silu(graph: Graph, name: str, layer: nn.SiLU, x: str) -> str:
    return graph.node("Mul", name, x, graph.node("Sigmoid", f"{name}.sigmoid", x))


def _gru_cell(graph: Graph, name: str, layer: nn.GRUCell, x: str) -> str:
    """r = s(Wr x + Ur h), z = s(Wz x + Uz h), n = tanh(Wn x + r (Un h)), h' = n + z (h - n); biases inside each product.

    The state is an explicit input and output, so that whoever runs the graph decides when it is reset.
    """
    size = layer.hidden_size
    state = graph.input(STATE_IN, size)
    w = graph.matrix(f"{name}.weight_ih", layer.weight_ih)
    u = graph.matrix(f"{name}.weight_hh", layer.weight_hh)
    b_w, b_u = graph.constant(f"{name}.bias_ih", layer.bias_ih), graph.constant(f"{name}.bias_hh", layer.bias_hh)
    axis = graph.constant(f"{name}.axis", np.array([1]))
    from_x = graph.node("Gemm", f"{name}.from_x", x, w, b_w, transB=1)
    from_h = graph.node("Gemm", f"{name}.from_h", state, u, b_u, transB=1)
    part = {}
    for i, gate in enumerate("rzn"):  # torch's order of the stacked matrices
        start = graph.constant(f"{name}.{gate}.start", np.array([i * size]))
        end = graph.constant(f"{name}.{gate}.end", np.array([(i + 1) * size]))
        part[gate] = [
            graph.node("Slice", f"{name}.{gate}.{side}", source, start, end, axis)
            for side, source in (("x", from_x), ("h", from_h))
        ]
    gates = {
        gate: graph.node("Sigmoid", f"{name}.{gate}", graph.node("Add", f"{name}.{gate}.sum", *part[gate]))
        for gate in "rz"
    }
    reset = graph.node("Mul", f"{name}.reset", gates["r"], part["n"][1])
    new = graph.node("Tanh", f"{name}.n", graph.node("Add", f"{name}.n.sum", part["n"][0], reset))
    kept = graph.node("Mul", f"{name}.kept", gates["z"], graph.node("Sub", f"{name}.change", state, new))
    graph.output(STATE_OUT, size)
    return graph.node("Add", STATE_OUT, new, kept)


def _lstm_cell(graph: Graph, name: str, layer: nn.LSTMCell, x: str) -> str:
    """i, f, o = s(W x + U h), g = tanh(Wg x + Ug h), c' = f c + i g, h' = o tanh(c'); biases inside each product.

    The state is one explicit input and output, h and then c.
    """
    size = layer.hidden_size
    state = graph.input(STATE_IN, 2 * size)
    axis = graph.constant(f"{name}.axis", np.array([1]))

    def part(source: str, what: str, i: int) -> str:
        ends = [graph.constant(f"{name}.{what}.{k}", np.array([(i + k) * size])) for k in (0, 1)]
        return graph.node("Slice", f"{name}.{what}", source, *ends, axis)

    h, c = part(state, "h", 0), part(state, "c", 1)
    w, u = (graph.matrix(f"{name}.{which}", getattr(layer, which)) for which in ("weight_ih", "weight_hh"))
    b_w, b_u = (graph.constant(f"{name}.{which}", getattr(layer, which)) for which in ("bias_ih", "bias_hh"))
    from_x = graph.node("Gemm", f"{name}.from_x", x, w, b_w, transB=1)
    total = graph.node("Add", f"{name}.sum", from_x, graph.node("Gemm", f"{name}.from_h", h, u, b_u, transB=1))
    gate = {
        which: graph.node("Tanh" if which == "g" else "Sigmoid", f"{name}.{which}", part(total, f"{which}.sum", i))
        for i, which in enumerate("ifgo")  # torch's order of the stacked matrices
    }
    kept = graph.node("Mul", f"{name}.kept", gate["f"], c)
    after = graph.node("Add", f"{name}.c_out", kept, graph.node("Mul", f"{name}.added", gate["i"], gate["g"]))
    out = graph.node("Mul", f"{name}.h_out", gate["o"], graph.node("Tanh", f"{name}.c_tanh", after))
    graph.output(STATE_OUT, 2 * size)
    graph.node("Concat", STATE_OUT, out, after, axis=1)
    return out


def _residual(graph: Graph, name: str, layer: Residual, x: str) -> str:
    return graph.node("Add", name, x, emit(graph, f"{name}.body", layer.body, x))


Emitter = Callable[[Graph, str, nn.Module, str], str]

LAYERS: dict[type[nn.Module], Emitter] = {
    nn.Linear: _linear,  # type: ignore[dict-item]
    nn.LayerNorm: _layer_norm,  # type: ignore[dict-item]
    nn.GRUCell: _gru_cell,  # type: ignore[dict-item]
    nn.LSTMCell: _lstm_cell,  # type: ignore[dict-item]
    nn.SiLU: _silu,  # type: ignore[dict-item]
    Residual: _residual,  # type: ignore[dict-item]
    nn.ELU: lambda graph, name, layer, x: graph.node("Elu", name, x, alpha=float(layer.alpha)),  # type: ignore[arg-type]
    nn.ReLU: lambda graph, name, layer, x: graph.node("Relu", name, x),
    nn.Tanh: lambda graph, name, layer, x: graph.node("Tanh", name, x),
}


def emit(graph: Graph, name: str, layer: nn.Module, x: str) -> str:
    """Write one layer, or a Sequential of layers.

    Raises:
        UnsupportedLayerError: No row for that type; the message lists the known ones.
    """
    if type(layer) is nn.Sequential:
        for i, part in enumerate(layer):
            x = emit(graph, f"{name}.{i}", part, x)
        return x
    if type(layer) not in LAYERS:  # exactly: a subclass may compute something else
        raise UnsupportedLayerError(name, type(layer).__name__, [known.__name__ for known in LAYERS])
    return LAYERS[type(layer)](graph, name, layer, x)
