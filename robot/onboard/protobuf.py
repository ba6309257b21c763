"""Reading protobuf wire format, without a library and without trust: every length is checked before it is used.

Source: protobuf.dev/programming-guides/encoding. A message is a run of (key, value); key = field number * 8 + wire type.
"""

import struct
from collections.abc import Iterator

import numpy as np

from robot.onboard.refusals import TruncatedFileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | memoryview  # varints as unsigned ints, everything else as its bytes


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned 64-bit varint and the offset after it.

    Raises:
        TruncatedFileError: It runs past the end, or past ten bytes.
    """
    value = shift = 0
    while True:
        if at >= len(data):
            raise TruncatedFileError("the file ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift >= 70:
            raise TruncatedFileError("not a protobuf: a number of more than ten bytes")


def fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """The fields of a message: (number, wire type, value).

    Raises:
        TruncatedFileError: A value runs past the end, or a wire type that no ONNX file has.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise TruncatedFileError(f"not a protobuf: wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise TruncatedFileError(
                f"the file is truncated: field {number} announces {size} bytes, {len(data) - at} are left"
            )
        yield number, wire, data[at : at + size]
        at += size


def signed(value: int) -> int:
    """int64 from a varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(value: Value) -> str:
    if not isinstance(value, memoryview):
        raise TruncatedFileError("expected a string, got a number")
    return bytes(value).decode("utf-8", errors="replace")


def message(value: Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise TruncatedFileError("expected a message, got a number")
    return value


def integer(value: Value) -> int:
    if not isinstance(value, int):
        raise TruncatedFileError("expected a number, got bytes")
    return signed(value)


def integers(value: Value) -> list[int]:
    """A repeated int field: one number, or a packed run of them."""
    if isinstance(value, int):
        return [signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        numbers.append(signed(number))
    return numbers


def floats(value: Value) -> list[float]:
    """A repeated float field: one number of four bytes, or a packed run of them."""
    raw = message(value)
    if len(raw) % 4:
        raise TruncatedFileError(f"float data of {len(raw)} bytes")
    return np.frombuffer(raw, dtype="<f4").tolist()


def single(value: Value) -> float:
    raw = message(value)
    if len(raw) != 4:
        raise TruncatedFileError(f"a float of {len(raw)} bytes")
    return struct.unpack("<f", raw)[0]
