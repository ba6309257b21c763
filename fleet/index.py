"""What the hub knows of every stream it holds: cursors, digests, counts. Pure; the log's files are in `fleet.store`.

One integer per (robot, epoch, stream) decides almost everything: number cursor+1 is new, up to the cursor is a duplicate, behind it a gap. What
tombstones skipped are holes below the cursor: a record in a hole is new too, because another hub may hold what this one was told to be lost.
So two logs merge as sets. A line has two marks: `accepted` (handed to the disk) and `committed` (on the disk); only the second is told to a robot.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import msgspec

from fleet import reasons
from fleet.messages import MAX_COUNT, Tombstone
from fleet.segment import KeyRange, roll
from fleet.wire import TOMBSTONE, Payload

Key = tuple[str, int, int]  # robot, epoch, stream
MAX_HOLES = 256  # per line; the oldest of more is given up: what another hub holds of it is not taken any more
RECENT = 256  # checksums kept per line to tell a resent record from another one under the same number


class Verdict(Enum):
    """What is to be done with a record."""

    NEW = "new"
    DUPLICATE = "duplicate"
    GAP = "gap"
    CONFLICT = "conflict"
    MALFORMED = "malformed"


Holes = tuple[tuple[int, int], ...]  # ranges first..last, ascending


class Mark(NamedTuple):
    """State of a line after a record.

    Attributes:
        seq: Cursor.
        digest: Rolling digest at the cursor.
        records: Records held (tombstones not counted).
        lost: Records declared lost.
        payload_bytes: Of the records held.
        items, lost_items: Things (control steps) in the records held, and in those declared lost.
        holes: Ranges up to the cursor that are not held.
    """

    seq: int = 0
    digest: bytes = b""
    records: int = 0
    lost: int = 0
    payload_bytes: int = 0
    items: int = 0
    lost_items: int = 0
    holes: Holes = ()


@dataclass(slots=True)
class Line:
    """One (robot, epoch, stream)."""

    accepted: Mark = field(default_factory=Mark)
    committed: Mark = field(default_factory=Mark)
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))


class Index:
    """All lines of a hub, and the counters of what went wrong."""

    def __init__(self) -> None:
        self.lines: dict[Key, Line] = {}
        self._streams: dict[tuple[str, int], dict[int, Line]] = {}  # (robot, epoch) -> stream -> line
        self.duplicates = 0  # resent records that were not stored again
        self.gaps = 0
        self.conflicts = 0
        self.doubled = 0  # records found twice in the log: must stay 0
        self.damaged = 0  # records in the log whose bytes are bad
        self.holes_given_up = 0  # ranges that were declared lost and can no longer be filled by another hub
        self.tombstoned: Counter[str] = (
            Counter()
        )  # why -> records; of segments sealed before this start only the sum is known
        self.digest_breaks = 0  # tombstones whose digest does not continue ours

    def cursors(self, robot: str, epoch: int) -> dict[int, int]:
        """What of a robot's epoch is on disk, per stream."""
        return {s: line.committed.seq for s, line in self._streams.get((robot, epoch), {}).items()}

    def digests(self, robot: str, epoch: int) -> dict[int, bytes]:
        """Rolling digests at those cursors."""
        return {s: line.committed.digest for s, line in self._streams.get((robot, epoch), {}).items()}

    def judge(self, key: Key, seq: int, flags: int, payload: Payload, crc: int) -> Verdict:
        """What to do with a record; `accept` it if NEW. A tombstone covers a range, and may begin below the cursor."""
        line = self.lines.get(key)
        cursor = line.accepted.seq if line else 0
        first = seq
        if flags & TOMBSTONE:
            stone = read_stone(payload, seq)
            if stone is None:
                return Verdict.MALFORMED
            first = stone.first
        if seq <= cursor:
            if line and line.accepted.holes and not flags & TOMBSTONE and in_holes(line.accepted.holes, seq):
                return Verdict.NEW
            known = next((c for s, c in (line.recent if line else ()) if s == seq), crc)
            if known != crc and not flags & TOMBSTONE:
                self.conflicts += 1
                return Verdict.CONFLICT
            self.duplicates += 1
            return Verdict.DUPLICATE
        if first > cursor + 1:
            self.gaps += 1
            return Verdict.GAP
        return Verdict.NEW

    def accept(self, key: Key, seq: int, flags: int, payload: Payload, crc: int, items: int) -> Mark:
        """Move a line's accepted mark behind a record that was judged NEW."""
        line = self._line(key)
        line.accepted = self._after(line.accepted, seq, flags, payload, crc, items)
        line.recent.append((seq, crc))
        return line.accepted

    def commit(self, marks: dict[Key, Mark]) -> None:
        """These are on the disk now."""
        for key, mark in marks.items():
            self.lines[key].committed = mark

    def abort(self) -> None:
        """Forget everything that is not on the disk: robots will send it again."""
        for line in self.lines.values():
            line.accepted = line.committed
            line.recent = deque((r for r in line.recent if r[0] <= line.committed.seq), maxlen=RECENT)

    def replay(self, key: Key, seq: int, flags: int, payload: Payload, crc: int, items: int) -> None:
        """A record read back from the log. A tombstone that would be refused now says nothing: its numbers are not held."""
        line = self._line(key)
        if flags & TOMBSTONE and read_stone(payload, seq) is None:
            self.damaged += 1
            return
        if seq <= line.accepted.seq and (flags & TOMBSTONE or not in_holes(line.accepted.holes, seq)):
            self.doubled += 1
            return
        self.accept(key, seq, flags, payload, crc, items)
        line.committed = line.accepted

    def restore(self, ranges: Iterable[KeyRange]) -> None:
        """What a sealed segment's foot says."""
        for r in ranges:
            line = self._line((r.robot, r.epoch, r.stream))
            old = line.committed
            line.accepted = line.committed = Mark(
                seq=r.last,
                digest=r.digest,
                records=old.records + r.records,
                lost=old.lost + r.lost,
                payload_bytes=old.payload_bytes + r.payload_bytes,
                items=old.items + r.items,
                lost_items=old.lost_items + r.lost_items,
                holes=self._bounded(r.holes),
            )
            if r.last_crc:
                line.recent.append((r.last, r.last_crc))

    def _line(self, key: Key) -> Line:
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = self._streams.setdefault(key[:2], {})[key[2]] = Line()
        return line

    def _after(self, mark: Mark, seq: int, flags: int, payload: Payload, crc: int, items: int) -> Mark:
        if not flags & TOMBSTONE:
            records, size, items = mark.records + 1, mark.payload_bytes + len(payload), mark.items + items
            if seq > mark.seq:
                digest = roll(mark.digest, seq, crc)
                return Mark(seq, digest, records, mark.lost, size, items, mark.lost_items, mark.holes)
            # It was declared lost, and another hub had it: the cursor and its digest are behind it already.
            lost_items = max(0, mark.lost_items - items + mark.items)
            holes = self._bounded(without(mark.holes, seq))
            return Mark(mark.seq, mark.digest, records, mark.lost - 1, size, items, lost_items, holes)
        stone = read_stone(payload, seq)
        assert stone is not None  # it was judged
        if stone.first == mark.seq + 1 and stone.digest_before != mark.digest:
            self.digest_breaks += 1
        lost, covered = seq - mark.seq, seq - stone.first + 1
        self.tombstoned[reasons.loss(stone.reason)] += lost
        return mark._replace(
            seq=seq,
            digest=stone.digest_after,
            lost=mark.lost + lost,
            lost_items=mark.lost_items + stone.items * lost // covered,
            holes=self._bounded(_with(mark.holes, mark.seq + 1, seq)),
        )

    def _bounded(self, holes: Holes) -> Holes:
        """The newest ranges: a robot that declares every second record lost must not fill the hub's memory."""
        self.holes_given_up += max(0, len(holes) - MAX_HOLES)
        return holes[-MAX_HOLES:]


