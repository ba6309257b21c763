"""A deployment as a pure state machine: one robot, then more, then all; back as soon as it is worse. Time and observations are passed in.

Only robots that run the candidate count. A stage that is short of them pauses: it never promotes, and is taken back all the same when those that are
left show that it is worse. Robots are chosen once per stage, in an order that depends on the rollout and the robot's name only, and stay chosen.
`advance` gives the next state, `wanted` what each robot should run.
"""

import hashlib
import math
from typing import Literal

import msgspec
import numpy as np

from fleet.assignment import ArtifactRef
from fleet.errors import RolloutError
from fleet.evidence import Counts, Rules, judge

Status = Literal["running", "paused", "held", "done", "rolled_back"]
OVER = ("done", "rolled_back")


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """How many robots, and what must be known before the next stage.

    Attributes:
        robots, fraction: The larger of the two, of all robots; fraction 1 is all.
        min_episodes, min_minutes: Least exposure of the candidate in the whole rollout so far.
        shadow_steps: In a shadow stage, how many control steps each of its robots must have run the candidate beside what it does, without a fault.
        max_minutes: Longest time the stage may run; then it is held for the operator.
    """

    name: str
    robots: int = 1
    fraction: float = 0.0
    min_episodes: int = 0
    min_minutes: float = 0.0
    max_minutes: float = 24 * 60.0
    shadow_steps: int = 0


