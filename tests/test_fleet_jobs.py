"""Jobs are done once: whatever comes late, twice or from the past, and whoever is killed. Pure rules, then the log, then both sides together."""

import contextlib
import errno
import itertools

import msgspec
import numpy as np
import pytest
from fleet_places import Place, episode, fall
from hypothesis import given, settings
from hypothesis import strategies as st
from onboard_helpers import artifact, model, write
from test_fleet_faults import FaultyDisk

from fleet import jobs
from fleet.disk import Disk
from fleet.errors import StoreFullError
from fleet.jobs import Added, Finished, Given, JobError, Queue, Returned, Spec, snapshot
from fleet.jobs_hub import JobQueue
from fleet.messages import EpisodeResult, FallReport, Heartbeat, HeartbeatOk, JobResult
from fleet.segment import encode_record
from fleet.store import read_log
from fleet.wire import EVENTS
from fleet.worker import LEASE_SHARE, Worker
from robot.errors import UnknownNameError


def spec(id="1", **options):
    return Spec(**{"id": id, "task": "reach", "skill": "hand_reach", "added_s": 0.0, **options})


def beat(**options):
    return Heartbeat(**{"state": "running", "skills": ("hand_reach",), "wants_job": True, **options})


def folded(*entries):
    queue = Queue()
    for entry in entries:
        queue.apply(entry)
    return queue


def result(lease=1, job="1", outcome="done", **options):
    return JobResult(job=job, hub="hub", lease=lease, outcome=outcome, **options)


# --- the rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "heartbeat, takes",
    [
        (beat(), True),
        (beat(wants_job=False), False),
        (beat(skills=("body_walk",)), False),
        (beat(battery=0.5, battery_j=1200.0), True),
        (beat(battery=0.5, battery_j=1199.0), False),
        (beat(battery=jobs.MIN_BATTERY - 0.01, battery_j=1e6), False),
    ],
)
def test_a_robot_takes_what_it_can_do_and_has_the_charge_for(heartbeat, takes):
    queue = folded(Added(spec=spec(budget_j=1000.0)))
    assert (jobs.pick(queue, "a", heartbeat, 1.0) is not None) == takes


def test_what_is_due_first_is_given_first_and_one_robot_has_one_job():
    queue = folded(*(Added(spec=spec(str(i), deadline_s=d)) for i, d in enumerate((0.0, 90.0, 50.0, 0.0), 1)))
    order = []
    for robot in "abcd":
        entry = jobs.pick(queue, robot, beat(), 1.0)
        queue.apply(entry)
        order.append(entry.id)
        assert jobs.pick(queue, robot, beat(), 1.0) is None
    assert order == ["3", "2", "1", "4"]
    assert [job.lease for job in queue.given] == [1, 2, 3, 4]


def test_a_result_under_an_old_lease_is_refused_and_one_under_the_lease_in_force_counts():
    queue = folded(
        Added(spec=spec()),
        Given(id="1", robot="a", lease=1, now_s=1.0),
        Returned(id="1", lease=1, reason="vanished"),
        Given(id="1", robot="b", lease=2, now_s=40.0),
    )
    assert jobs.judge(queue, "a", result(lease=1), 50.0) is None
    assert jobs.judge(queue, "a", result(lease=2), 50.0) is None  # b's lease
    done = jobs.judge(queue, "b", result(lease=2, energy_j=7.0), 50.0)
    assert isinstance(done, Finished)
    queue.apply(done)
    assert jobs.judge(queue, "b", result(lease=2), 51.0) is None
    assert (queue.totals.done, queue.totals.energy_j) == (1, 7.0)


def test_work_that_was_done_counts_even_if_it_is_told_late_as_long_as_nobody_else_has_the_job():
    queue = folded(
        Added(spec=spec()), Given(id="1", robot="a", lease=1, now_s=1.0), Returned(id="1", lease=1, reason="vanished")
    )
    assert jobs.judge(queue, "a", result(outcome="gave_up"), 50.0) is None
    assert isinstance(jobs.judge(queue, "a", result(), 50.0), Finished)


