"""hand22: 22 independently driven joints on 22 forearm motors, plus pronation and the two wrist joints: 25 motors.

Right hand. Palm frame at the wrist's deviation axis: x to the thumb side, y to the fingertips, z out of the palm.
Skeleton and masses: Shadow Dexterous Hand as in mujoco_menagerie/shadow_hand/right_hand.xml ("menagerie" below), whose 22 joints
without the wrist are this hand's. Ranges and pulleys: the proposal in docs/robot.md (Shadow, ORCA and human ranges side by side).
"""

from math import pi

from robot.description.hand_parts import (
    CABLE_N_M,
    FLEX,
    RADIAL,
    SERVO_N_M,
    THUMB_FLEX,
    ULNAR,
    WRIST_CABLE_N_M,
    hinge,
    phalanx,
    pull_pull,
)
from robot.description.model import Geom, Joint, Link, RobotModel, Tendon, Tip, Vec3
from robot.description.motors import LARGE

PROXIMAL_M, MIDDLE_M, DISTAL_M = 0.045, 0.025, 0.026  # menagerie, all four fingers
THUMB_PROXIMAL_M, THUMB_MIDDLE_M, THUMB_DISTAL_M = 0.038, 0.032, 0.0275  # menagerie
FINGER_RADIUS_M = 0.009  # menagerie collision capsules
TIP_RADIUS_M = 0.0075  # MyoHand distal capsules 6-7 mm, plus a skin

MCP_M: dict[str, Vec3] = {  # in the palm frame; menagerie, with its (x, y, z) = ours (x, -z, y)
    "index": (0.033, 0.095, 0.0),
    "middle": (0.011, 0.099, 0.0),
    "ring": (-0.011, 0.095, 0.0),
}
ARCH_M: Vec3 = (-0.033, 0.0207, 0.0)  # menagerie LF metacarpal pivot
ARCH_AXIS: Vec3 = (0.573576, 0.819152, 0.0)  # menagerie LFJ5, oblique: the little finger's base comes up and inwards
LITTLE_METACARPAL_M = 0.0658  # menagerie
THUMB_BASE_M: Vec3 = (0.034, 0.029, 0.0086)  # menagerie


