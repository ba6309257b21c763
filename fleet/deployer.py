"""Follows assignments on the robot: verify, download, admit, and lay the new policy out for the control loop to take at a safe point.

A thread of its own; admission runs in a child process (robot.onboard.admission). The loop takes `take_change()` between episodes.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet import slots as slot_file
from fleet.assignment import ArtifactRef, Assignment, accept
from fleet.disk import Disk
from fleet.download import download
from fleet.errors import AssignmentError, HubAwayError, NoRoomError, StaleCatalogueError
from fleet.lease import Authority
from fleet.shadow import Shadow
from fleet.slots import Slot, Slots
from robot.contract import Contract
from robot.description.model import RobotModel
from robot.errors import FlexorError
from robot.onboard.admission import Admission, admit
from robot.onboard.artifact import load
from robot.onboard.refusals import AlteredFileError, OtherTaskError

log = logging.getLogger(__name__)

Ask = Callable[[str, int], tuple[int, bytes]]
Admit = Callable[[Path, str], Admission]


def admit_folder(path: Path, sha256: str, model: RobotModel, running: Contract | None = None) -> Admission:
    """Admit an artifact on disk for a robot; its policy must have this hash ("" for any).

    Args:
        running: What the robot was started for: its rate and its task are the robot's, and no policy changes them. None before it is
            started.

    Raises:
        AdmissionError: Why not.
        UnknownNameError: There is no such folder.
    """
    artifact = load(path)
    if sha256 and artifact.sha256 != sha256:
        raise AlteredFileError(f"{path}: policy.onnx has sha256 {artifact.sha256[:12]}, expected {sha256[:12]}")
    if running is not None:
        theirs = artifact.contract
        for what, here, seen in (("task", running.env_id, theirs.env_id), ("goal", running.goal, theirs.goal)):
            if here != seen:
                raise OtherTaskError(
                    f"{artifact.label} was trained for {what} {seen or 'none'}, this robot is at {here or 'none'}; give it to "
                    "robots that were started for it"
                )
    rate_hz = running.control_hz if running is not None else None
    return admit(artifact, model, control_hz=rate_hz, expected_sha256=sha256 or None)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the control loop is to run next."""

    slot: Slot
    admission: Admission


