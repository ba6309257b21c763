"""Robot and hub against each other without sockets: breaks, restarts, a full disk, two robots with one key. An oracle counts."""

import shutil
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet_faults import FaultyDisk

from fleet.errors import StoreFullError
from fleet.gateway import Gateway
from fleet.messages import (
    Ack,
    Audit,
    Bye,
    EpisodeResult,
    Err,
    Get,
    Heartbeat,
    HeartbeatOk,
    Hello,
    Nack,
    Piece,
    Put,
    Puts,
    Schema,
    Welcome,
)
from fleet.roster import LOST_AFTER_S
from fleet.session import STALLED_S, Session
from fleet.spool import Spool
from fleet.store import Store, audit, read_log
from fleet.wire import EVENTS, STEPS, decode, encode

ROUTE = b"\x01" + b"r" * 15


class Deployments:
    def __init__(self):
        self.noted = []

    def place(self, robot):
        return (0, 3)

    def lease(self):
        return (0, b"")

    def document(self, robot):
        return b"signed"

    def note(self, key, seq, result):
        self.noted.append((key[0], seq, result.return_))


class Files:
    def piece(self, path, offset, size):
        data = {"metadata/timestamp.json": b"0123456789"}.get(path)
        return (-1, b"") if data is None else (len(data), data[offset : offset + size])


class Hub:
    """A gateway with its store; `turn` does what the hub's loop and its commit thread do."""

    def __init__(self, path, disk=None, **options):
        self.path = path
        self.allowed = {"a", "b"}
        self.store = Store(path, disk=disk, segment_bytes=20_000, reserve_bytes=0, **options)
        self.deployments = Deployments()
        self.gateway = Gateway("hub", lambda robot: robot in self.allowed, self.store, self.deployments, Files())

    def say(self, robot, frames, route=ROUTE, now_s=0.0):
        return [decode(f).message for _, f in self.gateway.receive(route, robot, frames, now_s)]

    def turn(self):
        group = self.gateway.take_group()
        replies = []
        if group is not None:
            try:
                self.store.commit(group)
                self.gateway.committed(group)
            except StoreFullError:
                replies += self.gateway.aborted()
        return replies + self.gateway.flush()

    def close(self):
        self.store.close()


@pytest.fixture
def hub(tmp_path):
    hub = Hub(tmp_path / "hub")
    yield hub
    hub.close()


def put(seq, payload=b"", epoch=7, stream=STEPS, items=2, **options):
    return encode(Put(), payload=payload or b"%d" % seq, epoch=epoch, stream=stream, seq=seq, items=items, **options)


def join(hub, robot="a", route=ROUTE, epoch=7):
    (welcome,) = [m for m in hub.say(robot, encode(Hello(robot=robot, epoch=epoch)), route) if isinstance(m, Welcome)]
    return welcome


def test_nothing_is_acknowledged_before_it_is_on_the_disk(hub):
    join(hub)
    assert hub.say("a", put(1)) == []
    assert hub.gateway.flush() == []
    ((_, frames),) = hub.turn()
    assert decode(frames).message == Ack(epoch=7, cursors={STEPS: 1}, credit_bytes=4 << 20)
    assert [p for _, p in read_log(hub.path)] == [b"1"]


def test_records_that_are_views_of_a_socket_s_memory_are_kept_as_they_were_sent(hub):
    join(hub)
    records = [bytes([i]) * 3000 for i in range(4)]
    puts = Puts(sizes=(3000,) * 3, crcs=tuple(map(zlib.crc32, records[1:])), items=(1,) * 3, times_ns=(5,) * 3)
    batch = encode(puts, payload=b"".join(records[1:]), crc=0, epoch=7, stream=STEPS, seq=2)
    event = encode(Put(), payload=b"not a result", epoch=7, stream=EVENTS, seq=1)
    for frames in (put(1, records[0]), batch, event):
        assert hub.say("a", [*frames[:2], memoryview(frames[2])]) == []
    hub.turn()
    held = {stream: [p for r, p in read_log(hub.path) if r.stream == stream] for stream in (STEPS, EVENTS)}
    assert held == {STEPS: records, EVENTS: [b"not a result"]}


