"""Postures that touch an object as a grasp type wants: damped least squares on compiled residuals, from many starts.

Gives starting points for the search in simulation; nothing here counts as a held grasp.
"""

from dataclasses import dataclass

import numpy as np

from robot.description.model import RobotModel
from sim.dexterity.fit_kernel import evaluate, jacobian
from sim.dexterity.geometry import PARTS, HandGeometry, Solid
from sim.dexterity.plans import Plan, contacts_of, turn_of
from sim.dexterity.taxonomy import GraspType

ITERATIONS = 60
OVERLAP_M, AWAY_M = -0.0005, 0.004
STEP_RAD = 0.3  # of any joint in one iteration
STEP_M = 0.02
PRIOR = 0.6  # residual per radian off the plan's shape: a radian weighs as much as half a millimetre of gap
PLACE = (0.02 / 1e-3, 0.3)  # residual per metre and radian off the plan's place
SPREAD_RAD, SPREAD_M, SPREAD_TURN_RAD = 0.35, 0.012, 0.35  # of the starts


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A posture with an object.

    Attributes:
        q_rad: Of the hand's joints beyond the wrist.
        position_m, turn: Of the object's frame in the palm's, (3,), (3, 3).
        share: Force share of every contact.
        point_m, normal, link: Of every contact, normal into the hand; link counted as in `HandGeometry.links`.
        cost: Sum of squared residuals, less the hints of the plan.
    """

    q_rad: np.ndarray
    position_m: np.ndarray
    turn: np.ndarray
    share: np.ndarray
    point_m: np.ndarray
    normal: np.ndarray
    link: np.ndarray
    cost: float


def _clearances(kind: GraspType, hand: HandGeometry) -> np.ndarray:
    """Least gap to the object of every ball and of the palm, shape (s + 1,) [m]: fingers a pad grasp does not name stay off it."""
    keep = np.full(len(hand.ball_link) + 1, OVERLAP_M)
    if kind.opposition == "pad":
        named = {PARTS.index(touch.part) for touch in kind.touches}
        keep[:-1][~np.isin(hand.ball_part, list(named))] = AWAY_M
    if kind.kind == "precision":
        keep[-1] = AWAY_M
    return keep


class Fitter:
    """The search for one type on one hand."""

    def __init__(self, model: RobotModel, hand: HandGeometry, thing: Solid, kind: GraspType, plan: Plan) -> None:
        self.hand, self._n = hand, len(hand.joints)
        self._contacts = contacts_of(kind, plan)
        self._turn0, self._balance = turn_of(plan), plan.balance
        names = [model.joint_names[row] for row in hand.joints]
        shape = np.array([np.radians(plan.shape_deg.get(name, 0.0)) for name in names])
        self._prior = np.clip(shape, hand.lower_rad, hand.upper_rad)
        self._place0 = np.array(plan.at_mm) * 1e-3
        self._fixed = (
            self._n,
            (hand.tree, hand.at, hand.turns, hand.joint, len(hand.links)),
            (hand.ball_link, hand.ball_m, hand.ball_radius_m, hand.ball_part, hand.ball_level, hand.ball_pad, hand.ball_side),
            (hand.bone_ends, hand.bone_pairs),
            (hand.box_link, hand.box_turn, hand.box_m, hand.box_size_m),
        )  # fmt: skip
        self._thing = (thing.kinds, thing.sizes_m, thing.turns, thing.at_m)
        self._points, self._com = thing.points_m, thing.com_m
        self._keep = _clearances(kind, hand)
        ends = (hand.links.index("thumb_proximal"), hand.links.index("thumb_middle"))
        self._thumb = np.array([1 if kind.thumb == "abducted" else -1, *ends], dtype=np.int64)
        self._weight = np.full(self._n, PRIOR)
        n_contacts = len(self._contacts)
        self._low = np.concatenate([hand.lower_rad, self._place0 - 0.08, np.full(3, -3.0), np.full(n_contacts, 0.05)])
        self._high = np.concatenate([hand.upper_rad, self._place0 + 0.08, np.full(3, 3.0), np.full(n_contacts, 1.5)])
        self._most = np.concatenate([np.full(self._n, STEP_RAD), np.full(3, STEP_M), np.full(3 + n_contacts, STEP_RAD)])

    def _arguments(self, turn0: np.ndarray) -> tuple:
        return (
            *self._fixed, turn0, self._thing, self._points, self._com, self._contacts, self._keep,
            self._thumb, self._prior, self._weight, self._place0, np.array((*PLACE, self._balance)),
        )  # fmt: skip

    def one(self, rng: np.random.Generator) -> Fit:
        """The posture that one random start runs to."""
        n_contacts = len(self._contacts)
        x = np.concatenate(
            [
                self._prior + SPREAD_RAD * rng.normal(size=self._n),
                self._place0 + SPREAD_M * rng.normal(size=3),
                SPREAD_TURN_RAD * rng.normal(size=3),
                np.full(n_contacts, 2.0 / n_contacts),
            ]
        )
        x = np.clip(x, self._low, self._high)
        arguments = self._arguments(self._turn0)
        damping = 1.0
        residual, slope = jacobian(x, *arguments)
        cost = float(residual @ residual)
        for _ in range(ITERATIONS):
            normal = slope.T @ slope
            step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 0.1), slope.T @ residual)
            step *= min(1.0, float((self._most / np.maximum(np.abs(step), 1e-12)).min()))
            trial = np.clip(x + step, self._low, self._high)
            other = evaluate(trial, *arguments)[0]
            other_cost = float(other @ other)
            if other_cost < cost:
                done = cost - other_cost < 1e-4 * cost
                x, damping = trial, max(damping * 0.4, 1e-4)
                residual, slope = jacobian(x, *arguments)
                cost = other_cost
                if done:
                    break
            else:
                damping *= 4.0
                if damping > 1e6:
                    break
        return self._fit(x, arguments)

    def _fit(self, x: np.ndarray, arguments: tuple) -> Fit:
        from sim.dexterity.geometry_kernel import turn_of as turned

        residual, point, normal, link = evaluate(x, *arguments)
        hints = self._n + 6  # the last residuals
        n = self._n
        return Fit(
            q_rad=x[:n].copy(),
            position_m=x[n : n + 3].copy(),
            turn=turned(x[n + 3 : n + 6]) @ self._turn0,
            share=x[n + 6 :].copy(),
            point_m=point,
            normal=normal,
            link=link,
            cost=float(residual[:-hints] @ residual[:-hints]),
        )

    def best(self, starts: int, keep: int, rng: np.random.Generator) -> list[Fit]:
        """The best of many starts, best first."""
        fits = sorted((self.one(rng) for _ in range(starts)), key=lambda fit: fit.cost)
        return fits[:keep]