QUICK = (Stage(name="one", robots=1, min_episodes=5), Stage(name="all", fraction=1.0))
STANDARD = (
    Stage(name="shadow", robots=1, shadow_steps=3000),  # a minute at 50 Hz
    Stage(name="one", robots=1, min_episodes=20, min_minutes=60.0),
    Stage(name="5%", fraction=0.05, min_episodes=50, min_minutes=240.0),
    Stage(name="25%", fraction=0.25, min_episodes=200, min_minutes=1000.0),
    Stage(name="all", fraction=1.0),
)
# "quick" asks only that the result is no worse at even odds; it is for fleets of a few robots and minutes, and says so.
PLANS: dict[str, tuple[tuple[Stage, ...], Rules]] = {
    "quick": (
        QUICK,
        Rules(
            promote_below=0.5, success_margin=0.15, tolerable_falls_per_hour=60.0, look_growth=1.0, rollback_above=0.95
        ),
    ),
    "standard": (STANDARD, Rules()),
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be deployed, and how."""

    id: str
    candidate: ArtifactRef
    stages: tuple[Stage, ...]
    rules: Rules
    seed: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a deployment is.

    Attributes:
        canaries: Robots chosen so far.
        ran_s: Time the stage has run, pauses not counted.
        updated_s: When `advance` was last called.
        looked_hours: Exposure at the last verdict.
        verdict: What it said.
        ready: Whether it said that the stage has shown enough.
        reason: Why the status is what it is.
    """

    plan: Plan
    stage: int = 0
    status: Status = "running"
    canaries: tuple[str, ...] = ()
    ran_s: float = 0.0
    updated_s: float = 0.0
    looked_hours: float = 0.0
    looks: int = 0
    verdict: str = ""
    ready: bool = False
    reason: str = ""

    @property
    def over(self) -> bool:
        return self.status in OVER

    @property
    def stage_name(self) -> str:
        return self.plan.stages[self.stage].name


class RobotView(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub sees of a robot.

    Attributes:
        refused: Why it does not follow the newest order it has accepted, which was of `rollout` ("" where that is not known).
    """

    online: bool
    policy_sha256: str = ""
    refused: str = ""
    rollout: str = ""
    shadow_sha256: str = ""
    shadow_steps: int = 0
    shadow_bad: int = 0


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub sees of all of them. Counts are since the rollout began."""

    now_s: float
    robots: dict[str, RobotView]
    candidate: Counts
    control: Counts


def start(plan: Plan, now_s: float) -> State:
    """A deployment at its beginning.

    Raises:
        RolloutError: No stages, or the last one is not all robots.
    """
    if not plan.stages or plan.stages[-1].fraction < 1.0:
        raise RolloutError("a rollout needs stages, and the last one must be fraction=1.0 (all robots)")
    return State(plan=plan, updated_s=now_s)


def advance(state: State, view: View) -> State:
    """The next state. Ends, holds and terminal states stay as they are."""
    if state.over or state.status == "held":
        return msgspec.structs.replace(state, updated_s=view.now_s)
    state = _choose(state, view)
    elapsed_s = max(0.0, view.now_s - state.updated_s)
    state = msgspec.structs.replace(state, updated_s=view.now_s)
    sha256, stage, rules = state.plan.candidate.sha256, state.plan.stages[state.stage], state.plan.rules
    if refusal := _refusal(state, view):
        return _end(state, "rolled_back", refusal)
    if rules.hard_trips and view.candidate.trips:
        return _end(state, "rolled_back", f"{view.candidate.trips} safety trips")
    if stage.shadow_steps:
        return _shadowed(state, view, elapsed_s)
    target = _size(stage, len(view.robots))
    if rules.hard_trips and view.candidate.stops and target == 1:
        return _end(state, "rolled_back", "somebody pressed the emergency stop of the first robot that ran it")
    active = [r for r in state.canaries if r in view.robots and _runs(view.robots[r], sha256)]
    needed = target if stage.fraction < 1.0 else sum(v.online for v in view.robots.values())
    last = state.stage == len(state.plan.stages) - 1
    enough = view.candidate.episodes >= stage.min_episodes and view.candidate.hours * 60.0 >= stage.min_minutes
    before, state = state, _look(state, view, enough)
    if state.status == "rolled_back":
        return state
    if len(active) < max(1, needed):
        away = sorted(r for r in state.canaries if r not in active)
        return msgspec.structs.replace(
            state,
            status="paused",
            reason=f"waits for {', '.join(away) or 'robots'} ({len(active)} of {max(1, needed)} run it)",
        )
    state = msgspec.structs.replace(state, status="running", ran_s=state.ran_s + elapsed_s)
    if state.ready and not last:
        reason = f"after {stage.name}: {state.verdict}"
        return _choose(
            msgspec.structs.replace(state, stage=state.stage + 1, ran_s=0.0, ready=False, reason=reason), view
        )
    if state.looks > before.looks:
        state = msgspec.structs.replace(state, reason=state.verdict)
    elif not enough:
        state = msgspec.structs.replace(
            state, reason=f"{view.candidate.episodes} episodes, {view.candidate.hours * 60.0:.1f} robot-minutes so far"
        )
    if last and enough:
        return _end(state, "done", f"runs on all {len(active)} robots that are here")
    if state.ran_s > stage.max_minutes * 60.0:
        return msgspec.structs.replace(state, status="held", reason=f"time is up in stage {stage.name}: {state.reason}")
    return state


def _refusal(state: State, view: View) -> str:
    """Which chosen robot does not do as it was told in this rollout, and why; "" for none."""
    for robot in state.canaries:
        seen = view.robots.get(robot)
        if seen is not None and seen.refused and seen.rollout in ("", state.plan.id):
            return f"{robot} refused it: {seen.refused}"
    return ""


def _look(state: State, view: View, enough: bool) -> State:
    """Judge, where exposure has grown by enough since the last look."""
    rules, hours = state.plan.rules, view.candidate.hours
    if not view.candidate.episodes or hours <= state.looked_hours or hours < state.looked_hours * rules.look_growth:
        return state
    found = judge(view.candidate, view.control, rules, np.random.default_rng([state.plan.seed, state.looks]))
    state = msgspec.structs.replace(
        state,
        looked_hours=hours,
        looks=state.looks + 1,
        verdict=str(found),
        ready=found.verdict == "promote" and enough,
    )
    return _end(state, "rolled_back", str(found)) if found.verdict == "rollback" else state


def _shadowed(state: State, view: View, elapsed_s: float) -> State:
    """A stage in which the candidate only watches."""
    sha256, stage = state.plan.candidate.sha256, state.plan.stages[state.stage]
    watching = [view.robots[r] for r in state.canaries if r in view.robots and view.robots[r].online]
    watching = [v for v in watching if v.shadow_sha256 == sha256]
    if any(v.shadow_bad for v in watching):
        return _end(state, "rolled_back", f"it failed at {sum(v.shadow_bad for v in watching)} steps while it watched")
    if len(watching) < max(1, _size(stage, len(view.robots))):
        return msgspec.structs.replace(state, status="paused", reason="waits for a robot on which it watches")
    steps = min(v.shadow_steps for v in watching)
    state = msgspec.structs.replace(
        state, status="running", ran_s=state.ran_s + elapsed_s, reason=f"watched {steps} of {stage.shadow_steps} steps"
    )
    if steps >= stage.shadow_steps:
        return _choose(msgspec.structs.replace(state, stage=state.stage + 1, ran_s=0.0), view)
    if state.ran_s > stage.max_minutes * 60.0:
        return msgspec.structs.replace(state, status="held", reason=f"time is up in stage {stage.name}: {state.reason}")
    return state


def wanted(state: State, robot: str) -> Literal["candidate", "shadow", "before"]:
    """What a robot should run. Those who were not here when it was rolled out get it when they come back, and not while it is still tried."""
    if state.status == "rolled_back":
        return "before"
    if robot in state.canaries and state.plan.stages[state.stage].shadow_steps and state.status != "done":
        return "shadow"
    if state.status == "done" or robot in state.canaries:
        return "candidate"
    return "before"


def hold(state: State, reason: str = "by the operator") -> State:
    """Freeze: nobody else gets it, nobody loses it.

    Raises:
        RolloutError: It is over.
    """
    _must_run(state, "held")
    return msgspec.structs.replace(state, status="held", reason=reason)


def resume(state: State) -> State:
    """Go on after a hold; the stage's clock begins anew.

    Raises:
        RolloutError: It is over.
    """
    _must_run(state, "resumed")
    return msgspec.structs.replace(state, status="running", ran_s=0.0, reason="resumed by the operator")


def roll_back(state: State, reason: str = "by the operator") -> State:
    """Back to what ran before, on all robots. Also for one that is done.

    Raises:
        RolloutError: It was rolled back already.
    """
    if state.status == "rolled_back":
        raise RolloutError(f"rollout {state.plan.id} was rolled back already: {state.reason}")
    return _end(state, "rolled_back", reason)


def order(plan_id: str, robots: list[str]) -> list[str]:
    """Who comes first: by a hash, so that it is not always the same robot."""
    return sorted(robots, key=lambda name: hashlib.sha256(f"{plan_id}/{name}".encode()).digest())


def _choose(state: State, view: View) -> State:
    """Add robots that are here until the stage has its number."""
    stage = state.plan.stages[state.stage]
    missing = _size(stage, len(view.robots)) - len(state.canaries)
    here = [r for r in order(state.plan.id, list(view.robots)) if view.robots[r].online and r not in state.canaries]
    if missing <= 0 or not here:
        return state
    return msgspec.structs.replace(state, canaries=(*state.canaries, *here[:missing]))


def _size(stage: Stage, robots: int) -> int:
    return min(robots, max(stage.robots, math.ceil(stage.fraction * robots)))


def _runs(robot: RobotView, sha256: str) -> bool:
    return robot.online and robot.policy_sha256 == sha256


def _end(state: State, status: Status, reason: str) -> State:
    return msgspec.structs.replace(state, status=status, reason=reason)


def _must_run(state: State, what: str) -> None:
    if state.over:
        raise RolloutError(f"rollout {state.plan.id} is {state.status}; it cannot be {what}")