def read_stone(payload: Payload, seq: int) -> Tombstone | None:
    """The tombstone in a record with this number, None where it is none, contradicts itself, or counts more than can be."""
    try:
        stone = msgspec.msgpack.decode(payload, type=Tombstone)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return stone if stone.last == seq and 0 < stone.first <= stone.last else None


def possible(ranges: Iterable[KeyRange]) -> bool:
    """Whether a sealed segment's foot counts no more than can be; otherwise its records are to be read one by one."""
    return all(max(r.last, r.lost, r.lost_items) <= MAX_COUNT for r in ranges)


def in_holes(holes: Holes, seq: int) -> bool:
    """Whether a number lies in one of some ranges."""
    return any(first <= seq <= last for first, last in holes)


def _with(holes: Holes, first: int, last: int) -> Holes:
    """The ranges and one behind them; it goes on from the last where they meet."""
    if holes and holes[-1][1] == first - 1:
        return (*holes[:-1], (holes[-1][0], last))
    return (*holes, (first, last))


def without(holes: Holes, seq: int) -> Holes:
    """The ranges when a number is taken out of them."""
    kept: list[tuple[int, int]] = []
    for first, last in holes:
        if first <= seq <= last:
            kept += [(a, b) for a, b in ((first, seq - 1), (seq + 1, last)) if a <= b]
        else:
            kept.append((first, last))
    return tuple(kept)
