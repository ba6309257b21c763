"""Work for robots: a queue whose jobs are done once. Pure: entries and the time come in.

A job waits, is given to one robot under a lease, and ends. The lease's number grows with every job given out, so a robot that comes back
late carries an old one and is refused (fencing). A robot that is not heard of for the length of the lease loses the job; the robot gives
up a little earlier by its own clock, so that two never do it at once. What changes a queue is an `Entry`; the hub writes it to disk
before it acts on it, and a restart folds the same entries again.
"""

from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from fleet.errors import FleetError
from fleet.messages import JobResult, JobTicket
from robot.errors import UnknownNameError

LEASE_S = 30.0
MIN_BATTERY = 0.15  # of the charge: below it a robot keeps what it has for getting home
BUDGET_MARGIN = 1.2  # a job's budget times this must be left in the battery
TERM_BITS = 32  # a lease's number is in the lower half, the term of the director's lease above it
KEPT_ENDED = 200  # ended jobs that can still be listed; all count in the totals

JobState = Literal["waiting", "given", "done", "failed", "cancelled", "expired"]
ENDED = ("done", "failed", "cancelled", "expired")


class JobError(FleetError, ValueError):
    """A job that cannot be, or cannot be changed any more."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        id: Given by the hub.
        task, place: For people, and for the robot to pass on.
        skill: Name of the artifact a robot must run to take it.
        deadline_s: UTC; a job nobody took by then expires. 0: none [s].
        budget_j: Most it may cost, 0 for no limit [J].
        repeats, tries: Episodes that must succeed; episodes that may fail before the job has failed.
        added_s: UTC [s].
    """

    id: str
    task: Annotated[str, Meta(min_length=1, max_length=200)]
    skill: Annotated[str, Meta(min_length=1, max_length=64)]
    place: Annotated[str, Meta(max_length=200)] = ""
    deadline_s: Annotated[float, Meta(ge=0.0)] = 0.0
    budget_j: Annotated[float, Meta(ge=0.0)] = 0.0
    repeats: Annotated[int, Meta(ge=1, le=10_000)] = 1
    tries: Annotated[int, Meta(ge=1, le=10_000)] = 3
    added_s: float = 0.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job and where it stands.

    Attributes:
        lease: Under which it was given out last, 0 for never.
        given: How often it was given out.
        energy_j, seconds: What robots reported for it, attempts that were handed back included.
        ended_s: UTC [s].
    """

    spec: Spec
    state: JobState = "waiting"
    robot: str = ""
    lease: int = 0
    given: int = 0
    given_s: float = 0.0
    energy_j: float = 0.0
    seconds: float = 0.0
    ended_s: float = 0.0
    reason: str = ""


class Added(msgspec.Struct, tag="added", frozen=True, kw_only=True):
    spec: Spec


class Given(msgspec.Struct, tag="given", frozen=True, kw_only=True):
    id: str
    robot: str
    lease: int
    now_s: float
    times: int = 1


class Returned(msgspec.Struct, tag="returned", frozen=True, kw_only=True):
    """Nobody has it any more: the robot handed it back, or vanished."""

    id: str
    lease: int
    reason: str
    energy_j: float = 0.0
    seconds: float = 0.0


class Finished(msgspec.Struct, tag="finished", frozen=True, kw_only=True):
    """It is over."""

    id: str
    state: Literal["done", "failed", "cancelled", "expired"]
    now_s: float
    reason: str = ""
    energy_j: float = 0.0
    seconds: float = 0.0


class Totals(msgspec.Struct, tag="totals", frozen=True, kw_only=True):
    """All jobs that ended so far, also those no longer listed; and the highest numbers given away."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    returned: int = 0
    energy_j: float = 0.0  # of done jobs
    owner: str = ""  # hub whose queue it is, where several share one
    last_id: int = 0
    last_lease: int = 0


Entry = Added | Given | Returned | Finished | Totals


