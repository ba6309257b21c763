"""Several hubs: each goes on alone, what they hold merges as a set, and one directs. Pure parts first, then real hubs, cut apart and healed."""

import base64
import hashlib
import shutil
import time
import zlib
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import zmq
from fleet_helpers import LiveHub, free_ports, uplink, wait_for
from test_fleet_keys import spoil
from test_fleet_store import fill, put, stone

from fleet import mirror
from fleet.assignment import ArtifactRef, Assignment, accept
from fleet.assignment import sign as sign_assignment
from fleet.auth import AllowList
from fleet.catalogue import FILES, Catalogue, make_root
from fleet.director import Director
from fleet.enrol import admit_key, key_hash
from fleet.errors import CatalogueError, ReplayedAssignmentError, RolloutError, StaleTermError
from fleet.federation import AWAY_AFTER_S, Federation
from fleet.index import Index, Verdict, without
from fleet.keys import load_public, load_signing_key, load_verifier, make_keys
from fleet.lease import Authority, Lease, grant, sign
from fleet.messages import EpisodeResult, Gossip, Gossiped, Pulled
from fleet.parts import KEEP_S, MAX_SECTION_BYTES
from fleet.revocation import revoke
from fleet.rollout import RobotView
from fleet.shipping import Cover, Place, coverage, covers, missing, shared, ship
from fleet.sockets import HubAddress, parse_hub
from fleet.store import Group, Store, audit, read_log
from fleet.wire import EVENTS, STEPS, TOMBSTONE

KEY = ("a", 7, STEPS)
A = ArtifactRef(name="walk", version="v1", sha256="1" * 64)


def result(n):
    return EpisodeResult(
        episode_id=f"e{n}", policy_sha256="", artifact="x" * 4000, rollout="", stage="", generation=0, cohort="none",
        explored=False, return_=float(n), success=True, steps=1, seconds=0.1,
    )  # fmt: skip


# --- logs that merge ------------------------------------------------------------------------------------------------------


def merge(into, source, limit=2000):
    """Read a store's log into another, as a hub does."""
    held = {cover.key: cover for cover in coverage(into.index)}
    place, verdicts = Place(), []
    from fleet.segment import walk

    while place < Place(*source.end):
        data, place = ship(
            source.folder / "log",
            place,
            Place(*source.end),
            lambda r: not r.tombstone and covers(held.get(r.key), r.seq),
            limit,
        )
        group = Group()
        for record in walk(data, check_payloads=True):
            payload = record.payload(data)
            verdicts.append(put(into, group, record.seq, payload, key=record.key, flags=record.flags))
        if group.parts:
            into.commit(group)
            into.index.commit(group.marks)
    return verdicts


@pytest.mark.parametrize("seed", range(8))
def test_experience_merges_as_a_set_union_whatever_the_order(tmp_path, seed):
    """A robot roams among three hubs that cannot see one another; what it skips at each is a hole there, until the others fill it."""
    rng = np.random.default_rng(seed)
    hubs = [Store(tmp_path / name, hub=name, segment_bytes=1500) for name in "xyz"]
    truth, seq = {}, 0
    for _ in range(12):
        hub = hubs[int(rng.integers(3))]
        line = hub.index.lines.get(KEY)
        if line is None or line.committed.seq < seq:
            cursor = line.committed.seq if line else 0
            before = line.committed.digest if line else b""
            if seq > cursor:
                group = Group()
                assert put(hub, group, seq, stone(cursor + 1, seq, before), flags=1) is Verdict.NEW
                hub.commit(group)
                hub.index.commit(group.marks)
        for _ in range(int(rng.integers(1, 8))):
            seq += 1
            truth[seq] = rng.bytes(int(rng.integers(1, 90)))
            group = Group()
            assert put(hub, group, seq, truth[seq]) is Verdict.NEW
            hub.commit(group)
            hub.index.commit(group.marks)
    for _ in range(2):
        for into, source in rng.permutation([(i, j) for i in range(3) for j in range(3) if i != j]):
            merge(hubs[into], hubs[source], limit=int(rng.integers(50, 3000)))
    for hub in hubs:
        assert {r.seq: p for r, p in read_log(hub.folder) if not r.tombstone} == truth
        (line,) = audit(hub.folder)
        assert (line.held, line.doubled, line.missing) == (len(truth), 0, 0)
        mark = hub.index.lines[KEY].committed
        assert (mark.records, mark.lost, mark.holes) == (len(truth), 0, ())
        hub.close()
        again = Store(hub.folder, hub=hub.hub, segment_bytes=1500)  # and all of it comes back from the log alone
        assert again.index.lines[KEY].committed == mark
        assert again.index.doubled == 0
        again.close()


