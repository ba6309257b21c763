"""One job queue for several hubs: passed on, never done by two at a time, counted once; through partitions, roaming robots, kills, and a lease that moves."""

import shutil
import time

import msgspec
import numpy as np
import pytest
from fleet_helpers import wait_for
from test_fleet_hubs import Pair
from test_fleet_jobs import beat, opened

from fleet.errors import RolloutError
from fleet.federation import AWAY_AFTER_S
from fleet.jobs_hub import JobQueue
from fleet.jobs_shared import FLEET, RELAY_SHARE, Ages, Told, Wish
from fleet.keys import make_keys
from fleet.lease import grant
from fleet.messages import UNSURE, Heartbeat, JobResult
from fleet.roster import BROKEN_AFTER_S
from fleet.sockets import HubAddress
from fleet.uplink import Line, Uplink
from fleet.worker import LEASE_SHARE, Worker

LEASE_S = 30.0
JOB = {"task": "reach", "skill": "hand_reach", "tries": 1000}


class Duty:
    """The newest lease a hub knows."""

    def __init__(self, name, holder="x", term=1):
        self.name, self.holder, self.term = name, holder, term

    @property
    def directs(self):
        return self.holder == self.name

    def lease(self):
        return self.term, b""

    def must_direct(self):
        if not self.directs:
            raise RolloutError(f"hub {self.holder!r} directs the fleet")


class Hub:
    """A queue, an event log that merges as a set, and what it heard of the other hub."""

    def __init__(self, path, name, clock):
        self.name, self.clock, self.path = name, clock, path
        self.duty, self.log, self.read = Duty(name), [], 0
        self.there, self.workers, self.heard_s = {}, {}, float("-inf")
        self.start()

    def start(self):
        self.book = JobQueue(
            self.path / f"{self.name}.log",
            hub=self.name,
            utc_s=self.clock,
            now_s=self.clock,
            lease_s=LEASE_S,
            duty=self.duty,
        )
        for robot, result in self.log:
            self.book.happened(robot, result, again=True)

    def take(self, robot, result):
        if (robot, result) not in self.log:
            self.log.append((robot, result))
            self.book.happened(robot, result)

    def ask(self, other):
        """One round of gossip, over the wire's own bytes."""
        asked_s = self.clock()
        if other.duty.term > self.duty.term:
            self.duty.term, self.duty.holder = other.duty.term, other.duty.holder
        told = other.book.told()
        if told is not None and not self.duty.directs and (self.duty.holder, self.duty.term) == (other.name, told.term):
            self.book.adopt(msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Told), other.name)
            self.book.hear(msgspec.msgpack.decode(msgspec.msgpack.encode(other.book.ages()), type=Ages), asked_s)
        self.workers, self.heard_s = other.wishes, asked_s
        for robot, result in other.log[self.read :]:
            self.take(robot, result)
        self.read = len(other.log)

    def tick(self):
        self.book.tick()
        if self.duty.directs and self.clock() - self.heard_s < AWAY_AFTER_S:
            for robot, wish in self.workers.items():
                if robot not in self.wishes:
                    self.book.heard(robot, wish)

    @property
    def wishes(self):
        """Of robots that are here: heard of in the last seconds."""
        return {robot: wish for robot, (wish, at_s) in self.there.items() if self.clock() - at_s < BROKEN_AFTER_S}


class Robot:
    def __init__(self, path, name, clock, hub):
        self.name, self.clock, self.hub, self.told, self.term = name, clock, hub, [], 1
        self.path, self.energy_j = path / f"{name}.json", 0.0
        self.start()

    def start(self):
        self.worker = Worker(self.path, tell=self.told.append, utc_ns=lambda: 0, now_s=self.clock)

    def talk(self):
        ticket = self.worker.ticket
        job, lease = (ticket.id, ticket.lease) if ticket else ("", 0)
        heartbeat = beat(job=job, job_lease=lease, wants_job=ticket is None)
        self.hub.there[self.name] = Wish.of(heartbeat), self.clock()
        answer = self.hub.book.heard(self.name, heartbeat)
        if self.hub.duty.term < self.term:
            answer = None, UNSURE
        self.term = max(self.term, self.hub.duty.term)
        self.worker.heard(*answer, self.clock())
        while self.told:
            self.hub.take(self.name, self.told.pop(0))

    def episode(self, success):
        self.energy_j += 10.0
        self.worker.episode(success=success, energy_j=self.energy_j, seconds=1.0)

    @property
    def doing(self):
        """The job it may still do: by its own clock its lease runs."""
        ticket = self.worker.ticket
        fresh = self.clock() - self.worker._confirmed_s <= LEASE_SHARE * LEASE_S
        return ticket.id if ticket is not None and fresh and not self.worker._void else None


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


