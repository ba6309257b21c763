"""A writer for MCAP, the log format of Foxglove and Rerun: https://mcap.dev/spec. Only what a short recording needs.

JSON messages in uncompressed chunks with message indexes, and a summary at the end, so that readers can seek. Every record is
an opcode, a u64 length and its content; integers are little-endian, strings and maps carry a u32 byte length.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
CHUNK_BYTES = 1 << 20


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _map(pairs: dict[str, str]) -> bytes:
    return _string(b"".join(_string(key) + _string(value) for key, value in pairs.items()))


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


@dataclass
class _Chunk:
    """Messages that are not written yet."""

    body: bytearray = field(default_factory=bytearray)
    index: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # channel: (time, offset)


class McapWriter:
    """Collects messages and gives the bytes of a file. Times are nanoseconds, UTC.

    Args:
        library: Who wrote the file.
    """

    def __init__(self, library: str = "flexor") -> None:
        self._out = bytearray(MAGIC + _record(HEADER, _string("") + _string(library)))
        self._schemas: list[bytes] = []
        self._channels: list[bytes] = []
        self._counts: dict[int, int] = {}
        self._chunk = _Chunk()
        self._chunk_indexes: list[bytes] = []
        self._metadata_indexes: list[bytes] = []
        self._span: tuple[int, int] | None = None

    def channel(self, topic: str, schema_name: str, schema: dict[str, Any]) -> int:
        """A topic of JSON messages that follow a JSON schema; gives its number."""
        number = len(self._channels) + 1
        body = struct.pack("<H", number) + _string(schema_name) + _string("jsonschema")
        self._schemas.append(_record(SCHEMA, body + _string(msgspec.json.encode(schema))))
        self._channels.append(
            _record(CHANNEL, struct.pack("<HH", number, number) + _string(topic) + _string("json") + _map({}))
        )
        self._chunk.body += self._schemas[-1] + self._channels[-1]
        self._counts[number] = 0
        return number

    def message(self, channel: int, time_ns: int, value: dict[str, Any]) -> None:
        """One message; NaN becomes null."""
        self._chunk.index.setdefault(channel, []).append((time_ns, len(self._chunk.body)))
        head = struct.pack("<HIQQ", channel, self._counts[channel], time_ns, time_ns)
        self._chunk.body += _record(MESSAGE, head + msgspec.json.encode(value))
        self._counts[channel] += 1
        first, last = self._span or (time_ns, time_ns)
        self._span = min(first, time_ns), max(last, time_ns)
        if len(self._chunk.body) >= CHUNK_BYTES:
            self._flush()

    def metadata(self, name: str, pairs: dict[str, str]) -> None:
        """Facts about the whole recording."""
        self._flush()
        record = _record(METADATA, _string(name) + _map(pairs))
        place = struct.pack("<QQ", len(self._out), len(record))
        self._metadata_indexes.append(_record(METADATA_INDEX, place + _string(name)))
        self._out += record

    def _flush(self) -> None:
        """Write the chunk at hand, its message indexes after it."""
        chunk, self._chunk = self._chunk, _Chunk()
        if not chunk.body:
            return
        times = [time_ns for entries in chunk.index.values() for time_ns, _ in entries]
        first, last, size = min(times, default=0), max(times, default=0), len(chunk.body)
        start = len(self._out)
        head = struct.pack("<QQQI", first, last, size, zlib.crc32(chunk.body)) + _string("") + struct.pack("<Q", size)
        self._out += _record(CHUNK, head + bytes(chunk.body))
        length, places = len(self._out) - start, bytearray()
        for channel, entries in chunk.index.items():
            places += struct.pack("<HQ", channel, len(self._out))
            listed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            self._out += _record(MESSAGE_INDEX, struct.pack("<H", channel) + _string(listed))
        indexes = len(self._out) - start - length
        body = struct.pack("<QQQQ", first, last, start, length) + _string(bytes(places))
        body += struct.pack("<Q", indexes) + _string("") + struct.pack("<QQ", size, size)
        self._chunk_indexes.append(_record(CHUNK_INDEX, body))

    def finish(self) -> bytes:
        """The whole file."""
        self._flush()
        self._out += _record(DATA_END, struct.pack("<I", 0))
        first, last = self._span or (0, 0)
        counts = _string(b"".join(struct.pack("<HQ", *pair) for pair in self._counts.items()))
        numbers = (len(self._schemas), len(self._channels), 0, len(self._metadata_indexes), len(self._chunk_indexes))
        statistics = struct.pack("<QHIIIIQQ", sum(self._counts.values()), *numbers, first, last) + counts
        start, offsets, summary = len(self._out), b"", bytearray()
        for opcode, records in (
            (SCHEMA, self._schemas),
            (CHANNEL, self._channels),
            (STATISTICS, [_record(STATISTICS, statistics)]),
            (CHUNK_INDEX, self._chunk_indexes),
            (METADATA_INDEX, self._metadata_indexes),
        ):
            group = b"".join(records)
            if group:
                place = struct.pack("<BQQ", opcode, start + len(summary), len(group))
                offsets += _record(SUMMARY_OFFSET, place)
            summary += group
        offsets_start = start + len(summary)
        summary += offsets
        footer = struct.pack("<BQQQ", FOOTER, 20, start, offsets_start)
        crc = zlib.crc32(footer, zlib.crc32(bytes(summary)))
        return bytes(self._out + summary + footer + struct.pack("<I", crc) + MAGIC)
