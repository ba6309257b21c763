"""The hub's log: append-only segments, synced in groups before anything is acknowledged. The log is the only truth.

    D/log/<number>.seg      head, records of all robots as they came; sealed ones end with a foot
    D/quarantine/*.rec      records that contradict what is held
    D/contracts/<sha>.json  the contracts experience follows

A start reads the feet of sealed segments and walks the last one, cuts a torn end, syncs what it found and only then tells a robot where to go
on. A refused sync is final: `commit` raises StoreSuspectError, nothing of the group is acknowledged, the hub stops, and the next start
writes the suspect file anew instead of trusting pages the kernel may have dropped.
"""

import contextlib
import hashlib
import logging
import math
import mmap
import os
import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fleet.disk import Disk
from fleet.entries import lock_folder
from fleet.errors import RecordError, SegmentError, StoreFullError, StoreSuspectError
from fleet.index import Index, Key, Mark, possible, read_stone
from fleet.segment import (
    TRAILER,
    TRAILER_MAGIC,
    Buffer,
    FootInfo,
    HeadInfo,
    KeyRange,
    Record,
    data_records,
    encode_info,
    encode_record,
    foot_of,
    head_of,
    survey,
)
from fleet.wire import Payload

log = logging.getLogger(__name__)

RESERVE_BYTES = 256 << 20  # kept free for the last commit and the index
LOOK_S = 0.05  # between looks at the free space; what comes in meanwhile is far less than the reserve
MAX_QUARANTINE_FILES = 1000
MAX_CONTRACTS = 256  # a fleet has one per robot model and task; a robot that sends made-up ones must not fill the disk


@dataclass(slots=True)
class Group:
    """Records that go to the disk together. Filled by the hub's loop, written by its commit thread."""

    parts: list[Payload] = field(default_factory=list)  # head, payload, head, payload...
    size_bytes: int = 0
    marks: dict[Key, Mark] = field(default_factory=dict)
    befores: dict[Key, Mark] = field(default_factory=dict)  # state of each line before the group
    last_crcs: dict[Key, int] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  # how far other hubs' logs are read with it
    sessions: dict[bytes, int] = field(default_factory=dict)  # routing id -> payload bytes, for the acknowledgements

    def add(
        self,
        key: Key,
        seq: int,
        flags: int,
        payload: Payload,
        crc: int,
        t_ns: int,
        items: int,
        before: Mark,
        after: Mark,
    ) -> None:
        """Take a record that the index has accepted."""
        parts = encode_record(
            payload, flags=flags, stream=key[2], epoch=key[1], seq=seq, t_ns=t_ns, items=items, robot=key[0], crc=crc
        )
        self.parts += parts
        self.size_bytes += len(parts[0]) + len(parts[1])
        self.marks[key] = after
        self.befores.setdefault(key, before)
        if seq == after.seq:
            self.last_crcs[key] = crc


