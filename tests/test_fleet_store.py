"""The hub's log: what was acknowledged is on the disk, once; what is not, was not acknowledged."""

import errno
import itertools
import tracemalloc
import zlib

import msgspec
import numpy as np
import pytest
from test_fleet_faults import FaultyDisk, StubbornDisk

import fleet.store as store_module
from fleet.errors import SegmentError, StoreBusyError, StoreFullError, StoreSuspectError
from fleet.index import Index, Mark, Verdict
from fleet.messages import Tombstone
from fleet.segment import foot_of, roll
from fleet.store import Group, Store, audit, read_log
from fleet.wire import EVENTS, STEPS, TOMBSTONE

KEY = ("a", 7, STEPS)


def put(store, group, seq, payload=b"", *, key=KEY, flags=0):
    """What the hub does with a record: judge it, and take it if it is new."""
    payload = payload or b"record %d" % seq
    crc = zlib.crc32(payload)
    verdict = store.index.judge(key, seq, flags, payload, crc)
    if verdict is Verdict.NEW:
        line = store.index.lines.get(key)
        before = line.accepted if line else Mark()
        group.add(key, seq, flags, payload, crc, 0, 3, before, store.index.accept(key, seq, flags, payload, crc, 3))
    return verdict


def fill(store, numbers, **options):
    group = Group()
    verdicts = [put(store, group, n, **options) for n in numbers]
    store.commit(group)
    store.index.commit(group.marks)
    return verdicts


def stone(first, last, before=b"", after=b"after"):
    return msgspec.msgpack.encode(
        Tombstone(
            first=first,
            last=last,
            reason="t",
            payload_bytes=9,
            items=2 * (last - first + 1),
            digest_before=before,
            digest_after=after,
        )
    )


def test_new_duplicate_gap_conflict(tmp_path):
    store = Store(tmp_path)
    assert fill(store, [1, 2, 2, 1, 4, 3]) == [
        Verdict.NEW,
        Verdict.NEW,
        Verdict.DUPLICATE,
        Verdict.DUPLICATE,
        Verdict.GAP,
        Verdict.NEW,
    ]
    assert put(store, Group(), 3, b"another") is Verdict.CONFLICT
    assert store.index.cursors("a", 7) == {STEPS: 3}
    assert store.index.cursors("a", 8) == {}
    store.close()
    assert [(r.seq, p) for r, p in read_log(tmp_path)] == [(n, b"record %d" % n) for n in (1, 2, 3)]


def test_a_cursor_counts_only_what_was_committed():
    index = Index()
    index.accept(KEY, 1, 0, b"x", 5, 0)
    assert index.cursors("a", 7) == {STEPS: 0}
    index.abort()
    assert index.judge(KEY, 2, 0, b"x", 5) is Verdict.GAP
    assert index.judge(KEY, 1, 0, b"y", 6) is Verdict.NEW


def test_cursors_digests_and_counts_come_back_from_the_log_alone(tmp_path):
    store = Store(tmp_path, segment_bytes=2000)
    for start in range(1, 100, 10):
        fill(store, range(start, start + 10))
        fill(store, range(start, start + 10), key=("b", 1, STEPS))
    lines = {key: line.committed for key, line in store.index.lines.items()}
    store.close()
    segments = sorted((tmp_path / "log").glob("*.seg"))
    assert len(segments) > 3
    assert sum(foot_of(p.read_bytes()) is not None for p in segments) == len(segments) - 1
    store = Store(tmp_path, segment_bytes=2000)
    assert {key: line.committed for key, line in store.index.lines.items()} == lines
    digest = b""
    for n in range(1, 101):
        digest = roll(digest, n, zlib.crc32(b"record %d" % n))
    assert lines[KEY] == Mark(100, digest, 100, 0, sum(len(b"record %d" % n) for n in range(1, 101)), 300, 0)
    assert fill(store, [100, 101]) == [Verdict.DUPLICATE, Verdict.NEW]
    assert store.index.doubled == 0
    store.close()


def test_a_segment_without_its_foot_is_read_record_by_record(tmp_path):
    store = Store(tmp_path, segment_bytes=500)
    fill(store, range(1, 30))
    fill(store, range(30, 60))
    lines = {key: line.committed for key, line in store.index.lines.items()}
    store.close()
    first = sorted((tmp_path / "log").glob("*.seg"))[0]
    first.write_bytes(first.read_bytes()[:-1])
    store = Store(tmp_path, segment_bytes=500)
    assert {key: line.committed for key, line in store.index.lines.items()} == lines
    store.close()


