"""The director: turns a rollout's state into signed assignments, one per robot, and counts the episodes its verdicts rest on.

What it decided is on disk before any robot hears of it (D/director.json), so a restart neither forgets a rollback nor uses a generation twice.
Counts are not stored: they are read back from the log's event stream.

Where there are several hubs, one directs: the one the operator's lease names (`fleet.lease`). The others keep what it decided, serve it to the robots
they see, and go on from there when the lease comes to them.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.assignment import ArtifactRef, Assignment, sign, verify
from fleet.disk import Disk
from fleet.errors import ForgedAssignmentError, RolloutError
from fleet.evidence import Counts
from fleet.index import Key
from fleet.lease import Authority
from fleet.messages import EpisodeResult
from fleet.rollout import PLANS, Plan, RobotView, State, View, advance, hold, resume, roll_back, start, wanted
from robot.errors import UnknownNameError

LIFETIME_S = 30 * 24 * 3600.0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """director.json.

    Attributes:
        base: What robots run that are in no rollout; None leaves it to them.
        marks: Event cursors (robot -> epoch, seq) when the rollout began; later results count.
        past: Rollouts that are over, newest last.
    """

    term: int = 0
    generation: int = 0
    base: ArtifactRef | None = None
    rollout: State | None = None
    marks: dict[str, tuple[int, int]] = {}
    banned: tuple[str, ...] = ()
    documents: dict[str, bytes] = {}
    assignments: dict[str, Assignment] = {}
    past: tuple[State, ...] = ()


class Director:
    """Deployments of one hub.

    Args:
        path: director.json.
        key: The director's signing key.
        hub, authority: Our name, and who directs; without it we do.
    """

    def __init__(
        self,
        path: Path,
        key: Ed25519PrivateKey,
        *,
        disk: Disk | None = None,
        hub: str = "hub",
        authority: Authority | None = None,
    ) -> None:
        self._hub, self._authority = hub, authority
        self._path, self._key, self._disk = path, key, disk or Disk()
        self.kept = msgspec.json.decode(path.read_bytes(), type=Kept) if path.exists() else Kept()
        self._cursors: dict[str, tuple[int, int]] = {}
        self._history: dict[str, Counts] = {}  # policy -> everything
        self._since: dict[str, dict[str, Counts]] = {}  # robot -> policy -> since the rollout began

    # --- for the gateway ---------------------------------------------------------------------------------------------

    def place(self, robot: str) -> tuple[int, int]:
        assignment = self.kept.assignments.get(robot)
        return (assignment.term, assignment.generation) if assignment else (0, 0)

    def document(self, robot: str) -> bytes:
        return self.kept.documents.get(robot, b"")

    def lease(self) -> tuple[int, bytes]:
        return (self._authority.term, self._authority.document) if self._authority else (0, b"")

    @property
    def directs(self) -> bool:
        """Whether this hub holds the lease (or there is none)."""
        lease = self._authority.lease if self._authority else None
        return lease is None or (
            lease.hub == self._hub and lease.director == self._key.public_key().public_bytes_raw().hex()
        )

    def adopt(self, kept: Kept) -> bool:
        """Keep what the hub that directs decided; returns whether it was news. Documents that its lease does not cover are left out."""
        lease = self._authority.lease if self._authority else None
        if lease is None or self.directs or kept.term != lease.term:
            return False
        if (kept.term, kept.generation) < (self.kept.term, self.kept.generation):
            return False
        assignments: dict[str, Assignment] = {}
        documents: dict[str, bytes] = {}
        for robot, document in kept.documents.items():
            if (old := self.kept.documents.get(robot)) == document:
                assignments[robot], documents[robot] = self.kept.assignments[robot], document
                continue
            try:
                assignment = verify(document, lease.key)
            except ForgedAssignmentError:
                continue
            if assignment.robot == robot and assignment.term <= lease.term:
                assignments[robot], documents[robot] = assignment, document
            elif old:
                assignments[robot], documents[robot] = self.kept.assignments[robot], old
        banned = tuple(dict.fromkeys((*self.kept.banned, *kept.banned)))  # a ban is never forgotten
        adopted = msgspec.structs.replace(kept, assignments=assignments, documents=documents, banned=banned)
        if adopted == self.kept:
            return False
        self._disk.write_file(self._path, msgspec.json.encode(adopted))
        if self.kept.marks != adopted.marks:
            self._since = {}
        self.kept = adopted
        return True

    def note(self, key: Key, seq: int, result: EpisodeResult) -> None:
        """Count one episode, once: the log holds each event once."""
        robot, epoch, _ = key
        counts = Counts(
            episodes=1,
            successes=int(result.success),
            falls=result.falls,
            trips=result.trips,
            stops=result.stops,
            hours=result.seconds / 3600.0,
            return_sum=result.return_,
            return_sq_sum=result.return_**2,
        )
        sha256 = result.policy_sha256
        self._cursors[robot] = (epoch, seq)
        self._history[sha256] = self._history.get(sha256, Counts()) + counts
        mark = self.kept.marks.get(robot)
        if mark is None or mark[0] != epoch or seq > mark[1]:
            policies = self._since.setdefault(robot, {})
            policies[sha256] = policies.get(sha256, Counts()) + counts

    # --- for the operator --------------------------------------------------------------------------------------------

    def deploy(self, candidate: ArtifactRef, plan_name: str, now_s: float, robots: dict[str, RobotView]) -> State:
        """Begin a rollout.

        Raises:
            UnknownNameError: No such plan.
            RolloutError: One is under way, or the policy is banned.
        """
        self.must_direct()
        if plan_name not in PLANS:
            raise UnknownNameError("plan", plan_name, PLANS)
        current = self.kept.rollout
        if current is not None and not current.over:
            raise RolloutError(
                f"rollout {current.plan.id} is {current.status}; one at a time: roll it back or let it finish"
            )
        if candidate.sha256 in self.kept.banned:
            raise RolloutError(f"{candidate.label} was rolled back before and is banned; publish a new version")
        stages, rules = PLANS[plan_name]
        number = len(self.kept.past) + (2 if current else 1)
        plan = Plan(
            id=f"{number}-{candidate.name}-{candidate.version}",
            candidate=candidate,
            stages=stages,
            rules=rules,
            seed=number,
        )
        past = (*self.kept.past, current) if current else self.kept.past
        self._change(robots, now_s, rollout=start(plan, now_s), marks=dict(self._cursors), past=past)
        self._since = {}
        state = self.tick(now_s, robots)
        assert state is not None
        return state

    def hold(self, now_s: float, robots: dict[str, RobotView]) -> State:
        return self._apply(hold, now_s, robots)

    def resume(self, now_s: float, robots: dict[str, RobotView]) -> State:
        return self._apply(resume, now_s, robots)

    def rollback(self, now_s: float, robots: dict[str, RobotView]) -> State:
        return self._apply(roll_back, now_s, robots)

    def tick(self, now_s: float, robots: dict[str, RobotView]) -> State | None:
        """Let the rollout go on; call it about once a second."""
        state = self.kept.rollout
        if state is None or not self.directs:
            return state
        following = advance(state, self.view(now_s, robots))
        before, after = (msgspec.structs.replace(s, updated_s=0.0, ran_s=0.0) for s in (state, following))
        if before != after or self._stale(following, robots):
            self._change(robots, now_s, rollout=following)
        else:
            self.kept = msgspec.structs.replace(self.kept, rollout=following)  # only its clock moved
        return following

    def view(self, now_s: float, robots: dict[str, RobotView]) -> View:
        """What the verdict rests on. Without a control group at the same time (a fleet of one), the past of other policies stands in."""
        state = self.kept.rollout
        assert state is not None
        sha256 = state.plan.candidate.sha256
        candidate, control = Counts(), Counts()
        for policies in self._since.values():
            for policy, counts in policies.items():
                if policy == sha256:
                    candidate += counts
                else:
                    control += counts
        if control.episodes < 2:
            control = sum((c for p, c in self._history.items() if p != sha256), Counts())
        return View(now_s=now_s, robots=robots, candidate=candidate, control=control)

    # --- inside ------------------------------------------------------------------------------------------------------

    def must_direct(self) -> None:
        """Raises:
        RolloutError: Another hub directs; it is named.
        """
        if not self.directs:
            assert self._authority is not None
            assert self._authority.lease is not None
            lease = self._authority.lease
            raise RolloutError(
                f"hub {lease.hub!r} directs the fleet (term {lease.term}), not {self._hub!r}; ask it, or move the lease here: "
                f"flexor fleet lease {self._hub}"
            )

    def _apply(self, change: Callable[[State], State], now_s: float, robots: dict[str, RobotView]) -> State:
        self.must_direct()
        state = self.kept.rollout
        if state is None:
            raise RolloutError("nothing was deployed yet; do: flexor fleet deploy ARTIFACT")
        self._change(robots, now_s, rollout=change(state))
        assert self.kept.rollout is not None
        return self.kept.rollout

    def _stale(self, state: State, robots: dict[str, RobotView]) -> bool:
        """Whether a robot has no assignment yet, or not the one it should have."""
        return any(self._differs(r, self._meant(self.kept, state, r)) for r in robots)

    def _change(self, robots: dict[str, RobotView], now_s: float, **changes: object) -> None:
        """Keep a change and sign what follows from it, all in one write; it counts when it is on the disk.

        Raises:
            OSError: The disk did not take it; nothing changed.
        """
        kept: Kept = msgspec.structs.replace(self.kept, **changes)  # type: ignore[arg-type]
        state = kept.rollout
        assert state is not None
        if state.status == "done":
            kept = msgspec.structs.replace(kept, base=state.plan.candidate)
        if state.status == "rolled_back":
            sha256 = state.plan.candidate.sha256
            base = kept.base if kept.base is None or kept.base.sha256 != sha256 else None
            kept = msgspec.structs.replace(kept, banned=tuple(dict.fromkeys((*kept.banned, sha256))), base=base)
        kept = msgspec.structs.replace(kept, term=self.lease()[0])
        generation, assignments, documents = kept.generation, dict(kept.assignments), dict(kept.documents)
        for robot in sorted({*robots, *assignments}):
            meant = self._meant(kept, state, robot)
            if not self._differs(robot, meant):
                continue
            generation += 1
            assignment = msgspec.structs.replace(meant, generation=generation, expires_s=now_s + LIFETIME_S)
            assignments[robot], documents[robot] = assignment, sign(assignment, self._key)
        kept = msgspec.structs.replace(kept, generation=generation, assignments=assignments, documents=documents)
        self._disk.write_file(self._path, msgspec.json.encode(kept))
        self.kept = kept

    def _meant(self, kept: Kept, state: State, robot: str) -> Assignment:
        """What a robot should run now; generation and expiry are filled in when it is signed."""
        role = wanted(state, robot)
        mine = role == "candidate"
        cohort = "none" if state.over else {"candidate": "canary", "shadow": "shadow", "before": "control"}[role]
        return Assignment(
            robot=robot,
            generation=1,
            artifact=state.plan.candidate if mine else kept.base,
            rollout=state.plan.id,
            stage="" if role == "before" else state.stage_name,
            cohort=cohort,  # type: ignore[arg-type]
            shadow=state.plan.candidate if role == "shadow" else None,
            expires_s=0.0,
            fallback=kept.base if mine and kept.base != state.plan.candidate else None,
            banned=kept.banned,
            term=self.lease()[0],
        )

    def _differs(self, robot: str, meant: Assignment) -> bool:
        old = self.kept.assignments.get(robot)
        return old is None or msgspec.structs.replace(old, generation=1, expires_s=0.0) != meant
