"""Named arrays as bytes, for pipes and actors: a msgpack map of name -> (type, shape, bytes). Nothing is executed on reading."""

from collections.abc import Mapping

import msgspec
import numpy as np

Arrays = dict[str, np.ndarray]


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays of numbers as bytes."""
    parts = {name: (array.dtype.str, array.shape, np.ascontiguousarray(array).data) for name, array in arrays.items()}
    return msgspec.msgpack.encode({name: (kind, shape, bytes(data)) for name, (kind, shape, data) in parts.items()})


def decode(data: bytes) -> Arrays:
    """What `encode` was given; the arrays are read-only views of the bytes.

    Raises:
        msgspec.DecodeError, ValueError: Bytes that `encode` did not make.
    """
    table = msgspec.msgpack.decode(data, type=dict[str, tuple[str, tuple[int, ...], bytes]])
    return {name: np.frombuffer(raw, dtype=np.dtype(kind)).reshape(shape) for name, (kind, shape, raw) in table.items()}
