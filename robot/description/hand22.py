"""hand22: 22 independently driven joints on 22 forearm motors, plus pronation and the two wrist joints: 25 motors.

Right hand. Palm frame at the wrist's deviation axis: x to the thumb side, y to the fingertips, z out of the palm.
Skeleton and masses: Shadow Dexterous Hand as in mujoco_menagerie/shadow_hand/right_hand.xml ("menagerie" below), whose 22 joints
without the wrist are this hand's. Ranges and pulleys: the proposal in docs/robot.md (Shadow, ORCA and human ranges side by side).
"""

from math import pi, radians

from robot.description.model import ZERO, Arm, Geom, Joint, Link, Motor, RobotModel, Tendon, Tip, Vec3
from robot.description.motors import LARGE, SMALL, SPOOL_M

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

# Cable: 0.8 mm UHMWPE braid, 26-42 kN/m over 0.25-0.40 m of run (derived from EA/L with a braid modulus; docs/robot.md).
CABLE_N_M = 30.0e3
WRIST_CABLE_N_M = 100.0e3  # 1.5 mm braid: stiffness grows with the cross section
CABLE_DAMPING_N_S_M = 15.0  # assumed: damping ratio about 0.05 of the joint against its tendon
PRETENSION_N = 4.0  # in-vivo passive tendon force is 1-9 N (Schuind 1992)
CAPSTAN_MU = 0.08  # UHMWPE on smooth aluminium about 0.10, less over the idlers
WRAP_RAD = 1.5  # assumed: guides at the spool, wrist and metacarpal together, straight hand
SERVO_N_M = 30.0e3  # as stiff as the cable: the drive adds no more sag than the tendon does
SERVO_DAMPING_N_S_M = 800.0  # critical for the reflected rotor: 2 sqrt(k J) / r, J = 5.1e-4 kg m2, r = 10 mm


def _distal(length_m: float, radius_m: float) -> Geom:
    """A capsule that fills a phalanx from its joint to the next."""
    return Geom(shape="capsule", size_m=(radius_m, length_m), origin_m=(0.0, length_m / 2.0, 0.0))


def _joint(
    name: str,
    parent: str,
    child: str,
    axis: Vec3,
    range_deg: tuple[float, float],
    *,
    torque_nm: float,
    speed_rad_s: float,
    origin_m: Vec3 = ZERO,
    rpy_rad: Vec3 = ZERO,
    home_deg: float = 0.0,
    damping_nm_s: float = 0.005,
    source: str,
) -> Joint:
    return Joint(
        name=name,
        parent=parent,
        child=child,
        origin_m=origin_m,
        rpy_rad=rpy_rad,
        axis=axis,
        lower_rad=radians(range_deg[0]),
        upper_rad=radians(range_deg[1]),
        home_rad=radians(home_deg),
        max_torque_nm=torque_nm,
        max_speed_rad_s=speed_rad_s,
        damping_nm_s=damping_nm_s,  # menagerie has 0.05; with the tendon model on, its friction is counted there
        source=source,
    )


FLEX: Vec3 = (1.0, 0.0, 0.0)  # distal towards the palm
RADIAL: Vec3 = (0.0, 0.0, -1.0)  # distal towards the thumb side
ULNAR: Vec3 = (0.0, 0.0, 1.0)
THUMB_FLEX: Vec3 = (0.0, 0.0, 1.0)  # distal across the palm