def test_an_attempt_that_was_handed_back_is_paid_for_too():
    queue = folded(
        Added(spec=spec()),
        Given(id="1", robot="a", lease=1, now_s=1.0),
        Returned(id="1", lease=1, reason="", energy_j=3600.0),
        Given(id="1", robot="b", lease=2, now_s=2.0),
        Finished(id="1", state="done", now_s=3.0, energy_j=1800.0),
    )
    assert jobs.figures(queue, 10.0)["wh_per_task"] == 1.5


def test_a_job_nobody_took_expires_and_one_that_is_under_way_does_not():
    queue = folded(*(Added(spec=spec(i, deadline_s=10.0)) for i in "12"), Given(id="1", robot="a", lease=1, now_s=1.0))
    assert jobs.overdue(queue, 9.9) == []
    assert [entry.id for entry in jobs.overdue(queue, 10.0)] == ["2"]


def test_cancelling_names_what_is_wrong():
    queue = folded(Added(spec=spec()))
    with pytest.raises(UnknownNameError, match=r"unknown job '7'\. Known: 1"):
        jobs.cancel(queue, "7", 1.0)
    queue.apply(jobs.cancel(queue, "1", 1.0))
    with pytest.raises(JobError, match="job 1 is cancelled already"):
        jobs.cancel(queue, "1", 1.0)