def test_a_duplicate_is_acknowledged_again_and_not_stored(hub):
    join(hub)
    hub.say("a", put(1))
    hub.turn()
    assert hub.say("a", put(1)) == []
    ((_, frames),) = hub.turn()
    assert decode(frames).message.cursors == {STEPS: 1}
    assert len(list(read_log(hub.path))) == 1


def test_a_gap_is_reported_once_per_place(hub):
    join(hub)
    assert hub.say("a", put(3)) == [Nack(epoch=7, stream=STEPS, cursor=0, why="gap")]
    assert hub.say("a", put(4)) == []
    assert hub.say("a", put(1)) == []
    assert hub.say("a", put(5)) == [Nack(epoch=7, stream=STEPS, cursor=1, why="gap")]


@pytest.mark.parametrize(
    ("robot", "frames", "code"),
    [
        ("a", put(1), "session"),
        ("a", encode(Hello(robot="b", epoch=1)), "identity"),
        ("stranger", encode(Hello(robot="stranger", epoch=1)), "revoked"),
        ("a", [b"nonsense", b""], "malformed"),
        ("a", [put(1)[0][:4] + b"\x02" + put(1)[0][5:], b"", b"1"], "version"),
    ],
)
def test_who_may_not_speak_is_told_why(hub, robot, frames, code):
    (answer,) = hub.say(robot, frames)
    assert isinstance(answer, Err)
    assert answer.code == code


def test_a_session_belongs_to_the_robot_that_opened_it(hub):
    join(hub, "a")
    for frames in (put(1), encode(Heartbeat(state="running")), encode(Hello(robot="b", epoch=1))):
        (answer,) = hub.say("b", frames)
        assert answer.code == "identity"
    assert hub.gateway.counters["identity"] == 3
    assert [m.code for m in hub.say("a", encode(Hello(robot="a", epoch=7)), b"short")] == ["identity"]


def test_a_revoked_robot_is_refused_in_the_middle_of_its_session(hub):
    join(hub)
    hub.say("a", put(1))
    hub.allowed.discard("a")
    assert [m.code for m in hub.say("a", put(2))] == ["revoked"]
    hub.turn()
    assert len(list(read_log(hub.path))) == 1  # what was sent while it was allowed


def test_the_same_key_from_elsewhere_replaces_the_session(hub):
    join(hub)
    answers = hub.say("a", encode(Hello(robot="a", epoch=8)), b"\x02" + b"r" * 15)
    assert [type(m) for m in answers] == [Welcome, Err]
    assert answers[1].code == "replaced"
    assert [m.code for m in hub.say("a", put(1))] == ["session"]


def test_another_record_under_the_same_number_goes_to_quarantine(hub):
    join(hub)
    hub.say("a", put(1, b"mine"))
    hub.turn()
    (nack,) = hub.say("a", put(1, b"another"))
    assert (nack.why, nack.cursor) == ("conflict", 1)
    assert len(list((hub.path / "quarantine").glob("*.rec"))) == 1
    assert [p for _, p in read_log(hub.path)] == [b"mine"]


def test_heartbeats_carry_assignments_only_to_those_who_are_behind(hub):
    join(hub)
    (ok,) = hub.say("a", encode(Heartbeat(state="running", generation=2)))
    assert (ok.generation, ok.assignment) == (3, b"signed")
    (ok,) = hub.say("a", encode(Heartbeat(state="running", generation=3)))
    assert ok.assignment == b""
    assert len(encode(ok)[1]) <= 300


def test_event_records_reach_the_director_once_and_only_from_the_disk(hub):
    join(hub)
    result = EpisodeResult(
        episode_id="e", policy_sha256="", artifact="", rollout="", stage="", generation=0, cohort="none",
        explored=True, return_=4.5, success=True, steps=3, seconds=0.1,
    )  # fmt: skip
    frames = put(1, msgspec.msgpack.encode(result), stream=EVENTS)
    hub.say("a", frames)
    hub.say("a", frames)
    assert hub.deployments.noted == []
    hub.turn()
    hub.say("a", frames)
    hub.say("a", put(2, b"another kind of event", stream=EVENTS))
    hub.turn()
    assert hub.deployments.noted == [("a", 1, 4.5)]


