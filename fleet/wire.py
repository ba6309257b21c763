"""FLX1: what travels between a robot and a hub. Pure: messages to frames and back, no sockets, no clock.

A message is `[envelope 48 B][meta, msgpack, may be empty][payload, may be absent]`; a ROUTER puts the routing id before it. Big-endian.

    magic 4s | major u8 | minor u8 | type u8 | flags u8 | stream u16 | schema u16 | epoch u64 | seq u64
    | length u32 | crc u32 | t_ns u64 | items u32

Another major version is refused with the range we speak; unknown keys in the meta of another minor version are ignored. The robot's name
is not in the envelope: the hub takes it from the authenticated connection. Nothing is executed on reading; every size has a cap that is
checked before memory is taken.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fleet.checksum import crc32
from fleet.errors import CrcError, LengthError, MagicError, MessageTypeError, MetaError, VersionError
from fleet.messages import MESSAGE_CODES, Message, Put, Puts

MAGIC = b"FLX1"
MAJOR, MINOR = 1, 0
ENVELOPE = struct.Struct(">4sBBBBHHQQIIQI")
ENVELOPE_BYTES = ENVELOPE.size
MAX_META_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = (
    1024 * 1024 + 64 * 1024
)  # a record with its head, between hubs; the sockets refuse frames above twice this before they reach us

TOMBSTONE = 1  # the payload declares a loss instead of carrying a record
LAST_FRAGMENT = 2
REPLAY = 4  # sent before; for counting only
KNOWN_FLAGS = TOMBSTONE | LAST_FRAGMENT | REPLAY

STREAMS = {"events": 1, "steps": 2, "keyframes": 3, "metrics": 4, "debug": 5}  # lower goes first
EVENTS, STEPS = STREAMS["events"], STREAMS["steps"]

Payload = (
    bytes | memoryview
)  # a hub leaves large ones where the socket put them: a view, never a copy, until they are on the disk

_TYPES = {code: message for message, code in MESSAGE_CODES.items()}
_DECODERS = {code: msgspec.msgpack.Decoder(message) for code, message in _TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The fixed part of a message.

    Attributes:
        type: Code of the message, as in `MESSAGE_CODES`.
        flags: TOMBSTONE, LAST_FRAGMENT, REPLAY.
        stream: One of `STREAMS`, 0 where it has no meaning.
        schema: Index in the session's schema table.
        epoch: Life of the robot's spool; new when the spool is lost.
        seq: 1, 2, 3... per (robot, epoch, stream), without holes.
        length, crc: Of the payload.
        t_ns: Robot's UTC clock; for display, never for order.
        items: How many things (control steps) the record holds; for counting.
    """

    type: int
    flags: int = 0
    stream: int = 0
    schema: int = 0
    epoch: int = 0
    seq: int = 0
    length: int = 0
    crc: int = 0
    t_ns: int = 0
    items: int = 0
    minor: int = MINOR


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A message as it came: envelope, typed message, payload (b"" when there was none)."""

    envelope: Envelope
    message: Message
    payload: Payload


def encode(
    message: Message,
    *,
    payload: bytes = b"",
    flags: int = 0,
    stream: int = 0,
    schema: int = 0,
    epoch: int = 0,
    seq: int = 0,
    t_ns: int = 0,
    items: int = 0,
    crc: int | None = None,
) -> list[bytes]:
    """Frames of a message.

    Args:
        payload: Record or file bytes, at most `MAX_PAYLOAD_BYTES`.
        crc: CRC-32 of the payload where it is already known.

    Raises:
        LengthError: Meta or payload past its cap.
        MessageTypeError: A flag this version does not know.
    """
    if flags & ~KNOWN_FLAGS:
        raise MessageTypeError(f"flags {flags:#x}: known are {KNOWN_FLAGS:#x}")
    meta = b"" if isinstance(message, Put) else _ENCODER.encode(message)
    _cap("meta", len(meta), MAX_META_BYTES)
    _cap("payload", len(payload), MAX_PAYLOAD_BYTES)
    checksum = crc32(payload) if crc is None else crc
    code = MESSAGE_CODES[type(message)]
    head = ENVELOPE.pack(
        MAGIC, MAJOR, MINOR, code, flags, stream, schema, epoch, seq, len(payload), checksum, t_ns, items
    )
    return [head, meta, payload] if payload else [head, meta]


def decode(frames: Sequence[Payload]) -> Received:
    """The message in some frames (without a routing id).

    Raises:
        WireError: One of MagicError, VersionError, MessageTypeError, LengthError, CrcError, MetaError.
    """
    if not 2 <= len(frames) <= 3:
        raise LengthError(f"a message has 2 or 3 frames, got {len(frames)}")
    envelope = decode_envelope(frames[0])
    meta, payload = frames[1], frames[2] if len(frames) == 3 else b""
    _cap("meta", len(meta), MAX_META_BYTES)
    _cap("payload", len(payload), MAX_PAYLOAD_BYTES)
    if len(payload) != envelope.length:
        raise LengthError(f"envelope announces a payload of {envelope.length} bytes, got {len(payload)}")
    if _TYPES[envelope.type] is not Puts and crc32(payload) != envelope.crc:
        raise CrcError(f"payload crc: envelope says {envelope.crc:#010x}, got {crc32(payload):#010x}")
    if not meta:
        if _TYPES[envelope.type] is not Put:
            raise MetaError(f"{_TYPES[envelope.type].__name__} needs a meta frame, got an empty one")
        return Received(envelope=envelope, message=Put(), payload=payload)
    try:
        message = _DECODERS[envelope.type].decode(meta)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MetaError(f"meta of {_TYPES[envelope.type].__name__}: {error}") from error
    return Received(envelope=envelope, message=message, payload=payload)


def decode_envelope(frame: Payload) -> Envelope:
    """The envelope in its frame.

    Raises:
        MagicError, VersionError, MessageTypeError, LengthError: It is none of ours.
    """
    if bytes(frame[:4]) != MAGIC:
        raise MagicError(f"expected an envelope that starts with {MAGIC!r}, got {bytes(frame[:4])!r}")
    if len(frame) != ENVELOPE_BYTES:
        raise LengthError(f"an envelope has {ENVELOPE_BYTES} bytes, got {len(frame)}")
    _, major, minor, code, flags, stream, schema, epoch, seq, length, crc, t_ns, items = ENVELOPE.unpack(frame)
    if major != MAJOR:
        raise VersionError(f"protocol {major}.{minor}: this side speaks {MAJOR}.0 to {MAJOR}.{MINOR}")
    if code not in _TYPES:
        known = ", ".join(f"{c} {t.__name__}" for c, t in sorted(_TYPES.items()))
        raise MessageTypeError(f"message type {code}: known are {known}")
    if flags & ~KNOWN_FLAGS:
        raise MessageTypeError(f"flags {flags:#x}: known are {KNOWN_FLAGS:#x}")
    return Envelope(
        type=code,
        flags=flags,
        stream=stream,
        schema=schema,
        epoch=epoch,
        seq=seq,
        length=length,
        crc=crc,
        t_ns=t_ns,
        items=items,
        minor=minor,
    )


def _cap(what: str, size: int, cap: int) -> None:
    if size > cap:
        raise LengthError(f"{what} of {size} bytes; at most {cap}")
