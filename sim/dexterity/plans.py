"""Where the search for each grasp starts: a rough place of the object before the palm and a rough shape of the hand.

Written by hand from pictures of the taxonomy; the search moves everything. Positions in millimetres in the palm frame of hand22, angles in
degrees, because these are a person's hints.
"""

from dataclasses import dataclass, field

import numpy as np

from sim.dexterity.geometry import PARTS
from sim.dexterity.taxonomy import GraspType

ANY, PAD, RADIAL, ULNAR = range(4)
Way = tuple[float, float, float]
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

OPPOSED = {"thumb_rotation": 35, "thumb_abduction": 50, "thumb_mp": 10, "thumb_ip": 25}
BESIDE = {"thumb_rotation": -15, "thumb_abduction": 12, "thumb_mp": 15, "thumb_ip": 15}


def _fingers(mcp: float, pip: float, dip: float, names: str = "index middle ring little") -> dict[str, float]:
    return {
        f"{name}_{part}": angle for name in names.split() for part, angle in (("mcp", mcp), ("pip", pip), ("dip", dip))
    }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A start of the search.

    Attributes:
        at_mm: Middle of the object.
        long, up: Where its y and z axes point.
        shape_deg: Joint angles.
        sides: Which side of a finger touches, where the taxonomy only says "side".
        levels: Lowest bone of a part that may touch: 0 at the knuckle, 2 the tip.
        balance: Unbalance of the normal forces that counts as a millimetre; larger where friction has to do it.
        pronation_deg, wrist_deg: How the forearm is held, which says where gravity pulls.
    """

    at_mm: Way
    long: Way
    up: Way
    shape_deg: dict[str, float]
    sides: dict[str, int] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    balance: float = 0.15
    pronation_deg: float = 0.0
    wrist_deg: float = 0.0


WRAP = _fingers(60, 50, 35) | OPPOSED
OPEN_WRAP = _fingers(45, 35, 25) | OPPOSED
FIST = _fingers(75, 85, 50)
TIPS = _fingers(50, 35, 25) | OPPOSED
CURLED = "middle ring little"
PINCH = _fingers(50, 40, 25, "index") | _fingers(60, 60, 40, CURLED) | OPPOSED
KEY = _fingers(60, 70, 40) | BESIDE
FLAT = _fingers(55, 5, 5)
THUMB_UP = -80.0  # pronation that turns the thumb's side up

PLANS: dict[int, Plan] = {
    1: Plan(at_mm=(8, 76, 66), long=X, up=Z, shape_deg=OPEN_WRAP, pronation_deg=THUMB_UP),
    2: Plan(at_mm=(4, 84, 27), long=X, up=Z, shape_deg=_fingers(70, 75, 45) | OPPOSED, pronation_deg=THUMB_UP),
    3: Plan(at_mm=(6, 78, 46), long=X, up=Z, shape_deg=WRAP, pronation_deg=THUMB_UP),
    4: Plan(at_mm=(12, 84, 28), long=(0.94, 0.34, 0.0), up=Z, shape_deg=FIST | BESIDE, levels={"thumb": 1}),
    5: Plan(at_mm=(4, 90, 21), long=(0.98, 0.2, 0.0), up=Z, shape_deg=_fingers(80, 95, 55) | BESIDE),
    6: Plan(at_mm=(0, 132, 62), long=X, up=Z, shape_deg=TIPS),
    7: Plan(at_mm=(10, 132, 62), long=X, up=Z, shape_deg=TIPS),
    8: Plan(at_mm=(22, 130, 60), long=X, up=Z, shape_deg=TIPS),
    9: Plan(at_mm=(30, 125, 65), long=Z, up=X, shape_deg=PINCH),
    10: Plan(at_mm=(6, 84, 24), long=Z, up=X, shape_deg=OPEN_WRAP),
    11: Plan(at_mm=(6, 82, 50), long=X, up=Z, shape_deg=WRAP),
    12: Plan(at_mm=(8, 112, 62), long=Z, up=X, shape_deg=TIPS),
    13: Plan(at_mm=(10, 112, 66), long=X, up=Z, shape_deg=TIPS),
    14: Plan(at_mm=(22, 120, 62), long=X, up=Z, shape_deg=TIPS),
    15: Plan(at_mm=(0, 120, 24), long=X, up=Z, shape_deg=_fingers(10, 90, 60) | BESIDE, wrist_deg=-60.0),
    16: Plan(
        at_mm=(44, 112, 42), long=(0.0, 0.6, 0.8), up=X, shape_deg=KEY, sides={"index": RADIAL}, levels={"index": 1}
    ),
    17: Plan(
        at_mm=(14, 100, 23),
        long=(0.5, 0.86, 0.0),
        up=Z,
        shape_deg=FIST | _fingers(15, 10, 5, "index") | BESIDE,
        levels={"thumb": 1},
    ),
    18: Plan(
        at_mm=(10, 107, 116), long=(0.0, 0.26, 0.966), up=(0.0, -0.966, 0.26), shape_deg=_fingers(75, 5, 5) | OPPOSED,
        levels=dict.fromkeys(("index", "middle", "ring", "little"), 1),
    ),
    19: Plan(at_mm=(24, 120, 75), long=X, up=Y, shape_deg=PINCH),
    20: Plan(
        at_mm=(30, 108, 52), long=(-0.3, 0.7, 0.65), up=X, shape_deg=TIPS, sides={"middle": RADIAL}, levels={"middle": 1}
    ),
    21: Plan(
        at_mm=(14, 112, 48), long=(0.1, 0.75, 0.65), up=X, shape_deg=TIPS, sides={"ring": RADIAL}, levels={"ring": 1}
    ),
    22: Plan(
        at_mm=(20, 92, 80), long=(0.87, 0.5, 0.0), up=(0.5, -0.87, 0.13), shape_deg=_fingers(82, 5, 5) | BESIDE,
        levels=dict.fromkeys(("index", "middle", "ring", "little"), 1), balance=0.6,
    ),
    23: Plan(
        at_mm=(23, 160, 2),
        long=Z,
        up=Y,
        shape_deg=_fingers(10, 5, 5) | OPPOSED,
        sides={"index": ULNAR, "middle": RADIAL},
        levels={"index": 1, "middle": 1},
    ),
    24: Plan(at_mm=(30, 122, 66), long=X, up=Z, shape_deg=_fingers(45, 55, 45, "index") | _fingers(20, 20, 10, CURLED) | OPPOSED),
    25: Plan(
        at_mm=(30, 112, 48), long=(0.2, 0.7, 0.65), up=X, shape_deg=TIPS | BESIDE, sides={"middle": RADIAL}, levels={"middle": 1}
    ),
    26: Plan(at_mm=(12, 112, 66), long=X, up=Z, shape_deg=TIPS),
    27: Plan(at_mm=(14, 118, 63), long=X, up=Z, shape_deg=TIPS),
    28: Plan(at_mm=(20, 114, 64), long=X, up=Z, shape_deg=TIPS),
    29: Plan(
        at_mm=(46, 114, 40), long=(0.0, 0.8, 0.6), up=X, shape_deg=KEY, sides={"index": RADIAL}, levels={"index": 1}
    ),
    30: Plan(at_mm=(4, 44, 22), long=X, up=Z, shape_deg=_fingers(90, 90, 20) | BESIDE),
    31: Plan(at_mm=(28, 108, 56), long=X, up=Z, shape_deg=PINCH),
    32: Plan(
        at_mm=(45, 112, 36), long=(0.0, 0.2, 0.98), up=X, shape_deg=KEY, sides={"index": RADIAL}, levels={"index": 1}
    ),
    33: Plan(at_mm=(30, 124, 66), long=X, up=Z, shape_deg=_fingers(50, 20, 10, "index") | _fingers(30, 30, 15, CURLED) | OPPOSED),
}  # fmt: skip


def turn_of(plan: Plan) -> np.ndarray:
    """Rotation of the object's frame in the palm's, shape (3, 3)."""
    y = np.array(plan.long) / np.linalg.norm(plan.long)
    x = np.cross(y, plan.up)
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def contacts_of(kind: GraspType, plan: Plan) -> np.ndarray:
    """Part, surface and lowest level of every touch of a type, shape (c, 3)."""
    rows = []
    for touch in kind.touches:
        surface = {"any": ANY, "pad": PAD, "side": plan.sides.get(touch.part, RADIAL)}[touch.surface]
        tip_only = touch.surface == "pad" or (touch.part == "thumb" and kind.opposition != "palm")
        level = plan.levels.get(touch.part, 2 if tip_only else 1)
        rows.append((PARTS.index(touch.part), surface, level))
    return np.array(rows, dtype=np.int64)
