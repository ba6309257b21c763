"""The robot's spool: experience waits here, on disk, until the hub says that it has it.

`append` numbers a record and writes it; `sync` makes everything written last; only synced records are offered for sending, so a power cut
can never reuse a number the hub has seen. Segment files are the only truth: a later start reads them, cuts a torn tail, and goes on
counting. Files go when the hub's cursor has passed them. When there is no room, records are dropped from the oldest files on, debug before
metrics before key frames before steps and never events, and every drop leaves a TOMBSTONE that reaches the hub: nothing is lost silently.

Not thread-safe: one thread owns it.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fleet.disk import AppendFile, Disk
from fleet.entries import Entry, behind, compacted, lock_folder
from fleet.errors import RecordError, RecordTooLargeError, SegmentError, StoreSuspectError
from fleet.messages import Tombstone
from fleet.segment import MAX_RECORD_BYTES, HeadInfo, Record, encode_info, encode_record, head_of, roll, survey, walk
from fleet.wire import EVENTS, STREAMS, TOMBSTONE, Payload

DROP_ORDER = sorted((s for s in STREAMS.values() if s != EVENTS), reverse=True)  # debug first, steps last, events never
EVENT_RESERVE = 1.1  # events may go this far over the limit
DRAFT = ".next"  # instead of .seg: a file of an epoch that has not begun
HEAD_BYTES = 64 << 10  # more than a head can take


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof that a record is in the spool (on disk after the next `sync`)."""

    epoch: int
    stream: int
    seq: int
    crc: int


@dataclass(slots=True, kw_only=True)
class _Segment:
    number: int
    path: Path
    head: HeadInfo
    size: int
    last: dict[int, int] = field(default_factory=dict)  # highest number per stream after this segment
    live: set[int] = field(default_factory=set)  # streams with records that are not tombstones


