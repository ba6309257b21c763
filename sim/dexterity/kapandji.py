"""Kapandji's ten positions of thumb opposition, as points on a hand's own surface, and the trial that visits them in order.

Kapandji 1986: the thumb's tip goes to 1 the side of the index's middle bone, 2 the side of its end bone, 3-6 the tips of index, middle, ring
and little finger, 7-9 the creases of the little finger's end, middle and base joint, 10 the palm's distal crease.
"""

from dataclasses import dataclass

import numpy as np

from robot.description.model import Geom, RobotModel
from robot.description.rotation import rpy_matrix
from robot.state import Command
from sim import engines
from sim.dexterity.geometry import HandGeometry, hand_geometry
from sim.dexterity.geometry_kernel import deepest_overlap
from sim.world import Start

REACH_M = 0.002
PAD_COS = 0.5  # the thumb touches within 60 degrees of the middle of its pulp
OPPOSED_COS = (
    -0.5
)  # pads face each other: more than 120 degrees between their normals; asked for at the four fingertips
FACING_COS = -0.17  # elsewhere: more than 100 degrees
OVERLAP_M = 0.001  # what two parts of the hand may overlap: the softness of a contact
CONTROL_HZ = 25.0
GO_S, STAY_S = 1.2, 0.6
NAMES = (
    "side of the index's middle bone",
    "side of the index's end bone",
    "tip of the index",
    "tip of the middle finger",
    "tip of the ring finger",
    "tip of the little finger",
    "end crease of the little finger",
    "middle crease of the little finger",
    "base crease of the little finger",
    "distal crease of the palm",
)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A point of a hand's surface.

    Attributes:
        link: Row in `HandGeometry.links`.
        point_m, normal: In the link's frame, the normal outwards.
    """

    link: int
    point_m: np.ndarray
    normal: np.ndarray


def spots(model: RobotModel, hand: HandGeometry) -> tuple[Spot, ...]:
    """The ten targets of a hand."""
    index, little = _bones(model, "index"), _bones(model, "little")
    tips = [_tip(hand, _bones(model, finger)[-1]) for finger in ("index", "middle", "ring", "little")]
    base = little[0]
    return (
        _on(hand, index[1], 0.0, (1.0, 0.0, 0.0)),
        _on(hand, index[2], 0.0, (1.0, 0.0, 0.0)),
        *tips,
        _on(hand, little[2], -0.5, (0.0, 0.0, 1.0)),
        _on(hand, little[1], -0.5, (0.0, 0.0, 1.0)),
        _on(hand, base, -0.5, (0.0, 0.0, 1.0)),
        _palm_crease(model, hand, base[0]),
    )


def _bones(model: RobotModel, finger: str) -> list[tuple[str, Geom]]:
    """Links and capsules of a finger, from the knuckle to the tip; a welded joint leaves two on one link."""
    return [
        (link.name, geom)
        for link in model.links
        if link.name.startswith(f"{finger}_")
        for geom in link.geoms
        if geom.collides and geom.shape == "capsule"
    ]


def _on(hand: HandGeometry, bone: tuple[str, Geom], along: float, way: tuple[float, float, float]) -> Spot:
    """On a bone's surface, `along` lengths from its middle."""
    name, geom = bone
    turn = rpy_matrix(geom.rpy_rad)
    normal = turn @ np.array(way)
    point = np.array(geom.origin_m) + turn @ np.array([0.0, along * geom.size_m[1], 0.0]) + geom.size_m[0] * normal
    return Spot(link=hand.links.index(name), point_m=point, normal=normal)


def _tip(hand: HandGeometry, bone: tuple[str, Geom]) -> Spot:
    """The pulp at a finger's end, half way between pad and end."""
    return _on(hand, bone, 0.5, (0.0, np.sqrt(0.5), np.sqrt(0.5)))