class Fleet:
    def __init__(self, path, rng, jobs=10, robots=4):
        self.clock, self.rng = Clock(), rng
        self.hubs = {name: Hub(path, name, self.clock) for name in "xy"}
        self.robots = [Robot(path, f"r{n}", self.clock, self.hubs["xy"[n % 2]]) for n in range(robots)]
        self.linked, self.reach = {"x": True, "y": True}, {robot.name: True for robot in self.robots}
        self.most, self.passed_on = (
            0,
            0,
        )  # robots at one job at a time; seconds of work under leases the other hub passed on
        for _ in range(jobs):
            self.hubs["x"].book.add(JOB)

    def second(self, success=0.04):
        self.clock.now_s += 1.0
        for name, hub in self.hubs.items():
            if self.linked[name]:  # each hub's own line to the other: one may be cut and the other not
                hub.ask(self.hubs["y" if name == "x" else "x"])
        for robot in self.robots:
            robot.episode(self.rng.random() < success)
            if self.reach[robot.name]:
                robot.talk()
        for hub in self.hubs.values():
            hub.tick()
        doing = [robot.doing for robot in self.robots if robot.doing]
        self.passed_on += sum(r.doing is not None and not r.hub.duty.directs for r in self.robots)
        self.most = max([self.most, *(doing.count(job) for job in doing)])

    def trouble(self):
        rng = self.rng
        for links in (self.linked, self.reach):
            for name in links:
                if rng.random() < (0.03 if links[name] else 0.05):
                    links[name] = not links[name]
        robot = self.robots[rng.integers(len(self.robots))]
        if rng.random() < 0.05:
            robot.hub = self.hubs["xy"[rng.integers(2)]]
        if rng.random() < 0.02:
            robot.start()
        if rng.random() < 0.02:
            hub = self.hubs["xy"[rng.integers(2)]]
            hub.book.close()
            hub.start()

    def calm(self):
        self.linked, self.reach = dict.fromkeys("xy", True), dict.fromkeys(self.reach, True)
        for _ in range(400):
            self.second(success=0.3)
            queues = [hub.book.queue for hub in self.hubs.values()]
            if all(q.totals.done == len(q.jobs) and not any(r.told for r in self.robots) for q in queues):
                return

    def move(self, holder):
        """The operator signs a lease; it is on the machine of the hub it names."""
        duty = self.hubs[holder].duty
        duty.term, duty.holder = max(hub.duty.term for hub in self.hubs.values()) + 1, holder

    def check(self):
        x, y = (self.hubs[name].book for name in "xy")
        assert x.queue.jobs == y.queue.jobs
        totals = [msgspec.structs.replace(book.queue.totals, owner="") for book in (x, y)]
        assert totals[0] == totals[1]
        assert {job.state for job in x.queue.jobs.values()} == {"done"}
        assert x.queue.totals.done == len(x.queue.jobs)

    def close(self):
        for hub in self.hubs.values():
            hub.book.close()


@pytest.mark.parametrize("seed", range(4))
def test_partitions_roaming_and_kills_every_job_is_done_once_and_by_one_robot_at_a_time(tmp_path, seed):
    fleet = Fleet(tmp_path, np.random.default_rng(seed))
    for _ in range(400):
        fleet.trouble()
        fleet.second()
    fleet.calm()
    fleet.check()
    assert fleet.most == 1
    assert fleet.passed_on > 0
    fleet.close()


