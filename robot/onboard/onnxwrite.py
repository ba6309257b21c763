"""The inverse of `robot.onboard.onnxfile.read`: an .onnx file without the onnx package, for measuring networks that nobody trained."""

import struct

import numpy as np

from robot.onboard.onnxfile import DTYPE_NAMES, Attribute, Node, OnnxFile, Port
from robot.onboard.protobuf import BYTES, FIXED32, VARINT

DTYPE_NUMBERS = {name: number for number, name in DTYPE_NAMES.items()}
FLOAT_ATTRIBUTE, INT_ATTRIBUTE, STRING_ATTRIBUTE, TENSOR_ATTRIBUTE, FLOATS_ATTRIBUTE, INTS_ATTRIBUTE = 1, 2, 3, 4, 6, 7


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value)


def bytes_field(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | BYTES) + _varint(len(data)) + data


def tensor(name: str, array: np.ndarray) -> bytes:
    kind = DTYPE_NUMBERS["FLOAT" if array.dtype.kind == "f" else "INT64"]
    raw = array.astype("<f4" if array.dtype.kind == "f" else "<i8").tobytes()
    dims = b"".join(number_field(1, size) for size in array.shape)
    return dims + number_field(2, kind) + bytes_field(8, name) + bytes_field(9, raw)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        body, kind = _varint(2 << 3 | FIXED32) + struct.pack("<f", value), FLOAT_ATTRIBUTE
    elif isinstance(value, int):
        body, kind = number_field(3, value), INT_ATTRIBUTE
    elif isinstance(value, str):
        body, kind = bytes_field(4, value), STRING_ATTRIBUTE
    elif isinstance(value, np.ndarray):
        body, kind = bytes_field(5, tensor("", value)), TENSOR_ATTRIBUTE
    elif value and isinstance(value[0], float):
        body, kind = bytes_field(7, struct.pack(f"<{len(value)}f", *value)), FLOATS_ATTRIBUTE
    else:
        body, kind = b"".join(number_field(8, int(x)) for x in value), INTS_ATTRIBUTE
    return bytes_field(1, name) + body + number_field(20, kind)


def _node(node: Node) -> bytes:
    out = b"".join(bytes_field(1, name) for name in node.inputs) + b"".join(
        bytes_field(2, name) for name in node.outputs
    )
    out += bytes_field(3, node.name) + bytes_field(4, node.op)
    out += b"".join(bytes_field(5, _attribute(*pair)) for pair in node.attributes.items())
    return out + (bytes_field(7, node.domain) if node.domain else b"")


def _port(port: Port) -> bytes:
    shape = b"".join(bytes_field(1, number_field(1, size)) for size in port.shape)
    kind = number_field(1, DTYPE_NUMBERS[port.dtype]) + bytes_field(2, shape)
    return bytes_field(1, port.name) + bytes_field(2, bytes_field(1, kind))


def write(file: OnnxFile) -> bytes:
    """The bytes of a file; equal files give equal bytes."""
    graph = b"".join(bytes_field(1, _node(node)) for node in file.nodes) + bytes_field(2, "policy")
    graph += b"".join(bytes_field(5, tensor(name, array)) for name, array in file.constants.items())
    graph += b"".join(bytes_field(11, _port(port)) for port in file.inputs)
    graph += b"".join(bytes_field(12, _port(port)) for port in file.outputs)
    out = number_field(1, file.ir_version) + bytes_field(7, graph)
    for domain, version in file.opsets.items():
        out += bytes_field(8, bytes_field(1, domain) + number_field(2, version))
    for key, value in file.metadata.items():
        out += bytes_field(14, bytes_field(1, key) + bytes_field(2, value))
    return out