entries = st.lists(
    st.one_of(
        st.builds(lambda i: Added(spec=spec(str(i))), st.integers(1, 4)),
        st.builds(
            lambda i, r, n: Given(id=str(i), robot=r, lease=n, now_s=1.0),
            st.integers(1, 4),
            st.sampled_from("ab"),
            st.integers(1, 9),
        ),
        st.builds(
            lambda i, n: Returned(id=str(i), lease=n, reason="", energy_j=1.0), st.integers(1, 4), st.integers(1, 9)
        ),
        st.builds(
            lambda i, s: Finished(id=str(i), state=s, now_s=1.0, energy_j=2.0),
            st.integers(1, 4),
            st.sampled_from(("done", "failed", "cancelled")),
        ),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(entries)
def test_a_queue_written_anew_is_the_same_queue(history):
    queue = folded(*history)
    again = folded(*snapshot(queue))
    assert again.jobs == queue.jobs
    assert again.totals == queue.totals
    if len({job.robot for job in queue.jobs.values() if job.state == "given"}) == len(queue.given):
        assert [again.held_by(robot) for robot in "ab"] == [queue.held_by(robot) for robot in "ab"]
    assert [j.spec.id for j in again.waiting] == [j.spec.id for j in queue.waiting]


# --- the log ------------------------------------------------------------------------------------------------------------


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def opened(tmp_path, clock, **options):
    return JobQueue(tmp_path / "jobs.log", hub="hub", utc_s=clock, now_s=clock, **options)


def test_a_restart_forgets_nothing_and_uses_no_lease_twice(tmp_path, clock):
    book = opened(tmp_path, clock)
    for place in ("bench 1", "bench 2"):
        book.add({"task": "reach", "skill": "hand_reach", "place": place})
    ticket, lease = book.heard("a", beat())
    assert (ticket.place, ticket.lease, lease) == ("bench 1", 1, 1)
    book.close()
    with (tmp_path / "jobs.log").open("ab") as file:
        file.write(b"torn")
    book = opened(tmp_path, clock)
    again, _ = book.heard("a", beat())
    assert again == ticket  # the answer may have been lost: the same job under the same lease
    assert book.heard("a", beat(job="1", job_lease=1, wants_job=False)) == (None, 1)
    assert book.heard("b", beat())[0].lease == 2
    assert book.add({"task": "reach", "skill": "hand_reach"})["id"] == "3"
    book.close()


def test_a_robot_that_vanishes_gives_the_job_back_after_its_lease_and_its_late_result_is_refused(tmp_path, clock):
    book = opened(tmp_path, clock, lease_s=10.0)
    book.add({"task": "reach", "skill": "hand_reach"})
    book.heard("a", beat())
    for clock.now_s in (5.0, 14.0):  # it is heard of: the lease goes on
        book.heard("a", beat(job="1", job_lease=1))
        book.tick()
    clock.now_s = 24.5
    assert book.heard("b", beat()) == (None, 0)
    book.tick()
    assert book.queue.find("1").reason == "a was not heard of for 10 s"
    assert book.heard("b", beat())[1] == 2
    assert book.heard("a", beat(job="1", job_lease=1, wants_job=False)) == (None, 0)  # "yours is void"
    book.happened("a", result(lease=1))
    book.happened("b", result(lease=2, energy_j=36.0))
    assert (book.list()["done"], book.refused, book.list()["wh_per_task"]) == (1, 1, 0.01)
    book.close()


def test_a_result_that_was_on_the_disk_before_its_entry_counts_at_the_next_start(tmp_path, clock):
    book = opened(tmp_path, clock)
    book.add({"task": "reach", "skill": "hand_reach"})
    book.heard("a", beat())
    book.close()  # killed after the event was committed, before `happened`
    book = opened(tmp_path, clock)
    for _ in range(2):
        book.happened("a", result(), again=True)
    assert (book.list()["done"], book.refused) == (1, 0)
    book.close()


def test_a_full_disk_gives_nothing_out_and_forgets_no_result(tmp_path, clock):
    disk = FaultyDisk()
    book = opened(tmp_path, clock, disk=disk)
    book.add({"task": "reach", "skill": "hand_reach"})
    book.add({"task": "reach", "skill": "hand_reach"})
    book.heard("a", beat())
    disk.space_bytes = 0
    assert book.heard("b", beat()) == (None, 0)
    with pytest.raises(StoreFullError, match="nothing changed"):
        book.add({"task": "reach", "skill": "hand_reach"})
    book.happened("a", result())
    book.tick()
    assert book.list()["done"] == 0
    disk.space_bytes = None
    book.tick()
    assert book.list()["done"] == 1
    book.close()


def test_a_bad_job_is_named(tmp_path, clock):
    book = opened(tmp_path, clock)
    with pytest.raises(JobError, match=r"a job has no colour; known: task, skill, place"):
        book.add({"task": "reach", "skill": "x", "colour": "red"})
    with pytest.raises(JobError, match="missing required field `skill`"):
        book.add({"task": "reach"})
    with pytest.raises(JobError, match=r"\$\.budget_j"):
        book.add({"task": "reach", "skill": "x", "budget_j": -1.0})
    assert book.list()["jobs"] == []
    book.close()


def test_a_long_log_is_written_anew(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("fleet.jobs_hub.REWRITE_ABOVE", 5)
    book = opened(tmp_path, clock)
    for lease in range(1, 5):
        book.add({"task": "reach", "skill": "hand_reach"})
        book.heard("a", beat())
        book.happened("a", result(lease=lease, job=str(lease), energy_j=1.0))
    before, size = book.list(), (tmp_path / "jobs.log").stat().st_size
    book.close()
    again = opened(tmp_path, clock)
    assert again.list() == before
    assert (tmp_path / "jobs.log").stat().st_size != size
    again.add({"task": "reach", "skill": "hand_reach"})
    again.close()
    last = opened(tmp_path, clock)
    assert [job["id"] for job in last.list()["jobs"]] == ["1", "2", "3", "4", "5"]
    last.close()


# --- the robot ----------------------------------------------------------------------------------------------------------


class Robot:
    """A worker against a hub's queue, with the words between them passed by hand; `told` is its event stream."""

    def __init__(self, path, book, clock, name="a"):
        self.path, self.book, self.clock, self.name, self.told = path, book, clock, name, []
        self.energy_j = 0.0
        self.start()

    def start(self):
        self.worker = Worker(self.path, tell=self.told.append, utc_ns=lambda: 0, now_s=self.clock)

    def beat(self):
        ticket = self.worker.ticket
        heartbeat = beat(
            job=ticket.id if ticket else "", job_lease=ticket.lease if ticket else 0, wants_job=ticket is None
        )
        self.worker.heard(*self.book.heard(self.name, heartbeat), self.clock.now_s)

    def episode(self, success=True):
        self.energy_j += 10.0
        self.worker.episode(success=success, energy_j=self.energy_j, seconds=4.0)

    def deliver(self):
        while self.told:
            self.book.happened(self.name, self.told.pop(0))


@pytest.fixture
def robot(tmp_path, clock):
    book = opened(tmp_path, clock, lease_s=10.0)
    yield Robot(tmp_path / "job.json", book, clock)
    book.close()


def test_a_job_counts_whole_episodes_and_costs_what_they_cost(robot):
    robot.book.add({"task": "reach", "skill": "hand_reach", "repeats": 2})
    robot.episode()
    robot.beat()
    robot.episode()  # was running when the job came
    robot.episode(success=False)
    robot.episode()
    assert robot.told == []
    robot.episode()
    robot.beat()  # before the result arrived: the hub offers the job again, and it is not taken again
    assert robot.worker.ticket is None
    robot.deliver()
    (job,) = robot.book.list()["jobs"]
    assert (job["state"], job["energy_j"], job["seconds"]) == ("done", 30.0, 12.0)


def test_too_many_failures_and_too_many_joules_fail_a_job(robot):
    robot.book.add({"task": "reach", "skill": "hand_reach", "tries": 2})
    robot.book.add({"task": "reach", "skill": "hand_reach", "repeats": 9, "budget_j": 15.0})
    for episodes in (3, 3):
        robot.beat()
        for _ in range(episodes):
            robot.episode(success=robot.worker.ticket is not None and robot.worker.ticket.id == "2")
        robot.deliver()
    first, second = robot.book.list()["jobs"]
    assert (first["state"], first["reason"]) == ("failed", "2 episodes did not reach the goal")
    assert (second["state"], second["reason"]) == ("failed", "20 J of the 15 J it may cost are spent")


def test_a_killed_robot_hands_its_job_back_when_it_starts_again(robot):
    robot.book.add({"task": "reach", "skill": "hand_reach"})
    robot.beat()
    robot.start()
    assert [(r.outcome, r.lease) for r in robot.told] == [("gave_up", 1)]
    robot.deliver()
    robot.beat()
    assert robot.worker.ticket.lease == 2


def test_killed_between_the_result_and_the_note_that_it_was_told_it_is_still_done_once(robot):
    robot.book.add({"task": "reach", "skill": "hand_reach"})
    robot.beat()
    robot.episode()
    robot.episode()
    robot.start()  # job.json still names the job
    assert [r.outcome for r in robot.told] == ["done", "gave_up"]
    robot.deliver()
    assert (robot.book.list()["done"], robot.book.refused) == (1, 1)


def test_a_robot_that_hears_nothing_gives_up_before_the_hub_gives_the_job_away(robot, clock):
    robot.book.add({"task": "reach", "skill": "hand_reach", "repeats": 99})
    robot.beat()
    robot.episode()
    clock.now_s = LEASE_SHARE * 10.0 + 0.1
    robot.episode()
    assert [r.outcome for r in robot.told] == ["gave_up"]
    robot.book.tick()
    assert robot.book.queue.find("1").state == "given"


def test_a_robot_whose_disk_is_full_takes_no_job_and_goes_on(tmp_path, clock):
    class Full(Disk):
        def write_file(self, path, data, *, mode=0o644):
            raise OSError(errno.ENOSPC, "No space left on device")

    book = opened(tmp_path, clock)
    book.add({"task": "reach", "skill": "hand_reach"})
    told = []
    worker = Worker(tmp_path / "job.json", tell=told.append, utc_ns=lambda: 0, now_s=clock, disk=Full())
    worker.heard(*book.heard("a", beat()), 0.0)
    worker.give_up("the robot stops", 0.0)
    assert (worker.ticket, told) == (None, [])
    book.close()


def test_a_log_of_a_newer_version_is_named(tmp_path, clock):
    (tmp_path / "jobs.log").write_bytes(b"".join(encode_record(msgspec.msgpack.encode({"type": "lent"}), seq=1)))
    with pytest.raises(JobError, match=r"jobs.log: entry 1 is not of this version"):
        opened(tmp_path, clock)


def test_a_job_that_was_cancelled_stops_with_the_episode(robot):
    robot.book.add({"task": "reach", "skill": "hand_reach", "repeats": 99})
    robot.beat()
    robot.episode()
    robot.book.cancel("1")
    robot.beat()
    robot.episode()
    robot.deliver()
    assert robot.worker.ticket is None
    assert robot.book.list()["jobs"][0]["state"] == "cancelled"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["beat", "episode", "fail", "kill", "deliver", "tick", "hub", "late"]), max_size=40))
