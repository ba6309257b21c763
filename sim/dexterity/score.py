"""The score of a hand: every shipped grasp and thumb position simulated anew from its file. SI units."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot.description import load
from robot.description.model import RobotModel
from robot.errors import UnknownNameError
from sim.dexterity.grasp import Grasp, GraspFile, GraspFileError, load_grasps
from sim.dexterity.kapandji import NAMES, Visit
from sim.dexterity.kapandji_search import visits
from sim.dexterity.pattern import PatternRule
from sim.dexterity.positions import load_positions
from sim.dexterity.protocol import GRAVITY_M_S2
from sim.dexterity.taxonomy import TYPES, GraspType
from sim.dexterity.trial import Outcome, Trial
from sim.objects import find

HANDS = ("hand11", "hand22", "hand25")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TypeScore:
    """One grasp type. `outcome` is None where no grasp was found at all."""

    kind: GraspType
    outcome: Outcome | None

    @property
    def counts(self) -> bool:
        return self.outcome is not None and self.outcome.counts

    @property
    def weight_n(self) -> float:
        return find(self.kind.thing).body.mass_kg * GRAVITY_M_S2

    def as_json(self) -> dict:
        outcome = self.outcome
        return {
            "number": self.kind.number,
            "name": self.kind.name,
            "object": self.kind.thing,
            "weight_n": self.weight_n,
            "counts": self.counts,
            "why_not": "no grasp was found" if outcome is None else outcome.why(),
            "held_s": 0.0 if outcome is None else outcome.held_s,
            "drift_mm": None if outcome is None or not np.isfinite(outcome.drift_m) else 1e3 * outcome.drift_m,
            "largest_pull_n": {} if outcome is None else outcome.largest_n,
            "least_pull_n": min(outcome.largest_n.values()) if outcome is not None and outcome.largest_n else None,
            "power_w": None if outcome is None or not outcome.counts else outcome.power_w,
        }


@dataclass(frozen=True, kw_only=True)
class Score:
    """A hand in an engine."""

    hand: str
    engine: str
    same_hand: bool
    types: tuple[TypeScore, ...]
    positions: tuple[Visit, ...]

    @property
    def held(self) -> int:
        return sum(one.counts for one in self.types)

    @property
    def kapandji(self) -> int:
        """Positions reached in order: Kapandji's score counts up to the first that fails."""
        for visit in self.positions:
            if not visit.ok:
                return visit.position - 1
        return len(self.positions)

    def as_json(self) -> dict:
        return {
            "hand": self.hand,
            "engine": self.engine,
            "found_with_this_description": self.same_hand,
            "grasps_held": self.held,
            "grasps": [one.as_json() for one in self.types],
            "kapandji": self.kapandji,
            "kapandji_reached": sum(visit.ok for visit in self.positions),
            "positions": [
                {
                    "position": visit.position,
                    "target": NAMES[visit.position - 1],
                    "ok": visit.ok,
                    "gap_mm": 1e3 * visit.reach.gap_m,
                    "facing_deg": float(np.degrees(np.arccos(np.clip(visit.reach.facing_cos, -1.0, 1.0)))),
                    "why_not": visit.reach.why(),
                }
                for visit in self.positions
            ],
        }


def score(hand: str, engine: str, numbers: tuple[int, ...], say: Say) -> Score:
    """Simulate what ships for a hand.

    Raises:
        UnknownNameError: No such hand or grasp type.
        GraspFileError, PositionFileError: Its files are not there, or broken.
    """
    if hand not in HANDS:
        raise UnknownNameError("hand", hand, HANDS)
    known = [kind.number for kind in TYPES]
    for number in numbers:
        if number not in known:
            raise UnknownNameError("grasp type", number, map(str, known))
    model, file, positions = load(hand), load_grasps(hand), load_positions(hand)
    if file.joint_names != model.joint_names or positions.joint_names != model.joint_names:
        raise GraspFileError(
            f"{hand}: the shipped grasps are for other joints; find new ones with sim.dexterity.search"
        )
    begun, rule, types = time.monotonic(), PatternRule(model), []
    kinds = [kind for kind in TYPES if not numbers or kind.number in numbers]
    for i, kind in enumerate(kinds):
        types.append(TypeScore(kind=kind, outcome=_try(model, file.find(kind.number), kind, engine, rule)))
        spent = time.monotonic() - begun
        verdict = "held" if types[-1].counts else "not held"
        say(
            f"{hand} {engine} {i + 1}/{len(kinds)} {kind.name}: {verdict}, {spent / (i + 1) * (len(kinds) - i - 1):.0f} s left"
        )
    reached = tuple(visits(model, engine, positions))
    say(f"{hand} {engine} thumb positions: {sum(visit.ok for visit in reached)} of {len(reached)}")
    return Score(
        hand=hand,
        engine=engine,
        same_hand=file.robot_sha256 == positions.robot_sha256 == model.sha256,
        types=tuple(types),
        positions=reached,
    )


def _try(model: RobotModel, grasp: Grasp | None, kind: GraspType, engine: str, rule: PatternRule) -> Outcome | None:
    if grasp is None:
        return None
    trial = Trial(model, find(grasp.thing).body, engine, rule)
    try:
        return trial.run(grasp, kind)
    finally:
        trial.close()


def table(result: Score) -> str:
    """The score as text."""
    lines = [f"{'type':<28}{'object':<16}{'held':<6}{'least pull':>16}{'power':>9}  why not"]
    for one in result.types:
        row = one.as_json()
        least = row["least_pull_n"]
        pull = "" if least is None else f"{least:.2f} N = {least / one.weight_n:.1f} w"
        power = "" if row["power_w"] is None else f"{row['power_w']:.2f} W"
        lines.append(
            f"{one.kind.number:>2} {one.kind.name:<25}{one.kind.thing:<16}{'yes' if one.counts else 'no':<6}{pull:>16}{power:>9}  {row['why_not']}"
        )
    lines.append(f"held: {result.held} of {len(result.types)}")
    lines.append("")
    for visit in result.positions:
        lines.append(
            f"{visit.position:>2} {NAMES[visit.position - 1]:<36}{'yes' if visit.ok else 'no':<6}{1e3 * visit.reach.gap_m:>6.1f} mm  {visit.reach.why()}"
        )
    reached = sum(visit.ok for visit in result.positions)
    lines.append(f"Kapandji: {result.kapandji} in order, {reached} of {len(result.positions)} reached")
    return "\n".join(lines)


__all__ = ["HANDS", "GraspFile", "Score", "TypeScore", "score", "table"]