def test_a_hole_is_filled_once_and_a_record_outside_it_is_a_duplicate():
    index = Index()
    index.accept(KEY, 9, 1, stone(1, 9), 0, 0)
    assert index.lines[KEY].accepted.holes == ((1, 9),)
    assert index.judge(KEY, 5, 0, b"x", zlib.crc32(b"x")) is Verdict.NEW
    index.accept(KEY, 5, 0, b"x", zlib.crc32(b"x"), 2)
    assert index.lines[KEY].accepted.holes == ((1, 4), (6, 9))
    assert index.judge(KEY, 5, 0, b"x", zlib.crc32(b"x")) is Verdict.DUPLICATE
    assert index.judge(KEY, 5, 0, b"y", zlib.crc32(b"y")) is Verdict.CONFLICT
    assert (index.lines[KEY].accepted.seq, index.lines[KEY].accepted.lost) == (9, 8)
    assert without(((3, 3),), 3) == ()


def test_holes_that_meet_are_one_and_the_oldest_of_too_many_is_given_up(monkeypatch):
    monkeypatch.setattr("fleet.index.MAX_HOLES", 3)
    index = Index()

    def take(seq, first=0):
        payload = stone(first, seq) if first else b"x"
        verdict = index.judge(KEY, seq, TOMBSTONE if first else 0, payload, 0)
        if verdict is Verdict.NEW:
            index.accept(KEY, seq, TOMBSTONE if first else 0, payload, 0, 1)
        return verdict

    for first in (1, 3):
        take(first + 1, first)
    assert index.lines[KEY].accepted.holes == ((1, 4),)
    for seq in range(5, 14, 2):  # 5 held, 6 lost, 7 held, 8 lost...
        take(seq)
        take(seq + 1, seq + 1)
    assert index.lines[KEY].accepted.holes == ((10, 10), (12, 12), (14, 14))
    assert index.holes_given_up == 3
    assert index.lines[KEY].accepted.lost == 9  # they stay declared
    assert (take(6), take(12)) == (Verdict.DUPLICATE, Verdict.NEW)
    assert take(11, 11) is Verdict.DUPLICATE
    assert index.lines[KEY].accepted.holes == ((10, 10), (14, 14))


def test_what_only_the_other_hub_holds_is_counted():
    theirs = Cover("a", 7, STEPS, 100, ((11, 20),))
    assert missing(theirs, None) == 90
    assert missing(theirs, Cover("a", 7, STEPS, 100)) == 0
    assert missing(theirs, Cover("a", 7, STEPS, 50, ((5, 15),))) == 50 + 6
    assert covers(theirs, 10)
    assert not covers(theirs, 15)
    assert not covers(None, 1)


def test_a_log_is_shipped_only_up_to_what_is_on_the_disk(tmp_path):
    store = Store(tmp_path / "hub")
    fill(store, range(1, 4))
    end = Place(*store.end)
    group = Group()
    put(store, group, 4)
    store._file.append(group.parts)  # written, not synced
    data, place = ship(store.folder / "log", Place(), end, lambda record: False)
    assert data.count(b"record ") == 3
    assert place == end
    store.close()


# --- who directs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", ["a", "b"], hubs=["x", "y"])
    return tmp_path / "keys"


def test_leases_only_grow_and_only_the_operator_signs_them(keys):
    grant(keys, "x", 0.0)
    first = (keys / "lease").read_bytes()
    assert grant(keys, "y", 1.0).term == 2
    authority = Authority(load_verifier(keys, "operator"), first)
    assert authority.lease.hub == "x"
    assert authority.offer((keys / "lease").read_bytes())
    assert (authority.term, authority.lease.hub) == (2, "y")
    assert not authority.offer(first)
    forged = sign(Lease(term=9, hub="x", director="0" * 64, time_s=0.0), load_signing_key(keys, "director"))
    assert not authority.offer(forged)
    assert not authority.offer(b"nonsense")
    assert (authority.term, authority.refused) == (2, 3)