class Spool:
    """An open spool folder.

    Args:
        folder: Where the segments are; made if missing.
        robot: Its owner, written into every segment.
        limit_bytes: Size at which it starts to drop.
        segment_bytes: Size at which a new file is begun.
        new_epoch: Source of epoch numbers, random 63-bit.

    Raises:
        StoreBusyError: Another process has it open.
        SegmentError: A segment of another robot.
    """

    def __init__(
        self,
        folder: Path,
        robot: str,
        *,
        limit_bytes: int = 8 << 30,
        segment_bytes: int = 16 << 20,
        disk: Disk | None = None,
        new_epoch: Callable[[], int] = lambda: int.from_bytes(os.urandom(8), "big") >> 1 | 1,
    ) -> None:
        self.folder, self.robot = folder, robot
        self.limit_bytes = limit_bytes
        self.segment_bytes = min(segment_bytes, max(limit_bytes // 4, 4096))
        self.dropped: dict[int, int] = {}  # records declared lost since this start, per stream
        self._disk, self._new_epoch = disk or Disk(), new_epoch
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        self._segments: list[_Segment] = []
        self._entries: dict[int, deque[Entry]] = {}
        self._cursors: dict[int, int] = {}
        self._owed: dict[int, tuple[int, int, int, str]] = {}  # losses not yet on disk: records, bytes, items, reason
        self._dirty = False
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    # --- what is in it -----------------------------------------------------------------------------------------------

    @property
    def recorded(self) -> dict[int, int]:
        """Highest number given out per stream, lost ones included."""
        numbers = dict(self._last)
        for stream, (records, _, _, _) in self._owed.items():
            numbers[stream] = numbers.get(stream, 0) + records
        return numbers

    @property
    def recorded_items(self) -> dict[int, int]:
        """How many items (control steps) were recorded per stream, lost ones included."""
        counts = dict(self._items)
        for stream, (_, _, items, _) in self._owed.items():
            counts[stream] = counts.get(stream, 0) + items
        return counts

    @property
    def synced(self) -> dict[int, int]:
        """Highest number per stream that survives a power cut, and may be sent."""
        return dict(self._synced)

    @property
    def first(self) -> dict[int, int]:
        """Lowest number per stream that is still here."""
        return {stream: entries[0].first for stream, entries in self._entries.items() if entries}

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    @property
    def oldest_t_ns(self) -> int | None:
        """Clock of the oldest record that waits, None when none does."""
        waiting = [e.t_ns for e in (self._next(s, self._cursors.get(s, 0)) for s in self._entries) if e is not None]
        return min(waiting, default=None)

    def waiting(self, after: dict[int, int]) -> Iterator[Entry]:
        """Synced records behind these numbers, events first, each stream in order."""
        for stream in sorted(self._entries):
            cursor, entries = after.get(stream, 0), self._entries[stream]
            if not entries or entries[-1].seq <= cursor:
                continue
            for entry in behind(entries, cursor):
                if entry.seq > self._synced.get(stream, 0):
                    break
                yield entry

    def read(self, entry: Entry) -> bytes:
        """The payload of a record.

        Raises:
            RecordError: The disk does not hold what was written; `damaged` turns it into a declared loss.
        """
        path = self._path(entry.segment)
        try:
            raw = _bytes_of(path, entry)
        except OSError as error:
            raise RecordError(f"{path} byte {entry.start}: {error}") from error
        record = next(walk(raw, check_payloads=True), None)
        if record is None or record.crc != entry.crc:
            raise RecordError(f"{path} byte {entry.start}: record {entry.stream}/{entry.seq} is damaged")
        return record.payload(raw)

    def digest_at(self, stream: int, seq: int) -> bytes | None:
        """The rolling digest after a record, None when its files are gone, or a declared loss in them cannot be read any more."""
        for segment in reversed(self._segments):
            base = segment.head.last.get(stream, 0)
            if base > seq:
                continue
            digest, at = segment.head.digests.get(stream, b""), base
            for entry in behind(self._entries.get(stream, deque()), base):
                if entry.seq > seq:
                    break
                try:
                    digest, at = self._roll(digest, entry), entry.seq
                except RecordError:
                    return None
            return digest if at == seq else None
        return None

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, stream: int, payload: bytes, t_ns: int = 0, items: int = 0) -> Receipt | None:
        """Take a record. It survives a power cut after the next `sync`.

        Returns:
            Its receipt, or None when there was no room for it: then its loss is declared.

        Raises:
            RecordTooLargeError: Past `MAX_RECORD_BYTES`; nothing was taken.
        """
        if len(payload) > MAX_RECORD_BYTES:
            raise RecordTooLargeError(
                f"record of {len(payload)} bytes; at most {MAX_RECORD_BYTES}: make chunks shorter"
            )
        try:
            if not self._make_room(stream, len(payload)):
                self.declare_lost(stream, 1, len(payload), "spool full", items)
                return None
            self._pay_owed(stream)
            entry = self._write(stream, payload, flags=0, seq=self._last.get(stream, 0) + 1, t_ns=t_ns, items=items)
        except OSError as error:  # the disk is full or broken: the loss is declared as soon as it takes anything again
            self._owe(stream, 1, len(payload), f"disk: {error.strerror or error}", items)
            return None
        return Receipt(epoch=self.epoch, stream=stream, seq=entry.seq, crc=entry.crc)

    def declare_lost(self, stream: int, records: int, size_bytes: int, reason: str, items: int = 0) -> None:
        """Number records that were never written (a full queue before the spool, no room) as lost."""
        self._owe(stream, records, size_bytes, reason, items)
        self.settle()

    def settle(self) -> None:
        """Write down losses that the disk did not take when they happened; those that it still does not take stay owed."""
        for stream in list(self._owed):
            with contextlib.suppress(OSError):
                self._pay_owed(stream)

    def sync(self) -> None:
        """Make everything appended last.

        After a refused sync the kernel may have dropped pages that still read back well, so the last file is written anew, not synced again.

        Raises:
            StoreSuspectError: That failed too; call it again later. Nothing since the last good sync counts as kept.
        """
        if self._dirty:
            try:
                if self._suspect:
                    self._write_anew()
                else:
                    self._file.sync()
            except OSError as error:
                self._suspect = True
                raise StoreSuspectError(f"{self.folder}: {error}; nothing new is sent until a sync succeeds") from error
            self._dirty = self._suspect = False
        self._synced = dict(self._last)

    def acknowledge(self, cursors: dict[int, int]) -> int:
        """The hub has everything up to these numbers: forget it. Returns how many files went."""
        for stream, cursor in cursors.items():
            self._cursors[stream] = max(self._cursors.get(stream, 0), min(cursor, self._last.get(stream, 0)))
        gone = 0
        while len(self._segments) > 1 and all(
            last <= self._cursors.get(stream, 0) for stream, last in self._segments[0].last.items()
        ):
            oldest = self._segments.pop(0)
            for entries in self._entries.values():
                while entries and entries[0].segment == oldest.number:
                    entries.popleft()
            with contextlib.suppress(OSError):  # one that stays is read again at the next start, and the hub knows it
                self._disk.unlink(oldest.path)
            gone += 1
        return gone

    def damaged(self, entry: Entry) -> None:
        """Declare the loss of a record whose bytes turned out bad.

        Raises:
            OSError: The disk takes nothing; call it again later.
        """
        if entry.segment == self._segments[-1].number:
            self._roll_segment()
        self._rewrite(
            self._segment(entry.segment), lambda e: e.stream == entry.stream and e.seq == entry.seq, "damaged"
        )

    def renew(self, cursors: dict[int, int]) -> int:
        """Begin a new epoch; records behind these cursors are numbered again in it. Returns the new epoch.

        File by file, so that a spool of any size needs the memory of one. All new files are complete before the first of them gets its name; from
        then on a start goes on in the new epoch, and before that in the old one.

        Raises:
            OSError: The disk does not take them; nothing is lost: `mend`, and call it again.
        """
        self.sync()  # what is not on the disk yet goes along
        while (epoch := self._drafted(cursors)) is None:
            pass  # a record was found damaged, and is a tombstone now
        self._file.close()
        try:
            for draft in self._drafts():
                self._disk.rename(draft, draft.with_suffix(".seg"))
        finally:
            self._open()
        return epoch

    def mend(self) -> None:
        """Read the folder again where the disk broke a change off in the middle. Call it before anything else after an OSError.

        Raises:
            OSError: The disk still refuses; call it again later.
        """
        if not self._whole:
            self._open()

    def close(self) -> None:
        if self._lock >= 0:
            self._file.close()
            os.close(self._lock)
            self._lock = -1

    # --- inside ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._suspect = self._whole = False
        self._segments, self._entries, self._cursors = [], {}, {}
        self._last: dict[int, int] = {}
        self._digest: dict[int, bytes] = {}
        self._items: dict[int, int] = {}
        for stray in self.folder.glob(".*.tmp"):
            self._disk.unlink(stray)
        self._finish_renewal()
        paths = sorted(self.folder.glob("*.seg"))
        heads = [(path, _head(path, self.robot)) for path in paths]
        self.epoch = next((head.epoch for _, head in reversed(heads) if head is not None), 0)
        for path, head in heads:
            if head is None or head.epoch != self.epoch:
                self._disk.unlink(path)  # a file cut off while it was made, or left over by `renew`
        current = [(path, head) for path, head in heads if head is not None and head.epoch == self.epoch]
        for i, (path, head) in enumerate(current):
            self._load(path, head, None if i + 1 == len(current) else current[i + 1][1])
        if not self._segments:
            self.epoch = self._new_epoch()
            self._begin_segment(1)
        else:
            self._file = self._disk.open_append(self._segments[-1].path)
            self._file.sync()
        self._synced, self._dirty, self._whole = dict(self._last), False, True

    def _finish_renewal(self) -> None:
        """`renew` was cut off: where one file has its name already, the others get theirs; else the old ones are what counts."""
        newest = max(self.folder.glob("*.seg"), default=None)
        head = None if newest is None else _head(newest, self.robot)
        for draft in self._drafts():
            drafted = _head(draft, self.robot)
            if head is not None and drafted is not None and drafted.epoch == head.epoch:
                self._disk.rename(draft, draft.with_suffix(".seg"))
            else:
                self._disk.unlink(draft)

    def _load(self, path: Path, head: HeadInfo, following: HeadInfo | None) -> None:
        """Read one segment; holes before the following one become tombstones, a torn end of the last file is cut."""
        data = path.read_bytes()
        segment = _Segment(number=head.number, path=path, head=head, size=len(data))
        if not self._segments:
            self._last, self._digest, self._items = dict(head.last), dict(head.digests), dict(head.items)
        self._segments.append(segment)
        bad: set[tuple[int, int]] = set()
        end = head_of(data)[1]
        for record, payload in survey(data, end, last=following is None):
            if payload is None:
                bad.add((record.stream, record.seq))
            self._index(segment, record, payload or b"")
            end = record.end
        if following is None and end < len(data):
            file = self._disk.open_append(path)
            file.cut(end)
            file.sync()
            file.close()
            segment.size = end
        holes = {
            s: (self._last.get(s, 0), last)
            for s, last in (following.last if following else {}).items()
            if last > self._last.get(s, 0)
        }
        segment.last = dict(self._last)
        if bad or holes:
            self._rewrite(segment, lambda e: (e.stream, e.seq) in bad, "damaged", holes, following)

    def _index(self, segment: _Segment, record: Record, payload: bytes) -> Entry:
        first, stone = record.seq, None
        if record.tombstone:
            stone = msgspec.msgpack.decode(payload, type=Tombstone) if payload else None
            first = stone.first if stone else self._last.get(record.stream, 0) + 1
        entry = Entry(
            stream=record.stream,
            first=first,
            seq=record.seq,
            flags=record.flags,
            crc=record.crc,
            t_ns=record.t_ns,
            segment=segment.number,
            start=record.start,
            payload_start=record.payload_start,
            payload_bytes=record.payload_bytes,
            items=record.items,
        )
        self._entries.setdefault(record.stream, deque()).append(entry)
        before = self._digest.get(record.stream, b"")
        self._digest[record.stream] = stone.digest_after if stone else roll(before, record.seq, record.crc)
        self._last[record.stream] = segment.last[record.stream] = record.seq
        self._items[record.stream] = self._items.get(record.stream, 0) + (stone.items if stone else record.items)
        if not record.tombstone:
            segment.live.add(record.stream)
        return entry

    def _write(self, stream: int, payload: bytes, *, flags: int, seq: int, t_ns: int, items: int) -> Entry:
        if self._segments[-1].size >= self.segment_bytes:
            with contextlib.suppress(OSError):  # then this file grows on, and the next record tries again
                self._roll_segment()
        segment, start = self._segments[-1], self._file.size
        parts = encode_record(payload, flags=flags, stream=stream, epoch=self.epoch, seq=seq, t_ns=t_ns, items=items)
        self._file.append(parts)
        self._dirty = True
        segment.size = self._file.size
        record = next(walk(b"".join(parts), check_payloads=False))
        shifted = Record(
            kind=record.kind,
            flags=flags,
            stream=stream,
            epoch=self.epoch,
            seq=seq,
            t_ns=t_ns,
            crc=record.crc,
            items=items,
            robot="",
            start=start,
            payload_start=start + record.payload_start,
            payload_bytes=len(payload),
        )
        return self._index(segment, shifted, payload)

    def _begin_segment(self, number: int) -> None:
        head = HeadInfo(
            number=number,
            owner=self.robot,
            epoch=self.epoch,
            last=dict(self._last),
            digests=dict(self._digest),
            items=dict(self._items),
        )
        path = self._path(number)
        self._disk.write_file(path, encode_info(head))
        self._file: AppendFile = self._disk.open_append(path)
        self._segments.append(
            _Segment(number=number, path=path, head=head, size=self._file.size, last=dict(self._last))
        )

    def _roll_segment(self) -> None:
        self.sync()
        previous = self._file
        self._begin_segment(self._segments[-1].number + 1)
        previous.close()

    def _write_anew(self) -> None:
        segment = self._segments[-1]
        self._disk.write_file(segment.path, segment.path.read_bytes())
        self._file.close()
        self._file = self._disk.open_append(segment.path)

    def _make_room(self, stream: int, size: int) -> bool:
        """Drop until `size` more bytes fit. Events may use a reserve."""
        limit = self.limit_bytes * (EVENT_RESERVE if stream == EVENTS else 1.0)
        if self.size_bytes + size > limit and self._segments[-1].last == self._cursors:
            self._roll_segment()
            self.acknowledge({})
        while self.size_bytes + size > limit:
            found = next(
                ((s, seg) for s in DROP_ORDER for seg in self._segments if s in seg.live and s >= stream), None
            )
            if found is None:
                return False
            victim, segment = found
            if segment is self._segments[-1]:
                self._roll_segment()
            self._rewrite(segment, lambda e, victim=victim: e.stream == victim, "spool full")
        return True

    def _rewrite(
        self,
        segment: _Segment,
        drop: Callable[[Entry], bool],
        reason: str,
        holes: dict[int, tuple[int, int]] | None = None,
        following: HeadInfo | None = None,
    ) -> None:
        """Replace a segment by one in which dropped runs are tombstones; what cannot be read of it is dropped too."""
        mine = [e for entries in self._entries.values() for e in entries if e.segment == segment.number]
        data, lost = _readable(segment.path, mine)
        data, dropped = compacted(
            data, segment.head, mine, lambda e: e in lost or drop(e), reason, holes or {}, following, self._items
        )
        for entry in dropped:
            if entry.seq > self._cursors.get(entry.stream, 0):
                self.dropped[entry.stream] = self.dropped.get(entry.stream, 0) + entry.seq - entry.first + 1
        for stream, (before, last) in (holes or {}).items():
            self.dropped[stream] = self.dropped.get(stream, 0) + last - before
        self._disk.write_file(segment.path, data)
        self._reindex(segment, data)

    def _reindex(self, segment: _Segment, data: bytes) -> None:
        """Walk a rewritten segment and put its entries where the old ones were."""
        later = [s for s in self._segments if s.number > segment.number]
        totals = self._last, self._digest, self._items
        head = segment.head
        self._last, self._digest, self._items = dict(head.last), dict(head.digests), dict(head.items)
        kept = {s: deque(e for e in entries if e.segment != segment.number) for s, entries in self._entries.items()}
        self._entries, segment.live, segment.size = {}, set(), len(data)
        for record in walk(data, head_of(data)[1], check_payloads=False):
            self._index(segment, record, record.payload(data))
        for stream, entries in kept.items():
            fresh = self._entries.get(stream, deque())
            self._entries[stream] = deque(sorted((*entries, *fresh), key=lambda e: e.seq))
        if later:
            self._last, self._digest, self._items = totals

    def _drafted(self, cursors: dict[int, int]) -> int | None:
        """Write what waits behind these cursors under a new epoch, next to what is there; None when that has to be done again."""
        for draft in self._drafts():
            self._disk.unlink(draft)
        number, epoch = self._segments[-1].number, self._new_epoch()
        last: dict[int, int] = {}
        digests: dict[int, bytes] = {}
        items: dict[int, int] = {}
        parts: list[Payload] = []
        size = self.segment_bytes  # so that the first record begins a file
        for entry in self.waiting(cursors):
            try:
                payload = self.read(entry)
            except RecordError:
                self.damaged(entry)
                return None
            if size >= self.segment_bytes:
                self._draft(number, parts)
                number += 1
                head = HeadInfo(
                    number=number,
                    owner=self.robot,
                    epoch=epoch,
                    last=dict(last),
                    digests=dict(digests),
                    items=dict(items),
                )
                parts, size = [], 0
                parts.append(encode_info(head))
            stream, first = entry.stream, last.get(entry.stream, 0) + 1
            last[stream] = seq = first + entry.seq - entry.first
            before, after = digests.get(stream, b""), roll(digests.get(stream, b""), seq, entry.crc)
            count = entry.items
            if entry.flags & TOMBSTONE:
                stone = msgspec.msgpack.decode(payload, type=Tombstone)
                stone = msgspec.structs.replace(stone, first=first, last=seq, digest_before=before, digest_after=after)
                payload, count = msgspec.msgpack.encode(stone), stone.items
            digests[stream], items[stream] = after, items.get(stream, 0) + count
            parts += encode_record(
                payload, flags=entry.flags, stream=stream, epoch=epoch, seq=seq, t_ns=entry.t_ns, items=entry.items
            )
            size += entry.payload_bytes
        if not parts:
            number += 1
            parts = [encode_info(HeadInfo(number=number, owner=self.robot, epoch=epoch))]
        self._draft(number, parts)
        return epoch

    def _draft(self, number: int, parts: list[Payload]) -> None:
        if parts:
            self._disk.write_file(self._path(number).with_suffix(DRAFT), b"".join(parts))

    def _drafts(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{DRAFT}"))

    def _owe(self, stream: int, records: int, size_bytes: int, reason: str, items: int) -> None:
        owed, owed_bytes, owed_items, _ = self._owed.get(stream, (0, 0, 0, ""))
        self._owed[stream] = (owed + records, owed_bytes + size_bytes, owed_items + items, reason)
        self.dropped[stream] = self.dropped.get(stream, 0) + records

    def _pay_owed(self, stream: int) -> None:
        """Write the tombstone of losses that are not on disk yet."""
        if stream not in self._owed:
            return
        records, size_bytes, items, reason = self._owed[stream]
        before, last = self._digest.get(stream, b""), self._last.get(stream, 0)
        stone = Tombstone(
            first=last + 1,
            last=last + records,
            reason=reason,
            payload_bytes=size_bytes,
            items=items,
            digest_before=before,
            digest_after=roll(before, last + records, 0),
        )
        self._write(stream, msgspec.msgpack.encode(stone), flags=TOMBSTONE, seq=last + records, t_ns=0, items=0)
        del self._owed[stream]

    def _roll(self, digest: bytes, entry: Entry) -> bytes:
        if entry.flags & TOMBSTONE:
            return msgspec.msgpack.decode(self.read(entry), type=Tombstone).digest_after
        return roll(digest, entry.seq, entry.crc)

    def _next(self, stream: int, after: int) -> Entry | None:
        return next(iter(behind(self._entries[stream], after)), None)

    def _segment(self, number: int) -> _Segment:
        return next(s for s in self._segments if s.number == number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.seg"


def _bytes_of(path: Path, entry: Entry) -> bytes:
    with path.open("rb") as file:
        file.seek(entry.start)
        return file.read(entry.payload_start - entry.start + entry.payload_bytes)


def _readable(path: Path, entries: list[Entry]) -> tuple[bytes, set[Entry]]:
    """A segment's bytes, zeros where the disk gives none, and the records that lie there."""
    try:
        return path.read_bytes(), set()
    except OSError:  # a bad block, mostly: the records beside it are good
        data, lost = bytearray(), set[Entry]()
    for entry in sorted(entries, key=lambda e: e.start):
        data += bytes(entry.start - len(data))
        try:
            data += _bytes_of(path, entry)
        except OSError:
            lost.add(entry)
    return bytes(data), lost


def _head(path: Path, robot: str) -> HeadInfo | None:
    try:
        with path.open("rb") as file:
            head, _ = head_of(file.read(HEAD_BYTES))
    except RecordError:
        return None
    if head.owner != robot:
        raise SegmentError(f"{path} belongs to robot {head.owner!r}, not to {robot!r}: give each robot its own --dir")
    return head