def test_whatever_happens_every_job_is_done_once_and_at_most_once_at_a_time(tmp_path_factory, story):
    clock, path = Clock(), tmp_path_factory.mktemp("jobs")
    book = opened(path, clock, lease_s=5.0)
    robots = [Robot(path / f"{name}.json", book, clock, name) for name in "ab"]
    for _ in range(2):
        book.add({"task": "reach", "skill": "hand_reach", "tries": 100})
    calm = [(act, robot) for _ in range(12) for act in ("beat", "episode", "episode", "deliver") for robot in robots]
    for act, robot in [*zip(story, itertools.cycle(robots)), *calm]:
        clock.now_s += 0.5
        if act == "beat":
            robot.beat()
        elif act in ("episode", "fail"):
            robot.episode(success=act == "episode")
        elif act == "kill":
            robot.start()
        elif act == "deliver":
            robot.deliver()
        elif act == "late":
            clock.now_s += 20.0
        elif act == "hub":
            book.close()
            book = opened(path, clock, lease_s=5.0)
            for each in robots:
                each.book = book
        book.tick()
        leases = [job.lease for job in book.queue.given]
        assert len(set(leases)) == len(leases)
    assert msgspec.to_builtins(book.queue.totals)["done"] == 2
    book.close()


# --- real processes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path, ("a", "b"))
    yield place
    place.close()