def test_F21_two_directors_the_one_with_the_lower_term_is_refused_everywhere(tmp_path, keys):
    robots = {r: RobotView(online=True, policy_sha256=A.sha256) for r in "ab"}
    key, operator = load_signing_key(keys, "director"), load_verifier(keys, "operator")
    grant(keys, "x", 0.0)
    first = (keys / "lease").read_bytes()
    x = Director(tmp_path / "x.json", key, hub="x", authority=Authority(operator, first))
    y = Director(tmp_path / "y.json", key, hub="y", authority=Authority(operator, first))
    x.deploy(A, "quick", 0.0, robots)
    with pytest.raises(RolloutError, match=r"hub 'x' directs the fleet \(term 1\), not 'y'.*fleet lease y"):
        y.deploy(A, "quick", 0.0, robots)
    assert y.adopt(x.kept)
    assert y.document("a") == x.document("a") != b""
    grant(keys, "y", 1.0)  # cut off: x does not hear of it
    second = (keys / "lease").read_bytes()
    y._authority.offer(second)
    state = y.rollback(2.0, robots)  # it goes on from what x had decided
    assert state.status == "rolled_back"
    x.hold(2.0, robots)
    accepted = accept(
        y.document("a"), key.public_key(), robot="a", term=2, newest=(1, 1), newest_document=b"", now_s=3.0
    )
    assert accepted.term == 2
    with pytest.raises(StaleTermError, match="under term 1; the lease in force has term 2"):
        accept(x.document("a"), key.public_key(), robot="a", term=2, newest=(2, 1), newest_document=b"", now_s=3.0)
    assert not y.adopt(x.kept)
    assert issubclass(StaleTermError, ReplayedAssignmentError)
    x._authority.offer(second)  # healed
    assert not x.directs
    assert x.adopt(y.kept)
    assert x.kept.banned == (A.sha256,)


def test_F22_an_assignment_without_a_lease_reads_as_it_did_before_there_were_leases(keys):
    document = sign_assignment(
        Assignment(robot="a", generation=1, artifact=A, rollout="r", stage="s", cohort="canary", expires_s=9.0),
        load_signing_key(keys, "director"),
    )
    assert b"term" not in document
    assert b'"schema"' not in document or b'"schema":1' in document


# --- real hubs ------------------------------------------------------------------------------------------------------------


class Pair:
    """Two hubs in threads, each with a key folder of its own, and robots that know both."""

    def __init__(self, path, keys):
        self.path, self.ports = path, {"x": free_ports(), "y": free_ports()}
        self.keys = {name: path / f"{name}_keys" for name in "xy"}
        grant(keys, "x", time.time())
        for folder in self.keys.values():
            shutil.copytree(keys, folder)
        self.hubs = {}

    def start(self, name, *, alone=False):
        other = "y" if name == "x" else "x"
        port = free_ports() if alone else self.ports[other]  # alone: the other is dialled where nobody is
        peers = (HubAddress(host="127.0.0.1", port=port, name=other),)
        self.hubs[name] = LiveHub(self.path / name, self.keys[name], port=self.ports[name], name=name, peers=peers)
        return self.hubs[name]

    def stop(self, name):
        self.hubs.pop(name).stop()

    def robot(self, name, *order, **options):
        hubs = [(hub, self.ports[hub]) for hub in order]
        return uplink(self.path / name, self.keys["x"], name, *hubs, **{"spool_bytes": 64_000, **options})

    def close(self):
        for name in list(self.hubs):
            self.stop(name)


@pytest.fixture
def pair(tmp_path, keys):
    pair = Pair(tmp_path, keys)
    yield pair
    pair.close()


def live(up, count):
    for n in range(count):
        assert up.tell(result(n))


def events(folder):
    return sorted((r.robot, r.epoch, r.seq) for r, _ in read_log(folder, {EVENTS}) if not r.tombstone)


def test_F04_a_robot_roams_during_a_partition_and_the_hubs_hold_the_same_afterwards(pair):
    pair.start("x", alone=True)
    pair.start("y", alone=True)
    up = pair.robot("a", "x", "y")
    live(up, 10)
    wait_for(lambda: up._session.drained and up.spool.recorded[EVENTS] == 10, "the first ten are at x")
    pair.stop("x")  # x is away: the robot goes over to y
    live(up, 10)
    wait_for(lambda: up._session.drained and up.spool.recorded[EVENTS] == 20, "ten more at y")
    held = [seq for _, _, seq in events(pair.path / "y")]
    assert held == list(range(held[0], 21))
    assert 1 < held[0] <= 11  # what its spool still had, and not what it had forgotten
    pair.stop("y")
    pair.start("x", alone=True)
    live(up, 10)
    wait_for(lambda: up._session.drained and up.spool.recorded[EVENTS] == 30, "ten more at x again")
    pair.stop("x")
    hubs = [pair.start("x"), pair.start("y")]  # healed
    for hub in hubs:
        wait_for(
            lambda hub=hub: any(
                line.committed.seq == 30 and not line.committed.holes for line in hub.hub.store.index.lines.values()
            ),
            "all thirty on both",
        )
    wait_for(
        lambda: all(h["only_there"] == h["only_here"] == 0 for hub in hubs for h in hub.hub.federation.status(0.0)),
        "both know that the other has everything",
    )
    assert up.finish(20.0)
    pair.close()
    assert events(pair.path / "x") == events(pair.path / "y")
    assert len(events(pair.path / "x")) == 30
    for name in "xy":
        (line,) = audit(pair.path / name)
        assert (line.held, line.doubled, line.missing, line.declared_lost) == (30, 0, 0, 0)