class Store:
    """An open log. `commit` belongs to one thread, the index to another; they share nothing else.

    Raises:
        StoreBusyError: Another hub has the folder open.
        SegmentError: A file in it is not a segment of this log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hub: str = "hub",
        disk: Disk | None = None,
        segment_bytes: int = 128 << 20,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.folder, self.hub = folder, hub
        self.segment_bytes, self.reserve_bytes = segment_bytes, reserve_bytes
        self.index = Index()
        self.end = (0, 0)  # segment and offset up to which the log is on the disk
        self._look_s, self._free_bytes = 0.0, 0
        self.cut_bytes = 0  # torn end dropped at this start
        self._disk = disk or Disk()
        self._log = folder / "log"
        for sub in ("log", "quarantine", "contracts"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        self._ranges: dict[Key, KeyRange] = {}
        self._sealed = False  # the last segment is, and there was no space for the next one's head
        try:
            self._open()
            self.end = (self._number, self._file.size)
            self.log_id = self._log_id()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def full(self) -> bool:
        """Whether the disk is too full to take more."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            self._free_bytes = self._disk.free_bytes(self.folder)
        return self._free_bytes < self.reserve_bytes

    def commit(self, group: Group) -> None:
        """Write a group and wait until it is on the disk.

        Raises:
            StoreFullError: No space; nothing of the group was kept.
            StoreSuspectError: The disk refused; the hub must stop.
        """
        try:
            if self._sealed:
                self._begin(self._number + 1)
            self._file.append(group.parts)
        except OSError as error:
            raise StoreFullError(error.errno, f"{self._file.path}: {error.strerror}; the group was not kept") from error
        try:
            self._file.sync()
        except OSError as error:
            self._mark_suspect(error)
        for head in group.parts[::2]:
            self._hash.update(head)
        for key, mark in group.marks.items():
            self._ranges[key] = _extended(
                self._ranges.get(key), key, group.last_crcs.get(key, 0), group.befores[key], mark
            )
        if self._file.size >= self.segment_bytes:
            self.seal()
        self.end = (self._number, self._file.size)

    def seal(self) -> None:
        """Close the last segment with a foot and begin the next."""
        if not self._ranges or self._sealed:
            return
        foot = encode_info(FootInfo(sha256=self._hash.hexdigest(), ranges=tuple(self._ranges.values())))
        start = self._file.size
        try:
            self._file.append([foot, TRAILER.pack(start, TRAILER_MAGIC)])
        except OSError:
            return  # no space for a foot: the segment just stays open
        try:
            self._file.sync()
        except OSError as error:
            self._mark_suspect(error)
        self._file.close()
        self._sealed = True
        with contextlib.suppress(OSError):  # no space for a head: the next commit tries again
            self._begin(self._number + 1)

    def quarantine(self, key: Key, seq: int, payload: Payload, crc: int, why: str) -> None:
        """Keep a record that contradicts the log, apart from it."""
        folder = self.folder / "quarantine"
        robot, epoch, stream = key
        path = folder / f"{robot}-{epoch:016x}-{stream}-{seq}-{crc:08x}.rec"
        if path.exists() or sum(1 for _ in folder.glob("*.rec")) >= MAX_QUARANTINE_FILES:
            return
        record = encode_record(payload, stream=stream, epoch=epoch, seq=seq, robot=robot, crc=crc)
        self._disk.write_file(path, b"".join(record))
        self._disk.write_file(path.with_suffix(".why"), why.encode())

    def contracts(self) -> set[str]:
        """Hashes of the contracts held."""
        return {p.stem for p in (self.folder / "contracts").glob("*.json")}

    def add_contract(self, text: str) -> str:
        """Keep a contract under its hash; returns the hash. Where there are too many it is not kept: columns then have numbers, not names."""
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        if len(held := self.contracts()) >= MAX_CONTRACTS and sha256 not in held:
            log.warning("contract %s was not kept: %d are held already", sha256[:12], len(held))
            return sha256
        self._disk.write_file(self.folder / "contracts" / f"{sha256}.json", text.encode())
        return sha256

    def close(self) -> None:
        if self._lock >= 0:
            self._file.close()
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> None:
        for stray in self._log.glob(".*.tmp"):
            self._disk.unlink(stray)
        paths = sorted(self._log.glob("*.seg"))
        for path in paths[:-1]:
            self._load_sealed(path)
        if not paths:
            self._begin(1)
            return
        self._load_last(paths[-1])

    def _load_sealed(self, path: Path) -> None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            foot = foot_of(data)
            if foot is not None and possible(foot[0].ranges):
                self.index.restore(foot[0].ranges)
                return
            self._replay(path, data, last=False)  # its foot is damaged, impossible, or there was no space for one
        self._ranges = {}

    def _load_last(self, path: Path) -> None:
        suspect = path.with_suffix(".suspect")
        data = path.read_bytes()
        foot = foot_of(data)
        if foot is not None:
            if possible(foot[0].ranges):
                self.index.restore(foot[0].ranges)
            else:
                self._replay(path, data, last=False)
            self._begin(int(path.stem) + 1)
            return
        end = self._replay(path, data, last=True)
        self._number = head_of(data)[0].number
        self.cut_bytes = len(data) - end
        if suspect.exists():
            self._disk.write_file(path, data[:end])
            self._disk.unlink(suspect)
        self._file = self._disk.open_append(path, cached=False)
        if self._file.size > end:
            self._file.cut(end)
        self._file.sync()  # what is told to robots from here on must be on the disk, not only in the cache

    def _replay(self, path: Path, data: Buffer, *, last: bool) -> int:
        """Walk a segment into the index; returns where it is good up to."""
        try:
            end = head_of(data)[1]
        except RecordError as error:
            raise SegmentError(f"{path}: {error}. Move it away to start without it") from error
        self._hash = hashlib.sha256(data[:end])
        for record, payload in survey(data, end, last=last):
            self._hash.update(data[record.start : record.payload_start])
            self.index.damaged += payload is None
            self._replay_one(record, payload or b"")
            end = record.end
        return end

    def _replay_one(self, record: Record, payload: bytes) -> None:
        line = self.index.lines.get(record.key)
        before = line.accepted if line else Mark()
        flags = record.flags if payload else 0
        self.index.replay(record.key, record.seq, flags, payload, record.crc, record.items)
        after = self.index.lines[record.key].accepted
        if after != before:
            self._ranges[record.key] = _extended(
                self._ranges.get(record.key), record.key, record.crc if record.seq == after.seq else 0, before, after
            )

    def _log_id(self) -> str:
        """Random name of this log: a hub that lost its disk has another one."""
        path = self.folder / "log_id"
        if not path.exists():
            self._disk.write_file(path, os.urandom(8).hex().encode())
        return path.read_text()

    def _begin(self, number: int) -> None:
        path = self._log / f"{number:012d}.seg"
        head = encode_info(HeadInfo(number=number, owner=self.hub))
        self._disk.write_file(path, head)
        self._file = self._disk.open_append(path, cached=False)
        self._number, self._hash, self._ranges, self._sealed = number, hashlib.sha256(head), {}, False

    def _mark_suspect(self, error: OSError) -> None:
        with contextlib.suppress(OSError):  # a dying disk; the error below stops the hub all the same
            self._disk.write_file(self._file.path.with_suffix(".suspect"), str(error).encode())
        raise StoreSuspectError(
            error.errno,
            f"{self._file.path}: the disk refused to sync ({error}); nothing more is acknowledged. Start the hub again",
        ) from error