def test_garbage_at_the_end_is_cut(tmp_path):
    store = Store(tmp_path)
    fill(store, [1, 2])
    store.close()
    path = tmp_path / "log/000000000001.seg"
    path.write_bytes(path.read_bytes() + b"FXR1 garbage")
    store = Store(tmp_path)
    assert store.cut_bytes == 12
    assert fill(store, [2, 3]) == [Verdict.DUPLICATE, Verdict.NEW]
    store.close()
    assert [r.seq for r, _ in read_log(tmp_path)] == [1, 2, 3]


def test_a_full_disk_keeps_nothing_of_the_group_and_the_records_are_new_again(tmp_path):
    disk = FaultyDisk()
    store = Store(tmp_path, disk=disk)
    fill(store, [1])
    group = Group()
    put(store, group, 2)
    disk.space_bytes = 10
    assert store.full
    with pytest.raises(StoreFullError, match="the group was not kept") as caught:
        store.commit(group)
    assert caught.value.errno == errno.ENOSPC
    store.index.abort()
    disk.space_bytes = None
    assert fill(store, [2, 3]) == [Verdict.NEW, Verdict.NEW]
    store.close()
    assert [r.seq for r, _ in read_log(tmp_path)] == [1, 2, 3]


def test_a_refused_sync_stops_the_store_and_the_next_start_writes_the_file_anew(tmp_path):
    disk = FaultyDisk()
    store = Store(tmp_path, disk=disk)
    fill(store, [1])
    disk.fail_sync = True
    group = Group()
    put(store, group, 2)
    with pytest.raises(StoreSuspectError, match="nothing more is acknowledged"):
        store.commit(group)
    assert store.index.cursors("a", 7) == {STEPS: 1}
    store.close()
    path = tmp_path / "log/000000000001.seg"
    assert path.with_suffix(".suspect").exists()
    inode = path.stat().st_ino
    store = Store(tmp_path)
    assert path.stat().st_ino != inode
    assert not path.with_suffix(".suspect").exists()
    store.close()


def test_tombstones_move_the_cursor_and_are_counted(tmp_path):
    store = Store(tmp_path)
    fill(store, [1, 2])
    digest = store.index.lines[KEY].committed.digest
    group = Group()
    assert put(store, group, 9, stone(5, 9), flags=TOMBSTONE) is Verdict.GAP
    assert put(store, group, 9, stone(3, 8), flags=TOMBSTONE) is Verdict.MALFORMED
    assert put(store, group, 9, b"nonsense", flags=TOMBSTONE) is Verdict.MALFORMED
    assert put(store, group, 2, stone(1, 2), flags=TOMBSTONE) is Verdict.DUPLICATE
    assert put(store, group, 5, stone(3, 5, digest), flags=TOMBSTONE) is Verdict.NEW
    assert put(store, group, 8, stone(4, 8), flags=TOMBSTONE) is Verdict.NEW  # partly known already
    assert store.index.digest_breaks == 0
    assert put(store, group, 9, stone(9, 9, b"wrong"), flags=TOMBSTONE) is Verdict.NEW
    assert store.index.digest_breaks == 1
    store.commit(group)
    store.index.commit(group.marks)
    assert store.index.lines[KEY].committed.lost == 7
    assert store.index.lines[KEY].committed.lost_items == 14
    assert store.index.lines[KEY].committed.items == 6
    store.close()
    (line,) = audit(tmp_path)
    assert (line.held, line.declared_lost, line.missing, line.doubled) == (2, 7, 0, 0)


def giant(first, last, items=2**64 - 1):
    plain = {"first": first, "last": last, "reason": "t", "payload_bytes": 0, "items": items}
    return msgspec.msgpack.encode({**plain, "digest_before": b"", "digest_after": b"x"})