def test_F20_a_hub_that_is_lost_for_good_is_reported_with_what_only_it_held(pair):
    pair.start("x")
    hub = pair.start("y")
    up = pair.robot("a", "x", "y")
    live(up, 1)
    wait_for(lambda: hub.hub.store.index.cursors("a", up.spool.epoch).get(EVENTS) == 1, "replicated")
    hub.hub.federation.pull = lambda peer: hub.hub.federation.question(
        peer, time.monotonic()
    )  # y hears of more, and gets none of it
    live(up, 9)
    wait_for(lambda: hub.hub.federation.status(0.0)[0]["only_there"] == 9, "nine are only at x")
    pair.stop("x")
    pair.stop("y")
    shutil.rmtree(pair.path / "x")
    hub = pair.start("y", alone=True)  # also after a restart it knows what went with x
    assert hub.hub.federation.status(0.0)[0]["only_there"] == 9
    live(up, 1)
    wait_for(lambda: up._session.drained and up.spool.recorded[EVENTS] == 11, "the robot went over to y")
    gone = hub.hub.federation.status(0.0)[0]["only_there"]
    assert 0 < gone < 9  # less what the robot's spool still had
    assert up.finish(20.0)
    pair.close()
    (line,) = audit(pair.path / "y")
    assert (line.held, line.declared_lost, line.missing, line.doubled) == (11 - gone, gone, 0, 0)


def test_F20_what_two_hubs_acknowledged_survives_the_loss_of_either_with_its_disk(pair):
    """Level `peer`: killed at the worst moments, disk and all; the robot forgets nothing that only one hub had."""

    def holds(hub, count):
        lines = hub.hub.store.index.lines.values()
        return sum(line.committed.records for line in lines) == count

    x = pair.start("x", alone=True)
    up = pair.robot("a", "x", "y", spool_bytes=8 << 20, ack="peer")
    live(up, 20)
    wait_for(lambda: holds(x, 20), "x has twenty")
    wait_for(lambda: up._session._cursors.get(EVENTS) == 20 and up._session._level == "peer", "the robot knows")
    assert (up._session.drained, up.spool.first[EVENTS]) == (False, 1)  # and keeps them: no other hub has them
    assert up._session.counters["stalled"] == 0  # nor sends them again
    pair.stop("x")
    shutil.rmtree(pair.path / "x")  # they were nowhere but here
    y = pair.start("y")
    wait_for(lambda: holds(y, 20), "the robot went over to y with all of them")
    assert not up._session.drained
    x = pair.start("x")  # with a new disk
    wait_for(lambda: holds(x, 20), "x is filled from y")
    wait_for(lambda: up._session.drained, "now two hubs have them")
    live(up, 20)
    wait_for(lambda: up._session.drained and up.spool.recorded[EVENTS] == 40, "twenty more, on both")
    pair.stop("y")
    shutil.rmtree(pair.path / "y")  # the one the robot talked to, right after it acknowledged
    live(up, 5)
    wait_for(lambda: holds(x, 45), "x has all that was ever acknowledged, and the rest from the robot")
    pair.start("y")
    assert up.finish(30.0)
    pair.close()
    for name in "xy":
        (line,) = audit(pair.path / name)
        assert (line.held, line.doubled, line.missing, line.declared_lost) == (45, 0, 0, 0)
    assert events(pair.path / "x") == events(pair.path / "y")


