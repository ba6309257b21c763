"""hand25: nearer the human hand than hand22, with its 22 joints and three more, all independently driven; 28 motors with the forearm's.

More joints: the ring finger's arch (CMC4, about 10 degrees), the thumb's third axis (roll of its metacarpal), the roll of the index
finger at its knuckle. Human bones: lengths of Buryanov and Kotiuk 2010 (X-ray, 66 adults, distal with pulp); knuckles and the
growth of the flexors' moment arms with flexion from MyoHand (hand/assets/*.xml). Masses are hand22's.
"""

from dataclasses import replace

from robot.description.actuators import Arm, Tendon
from robot.description.hand22 import (
    ARCH_AXIS,
    ARCH_M,
    LITTLE_METACARPAL_M,
    TIP_RADIUS_M,
    forearm,
    ray,
    tendons,
    thumb,
)
from robot.description.hand_parts import hinge, pull_pull
from robot.description.model import Geom, Joint, Link, RobotModel, Tip, Vec3

BONES_M = {  # proximal, middle, distal + pulp; Buryanov and Kotiuk 2010
    "index": (0.0398, 0.0224, 0.0196),
    "middle": (0.0446, 0.0263, 0.0214),
    "ring": (0.0414, 0.0257, 0.0213),
    "little": (0.0327, 0.0181, 0.0197),
}
MCP_M: dict[str, Vec3] = {  # from the wrist's flexion axis, x radial, y distal, z palmar; MyoHand
    "index": (0.0165 + 0.008, 0.0828, 0.0057),  # spread by 8 mm, so that fingers of 18 mm fit side by side
    "middle": (0.003, 0.0815, 0.0),
}
RING_ARCH_M: Vec3 = (-0.0165, 0.0207, 0.0)
LITTLE_ARCH_M: Vec3 = (ARCH_M[0] - 0.0035, ARCH_M[1], ARCH_M[2])
RING_METACARPAL_M = 0.0580  # Buryanov and Kotiuk 2010
FLEXOR_MM = {
    "mcp": (9.6, 3.1),
    "pip": (6.9, 2.2),
    "dip": (4.3, 1.2),
}  # MyoHand FDP index: arm at zero, growth per radian


def _metacarpal(name: str, mass_kg: float, length_m: float) -> Link:
    shape = Geom(shape="box", size_m=(0.016, length_m - 0.011, 0.020), origin_m=(0.0, length_m / 2.0, 0.0))
    return Link(name=name, mass_kg=mass_kg, geoms=(shape,), source="hand22's little metacarpal 30 g, by length")


def _sleeve(name: str) -> Link:
    return Link(
        name=name,
        mass_kg=0.005,
        geoms=(Geom(shape="sphere", size_m=(0.007,), collides=False),),
        source="assumed: a ring between two bearings, as hand22's thumb hub",
    )


def _insert_roll(
    links: list[Link], joints: list[Joint], before: str, name: str, range_deg: tuple[float, float]
) -> None:
    """Put a roll about the bone behind a joint: the joint moves a sleeve, and the bone turns in it."""
    at = next(i for i, joint in enumerate(joints) if joint.name == before)
    bone, sleeve = joints[at].child, f"{name}_sleeve"
    links.insert(next(i for i, link in enumerate(links) if link.name == bone), _sleeve(sleeve))
    joints[at] = replace(joints[at], child=sleeve)
    joints.insert(
        at + 1,
        hinge(
            name,
            sleeve,
            bone,
            (0.0, 1.0, 0.0),
            range_deg,
            torque_nm=0.65,
            speed_rad_s=25.0,
            source="human: passive roll of the knuckle, third axis of the thumb's saddle joint; ranges assumed",
        ),
    )


