"""The hub's job queue on disk: every change is synced before anybody hears of it, so a restart neither forgets a job nor gives one lease twice.

    D/jobs.log    records of `fleet.segment`, one `fleet.jobs.Entry` each (msgpack); a torn end is cut at the start

Where several hubs share one queue (`fleet.jobs_shared`) this is the directing hub's, or a copy of it: a copy changes with what that hub tells, and nothing else.

What robots report comes through the event stream, which the hub holds exactly once; at a start those events are read again and folded in:
a result that was on the disk before its entry was is applied then.
"""

import contextlib
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fleet import jobs
from fleet.disk import Disk
from fleet.errors import StoreFullError, StoreSuspectError
from fleet.jobs_shared import FLEET, Ages, Alone, Duty, Hearsay, Told, Wish
from fleet.messages import UNSURE, Heartbeat, JobResult, JobTicket
from fleet.segment import encode_record, walk

log = logging.getLogger(__name__)

MAX_LATER = 1000  # results kept for the case that we direct next; older ones are in the log
REWRITE_ABOVE = 20_000  # entries: then the log is written anew at a start


class JobQueue:
    """Implements `fleet.gateway.Work`.

    Args:
        path: jobs.log.
        hub: Name of the hub.
        utc_s: Clock for what is written.
        now_s: Monotonic clock for leases.
        duty: Who directs; without it we do, alone.

    Raises:
        JobError: An entry of a newer version.
        StoreSuspectError: The disk refused a sync; the hub must stop.
    """

    def __init__(
        self,
        path: Path,
        *,
        hub: str,
        utc_s: Callable[[], float],
        now_s: Callable[[], float],
        lease_s: float = jobs.LEASE_S,
        disk: Disk | None = None,
        duty: Duty | None = None,
    ) -> None:
        self._duty = duty or Alone()
        self._hearsay, self._give_s = Hearsay(), float("-inf")
        self._later: OrderedDict[tuple[str, int], tuple[str, JobResult]] = OrderedDict()  # results for who directs
        self._path, self._hub, self._lease_s = path, hub, lease_s
        self._utc_s, self._now_s, self._disk = utc_s, now_s, disk or Disk()
        self.queue = jobs.Queue()
        self._put_off: list[tuple[str, JobResult]] = []
        self.refused = 0  # results under a lease that is not in force
        self._entries = 0
        self._open()
        # leases start anew: a robot that is there says so within seconds, one that is not loses its job one lease later
        self._heard_s = {job.spec.id: now_s() for job in self.queue.given}

    # --- for the gateway ---------------------------------------------------------------------------------------------

    def heard(self, robot: str, heartbeat: Heartbeat | Wish) -> tuple[JobTicket | None, int]:
        if not self._ours():
            return self._pass_on(robot, heartbeat)
        held = self.queue.held_by(robot)
        if held is None:
            given = jobs.pick(self.queue, robot, heartbeat, self._utc_s(), self._duty.lease()[0])
            if given is None or self._now_s() < self._give_s:
                return None, 0
            try:
                self._write(given)
            except StoreFullError:
                return None, 0  # a lease that is not on the disk is not given
            self._heard_s[given.id] = self._now_s()
            held = self.queue.jobs[given.id]
        if heartbeat.job == held.spec.id and heartbeat.job_lease == held.lease:
            self._heard_s[held.spec.id] = self._now_s()
            return None, held.lease
        return jobs.ticket(held, self._name, self._lease_s), held.lease

    def _pass_on(self, robot: str, heartbeat: Heartbeat | Wish) -> tuple[JobTicket | None, int]:
        """What the hub that directs gave it, as long as we know that it still stands."""
        held, now_s = self.queue.held_by(robot), self._now_s()
        if held is None:
            return None, 0 if self._hearsay.recent(now_s) else UNSURE
        if not self._hearsay.confirms(held.spec.id, held.lease, now_s):
            return None, UNSURE
        if heartbeat.job == held.spec.id and heartbeat.job_lease == held.lease:
            return None, held.lease
        return jobs.ticket(held, FLEET, self._hearsay.lease_s), held.lease

    def happened(self, robot: str, result: JobResult, *, again: bool = False) -> None:
        """A robot's result is on the disk, in the event stream; `again` when that stream is read at a start."""
        if result.hub not in (self._hub, FLEET):
            return
        if not self._ours():
            self._later[result.job, result.lease] = (robot, result)
            while len(self._later) > MAX_LATER:
                self._later.popitem(last=False)
            return
        entry = jobs.judge(self.queue, robot, result, self._utc_s(), self._duty.lease()[0])
        if entry is None:
            self.refused += not again
            return
        try:
            self._write(entry)
        except StoreFullError:
            self._put_off.append((robot, result))  # it is in the event log; tried again with every tick

    def tick(self) -> None:
        """Give back what vanished robots held, and let go of what is overdue."""
        if not self._ours():
            return
        put_off, self._put_off = self._put_off, []
        for robot, result in put_off:
            self.happened(robot, result)
        with contextlib.suppress(StoreFullError):  # the next tick tries again
            self._let_go(self._now_s())

    def _let_go(self, now_s: float) -> None:
        for job in self.queue.given:
            silent_s = now_s - self._heard_s.get(job.spec.id, now_s)
            if silent_s > self._lease_s:
                reason = f"{job.robot} was not heard of for {silent_s:.0f} s"
                self._write(jobs.Returned(id=job.spec.id, lease=job.lease, reason=reason))
        for entry in jobs.overdue(self.queue, self._utc_s()):
            self._write(entry)

    # --- for the other hubs ------------------------------------------------------------------------------------------

    def told(self) -> Told | None:
        """The queue for the other hubs, None where it is not ours to tell."""
        term = self._duty.lease()[0]
        return Told(term=term, entries=jobs.snapshot(self.queue)) if term and self._duty.directs else None

    def ages(self) -> Ages:
        """How long ago we heard of the robots that have jobs."""
        now_s = self._now_s()
        ages = {
            job.spec.id: (job.lease, math.ceil(10.0 * (now_s - self._heard_s.get(job.spec.id, now_s))) / 10.0)
            for job in self.queue.given
        }
        return Ages(term=self._duty.lease()[0], lease_s=self._lease_s, ages=ages)

    def hear(self, ages: Ages, asked_s: float) -> None:
        """What the hub that directs said of its leases."""
        self._hearsay.hear(ages, asked_s)

    def adopt(self, told: Told, owner: str) -> None:
        """Be a copy of the queue of the hub that directs. What we queued ourselves and it does not know is set aside, and said."""
        theirs = jobs.Queue()
        for entry in told.entries:
            theirs.apply(entry)
        theirs.apply(msgspec.structs.replace(theirs.totals, owner=owner))
        if theirs.jobs == self.queue.jobs and theirs.totals == self.queue.totals:
            return
        if self.queue.totals.owner in ("", self._hub):
            open_jobs = {job.spec for job in (*self.queue.waiting, *self.queue.given)}
            if unknown := open_jobs - {job.spec for job in theirs.jobs.values()}:
                aside = self._path.with_name(f"jobs-{self._utc_s():.0f}.aside")
                self._disk.write_file(aside, self._path.read_bytes())
                names = ", ".join(sorted(f"{spec.id} {spec.task!r}" for spec in unknown))
                log.warning("%s: hub %s directs; set aside and to be added there again: %s", aside, owner, names)
        ours, self.queue = self.queue, theirs
        try:
            self._rewrite()
            file = self._disk.open_append(self._path)
        except OSError:
            self.queue = ours
            raise
        self._file.close()
        self._file = file

    def _ours(self) -> bool:
        """Whether this hub decides; if it does from now on, it takes over."""
        directs = self._duty.directs
        if directs and self.queue.totals.owner not in ("", self._hub):
            self._take_over()
        return directs

    def _take_over(self) -> None:
        """The operator gave us the lease. Nothing is given out for the length of a job's lease: who got a job that we do not know of is done with it, or has
        given it up, by then."""
        now_s = self._now_s()
        with contextlib.suppress(StoreFullError):  # the next tick tries again
            self._write(msgspec.structs.replace(self.queue.totals, owner=self._hub))
            self._give_s = now_s + self._lease_s
            self._heard_s = {job.spec.id: now_s for job in self.queue.given}
            later, self._later = self._later, OrderedDict()
            for robot, result in later.values():
                self.happened(robot, result, again=True)

    # --- for the operator --------------------------------------------------------------------------------------------

    def add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Queue a job; `arguments` are fields of `fleet.jobs.Spec`.

        Raises:
            JobError: A field is missing, unknown or out of range.
            StoreFullError: No space for it.
            RolloutError: Another hub directs; it is named.
        """
        self._duty.must_direct()
        known = [f for f in jobs.Spec.__struct_fields__ if f not in ("id", "added_s")]
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise jobs.JobError(f"a job has no {', '.join(unknown)}; known: {', '.join(known)}")
        id = str(self.queue.totals.last_id + 1)
        try:
            spec = msgspec.convert({**arguments, "id": id, "added_s": self._utc_s()}, jobs.Spec)
        except msgspec.ValidationError as error:
            raise jobs.JobError(f"job: {error}") from error
        self._write(jobs.Added(spec=spec))
        return self.view(self.queue.jobs[id])

    def cancel(self, id: str) -> dict[str, Any]:
        self._duty.must_direct()
        self._write(jobs.cancel(self.queue, id, self._utc_s()))
        return self.view(self.queue.jobs[id])

    def list(self) -> dict[str, Any]:
        return {
            "jobs": [self.view(job) for job in self.queue.jobs.values()],
            **jobs.figures(self.queue, self._utc_s()),
            "refused_results": self.refused,
        }

    @staticmethod
    def view(job: jobs.Job) -> dict[str, Any]:
        plain = msgspec.to_builtins(job)
        return {**plain.pop("spec"), **plain}

    def close(self) -> None:
        self._file.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        """In tickets: a queue that hubs share is nobody's."""
        return FLEET if self._duty.lease()[0] else self._hub

    def _rewrite(self) -> None:
        entries = jobs.snapshot(self.queue)
        self._disk.write_file(self._path, b"".join(self._encode(i, e) for i, e in enumerate(entries, 1)))
        self._entries = len(entries)

    def _open(self) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        end = 0
        for record in walk(data, check_payloads=True):
            try:
                entry = msgspec.msgpack.decode(record.payload(data), type=jobs.Entry)
            except msgspec.MsgspecError as error:
                text = f"{self._path}: entry {record.seq} is not of this version: {error}. Run a newer Flexor, or move the file away"
                raise jobs.JobError(text) from error
            self.queue.apply(entry)
            self._entries, end = self._entries + 1, record.end
        if self._entries > REWRITE_ABOVE:
            self._rewrite()
            end = self._path.stat().st_size
        fresh = not self._path.exists()
        self._file = self._disk.open_append(self._path)
        if self._file.size > end:
            self._file.cut(end)
        self._sync()
        if fresh:
            self._disk.sync_folder(self._path.parent)

    @staticmethod
    def _encode(number: int, entry: jobs.Entry) -> bytes:
        return b"".join(encode_record(msgspec.msgpack.encode(entry), seq=number))

    def _write(self, entry: jobs.Entry) -> None:
        try:
            self._file.append([self._encode(self._entries + 1, entry)])
        except OSError as error:
            raise StoreFullError(
                error.errno, f"{self._path}: {os.strerror(error.errno or 0)}; nothing changed"
            ) from error
        self._sync()
        self._entries += 1
        self.queue.apply(entry)
        if isinstance(entry, jobs.Returned | jobs.Finished):
            self._heard_s.pop(entry.id, None)

    def _sync(self) -> None:
        try:
            self._file.sync()
        except OSError as error:
            raise StoreSuspectError(
                error.errno, f"{self._path}: the disk refused to sync ({error}). Start the hub again"
            ) from error