def _finger(
    finger: str, parent: str, origin_m: Vec3, abduction_deg: tuple[float, float]
) -> tuple[list[Link], list[Joint]]:
    knuckle, proximal, middle, distal = (f"{finger}_{part}" for part in ("knuckle", "proximal", "middle", "distal"))
    masses = "menagerie link masses 8, 30, 17, 13 g"
    links = [
        Link(
            name=knuckle, mass_kg=0.008, geoms=(Geom(shape="sphere", size_m=(0.008,), collides=False),), source=masses
        ),
        Link(name=proximal, mass_kg=0.030, geoms=(_distal(PROXIMAL_M, FINGER_RADIUS_M),), source=masses),
        Link(name=middle, mass_kg=0.017, geoms=(_distal(MIDDLE_M, FINGER_RADIUS_M),), source=masses),
        Link(name=distal, mass_kg=0.013, geoms=(_distal(DISTAL_M - TIP_RADIUS_M, TIP_RADIUS_M),), source=masses),
    ]
    ranges = "docs/robot.md, range table: Shadow, ORCA, human"
    joints = [
        _joint(
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
        _joint(
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
        _joint(
            f"{finger}_pip",
            proximal,
            middle,
            FLEX,
            (0.0, 105.0),
            home_deg=20.0,
            origin_m=(0.0, PROXIMAL_M, 0.0),
            torque_nm=0.9,
            speed_rad_s=19.0,
            source=ranges,
        ),
        _joint(
            f"{finger}_dip",
            middle,
            distal,
            FLEX,
            (-5.0, 85.0),
            home_deg=10.0,
            origin_m=(0.0, MIDDLE_M, 0.0),
            torque_nm=0.65,
            speed_rad_s=25.0,
            source=ranges,
        ),
    ]
    return links, joints


def _thumb() -> tuple[list[Link], list[Joint]]:
    masses = "menagerie thumb link masses 10, 40, 5, 20, 17 g"
    links = [
        Link(
            name="thumb_base",
            mass_kg=0.010,
            geoms=(Geom(shape="sphere", size_m=(0.011,), collides=False),),
            source=masses,
        ),
        Link(name="thumb_proximal", mass_kg=0.040, geoms=(_distal(THUMB_PROXIMAL_M, 0.011),), source=masses),
        Link(
            name="thumb_hub",
            mass_kg=0.005,
            geoms=(Geom(shape="sphere", size_m=(0.010,), collides=False),),
            source=masses,
        ),
        Link(name="thumb_middle", mass_kg=0.020, geoms=(_distal(THUMB_MIDDLE_M, 0.010),), source=masses),
        Link(
            name="thumb_distal",
            mass_kg=0.017,
            geoms=(_distal(THUMB_DISTAL_M - TIP_RADIUS_M, TIP_RADIUS_M + 0.0005),),
            source=masses,
        ),
    ]
    ranges = "docs/robot.md, range table: Shadow TH5..TH1, ORCA, human"
    joints = [
        # The base points 45 degrees to the thumb side; rotation turns the thumb's flexion plane across the palm (TH5).
        _joint(
            "thumb_rotation",
            "palm",
            "thumb_base",
            (0.0, -1.0, 0.0),
            (-55.0, 60.0),
            origin_m=THUMB_BASE_M,
            rpy_rad=(0.0, 0.0, -pi / 4),
            torque_nm=2.5,
            speed_rad_s=8.6,
            source=ranges,
        ),
        _joint(
            "thumb_abduction",
            "thumb_base",
            "thumb_proximal",
            FLEX,
            (0.0, 70.0),
            home_deg=20.0,
            torque_nm=2.5,
            speed_rad_s=8.6,
            source=ranges,
        ),
        _joint(
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
        _joint(
            "thumb_mp",
            "thumb_hub",
            "thumb_middle",
            THUMB_FLEX,
            (-30.0, 60.0),
            home_deg=10.0,
            torque_nm=1.1,
            speed_rad_s=19.0,
            source=ranges,
        ),
        _joint(
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


def _forearm() -> tuple[list[Link], list[Joint]]:
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
        _joint(
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
        _joint(
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
        _joint(
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


def _tendon(
    joint: str,
    flexor_mm: float,
    extensor_mm: float,
    *,
    passes: tuple[tuple[str, float], ...] = (),
    motor: Motor = SMALL,
    stiffness_n_m: float = CABLE_N_M,
    servo_n_m: float = SERVO_N_M,
    source: str,
) -> Tendon:
    """A pull-pull pair; `passes` lists the other joints it crosses, with the flexor's arm there [mm].

    Every arm of the extensor, and its step of the spool, is the flexor's times extensor_mm / flexor_mm, so that neither cable
    runs slack whatever the posture: the stepped spool and the stepped idlers of a pull-pull drive.
    """
    ratio = extensor_mm / flexor_mm
    arms = [(joint, flexor_mm), *passes]
    return Tendon(
        name=joint,
        motor=motor,
        joint=joint,
        arms=tuple(
            Arm(
                joint=name,
                flexor_m=mm * 1e-3,
                extensor_m=mm * 1e-3 * ratio,
                by_encoder=name != joint and name.startswith("wrist"),
            )
            for name, mm in arms
        ),
        spool_flexor_m=SPOOL_M,
        spool_extensor_m=SPOOL_M * ratio,
        stiffness_n_m=stiffness_n_m,
        damping_n_s_m=CABLE_DAMPING_N_S_M,
        pretension_n=PRETENSION_N,
        friction=CAPSTAN_MU,
        wrap_rad=WRAP_RAD,
        servo_stiffness_n_m=servo_n_m,
        servo_damping_n_s_m=SERVO_DAMPING_N_S_M,
        source=source,
    )


def _tendons() -> list[Tendon]:
    """25 pairs. Finger tendons pass the palmar side of the wrist at 11-14 mm (FDP and FDS of MyoHand: 11.6-15.3 mm) and the
    deviation and pronation axes through their centres (the wrist's cable bundle is turned there, so both stay uncoupled)."""
    pulleys = "docs/robot.md, pulley table; wrist arms from MyoHand"
    forearm = "docs/robot.md: pronation 25 mm, wrist 18 mm (Adroit wrist tendons)"
    wrist = {"motor": LARGE, "stiffness_n_m": WRIST_CABLE_N_M, "servo_n_m": 2.0 * WRIST_CABLE_N_M}
    heavy = {"motor": LARGE, "stiffness_n_m": 2.0 * CABLE_N_M, "servo_n_m": 2.0 * SERVO_N_M}  # two strands
    tendons = [
        _tendon("forearm_pronation", 25.0, 25.0, source=forearm, **wrist),
        _tendon("wrist_flexion", 18.0, 18.0, source=forearm, **wrist),
        _tendon("wrist_deviation", 18.0, 18.0, source=forearm, **wrist),
    ]
    for finger in ("index", "middle", "ring", "little"):
        over_arch = (("little_arch", 6.0),) if finger == "little" else ()
        if finger == "little":
            tendons.append(_tendon("little_arch", 10.0, 10.0, passes=(("wrist_flexion", 12.0),), source=pulleys))
        mcp, pip = f"{finger}_mcp", f"{finger}_pip"
        tendons += [
            _tendon(f"{finger}_abduction", 8.0, 8.0, source=pulleys),
            _tendon(mcp, 10.0, 8.0, passes=(("wrist_flexion", 14.0), *over_arch), source=pulleys),
            _tendon(pip, 8.0, 6.0, passes=(("wrist_flexion", 12.0), *over_arch, (mcp, 8.0)), source=pulleys),
            _tendon(
                f"{finger}_dip",
                6.0,
                4.0,
                passes=(("wrist_flexion", 11.0), *over_arch, (mcp, 7.0), (pip, 6.0)),
                source=pulleys,
            ),
        ]
    tendons += [
        _tendon("thumb_rotation", 14.0, 14.0, source=pulleys, **heavy),
        _tendon("thumb_abduction", 14.0, 14.0, source=pulleys, **heavy),
        _tendon("thumb_mp_abduction", 8.0, 8.0, passes=(("thumb_abduction", 8.0),), source=pulleys),
        _tendon("thumb_mp", 8.0, 8.0, passes=(("wrist_flexion", 11.0),), source=pulleys),
        _tendon("thumb_ip", 8.0, 8.0, passes=(("wrist_flexion", 11.0), ("thumb_mp", 8.0)), source=pulleys),
    ]
    return tendons


def hand22() -> RobotModel:
    """The 22-joint hand on its forearm. Palm up, fingers along world y, base fixed at the elbow."""
    links, joints = _forearm()
    arch = _joint(
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
        more_links, more_joints = _finger(finger, parent, origin_m, abduction_deg)
        links += more_links
        joints += more_joints
    thumb_links, thumb_joints = _thumb()
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
        tendons=tuple(_tendons()),
        tips=tuple(tips),
    )