def _palm_crease(model: RobotModel, hand: HandGeometry, base_link: str) -> Spot:
    """On the palm's face 12 mm before the little finger's knuckle, where its crease is."""
    knuckle = next(joint for joint in model.joints if joint.child == base_link)
    while knuckle.parent not in ("palm", "little_metacarpal"):
        knuckle = next(joint for joint in model.joints if joint.child == knuckle.parent)
    at = np.array(knuckle.origin_m)
    link = hand.links.index(knuckle.parent)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for box_link, turn, place, size in zip(hand.box_link, hand.box_turn, hand.box_m, hand.box_size_m):
        if box_link != link:
            continue
        local = turn.T @ (at - place) - np.array([0.0, 0.012, 0.0])
        inside = np.clip(local, -size / 2.0 + 0.003, size / 2.0 - 0.003)
        away = float(np.linalg.norm((local - inside)[:2]))
        inside[2] = size[2] / 2.0
        if best is None or away < best[0]:
            best = (away, place + turn @ inside, turn[:, 2])
    assert best is not None
    return Spot(link=link, point_m=best[1], normal=best[2])


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the thumb stands to a target.

    Attributes:
        gap_m: From the target to the surface of the thumb's tip, negative inside.
        pad_cos: Cosine between the way to the target and the middle of the thumb's pulp.
        facing_cos: Cosine between the way to the target and the target's normal: -1 face to face.
        overlap_m: The deepest overlap of any two parts of the hand.
        opposed_cos: What `facing_cos` must be below.
    """

    gap_m: float
    pad_cos: float
    facing_cos: float
    overlap_m: float
    opposed_cos: float

    @property
    def ok(self) -> bool:
        return (
            abs(self.gap_m) < REACH_M
            and self.pad_cos >= PAD_COS
            and self.facing_cos <= self.opposed_cos
            and self.overlap_m <= OVERLAP_M
        )

    def why(self) -> str:
        """What is wrong, in words."""
        words = []
        if abs(self.gap_m) >= REACH_M:
            words.append(f"{1e3 * self.gap_m:.1f} mm off")
        if self.pad_cos < PAD_COS:
            words.append("not with the pad")
        if self.facing_cos > self.opposed_cos:
            words.append("not face to face")
        if self.overlap_m > OVERLAP_M:
            words.append(f"parts overlap by {1e3 * self.overlap_m:.1f} mm")
        return ", ".join(words)


class Opposition:
    """The ten positions of one hand as functions of its joint angles."""

    def __init__(self, model: RobotModel) -> None:
        self.model, self.hand = model, hand_geometry(model)
        self.spots = spots(model, self.hand)
        thumb = np.flatnonzero(self.hand.ball_part == 0)
        self._tip = int(thumb[-1])
        turn = self.hand.ball_pad[self._tip] + np.array([0.0, 1.0, 0.0])
        self._pulp = turn / np.linalg.norm(turn)

    def reach(self, q_hand: np.ndarray, position: int) -> Reach:
        """Where the thumb is with respect to position 1..10, for angles of the joints beyond the wrist."""
        hand, spot = self.hand, self.spots[position - 1]
        rotation, origin = hand.poses(q_hand)
        link = hand.ball_link[self._tip]
        tip = origin[link] + rotation[link] @ hand.ball_m[self._tip]
        target = origin[spot.link] + rotation[spot.link] @ spot.point_m
        way = target - tip
        length = float(np.linalg.norm(way))
        way = way / max(length, 1e-9)
        return Reach(
            gap_m=length - float(hand.ball_radius_m[self._tip]),
            pad_cos=float(way @ (rotation[link] @ self._pulp)),
            facing_cos=float(way @ (rotation[spot.link] @ spot.normal)),
            overlap_m=self.overlap_m(rotation, origin),
            opposed_cos=OPPOSED_COS if 3 <= position <= 6 else FACING_COS,
        )

    def overlap_m(self, rotation: np.ndarray, origin: np.ndarray) -> float:
        """The deepest overlap of two bones, or of a bone and the palm, in a posture; 0 when all are clear [m]."""
        hand = self.hand
        return float(
            deepest_overlap(
                rotation, origin, hand.ball_link, hand.ball_m, hand.ball_radius_m, hand.ball_level, hand.bone_ends,
                hand.bone_pairs, hand.box_link, hand.box_turn, hand.box_m, hand.box_size_m,
            )
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Visit:
    """How one position was reached in simulation."""

    position: int
    reach: Reach
    q_rad: np.ndarray

    @property
    def ok(self) -> bool:
        return self.reach.ok


class Tour:
    """The thumb's way through the positions, in one engine."""

    def __init__(self, model: RobotModel, engine: str) -> None:
        self.opposition = Opposition(model)
        self.model = model
        self.robot = engines.make(engine, model, control_hz=CONTROL_HZ)

    def close(self) -> None:
        self.robot.close()

    def begin(self, target_rad: np.ndarray) -> None:
        self.robot.begin(Start(q_rad=target_rad))
        self._at = target_rad

    def go(self, position: int, targets_rad: list[np.ndarray]) -> Visit:
        """Through these targets one after another, then stay at the last."""
        for target in targets_rad:
            steps = round(GO_S / len(targets_rad) * CONTROL_HZ)
            for k in range(steps):
                self.robot.step(Command(target_rad=self._at + (k + 1) / steps * (target - self._at)))
            self._at = target
        for _ in range(round(STAY_S * CONTROL_HZ)):
            self.robot.step(Command(target_rad=self._at))
        q = self.robot.kernel.q_rad.copy()
        return Visit(position=position, reach=self.opposition.reach(q[self.opposition.hand.joints], position), q_rad=q)