def test_what_two_hubs_share_is_counted_as_sets_are(tmp_path):
    rng = np.random.default_rng(0)

    def cover():
        seq = int(rng.integers(0, 12))
        lost = {int(n) for n in rng.integers(1, 13, rng.integers(0, 4)) if n <= seq}
        return Cover(robot="a", epoch=7, stream=STEPS, seq=seq, holes=tuple((n, n) for n in sorted(lost)))

    def held(cover):
        return set(range(1, cover.seq + 1)) - {n for n, _ in cover.holes}

    seen = set()
    for _ in range(2000):
        ours, theirs = cover(), cover()
        count = shared(ours, theirs)
        assert {n for n in held(ours) if n <= count} <= held(theirs)
        assert count == min(ours.seq, theirs.seq) or {n for n in held(ours) if n <= count + 1} - held(theirs)
        seen.add(count)
    assert seen == set(range(12))
    assert shared(Cover(robot="a", epoch=7, stream=STEPS, seq=9), None) == 0


def test_what_a_hub_said_before_it_lost_its_disk_or_fell_silent_does_not_count(tmp_path, keys):
    own, hubs = federation(tmp_path, keys, [])
    fill(own, range(1, 6))
    told = []
    hubs._gateway.peer_told = lambda: told.append(1)
    line = Cover(robot=KEY[0], epoch=KEY[1], stream=KEY[2], seq=4)
    lines = msgspec.msgpack.encode({"lines": zlib.compress(msgspec.msgpack.encode([line]))})
    hubs.hear("x", Gossiped(hub="x", log="first"), lines, 100.0)
    assert (hubs.shared(KEY, 100.0), told) == (4, [1])
    assert hubs.shared(KEY, 100.0 + AWAY_AFTER_S) == 0
    hubs.hear("x", Gossiped(hub="x", log="second"), msgspec.msgpack.encode({}), 101.0)
    assert hubs.shared(KEY, 101.0) == 0
    hubs.hear("x", Gossiped(hub="x", log="second"), lines, 102.0)
    assert hubs.shared(KEY, 102.0) == 4
    hubs.save()
    own.close()
    own, again = federation(tmp_path, keys, [])
    assert again.peers["x"].cover[KEY].seq == 4
    assert again.shared(KEY, 0.0) == 0  # remembered, for the report of what is lost; not a promise
    own.close()


def test_a_hub_that_lost_its_disk_is_filled_again_by_the_other(pair):
    pair.start("x")
    y = pair.start("y")
    up = pair.robot("a", "x")
    live(up, 10)
    wait_for(lambda: y.hub.store.index.cursors("a", up.spool.epoch).get(EVENTS) == 10, "replicated")
    wait_for(lambda: y.hub.federation.peers["x"].cover, "y heard what x holds")
    assert up.finish(20.0)  # from here on nobody has it but y
    pair.stop("x")
    shutil.rmtree(pair.path / "x")
    x = pair.start("x")
    wait_for(lambda: x.hub.store.index.cursors("a", up.spool.epoch).get(EVENTS) == 10, "x has all ten again")
    pair.close()
    assert events(pair.path / "x") == events(pair.path / "y")


def test_a_hub_goes_on_reading_another_ones_log_where_it_was(pair):
    pair.start("x")
    y = pair.start("y")
    up = pair.robot("a", "x")
    live(up, 10)
    wait_for(lambda: y.hub.store.index.cursors("a", up.spool.epoch).get(EVENTS) == 10, "replicated")
    wait_for(lambda: y.hub.federation.peers["x"].memory.place > (0, 0), "y knows how far it read")
    pair.stop("y")
    read = y.hub.federation.peers["x"].memory.place
    y = pair.start("y", alone=True)
    assert y.hub.federation.peers["x"].place == Place(*read)
    pair.stop("y")
    (pair.path / "y/log_id").unlink()  # another log of its own: it has nothing of what it read
    y = pair.start("y", alone=True)
    assert y.hub.federation.peers["x"].place == Place()
    assert up.finish(20.0)


def federation(folder, keys, merged):
    """One without sockets, whose gateway notes what it merges."""
    gateway = SimpleNamespace(merge=lambda record, payload: merged.append(record.seq), counters=Counter())
    make_root(keys, datetime.now(UTC))
    store = Store(folder / "own", hub="y")
    return store, Federation(
        "y", folder, keys, ["x"], store=store, gateway=gateway, director=None, authority=None, allow=None,
        local_views=lambda now_s: {},
    )  # fmt: skip