def test_a_copy_that_spoke_for_longer_would_let_two_robots_do_one_job(tmp_path, monkeypatch):
    """The story above can tell: with no room between what a copy may confirm and when a job is taken back it finds two at one job."""
    monkeypatch.setattr("fleet.jobs_shared.RELAY_SHARE", 1.0)
    most = []
    for seed in (5, 1):
        (tmp_path / str(seed)).mkdir()
        fleet = Fleet(tmp_path / str(seed), np.random.default_rng(seed))
        for _ in range(300):
            fleet.trouble()
            fleet.second()
        most.append(fleet.most)
        fleet.close()
    assert max(most) > 1


@pytest.mark.parametrize("seed", range(4))
def test_a_lease_that_moves_takes_the_queue_along(tmp_path, seed):
    """Also in the middle of a partition: a job may then be tried twice, and is counted once."""
    fleet = Fleet(tmp_path, np.random.default_rng(100 + seed), jobs=8)
    for n in range(400):
        fleet.trouble()
        if n % 97 == 50:
            fleet.move("yx"[(n // 97) % 2])
        fleet.second()
    fleet.calm()
    fleet.check()
    done = [r for _, r in fleet.hubs["x"].log if r.outcome == "done"]
    assert {r.job for r in done} == {str(n) for n in range(1, 9)}
    fleet.close()


def test_robots_at_the_other_hub_get_work_and_it_is_done_there(tmp_path):
    fleet = Fleet(tmp_path, np.random.default_rng(0), jobs=2, robots=4)
    fleet.robots = [robot for robot in fleet.robots if robot.hub.name == "y"]
    x, y = (fleet.hubs[name].book for name in "xy")
    for _ in range(6):
        fleet.second(success=0.0)
    assert sorted(robot.worker.ticket.id for robot in fleet.robots) == ["1", "2"]
    assert {robot.worker.ticket.hub for robot in fleet.robots} == {FLEET}
    assert [job.state for job in y.queue.jobs.values()] == ["given", "given"]
    for call in (lambda: y.add(JOB), lambda: y.cancel("1")):
        with pytest.raises(RolloutError, match="hub 'x' directs the fleet"):
            call()
    x.cancel("1")
    for _ in range(4):
        fleet.second(success=1.0)
    fleet.close()
    assert [job.state for job in x.queue.jobs.values()] == ["cancelled", "done"]
    assert x.queue.jobs["2"].energy_j > 0.0


def test_cut_off_from_the_hub_that_directs_nobody_is_told_that_a_lease_stands(tmp_path):
    fleet = Fleet(tmp_path, np.random.default_rng(0), jobs=1, robots=2)
    at_y = next(robot for robot in fleet.robots if robot.hub.name == "y")
    fleet.reach[next(robot.name for robot in fleet.robots if robot.hub.name == "x")] = False
    for _ in range(6):
        fleet.second(success=0.0)
    assert at_y.doing == "1"
    fleet.linked["y"] = False  # y does not hear x any more; x hears y, and would wait for ever
    for _ in range(int(RELAY_SHARE * LEASE_S) + 1):
        fleet.second(success=0.0)
    assert fleet.hubs["y"].book.heard(at_y.name, beat(job="1", job_lease=at_y.worker.ticket.lease)) == (None, UNSURE)
    confirmed_s = at_y.worker._confirmed_s
    for _ in range(int(LEASE_S)):
        fleet.second(success=0.0)
    assert (at_y.worker.ticket, at_y.worker._confirmed_s) == (None, confirmed_s)
    (given_up,) = [r for _, r in fleet.hubs["x"].log]
    assert (given_up.outcome, given_up.reason) == ("gave_up", "the hub was not heard of")
    fleet.close()


def test_who_takes_over_waits_before_it_gives_and_takes_results_that_were_on_the_way(tmp_path):
    fleet = Fleet(tmp_path, np.random.default_rng(0), jobs=2, robots=2)
    x, y = fleet.hubs["x"], fleet.hubs["y"]
    y.ask(x)  # it knows both jobs as waiting
    ticket, _ = x.book.heard("r0", beat())  # x gives one, and is never heard of again
    fleet.move("y")
    assert y.book.heard("r1", beat()) == (None, 0)
    done = JobResult(job=ticket.id, hub=FLEET, lease=ticket.lease, outcome="done", energy_j=5.0)
    y.take("r0", done)
    y.take(
        "r0", msgspec.structs.replace(done, job="2", lease=(9 << 32) + 1)
    )  # of no director there ever was before this one
    assert [job.state for job in y.book.queue.jobs.values()] == ["done", "waiting"]
    assert y.book.refused == 1
    fleet.clock.now_s += LEASE_S + 1.0
    ticket, lease = y.book.heard("r1", beat())
    assert (ticket.id, lease >> 32) == ("2", 2)
    fleet.close()


def test_what_a_hub_queued_itself_before_another_directs_is_set_aside_and_named(tmp_path, caplog):
    clock = Clock()
    alone = opened(tmp_path, clock)
    alone.add({**JOB, "task": "polish"})
    alone.close()
    own = JobQueue(tmp_path / "jobs.log", hub="y", utc_s=clock, now_s=clock, duty=Duty("y"))
    own.adopt(Told(term=1, entries=[]), "x")
    assert own.queue.jobs == {}
    assert "hub x directs; set aside and to be added there again: 1 'polish'" in caplog.text
    (aside,) = tmp_path.glob("*.aside")
    own.close()
    shutil.copy(aside, tmp_path / "jobs.log")
    again = opened(tmp_path, clock)
    assert [job.spec.task for job in again.queue.waiting] == ["polish"]
    again.close()


# --- real hubs ----------------------------------------------------------------------------------------------------------


def test_two_hubs_one_queue_a_robot_at_the_second_and_the_loss_of_the_first(tmp_path):
    make_keys(tmp_path / "keys", ["a", "b"], hubs=["x", "y"])
    pair = Pair(tmp_path, tmp_path / "keys")
    x, y = pair.start("x"), pair.start("y")
    line = Line(hubs=[HubAddress(host="127.0.0.1", port=pair.ports["y"], name="y")], robot="b", keys=pair.keys["y"])
    events = []
    worker = Worker(tmp_path / "job.json", tell=events.append, utc_ns=time.time_ns)

    def heartbeat():
        job = worker.ticket
        mine = {"job": job.id, "job_lease": job.lease} if job else {"wants_job": True}
        return Heartbeat(state="running", skills=("hand_reach",), lease_term=y.hub.director.lease()[0], **mine)

    up = Uplink(
        line,
        tmp_path / "b",
        heartbeat=heartbeat,
        on_job=lambda ticket, lease: worker.heard(ticket, lease, time.monotonic()),
    )
    try:
        up.start()
        wait_for(lambda: y.hub.director.lease()[0] == 1, "y knows that x directs")
        x.hub.jobs.add({"task": "reach", "skill": "hand_reach"})
        wait_for(lambda: worker.ticket is not None, "the robot at y has the job of x")
        with pytest.raises(RolloutError, match="hub 'x' directs"):
            y.hub.jobs.add({"task": "reach", "skill": "hand_reach"})
        for n in range(2):  # the one under way does not count
            worker.episode(success=True, energy_j=10.0 * n, seconds=1.0)
        up.tell(events.pop())
        wait_for(lambda: x.hub.jobs.queue.totals.done == 1, "x counts it")
        x.hub.jobs.add({"task": "polish", "skill": "somebody_else"})
        wait_for(lambda: len(y.hub.jobs.queue.jobs) == 2 and y.hub.jobs.queue.totals.done == 1, "and y has the copy")
        pair.stop("x")
        shutil.rmtree(tmp_path / "x")
        grant(pair.keys["y"], "y", time.time())
        wait_for(lambda: y.hub.director.directs, "y directs")
        assert y.hub.jobs.add({"task": "sweep", "skill": "hand_reach"})["id"] == "3"
        assert [(job["task"], job["state"]) for job in y.hub.jobs.list()["jobs"]] == [
            ("reach", "done"),
            ("polish", "waiting"),
            ("sweep", "waiting"),
        ]
        x = pair.start("x")  # with an empty disk: it is the copy now
        wait_for(lambda: len(x.hub.jobs.queue.jobs) == 3, "x has what it lost")
    finally:
        up.finish(5.0)
        pair.close()
