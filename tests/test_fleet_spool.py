"""The robot's spool: numbered without holes, kept over crashes, and no record dropped without a tombstone."""

import contextlib
import errno
import itertools
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_fleet_faults import FaultyDisk, StubbornDisk

import fleet.spool as spool_module
from fleet.errors import RecordError, RecordTooLargeError, SegmentError, StoreBusyError, StoreSuspectError
from fleet.messages import Tombstone
from fleet.segment import MAX_RECORD_BYTES, roll
from fleet.spool import Spool
from fleet.wire import EVENTS, STEPS, TOMBSTONE


def open_spool(path, **options):
    options.setdefault("new_epoch", itertools.count(77).__next__)
    return Spool(path, "a", **options)


def covered(spool, after=None):
    """Per stream the numbers that would be sent, tombstones expanded, and the ones that carry a record."""
    numbers, records = {}, {}
    for entry in spool.waiting(after or {}):
        numbers.setdefault(entry.stream, []).extend(range(entry.first, entry.seq + 1))
        payload = spool.read(entry)
        if not entry.flags & TOMBSTONE:
            records.setdefault(entry.stream, {})[entry.seq] = payload
        else:
            stone = msgspec.msgpack.decode(payload, type=Tombstone)
            assert (stone.first, stone.last) == (entry.first, entry.seq)
    return numbers, records


def test_numbers_are_contiguous_per_stream_and_survive_a_new_start(tmp_path):
    spool = open_spool(tmp_path)
    receipts = [spool.append(stream, bytes([n])) for n, stream in enumerate([STEPS, EVENTS, STEPS, STEPS, EVENTS])]
    assert [(r.stream, r.seq) for r in receipts] == [(2, 1), (1, 1), (2, 2), (2, 3), (1, 2)]
    epoch = spool.epoch
    spool.close()
    spool = open_spool(tmp_path)
    assert spool.epoch == epoch
    assert spool.recorded == spool.synced == {EVENTS: 2, STEPS: 3}
    assert spool.append(STEPS, b"next").seq == 4
    spool.sync()
    assert covered(spool)[1] == {
        EVENTS: {1: b"\x01", 2: b"\x04"},
        STEPS: {1: b"\x00", 2: b"\x02", 3: b"\x03", 4: b"next"},
    }
    assert [e.stream for e in spool.waiting({})] == [1, 1, 2, 2, 2, 2]  # events go first
    assert [e.seq for e in spool.waiting({EVENTS: 2, STEPS: 2})] == [3, 4]
    spool.close()


