"""The robot's side of a job: take it, count episodes for it, tell what came of it. It never touches what the control loop decides.

The uplink's thread hears tickets, the control loop's thread finishes episodes; one lock between them. A job is on disk from when it is taken
until its result has been handed over, so that a robot that was killed hands it back on its next start. A lease that was not confirmed for four
fifths of its length is given up here before the hub gives the job to somebody else.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from fleet.disk import Disk
from fleet.messages import UNSURE, JobResult, JobTicket

log = logging.getLogger(__name__)

LEASE_SHARE = 0.8  # of the lease: room for latency and for clocks that run differently


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """job.json.

    Attributes:
        ticket: The job under way.
        finished: Per hub, the highest lease that ended here: an older ticket that comes again is not taken again.
    """

    ticket: JobTicket | None = None
    finished: dict[str, int] = {}


class Worker:
    """One job at a time.

    Args:
        path: job.json.
        tell: Hands an event to the spool.
        utc_ns: Clock for the result.
        now_s: Monotonic clock for the lease.
    """

    def __init__(
        self,
        path: Path,
        *,
        tell: Callable[[JobResult], object],
        utc_ns: Callable[[], int],
        now_s: Callable[[], float] = time.monotonic,
        disk: Disk | None = None,
    ) -> None:
        self._path, self._tell, self._utc_ns, self._now_s, self._disk = path, tell, utc_ns, now_s, disk or Disk()
        self._lock = threading.Lock()
        self._kept = self._saved = _read(path)
        self._begin(0.0)
        if self._kept.ticket is not None:  # we were killed, or lost power, on the job
            self._end("gave_up", "the robot's process started anew", 0.0)

    @property
    def ticket(self) -> JobTicket | None:
        """The job under way."""
        return self._kept.ticket

    def heard(self, ticket: JobTicket | None, lease: int, now_s: float) -> None:
        """The hub answered: what it offers, and which lease it holds for us. Waits for the disk; the control loop does not wait for it."""
        mine = self._kept.ticket
        if mine is not None:
            with self._lock:
                if lease == mine.lease:
                    self._confirmed_s = now_s
                elif lease != UNSURE:  # a hub that cannot say neither confirms nor takes back
                    self._void = True  # cancelled, or given to somebody else; ended by the control loop's thread
        elif self._saved is not self._kept:
            self._save(self._kept)
        if mine is None and ticket is not None and ticket.lease == lease > self._kept.finished.get(ticket.hub, 0):
            kept = msgspec.structs.replace(self._kept, ticket=ticket)
            if not self._save(kept):
                return  # a job we could not remember is not taken
            with self._lock:
                self._kept = kept
                self._begin(now_s)
            log.info("job %s: %s at %s", ticket.id, ticket.task, ticket.place or "-")

    def episode(self, *, success: bool, energy_j: float, seconds: float) -> None:
        """A whole episode ended. The one that was running when the job came does not count.

        Args:
            energy_j: Reading of the robot's energy count.
        """
        with self._lock:
            ticket = self._kept.ticket
            if ticket is None:
                return
            if self._start_j is None:
                self._start_j = energy_j
                return
            self._episodes += 1
            self._successes += success
            self._seconds += seconds
            cost_j = energy_j - self._start_j
            if self._void:
                self._end("gave_up", "the hub took it back", energy_j)
            elif self._successes >= ticket.repeats:
                self._end("done", "", energy_j)
            elif self._episodes - self._successes >= ticket.tries:
                self._end("failed", f"{self._episodes - self._successes} episodes did not reach the goal", energy_j)
            elif ticket.budget_j and cost_j > ticket.budget_j:
                self._end("failed", f"{cost_j:.0f} J of the {ticket.budget_j:.0f} J it may cost are spent", energy_j)
            elif self._now_s() - self._confirmed_s > LEASE_SHARE * ticket.lease_s:
                self._end("gave_up", "the hub was not heard of", energy_j)

    def give_up(self, reason: str, energy_j: float) -> None:
        """Hand the job back, if there is one."""
        with self._lock:
            if self._kept.ticket is not None:
                self._end("gave_up", reason, energy_j)
        self._save(self._kept)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        self._confirmed_s, self._void = now_s, False
        self._start_j: float | None = None
        self._episodes = self._successes = 0
        self._seconds = 0.0

    def _end(self, outcome: Literal["done", "failed", "gave_up"], reason: str, energy_j: float) -> None:
        ticket = self._kept.ticket
        assert ticket is not None
        self._tell(
            JobResult(
                job=ticket.id,
                hub=ticket.hub,
                lease=ticket.lease,
                outcome=outcome,
                reason=reason,
                energy_j=max(0.0, energy_j - self._start_j) if self._start_j is not None else 0.0,
                seconds=self._seconds,
                episodes=self._episodes,
                time_ns=self._utc_ns(),
            )
        )
        # On disk a moment later, by another thread: if we are killed in between, the job is handed back under a lease that has ended.
        self._kept = Kept(finished={**self._kept.finished, ticket.hub: ticket.lease})

    def _save(self, kept: Kept) -> bool:
        """Put it on the disk; False where the disk does not take it, which must not stop the robot."""
        try:
            self._disk.write_file(self._path, msgspec.json.encode(kept))
        except OSError as error:
            log.warning("%s: %s", self._path, error)
            return False
        self._saved = kept
        return True


def _read(path: Path) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except msgspec.MsgspecError as error:
        log.warning("%s: %s; the job in it, if any, comes back to the hub when its lease ends", path, error)
        return Kept()
