"""One grasp tried in simulation: handed over, held, pulled. Through the real transmission and motors; nothing is pinned, ever."""

from dataclasses import dataclass, replace

import numpy as np

from robot.description.model import RobotModel
from robot.state import Command
from sim import engines
from sim.bodies import Body, as_quat
from sim.dexterity.grasp import Grasp
from sim.dexterity.pattern import Pattern, PatternRule
from sim.dexterity.protocol import (
    CLOSE_S,
    DRIFT_M,
    GRAVITY_M_S2,
    HAND_OVER_S,
    HOLD_S,
    LOST_M,
    PULL_S,
    REST_S,
    TOUCHED,
    WATCH_S,
    WAYS,
    matrix_of,
)
from sim.dexterity.taxonomy import GraspType
from sim.engines.robot import DivergedError, SimulatedRobot
from sim.scene import LinkPoses
from sim.world import Push, Start, World, WorldState, rotated

CONTROL_HZ = 25.0
SCREEN_S = 0.8
RAMP_S, RAMP_WEIGHTS, RAMP_LEAST_N = 2.4, 12.0, 6.0  # of the search for the largest pull


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial went.

    Attributes:
        pattern: What touched at the end of the hold, None if it never came so far.
        pattern_after: The same after the six pulls.
        held_s: How long it was held after being let go, `HOLD_S` when it stayed.
        drift_m: How far it moved in the hand while it was held.
        survived: Directions in which it survived a pull of its own weight.
        power_w: Electrical power of all motors, forearm and wrist included, over the last second of the hold.
        largest_n: Largest pull survived by direction, where it was measured; the ramp's end is a lower bound.
        q_rad, pose: Joint angles and the object's pose in the world at the end of the hold, for pictures.
    """

    pattern: Pattern | None
    pattern_after: Pattern | None
    held_s: float
    drift_m: float
    survived: tuple[str, ...]
    power_w: float
    largest_n: dict[str, float]
    q_rad: np.ndarray
    pose: np.ndarray

    @property
    def counts(self) -> bool:
        """The type counts: pattern right before and after, held, and no pull took it."""
        return (
            self.held_s >= HOLD_S
            and len(self.survived) == len(WAYS)
            and self.pattern is not None
            and self.pattern.ok
            and self.pattern_after is not None
            and self.pattern_after.ok
        )

    @property
    def score(self) -> float:
        """How near it is to counting, 0 to 1, for a search."""
        pattern = self.pattern.share if self.pattern else 0.0
        after = self.pattern_after.share if self.pattern_after else 0.0
        still = 1.0 - min(self.drift_m / DRIFT_M, 1.0)
        return (
            0.4 * self.held_s / HOLD_S
            + 0.2 * pattern
            + 0.2 * len(self.survived) / len(WAYS)
            + 0.15 * after
            + 0.05 * still
        )

    def why(self) -> str:
        """Why it does not count, in words."""
        if self.counts:
            return ""
        if self.held_s < HOLD_S:
            return f"lost after {self.held_s:.1f} s"
        words = []
        if self.pattern is not None and not self.pattern.ok:
            words.append(self.pattern.why())
        if len(self.survived) < len(WAYS):
            words.append("lost when pulled to " + ", ".join(way for way in WAYS if way not in self.survived))
        elif self.pattern_after is not None and not self.pattern_after.ok:
            words.append("after the pulls: " + self.pattern_after.why())
        return "; ".join(words)


class Trial:
    """One hand, one object, one engine; try as many grasps of it as you like.

    Args:
        model: The hand.
        body: The object.
        engine: One of `sim.engines.ENGINES`.
    """

    def __init__(self, model: RobotModel, body: Body, engine: str, rule: PatternRule | None = None) -> None:
        self.model, self.body = model, body
        self.rule = rule or PatternRule(model)
        self.robot: SimulatedRobot = engines.make(
            engine, model, control_hz=CONTROL_HZ, world=World(bodies=(body,), creeps=False)
        )
        self._poses = LinkPoses(model)
        self._palm = self._poses.names.index("palm")
        self._weight_n = body.mass_kg * GRAVITY_M_S2

    def close(self) -> None:
        self.robot.close()

    def begin(self, grasp: Grasp) -> None:
        """Hand at the object, joints at rest, nothing squeezed yet."""
        q = np.array(grasp.q_rad)
        rotation, origin = self._poses.at(q)
        turn, at = rotation[self._palm], origin[self._palm]
        pose = np.empty(7)
        pose[:3] = at + turn @ np.array(grasp.position_m)
        pose[3:] = as_quat(turn @ matrix_of(grasp.quat_xyzw))
        self.robot.begin(Start(q_rad=q, body_poses=pose[None]))
        self._q, self._target = q, np.array(grasp.target_rad)
        self._steps = 0

    def _step(self, target: np.ndarray, force_n: np.ndarray | None) -> WorldState:
        if force_n is not None:
            self.robot.push((Push(on=self.body.name, force_n=force_n),))
        self.robot.step(Command(target_rad=target))
        return self.robot.world_state()

    def _in_palm(self, state: WorldState) -> np.ndarray:
        """Where the object's centre of mass is in the palm frame, (3,) [m]."""
        rotation, origin = state.links
        pose = state.body_pose[0]
        centre = pose[:3] + rotated(pose[3:], self.body.inertial[0])
        return rotation[self._palm].T @ (centre - origin[self._palm])

    def hand_over(self) -> np.ndarray:
        """Close the fingers while the weight is carried; where the object is in the palm then, (3,)."""
        up = np.array([0.0, 0.0, self._weight_n])
        state = self.robot.world_state()
        for k in range(round(HAND_OVER_S * CONTROL_HZ)):
            share = min(1.0, (k + 1) / (CLOSE_S * CONTROL_HZ))
            state = self._step(self._q + share * (self._target - self._q), up)
        return self._in_palm(state)

    def hold(
        self,
        seconds: float,
        start_m: np.ndarray,
        kind: GraspType,
        force_palm_n: np.ndarray | None = None,
        lost_m: float = LOST_M,
    ) -> tuple[float, float, Pattern | None]:
        """Hold on, perhaps under a pull given in the palm frame; until the time is over or the object has left.

        Returns:
            Seconds held, largest distance from `start_m`, and what touched over the last `WATCH_S` (None when it was lost).
        """
        steps = round(seconds * CONTROL_HZ)
        watch = round(WATCH_S * CONTROL_HZ)
        away, counts, links = 0.0, {}, None
        for k in range(steps):
            force = None
            if force_palm_n is not None:
                rotation, _ = self.robot.world_state().links
                force = rotation[self._palm] @ force_palm_n
            try:
                state = self._step(self._target, force)
            except DivergedError:  # squeezed out, faster than anything here is believed to be
                return k / CONTROL_HZ, float("inf"), None
            away = max(away, float(np.linalg.norm(self._in_palm(state) - start_m)))
            if not away < lost_m:
                return k / CONTROL_HZ, away, None
            if k >= steps - watch:
                links = state.links
                for item in self.rule.touched(state.contacts, links, 0):
                    counts[item] = counts.get(item, 0) + 1
        touched = {item for item, n in counts.items() if n >= TOUCHED * watch}
        pattern = self.rule.judge(kind, touched, links) if links is not None else None
        return seconds, away, pattern

    def run(self, grasp: Grasp, kind: GraspType, *, margin: bool = True, screen: bool = False) -> Outcome:
        """The whole trial.

        Args:
            margin: Measure the largest pulls of a grasp that counts.
            screen: Give up early on what does not touch as named; for a search.
        """
        nothing = Outcome(
            pattern=None, pattern_after=None, held_s=0.0, drift_m=float("inf"), survived=(), power_w=0.0, largest_n={},
            q_rad=np.array(grasp.q_rad), pose=np.zeros(7),
        )  # fmt: skip
        try:
            self.begin(grasp)
            start = self.hand_over()
            if screen:
                held, drift, pattern = self.hold(SCREEN_S, start, kind, lost_m=DRIFT_M)
                if pattern is None or not pattern.ok:
                    return replace(nothing, held_s=held, drift_m=drift, pattern=pattern)
            held, drift, _ = self.hold(HOLD_S - 1.0, start, kind, lost_m=DRIFT_M)
            if held < HOLD_S - 1.0:
                return replace(nothing, held_s=held, drift_m=drift, pose=self.robot.world_state().body_pose[0])
            before_j = self.robot.energy_j
            more, further, pattern = self.hold(1.0, start, kind, lost_m=DRIFT_M)
            power = self.robot.energy_j - before_j
            state = self.robot.world_state()
            q_rad, pose = self.robot.kernel.q_rad.copy(), state.body_pose[0].copy()
            outcome = replace(
                nothing,
                pattern=pattern,
                held_s=held + more,
                drift_m=max(drift, further),
                power_w=power,
                q_rad=q_rad,
                pose=pose,
            )
            if more < 1.0:
                return outcome
            survived, after = [], None
            for way, direction in WAYS.items():
                ok, _, _ = self.hold(PULL_S, start, kind, self._weight_n * np.array(direction))
                if ok < PULL_S:
                    break
                ok, _, after = self.hold(REST_S, start, kind)
                if ok < REST_S:
                    break
                survived.append(way)
            outcome = replace(outcome, survived=tuple(survived), pattern_after=after)
            if margin and outcome.counts:
                outcome = replace(outcome, largest_n={way: self.largest(grasp, kind, way) for way in WAYS})
            return outcome
        except DivergedError:
            return nothing

    def largest(self, grasp: Grasp, kind: GraspType, way: str) -> float:
        """The largest pull in one direction that a fresh grasp survives, by a slow ramp; the ramp's end is a lower bound [N]."""
        end = max(RAMP_WEIGHTS * self._weight_n, RAMP_LEAST_N)
        self.begin(grasp)
        start = self.hand_over()
        self.hold(REST_S, start, kind)
        steps = round(RAMP_S * CONTROL_HZ)
        for k in range(steps):
            force = end * (k + 1) / steps
            held, _, _ = self.hold(1.0 / CONTROL_HZ, start, kind, force * np.array(WAYS[way]))
            if held == 0.0:
                return end * k / steps
        return end