class Queue:
    """All jobs, in the order they were added. `apply` is the only thing that changes it.

    Attributes:
        jobs: By number; of the ended ones the last `KEPT_ENDED`.
        totals: Of all.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.totals = Totals()
        self._holders: dict[str, str] = {}  # robot -> job
        self._ended: list[str] = []
        self._backlog: list[Job] | None = []  # None: to be sorted again

    @property
    def waiting(self) -> list[Job]:
        """Backlog, what is due first in front."""
        if self._backlog is None:
            jobs = [job for job in self.jobs.values() if job.state == "waiting"]
            self._backlog = sorted(jobs, key=lambda job: (job.spec.deadline_s or float("inf"), int(job.spec.id)))
        return self._backlog

    @property
    def given(self) -> list[Job]:
        return [self.jobs[id] for id in self._holders.values()]

    def held_by(self, robot: str) -> Job | None:
        id = self._holders.get(robot)
        return None if id is None else self.jobs[id]

    def find(self, id: str) -> Job:
        """A job by its number.

        Raises:
            UnknownNameError: No such job; the open ones are listed.
        """
        if id not in self.jobs:
            raise UnknownNameError("job", id, [j for j, job in self.jobs.items() if job.state not in ENDED] or ["none"])
        return self.jobs[id]

    def apply(self, entry: Entry) -> None:
        """Take an entry in. One that does not fit the job as it stands changes nothing, so folding twice is folding once."""
        if isinstance(entry, Totals):
            self.totals = entry
            return
        if isinstance(entry, Added):
            if entry.spec.id not in self.jobs:
                self._count(last_id=max(self.totals.last_id, int(entry.spec.id)))
                self._put(Job(spec=entry.spec))
            return
        job = self.jobs.get(entry.id)
        if job is None or job.state in ENDED:
            return
        if isinstance(entry, Given):
            if job.state == "waiting":
                self._count(last_lease=max(self.totals.last_lease, entry.lease))
                given = job.given + entry.times
                self._put(
                    job,
                    state="given",
                    robot=entry.robot,
                    lease=entry.lease,
                    given=given,
                    given_s=entry.now_s,
                    reason="",
                )
            return
        cost = {"energy_j": job.energy_j + entry.energy_j, "seconds": job.seconds + entry.seconds}
        if isinstance(entry, Returned):
            if job.state == "given" and job.lease == entry.lease:
                self._count(returned=self.totals.returned + 1)
                self._put(job, state="waiting", reason=entry.reason, **cost)
            return
        self._put(job, state=entry.state, ended_s=entry.now_s, reason=entry.reason, **cost)
        self._count(**{entry.state: getattr(self.totals, entry.state) + 1})
        if entry.state == "done":
            self._count(energy_j=self.totals.energy_j + cost["energy_j"])
        self._ended.append(entry.id)
        if len(self._ended) > KEPT_ENDED:
            del self.jobs[self._ended.pop(0)]

    def _put(self, job: Job, **changes: object) -> None:
        if self._holders.get(job.robot) == job.spec.id:
            del self._holders[job.robot]
        job = msgspec.structs.replace(job, **changes) if changes else job
        self.jobs[job.spec.id] = job
        if job.state == "given":
            self._holders[job.robot] = job.spec.id
        self._backlog = None

    def _count(self, **changes: float) -> None:
        self.totals = msgspec.structs.replace(self.totals, **changes)


def snapshot(queue: Queue) -> list[Entry]:
    """Entries that make the same queue again; for writing a long log anew, and for other hubs.

    What robots have now comes last: a robot that had several jobs one after the other holds the last one.
    """
    jobs = queue.jobs.values()
    entries: list[Entry] = [Added(spec=job.spec) for job in jobs]
    states = (ENDED, ("waiting",), ("given",))
    for job in (
        job for some in states for job in sorted(jobs, key=lambda j: (j.ended_s, j.lease)) if job.state in some
    ):
        id = job.spec.id
        cost = {"energy_j": job.energy_j, "seconds": job.seconds}
        given = Given(id=id, robot=job.robot, lease=job.lease, now_s=job.given_s, times=job.given)
        if job.given:
            entries.append(given)
        if job.state in ENDED:
            entries.append(Finished(id=id, state=job.state, now_s=job.ended_s, reason=job.reason, **cost))  # type: ignore[arg-type]
        elif job.given and (job.state == "waiting" or job.energy_j or job.seconds):
            entries.append(Returned(id=id, lease=job.lease, reason=job.reason, **cost))
            if job.state == "given":
                entries.append(msgspec.structs.replace(given, times=0))
    return [*entries, queue.totals]  # last: what the entries above counted is in it already


# --- decisions ----------------------------------------------------------------------------------------------------------


class Wishes(Protocol):
    """What matters of a robot's heartbeat."""

    @property
    def skills(self) -> tuple[str, ...]: ...
    @property
    def battery(self) -> float | None: ...
    @property
    def battery_j(self) -> float: ...
    @property
    def wants_job(self) -> bool: ...


