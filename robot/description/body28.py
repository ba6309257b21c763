"""body28: a person's proportions, 1.73 m and 57 kg, with 28 joints on gear drives: 12 in the legs, 2 in the waist, 14 in the arms.

Body frame: x forward, y left, z up; every link's frame is parallel to it when all joints are at zero (standing, arms hanging).
A positive angle flexes, abducts, or turns outward, on both sides. Masses: Dempster/Winter fractions of 57 kg, lengths: Drillis and
Contini, both as in docs/robot.md; 25 motors make each forearm 3 kg, which the trunk pays for.
"""

from math import cos, pi, radians

from robot.description.actuators import Drive
from robot.description.body_motors import FRAMES, Frame
from robot.description.model import Geom, Joint, Link, RobotModel, Tip, Vec3

TOTAL_KG = 57.0
FOREARM_KG = 3.0  # Shadow's forearm with 20 motors; a flesh one is 0.91
FOOT_M, SHANK_M, THIGH_M = 0.067, 0.426, 0.424  # ankle height, lengths
HIP_M, SHOULDER_M, SHOULDER_UP_M = 0.080, 0.223, 0.498  # half breadths; shoulders above hips
UPPER_ARM_M, FOREARM_M, HAND_M = 0.322, 0.253, 0.187
WAIST_UP_M = 0.10  # assumed: above the hips
KNEE_HOME_DEG = 30.0  # standing with bent knees, feet under the hips

DOWN: Vec3 = (pi / 2.0, 0.0, 0.0)  # a capsule's y axis along z
FORWARD, BACK = (0.0, -1.0, 0.0), (0.0, 1.0, 0.0)  # axes that bring what hangs down forward, or back
LENGTHS = "Drillis and Contini proportions of 1.73 m"
MASSES = "Dempster/Winter mass fractions of 57 kg"


def _bar(radius_m: float, length_m: float) -> Geom:
    """A capsule that hangs from its joint and ends at the next."""
    return Geom(shape="capsule", size_m=(radius_m, length_m), origin_m=(0.0, 0.0, -length_m / 2.0), rpy_rad=DOWN)


def _ball(radius_m: float) -> Geom:
    return Geom(shape="sphere", size_m=(radius_m,), collides=False)