def test_killed_hub_and_killed_robot_every_job_ends_once(place):
    """The policy is a random one, so a job ends when it has failed often enough; what counts is that it does so once."""
    folder = write(place.path / "models/test_policy/v1", artifact(model(seed=0)))
    hub = place.hub("--lease-s", 3)
    options = {"artifact": folder, "battery_wh": 50.0, "base_w": 5.0}
    robots = {name: place.robot(name, seed=i, **options) for i, name in enumerate("ab")}
    add = ("fleet", "job", "add", "reach the lid", "test_policy", "--hub", place.address, "--keys", place.keys)
    told = place.flexor(*add, "--place", "bench 2", "--tries", 8, "--repeats", 10_000)
    assert "job 1: reach the lid with test_policy; waiting" in told.communicate(timeout=60)[0]
    for _ in range(3):
        place.ask("job_add", task="reach", skill="test_policy", tries=8, repeats=10_000)
    place.ask("job_add", task="walk", skill="body_walk")
    under_way = place.wait(lambda o: len([j for j in o["jobs"] if j["state"] == "given"]) == 2, "both work", "job_list")
    victim = next(job["robot"] for job in under_way["jobs"] if job["state"] == "given")
    robots[victim].kill()
    robots[victim].wait()
    hub.kill()
    hub.wait()
    place.hub("--lease-s", 3)
    place.wait(lambda o: o["failed"] >= 1, "the other one works on", "job_list")
    robots[victim] = place.robot(victim, seed=9, **options)
    end = place.wait(lambda o: o["failed"] == 4, "all have ended", "job_list")
    jobs_of = {job["id"]: job for job in end["jobs"]}
    assert [job["state"] for job in jobs_of.values()] == ["failed"] * 4 + ["waiting"]  # nobody here can walk
    assert all(job["energy_j"] > 0.0 for id, job in jobs_of.items() if id != "5")
    ended = [r.job for r in results_in_the_log(place.path / "hub") if r.outcome == "failed"]
    assert sorted(ended) == ["1", "2", "3", "4"]
    address = ("--hub", place.address, "--keys", place.keys)
    listed = place.flexor("fleet", "job", "list", *address).communicate(timeout=60)[0]
    assert "backlog 1, under way 0, done 0, failed 4" in listed
    assert place.flexor("fleet", "job", "cancel", 5, *address).communicate(timeout=60)[0] == "job 5: cancelled\n"
    battery = next(r["battery"] for r in place.ask("overview")["robots"] if r["name"] == "a")
    assert 0.0 < battery < 1.0