def test_an_audit_finds_a_hub_that_holds_something_else(hub):
    join(hub)
    hub.say("a", put(1))
    hub.turn()
    beat = encode(Heartbeat(state="running", recorded={STEPS: 1}))
    ok, question = hub.say("a", beat)
    assert isinstance(ok, HeartbeatOk)
    assert question == Audit(stream=STEPS, epoch=7, seq=1, digest=question.digest)
    hub.say("a", encode(Audit(stream=STEPS, epoch=7, seq=1, digest=question.digest)))
    assert [type(m) for m in hub.say("a", beat)] == [HeartbeatOk]  # settled, not asked again
    assert hub.gateway.roster.members["a"].audited == {("a", 7, STEPS): (1, True)}
    hub.say("a", put(2))
    hub.turn()
    hub.say("a", beat)
    hub.say("a", encode(Audit(stream=STEPS, epoch=7, seq=2, digest=b"x" * 16)))
    assert hub.gateway.counters["audit_mismatch"] == 1
    assert hub.gateway.roster.members["a"].audited == {("a", 7, STEPS): (2, False)}


def test_files_and_contracts(hub):
    (piece,) = hub.say("a", encode(Get(path="metadata/timestamp.json", offset=8, size=100, ticket=5)))
    assert piece == Piece(path="metadata/timestamp.json", offset=8, total=10, ticket=5)
    assert hub.say("a", encode(Get(path="no")))[0].total == -1
    join(hub)
    hub.say("a", encode(Schema(sha256="", text='{"x":1}')))
    assert len(hub.store.contracts()) == 1


def test_states_by_silence(hub):
    join(hub)
    member = hub.gateway.roster.members["a"]
    assert [member.state(t) for t in (1.0, 6.0, LOST_AFTER_S + 1.0)] == ["ONLINE", "CONNECTIONBROKEN", "LOST"]
    hub.say("a", encode(Bye()))
    assert member.state(1.0) == "OFFLINE"
    assert hub.gateway.roster.member("b").state(1.0) == "NEVER"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_garbage_never_stops_the_hub(tmp_path_factory, data):
    hub = Hub(tmp_path_factory.mktemp("hub"))
    try:
        join(hub)
        good = put(1, b"payload")
        frames = data.draw(
            st.one_of(
                st.lists(st.binary(max_size=80), max_size=4),
                st.tuples(st.just(good[0]), st.binary(max_size=40), st.binary(max_size=40)).map(list),
                st.tuples(st.binary(min_size=0, max_size=48).map(lambda b: b + good[0][len(b) :])).map(
                    lambda t: [t[0], b"", b"payload"]
                ),
            )
        )
        hub.gateway.receive(data.draw(st.binary(max_size=20)), data.draw(st.sampled_from(["a", "b", "x"])), frames, 0.0)
        hub.say("a", good)
        hub.turn()
        assert [r.seq for r, _ in read_log(hub.path)] == [1]
    finally:
        hub.close()


# --- both sides ---------------------------------------------------------------------------------------------------------


class Robot:
    """A session and its spool, and the wire to a hub: a break loses what is under way in both directions."""

    def __init__(self, path, name="a", limit_bytes=10 << 20, ack="local"):
        self.name = name
        self.spool = Spool(path, name, limit_bytes=limit_bytes, segment_bytes=4096)
        self.session = Session(
            name,
            self.spool,
            contracts={},
            heartbeat=lambda: Heartbeat(state="running"),
            on_assignment=lambda document: None,
            ack=ack,
        )
        self.connect(0.0)

    def connect(self, now_s):
        self.route = b"\x01" + self.name.encode()[:1] + np.random.default_rng(int(now_s * 1000) + 1).bytes(14)
        self.session.begin(now_s)

    def turn(self, hub, now_s, lose=lambda: False):
        """One exchange; `lose` says whether the connection breaks at a message."""
        outgoing = [(True, f) for f in self.session.control(now_s)] + [(False, f) for f in self.session.bulk(now_s)]
        incoming = []
        for _, frames in outgoing:
            if lose():
                return self.connect(now_s)
            incoming += hub.gateway.receive(self.route, self.name, frames, now_s)
        incoming += hub.turn()
        for route, frames in incoming:
            if route != self.route:
                continue
            if lose():
                return self.connect(now_s)
            for answer in self.session.receive(frames, now_s):
                hub.gateway.receive(self.route, self.name, answer, now_s)
        return None


