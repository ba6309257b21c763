"""The record format that the robot's spool and the hub's log share, and the segment files made of it. Pure: bytes in, bytes out.

A segment is a head record followed by data records; a sealed one ends with a foot record and a 12-byte trailer that says where the foot is.
Every record carries two checksums: one over its fixed part and name, so that a file can be walked without reading payloads, and one
over the payload, the same that travels on the wire.

    magic "FXR1" | kind u8 | flags u8 | stream u16 | epoch u64 | seq u64 | t_ns u64 | length u32 | crc u32 | name length u8 | 0 | items u16
    | head crc u32 | name | payload
"""

import hashlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from fleet.checksum import crc32
from fleet.errors import RecordError
from fleet.wire import TOMBSTONE, Payload

Buffer = Payload | mmap.mmap

MAGIC = b"FXR1"
FIXED = struct.Struct(">4sBBHQQQIIBxH")  # followed by the crc of it and the name
RECORD_OVERHEAD = FIXED.size + 4
MAX_RECORD_BYTES = 1024 * 1024
TRAILER = struct.Struct(">Q4s")
TRAILER_MAGIC = b"FXE1"

DATA, HEAD, FOOT = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record of a segment, by its place; the payload is read when asked for."""

    kind: int
    flags: int
    stream: int
    epoch: int
    seq: int
    t_ns: int
    crc: int
    items: int
    robot: str
    start: int  # of the record in the file
    payload_start: int
    payload_bytes: int

    @property
    def end(self) -> int:
        return self.payload_start + self.payload_bytes

    @property
    def tombstone(self) -> bool:
        return bool(self.flags & TOMBSTONE)

    @property
    def key(self) -> tuple[str, int, int]:
        return self.robot, self.epoch, self.stream

    def payload(self, data: Buffer) -> bytes:
        """The payload, checked.

        Raises:
            RecordError: It is not what was written.
        """
        raw = bytes(data[self.payload_start : self.end])
        if crc32(raw) != self.crc:
            raise RecordError(
                f"record {self.robot or 'own'}/{self.epoch:x}/{self.stream}/{self.seq} at byte {self.start}: payload crc "
                f"{crc32(raw):#010x}, written as {self.crc:#010x}"
            )
        return raw


class HeadInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment starts with.

    Attributes:
        number: Of the segment; files are read in this order.
        owner: Robot or hub.
        epoch: The spool's; 0 in a hub's log.
        last, digests, items: Per stream, the number, the rolling digest and the count of items before the first record here (spool only).
    """

    number: int
    owner: str
    epoch: int = 0
    last: dict[int, int] = {}
    digests: dict[int, bytes] = {}
    items: dict[int, int] = {}


