"""What all hands here are built with: capsule phalanges, hinges, pull-pull pairs, and the cables' numbers. SI units, radians.

Palm frame at the wrist's deviation axis: x to the thumb side, y to the fingertips, z out of the palm. Right hands.
"""

from math import radians, sqrt

from robot.description.model import ZERO, Arm, Geom, Joint, Motor, Tendon, Vec3
from robot.description.motors import SMALL, SPOOL_M

# Cable: 0.8 mm UHMWPE braid, 26-42 kN/m over 0.25-0.40 m of run (derived from EA/L with a braid modulus; docs/robot.md).
CABLE_N_M = 30.0e3
WRIST_CABLE_N_M = 100.0e3  # 1.5 mm braid: stiffness grows with the cross section
CABLE_DAMPING_S = (
    5.0e-4  # damping over stiffness, a property of the braid; assumed: 15 N s/m at 30 kN/m, ratio about 0.05
)
PRETENSION_N = 4.0  # of the flexor; in-vivo passive tendon force is 1-9 N (Schuind 1992)
CAPSTAN_MU = 0.08  # UHMWPE on smooth aluminium about 0.10, less over the idlers
WRAP_RAD = 1.5  # assumed: guides at the spool, wrist and metacarpal together, straight hand
SERVO_N_M = 30.0e3  # as stiff as the cable: the drive adds no more sag than the tendon does


FLEX: Vec3 = (1.0, 0.0, 0.0)  # distal towards the palm
RADIAL: Vec3 = (0.0, 0.0, -1.0)  # distal towards the thumb side
ULNAR: Vec3 = (0.0, 0.0, 1.0)
THUMB_FLEX: Vec3 = (0.0, 0.0, 1.0)  # distal across the palm


def phalanx(length_m: float, radius_m: float) -> Geom:
    """A capsule that fills a phalanx from its joint to the next."""
    return Geom(shape="capsule", size_m=(radius_m, length_m), origin_m=(0.0, length_m / 2.0, 0.0))


def hinge(
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


def pull_pull(
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
    runs slack whatever the posture: the stepped spool and the stepped idlers of a pull-pull drive. The servo is critically damped
    for the rotor it turns: half of that lets wrist and thumb ring for half a second, twice that makes fingers slow.
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
        damping_n_s_m=CABLE_DAMPING_S * stiffness_n_m,
        pretension_n=PRETENSION_N,
        friction=CAPSTAN_MU,
        wrap_rad=WRAP_RAD,
        servo_stiffness_n_m=servo_n_m,
        servo_damping_n_s_m=2.0 * sqrt(servo_n_m * motor.spool_inertia_kg_m2) / SPOOL_M,
        source=source,
    )
