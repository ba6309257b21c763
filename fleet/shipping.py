"""A hub's log as another hub reads it: record after record from a place on, each log in its own order. Pure, but for reading files.

Merging needs no more order than that: within a log every record comes after what it follows on, so the reader sees no gaps; what it holds already is
left out by its coverage, or is a duplicate.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleet.errors import RecordError
from fleet.index import Holes, Index, Key, in_holes
from fleet.segment import DATA, Record, walk

BATCH_BYTES = 512 << 10


class Place(NamedTuple):
    """A place in a log: the next byte to read."""

    segment: int = 0
    offset: int = 0


class Cover(msgspec.Struct, frozen=True, array_like=True):
    """What a hub holds of a line: all up to `seq` except the holes."""

    robot: str
    epoch: int
    stream: int
    seq: int
    holes: Holes = ()

    @property
    def key(self) -> Key:
        return self.robot, self.epoch, self.stream


def coverage(index: Index) -> list[Cover]:
    """What is on this hub's disk."""
    return [
        Cover(robot=r, epoch=e, stream=s, seq=line.committed.seq, holes=line.committed.holes)
        for (r, e, s), line in index.lines.items()
    ]


def covers(cover: Cover | None, seq: int) -> bool:
    """Whether a record is held."""
    return cover is not None and seq <= cover.seq and not in_holes(cover.holes, seq)


def shared(ours: Cover, theirs: Cover | None) -> int:
    """Up to which number they hold all that we hold: what we were told to be lost they need not have."""
    if theirs is None:
        return 0
    top = min(ours.seq, theirs.seq)
    for first, last in theirs.holes:
        lacking = first
        for a, b in ours.holes:  # ascending: the first number of theirs that is in none of ours
            lacking = b + 1 if a <= lacking <= b else lacking
        if lacking <= min(last, top):
            return lacking - 1
    return top


def missing(theirs: Cover, ours: Cover | None) -> int:
    """How many records they hold and we do not."""
    spans = [(1, theirs.seq)]
    for first, last in theirs.holes:
        spans = [
            piece for a, b in spans for piece in ((a, min(b, first - 1)), (max(a, last + 1), b)) if piece[0] <= piece[1]
        ]
    held = 0
    our_holes = ours.holes if ours else ()
    for a, b in spans:
        top = min(b, ours.seq if ours else 0)
        if top >= a:
            held += top - a + 1
            held -= sum(max(0, min(top, last) - max(a, first) + 1) for first, last in our_holes)
    return sum(b - a + 1 for a, b in spans) - held


def ship(
    log: Path, place: Place, end: Place, has: Callable[[Record], bool], limit: int = BATCH_BYTES
) -> tuple[bytes, Place]:
    """Records from a place on, and where to go on.

    Args:
        log: Folder of the segments.
        end: Up to where the log is on the disk.
        has: Whether the reader holds a record already.
        limit: About how many bytes.
    """
    parts: list[bytes] = []
    size = 0
    numbers = sorted(int(path.stem) for path in log.glob("*.seg"))
    while place < end:
        number = next((n for n in numbers if n >= place.segment), None)
        if number is None or number > end.segment:
            return b"".join(parts), end
        offset = place.offset if number == place.segment else 0
        with (log / f"{number:012d}.seg").open("rb") as file:
            file.seek(offset)
            room = end.offset - offset if number == end.segment else -1
            data = file.read(min(4 * limit, room) if room >= 0 else 4 * limit)
        at = 0
        for record in walk(data, check_payloads=False):
            fresh = record.kind == DATA and not has(record)
            if fresh and parts and size + record.end - record.start > limit:
                return b"".join(parts), Place(number, offset + at)
            at = record.end
            if not fresh:
                continue
            try:
                record.payload(data)
            except RecordError:
                continue  # damaged here; another hub may have it
            parts.append(data[record.start : record.end])
            size += record.end - record.start
        if at and len(data) == 4 * limit:
            place = Place(number, offset + at)  # the window ended within a record
        elif number < end.segment:
            place = Place(number + 1, 0)
        else:
            return b"".join(parts), Place(number, offset + at)
    return b"".join(parts), place