def test_a_tombstone_of_more_than_can_be_is_refused_and_one_that_cannot_be_read_too(tmp_path):
    store, group = Store(tmp_path), Group()
    assert put(store, group, 2**64 - 1, giant(1, 2**64 - 1), flags=TOMBSTONE) is Verdict.MALFORMED
    assert put(store, group, 9, giant(1, 9), flags=TOMBSTONE) is Verdict.MALFORMED
    assert put(store, group, 9, stone(-1, 9), flags=TOMBSTONE) is Verdict.MALFORMED
    assert put(store, group, 9, stone(1, 9).replace(b"\xa1t", b"\xa1\xff"), flags=TOMBSTONE) is Verdict.MALFORMED
    assert group.parts == []
    store.close()


@pytest.mark.parametrize("sealed", ["open", "sealed", "sealed, another behind it"])
def test_a_log_that_holds_an_impossible_tombstone_already_opens_without_it(tmp_path, monkeypatch, sealed):
    store, other = Store(tmp_path), ("b", 7, STEPS)
    with monkeypatch.context() as old:  # a hub that believed everything
        old.setattr("fleet.index.read_stone", lambda payload, _seq: Tombstone(**msgspec.msgpack.decode(payload)))
        for key in (KEY, other):
            fill(store, [1], key=key)
            group = Group()
            assert put(store, group, 2**64 - 1, giant(2, 2**64 - 1), key=key, flags=TOMBSTONE) is Verdict.NEW
            store.commit(group)
            store.index.commit(group.marks)
    if sealed != "open":
        store.seal()
    if sealed.endswith("it"):
        fill(store, [1, 2, 3], key=("c", 7, STEPS))
        store.seal()
    store.close()
    store = Store(tmp_path)
    assert (store.index.cursors("a", 7), store.index.damaged) == ({STEPS: 1}, 2)
    assert fill(store, [2, 3]) == [Verdict.NEW, Verdict.NEW]
    store.seal()
    store.close()
    store = Store(tmp_path)
    assert store.index.cursors("a", 7) == {STEPS: 3}
    store.close()
    lines = {line.robot: line for line in audit(tmp_path)}
    assert (lines["a"].last, lines["a"].held, lines["a"].missing, lines["a"].declared_lost) == (3, 3, 0, 0)


def test_an_audit_counts_a_long_loss_without_listing_its_numbers(tmp_path):
    store = Store(tmp_path)
    fill(store, [1])
    fill(store, [2**40], payload=giant(2, 2**40, items=0), flags=TOMBSTONE)
    fill(store, [7, 5, 6])  # another hub had them
    store.close()
    (line,) = audit(tmp_path)
    assert (line.last, line.held, line.declared_lost, line.missing) == (2**40, 4, 2**40 - 4, 0)


def test_a_flipped_byte_is_found_and_never_served(tmp_path):
    store = Store(tmp_path)
    fill(store, range(1, 6))
    store.close()
    path = tmp_path / "log/000000000001.seg"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"record 3", b"recorD 3"))
    assert [r.seq for r, _ in read_log(tmp_path)] == [1, 2, 4, 5]
    (line,) = audit(tmp_path)
    assert (line.held, line.missing, line.doubled) == (4, 1, 0)
    store = Store(tmp_path)
    assert store.index.damaged == 1
    assert store.index.cursors("a", 7) == {STEPS: 5}
    store.close()


def test_the_audit_sees_a_doubled_record(tmp_path):
    store = Store(tmp_path)
    group = Group()
    put(store, group, 1)
    group.parts += group.parts  # a hub with a bug
    store.commit(group)
    store.close()
    (line,) = audit(tmp_path)
    assert (line.held, line.held_items, line.doubled) == (1, 3, 1)
    store = Store(tmp_path)
    assert store.index.doubled == 1
    store.close()


