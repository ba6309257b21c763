"""hand11: the skeleton of hand22 with 11 joints on 6 motors, as publicly said of Optimus Gen 2: five flexion synergies and the
thumb's rotation. What is welded: spread, DIP joints, palm arch, the thumb's abduction and hub. For comparisons on one skeleton;
it claims nothing about anybody's product. The forearm's three joints are hand22's.
"""

from dataclasses import replace
from math import radians

from robot.description.actuators import Arm, Tendon
from robot.description.hand22 import hand22
from robot.description.hand_parts import pull_pull
from robot.description.model import RobotModel
from robot.description.surgery import weld

FINGERS = ("index", "middle", "ring", "little")
WELDED_DEG = {
    **{f"{finger}_abduction": 0.0 for finger in FINGERS},
    **{f"{finger}_dip": 20.0 for finger in FINGERS},  # slightly bent, as fingers are that grip with their pads
    "little_arch": 10.0,
    "thumb_abduction": 40.0,
    "thumb_mp_abduction": 0.0,
}
# A pair over two joints holds their sum, springs share it out. At a full fist they cost the motor 21 N, a third of what it can
# hold for hours; a finger's own weight (0.03 N m) moves the joints against each other by about 0.15 rad.
SPRING_NM_RAD = {"mcp": 0.12, "pip": 0.096}  # in the ratio of the arms, so that both joints flex alike
THUMB_SPRING_NM_RAD = 0.10


def _synergy(first: str, second: str, arms_mm: tuple[float, float], wrist_mm: float) -> Tendon:
    """One pair that flexes two joints together."""
    pair = pull_pull(
        first,
        arms_mm[0],
        arms_mm[0],
        passes=((second, arms_mm[1]), ("wrist_flexion", wrist_mm)),
        source="hand22's pulleys on one pair",
    )
    return replace(pair, also=(second,))


def hand11() -> RobotModel:
    """11 joints on 6 motors, plus the forearm's three on three."""
    full = hand22()
    links, joints, tips = list(full.links), list(full.joints), list(full.tips)
    for name, angle_deg in WELDED_DEG.items():
        weld(links, joints, tips, name, radians(angle_deg))
    springs = {f"{finger}_{part}": k for finger in FINGERS for part, k in SPRING_NM_RAD.items()}
    springs |= {"thumb_mp": THUMB_SPRING_NM_RAD, "thumb_ip": THUMB_SPRING_NM_RAD}
    joints = [replace(j, spring_nm_rad=springs.get(j.name, 0.0)) for j in joints]
    kept = {joint.name for joint in joints}
    alone = ("forearm_pronation", "wrist_flexion", "wrist_deviation", "thumb_rotation")
    tendons = [_only(t, kept) for t in full.tendons if t.joint in alone]
    tendons[3:3] = [_synergy(f"{finger}_mcp", f"{finger}_pip", (10.0, 8.0), 12.0) for finger in FINGERS]
    tendons.append(_synergy("thumb_mp", "thumb_ip", (8.0, 8.0), 11.0))
    return replace(
        full, name="hand11", links=tuple(links), joints=tuple(joints), tendons=tuple(tendons), tips=tuple(tips)
    )


def _only(tendon: Tendon, joints: set[str]) -> Tendon:
    """A tendon without its arms at joints that are no more."""
    arms: tuple[Arm, ...] = tuple(arm for arm in tendon.arms if arm.joint in joints)
    return replace(tendon, arms=arms)