def results_in_the_log(folder):
    for _record, payload in read_log(folder, {EVENTS}):
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.msgpack.decode(payload, type=JobResult)


# --- what travels -------------------------------------------------------------------------------------------------------


def test_yesterdays_heartbeat_still_decodes_and_asks_for_no_job():
    old = {"type": "hb", "state": "running", "policy_sha256": "a" * 64, "generation": 3}  # before jobs and joules
    heartbeat = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Heartbeat)
    assert (heartbeat.battery, heartbeat.wants_job, heartbeat.skills) == (None, False, ())
    answer = msgspec.msgpack.decode(msgspec.msgpack.encode({"type": "hbok", "generation": 3}), type=HeartbeatOk)
    assert (answer.job, answer.job_lease) == (None, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("field", ["energy_j", "power_w", "battery", "battery_j"])
def test_a_number_that_cannot_be_is_refused(field, value):
    raw = msgspec.msgpack.encode({"type": "hb", "state": "running", field: value})
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.msgpack.decode(raw, type=Heartbeat)


def test_events_are_told_apart():
    """An episode's result counts towards a verdict; nothing else may be taken for one, nor it for anything else."""
    events = {EpisodeResult: episode(), FallReport: fall(), JobResult: result()}
    for kind, event in events.items():
        raw = msgspec.msgpack.encode(event)
        for other in events:
            if other is kind:
                assert msgspec.msgpack.decode(raw, type=other) == event
            else:
                with pytest.raises(msgspec.ValidationError):
                    msgspec.msgpack.decode(raw, type=other)


def test_after_a_power_cut_the_queue_is_what_was_last_answered(tmp_path, clock):
    rng = np.random.default_rng(7)
    for round in range(20):
        disk, folder = FaultyDisk(), tmp_path / str(round)
        folder.mkdir()
        book = opened(folder, clock, disk=disk)
        for _ in range(int(rng.integers(1, 12))):
            act = rng.integers(3)
            if act == 0 or not book.queue.jobs:
                book.add({"task": "reach", "skill": "hand_reach"})
            elif act == 1:
                book.heard(str(rng.choice(["a", "b"])), beat())
            elif (given := book.queue.given) and rng.random() < 0.7:
                book.happened(given[0].robot, result(lease=given[0].lease, job=given[0].spec.id))
        before = msgspec.to_builtins((book.queue.jobs, book.queue.totals))
        book.close()
        disk.lose_power(rng)
        again = opened(folder, clock)
        assert msgspec.to_builtins((again.queue.jobs, again.queue.totals)) == before
        again.close()