def read_log(folder: Path, streams: Collection[int] = ()) -> Iterator[tuple[Record, bytes]]:
    """Every good record (of some streams) of a store's log, in order; works beside a running hub and does not use its index.

    Records with bad bytes are left out (an audit finds them missing).
    """
    paths = [path for path in sorted((folder / "log").glob("*.seg")) if path.stat().st_size]
    for path in paths[
        :-1
    ]:  # these only go away whole; the last may be cut while we read, which a mapping does not survive
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from _good(data, streams)
    for path in paths[-1:]:
        yield from _good(path.read_bytes(), streams)


def _good(data: Buffer, streams: Collection[int]) -> Iterator[tuple[Record, bytes]]:
    for record in data_records(data):
        if streams and record.stream not in streams:
            continue
        try:
            yield record, record.payload(data)
        except RecordError:
            continue


class LineAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What the log really holds of one line, counted record by record."""

    robot: str
    epoch: int
    stream: int
    last: int
    held: int  # different records
    doubled: int  # records more than once
    declared_lost: int
    held_items: int
    missing: int  # up to `last`: neither held nor declared lost


def audit(folder: Path) -> list[LineAudit]:
    """Count the whole log by reading it, independent of cursors and feet."""
    held: dict[Key, _Numbers] = {}
    items: dict[Key, int] = {}
    stones: dict[Key, list[tuple[int, int]]] = {}
    for record, payload in read_log(folder):
        if record.tombstone:
            if (stone := read_stone(payload, record.seq)) is not None:
                stones.setdefault(record.key, []).append((stone.first, stone.last))
        elif held.setdefault(record.key, _Numbers()).add(record.seq):
            items[record.key] = items.get(record.key, 0) + record.items
    found = []
    for key in sorted({*held, *stones}):
        seen = held.get(key, _Numbers())
        spans = _joined_spans(stones.get(key, []))
        lost = sum(b - a + 1 for a, b in spans) - _shared(spans, seen.spans)
        last = max(b for _, b in (*seen.spans, *spans))
        found.append(
            LineAudit(
                robot=key[0],
                epoch=key[1],
                stream=key[2],
                last=last,
                held=seen.count,
                doubled=seen.again,
                declared_lost=lost,
                held_items=items.get(key, 0),
                missing=last - seen.count - lost,
            )
        )
    return found


class _Numbers:
    """Numbers seen, as ranges that do not meet: a stream of any length takes the memory of its gaps.

    Attributes:
        spans: The ranges first..last, ascending.
        count: How many different numbers.
        again: How often one came that was there already.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.count = self.again = 0

    def add(self, number: int) -> bool:
        """Take a number; False when it was there already."""
        i = bisect_right(self.spans, (number, math.inf))  # the first range that begins behind it
        before = self.spans[i - 1] if i else (0, -1)
        if before[1] >= number:
            self.again += 1
            return False
        self.count += 1
        joins_before, joins_after = (
            before[1] == number - 1 and i > 0,
            i < len(self.spans) and self.spans[i][0] == number + 1,
        )
        first = before[0] if joins_before else number
        last = self.spans[i][1] if joins_after else number
        self.spans[i - joins_before : i + joins_after] = [(first, last)]
        return True


def _joined_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges first..last as few ranges that do not meet, ascending: a range may be of any length, so its numbers are never listed."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def _shared(these: list[tuple[int, int]], those: list[tuple[int, int]]) -> int:
    """How many numbers lie in ranges of both lists; each ascends and its ranges do not meet."""
    count = i = k = 0
    while i < len(these) and k < len(those):
        count += max(0, min(these[i][1], those[k][1]) - max(these[i][0], those[k][0]) + 1)
        if these[i][1] < those[k][1]:
            i += 1
        else:
            k += 1
    return count


def _extended(old: KeyRange | None, key: Key, crc: int, before: Mark, after: Mark) -> KeyRange:
    added = KeyRange(
        robot=key[0],
        epoch=key[1],
        stream=key[2],
        first=before.seq + 1,
        last=after.seq,
        last_crc=crc,
        digest=after.digest,
        records=after.records - before.records,
        lost=after.lost - before.lost,
        payload_bytes=after.payload_bytes - before.payload_bytes,
        items=after.items - before.items,
        lost_items=after.lost_items - before.lost_items,
        holes=after.holes,
    )
    return _joined(old, added)


def _joined(old: KeyRange | None, new: KeyRange) -> KeyRange:
    if old is None:
        return new
    return msgspec.structs.replace(
        new,
        first=old.first,
        last_crc=new.last_crc or (old.last_crc if old.last == new.last else 0),
        records=old.records + new.records,
        lost=old.lost + new.lost,
        payload_bytes=old.payload_bytes + new.payload_bytes,
        items=old.items + new.items,
        lost_items=old.lost_items + new.lost_items,
    )
