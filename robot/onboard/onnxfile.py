"""What is in an .onnx file: nodes, weights, inputs, outputs, metadata. Read with `robot.onboard.protobuf`, nothing is run.

Refuses on sight what no policy needs and what an attacker would use: external data, subgraphs, local functions, training
graphs, sparse and quantisation side tables, other dtypes than float32, int8 and int64. Field numbers: onnx/onnx.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from robot.onboard import protobuf as pb
from robot.onboard.refusals import (
    AmbiguousFileError,
    DtypeError,
    ExternalDataError,
    FileTooLargeError,
    GraphInterfaceError,
    NestedGraphError,
    TruncatedFileError,
)

MAX_FILE_BYTES = 32 * 1024 * 1024  # 8 million float32 weights; a policy of 512-256-128 has 0.9 MB
MAX_NODES = 10_000
MAX_PARTS = 100_000  # fields of one message, however small; reading one takes memory
MAX_DIMS = 8
DTYPES = {1: np.dtype("<f4"), 3: np.dtype("i1"), 7: np.dtype("<i8")}  # TensorProto.FLOAT, INT8, INT64
DTYPE_NAMES = dict(
    enumerate("UNDEFINED FLOAT UINT8 INT8 UINT16 INT16 INT32 INT64 STRING BOOL FLOAT16 DOUBLE UINT32 UINT64".split())  # noqa: SIM905
)
Found = TypeVar("Found")
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Port:
    """A graph input or output. A dimension the file leaves open is -1."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A parsed file.

    Attributes:
        ir_version: File format version.
        opsets: Operator set version per domain; "" is ONNX's own.
        metadata: metadata_props.
        constants: Weights by name, read-only.
    """

    ir_version: int
    opsets: dict[str, int]
    metadata: dict[str, str]
    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(
            array.size for array in self.constants.values() if array.dtype.kind == "f" or array.dtype.itemsize == 1
        )


def _fields(data: memoryview, once: tuple[int, ...]) -> Iterator[tuple[int, int, pb.Value]]:
    """The fields of a message. Of a field given twice some readers take the first, some the last, some both.

    Raises:
        AmbiguousFileError: A field of `once` comes twice.
    """
    seen: set[int] = set()
    for field in pb.fields(data):
        if field[0] in once:
            if field[0] in seen:
                raise AmbiguousFileError(f"field {field[0]} is given twice; readers of this file may disagree")
            seen.add(field[0])
        yield field


def _capped(data: memoryview, once: tuple[int, ...], most: int, what: str) -> Iterator[tuple[int, int, pb.Value]]:
    """The fields of a message, not more than a policy has.

    Raises:
        FileTooLargeError: There are more; it is refused before they are all read.
    """
    for count, field in enumerate(_fields(data, once), start=1):
        if count > most:
            raise FileTooLargeError(f"a policy must have at most {most} {what}")
        yield field


def read(data: bytes) -> OnnxFile:
    """Parse a file.

    Raises:
        AdmissionError: One of its classes, see above.
    """
    if len(data) > MAX_FILE_BYTES:
        raise FileTooLargeError(f"policy.onnx must have at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    ir_version, opsets, metadata, graph = 0, {}, {}, None
    for number, _, value in _capped(memoryview(data), (1, 7), MAX_PARTS, "fields"):
        if number == 1:
            ir_version = pb.integer(value)
        elif number == 7:
            graph = pb.message(value)
        elif number == 8:
            domain, version = "", 0
            for n, _, v in _fields(pb.message(value), once=(1, 2)):
                if n == 1:
                    domain = pb.text(v)
                elif n == 2:
                    version = pb.integer(v)
            _new(opsets, "" if domain == "ai.onnx" else domain, version, "opset of domain")
        elif number == 14:
            entry = {n: pb.text(v) for n, _, v in _fields(pb.message(value), once=(1, 2))}
            _new(metadata, entry.get(1, ""), entry.get(2, ""), "metadata key")
        elif number in (20, 25):
            raise NestedGraphError(f"the file holds {'a training graph' if number == 20 else 'a local function'}")
    if graph is None:
        raise TruncatedFileError("no graph in the file: truncated, or not an ONNX model")
    return _graph(graph, ir_version, opsets, metadata)


def _new(found: dict[str, Found], name: str, value: Found, what: str) -> None:
    """Keep a named value.

    Raises:
        AmbiguousFileError: There is one of that name.
    """
    if name in found:
        raise AmbiguousFileError(f"{what} {name!r} is given twice; readers of this file may disagree")
    found[name] = value


def _graph(data: memoryview, ir_version: int, opsets: dict[str, int], metadata: dict[str, str]) -> OnnxFile:
    nodes, constants, inputs, outputs = [], {}, [], []
    for number, _, value in _capped(data, (), 2 * MAX_NODES, "nodes and weights"):
        if number == 1:
            nodes.append(_node(pb.message(value)))
        elif number == 5:
            name, array = _tensor(pb.message(value))
            _new(constants, name, array, "weight")
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_port(pb.message(value)))
        elif number in (14, 15):
            raise NestedGraphError("the graph holds quantisation side tables or sparse tensors")
    if len(nodes) > MAX_NODES:
        raise FileTooLargeError(f"a policy must have at most {MAX_NODES} nodes, got {len(nodes)}")
    return OnnxFile(
        ir_version=ir_version,
        opsets=opsets,
        metadata=metadata,
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(port for port in inputs if port.name not in constants),
        outputs=tuple(outputs),
    )


def _node(data: memoryview) -> Node:
    inputs, outputs, name, op, domain, attributes = [], [], "", "", "", {}
    for number, _, value in _capped(data, (3, 4, 7), MAX_PARTS, "inputs and attributes of a node"):
        if number == 1:
            inputs.append(pb.text(value))
        elif number == 2:
            outputs.append(pb.text(value))
        elif number == 3:
            name = pb.text(value)
        elif number == 4:
            op = pb.text(value)
        elif number == 5:
            key, attribute = _attribute(pb.message(value))
            _new(attributes, key, attribute, f"attribute of node {name!r}:")
        elif number == 7:
            domain = pb.text(value)
    domain = "" if domain == "ai.onnx" else domain
    return Node(op=op, domain=domain, name=name, inputs=tuple(inputs), outputs=tuple(outputs), attributes=attributes)


ATTRIBUTE_FIELDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8}  # AttributeProto.type to the field its value is in

NOTHING_GIVEN: dict[int, Attribute] = {2: 0.0, 3: 0, 4: ""}


def _attribute(data: memoryview) -> tuple[str, Attribute]:
    name, kind = "", 0
    found: dict[int, Attribute] = {}
    lists: dict[int, list] = {7: [], 8: []}
    for number, _, value in _fields(data, once=(1, 2, 3, 4, 5, 20)):
        if number == 1:
            name = pb.text(value)
        elif number == 2:
            found[2] = pb.single(value)
        elif number == 3:
            found[3] = pb.integer(value)
        elif number == 4:
            found[4] = pb.text(value)
        elif number == 5:
            found[5] = _tensor(pb.message(value))[1]
        elif number in (7, 8):
            lists[number] += pb.floats(value) if number == 7 else pb.integers(value)
            found[number] = tuple(lists[number])
        elif number == 20:
            kind = pb.integer(value)
        elif number != 13:  # doc_string
            raise NestedGraphError(f"attribute {name!r} holds a subgraph, a reference or a list of tensors")
    at = ATTRIBUTE_FIELDS.get(kind, 0)
    if set(found) - {at} or (at == 5 and not found):  # zeros and empty lists may be left out
        raise AmbiguousFileError(
            f"attribute {name!r} of type {kind} has values in fields {sorted(found)}, expected {at}"
        )
    return name, found.get(at, NOTHING_GIVEN.get(at, ()))


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    kind, name, raw, external = 0, "", None, False
    float_data: list[float] = []
    int_data: list[int] = []
    for number, _, value in _fields(data, once=(2, 8, 9, 14)):
        if number == 1:
            dims += pb.integers(value)
        elif number == 2:
            kind = pb.integer(value)
        elif number == 4:
            float_data += pb.floats(value)
        elif number == 7:
            int_data += pb.integers(value)
        elif number == 8:
            name = pb.text(value)
        elif number == 9:
            raw = pb.message(value)
        elif number == 13 or (number == 14 and pb.integer(value) != 0):
            external = True
    if external:
        raise ExternalDataError(f"weight {name!r} lives in another file; export one self-contained file")
    if kind not in DTYPES:
        raise DtypeError(f"weight {name!r} must be FLOAT, INT8 or INT64, got {DTYPE_NAMES.get(kind, kind)}")
    if (raw is not None) + bool(float_data) + bool(int_data) > 1:
        raise AmbiguousFileError(f"weight {name!r} has its numbers in two places")
    if (
        len(dims) > MAX_DIMS
        or any(not 0 <= d <= MAX_FILE_BYTES for d in dims)
        or prod(dims) * DTYPES[kind].itemsize > MAX_FILE_BYTES
    ):
        raise FileTooLargeError(f"weight {name!r} has shape {dims}")
    if raw is not None and len(raw) % DTYPES[kind].itemsize == 0:
        array = np.frombuffer(raw, dtype=DTYPES[kind])
    else:
        array = np.array(float_data if kind == 1 else int_data).astype(DTYPES[kind])
    if array.size != prod(dims):
        raise TruncatedFileError(f"weight {name!r} of shape {dims} needs {prod(dims)} numbers, got {array.size}")
    array = array.reshape(dims)
    array.setflags(write=False)
    return name, array


def _port(data: memoryview) -> Port:
    name, dtype, shape = "", "UNDEFINED", []
    for number, _, value in _fields(data, once=(1, 2)):
        if number == 1:
            name = pb.text(value)
        elif number == 2:
            for n, _, v in _fields(pb.message(value), once=(1,)):
                if n != 1:
                    raise GraphInterfaceError(f"{name!r} must be a dense tensor")
                for m, _, w in _fields(pb.message(v), once=(1, 2)):
                    if m == 1:
                        dtype = DTYPE_NAMES.get(pb.integer(w), str(w))
                    elif m == 2:
                        shape = [_dimension(pb.message(d)) for k, _, d in pb.fields(pb.message(w)) if k == 1]
    return Port(name=name, dtype=dtype, shape=tuple(shape))


def _dimension(data: memoryview) -> int:
    fixed = [pb.integer(value) for number, _, value in _fields(data, once=(1, 2)) if number == 1]
    return fixed[0] if fixed else -1