def test_places_of_a_log_that_is_no_more_are_not_kept(tmp_path, keys):
    merged = []
    own, hubs = federation(tmp_path, keys, merged)
    source = Store(tmp_path / "x", hub="x")
    fill(source, range(1, 4))
    data, place = ship(source.folder / "log", Place(), Place(*source.end), lambda record: False)
    empty = msgspec.msgpack.encode({})
    hubs.hear("x", Gossiped(hub="x", log="first", left=0), empty, 0.0)
    answer = Pulled(log="first", segment=place.segment, offset=place.offset, more=False)
    hubs.pull("x")
    hubs.merge("x", answer, data, 0.0)
    places = hubs.taken()
    assert (places, merged) == ({"x": place}, [1, 2, 3])
    hubs.hear("x", Gossiped(hub="x", log="second", left=0), empty, 0.0)  # while the group is under way
    hubs.committed(places)
    assert hubs.peers["x"].memory.place == (0, 0)
    hubs.pull("x")
    hubs.merge("x", msgspec.structs.replace(answer, log="second"), data, 0.0)
    hubs.committed(hubs.taken())
    assert hubs.peers["x"].memory.place == place
    hubs.pull("x")
    hubs.aborted()  # the answer under way follows on what was not kept
    hubs.merge("x", Pulled(log="second", segment=9, offset=9, more=False), data, 0.0)
    assert (hubs.peers["x"].place, len(merged)) == (place, 6)
    own.close()
    source.close()


def test_sections_too_large_for_an_answer_do_not_hold_up_the_rest(tmp_path, keys, monkeypatch):
    rng = np.random.default_rng(0)
    own, hubs = federation(tmp_path, keys, [])
    sections = {"big": rng.bytes(2 << 20), "one": rng.bytes(700_000), "two": rng.bytes(700_000), "lease": b"x"}
    monkeypatch.setattr(hubs, "_sections", lambda now_s: sections)
    answer, payload = hubs.gossiped(Gossip(), 0.0)
    sent = set(msgspec.msgpack.decode(payload, type=dict[str, bytes]))
    assert (sent, answer.left) == ({"one", "lease"}, 1)
    have = {section: hashlib.blake2b(sections[section], digest_size=16).digest() for section in sent}
    answer, payload = hubs.gossiped(Gossip(have=have), 0.0)
    assert (set(msgspec.msgpack.decode(payload)), answer.left) == ({"two"}, 0)
    assert hubs._gateway.counters["section_too_large"] == 2  # a hub of the version before takes no parts
    own.close()


def test_a_section_too_large_for_an_answer_comes_in_parts_of_one_moment(tmp_path, keys, monkeypatch):
    rng = np.random.default_rng(0)
    own, hubs = federation(tmp_path, keys, [])
    monkeypatch.setattr("fleet.federation.MAX_ANSWER_BYTES", 110_000)
    monkeypatch.setattr("fleet.parts.PART_BYTES", 50_000)
    robots = {f"r{n}": RobotView(online=True, refused=rng.bytes(500).hex()) for n in range(500)}
    sections = {"robots": msgspec.msgpack.encode(robots), "lease": b""}
    monkeypatch.setattr(hubs, "_sections", lambda now_s: {**sections})
    peer, rounds = hubs.peers["x"], 0

    def talk(now_s, spoil=lambda sections: None):
        answer, payload = hubs.gossiped(hubs.question("x", now_s), now_s)
        assert len(payload) <= 110_000
        told = msgspec.msgpack.decode(payload, type=dict[str, bytes])
        spoil(told)
        hubs.hear("x", msgspec.structs.replace(answer, hub="x"), msgspec.msgpack.encode(told), now_s)
        return answer.left

    while talk(1.0):
        rounds += 1
        sections["robots"] = msgspec.msgpack.encode({"other": RobotView(online=False)} | robots)  # it goes on changing
    assert rounds >= 2
    assert set(peer.robots) == set(robots)  # as it was when it was cut
    assert peer.parts.names == []
    talk(2.0)
    assert "other" not in peer.robots
    while talk(1.0 + KEEP_S):
        pass
    assert "other" in peer.robots
    assert hubs._gateway.counters == Counter()

    sections["robots"] = msgspec.msgpack.encode(robots)
    bad = {"part 0/2": b"", f"part 9/2 {'0' * 32} robots": b"", f"part 0/65 {'0' * 32} robots": b"",
           f"part 0/1 {'0' * 32} passwords": b"", f"part 0/1 {'0' * 32} lines": zlib.compress(b"x")}  # fmt: skip
    while talk(50.0, lambda told: told.update(bad)):
        pass
    assert "other" not in peer.robots
    assert hubs._gateway.counters["bad_gossip"] == 5 * (rounds + 1)
    sections["robots"] = b"\0" * (MAX_SECTION_BYTES + 1)  # compresses well
    monkeypatch.setattr("fleet.federation.MAX_ANSWER_BYTES", 4096)
    talk(90.0)
    assert hubs._gateway.counters["section_too_large"] == 1
    own.close()