class _Assembly:
    """Links, joints and drives in the order they are added."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.joints: list[Joint] = []
        self.drives: list[Drive] = []

    def link(self, name: str, mass_kg: float, *geoms: Geom) -> None:
        self.links.append(Link(name=name, mass_kg=mass_kg, geoms=geoms, source=MASSES))

    def joint(
        self,
        name: str,
        parent: str,
        child: str,
        axis: Vec3,
        range_deg: tuple[float, float],
        frame: Frame,
        *,
        at_m: Vec3 = (0.0, 0.0, 0.0),
        home_deg: float = 0.0,
        source: str,
    ) -> None:
        motor = frame.motor
        self.joints.append(
            Joint(
                name=name,
                parent=parent,
                child=child,
                origin_m=at_m,
                axis=axis,
                lower_rad=radians(range_deg[0]),
                upper_rad=radians(range_deg[1]),
                home_rad=radians(home_deg),
                max_torque_nm=motor.peak_torque_nm,
                max_speed_rad_s=motor.no_load_speed_rad_s,
                damping_nm_s=frame.damping_nm_s,
                source=source,
            )
        )
        self.drives.append(
            Drive(
                name=name,
                motor=motor,
                joint=name,
                servo_stiffness_nm_rad=frame.servo_stiffness_nm_rad,
                servo_damping_nm_s_rad=frame.servo_damping_nm_s_rad,
                source=frame.source,
            )
        )


def _leg(body: _Assembly, side: str, left: float) -> None:
    """Hip yaw, roll and pitch, knee, ankle pitch and roll; `left` is +1 or -1."""
    name = lambda part: f"{side}_{part}"  # noqa: E731
    ranges = "Unitree G1 29dof URDF, narrowed to a person's"
    body.link(name("hip"), 0.6, _ball(0.05))
    body.link(name("groin"), 0.8, _ball(0.05))
    body.link(name("thigh"), 5.70 - 1.4, _bar(0.065, THIGH_M))
    body.link(name("shank"), 2.65 - 0.3, _bar(0.045, SHANK_M))
    body.link(name("ankle"), 0.3, _ball(0.035))
    sole = Geom(shape="box", size_m=(0.245, 0.090, 0.030), origin_m=(0.045, 0.0, -FOOT_M + 0.015))
    body.link(name("foot"), 0.83, sole)
    out: Vec3 = (0.0, 0.0, left)
    hip_at: Vec3 = (0.0, left * HIP_M, 0.0)
    half = KNEE_HOME_DEG / 2.0
    for joint, parent, child, axis, range_deg, frame, at_m, home_deg in (
        ("hip_yaw", "pelvis", name("hip"), out, (-45.0, 60.0), "hip_yaw", hip_at, 0.0),
        ("hip_roll", name("hip"), name("groin"), (left, 0.0, 0.0), (-25.0, 60.0), "hip_roll", None, 0.0),
        ("hip_pitch", name("groin"), name("thigh"), FORWARD, (-40.0, 125.0), "hip_pitch", None, half),
        ("knee", name("thigh"), name("shank"), BACK, (-5.0, 145.0), "knee", (0.0, 0.0, -THIGH_M), KNEE_HOME_DEG),
        (
            "ankle_pitch",
            name("shank"),
            name("ankle"),
            FORWARD,
            (-50.0, 30.0),
            "ankle_pitch",
            (0.0, 0.0, -SHANK_M),
            half,
        ),
        ("ankle_roll", name("ankle"), name("foot"), (left, 0.0, 0.0), (-15.0, 15.0), "ankle_roll", None, 0.0),
    ):
        at = at_m or (0.0, 0.0, 0.0)
        body.joint(
            name(joint), parent, child, axis, range_deg, FRAMES[frame], at_m=at, home_deg=home_deg, source=ranges
        )


def _arm(body: _Assembly, side: str, left: float, *, hand: bool) -> None:
    """Shoulder pitch, roll and yaw, elbow; then, unless a described hand takes their place, forearm roll and two wrist joints."""
    name = lambda part: f"{side}_{part}"  # noqa: E731
    ranges = "Unitree G1 29dof URDF and human ranges"
    body.link(name("shoulder"), 0.30, _ball(0.045))
    body.link(name("armpit"), 0.30, _ball(0.045))
    body.link(name("upper_arm"), 1.00, _bar(0.040, UPPER_ARM_M))
    shoulder: Vec3 = (0.0, left * SHOULDER_M, SHOULDER_UP_M - WAIST_UP_M)
    parts = [
        ("shoulder_pitch", "thorax", name("shoulder"), FORWARD, (-60.0, 170.0), "shoulder", shoulder, 0.0),
        ("shoulder_roll", name("shoulder"), name("armpit"), (left, 0.0, 0.0), (-10.0, 120.0), "shoulder", None, 8.0),
        ("shoulder_yaw", name("armpit"), name("upper_arm"), (0.0, 0.0, left), (-80.0, 80.0), "shoulder_yaw", None, 0.0),
    ]
    elbow_at: Vec3 = (0.0, 0.0, -UPPER_ARM_M)
    if hand:
        body.link(name("elbow"), 0.91 - 0.41, _bar(0.035, 0.03))
        parts += [("elbow_flexion", name("upper_arm"), name("elbow"), FORWARD, (0.0, 140.0), "elbow", elbow_at, 20.0)]
        parts += [
            (
                "forearm_roll",
                name("elbow"),
                name("forearm"),
                (0.0, 0.0, left),
                (-85.0, 85.0),
                "forearm_roll",
                None,
                0.0,
            ),
            (
                "wrist_flexion",
                name("forearm"),
                name("carpus"),
                (left, 0.0, 0.0),
                (-65.0, 65.0),
                "wrist",
                (0.0, 0.0, -FOREARM_M),
                0.0,
            ),
            ("wrist_deviation", name("carpus"), name("hand"), FORWARD, (-20.0, 30.0), "wrist", None, 0.0),
        ]
        body.link(name("forearm"), FOREARM_KG - 0.6, _bar(0.040, FOREARM_M))
        body.link(name("carpus"), 0.10, _ball(0.025))
        palm = Geom(shape="box", size_m=(0.085, 0.028, HAND_M), origin_m=(0.0, 0.0, -HAND_M / 2.0))
        body.link(name("hand"), 0.34, palm)
    for joint, parent, child, axis, range_deg, frame, at_m, home_deg in parts:
        at = at_m or (0.0, 0.0, 0.0)
        body.joint(
            name(joint), parent, child, axis, range_deg, FRAMES[frame], at_m=at, home_deg=home_deg, source=ranges
        )


def trunk_and_limbs(*, hands: bool, carried_kg: float = 0.0) -> _Assembly:
    """The body's parts; the trunk weighs what is left of 57 kg after everything else.

    Args:
        hands: With forearm and a plain hand; False leaves the arms at the upper arm, for described hands.
        carried_kg: Mass that is added to the arms afterwards.
    """
    body = _Assembly()
    pelvis = Geom(shape="box", size_m=(0.16, 0.24, 0.13), origin_m=(0.0, 0.0, 0.035))
    chest = Geom(shape="box", size_m=(0.20, 0.30, 0.46), origin_m=(0.0, 0.0, 0.22))  # carries the head's mass as well
    head = Geom(
        shape="sphere", size_m=(0.11,), origin_m=(0.0, 0.0, 1.73 - 0.11 - (FOOT_M + SHANK_M + THIGH_M) - WAIST_UP_M)
    )
    body.link("pelvis", 6.9, pelvis)
    body.link("abdomen", 3.0, Geom(shape="cylinder", size_m=(0.09, 0.06), rpy_rad=DOWN, collides=False))
    body.link("thorax", 1.0, chest, head)
    legs = _Assembly()
    for side, left in (("left", 1.0), ("right", -1.0)):
        _leg(legs, side, left)
    arms = _Assembly()
    for side, left in (("left", 1.0), ("right", -1.0)):
        _arm(arms, side, left, hand=hands)
    ranges = "human lumbar and thoracic spine together"
    waist_at: Vec3 = (0.0, 0.0, WAIST_UP_M)
    waist = _Assembly()
    waist.joint(
        "waist_yaw",
        "pelvis",
        "abdomen",
        (0.0, 0.0, 1.0),
        (-60.0, 60.0),
        FRAMES["waist_yaw"],
        at_m=waist_at,
        source=ranges,
    )
    waist.joint("waist_pitch", "abdomen", "thorax", BACK, (-20.0, 60.0), FRAMES["waist_pitch"], source=ranges)
    for part in (legs, waist, arms):
        body.links += part.links
        body.joints += part.joints
        body.drives += part.drives
    rest_kg = TOTAL_KG - carried_kg - sum(link.mass_kg for link in body.links if link.name != "thorax")
    body.links = [
        Link(
            name=x.name,
            mass_kg=rest_kg,
            geoms=x.geoms,
            source="trunk, neck and head, less what the forearms' motors weigh",
        )
        if x.name == "thorax"
        else x
        for x in body.links
    ]
    return body


def stance_height_m() -> float:
    """Height of the hips over the soles in the home posture [m]."""
    half = radians(KNEE_HOME_DEG / 2.0)
    return FOOT_M + (SHANK_M + THIGH_M) * cos(half)


def feet() -> tuple[Tip, ...]:
    """The middle of each sole."""
    return tuple(
        Tip(name=f"{side}_foot", link=f"{side}_foot", offset_m=(0.045, 0.0, -FOOT_M)) for side in ("left", "right")
    )


def body28() -> RobotModel:
    """The body with plain hands, free to move, standing with slightly bent knees."""
    body = trunk_and_limbs(hands=True)
    palms = tuple(
        Tip(name=f"{side}_hand", link=f"{side}_hand", offset_m=(0.0, 0.0, -HAND_M)) for side in ("left", "right")
    )
    return RobotModel(
        name="body28",
        base_link="pelvis",
        links=tuple(body.links),
        joints=tuple(body.joints),
        tendons=(),
        drives=tuple(body.drives),
        tips=(*feet(), *palms),
        floating=True,
        base_height_m=stance_height_m(),
    )