def pick(queue: Queue, robot: str, heartbeat: Wishes, now_s: float, term: int = 0) -> Given | None:
    """The job a robot should have now, None for none: it must want one, know how, and have the charge for it.

    Args:
        term: Of the lease under which we direct.
    """
    if not heartbeat.wants_job or queue.held_by(robot) is not None:
        return None
    job = next((job for job in queue.waiting if fits(job.spec, heartbeat)), None)
    if job is None:
        return None
    return Given(id=job.spec.id, robot=robot, lease=max(queue.totals.last_lease, term << TERM_BITS) + 1, now_s=now_s)


def fits(spec: Spec, heartbeat: Wishes) -> bool:
    """Whether a robot has the skill and the battery. One without a battery runs from the mains."""
    if spec.skill not in heartbeat.skills:
        return False
    if heartbeat.battery is None:
        return True
    return heartbeat.battery >= MIN_BATTERY and heartbeat.battery_j >= BUDGET_MARGIN * spec.budget_j


def judge(queue: Queue, robot: str, result: JobResult, now_s: float, term: int = 0) -> Returned | Finished | None:
    """What a robot's result does, None where it is refused: the job was given out again since, or has ended.

    A result that comes after its lease ran out, but before anybody else got the job, counts: the work was done, and only once. So does one under a lease of a
    director before us that did not live to tell of it.

    Args:
        term: Of the lease under which we direct.
    """
    job = queue.jobs.get(result.job)
    if job is None or job.state in ENDED:
        return None
    ours = job.robot == robot and job.lease == result.lease
    untold = job.state == "waiting" and job.lease < result.lease and result.lease >> TERM_BITS < term
    if not (ours or untold):
        return None
    if job.state == "waiting" and result.outcome == "gave_up":
        return None
    cost = {"energy_j": result.energy_j, "seconds": result.seconds}
    reason = result.reason[:500]
    if result.outcome == "gave_up":
        return Returned(id=result.job, lease=result.lease, reason=reason or "handed back", **cost)
    return Finished(id=result.job, state=result.outcome, now_s=now_s, reason=reason, **cost)


def overdue(queue: Queue, now_s: float) -> list[Finished]:
    """Jobs nobody took before their deadline."""
    return [
        Finished(id=job.spec.id, state="expired", now_s=now_s, reason="nobody took it before its deadline")
        for job in queue.waiting
        if 0.0 < job.spec.deadline_s <= now_s
    ]


def cancel(queue: Queue, id: str, now_s: float) -> Finished:
    """Call a job off, also one that is under way: its robot stops at the next heartbeat.

    Raises:
        UnknownNameError: No such job.
        JobError: It is over.
    """
    job = queue.find(id)
    if job.state in ENDED:
        raise JobError(f"job {id} is {job.state} already")
    return Finished(id=id, state="cancelled", now_s=now_s, reason="by the operator")


def ticket(job: Job, hub: str, lease_s: float) -> JobTicket:
    """What the robot is told."""
    spec = job.spec
    return JobTicket(
        id=spec.id,
        hub=hub,
        lease=job.lease,
        lease_s=lease_s,
        task=spec.task,
        place=spec.place,
        skill=spec.skill,
        repeats=spec.repeats,
        tries=spec.tries,
        budget_j=spec.budget_j,
    )


def figures(queue: Queue, now_s: float) -> dict[str, float | int | None]:
    """Tasks per hour (over the last hour of jobs still listed), backlog, watt-hours per task; None where nothing was done yet."""
    listed = [job for job in queue.jobs.values() if job.state == "done"]
    recent = [job for job in listed if now_s - job.ended_s <= 3600.0]
    per_hour: float | None = None
    if recent:
        first_s = min(job.spec.added_s for job in recent)
        per_hour = len(recent) / max(min(now_s - first_s, 3600.0), 1.0) * 3600.0
    totals = queue.totals
    return {
        "backlog": len(queue.waiting),
        "given": len(queue.given),
        "done": totals.done,
        "failed": totals.failed,
        "cancelled": totals.cancelled,
        "expired": totals.expired,
        "returned": totals.returned,
        "tasks_per_hour": per_hour,
        "wh_per_task": totals.energy_j / 3600.0 / totals.done if totals.done else None,
    }