def test_a_hub_that_always_has_more_to_tell_and_tells_nothing_is_still_read(pair):
    x = pair.start("x")
    real = x.hub.federation.gossiped
    x.hub.federation.gossiped = lambda gossip, now_s: (
        msgspec.structs.replace((answer := real(gossip, now_s))[0], left=1),
        answer[1],
    )
    y = pair.start("y")
    up = pair.robot("a", "x")
    live(up, 10)
    wait_for(lambda: y.hub.store.index.cursors("a", up.spool.epoch).get(EVENTS) == 10, "replicated")
    assert up.finish(20.0)


def test_many_contracts_reach_the_other_hub_and_no_more_than_are_kept(pair, tmp_path, monkeypatch, caplog):
    rng = np.random.default_rng(0)
    x, y = pair.start("x"), pair.start("y")
    texts = [base64.b64encode(rng.bytes(43_000)).decode() for _ in range(40)]  # 1.7 MB, as a hostile robot would send
    held = {x.hub.store.add_contract(text) for text in texts}
    wait_for(lambda: y.hub.store.contracts() == held, "all of them")
    monkeypatch.setattr("fleet.store.MAX_CONTRACTS", 40)
    x.hub.store.add_contract("one more")
    x.hub.store.add_contract(texts[0])
    assert x.hub.store.contracts() == held
    assert "was not kept: 40 are held already" in caplog.text


def test_revocations_keys_decisions_and_the_lease_reach_the_other_hub(pair, keys):
    x, y = pair.start("x"), pair.start("y")
    up = pair.robot("b", "y")
    wait_for(lambda: up.state == "joined", "b is at y")
    wait_for(lambda: y.hub.federation.peers["x"].have, "they talk")
    x.hub.director.deploy(A, "quick", time.time(), x.hub.federation.views(time.monotonic()))
    wait_for(lambda: y.hub.director.document("b") != b"", "y serves what x decided")
    wait_for(lambda: x.hub.federation.views(time.monotonic())["b"].online, "x sees a robot that is at y")
    revoke(pair.keys["x"], "b", "stolen", time.time())
    wait_for(lambda: not y.hub._allow.admits("b"), "y heard of the revocation")
    wait_for(lambda: up.state.startswith("refused"), "and cut the robot off")
    make_keys(pair.keys["x"], ["c"])
    wait_for(lambda: y.hub._allow.admits("c"), "a robot that was let in at x may come to y")
    assert load_public(pair.keys["y"] / "allow/c.key") == load_public(pair.keys["x"] / "allow/c.key")
    grant(pair.keys["y"], "y", time.time())
    wait_for(lambda: x.hub.director.lease()[0] == 2, "x heard that y directs")
    assert (x.hub.director.directs, y.hub.director.directs) == (False, True)
    assert y.hub.director.rollback(time.time(), {}).status == "rolled_back"
    wait_for(lambda: x.hub.director.kept.banned == (A.sha256,), "x follows")
    up.finish(0.1)


def test_a_thiefs_new_key_that_a_hub_took_in_before_it_heard_of_the_revocation_counts_nowhere(pair):
    stolen = load_public(pair.keys["x"] / "allow/b.key")
    thief = zmq.curve_keypair()[0]
    pair.start("x", alone=True)
    pair.start("y", alone=True)
    path = admit_key(pair.keys["y"], f"b#{key_hash(stolen)}", "b", thief, time.time())
    revoke(pair.keys["x"], "b", "stolen", time.time(), pause=lambda _: None)
    assert AllowList(pair.keys["y"], b"").keys[thief] == "b"  # a partition: y cannot know
    for name in "xy":
        pair.stop(name)
    x, y = pair.start("x"), pair.start("y")
    wait_for(lambda: (pair.keys["x"] / "allow" / path.name).exists(), "its file came to x")
    wait_for(lambda: path.name in x.hub._allow.refused and path.name in y.hub._allow.refused, "and counts on neither")
    for hub in (x, y):
        assert hub.hub._allow.decide("fleet", b"CURVE", thief).status == 400


