"""What a robot runs, ran before, and was told: one small file, replaced whole, so that a robot that loses power knows on the next start.

Slots: `active` runs, `previous` is what to go back to. A policy that was just switched to is on probation until it has finished an episode; one
that does not survive two starts is given up. Term, generation and document are those of the newest assignment accepted; lease is the operator's newest word on
who directs.
"""

from pathlib import Path

import msgspec

from fleet.disk import Disk
from fleet.errors import FleetError

PROBATION_STARTS = 2


class SlotsError(FleetError, ValueError):
    """slots.json is not what this robot wrote."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on this robot's disk."""

    path: str
    label: str
    sha256: str


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """slots.json.

    Attributes:
        probation: Starts since the active policy came; 0 when it has proved itself.
        tried: Hashes that failed here; not to be activated again under the same generation.
        refused: Why the newest assignment is not followed, "" if it is.
    """

    active: Slot | None = None
    previous: Slot | None = None
    probation: int = 0
    generation: int = 0
    term: int = 0
    lease: bytes = b""
    document: bytes = b""
    rollout: str = ""
    stage: str = ""
    cohort: str = "none"
    banned: tuple[str, ...] = ()
    refused: str = ""


def read(path: Path) -> Slots:
    """The slots on disk; empty ones where there are none.

    Raises:
        SlotsError: The file is damaged.
    """
    if not path.exists():
        return Slots()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Slots)
    except msgspec.MsgspecError as error:
        raise SlotsError(
            f"{path}: {error}. Remove it to start from --artifact; older assignments are then accepted again"
        ) from error


def write(path: Path, slots: Slots, *, disk: Disk | None = None) -> None:
    (disk or Disk()).write_file(path, msgspec.json.encode(slots))


def switched(slots: Slots, to: Slot) -> Slots:
    """A new policy is active, on probation; what ran before is kept to go back to."""
    if slots.active is not None and slots.active.sha256 == to.sha256:
        return msgspec.structs.replace(slots, active=to)
    previous = slots.active if slots.active is not None else slots.previous
    return msgspec.structs.replace(slots, active=to, previous=previous, probation=1)


def proved(slots: Slots) -> Slots:
    """The active policy has finished an episode."""
    return msgspec.structs.replace(slots, probation=0)


def started(slots: Slots) -> Slots:
    """A start of the process: count it while on probation, and give up a policy that takes the process down."""
    if slots.probation == 0:
        return slots
    if slots.probation > PROBATION_STARTS:
        return back(slots, f"did not finish an episode in {PROBATION_STARTS} starts")
    return msgspec.structs.replace(slots, probation=slots.probation + 1)


def back(slots: Slots, why: str) -> Slots:
    """Go back to what ran before, if there is such a thing and it is not banned. No hub is needed for it."""
    before = slots.previous if slots.previous is not None and slots.previous.sha256 not in slots.banned else None
    return msgspec.structs.replace(slots, active=before, previous=None, probation=0, refused=why)
