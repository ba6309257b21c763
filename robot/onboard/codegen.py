"""A policy's graph as C: straight-line loops over fixed offsets, no allocation, no branches on data.

The text depends on the graph's structure and sizes only; weights come in through a pointer, so another policy of the same shape
needs no compiler. `io` holds inputs, outputs and intermediate tensors at fixed places; `w` holds the weights as `pack` laid them out.

exp and tanh are written out so that the compiler can vectorise them: Cephes' expf (Moshier), 2 ulp; tanh x = (1 - e)/(1 + e) with
e = exp(-2 |x|), within 2e-7. NaN in an observation never gets here; a NaN born inside passes every clip and reaches `actions`, which the loop checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from robot.errors import FlexorError
from robot.onboard.onnxfile import Node, OnnxFile
from robot.onboard.operators import MOVES, OPERATORS, evaluate

MAX_TEXT = 1_000_000  # characters; a GRU and an MLP have 5 thousand, and a compiler needs memory for each
MAX_TERMS = 64  # of one sum, product or maximum; compilers bound how deep an expression may nest
ALIGN = 16  # floats: one cache line
BLOCK = 64  # outputs of a matrix product kept in registers; half of it for narrow ones

PRELUDE = """\
#include <math.h>
#include <string.h>

static inline float fx_exp(float x) {
    x = x > 88.3f ? 88.3f : x;
    x = x < -87.3f ? -87.3f : x;
    float n = floorf(1.44269504088896341f * x + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int bits = ((int)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
static inline float fx_tanh(float x) {
    float e = fx_exp(-2.0f * fabsf(x));
    return copysignf((1.0f - e) / (1.0f + e), x);
}
static inline float fx_sigmoid(float x) { return 0.5f * fx_tanh(0.5f * x) + 0.5f; }
/* As numpy's: what is not a number stays so. */
static inline float fx_max(float a, float b) { return a > b || a != a ? a : b; }
static inline float fx_min(float a, float b) { return a < b || a != a ? a : b; }
static inline float fx_elu(float x, float a) { return x < 0.0f ? a * (fx_exp(x) - 1.0f) : x; }

/* Weights are read once, in order. Hardware prefetchers stop at the ends of pages, so the lines of a page later are asked for here. */
#define AHEAD 1024
#define GEMM(NAME, B) \\
static void NAME(const float *restrict x, const float *restrict w, const float *restrict b, float *restrict y, int k, int n) { \\
    for (int j0 = 0; j0 < n; j0 += B, w += (long)k * B) { \\
        float acc[B]; \\
        for (int j = 0; j < B; j++) acc[j] = b[j0 + j]; \\
        for (int i = 0; i < k; i++) { \\
            const float xi = x[i]; \\
            for (int j = 0; j < B; j += 16) __builtin_prefetch(w + (long)i * B + j + AHEAD); \\
            for (int j = 0; j < B; j++) acc[j] += xi * w[(long)i * B + j]; \\
        } \\
        const int m = n - j0 < B ? n - j0 : B; \\
        for (int j = 0; j < m; j++) y[j0 + j] = acc[j]; \\
    } \\
}
"""


class CodegenError(FlexorError):
    """A graph the generator has no C for; the other backends run it."""


@dataclass
class Program:
    """C text under construction, with the layout of `io` and `w`.

    Attributes:
        at: Offset of each tensor in `io`.
        shape: Shape of every tensor.
    """

    shape: dict[str, tuple[int, ...]]
    constants: dict[str, np.ndarray]
    at: dict[str, int] = field(default_factory=dict)
    io_size: int = 0
    weights: list[np.ndarray] = field(default_factory=list)
    w_size: int = 0
    lines: list[str] = field(default_factory=list)

    def place(self, name: str) -> int:
        self.at[name] = self.io_size
        self.io_size += _aligned(int(np.prod(self.shape[name])))
        return self.at[name]

    def pack(self, value: np.ndarray) -> int:
        """Offset in `w` of some numbers, flattened."""
        flat = np.ascontiguousarray(value, dtype=np.float32).reshape(-1)
        padded = np.zeros(_aligned(flat.size), dtype=np.float32)
        padded[: flat.size] = flat
        self.weights.append(padded)
        self.w_size += padded.size
        return self.w_size - padded.size

    def operand(self, name: str, shape: tuple[int, ...]) -> str:
        """An element-wise operand as C, for the loop variable i.

        Raises:
            CodegenError: It would have to be broadcast while it runs.
        """
        if name in self.constants:
            value = self.constants[name]
            if value.size == 1:
                return f"w[{self.pack(value)}]"
            return f"w[{self.pack(np.broadcast_to(value, shape))} + i]"
        size = int(np.prod(self.shape[name]))
        if size not in (1, int(np.prod(shape))):
            raise CodegenError(f"tensor {name!r} of shape {self.shape[name]} would be broadcast to {shape}")
        return f"io[{self.at[name]}]" if size == 1 else f"io[{self.at[name]} + i]"

    def each(self, output: str, expression: str) -> None:
        """A loop that sets every element of a new tensor."""
        size = int(np.prod(self.shape[output]))
        at = self.place(output)
        self.lines.append(f"    for (int i = 0; i < {size}; i++) io[{at} + i] = {expression};")


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _number(value: object) -> str:
    """A float32 as a C literal, exact."""
    number = float(np.float32(value))  # type: ignore[arg-type]
    if not np.isfinite(number):
        raise CodegenError(f"an attribute that is not finite: {value}")
    return f"{number.hex()}f"


def _fold(p: Program, node: Node, combine: Callable[[str, str], str]) -> None:
    if len(node.inputs) > MAX_TERMS:
        raise CodegenError(f"{node.op} {node.name!r} of {len(node.inputs)} inputs; at most {MAX_TERMS} are compiled")
    shape = p.shape[node.outputs[0]]
    terms = [p.operand(name, shape) for name in node.inputs]
    expression = terms[0]
    for term in terms[1:]:
        expression = combine(expression, term)
    p.each(node.outputs[0], expression)


def _unary(p: Program, node: Node, form: str) -> None:
    p.each(node.outputs[0], form.format(x=p.operand(node.inputs[0], p.shape[node.outputs[0]])))


def _clip(p: Program, node: Node) -> None:
    shape, names = p.shape[node.outputs[0]], (*node.inputs, "", "")[:3]
    expression = p.operand(names[0], shape)
    for name, bounded in zip(names[1:], ("fx_max", "fx_min")):
        if name:
            expression = f"{bounded}({expression}, {p.operand(name, shape)})"
    p.each(node.outputs[0], expression)


def _matrix(p: Program, node: Node) -> None:
    x, matrix = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if matrix not in p.constants or (bias and bias not in p.constants) or node.attributes.get("transA", 0):
        raise CodegenError(f"{node.op} {node.name!r}: only a constant matrix and bias, and no transA")
    weight = p.constants[matrix].T if node.attributes.get("transB", 0) else p.constants[matrix]
    if p.shape[x] != (1, weight.shape[0]) or weight.ndim != 2:
        raise CodegenError(f"{node.op} {node.name!r}: input of shape {p.shape[x]}; only (1, n)")
    weight = np.float32(node.attributes.get("alpha", 1.0)) * weight  # type: ignore[arg-type]
    k, n = weight.shape
    block = BLOCK if n > BLOCK // 2 else BLOCK // 2
    wide = -(-n // block) * block
    padded = np.zeros((k, wide), dtype=np.float32)
    padded[:, :n] = weight
    added = np.zeros(wide, dtype=np.float32)
    if bias:
        added[:n] = np.float32(node.attributes.get("beta", 1.0)) * np.broadcast_to(p.constants[bias], (1, n))[0]  # type: ignore[arg-type]
    blocks = padded.reshape(k, wide // block, block).transpose(1, 0, 2)  # one block of outputs after the other
    at, w, b = p.at[x], p.pack(blocks), p.pack(added)
    p.lines.append(f"    gemm{block}(io + {at}, w + {w}, w + {b}, io + {p.place(node.outputs[0])}, {k}, {n});")


def _layer_norm(p: Program, node: Node) -> None:
    x, output, size = node.inputs[0], node.outputs[0], p.shape[node.inputs[0]][-1]
    axis = int(node.attributes.get("axis", -1))  # type: ignore[arg-type]
    if p.shape[x] != (1, size) or axis not in (-1, 1):
        raise CodegenError(f"LayerNormalization {node.name!r}: only over the last axis of (1, n)")
    at, epsilon = p.at[x], _number(node.attributes.get("epsilon", 1e-5))
    p.lines += [
        "    {",
        f"        float mean = 0.0f, square = 0.0f; const float *x = io + {at};",
        f"        for (int i = 0; i < {size}; i++) mean += x[i];",
        f"        mean /= {size}.0f;",
        f"        for (int i = 0; i < {size}; i++) square += (x[i] - mean) * (x[i] - mean);",
        f"        const float gain = 1.0f / sqrtf(square / {size}.0f + {epsilon});",
    ]
    scale = p.operand(node.inputs[1], (1, size))
    shift = p.operand(node.inputs[2], (1, size)) if len(node.inputs) > 2 else "0.0f"
    p.each(output, f"(x[i] - mean) * gain * {scale} + {shift}")
    p.lines.append("    }")


def _move(p: Program, node: Node) -> None:
    """Slices, gathers and concatenations: run on offsets instead of numbers, then written as copies."""
    arguments = []
    for k, name in enumerate(node.inputs):
        if name in p.at:
            arguments.append(p.at[name] + np.arange(int(np.prod(p.shape[name]))).reshape(p.shape[name]))
        elif node.op == "Concat" or k == 0:
            raise CodegenError(f"{node.op} {node.name!r}: a constant among its parts")
        else:
            arguments.append(p.constants[name] if name else None)
    source = np.asarray(MOVES[node.op](node.attributes, *arguments)).reshape(-1)
    if source.size and (np.diff(source) == 1).all():
        p.each(node.outputs[0], f"io[{source[0]} + i]")
        return
    table = f"from_{len(p.lines)}"
    p.lines.append(f"    static const int {table}[] = {{{', '.join(map(str, source.tolist()))}}};")
    p.each(node.outputs[0], f"io[{table}[i]]")


EMITTERS: dict[str, Callable[[Program, Node], None]] = {
    **dict.fromkeys(MOVES, _move),
    "Add": lambda p, node: _fold(p, node, lambda a, b: f"{a} + {b}"),
    "Clip": _clip,
    "Div": lambda p, node: _fold(p, node, lambda a, b: f"{a} / {b}"),
    "Elu": lambda p, node: _unary(p, node, f"fx_elu({{x}}, {_number(node.attributes.get('alpha', 1.0))})"),
    "Gemm": _matrix,
    "LayerNormalization": _layer_norm,
    "MatMul": _matrix,
    "Max": lambda p, node: _fold(p, node, lambda a, b: f"fx_max({a}, {b})"),
    "Min": lambda p, node: _fold(p, node, lambda a, b: f"fx_min({a}, {b})"),
    "Mul": lambda p, node: _fold(p, node, lambda a, b: f"{a} * {b}"),
    "Relu": lambda p, node: _unary(p, node, "fx_max({x}, 0.0f)"),
    "Sigmoid": lambda p, node: _unary(p, node, "fx_sigmoid({x})"),
    "Sub": lambda p, node: _fold(p, node, lambda a, b: f"{a} - {b}"),
    "Tanh": lambda p, node: _unary(p, node, "fx_tanh({x})"),
}


@dataclass(frozen=True, kw_only=True)
class Generated:
    """C text, and what must be passed to it.

    Attributes:
        c: Defines `void act(const float *w, float *io)`.
        weights: What `w` points to, float32.
        io_size: Floats that `io` points to.
        at: Offset in `io` and shape of each graph input and output.
    """

    c: str
    weights: np.ndarray
    io_size: int
    at: dict[str, tuple[int, tuple[int, ...]]]


def generate(file: OnnxFile) -> Generated:
    """Write the C of a graph. What does not depend on the inputs is computed now.

    Raises:
        CodegenError: An operator, a shape or a use of it that has no C here.
    """
    try:
        return _generate(file)
    except (KeyError, TypeError, IndexError, ValueError) as error:  # a use of an operator that nobody thought of
        raise CodegenError(f"no C for this graph: {type(error).__name__}: {error}") from error


def _generate(file: OnnxFile) -> Generated:
    zeros = {port.name: np.zeros(port.shape, dtype=np.float32) for port in file.inputs}
    values = evaluate(file, zeros)
    p = Program(
        shape={name: np.shape(value) for name, value in values.items() if value is not None},
        constants=dict(file.constants),
    )
    for port in file.inputs:
        p.place(port.name)
    for node in file.nodes:
        output = node.outputs[0]
        if not any(name in p.at for name in node.inputs):
            p.constants[output] = np.asarray(
                OPERATORS[node.op](node.attributes, *(p.constants[n] if n else None for n in node.inputs))
            )
        elif node.op in EMITTERS:
            EMITTERS[node.op](p, node)
        else:
            raise CodegenError(f"operator {node.op} has no C. Known: {', '.join(sorted(EMITTERS))}")
    missing = [port.name for port in file.outputs if port.name not in p.at]
    if missing:
        raise CodegenError(f"output {missing[0]!r} does not depend on the input")
    body = "\n".join(p.lines)
    text = (
        f"{PRELUDE}\nGEMM(gemm{BLOCK}, {BLOCK})\nGEMM(gemm{BLOCK // 2}, {BLOCK // 2})\n\n"
        f"void act(const float *restrict w, float *restrict io) {{\n{body}\n}}\n"
    )
    if len(text) > MAX_TEXT:
        raise CodegenError(f"the graph would be {len(text):,} characters of C, at most {MAX_TEXT:,} are compiled")
    ports = {port.name: (p.at[port.name], p.shape[port.name]) for port in (*file.inputs, *file.outputs)}
    weights = np.concatenate(p.weights) if p.weights else np.zeros(ALIGN, dtype=np.float32)
    return Generated(c=text, weights=weights, io_size=p.io_size, at=ports)