def test_a_bad_key_file_or_section_holds_up_nothing_else(pair):
    pair.start("x")
    y = pair.start("y")
    wait_for(lambda: y.hub.federation.peers["x"].have, "they talk")
    spoil(pair.keys["x"])
    make_keys(pair.keys["x"], ["c"])
    wait_for(lambda: y.hub._allow.admits("c"), "what is good behind the bad files reached y")
    assert not (pair.keys["y"] / "allow/x.key").exists()
    federation = y.hub.federation
    pair.stop("y")
    good, bad = msgspec.msgpack.encode({}), msgspec.msgpack.encode({"../d": ("d", ""), "d": ("e", "")})
    sections = {n: zlib.compress(d) for n, d in (("lines", b"\xc1"), ("keys", bad), ("robots", good))}
    peer = federation.peers["x"]
    peer.have, before = {}, federation._gateway.counters["bad_gossip"]
    federation.hear("x", Gossiped(hub="x", log=peer.memory.log), msgspec.msgpack.encode(sections), 0.0)
    assert set(peer.have) == {"keys", "robots"}
    assert federation._gateway.counters["bad_gossip"] == before + 3
    federation.hear("x", Gossiped(hub="x", log=peer.memory.log), b"\xc1", 0.0)
    assert federation._gateway.counters["bad_gossip"] == before + 4


def test_a_hub_whose_key_was_taken_away_is_not_answered_any_more(pair):
    x = pair.start("x")
    pair.start("y")
    wait_for(lambda: x.hub.federation.peers["y"].have, "they talk")
    (pair.keys["x"] / "hubs/y.key").unlink()
    wait_for(lambda: x.gateway.counters["revoked"] > 0, "y's next question was not answered")


def test_an_address_may_name_its_hub():
    assert parse_hub("north@10.0.0.2:5570") == HubAddress(host="10.0.0.2", port=5570, name="north")
    assert str(parse_hub("127.0.0.1:5570")) == "127.0.0.1:5570"


# --- the catalogue --------------------------------------------------------------------------------------------------------


def published(folder, keys, version):
    artifact = folder / f"artifact-{version}"
    artifact.mkdir()
    for file in FILES:
        (artifact / file).write_bytes(version.encode())
    catalogue = Catalogue(folder / "catalogue", keys)
    catalogue.publish(artifact, "walk", version, datetime.now(UTC))
    return folder / "catalogue"


def copy(theirs, ours, trust):
    while path := next(iter(mirror.wanted(mirror.listing(theirs), ours)), ""):
        mirror.keep(ours, path, (theirs / path).read_bytes(), trust)


def test_a_catalogue_is_copied_whole_with_the_timestamp_last(tmp_path, keys):
    trust = make_root(keys, datetime.now(UTC))
    theirs, ours = published(tmp_path, keys, "v1"), tmp_path / "copy"
    ours.mkdir()
    assert mirror.wanted(mirror.listing(theirs), ours)[-1] == mirror.TIMESTAMP
    copy(theirs, ours, trust)
    assert Catalogue(ours, keys).find("walk", "v1") == Catalogue(theirs, keys).find("walk", "v1")
    old = (ours / mirror.TIMESTAMP).read_bytes()
    published(tmp_path, keys, "v2")
    copy(theirs, ours, trust)
    assert Catalogue(ours, keys).find("walk", "v2")
    assert not mirror.keep(ours, mirror.TIMESTAMP, old, trust)  # an older one is not taken back


def test_what_is_not_signed_or_not_what_its_name_says_is_not_copied(tmp_path, keys):
    trust = make_root(keys, datetime.now(UTC))
    theirs, ours = published(tmp_path, keys, "v1"), tmp_path / "copy"
    other = tmp_path / "other_keys"
    make_keys(other)
    make_root(other, datetime.now(UTC))
    (tmp_path / "evil").mkdir()
    evil = published(tmp_path / "evil", other, "v9")
    target = next(p for p in mirror.listing(theirs) if p.startswith("targets/"))
    for path, data, match in (
        (target, b"other bytes", "another hash"),
        (mirror.TIMESTAMP, (evil / mirror.TIMESTAMP).read_bytes(), "timestamp"),
        ("metadata/1.targets.json", (evil / "metadata/1.targets.json").read_bytes(), "targets"),
        ("metadata/1.root.json", (evil / "metadata/1.root.json").read_bytes(), "another root"),
        ("metadata/7.targets.json", (theirs / "metadata/1.targets.json").read_bytes(), "holds version 1"),
        ("../hub.key", b"", "no file of a catalogue"),
        (mirror.TIMESTAMP, b"{}", "timestamp"),
    ):
        with pytest.raises(CatalogueError, match=match):
            mirror.keep(ours, path, data, trust)
    assert not ours.exists()