def ray(
    finger: str,
    parent: str,
    origin_m: Vec3,
    abduction_deg: tuple[float, float],
    bones_m: tuple[float, float, float] = (PROXIMAL_M, MIDDLE_M, DISTAL_M),
) -> tuple[list[Link], list[Joint]]:
    """One finger on its knuckle: abduction, MCP, PIP, DIP. `bones_m`: proximal, middle, distal phalanx to the end of the pulp."""
    proximal_m, middle_m, distal_m = bones_m
    knuckle, proximal, middle, distal = (f"{finger}_{part}" for part in ("knuckle", "proximal", "middle", "distal"))
    masses = "menagerie link masses 8, 30, 17, 13 g"
    links = [
        Link(
            name=knuckle, mass_kg=0.008, geoms=(Geom(shape="sphere", size_m=(0.008,), collides=False),), source=masses
        ),
        Link(name=proximal, mass_kg=0.030, geoms=(phalanx(proximal_m, FINGER_RADIUS_M),), source=masses),
        Link(name=middle, mass_kg=0.017, geoms=(phalanx(middle_m, FINGER_RADIUS_M),), source=masses),
        Link(name=distal, mass_kg=0.013, geoms=(phalanx(distal_m - TIP_RADIUS_M, TIP_RADIUS_M),), source=masses),
    ]
    ranges = "docs/robot.md, range table: Shadow, ORCA, human"
    joints = [
        hinge(
            f"{finger}_abduction",
            parent,
            knuckle,
            RADIAL,
            abduction_deg,
            origin_m=origin_m,
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
        hinge(
            f"{finger}_mcp",
            knuckle,
            proximal,
            FLEX,
            (-20.0, 95.0),
            home_deg=20.0,
            torque_nm=1.1,
            speed_rad_s=15.0,
            source=ranges,
        ),
        hinge(
            f"{finger}_pip",
            proximal,
            middle,
            FLEX,
            (0.0, 105.0),
            home_deg=20.0,
            origin_m=(0.0, proximal_m, 0.0),
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
        hinge(
            f"{finger}_dip",
            middle,
            distal,
            FLEX,
            (-5.0, 85.0),
            home_deg=10.0,
            origin_m=(0.0, middle_m, 0.0),
            torque_nm=0.65,
            speed_rad_s=25.0,
            source=ranges,
        ),
    ]
    return links, joints


def thumb() -> tuple[list[Link], list[Joint]]:
    masses = "menagerie thumb link masses 10, 40, 5, 20, 17 g"
    links = [
        Link(
            name="thumb_base",
            mass_kg=0.010,
            geoms=(Geom(shape="sphere", size_m=(0.011,), collides=False),),
            source=masses,
        ),
        Link(name="thumb_proximal", mass_kg=0.040, geoms=(phalanx(THUMB_PROXIMAL_M, 0.011),), source=masses),
        Link(
            name="thumb_hub",
            mass_kg=0.005,
            geoms=(Geom(shape="sphere", size_m=(0.010,), collides=False),),
            source=masses,
        ),
        Link(name="thumb_middle", mass_kg=0.020, geoms=(phalanx(THUMB_MIDDLE_M, 0.010),), source=masses),
        Link(
            name="thumb_distal",
            mass_kg=0.017,
            geoms=(phalanx(THUMB_DISTAL_M - TIP_RADIUS_M, TIP_RADIUS_M + 0.0005),),
            source=masses,
        ),
    ]
    ranges = "docs/robot.md, range table: Shadow TH5..TH1, ORCA, human"
    joints = [
        # The base points 45 degrees to the thumb side; rotation turns the thumb's flexion plane across the palm (TH5).
        hinge(
            "thumb_rotation",
            "palm",
            "thumb_base",
            (0.0, -1.0, 0.0),
            (-55.0, 60.0),
            origin_m=THUMB_BASE_M,
            rpy_rad=(0.0, 0.0, -pi / 4),
            torque_nm=2.66,
            speed_rad_s=8.6,
            source=ranges,
        ),
        hinge(
            "thumb_abduction",
            "thumb_base",
            "thumb_proximal",
            FLEX,
            (0.0, 70.0),
            home_deg=20.0,
            torque_nm=2.66,
            speed_rad_s=8.6,
            source=ranges,
        ),
        hinge(
            "thumb_mp_abduction",
            "thumb_proximal",
            "thumb_hub",
            FLEX,
            (-15.0, 15.0),
            origin_m=(0.0, THUMB_PROXIMAL_M, 0.0),
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
        hinge(
            "thumb_mp",
            "thumb_hub",
            "thumb_middle",
            THUMB_FLEX,
            (-30.0, 60.0),
            home_deg=10.0,
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
        hinge(
            "thumb_ip",
            "thumb_middle",
            "thumb_distal",
            THUMB_FLEX,
            (-15.0, 90.0),
            home_deg=10.0,
            origin_m=(0.0, THUMB_MIDDLE_M, 0.0),
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
    ]
    return links, joints


def forearm() -> tuple[list[Link], list[Joint]]:
    links = [
        Link(
            name="elbow",
            mass_kg=0.5,
            geoms=(Geom(shape="cylinder", size_m=(0.040, 0.03), origin_m=(0.0, -0.015, 0.0), collides=False),),
            source="assumed: the fixed mount",
        ),
        Link(
            name="forearm",
            mass_kg=3.0,
            geoms=(Geom(shape="cylinder", size_m=(0.042, 0.21), origin_m=(0.0, 0.105, 0.0), collides=False),),
            source="menagerie forearm 3 kg with 20 motors; 25 x 55 g + structure is 2.5-3.5 kg",
        ),
        Link(
            name="carpus",
            mass_kg=0.100,
            geoms=(Geom(shape="box", size_m=(0.05, 0.03, 0.03), collides=False),),
            source="menagerie wrist 0.1 kg",
        ),
        Link(
            name="palm",
            mass_kg=0.300,
            geoms=(
                Geom(
                    shape="box", size_m=(0.066, 0.085, 0.022), origin_m=(0.011, 0.048, 0.0)
                ),  # three metacarpals; menagerie palm 22 mm thick
                Geom(shape="box", size_m=(0.020, 0.030, 0.024), origin_m=(0.030, 0.022, 0.0)),  # base of the thumb
            ),
            source="menagerie palm 0.3 kg; old Shadow C5 sheet: palm 99 mm long, 84 mm wide, 22 mm thick",
        ),
        Link(
            name="little_metacarpal",
            mass_kg=0.030,
            geoms=(Geom(shape="box", size_m=(0.020, 0.055, 0.020), origin_m=(0.0, 0.035, 0.0)),),
            source="menagerie LF metacarpal 30 g",
        ),
    ]
    wrist = "docs/robot.md: human forearm and wrist"
    joints = [
        hinge(
            "forearm_pronation",
            "elbow",
            "forearm",
            (0.0, 1.0, 0.0),
            (-85.0, 85.0),
            torque_nm=4.7,
            speed_rad_s=4.8,
            damping_nm_s=0.05,
            source=wrist,
        ),
        hinge(
            "wrist_flexion",
            "forearm",
            "carpus",
            FLEX,
            (-65.0, 65.0),
            origin_m=(0.0, 0.22, 0.0),
            torque_nm=3.4,
            speed_rad_s=6.6,
            damping_nm_s=0.05,
            source=wrist,
        ),
        hinge(
            "wrist_deviation",
            "carpus",
            "palm",
            ULNAR,
            (-20.0, 30.0),
            torque_nm=3.4,
            speed_rad_s=6.6,
            damping_nm_s=0.05,
            source=wrist,
        ),
    ]
    return links, joints


def tendons() -> list[Tendon]:
    """25 pairs. Finger tendons pass the palmar side of the wrist at 11-14 mm (FDP and FDS of MyoHand: 11.6-15.3 mm) and the
    deviation and pronation axes through their centres (the wrist's cable bundle is turned there, so both stay uncoupled)."""
    pulleys = "docs/robot.md, pulley table; wrist arms from MyoHand"
    forearm = "docs/robot.md: pronation 25 mm, wrist 18 mm (Adroit wrist tendons)"
    wrist = {"motor": LARGE, "stiffness_n_m": WRIST_CABLE_N_M, "servo_n_m": 2.0 * WRIST_CABLE_N_M}
    heavy = {"motor": LARGE, "stiffness_n_m": 2.0 * CABLE_N_M, "servo_n_m": 2.0 * SERVO_N_M}  # two strands
    pairs = [
        pull_pull("forearm_pronation", 25.0, 25.0, source=forearm, **wrist),
        pull_pull("wrist_flexion", 18.0, 18.0, source=forearm, **wrist),
        pull_pull("wrist_deviation", 18.0, 18.0, source=forearm, **wrist),
    ]
    for finger in ("index", "middle", "ring", "little"):
        over_arch = (("little_arch", 6.0),) if finger == "little" else ()
        if finger == "little":
            pairs.append(pull_pull("little_arch", 10.0, 10.0, passes=(("wrist_flexion", 12.0),), source=pulleys))
        mcp, pip = f"{finger}_mcp", f"{finger}_pip"
        pairs += [
            pull_pull(f"{finger}_abduction", 8.0, 8.0, source=pulleys),
            pull_pull(mcp, 10.0, 8.0, passes=(("wrist_flexion", 14.0), *over_arch), source=pulleys),
            pull_pull(pip, 8.0, 6.0, passes=(("wrist_flexion", 12.0), *over_arch, (mcp, 8.0)), source=pulleys),
            pull_pull(
                f"{finger}_dip",
                6.0,
                4.0,
                passes=(("wrist_flexion", 11.0), *over_arch, (mcp, 7.0), (pip, 6.0)),
                source=pulleys,
            ),
        ]
    pairs += [
        pull_pull("thumb_rotation", 14.0, 14.0, source=pulleys, **heavy),
        pull_pull("thumb_abduction", 14.0, 14.0, source=pulleys, **heavy),
        pull_pull("thumb_mp_abduction", 8.0, 8.0, passes=(("thumb_abduction", 8.0),), source=pulleys),
        pull_pull("thumb_mp", 8.0, 8.0, passes=(("wrist_flexion", 11.0),), source=pulleys),
        pull_pull("thumb_ip", 8.0, 8.0, passes=(("wrist_flexion", 11.0), ("thumb_mp", 8.0)), source=pulleys),
    ]
    return pairs


def hand22() -> RobotModel:
    """The 22-joint hand on its forearm. Palm up, fingers along world y, base fixed at the elbow."""
    links, joints = forearm()
    arch = hinge(
        "little_arch",
        "palm",
        "little_metacarpal",
        ARCH_AXIS,
        (0.0, 35.0),
        origin_m=ARCH_M,
        torque_nm=1.1,
        speed_rad_s=15.0,
        source="menagerie LFJ5 0..45; human CMC5 25-30 deg",
    )
    for finger, parent, origin_m, abduction_deg in (
        ("index", "palm", MCP_M["index"], (-20.0, 25.0)),
        ("middle", "palm", MCP_M["middle"], (-20.0, 20.0)),
        ("ring", "palm", MCP_M["ring"], (-20.0, 20.0)),
        ("little", "little_metacarpal", (0.0, LITTLE_METACARPAL_M, 0.0), (-25.0, 20.0)),
    ):
        if finger == "little":
            joints.append(arch)
        more_links, more_joints = ray(finger, parent, origin_m, abduction_deg)
        links += more_links
        joints += more_joints
    thumb_links, thumb_joints = thumb()
    fingertip: Vec3 = (0.0, DISTAL_M - TIP_RADIUS_M, 0.0)
    tips = [
        Tip(name=finger, link=f"{finger}_distal", offset_m=fingertip)
        for finger in ("index", "middle", "ring", "little")
    ]
    tips.insert(0, Tip(name="thumb", link="thumb_distal", offset_m=(0.0, THUMB_DISTAL_M - TIP_RADIUS_M, 0.0)))
    return RobotModel(
        name="hand22",
        base_link="elbow",
        links=tuple(links + thumb_links),
        joints=tuple(joints + thumb_joints),
        tendons=tuple(tendons()),
        tips=tuple(tips),
    )