def run_until(robot, hub, done, now_s=0.0, turns=400, lose=lambda: False):
    for _ in range(turns):
        if done():
            return now_s
        robot.turn(hub, now_s, lose)
        now_s += 0.5
    raise AssertionError(f"not done after {turns} turns: {robot.session.counters}, {hub.gateway.counters}")


@pytest.mark.parametrize("seed", range(6))
def test_breaks_kills_and_a_full_disk_lose_nothing_and_double_nothing(tmp_path, seed):
    rng = np.random.default_rng(seed)
    truth = {}  # (stream, seq) -> payload, as the robot's receipts say
    disk = FaultyDisk()
    hub, robot, now_s = Hub(tmp_path / "hub", disk), Robot(tmp_path / "spool"), 0.0
    for _ in range(120):
        for _ in range(int(rng.integers(0, 4))):
            stream = int(rng.choice([EVENTS, STEPS]))
            receipt = robot.spool.append(stream, payload := rng.bytes(int(rng.integers(1, 600))))
            truth[stream, receipt.seq] = payload
        robot.spool.sync()
        robot.turn(hub, now_s, lose=lambda: rng.random() < 0.08)
        now_s += float(rng.uniform(0.0, 2.0))
        what = rng.random()
        if what < 0.05:  # kill -9 of the hub: what was accepted and not written is gone, garbage at the end
            hub.close()
            with sorted((tmp_path / "hub/log").glob("*.seg"))[-1].open("ab") as log:
                log.write(rng.bytes(int(rng.integers(0, 40))))
            hub = Hub(tmp_path / "hub", disk)
        elif what < 0.10:  # kill -9 of the robot
            robot.spool.close()
            robot = Robot(tmp_path / "spool")
            robot.connect(now_s)
        elif what < 0.15:
            disk.space_bytes = 0
        elif what < 0.30:
            disk.space_bytes = None
    disk.space_bytes = None
    run_until(robot, hub, lambda: robot.session.drained, now_s)
    held = {(r.stream, r.seq): p for r, p in read_log(tmp_path / "hub")}
    assert held == truth
    assert len(truth) > 100
    assert [(x.missing, x.doubled, x.declared_lost) for x in audit(tmp_path / "hub")] == [(0, 0, 0)] * 2
    run_until(robot, hub, lambda: len(hub.gateway.roster.members["a"].audited) == 2, now_s + 1000)
    assert hub.gateway.counters["audit_mismatch"] == 0
    robot.spool.close()
    hub.close()


