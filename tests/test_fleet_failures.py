"""F1 to F22, the failures a fleet must survive, each by name. What is counted is counted by an oracle: what robots made against what the whole log
holds. Longer: `make soak`. F1, F3 with real processes also in test_fleet_end_to_end; F4, F20 with two hubs, F21, F22 of assignments in test_fleet_hubs;
F15 in test_fleet_enrol; F18, F19 of artifacts also in test_fleet_deploy and test_onboard_admission.
"""

import contextlib
import shutil
import signal
import socket
import threading
import time
import zlib

import msgspec
import numpy as np
import pytest
from fleet_helpers import LiveHub, free_ports, uplink, wait_for
from fleet_soak import FAULTS, Piece
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_fleet_faults import FaultyDisk, StubbornDisk
from test_fleet_protocol import Hub, Robot, join, put, run_until
from test_fleet_store import put as offer

from fleet.assignment import ArtifactRef, Assignment, accept, sign
from fleet.bench.runs import HubProcess
from fleet.catalogue import Catalogue
from fleet.errors import AdminError, AssignmentError, HubAwayError, StoreSuspectError
from fleet.jobs_hub import JobQueue
from fleet.keys import load_signing_key, make_keys
from fleet.messages import EpisodeResult, Get, Hello, Put, Puts, Welcome
from fleet.office import Office
from fleet.operator import ask
from fleet.spool import Spool
from fleet.store import Group, Store, audit, read_log
from fleet.wire import ENVELOPE, EVENTS, MAJOR, STEPS, decode, encode


@pytest.fixture
def pair(tmp_path):
    """A hub and a robot without sockets."""
    disk = FaultyDisk()
    hub, robot = Hub(tmp_path / "hub", disk), Robot(tmp_path / "spool")
    yield hub, robot, disk
    robot.spool.close()
    hub.close()


