"""The two forearm motors, from what is published of them and, where nothing is, from stated assumptions.

Published (Shadow Robot, sr_dexterous_hand_documentation, md_motor_unit.rst): small unit 3 W, 131:1, tendon load 65 N
continuous and 110 N at full power; large unit 6 W, 128:1, 190 N. Windings, rotors and thermal paths are not published.
Assumed: a spool of 10 mm; a no-load cable speed of 150 mm/s (42 mm of full flexor excursion in about 0.3 s; an older Shadow
hand closes in 0.2 s), 120 for the large; a stall tension of twice the small unit's peak, and for the large one what gives it
twice the small one's power, as published: 2 * 220 N * 150 mm/s / 120 mm/s = 550 N; the drive's current limit holds both at the
published load; 75 % for a four-stage planetary gear; rotors of 0.3 and 0.8 g cm2 (13 and 16 mm coreless classes).
Thermal paths are what makes the published continuous loads true: at 65 and 190 N for ever, in air of 25 deg C, windings settle
at 106 and 109 deg C, just below where the drive begins to cut. That takes 16 and 6 K/W from winding to air, a third to a half of
what data sheets give for such motors free in air, so they are clamped in a metal frame. docs/robot.md works it through.
"""

from robot.description.model import Motor

SPOOL_M = 0.010
GEAR_EFFICIENCY = 0.75  # four planetary stages at 93 %
BUS_V = 24.0


def gear_motor(
    name: str,
    *,
    gear_ratio: float,
    peak_n: float,
    stall_n: float,
    no_load_m_s: float,
    rotor_inertia_kg_m2: float,
    winding_k_w: float,
    case_k_w: float,
    winding_j_k: float,
    case_j_k: float,
    source: str,
) -> Motor:
    """A motor from what its tendon shows: loads and speed of the cable on a 10 mm spool."""
    kt = BUS_V * SPOOL_M / (no_load_m_s * gear_ratio)  # back EMF balances the bus at no-load speed
    amp_per_n = SPOOL_M / (kt * gear_ratio * GEAR_EFFICIENCY)
    return Motor(
        name=name,
        bus_v=BUS_V,
        resistance_ohm=BUS_V / (stall_n * amp_per_n),
        torque_constant_nm_a=kt,
        rotor_inertia_kg_m2=rotor_inertia_kg_m2,
        gear_ratio=gear_ratio,
        gear_efficiency=GEAR_EFFICIENCY,
        peak_current_a=peak_n * amp_per_n,
        winding_k_w=winding_k_w,
        case_k_w=case_k_w,
        winding_j_k=winding_j_k,
        case_j_k=case_j_k,
        derate_from_c=110.0,
        max_winding_c=125.0,
        source=source,
    )


SMALL = gear_motor(
    "small",
    gear_ratio=131.0,
    peak_n=110.0,
    stall_n=220.0,
    no_load_m_s=0.150,
    rotor_inertia_kg_m2=3.0e-8,
    winding_k_w=8.0,
    case_k_w=8.0,
    winding_j_k=1.0,
    case_j_k=18.0,
    source="Shadow md_motor_unit.rst (131:1, 110 N, 3 W); winding, rotor and thermal paths assumed, see module text",
)

LARGE = gear_motor(
    "large",
    gear_ratio=128.0,
    peak_n=190.0,
    stall_n=550.0,
    no_load_m_s=0.120,
    rotor_inertia_kg_m2=8.0e-8,
    winding_k_w=2.5,
    case_k_w=3.5,
    winding_j_k=2.5,
    case_j_k=40.0,
    source="Shadow md_motor_unit.rst (128:1, 190 N, 6 W); winding, rotor and thermal paths assumed, see module text",
)