def _human_arms(tendon: Tendon) -> Tendon:
    """Flexor arms that grow with flexion, at a finger's three flexion joints; the extensor keeps its ratio to the flexor."""
    ratio = tendon.spool_extensor_m / tendon.spool_flexor_m

    def human(arm: Arm) -> Arm:
        part = arm.joint.rpartition("_")[2]
        if arm.joint.startswith("thumb") or part not in FLEXOR_MM:
            return arm
        at_zero, growth = (1e-3 * mm for mm in FLEXOR_MM[part])
        return replace(
            arm,
            flexor_m=at_zero,
            extensor_m=at_zero * ratio,
            flexor_slope_m=growth,
            extensor_slope_m=growth * ratio,
        )

    return replace(tendon, arms=tuple(human(arm) for arm in tendon.arms))


def hand25() -> RobotModel:
    """25 joints in the hand and three in the forearm. Palm up, fingers along world y, base fixed at the elbow."""
    links, joints = forearm()
    palm = next(i for i, link in enumerate(links) if link.name == "palm")
    body = Geom(
        shape="box", size_m=(0.044, 0.070, 0.022), origin_m=(0.014, 0.042, 0.0)
    )  # two metacarpals; ring and little move
    links[palm] = replace(
        links[palm], mass_kg=0.272, geoms=(body, links[palm].geoms[1]), source="hand22's palm less the ring metacarpal"
    )
    links.insert(palm + 1, _metacarpal("ring_metacarpal", 0.028, RING_METACARPAL_M))
    arches = {
        "ring": ("ring_arch", "ring_metacarpal", RING_ARCH_M, (0.0, 12.0), "human CMC4 about 10 degrees"),
        "little": (
            "little_arch",
            "little_metacarpal",
            LITTLE_ARCH_M,
            (0.0, 35.0),
            "menagerie LFJ5; human CMC5 25-30 degrees",
        ),
    }
    spread = {"index": (-20.0, 25.0), "middle": (-20.0, 20.0), "ring": (-20.0, 20.0), "little": (-25.0, 20.0)}
    for finger, bones_m in BONES_M.items():
        if finger in arches:
            name, parent, at_m, range_deg, source = arches[finger]
            joints.append(
                hinge(
                    name,
                    "palm",
                    parent,
                    ARCH_AXIS,
                    range_deg,
                    origin_m=at_m,
                    torque_nm=1.1,
                    speed_rad_s=15.0,
                    source=source,
                )
            )
            at = (0.0, RING_METACARPAL_M if finger == "ring" else LITTLE_METACARPAL_M - 0.012, 0.0)
        else:
            parent, at = "palm", MCP_M[finger]
        more_links, more_joints = ray(finger, parent, at, spread[finger], bones_m)
        links += more_links
        joints += more_joints
    more_links, more_joints = thumb()
    links += more_links
    joints += more_joints
    _insert_roll(links, joints, "index_mcp", "index_roll", (-12.0, 12.0))
    _insert_roll(links, joints, "thumb_abduction", "thumb_roll", (-15.0, 15.0))

    pairs = [_human_arms(t) for t in tendons()]
    for name, behind, passes in (
        ("ring_arch", "ring_dip", (("wrist_flexion", 12.0),)),
        ("index_roll", "index_mcp", (("wrist_flexion", 12.0),)),
        ("thumb_roll", "thumb_abduction", ()),
    ):
        place = next(i for i, t in enumerate(pairs) if t.name == behind) + 1
        source = "docs/robot.md: as hand22's abduction"
        pairs.insert(
            place,
            pull_pull(
                name,
                10.0 if name == "ring_arch" else 6.0,
                10.0 if name == "ring_arch" else 6.0,
                passes=passes,
                source=source,
            ),
        )
    tips = [Tip(name="thumb", link="thumb_distal", offset_m=(0.0, 0.0275 - TIP_RADIUS_M, 0.0))]
    tips += [
        Tip(name=finger, link=f"{finger}_distal", offset_m=(0.0, bones_m[2] - TIP_RADIUS_M, 0.0))
        for finger, bones_m in BONES_M.items()
    ]
    return RobotModel(
        name="hand25",
        base_link="elbow",
        links=tuple(links),
        joints=tuple(joints),
        tendons=tuple(pairs),
        tips=tuple(tips),
    )