class Deployer(threading.Thread):
    """Judges and carries out assignments.

    Args:
        robot: Our name.
        folder: `slots.json`, and `metadata/`, `models/` of downloads.
        director: Whose signature counts while there is no lease.
        operator: Whose signature on a lease counts; None on a robot that was born before there were leases.
        trust: The TUF root we were born with.
        ask: Transport for downloads.
        admit_path: (folder, sha256) -> Admission, or raises a FlexorError.
        utc_s: Clock for expiry.
    """

    def __init__(
        self,
        robot: str,
        folder: Path,
        *,
        director: Ed25519PublicKey,
        trust: Path,
        ask: Ask,
        admit_path: Admit,
        utc_s: Callable[[], float] = time.time,
        disk: Disk | None = None,
        operator: Ed25519PublicKey | None = None,
    ) -> None:
        super().__init__(name="fleet-deployer", daemon=True)
        self._robot, self._folder, self._director, self._trust = robot, folder, director, trust
        self._ask, self._admit, self._utc_s, self._disk = ask, admit_path, utc_s, disk or Disk()
        self._path = folder / "slots.json"
        self._documents: queue.SimpleQueue[tuple[Literal["assignment", "lease"], bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._change: Change | None = None
        self._retry: tuple[float, Assignment] | None = None
        self.shadow = Shadow()
        self._last_bad = b""
        self.ignored = 0  # documents that were not accepted
        folder.mkdir(parents=True, exist_ok=True)
        self.slots: Slots = slot_file.started(slot_file.read(self._path))
        self._authority = Authority(operator, self.slots.lease) if operator is not None else None
        self._keep(self.slots)

    # --- for the control loop ----------------------------------------------------------------------------------------

    @property
    def changing(self) -> bool:
        """Whether a policy waits to be taken."""
        return self._change is not None

    def take_change(self) -> Change | None:
        """The policy to switch to, once."""
        with self._lock:
            change, self._change = self._change, None
            if change is not None:
                self._keep(slot_file.switched(self.slots, change.slot))
            return change

    def start_with(self, slot: Slot) -> None:
        """What the robot runs without having been told to."""
        with self._lock:
            self._keep(msgspec.structs.replace(self.slots, active=slot))

    def proved(self) -> None:
        """The active policy finished an episode."""
        if self.slots.probation:
            with self._lock:
                self._keep(slot_file.proved(self.slots))

    def fell_back(self, why: str) -> Slot | None:
        """The active policy does not do: go back, and report it. Returns what to run now."""
        with self._lock:
            self._keep(slot_file.back(self.slots, why))
            return self.slots.active

    # --- documents ---------------------------------------------------------------------------------------------------

    def offer(self, document: bytes) -> None:
        """A signed document came; from any thread."""
        self._documents.put(("assignment", document))

    def offer_lease(self, document: bytes) -> None:
        """A director's lease came; from any thread."""
        self._documents.put(("lease", document))

    @property
    def term(self) -> int:
        """Of the newest lease known, 0 for none."""
        return self._authority.term if self._authority else 0

    def stop(self) -> None:
        self._documents.put(None)

    def run(self) -> None:
        self.shadow.start()
        try:
            self._work()
        finally:
            self.shadow.stop()

    def _work(self) -> None:
        while True:
            wait_s = None if self._retry is None else max(0.01, self._retry[0] - time.monotonic())
            try:
                document = self._documents.get(timeout=wait_s)
            except queue.Empty:
                assert self._retry is not None
                self._follow(self._retry[1])
                continue
            if document is None:
                return
            try:
                (self.judge if document[0] == "assignment" else self.judge_lease)(document[1])
            except OSError as error:  # our own disk; the hub repeats what we have not accepted
                log.warning("an order is put off: %s", error)

    def judge_lease(self, document: bytes) -> None:
        """Keep a lease of a higher term: from now on only its director is followed."""
        if self._authority is None or not self._authority.offer(document):
            self.ignored += 1
            return
        self._last_bad = b""
        with self._lock:
            self._keep(msgspec.structs.replace(self.slots, lease=document))

    def judge(self, document: bytes) -> None:
        """Accept a document or ignore it; then follow it.

        Raises:
            OSError: The disk does not keep it; then it is not accepted.
        """
        if document == self._last_bad:
            return
        try:
            lease = self._authority.lease if self._authority else None
            assignment = accept(
                document,
                lease.key if lease else self._director,
                robot=self._robot,
                term=self.term,
                newest=(self.slots.term, self.slots.generation),
                newest_document=self.slots.document,
                now_s=self._utc_s(),
            )
        except AssignmentError as error:
            self.ignored += 1
            self._last_bad = document
            log.warning("assignment ignored: %s: %s", type(error).__name__, error)
            return
        with self._lock:
            accepted = msgspec.structs.replace(
                self.slots,
                generation=assignment.generation,
                term=assignment.term,
                document=document,
                rollout=assignment.rollout,
                stage=assignment.stage,
                cohort=assignment.cohort,
                banned=assignment.banned,
                refused="",
            )
            slot_file.write(
                self._path, accepted, disk=self._disk
            )  # first: an older order must not come back after a restart
            self.slots = accepted
        self._follow(assignment)

    def _follow(self, assignment: Assignment) -> None:
        self._retry = None
        with self._lock:  # what was laid out before is called off, in one move with the look at what runs
            self._change = None
            active = self.slots.active
        if not self._shadow(assignment):
            return
        wanted = assignment.artifact
        if wanted is None:
            if active is not None and active.sha256 in assignment.banned:
                self._go_back()
            return
        if active is not None and active.sha256 == wanted.sha256:
            return
        change = self._prepared(wanted, assignment)
        if change is None:
            return
        with self._lock:
            self._change = change

    def _shadow(self, assignment: Assignment) -> bool:
        """Watch with a candidate, or no more; False when it is put off or refused."""
        if assignment.shadow is None:
            self.shadow.watch(None)
            return True
        if self.shadow.sha256 != assignment.shadow.sha256:
            change = self._prepared(assignment.shadow, assignment)
            if change is None:
                return False
            self.shadow.watch(change.admission.artifact)
        return True

    def _prepared(self, wanted: ArtifactRef, assignment: Assignment) -> Change | None:
        """Download and admit an artifact; None when that is put off, or refused and reported."""
        try:
            return self._prepare(wanted)
        except (HubAwayError, StaleCatalogueError, NoRoomError) as error:
            log.info("download of %s put off: %s", wanted.label, error)
            self._retry = (time.monotonic() + 2.0, assignment)
        except Exception as error:  # of any kind: what is wrong with one policy must not end this thread
            log.warning("%s refused: %s: %s", wanted.label, type(error).__name__, error)
            with self._lock:
                refused = f"{wanted.label}: {type(error).__name__}: {error}"[:1000]
                self._keep(msgspec.structs.replace(self.slots, refused=refused))
        return None

    def _prepare(self, ref: ArtifactRef) -> Change:
        previous = self.slots.previous
        if previous is not None and previous.sha256 == ref.sha256:
            slot = previous  # it is here already, and is admitted again all the same
        else:
            path = download(ref, self._folder, self._trust, self._ask)
            slot = Slot(path=str(path), label=ref.label, sha256=ref.sha256)
        return Change(slot=slot, admission=self._admit(Path(slot.path), slot.sha256))

    def _go_back(self) -> None:
        """What runs was banned: lay out what ran before."""
        before = self.slots.previous
        if before is None or before.sha256 in self.slots.banned:
            log.error(
                "the active policy is banned and there is nothing to go back to; it stops at the end of the episode"
            )
            return
        try:
            change = Change(slot=before, admission=self._admit(Path(before.path), before.sha256))
        except (FlexorError, OSError) as error:
            log.error("what ran before cannot run any more: %s", error)
            return
        with self._lock:
            self._change = change

    def _keep(self, slots: Slots) -> None:
        """What this robot decided itself counts at once: a full disk must not stop it. It is written down with the next change at the latest."""
        self.slots = slots
        try:
            slot_file.write(self._path, slots, disk=self._disk)
        except OSError as error:
            log.warning("%s was not written: %s", self._path, error)