def test_a_robot_that_wants_two_hubs_forgets_nothing_for_one(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool", ack="peer")
    other = 0
    hub.gateway.shared = lambda key: min(other, hub.store.index.lines[key].committed.seq)
    for n in range(200):
        robot.spool.append(STEPS, bytes([n]) * 100)
    robot.spool.sync()
    now_s = run_until(robot, hub, lambda: len(hub.store.index.cursors("a", robot.spool.epoch)) == 1)
    now_s = run_until(robot, hub, lambda: hub.store.index.cursors("a", robot.spool.epoch)[STEPS] == 200, now_s)
    now_s = run_until(robot, hub, lambda: now_s < robot.session._heard_s - 20.0, now_s)  # for long: it does not come
    assert (robot.spool.first[STEPS], robot.session.drained) == (1, False)
    assert (robot.session.counters["stalled"], hub.store.index.duplicates) == (0, 0)
    robot.connect(now_s)  # a new session needs nothing again either
    other = 150
    now_s = run_until(robot, hub, lambda: robot.spool.first[STEPS] > 100, now_s)
    assert robot.spool.first[STEPS] <= 151
    assert not robot.session.drained
    other = 999
    hub.gateway.peer_told()
    robot.turn(hub, now_s)
    assert robot.session.drained
    assert hub.store.index.duplicates == 0
    robot.spool.close()
    hub.close()


def test_a_hub_that_knows_of_no_second_one_is_not_believed_for_two(tmp_path):
    """A hub of the version before acknowledges as it always did."""
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool", ack="peer")
    receive = hub.gateway.receive

    def older(route, user, frames, now_s):
        message = decode(frames).message
        return receive(
            route, user, encode(Hello(robot="a", epoch=message.epoch)) if isinstance(message, Hello) else frames, now_s
        )

    hub.gateway.receive = older
    for n in range(200):
        robot.spool.append(STEPS, bytes([n]) * 100)
    robot.spool.sync()
    now_s = run_until(robot, hub, lambda: hub.store.index.cursors("a", robot.spool.epoch).get(STEPS) == 200)
    run_until(robot, hub, lambda: robot.session._cursors.get(STEPS) == 200, now_s)
    assert (robot.spool.first[STEPS], robot.session.drained) == (1, False)
    robot.spool.close()
    hub.close()


def test_a_spool_that_had_to_drop_tells_the_hub_exactly_what(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool", limit_bytes=30_000)
    for n in range(100):
        robot.spool.append(STEPS, bytes([n]) * 1000, items=25)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    (line,) = audit(hub.path)
    dropped = robot.spool.dropped[STEPS]
    assert dropped > 50
    assert (line.held, line.declared_lost, line.missing, line.doubled) == (100 - dropped, dropped, 0, 0)
    mark = hub.store.index.lines["a", robot.spool.epoch, STEPS].committed
    assert (mark.items, mark.lost_items) == ((100 - dropped) * 25, dropped * 25)
    assert robot.spool.recorded_items == {STEPS: 2500}
    run_until(robot, hub, lambda: hub.gateway.roster.members["a"].audited)
    assert (hub.gateway.counters["audit_mismatch"], hub.store.index.digest_breaks) == (0, 0)
    robot.spool.close()
    hub.close()


def test_a_hub_that_lost_its_disk_gets_the_rest_and_the_loss_is_named(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    for n in range(30):
        robot.spool.append(STEPS, bytes([n]) * 1000)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    gone = robot.spool.first[STEPS] - 1
    assert gone > 10
    hub.close()
    hub = Hub(tmp_path / "new disk")
    robot.spool.append(STEPS, b"next")
    robot.spool.sync()
    robot.connect(100.0)
    run_until(robot, hub, lambda: robot.session.drained, 100.0)
    (line,) = audit(hub.path)
    assert (line.last, line.declared_lost, line.held, line.missing) == (31, gone, 31 - gone, 0)
    robot.spool.close()
    hub.close()


@pytest.mark.parametrize("waiting", [0, 1])
@pytest.mark.parametrize("how", ["silently", "not taken", "broken"])
def test_a_declaration_that_was_lost_on_the_way_is_made_again(tmp_path, how, waiting):
    """A robot roams to a hub that lacks what its spool forgot, and the bulk connection is not up yet when it says so."""
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    for n in range(30):
        robot.spool.append(STEPS, bytes([n]) * 1000)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    gone = robot.spool.first[STEPS] - 1
    hub.close()
    hub = Hub(tmp_path / "the other hub")
    for _ in range(waiting):
        robot.spool.append(STEPS, b"next")
        robot.spool.sync()
    robot.connect(100.0)
    hello = robot.session.control(100.0)[0]
    for _, frames in hub.gateway.receive(robot.route, "a", hello, 100.0):
        robot.session.receive(frames, 100.0)
    lost = robot.session.bulk(100.0)
    assert decode(lost[0]).envelope.seq == gone
    if how == "not taken":
        for frames in reversed(lost):
            robot.session.unsent(frames)
    elif how == "broken":
        robot.session.broken(100.1)
    run_until(robot, hub, lambda: robot.session.drained, 100.5, turns=20)
    assert robot.session.counters["stalled"] == (how == "silently")
    (line,) = audit(hub.path)
    assert (line.last, line.declared_lost, line.missing) == (30 + waiting, gone, 0)
    robot.spool.close()
    hub.close()


def test_a_declaration_and_the_gap_behind_it(tmp_path):
    """Lost alone: the records behind it arrive, the hub says gap, and it is made again at once."""
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    for n in range(30):
        robot.spool.append(STEPS, bytes([n]) * 1000)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    hub.close()
    hub = Hub(tmp_path / "the other hub")
    robot.connect(100.0)
    for _, frames in hub.gateway.receive(robot.route, "a", robot.session.control(100.0)[0], 100.0):
        robot.session.receive(frames, 100.0)
    for frames in robot.session.bulk(100.0)[1:]:
        for _, answer in hub.gateway.receive(robot.route, "a", frames, 100.0):
            robot.session.receive(answer, 100.0)
    assert robot.session.counters["nack_gap"] == 1
    run_until(robot, hub, lambda: robot.session.drained, 100.5, turns=3)
    assert robot.session.counters["stalled"] == 0
    robot.spool.close()
    hub.close()


def test_a_robot_that_lost_its_spools_end_takes_a_new_epoch(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    robot.spool.append(STEPS, b"one")
    robot.spool.append(STEPS, b"two")
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    robot.spool.close()
    path = next((tmp_path / "spool").glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-2])
    robot = Robot(tmp_path / "spool")
    old = robot.spool.epoch
    robot.spool.append(STEPS, b"another two")
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    assert robot.spool.epoch != old
    assert [p for _, p in read_log(hub.path)] == [b"one", b"two", b"another two"]
    robot.spool.close()
    hub.close()


def test_a_spool_cut_short_with_nothing_new_in_it_takes_a_new_epoch_too(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    for payload in (b"one", b"two"):
        robot.spool.append(STEPS, payload)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained)
    robot.spool.close()
    path = next((tmp_path / "spool").glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-2])
    robot = Robot(tmp_path / "spool")
    old = robot.spool.epoch
    run_until(robot, hub, lambda: robot.session.counters["new_epoch"] == 1)
    robot.spool.append(STEPS, b"three")
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.drained, 100.0)
    assert robot.spool.epoch != old
    assert [p for _, p in read_log(hub.path)] == [b"one", b"two", b"three"]
    robot.spool.close()
    hub.close()


def test_a_silent_hub_is_sent_everything_again(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    robot.spool.append(STEPS, b"x")
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.joined)
    robot.session.bulk(1.0)  # sent, and lost on the way without the connection breaking
    assert robot.session.bulk(2.0) == []
    assert [decode(f).envelope.seq for f in robot.session.bulk(1.0 + STALLED_S + 0.1)] == [1]
    assert robot.session.counters["stalled"] == 1
    robot.spool.close()
    hub.close()


def test_credit_limits_what_is_under_way(tmp_path):
    hub, robot = Hub(tmp_path / "hub"), Robot(tmp_path / "spool")
    for _ in range(20):
        robot.spool.append(STEPS, b"x" * 100_000)
    robot.spool.sync()
    run_until(robot, hub, lambda: robot.session.joined)
    robot.session._credit = 250_000
    assert len(robot.session.bulk(1.0)) == 2
    assert robot.session.bulk(1.1) == []
    robot.spool.close()
    hub.close()


def test_two_robots_with_one_key_lose_nothing_of_either(tmp_path):
    hub = Hub(tmp_path / "hub")
    first, clone = Robot(tmp_path / "one"), None
    first.spool.append(STEPS, b"common")
    first.spool.sync()
    first.spool.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, clone = Robot(tmp_path / "one"), Robot(tmp_path / "two")
    for robot, payload in ((first, b"of the first"), (clone, b"of the clone")):
        robot.spool.append(STEPS, payload)
        robot.spool.sync()
    run_until(first, hub, lambda: first.session.drained)
    clone.connect(50.0)
    run_until(clone, hub, lambda: clone.session.drained, 50.0)
    assert [p for _, p in read_log(hub.path)] == [b"common", b"of the first", b"of the clone"]
    assert hub.gateway.counters["nack_conflict"] == 1
    assert len(list((hub.path / "quarantine").glob("*.rec"))) == 1
    for robot in (first, clone):
        robot.spool.close()
    hub.close()


def test_the_crc_on_the_wire_is_the_crc_in_the_log(hub):
    join(hub)
    hub.say("a", put(1, b"payload"))
    hub.turn()
    ((record, _),) = read_log(hub.path)
    assert (record.crc, record.items) == (zlib.crc32(b"payload"), 2)
