"""A hub's answer to its operator in frames. What fits the meta frame goes there; a large fleet's status goes compressed into the payload."""

import zlib

import msgspec

from fleet.errors import LengthError, MetaError
from fleet.messages import Answer
from fleet.wire import MAX_META_BYTES, MAX_PAYLOAD_BYTES, Received, encode

MAX_BODY_BYTES = 64 << 20  # unpacked


def pack_answer(answer: Answer) -> list[bytes]:
    """Frames of an answer. One that is too large even when compressed becomes a refusal that says so."""
    body = msgspec.msgpack.encode(answer.body)
    if len(body) + 4 * len(answer.error) < MAX_META_BYTES - 1024:
        return encode(answer)
    packed = zlib.compress(body, 1)
    if len(packed) > MAX_PAYLOAD_BYTES or len(body) > MAX_BODY_BYTES:
        return encode(Answer(ok=False, error=f"the answer has {len(body)} bytes, {len(packed)} compressed: too large"))
    return encode(msgspec.structs.replace(answer, body={}), payload=packed)


def read_answer(received: Received) -> Answer:
    """The answer in what came.

    Raises:
        WireError: Something else, or a payload that does not unpack.
    """
    answer = received.message
    if not isinstance(answer, Answer):
        raise MetaError(f"expected an answer, got {type(answer).__name__}")
    if not received.payload:
        return answer
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(received.payload, MAX_BODY_BYTES)
        if unpacker.unconsumed_tail:
            raise LengthError(f"an answer of more than {MAX_BODY_BYTES} bytes")
        return msgspec.structs.replace(answer, body=msgspec.msgpack.decode(body, type=dict))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise MetaError(f"body of an answer: {error}") from error
