"""Does the hand touch the object as a grasp type says? Contacts in, a verdict per touch out. The same rule for every hand and engine."""

from dataclasses import dataclass

import numpy as np

from robot.description.model import RobotModel
from sim.dexterity.geometry import PARTS, HandGeometry, hand_geometry
from sim.dexterity.taxonomy import GraspType, Touch
from sim.world import Contacts

PAD_COS = 0.3  # a pad reaches 72 degrees round the bone: that is where a finger's own flanks begin
SIDE_COS = 0.5
BACK_COS = -0.4  # what lies further back is the back of the finger
END_COS = 0.7  # beyond that the very end of the fingertip touches, and counts as pad
ABDUCTED_SIN, ADDUCTED_SIN = (
    0.34,
    0.5,
)  # of the thumb's first bone over the palm's plane: 20 and 30 degrees, either name in between
LEAST_N = 0.0  # any contact with a normal force counts


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What was touched.

    Attributes:
        right: Every touch that the type names.
        missing: Those that are not there.
        extra: Parts that must not touch and do.
        thumb: The thumb is where the type says.
    """

    right: tuple[Touch, ...]
    missing: tuple[Touch, ...]
    extra: tuple[str, ...]
    thumb: bool

    @property
    def ok(self) -> bool:
        return not self.missing and not self.extra and self.thumb

    @property
    def share(self) -> float:
        """How much of it is right, 0 to 1."""
        wanted = len(self.right) + len(self.missing)
        return max(0.0, (len(self.right) / max(wanted, 1)) - 0.25 * len(self.extra) - 0.25 * (not self.thumb))

    def why(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        words = [f"{touch.part} does not touch with its {touch.surface}" for touch in self.missing]
        words += [f"{part} touches and should not" for part in self.extra]
        words += [] if self.thumb else ["the thumb is not where the type has it"]
        return "; ".join(words).replace("with its any", "")


class PatternRule:
    """The rule for one hand."""

    def __init__(self, model: RobotModel) -> None:
        hand = self._hand = hand_geometry(model)
        self._names = [link.name for link in model.links]
        self._row = {name: i for i, name in enumerate(hand.links)}
        self._balls = {name: np.flatnonzero(hand.ball_link == i) for name, i in self._row.items()}
        self._base = self._names.index("thumb_proximal"), self._names.index("thumb_middle"), self._names.index("palm")

    @property
    def hand(self) -> HandGeometry:
        return self._hand

    def touched(self, contacts: Contacts, links: tuple[np.ndarray, np.ndarray], body: int) -> set[tuple[str, str]]:
        """Parts and surfaces that touch a body: ("index", "pad"), ("index", "any"), ("palm", "any").

        Args:
            contacts: Of this moment.
            links: Rotations and origins of the links in the world.
            body: Row of the object.
        """
        hand, (rotation, origin) = self._hand, links
        found: set[tuple[str, str]] = set()
        for row in np.flatnonzero((contacts.other == body) & (contacts.normal_force_n > LEAST_N)):
            link = int(contacts.link[row])
            name = self._names[link]
            balls = self._balls.get(name)
            if balls is None:
                continue  # forearm or carpus
            if len(balls) == 0:
                found.add(("palm", "any"))
                continue
            point = rotation[link].T @ (contacts.point_m[row] - origin[link])
            ball = balls[np.argmin(np.linalg.norm(hand.ball_m[balls] - point, axis=1) - hand.ball_radius_m[balls])]
            bone = balls[hand.ball_bone[balls] == hand.ball_bone[ball]]
            low, high = hand.ball_m[bone[0]], hand.ball_m[bone[-1]]
            along = np.clip((point - low) @ (high - low) / ((high - low) @ (high - low)), 0.0, 1.0)
            way = point - low - along * (high - low)
            way /= max(float(np.linalg.norm(way)), 1e-9)
            part, level = PARTS[hand.ball_part[ball]], int(hand.ball_level[ball])
            pad, side = float(way @ hand.ball_pad[ball]), float(way @ hand.ball_side[ball])
            end = float(way @ (high - low)) / float(np.linalg.norm(high - low))
            if pad >= BACK_COS:
                found.add((part, "any"))
            if level >= 1 and (pad >= PAD_COS or (level == 2 and end >= END_COS and pad >= -0.2)):
                found.add((part, "pad"))
            if abs(side) >= SIDE_COS:
                found.add((part, "side"))
        return found

    def judge(self, kind: GraspType, touched: set[tuple[str, str]], links: tuple[np.ndarray, np.ndarray]) -> Pattern:
        """Compare what is touched with what a type names."""
        right = tuple(touch for touch in kind.touches if (touch.part, touch.surface) in touched)
        parts, named = {part for part, _ in touched}, {touch.part for touch in kind.touches}
        extra: set[str] = set()
        if kind.opposition == "pad":  # else one grasp would pass for its neighbours with more fingers
            extra |= parts - named - {"palm"}
        if kind.kind == "precision":
            extra |= parts & {"palm"} - named
        return Pattern(
            right=right,
            missing=tuple(touch for touch in kind.touches if touch not in right),
            extra=tuple(sorted(extra)),
            thumb=self._thumb_ok(kind, links),
        )

    def _thumb_ok(self, kind: GraspType, links: tuple[np.ndarray, np.ndarray]) -> bool:
        rotation, origin = links
        base, end, palm = self._base
        bone = rotation[palm].T @ (origin[end] - origin[base])
        bone /= np.linalg.norm(bone)
        if kind.thumb == "abducted":
            return bool(bone[2] >= ABDUCTED_SIN or bone[0] < 0.0)
        return bool(bone[2] < ADDUCTED_SIN and bone[0] > 0.0)