def test_nothing_is_offered_before_it_is_synced(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(STEPS, b"x")
    assert list(spool.waiting({})) == []
    spool.sync()
    assert [e.seq for e in spool.waiting({})] == [1]
    spool.close()


def test_files_go_only_behind_the_cursor(tmp_path):
    spool = open_spool(tmp_path, segment_bytes=4096)
    for _ in range(30):
        spool.append(STEPS, os.urandom(1000))
    spool.sync()
    files = len(list(tmp_path.glob("*.seg")))
    assert files > 3
    assert spool.acknowledge({STEPS: 3}) == 0
    assert spool.acknowledge({STEPS: 12}) > 0
    assert spool.first[STEPS] <= 13
    spool.acknowledge({STEPS: 30})
    assert len(list(tmp_path.glob("*.seg"))) == 1
    spool.close()
    spool = open_spool(tmp_path)
    assert spool.append(STEPS, b"x").seq == 31  # counting goes on though the records are gone
    spool.close()


def test_the_digest_is_the_rolling_hash_also_over_files_that_are_gone(tmp_path):
    spool = open_spool(tmp_path, segment_bytes=4096)
    digest, expected = b"", {0: b""}
    for n in range(1, 21):
        receipt = spool.append(STEPS, os.urandom(900))
        digest = roll(digest, n, receipt.crc)
        expected[n] = digest
    spool.sync()
    assert {n: spool.digest_at(STEPS, n) for n in range(21)} == expected
    spool.acknowledge({STEPS: 12})
    first = spool.first[STEPS]
    assert first > 1
    assert spool.digest_at(STEPS, first - 1) == expected[first - 1]
    assert spool.digest_at(STEPS, 20) == expected[20]
    assert spool.digest_at(STEPS, 1) is None
    assert spool.digest_at(STEPS, 21) is None
    spool.close()


def test_a_torn_end_is_cut_and_its_number_used_again(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(STEPS, b"one" * 50)
    spool.append(STEPS, b"two" * 50)
    spool.close()
    path = next(tmp_path.glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-7])
    spool = open_spool(tmp_path)
    assert spool.recorded == {STEPS: 1}
    assert spool.append(STEPS, b"again").seq == 2
    spool.sync()
    assert covered(spool)[1][STEPS] == {1: b"one" * 50, 2: b"again"}
    spool.close()


def test_a_full_spool_drops_steps_but_never_events_and_leaves_tombstones(tmp_path):
    spool = open_spool(tmp_path, limit_bytes=40_000)
    events = {}
    for n in range(100):
        spool.append(STEPS, os.urandom(1500), items=25)
        if n % 10 == 0:
            receipt = spool.append(EVENTS, payload := b"fall %d" % n)
            events[receipt.seq] = payload
    spool.sync()
    assert spool.size_bytes <= 40_000
    numbers, records = covered(spool)
    assert numbers == {EVENTS: list(range(1, 11)), STEPS: list(range(1, 101))}  # no hole
    assert records[EVENTS] == events
    assert 0 < len(records[STEPS]) < 100
    assert spool.dropped == {STEPS: 100 - len(records[STEPS])}
    assert min(records[STEPS]) > 50  # the oldest went first
    spool.close()
    again = open_spool(tmp_path, limit_bytes=40_000)
    assert covered(again) == (numbers, records)
    assert again.recorded_items[STEPS] == spool.recorded_items[STEPS] == 2500
    again.close()


def test_the_digest_chain_goes_on_behind_a_tombstone(tmp_path):
    spool = open_spool(tmp_path, limit_bytes=40_000)
    digest = b""
    for n in range(1, 101):
        digest = roll(digest, n, spool.append(STEPS, os.urandom(1500)).crc)
    spool.sync()
    assert spool.dropped[STEPS] > 0
    at, cursor = b"", 0
    for entry in spool.waiting({}):
        if entry.flags & TOMBSTONE:
            stone = msgspec.msgpack.decode(spool.read(entry), type=Tombstone)
            assert stone.digest_before == at
            at = stone.digest_after
        else:
            at = roll(at, entry.seq, entry.crc)
        assert entry.first == cursor + 1
        cursor = entry.seq
    assert (at, cursor) == (digest, 100)
    spool.close()


def test_debug_goes_before_steps_when_room_is_short(tmp_path):
    spool = open_spool(tmp_path, limit_bytes=40_000)
    for _ in range(15):
        spool.append(STEPS, os.urandom(1000))
        spool.append(5, os.urandom(1000))
    for _ in range(15):
        spool.append(STEPS, os.urandom(1000))
    spool.sync()
    assert spool.dropped[5] > 0
    assert STEPS not in spool.dropped
    assert covered(spool)[0] == {STEPS: list(range(1, 31)), 5: list(range(1, 16))}
    spool.close()


def test_a_full_disk_is_a_declared_loss_once_there_is_room_again(tmp_path):
    disk = FaultyDisk()
    spool = open_spool(tmp_path, disk=disk)
    spool.append(STEPS, b"kept")
    disk.space_bytes = 0
    assert spool.append(STEPS, b"lost" * 10) is None
    assert spool.append(STEPS, b"lost" * 10) is None
    assert spool.recorded == {STEPS: 3}
    disk.space_bytes = None
    assert spool.append(STEPS, b"kept too").seq == 4
    spool.sync()
    numbers, records = covered(spool)
    assert numbers == {STEPS: [1, 2, 3, 4]}
    assert records == {STEPS: {1: b"kept", 4: b"kept too"}}
    spool.close()


def test_a_loss_is_written_down_as_soon_as_there_is_room_also_where_nothing_comes_after_it(tmp_path):
    disk = FaultyDisk()
    spool = open_spool(tmp_path, disk=disk)
    disk.space_bytes = 0
    spool.append(STEPS, b"lost")
    spool.settle()
    spool.sync()
    assert covered(spool)[0] == {}
    disk.space_bytes = None
    spool.settle()
    spool.sync()
    assert covered(spool) == ({STEPS: [1]}, {})
    spool.close()


def test_a_refused_sync_stops_sending_and_the_file_is_written_anew(tmp_path):
    disk = FaultyDisk()
    spool = open_spool(tmp_path, disk=disk)
    spool.append(STEPS, b"x")
    disk.fail_sync = True
    with pytest.raises(StoreSuspectError, match="nothing new is sent"):
        spool.sync()
    assert list(spool.waiting({})) == []
    inode = next(tmp_path.glob("*.seg")).stat().st_ino
    disk.fail_sync = False
    spool.sync()
    assert next(tmp_path.glob("*.seg")).stat().st_ino != inode
    assert [e.seq for e in spool.waiting({})] == [1]
    spool.close()


def test_a_flipped_byte_in_the_middle_becomes_a_declared_loss_of_that_record(tmp_path):
    spool = open_spool(tmp_path, segment_bytes=4096)
    for n in range(12):
        spool.append(STEPS, bytes([n]) * 1000)
    spool.close()
    path = sorted(tmp_path.glob("*.seg"))[1]
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    spool = open_spool(tmp_path, segment_bytes=4096)
    numbers, records = covered(spool)
    assert numbers == {STEPS: list(range(1, 13))}
    assert len(records[STEPS]) == 11
    assert spool.dropped == {STEPS: 1}
    spool.close()


def test_a_record_that_rots_while_the_spool_is_open_is_declared_lost(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(STEPS, b"a" * 100)
    spool.append(STEPS, b"b" * 100)
    spool.sync()
    path = next(tmp_path.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[data.index(b"a" * 100)] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    entry = next(spool.waiting({}))
    with pytest.raises(RecordError, match="damaged"):
        spool.read(entry)
    spool.damaged(entry)
    assert covered(spool) == ({STEPS: [1, 2]}, {STEPS: {2: b"b" * 100}})
    assert spool.append(STEPS, b"c").seq == 3
    spool.sync()
    assert covered(spool)[0] == {STEPS: [1, 2, 3]}
    spool.close()


def test_a_new_epoch_keeps_what_the_hub_does_not_have_and_only_that(tmp_path):
    spool = open_spool(tmp_path, limit_bytes=40_000)
    for n in range(40):
        spool.append(STEPS, bytes([n]) * 1500)
    spool.append(EVENTS, b"fall")
    spool.sync()
    before = covered(spool, {STEPS: 10})
    old = spool.epoch
    assert spool.renew({STEPS: 10}) != old
    numbers, records = covered(spool)
    assert numbers == {EVENTS: [1], STEPS: list(range(1, len(before[0][STEPS]) + 1))}
    assert list(records[STEPS].values()) == list(before[1][STEPS].values())
    epoch = spool.epoch
    spool.close()
    spool = open_spool(tmp_path)
    assert (spool.epoch, covered(spool)) == (epoch, (numbers, records))
    spool.close()


def test_a_new_epoch_takes_the_memory_of_one_file_whatever_waits_and_also_what_is_not_synced(tmp_path):
    spool = open_spool(tmp_path, segment_bytes=4096)
    made = [bytes([n]) * 1000 for n in range(40)]
    for payload in made:
        spool.append(STEPS, payload, items=3)
    old = spool.digest_at(STEPS, 40)
    spool.renew({})
    sizes = [path.stat().st_size for path in tmp_path.iterdir() if path.suffix == ".seg"]
    assert len(sizes) >= 8
    assert max(sizes) < 4096 + 2000
    assert list(covered(spool)[1][STEPS].values()) == made
    assert (spool.recorded, spool.recorded_items, spool.digest_at(STEPS, 40)) == ({STEPS: 40}, {STEPS: 120}, old)
    assert spool.append(STEPS, b"next").seq == 41
    spool.close()


@pytest.mark.parametrize("refused_at", range(18))  # five files are written and renamed, then renamed once more
def test_a_new_epoch_that_is_cut_off_anywhere_loses_nothing_and_can_be_begun_again(tmp_path, refused_at):
    disk = StubbornDisk()
    disk.quick = True
    spool = open_spool(tmp_path, segment_bytes=4096, disk=disk)
    made = [bytes([n]) * 1000 for n in range(20)]
    for payload in made:
        spool.append(STEPS, payload)
    spool.sync()
    disk.left = refused_at
    with contextlib.suppress(OSError):
        spool.renew({STEPS: 2})
    disk.left = 1 << 30
    spool.mend()
    kept = list(covered(spool, {} if spool.epoch != 77 else {STEPS: 2})[1][STEPS].values())
    assert kept == made[2:]
    assert spool.append(STEPS, b"next") is not None
    spool.sync()
    epoch = spool.epoch
    spool.close()
    spool = open_spool(tmp_path, segment_bytes=4096)  # as after a kill
    assert spool.epoch == epoch
    assert list(covered(spool)[1][STEPS].values())[-19:] == [*made[2:], b"next"]
    spool.close()


def test_the_disk_that_refuses_a_new_file_gets_the_records_into_the_old_one(tmp_path):
    disk = StubbornDisk()
    spool = open_spool(tmp_path, segment_bytes=4096, disk=disk)
    disk.left = 0
    made = [bytes([n]) * 1000 for n in range(8)]
    assert [spool.append(STEPS, payload).seq for payload in made] == list(range(1, 9))
    disk.fail_sync = True
    assert spool.append(STEPS, b"when it refuses to sync, too").seq == 9
    disk.fail_sync, disk.left = False, 1 << 30
    spool.append(STEPS, b"goes on")
    spool.sync()
    assert list(covered(spool)[1][STEPS].values()) == [*made, b"when it refuses to sync, too", b"goes on"]
    assert len(list(tmp_path.glob("*.seg"))) == 2
    spool.close()


@pytest.mark.parametrize("gone", [True, False], ids=["the file", "one block"])
def test_what_the_disk_cannot_read_is_a_declared_loss_and_the_rest_goes_on(tmp_path, monkeypatch, gone):
    spool = open_spool(tmp_path, segment_bytes=4096)
    for n in range(12):
        spool.append(STEPS, bytes([n]) * 1000)
    spool.sync()
    entry = next(spool.waiting({STEPS: 1}))
    path = spool.folder / f"{entry.segment:012d}.seg"
    if gone:
        path.unlink()
    else:
        read, one = Path.read_bytes, spool_module._bytes_of

        def bad_block(*what):
            if what in ((path,), (path, entry)):
                raise OSError(errno.EIO, "Input/output error")
            return (read if len(what) == 1 else one)(*what)

        monkeypatch.setattr(Path, "read_bytes", bad_block)
        monkeypatch.setattr(spool_module, "_bytes_of", bad_block)
    with pytest.raises(RecordError):
        spool.read(entry)
    spool.damaged(entry)
    monkeypatch.undo()
    numbers, records = covered(spool)
    assert numbers == {STEPS: list(range(1, 13))}
    assert sorted(set(range(1, 13)) - set(records[STEPS])) == ([1, 2, 3, 4] if gone else [2])
    assert spool.append(STEPS, b"next").seq == 13
    spool.close()


def test_what_does_not_belong_is_refused_by_name(tmp_path):
    spool = open_spool(tmp_path)
    with pytest.raises(RecordTooLargeError, match="make chunks shorter"):
        spool.append(STEPS, b"x" * (MAX_RECORD_BYTES + 1))
    with pytest.raises(StoreBusyError, match="open in another process"):
        open_spool(tmp_path)
    spool.close()
    with pytest.raises(SegmentError, match="belongs to robot 'a', not to 'b'"):
        Spool(tmp_path, "b")


@pytest.mark.parametrize("seed", range(12))
def test_F02_power_loss_never_loses_a_synced_record_nor_reuses_its_number(tmp_path, seed):
    rng = np.random.default_rng(seed)
    synced: dict[tuple[int, int], bytes] = {}  # (stream, seq) -> payload the spool has promised
    cursor = {EVENTS: 0, STEPS: 0}
    for _ in range(6):
        disk = FaultyDisk()
        spool = open_spool(tmp_path, disk=disk, segment_bytes=4096)
        spool.sync()
        found = covered(spool, cursor)[1]
        for (stream, seq), payload in synced.items():
            if seq > cursor[stream]:
                assert found[stream][seq] == payload
        written = {}
        for _ in range(int(rng.integers(0, 30))):
            stream = int(rng.choice([EVENTS, STEPS]))
            receipt = spool.append(stream, payload := rng.bytes(int(rng.integers(0, 900))))
            assert (stream, receipt.seq) not in synced
            written[stream, receipt.seq] = payload
            if rng.random() < 0.2:
                spool.sync()
                synced |= written
            if rng.random() < 0.1:
                cursor[stream] = int(rng.integers(cursor[stream], spool.synced.get(stream, 0) + 1))
                spool.acknowledge({stream: cursor[stream]})
        spool.close()
        disk.lose_power(rng)
    assert len(synced) > 10


def test_a_file_that_is_thinned_twice_still_counts_and_chains(tmp_path):
    spool = open_spool(tmp_path, limit_bytes=40_000)
    digests, counts = {STEPS: b"", 5: b""}, {STEPS: 0, 5: 0}
    for n in range(120):
        stream = 5 if n % 3 == 0 and n < 40 else STEPS
        receipt = spool.append(stream, os.urandom(1000), items=n)
        digests[stream] = roll(digests[stream], receipt.seq, receipt.crc)
        counts[stream] += n
    spool.sync()
    assert min(spool.dropped[5], spool.dropped[STEPS]) > 5
    assert spool.recorded_items == counts
    assert {s: spool.digest_at(s, n) for s, n in spool.recorded.items()} == digests
    spool.close()
    again = open_spool(tmp_path, limit_bytes=40_000)
    assert again.recorded_items == counts
    assert {s: again.digest_at(s, n) for s, n in again.recorded.items()} == digests
    numbers, records = covered(again)
    assert numbers == {s: list(range(1, n + 1)) for s, n in again.recorded.items()}
    lost = {s: len(numbers[s]) - len(records.get(s, {})) for s in numbers}
    assert lost == spool.dropped
    again.close()
