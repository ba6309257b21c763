"""Gear drives of the body: peak torque and speed between published humanoids, windings and thermal paths from stated assumptions.

Torque and speed lie between Unitree H1 and RobotEra XBot-L (their URDFs): hip 200 N m (both), knee 250 to 300 at 12 to 14 rad/s, ankle
40 to 100, arms of G1 and H1-2 18 to 40; the numbers here are the proposal in docs/robot.md. Assumed: a 48 V bus, 85 % for one
planetary or cycloidal stage or two, a stall torque of 2.5 times the peak that the drive allows, rotors that make 0.05 kg m2 at the big joints.
Servo gains of the legs are those with which a body of this class learned to walk (docs/robot.md).
"""

from dataclasses import dataclass

from robot.description.actuators import Motor

BUS_V = 48.0
EFFICIENCY = 0.85
STALL_OVER_PEAK = 2.5


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One size of drive: the motor with its gear, and the gains it is run with."""

    motor: Motor
    servo_stiffness_nm_rad: float
    servo_damping_nm_s_rad: float
    damping_nm_s: float
    source: str


def frame(
    name: str,
    peak_nm: float,
    speed_rad_s: float,
    gear_ratio: float,
    reflected_kg_m2: float,
    kp: float,
    kd: float,
    mass_kg: float,
) -> Frame:
    """A drive from what its joint shows; `mass_kg` of copper and iron sets the heat capacities and paths."""
    kt = BUS_V / (speed_rad_s * gear_ratio)  # back EMF balances the bus at no-load speed
    amp_per_nm = 1.0 / (kt * gear_ratio * EFFICIENCY)
    source = f"{peak_nm:g} N m, {speed_rad_s:g} rad/s between H1 and XBot-L; winding, rotor and thermal paths assumed, see module text"
    motor = Motor(
        name=name,
        bus_v=BUS_V,
        resistance_ohm=BUS_V / (STALL_OVER_PEAK * peak_nm * amp_per_nm),
        torque_constant_nm_a=kt,
        rotor_inertia_kg_m2=reflected_kg_m2 / gear_ratio**2,
        gear_ratio=gear_ratio,
        gear_efficiency=EFFICIENCY,
        peak_current_a=peak_nm * amp_per_nm,
        winding_k_w=0.5 / mass_kg,
        case_k_w=1.5 / mass_kg,
        winding_j_k=80.0 * mass_kg,
        case_j_k=400.0 * mass_kg,
        derate_from_c=110.0,
        max_winding_c=125.0,
        source=source,
    )
    return Frame(
        motor=motor,
        servo_stiffness_nm_rad=kp,
        servo_damping_nm_s_rad=kd,
        damping_nm_s=0.002 * peak_nm,  # seals and bearings: 0.2 % of the peak torque per rad/s
        source=source,
    )


FRAMES = {
    "hip_yaw": frame("hip_yaw", 100.0, 14.0, 25.0, 0.030, 200.0, 6.0, 1.2),
    "hip_roll": frame("hip_roll", 150.0, 14.0, 25.0, 0.050, 320.0, 8.0, 1.6),
    "hip_pitch": frame("hip_pitch", 200.0, 14.0, 25.0, 0.050, 320.0, 8.0, 1.8),
    "knee": frame("knee", 250.0, 14.0, 25.0, 0.050, 400.0, 9.6, 2.0),
    "ankle_pitch": frame("ankle_pitch", 90.0, 12.0, 36.0, 0.040, 128.0, 4.8, 1.0),
    "ankle_roll": frame("ankle_roll", 45.0, 12.0, 36.0, 0.020, 128.0, 4.8, 0.6),
    "waist_yaw": frame("waist_yaw", 150.0, 12.0, 25.0, 0.050, 300.0, 8.0, 1.6),
    "waist_pitch": frame("waist_pitch", 120.0, 12.0, 25.0, 0.050, 300.0, 8.0, 1.6),
    "shoulder": frame("shoulder", 60.0, 12.0, 36.0, 0.020, 100.0, 3.0, 0.8),
    "shoulder_yaw": frame("shoulder_yaw", 40.0, 14.0, 36.0, 0.015, 80.0, 2.5, 0.6),
    "elbow": frame("elbow", 50.0, 14.0, 36.0, 0.015, 80.0, 2.5, 0.6),
    "forearm_roll": frame("forearm_roll", 20.0, 18.0, 50.0, 0.006, 30.0, 1.0, 0.3),
    "wrist": frame("wrist", 15.0, 18.0, 50.0, 0.004, 20.0, 0.7, 0.25),
}
