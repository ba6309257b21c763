"""One job queue for several hubs. Pure: what they tell one another, and whether a hub that only passes jobs on may speak for the one that directs.

Where the operator named a hub to direct (`fleet.lease`), the queue is that hub's; the others keep a copy, tell it which of their robots want work, and pass on what
it gave them. A lease of a job has the term of the director's lease in its upper half, so that it is never one that another director gave.

A robot keeps a job for `LEASE_SHARE` of its length after it was last confirmed; the hub that directs takes it back after the whole of it. So a copy confirms only what
the directing hub heard of no longer ago than `RELAY_SHARE`, less than the difference: however hubs are cut apart, nobody gets a job that another robot may still be doing.
"""

from typing import Protocol

import msgspec

from fleet.jobs import Entry
from fleet.messages import Heartbeat

RELAY_SHARE = 0.15  # of a lease: with LEASE_SHARE it leaves a twentieth for latency; 4.5 s of 30, where hubs ask one another once a second
FLEET = "*"  # in a ticket in place of the hub's name: of the queue they share


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub that passes jobs on says of one of its robots; fields as in `Heartbeat`."""

    skills: tuple[str, ...] = ()
    battery: float | None = None
    battery_j: float = 0.0
    wants_job: bool = False
    job: str = ""
    job_lease: int = 0

    @classmethod
    def of(cls, heartbeat: Heartbeat) -> "Wish":
        return cls(**{name: getattr(heartbeat, name) for name in cls.__struct_fields__})


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The queue as the directing hub has it on its disk."""

    term: int
    entries: list[Entry]


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """How long ago the directing hub heard of the robots that have jobs: job -> lease, seconds. And how long a lease is [s]."""

    term: int
    lease_s: float
    ages: dict[str, tuple[int, float]] = {}


class Duty(Protocol):
    """Who directs."""

    @property
    def directs(self) -> bool: ...

    def lease(self) -> tuple[int, bytes]:
        """Term of the lease in force and its document."""
        ...

    def must_direct(self) -> None:
        """Raises a FleetError where another hub directs, and says which."""
        ...


class Alone:
    """No lease: every hub has a queue of its own."""

    directs = True

    def lease(self) -> tuple[int, bytes]:
        return 0, b""

    def must_direct(self) -> None:
        pass


class Hearsay:
    """What a hub knows of the directing hub's leases, and from when."""

    def __init__(self) -> None:
        self._ages, self._asked_s = Ages(term=0, lease_s=0.0), float("-inf")

    def hear(self, ages: Ages, asked_s: float) -> None:
        """Args:
        asked_s: When we asked; what was answered is not older [monotonic s].
        """
        self._ages, self._asked_s = ages, asked_s

    @property
    def lease_s(self) -> float:
        return self._ages.lease_s

    def recent(self, now_s: float) -> bool:
        """Whether the directing hub was heard of lately."""
        return now_s - self._asked_s <= RELAY_SHARE * self._ages.lease_s

    def confirms(self, job: str, lease: int, now_s: float) -> bool:
        """Whether the robot that has the job may keep it, or take it, for `fleet.worker.LEASE_SHARE` of a lease from now on."""
        theirs, age_s = self._ages.ages.get(job, (0, 0.0))
        return theirs == lease and age_s + now_s - self._asked_s <= RELAY_SHARE * self._ages.lease_s