class KeyRange(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed segment holds of one (robot, epoch, stream)."""

    robot: str
    epoch: int
    stream: int
    first: int
    last: int
    last_crc: int  # 0 where it is not known
    digest: bytes  # rolling, after `last`
    records: int
    lost: int  # records declared lost by tombstones here
    payload_bytes: int
    items: int
    lost_items: int
    holes: tuple[tuple[int, int], ...] = ()  # of the line, up to `last`, after this segment


class FootInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed segment ends with: a later start need not read the rest."""

    sha256: str  # of the segment's head and every record's fixed part and name, which hold the payloads' checksums
    ranges: tuple[KeyRange, ...]


def encode_record(
    payload: Payload,
    *,
    kind: int = DATA,
    flags: int = 0,
    stream: int = 0,
    epoch: int = 0,
    seq: int = 0,
    t_ns: int = 0,
    items: int = 0,
    robot: str = "",
    crc: int | None = None,
) -> list[Payload]:
    """A record as bytes parts [head, payload]."""
    name = robot.encode()
    crc = crc32(payload) if crc is None else crc
    fixed = FIXED.pack(MAGIC, kind, flags, stream, epoch, seq, t_ns, len(payload), crc, len(name), items)
    return [fixed + struct.pack(">I", crc32(name, crc32(fixed))) + name, payload]


def encode_info(info: HeadInfo | FootInfo) -> bytes:
    """A head or foot record."""
    kind = HEAD if isinstance(info, HeadInfo) else FOOT
    return b"".join(encode_record(msgspec.msgpack.encode(info), kind=kind))


def read_record(data: Buffer, start: int) -> Record:
    """The record at a place; its payload is not checked.

    Raises:
        RecordError: There is none, or it is torn.
    """
    fixed = bytes(data[start : start + FIXED.size])
    if len(fixed) < FIXED.size or fixed[:4] != MAGIC:
        raise RecordError(f"byte {start}: expected a record that starts with {MAGIC!r}, got {fixed[:4]!r}")
    _, kind, flags, stream, epoch, seq, t_ns, length, crc, name_bytes, items = FIXED.unpack(fixed)
    at = start + FIXED.size
    stored, name = bytes(data[at : at + 4]), bytes(data[at + 4 : at + 4 + name_bytes])
    if len(stored) < 4 or len(name) < name_bytes or struct.unpack(">I", stored)[0] != crc32(name, crc32(fixed)):
        raise RecordError(f"byte {start}: the record's head is torn or altered")
    payload_start = at + 4 + name_bytes
    if kind == DATA and length > MAX_RECORD_BYTES:
        raise RecordError(f"byte {start}: record of {length} bytes; at most {MAX_RECORD_BYTES}")
    if payload_start + length > len(data):
        raise RecordError(f"byte {start}: record of {length} bytes, {len(data) - payload_start} are there")
    return Record(
        kind=kind,
        flags=flags,
        stream=stream,
        epoch=epoch,
        seq=seq,
        t_ns=t_ns,
        crc=crc,
        items=items,
        robot=name.decode(errors="replace"),
        start=start,
        payload_start=payload_start,
        payload_bytes=length,
    )


def walk(data: Buffer, start: int = 0, *, check_payloads: bool) -> Iterator[Record]:
    """Records from a place on, until the end or the first that is torn (see `valid_end`)."""
    while start < len(data):
        try:
            record = read_record(data, start)
            if check_payloads:
                record.payload(data)
        except RecordError:
            return
        yield record
        if record.kind == FOOT:
            return
        start = record.end


def data_records(data: Buffer) -> Iterator[Record]:
    """The data records of a file of the log, in order, their payloads not looked at; none where its head cannot be read."""
    try:
        start = head_of(data)[1]
    except RecordError:
        return
    for record in walk(data, start, check_payloads=False):
        if record.kind == 0:
            yield record


def survey(data: Buffer, start: int, *, last: bool) -> Iterator[tuple[Record, bytes | None]]:
    """The data records of a segment that count, each with its payload, or None where its bytes are bad.

    A bad payload with a good record behind it was on the disk once: that is damage. A run of bad ones at the very end of the last file was never
    synced: that is a torn end, and is left out. The segment is good up to the end of the last record that comes out of here.

    Args:
        last: Whether this is the file that was being written.
    """
    pending: list[Record] = []
    for record in walk(data, start, check_payloads=False):
        if record.kind != DATA:
            continue
        try:
            payload = record.payload(data)
        except RecordError:
            pending.append(record)
            continue
        yield from ((damaged, None) for damaged in pending)
        pending.clear()
        yield record, payload
    if not last:
        yield from ((damaged, None) for damaged in pending)


def head_of(data: Buffer) -> tuple[HeadInfo, int]:
    """The head of a segment and where its records begin.

    Raises:
        RecordError: It does not start with a head.
    """
    record = read_record(data, 0)
    if record.kind != HEAD:
        raise RecordError(f"a segment starts with a head record, got kind {record.kind}")
    try:
        return msgspec.msgpack.decode(record.payload(data), type=HeadInfo), record.end
    except msgspec.MsgspecError as error:
        raise RecordError(f"segment head: {error}") from error


def foot_of(data: Buffer) -> tuple[FootInfo, int] | None:
    """The foot of a sealed segment and where it begins, or None when the segment is not sealed (or its end is damaged)."""
    if len(data) < TRAILER.size:
        return None
    start, magic = TRAILER.unpack(bytes(data[-TRAILER.size :]))
    if magic != TRAILER_MAGIC or start >= len(data):
        return None
    try:
        record = read_record(data, start)
        if record.kind != FOOT or record.end != len(data) - TRAILER.size:
            return None
        return msgspec.msgpack.decode(record.payload(data), type=FootInfo), start
    except (RecordError, msgspec.MsgspecError):
        return None


def roll(digest: bytes, seq: int, crc: int) -> bytes:
    """The rolling digest after one more record."""
    return hashlib.blake2b(digest + struct.pack(">QI", seq, crc), digest_size=16).digest()
