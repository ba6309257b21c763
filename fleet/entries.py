"""Where records are inside a spool, and how a run of them becomes a tombstone. Pure, but for `lock_folder`."""

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleet.errors import StoreBusyError
from fleet.messages import Tombstone
from fleet.segment import HeadInfo, encode_info, encode_record, roll
from fleet.wire import TOMBSTONE, Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one record (or one tombstone, which covers first..seq) is."""

    stream: int
    first: int
    seq: int
    flags: int
    crc: int
    t_ns: int
    segment: int
    start: int
    payload_start: int
    payload_bytes: int
    items: int


def lock_folder(folder: Path) -> int:
    """Hold a folder for this process; returns the descriptor that holds it.

    Raises:
        StoreBusyError: Another process has it.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreBusyError(f"{folder} is open in another process; one at a time") from error
    return descriptor


def behind(entries: deque[Entry], after: int) -> Iterator[Entry]:
    """Entries whose number is above `after`; a deque is walked from the nearer end."""
    if entries and entries[0].seq > after:
        yield from entries
        return
    lo, hi = 0, len(entries)
    while lo < hi:
        middle = (lo + hi) // 2
        lo, hi = (lo, middle) if entries[middle].seq > after else (middle + 1, hi)
    for i in range(lo, len(entries)):
        yield entries[i]


def compacted(
    data: bytes,
    head: HeadInfo,
    entries: Iterable[Entry],
    drop: Callable[[Entry], bool],
    reason: str,
    holes: dict[int, tuple[int, int]],
    following: HeadInfo | None,
    items_before_holes: dict[int, int],
) -> tuple[bytes, list[Entry]]:
    """A segment in which dropped runs are tombstones. Neighbouring tombstones become one; the digest chain goes on behind them.

    Args:
        data, head, entries: The segment as it is.
        drop: Which records go.
        reason: Why, for the operator.
        holes: Per stream, (last number here, last number before the following segment), where they differ.
        following: Head of the following segment, where there are holes.
        items_before_holes: Per stream, the count of items up to the hole.

    Returns:
        The new bytes, and the entries that were dropped.
    """
    digests, parts = dict(head.digests), [encode_info(head)]
    runs: dict[int, Tombstone] = {}
    gone: list[Entry] = []
    for entry in sorted(entries, key=lambda e: e.start):
        before, run = digests.get(entry.stream, b""), runs.get(entry.stream)
        raw = data[entry.payload_start :][: entry.payload_bytes]
        stone = _stone_in(raw) if entry.flags & TOMBSTONE else None
        if stone is None and not drop(entry):
            if run is not None:
                parts += _stone_record(head.epoch, entry.stream, runs.pop(entry.stream))
            digests[entry.stream] = roll(before, entry.seq, entry.crc)
            parts.append(data[entry.start : entry.payload_start + entry.payload_bytes])
            continue
        if stone is None:
            gone.append(entry)
        digests[entry.stream] = after = stone.digest_after if stone else roll(before, entry.seq, entry.crc)
        runs[entry.stream] = Tombstone(
            first=run.first if run else entry.first,
            last=entry.seq,
            reason=run.reason if run else (stone.reason if stone else reason),
            payload_bytes=(stone.payload_bytes if stone else entry.payload_bytes) + (run.payload_bytes if run else 0),
            items=(stone.items if stone else entry.items) + (run.items if run else 0),
            digest_before=run.digest_before if run else before,
            digest_after=after,
        )
    for stream, run in runs.items():
        parts += _stone_record(head.epoch, stream, run)
    for stream, (last_here, last) in holes.items():
        assert following is not None
        stone = Tombstone(
            first=last_here + 1,
            last=last,
            reason=reason,
            payload_bytes=0,
            items=max(0, following.items.get(stream, 0) - items_before_holes.get(stream, 0)),
            digest_before=digests.get(stream, b""),
            digest_after=following.digests.get(stream, b""),
        )
        parts += _stone_record(head.epoch, stream, stone)
    return b"".join(parts), gone


def _stone_in(raw: bytes) -> Tombstone | None:
    try:
        return msgspec.msgpack.decode(raw, type=Tombstone)
    except msgspec.MsgspecError:
        return None  # damaged: it is dropped like a record


def _stone_record(epoch: int, stream: int, stone: Tombstone) -> list[Payload]:
    return encode_record(msgspec.msgpack.encode(stone), flags=TOMBSTONE, stream=stream, epoch=epoch, seq=stone.last)