@pytest.mark.parametrize("seed", range(20))
def test_numbers_as_ranges_count_like_a_set(seed):
    rng = np.random.default_rng(seed)
    numbers, spans, seen = store_module._Numbers(), [], set()
    for number in map(int, rng.integers(1, 60, 80)):
        assert numbers.add(number) is (number not in seen)
        seen.add(number)
    flat = [n for first, last in numbers.spans for n in range(first, last + 1)]
    assert (flat, numbers.count, numbers.again) == (sorted(seen), len(seen), 80 - len(seen))
    assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(numbers.spans))
    first = 1
    for step in rng.integers(2, 9, 8):
        spans.append((first, first + int(step) // 2))
        first += int(step) + 2
    covered = {n for a, b in spans for n in range(a, b + 1)}
    assert (
        store_module._shared(spans, numbers.spans) == store_module._shared(numbers.spans, spans) == len(covered & seen)
    )


def test_an_audit_takes_the_memory_of_gaps_not_of_records():
    numbers = store_module._Numbers()
    assert all(numbers.add(n) for n in range(1, 10_000))
    assert numbers.spans == [(1, 9_999)]


def test_F07_no_room_for_the_next_segment_is_a_full_disk_and_not_the_end(tmp_path):
    disk = StubbornDisk()
    store = Store(tmp_path, disk=disk, segment_bytes=500)
    disk.left = 0
    fill(store, [1, 2], payload=b"x" * 300)  # is on the disk; its segment is sealed, and the next one cannot be begun
    store.seal()
    group = Group()
    put(store, group, 3)
    for _ in range(2):
        with pytest.raises(StoreFullError, match="was not kept"):
            store.commit(group)
    disk.left = 1 << 30
    store.commit(group)
    store.close()
    assert len(list((tmp_path / "log").glob("*.seg"))) == 2
    store = Store(tmp_path)
    assert (store.index.cursors("a", 7), store.index.damaged) == ({STEPS: 3}, 0)
    store.close()


def test_events_are_found_in_a_long_log_without_holding_a_file_of_it(tmp_path):
    store = Store(tmp_path, segment_bytes=1 << 20)
    for n in range(1, 9):
        fill(store, [n], payload=b"%d" % n * 500_000)
        fill(store, [n], payload=b"event %d" % n, key=("a", 7, EVENTS))
    store.close()
    tracemalloc.start()
    found = [payload for _, payload in read_log(tmp_path, {EVENTS})]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [b"event %d" % n for n in range(1, 9)]
    assert len(list((tmp_path / "log").glob("*.seg"))) == 3
    last = max((tmp_path / "log").glob("*.seg")).stat().st_size
    assert peak < last + 200_000


def test_quarantine_keeps_the_record_and_why(tmp_path):
    store = Store(tmp_path)
    store.quarantine(KEY, 3, b"other", zlib.crc32(b"other"), "two robots, one key")
    store.quarantine(KEY, 3, b"other", zlib.crc32(b"other"), "again")
    store.close()
    (path,) = (tmp_path / "quarantine").glob("*.rec")
    assert b"other" in path.read_bytes()
    assert path.with_suffix(".why").read_text() == "two robots, one key"


def test_a_folder_serves_one_hub_and_a_foreign_file_is_named(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(StoreBusyError, match="one at a time"):
        Store(tmp_path)
    store.close()
    (tmp_path / "log/000000000002.seg").write_bytes(b"not a segment")
    with pytest.raises(SegmentError, match=r"000000000002.seg: .*Move it away"):
        Store(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_F02_power_loss_never_loses_an_acknowledged_record_nor_doubles_one(tmp_path, seed):
    rng = np.random.default_rng(seed)
    acknowledged = {("a", 1, STEPS): 0, ("b", 1, STEPS): 0}
    for _ in range(8):
        disk = FaultyDisk()
        store = Store(tmp_path, disk=disk, segment_bytes=3000)
        for key, cursor in acknowledged.items():
            assert store.index.cursors(key[0], key[1]).get(STEPS, 0) >= cursor
        assert (store.index.doubled, store.index.damaged) == (0, 0)
        for _ in range(int(rng.integers(0, 12))):
            group = Group()
            for key in acknowledged:
                line = store.index.lines.get(key)
                start = line.accepted.seq if line else 0
                for n in range(max(1, start - 2), start + int(rng.integers(1, 6))):  # resends overlap
                    put(store, group, n, b"%s %d" % (key[0].encode(), n) * 20, key=key)
            if rng.random() < 0.15:  # the power goes while the group is written
                disk.fail_sync = True
                with pytest.raises(StoreSuspectError):
                    store.commit(group)
                break
            store.commit(group)
            store.index.commit(group.marks)
            for key, mark in group.marks.items():
                acknowledged[key] = mark.seq
        store.close()
        disk.lose_power(rng)
    lines = {(x.robot, x.epoch, x.stream): x for x in audit(tmp_path)}
    for key, cursor in acknowledged.items():
        assert lines[key].held >= cursor > 10
        assert (lines[key].missing, lines[key].doubled) == (0, 0)