def live(robot, count, *, stream=STEPS, size=200, start=0):
    """A robot makes records and keeps them safe; returns what it made."""
    made = [bytes([stream]) + (start + n).to_bytes(4, "big") * (size // 4) for n in range(count)]
    for payload in made:
        robot.spool.append(stream, payload)
    robot.spool.sync()
    return made


def held(hub):
    return [payload for record, payload in read_log(hub.path) if not record.tombstone]


# --- F1, F2, F3, F7, F9, F11, F12, F16, F17 at once: a short soak ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_F01_F02_F03_F04_F07_F09_F11_F12_F16_F17_mixed_lose_nothing_and_double_nothing(tmp_path, seed):
    result = Piece(tmp_path, seed, 6000, 60).run()
    assert result["records"] >= 6000
    assert len(result["faults"]) >= len(FAULTS) - 2  # nearly every kind came up


@pytest.mark.slow
def test_F01_to_F17_soak(tmp_path):
    for seed in range(10):
        assert Piece(tmp_path / str(seed), 100 + seed, 60_000, 60).run()["records"] >= 60_000


# --- F2: power loss, any order of events -----------------------------------------------------------------------------------


class PowerLoss(RuleBasedStateMachine):
    """The real store on a disk that forgets what was not synced: what was acknowledged is there after every crash, once."""

    @initialize()
    def begin(self):
        import tempfile

        self.folder = tempfile.mkdtemp(prefix="flexor-power-")
        self.disk, self.acked, self.seed = FaultyDisk(), {"a": 0, "b": 0}, 0
        self.disk.quick = True
        self.open()

    def open(self):
        from pathlib import Path

        self.store = Store(Path(self.folder), disk=self.disk, segment_bytes=1500)
        self.group, self.next = Group(), {r: self.cursor(r) for r in self.acked}

    def cursor(self, robot):
        return self.store.index.cursors(robot, 1).get(STEPS, 0)

    @rule(robot=st.sampled_from("ab"), count=st.integers(1, 6), back=st.integers(0, 3))
    def send(self, robot, count, back):
        first = max(1, self.next[robot] + 1 - back)  # resends overlap
        for n in range(first, first + count):
            offer(self.store, self.group, n, b"%s %d " % (robot.encode(), n) * 9, key=(robot, 1, STEPS))
            self.next[robot] = max(self.next[robot], n)

    @rule()
    def commit(self):
        self.store.commit(self.group)
        self.store.index.commit(self.group.marks)
        for (robot, _, _), mark in self.group.marks.items():
            self.acked[robot] = mark.seq
        self.group = Group()

    @rule()
    def seal(self):
        self.commit()
        self.store.seal()

    @rule(seed=st.integers(0, 2**32 - 1))
    def power_loss_while_writing(self, seed):
        self.disk.fail_sync = True
        if self.group.parts:
            with pytest.raises(StoreSuspectError):
                self.store.commit(self.group)
        self.disk.fail_sync = False
        self.crash(seed)

    @rule(seed=st.integers(0, 2**32 - 1))
    def crash(self, seed):
        self.store.close()
        self.disk.lose_power(np.random.default_rng(seed))
        self.open()

    @invariant()
    def what_was_acknowledged_is_there_once(self):
        if hasattr(self, "store"):
            assert all(self.cursor(robot) >= cursor for robot, cursor in self.acked.items())
            assert self.store.index.doubled == 0

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            lines = {x.robot: x for x in audit(self.store.folder)}
            for robot, cursor in self.acked.items():
                if cursor:
                    assert lines[robot].held >= cursor
                    assert (lines[robot].missing, lines[robot].doubled) == (0, 0)
            shutil.rmtree(self.folder)


TestF02PowerLoss = PowerLoss.TestCase
TestF02PowerLoss.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)


# --- one by one -------------------------------------------------------------------------------------------------------------


def test_F04_a_partition_of_an_hour_only_delays(pair):
    hub, robot, _ = pair
    made = live(robot, 20)
    now_s = run_until(robot, hub, lambda: robot.session.drained)
    made += live(robot, 50, start=20)
    assert robot.session.lost(now_s + 3600.0)
    robot.connect(now_s + 3600.0)
    run_until(robot, hub, lambda: robot.session.drained, now_s + 3600.0)
    assert held(hub) == made


def test_F05_a_connection_that_is_half_open_is_given_up_and_nothing_is_lost(pair):
    hub, robot, _ = pair
    made = live(robot, 5)
    now_s = run_until(robot, hub, lambda: robot.session.joined)
    for step in range(12):  # what it says goes nowhere, and nobody answers
        robot.session.control(now_s + step)
        robot.session.bulk(now_s + step)
    assert robot.session.lost(now_s + 12.0)
    robot.connect(now_s + 12.0)
    run_until(robot, hub, lambda: robot.session.drained, now_s + 12.0)
    assert held(hub) == made


class Proxy(threading.Thread):
    """TCP on loopback that is late and breaks a connection now and then, as a bad radio does."""

    def __init__(self, port, delay_s, break_after_bytes):
        super().__init__(daemon=True)
        self.target, self.delay_s, self.break_after = port, delay_s, break_after_bytes
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.breaks = self.server.getsockname()[1], 0
        self.ends, self.threads = [], []

    def run(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            try:
                hub = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.ends += (client, hub)
            for one, other in ((client, hub), (hub, client)):
                thread = threading.Thread(target=self.pump, args=(one, other), daemon=True)
                self.threads.append(thread)
                thread.start()

    def close(self):
        for end in (self.server, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.join()
        for thread in self.threads:
            thread.join()
        for end in (self.server, *self.ends):
            end.close()

    def pump(self, source, sink):
        left = self.break_after
        try:
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                left -= len(data)
                if left < 0:
                    self.breaks += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


RESULT = EpisodeResult(
    episode_id="e", policy_sha256="", artifact="x" * 4000, rollout="", stage="", generation=0, cohort="none",
    explored=False, return_=1.0, success=True, steps=1, seconds=0.1,
)  # fmt: skip


def test_F06_a_slow_line_that_breaks_again_and_again_loses_nothing(tmp_path, monkeypatch):
    make_keys(tmp_path / "keys", ["a"])
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys")
    control, bulk = Proxy(hub.port, 0.02, 1 << 30), Proxy(hub.port + 1, 0.02, 100_000)
    for proxy in (control, bulk):
        proxy.start()
    monkeypatch.setattr("fleet.uplink.BULK_OFFSET", bulk.port - control.port)
    up = uplink(tmp_path / "spool", tmp_path / "keys", "a", control.port)
    for _ in range(60):
        up.tell(RESULT)
    assert up.finish(60.0)
    assert bulk.breaks >= 2
    for proxy in (control, bulk):
        proxy.close()
    hub.stop()
    (line,) = audit(tmp_path / "hub")
    assert (line.held, line.missing, line.doubled, line.declared_lost) == (60, 0, 0, 0)


def test_F07_a_full_disk_on_the_hub_makes_robots_keep_their_records(pair):
    hub, robot, disk = pair
    disk.space_bytes = 0
    made = live(robot, 10)
    now_s = run_until(robot, hub, lambda: robot.session.counters["nack_nospace"] > 0)
    assert held(hub) == []
    disk.space_bytes = None
    run_until(robot, hub, lambda: robot.session.drained, now_s)
    assert held(hub) == made


def test_F07_a_disk_that_takes_no_decision_stops_deployments_and_not_the_hub(tmp_path):
    make_keys(tmp_path / "keys", ["a", "b"])
    disk = StubbornDisk()
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys", disk=disk)
    ref = ArtifactRef(name="walk", version="v2", sha256="2" * 64)
    hub.hub.director.deploy(ref, "quick", time.time(), {})
    up = uplink(tmp_path / "spool", tmp_path / "keys", "a", hub.port)
    disk.left = 0
    wait_for(lambda: hub.gateway.counters["undecided"] > 1, "robots are there and cannot be told")
    up.tell(RESULT)
    assert up.finish(30.0)
    disk.left = 1 << 30
    wait_for(lambda: hub.hub.director.kept.assignments, "they can be told again")
    hub.stop()
    assert hub.error is None


def test_a_mistake_that_an_operators_question_finds_is_an_answer_and_a_refused_sync_is_the_end(tmp_path, monkeypatch):
    make_keys(tmp_path / "keys")
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys")
    address = f"127.0.0.1:{hub.port}"

    def mistake(*_):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("fleet.hub.status", mistake)
    with pytest.raises(AdminError, match="status: ZeroDivisionError: a mistake of ours"):
        ask(address, tmp_path / "keys", "status", timeout_s=20.0)
    with pytest.raises(AdminError, match="skill"):
        ask(address, tmp_path / "keys", "job_add", {"skill": 3}, timeout_s=20.0)

    def refused():
        raise StoreSuspectError(5, "the disk refused to sync")

    monkeypatch.setattr(hub.hub.jobs, "_sync", refused)
    with pytest.raises(HubAwayError):
        ask(address, tmp_path / "keys", "job_add", {"task": "t", "skill": "s"}, timeout_s=3.0)
    hub.stop()
    assert isinstance(hub.error, StoreSuspectError)


def test_F08_a_full_disk_on_the_robot_is_a_declared_loss(tmp_path):
    disk = FaultyDisk()
    robot = Spool(tmp_path / "spool", "a", disk=disk)
    assert robot.append(STEPS, b"kept")
    disk.space_bytes = 0
    assert robot.append(STEPS, b"no room") is None
    disk.space_bytes = None
    robot.append(STEPS, b"again")
    robot.sync()
    assert [(e.first, e.seq, bool(e.flags)) for e in robot.waiting({})] == [(1, 1, False), (2, 2, True), (3, 3, False)]
    assert robot.dropped == {STEPS: 1}
    robot.close()


def test_F08_events_go_before_steps_before_key_frames_before_metrics(tmp_path):
    """Priorities, on the way out and when room is short."""
    robot = Spool(tmp_path / "spool", "a", limit_bytes=40_000)
    for n in range(30):
        for stream in (4, 3, STEPS, EVENTS):
            robot.append(stream, bytes([n]) * 600)
    robot.sync()
    order = [e.stream for e in robot.waiting({})]
    assert order == sorted(order)
    assert robot.dropped.get(EVENTS, 0) == 0
    assert robot.dropped[4] >= robot.dropped.get(3, 0) >= robot.dropped.get(STEPS, 0)
    assert robot.dropped[4] > 0
    robot.close()


def test_F08_a_full_disk_at_a_new_epoch_breaks_the_line_and_loses_nothing(tmp_path):
    """The hub says that another record is held under a number; the robot's disk has no room to number its own anew."""
    hub, first = Hub(tmp_path / "hub"), Robot(tmp_path / "one")
    made = live(first, 3)
    run_until(first, hub, lambda: first.session.drained)
    first.spool.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first = Robot(tmp_path / "one")
    made += live(first, 3, start=50)
    first.connect(10.0)
    run_until(first, hub, lambda: first.session.drained, 10.0)
    second = Robot(tmp_path / "two")
    second.spool._disk = disk = StubbornDisk()
    made += live(second, 3, start=90)
    second.connect(20.0)
    disk.left = 0
    with pytest.raises(OSError, match="No space left"):
        run_until(second, hub, lambda: second.session.drained, 20.0)
    assert live(second, 1, start=99)  # it still records
    disk.left = 1 << 30
    second.spool.mend()
    second.connect(60.0)
    run_until(second, hub, lambda: second.session.drained, 60.0)
    assert sorted(held(hub)) == sorted([*made, *live(second, 1, start=99)])
    for end in (first.spool, second.spool, hub):
        end.close()


def test_F08_a_disk_that_fails_and_a_key_that_is_gone_for_a_while_do_not_end_the_line(tmp_path, monkeypatch):
    make_keys(tmp_path / "keys", ["a"])
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys")
    up = uplink(tmp_path / "spool", tmp_path / "keys", "a", hub.port)
    wait_for(lambda: up.state == "joined", "joined")
    with monkeypatch.context() as broken:

        def refuse():
            raise OSError(28, "No space left on device")

        broken.setattr(up.spool, "mend", refuse)
        wait_for(lambda: "No space left" in up.state, "it says what is wrong")
        up.tell(RESULT)
        key = tmp_path / "keys/robots/a.key_secret"
        key.rename(tmp_path / "away")
    wait_for(lambda: up.state.startswith("refused: unknown robot"), "no key")
    (tmp_path / "away").rename(key)
    assert up.finish(30.0)
    assert up.error is None
    hub.stop()
    (line,) = audit(tmp_path / "hub")
    assert (line.held, line.missing, line.doubled) == (1, 0, 0)


def test_a_line_that_is_dead_takes_nothing_any_more_and_its_memory_does_not_grow(tmp_path, monkeypatch):
    make_keys(tmp_path / "keys", ["a"])
    up = uplink(tmp_path / "spool", tmp_path / "keys", "a", free_ports())

    def mistake():
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(up, "_spool_ring", mistake)
    up.join(20.0)
    assert up.state == "failed: a mistake of ours"
    assert [up.tell(RESULT) for _ in range(1000)] == [False] * 1000
    assert (len(up._ring), len(up._overflow)) == (0, 0)


def test_F09_a_refused_sync_acknowledges_nothing_and_the_next_start_has_all_that_was(pair, tmp_path):
    hub, robot, disk = pair
    made = live(robot, 4)
    now_s = run_until(robot, hub, lambda: robot.session.drained)
    made += live(robot, 4, start=4)
    disk.fail_sync = True
    with pytest.raises(StoreSuspectError, match="nothing more is acknowledged"):
        run_until(robot, hub, lambda: robot.session.drained, now_s)
    assert robot.session._cursors[STEPS] == 4
    disk.fail_sync = False
    hub.close()
    hub.__init__(hub.path, disk)
    robot.connect(now_s + 60.0)
    run_until(robot, hub, lambda: robot.session.drained, now_s + 60.0)
    assert held(hub) == made


@pytest.mark.parametrize("seed", range(12))
def test_F10_a_flipped_bit_anywhere_in_the_log_is_never_served(tmp_path, seed):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    made = live(robot, 12)
    run_until(robot, hub, lambda: robot.session.drained)
    robot.spool.close()
    hub.close()
    rng = np.random.default_rng(seed)
    path = next((tmp_path / "hub/log").glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    assert set(held(hub)) <= set(made)


def test_F11_a_hub_that_is_stopped_and_goes_on_loses_nothing(tmp_path):
    make_keys(tmp_path / "keys", ["a"])
    hub = HubProcess(tmp_path / "hub", tmp_path / "keys", free_ports())  # of its own process, so that it can be stopped
    up = uplink(tmp_path / "spool", tmp_path / "keys", "a", hub.port)
    wait_for(lambda: up.state == "joined", "joined")
    hub.process.send_signal(signal.SIGSTOP)
    for _ in range(20):
        up.tell(RESULT)
    wait_for(lambda: up.spool.synced.get(EVENTS) == 20, "all are in the spool")
    hub.process.send_signal(signal.SIGCONT)
    assert up.finish(30.0)
    hub.stop()
    (line,) = audit(tmp_path / "hub")
    assert (line.held, line.missing, line.doubled) == (20, 0, 0)


def test_F12_a_clock_that_jumps_changes_neither_order_nor_number(pair):
    hub, robot, _ = pair
    for n, t_ns in enumerate((10**18, 10**18 - 3600 * 10**9, 0, 2**63, 10**18)):
        robot.spool.append(STEPS, b"%d" % n, t_ns)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    assert held(hub) == [b"0", b"1", b"2", b"3", b"4"]


def test_F13_two_robots_with_one_key_lose_nothing_of_either_and_are_named(tmp_path):
    hub, first = Hub(tmp_path / "hub"), Robot(tmp_path / "one")
    common = live(first, 3)
    run_until(first, hub, lambda: first.session.drained)
    first.spool.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # a cloned disk
    robots = [Robot(tmp_path / "one"), Robot(tmp_path / "two")]
    made = []
    for i, robot in enumerate(robots):
        made += live(robot, 5, start=100 * (i + 1))
        robot.connect(50.0 * i)
        run_until(robot, hub, lambda robot=robot: robot.session.drained, 50.0 * i)
    assert sorted(held(hub)) == sorted(common + made)
    assert hub.gateway.counters["replaced"] >= 1  # the operator sees it
    assert hub.gateway.counters["nack_conflict"] == 1
    assert robots[0].spool.epoch != robots[1].spool.epoch
    for robot in robots:
        robot.spool.close()
    hub.close()


def test_F14_a_wiped_spool_begins_a_new_epoch(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    made = live(robot, 4)
    run_until(robot, hub, lambda: robot.session.drained)
    old = robot.spool.epoch
    robot.spool.close()
    shutil.rmtree(tmp_path / "spool")
    robot = Robot(tmp_path / "spool")
    made += live(robot, 4, start=50)
    robot.connect(10.0)
    run_until(robot, hub, lambda: robot.session.drained, 10.0)
    assert robot.spool.epoch != old
    assert held(hub) == made
    robot.spool.close()
    hub.close()


def test_F16_a_flood_by_a_valid_robot_stays_within_its_credit_and_the_other_is_served(tmp_path):
    hub, quiet = Hub(tmp_path / "hub"), Robot(tmp_path / "spool", "b")
    join(hub, "a")
    payload = b"x" * 100_000
    frames = encode(Put(), payload=payload, epoch=7, stream=STEPS, seq=1)
    for _ in range(500):
        hub.say("a", frames)  # 50 MB of the same
    assert hub.gateway.group.size_bytes < 2 * len(payload)
    assert hub.store.index.duplicates == 499
    made = live(quiet, 5)
    run_until(quiet, hub, lambda: quiet.session.drained)
    assert [p for p in held(hub) if p != payload] == made
    quiet.spool.close()
    hub.close()


def test_F16_a_robot_that_ignores_its_credit_is_refused_beyond_it(tmp_path):
    hub = Hub(tmp_path / "hub")
    join(hub, "a")
    payload = b"x" * 1_000_000
    seq, refused = 0, []
    while not refused and seq < 50:
        seq += 1
        refused = hub.say("a", encode(Put(), payload=payload, epoch=7, stream=STEPS, seq=seq))
    assert refused[0].why == "credit"
    assert hub.gateway.group.size_bytes < 12 << 20
    hub.turn()
    assert hub.say("a", encode(Put(), payload=payload, epoch=7, stream=STEPS, seq=seq)) == []
    hub.close()


def many_contracts():
    return msgspec.msgpack.encode({"type": "hello", "robot": "a", "epoch": 7, "contracts": [""] * 60_000})


MALFORMED = {
    "no frames": [],
    "one frame": [b"FLX1"],
    "four frames": [b"", b"", b"", b""],
    "another protocol": [b"GET / HTTP/1.1\r\n", b""],
    "a short envelope": [put(1)[0][:40], b"", b"1"],
    "a length that is too large": [put(1)[0][:28] + (9).to_bytes(4, "big") + put(1)[0][32:], b"", b"1"],
    "a length of 4 GB": [put(1)[0][:28] + b"\xff" * 4 + put(1)[0][32:], b"", b"1"],
    "a bad checksum": [put(1)[0], b"", b"2"],
    "an unknown type": [put(1)[0][:6] + b"\xee" + put(1)[0][7:], b"", b"1"],
    "an unknown flag": [put(1)[0][:7] + b"\x80" + put(1)[0][8:], b"", b"1"],
    "meta that is no msgpack": [encode(Hello(robot="a", epoch=7))[0], b"\xc1\xc1"],
    "nested meta": [encode(Hello(robot="a", epoch=7))[0], b"\x91" * 60_000],
    "too long a meta": [encode(Hello(robot="a", epoch=7))[0], b"x" * 70_000],
    "stream 0": put(1, stream=0),
    "stream 99": put(1, stream=99),
    "number 0": put(0, b"x"),
    "another epoch": put(1, epoch=8),
    "a tombstone of nonsense": put(1, b"nonsense", flags=1),
    "a tombstone whose text is none": put(1, bytes.fromhex("82a5666972737401a6726561736f6ea1ff"), flags=1),
    "more contracts than there are": [encode(Hello(robot="a", epoch=7))[0], many_contracts()],
    "a piece behind the end of everything": encode(Get(path="metadata/timestamp.json", offset=2**63)),
    "a record of more than 1 MiB": put(1, b"x" * (1024 * 1024 + 1)),
    "lists that do not fit": encode(
        Puts(sizes=(1, 1), crcs=(0,), items=(1, 1), times_ns=(0, 0)), payload=b"ab", crc=0, epoch=7, stream=STEPS, seq=1
    ),
    "a negative size": encode(
        Puts(sizes=(3, -1), crcs=(0, 0), items=(1, 1), times_ns=(0, 0)),
        payload=b"ab",
        crc=0,
        epoch=7,
        stream=STEPS,
        seq=1,
    ),
    "a wrong checksum among several": encode(
        Puts(sizes=(1,), crcs=(7,), items=(1,), times_ns=(0,)), payload=b"a", crc=0, epoch=7, stream=STEPS, seq=1
    ),
    "a hub's word": encode(Welcome(hub="x", epoch=7, cursors={}, credit_bytes=1, heartbeat_s=1.0)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_F17_what_is_malformed_gets_a_named_answer_and_the_hub_goes_on(pair, name):
    hub, _, _ = pair
    join(hub)
    (answer,) = hub.say("a", MALFORMED[name])
    assert answer.code in ("malformed", "version", "session")
    assert answer.detail
    hub.say("a", put(1, b"good"))
    hub.turn()
    assert held(hub) == [b"good"]


@pytest.mark.parametrize(
    "bad",
    [{"return_": 1e200}, {"return_": float("nan")}, {"falls": -5}, {"trips": 10**12}, {"steps": -1}, {"seconds": -1.0}],
    ids=str,
)
def test_F17_an_episode_that_cannot_have_been_stays_in_the_log_and_counts_for_nothing(pair, bad):
    hub, _, _ = pair
    join(hub)
    payload = msgspec.msgpack.encode(msgspec.structs.replace(RESULT, **bad))
    hub.say("a", put(1, payload, stream=EVENTS))
    hub.say("a", put(2, msgspec.msgpack.encode(RESULT), stream=EVENTS))
    hub.turn()
    assert [seq for _, seq, _ in hub.deployments.noted] == [2]
    assert held(hub)[0] == payload


DEEP = b"\x81\xa1x" + b"\x91" * 200_000 + b"\xc0"


def test_F17_an_event_nested_deeper_than_can_be_read_stays_in_the_log(pair, tmp_path):
    hub, _, _ = pair
    join(hub)
    hub.say("a", put(1, DEEP, stream=EVENTS))
    hub.turn()
    assert (hub.deployments.noted, held(hub)) == ([], [DEEP])
    jobs = JobQueue(tmp_path / "jobs.log", hub="hub", utc_s=time.time, now_s=time.monotonic)
    Office("hub", jobs).happened(("a", 7, EVENTS), 1, DEEP)
    jobs.close()


def test_F17_a_file_with_a_name_longer_than_a_files_is_not_there(tmp_path):
    assert Catalogue(tmp_path, tmp_path).piece("metadata/" + "a" * 400, 0, 1) == (-1, b"")


def test_F17_a_mistake_in_the_hub_that_one_robot_finds_costs_that_robot_its_connection_only(tmp_path, monkeypatch):
    make_keys(tmp_path / "keys", ["a", "b"])
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys")
    whole = hub.gateway._heartbeat

    def fails(session, heartbeat):
        if session.robot == "a":
            raise KeyError("a mistake")
        return whole(session, heartbeat)

    monkeypatch.setattr(hub.gateway, "_heartbeat", fails)
    finder, other = (uplink(tmp_path / r, tmp_path / "keys", r, hub.port) for r in "ab")
    wait_for(lambda: hub.gateway.counters["failed"] > 0, "the mistake was found and counted")
    other.tell(RESULT)
    assert other.finish(20.0)
    finder.finish(0.1)
    hub.stop()
    assert hub.error is None


def test_F17_a_frame_past_the_sockets_cap_closes_its_connection_and_no_other(tmp_path):
    import zmq

    from fleet.keys import load_public, load_robot_pair
    from fleet.sockets import MAX_FRAME_BYTES, dial

    make_keys(tmp_path / "keys", ["a", "b"])
    hub = LiveHub(tmp_path / "hub", tmp_path / "keys")
    up = uplink(tmp_path / "spool", tmp_path / "keys", "b", hub.port)
    wait_for(lambda: up.state == "joined", "joined")
    context = zmq.Context()
    keys = tmp_path / "keys"
    rude = dial(context, load_robot_pair(keys, "a"), load_public(keys / "hub.key"), f"tcp://127.0.0.1:{hub.port}")
    monitor = rude.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    assert rude.poll(20_000, zmq.POLLOUT)
    rude.send(b"x" * (MAX_FRAME_BYTES + 1))
    assert monitor.poll(20_000)
    up.tell(RESULT)
    assert up.finish(20.0)
    for end in (monitor, rude):
        end.close(0)
    context.destroy(0)
    hub.stop()


def test_F18_forged_expired_replayed_and_misdirected_assignments_are_refused_by_name(tmp_path):
    make_keys(tmp_path, ["a"])
    key, other = load_signing_key(tmp_path, "director"), load_signing_key(tmp_path, "targets")
    good = Assignment(
        robot="a", generation=5, artifact=ArtifactRef(name="w", version="v1", sha256="1" * 64), rollout="r", stage="s",
        cohort="none", expires_s=100.0,
    )  # fmt: skip
    newest = sign(good, key)
    changed = {
        "ForgedAssignmentError": sign(good, other),
        "ReplayedAssignmentError": sign(msgspec.structs.replace(good, generation=4), key),
        "MisdirectedAssignmentError": sign(msgspec.structs.replace(good, robot="b"), key),
        "ExpiredAssignmentError": sign(msgspec.structs.replace(good, generation=6, expires_s=1.0), key),
        "BannedPolicyError": sign(msgspec.structs.replace(good, generation=6, banned=("1" * 64,)), key),
        "StaleTermError": sign(msgspec.structs.replace(good, generation=6, term=3), key),
    }
    for name, document in changed.items():
        with pytest.raises(AssignmentError) as caught:
            accept(document, key.public_key(), robot="a", newest=(0, 5), newest_document=newest, now_s=10.0)
        assert type(caught.value).__name__ == name


@pytest.mark.parametrize("minor", [0, 7])
def test_F22_a_robot_of_another_minor_version_is_served_and_of_another_major_is_told_why(pair, minor):
    hub, _, _ = pair
    join(hub)
    frames = put(1, b"x")
    envelope = bytearray(frames[0])
    envelope[5] = minor
    assert hub.say("a", [bytes(envelope), *frames[1:]]) == []
    envelope[4] = MAJOR + 1
    (answer,) = hub.say("a", [bytes(envelope), *frames[1:]])
    assert (answer.code, f"speaks {MAJOR}.0" in answer.detail) == ("version", True)


def test_F22_a_hub_of_the_version_before_gets_no_batches(pair):
    hub, robot, _ = pair
    live(robot, 10, size=40)
    now_s = run_until(robot, hub, lambda: robot.session.joined)
    robot.session._batches = False  # what a WELCOME without the word says
    kinds = {type(decode(frames).message) for frames in robot.session.bulk(now_s + 1.0)}
    assert kinds == {Put}
    assert ENVELOPE.size == 48


def test_small_records_travel_together_and_arrive_one_by_one(pair):
    hub, robot, _ = pair
    made = live(robot, 100, size=40)
    run_until(robot, hub, lambda: robot.session.joined)
    assert [type(decode(f).message) for f in robot.session.bulk(0.5)] == [Puts, Puts]
    robot.connect(1.0)
    run_until(robot, hub, lambda: robot.session.drained, 1.0)
    assert held(hub) == made
    assert all(record.crc == zlib.crc32(payload) for record, payload in read_log(hub.path))
