"""What moves a robot: motors by their data sheets, tendons in pull-pull pairs, gear drives. SI units, radians; frozen and checked."""

from dataclasses import dataclass
from math import isfinite, sqrt

from robot.description.parts import finite, require

COPPER_PER_K = 0.00393  # temperature coefficient of copper's resistance at 25 deg C


@dataclass(frozen=True, kw_only=True)
class Motor:
    """A brushed DC gear motor by its data sheet. Everything about tendons is in `Tendon`.

    Attributes:
        bus_v: Supply voltage [V].
        resistance_ohm: Winding resistance at 25 deg C [ohm].
        torque_constant_nm_a: kt = ke of the rotor, before the gear [N m/A] = [V s/rad].
        rotor_inertia_kg_m2: Of the rotor alone [kg m^2].
        gear_ratio: Rotor turns per spool turn.
        gear_efficiency: Share of the rotor's work that reaches the spool, 0..1.
        peak_current_a: Limit set in the drive [A].
        winding_k_w, case_k_w: Thermal resistance winding to case, case to ambient [K/W].
        winding_j_k, case_j_k: Heat capacity of winding and case [J/K].
        derate_from_c, max_winding_c: The drive cuts current linearly between these winding temperatures [deg C].
        source: Where the numbers come from.
    """

    name: str
    bus_v: float
    resistance_ohm: float
    torque_constant_nm_a: float
    rotor_inertia_kg_m2: float
    gear_ratio: float
    gear_efficiency: float
    peak_current_a: float
    winding_k_w: float
    case_k_w: float
    winding_j_k: float
    case_j_k: float
    derate_from_c: float
    max_winding_c: float
    source: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str):
                require(value > 0.0 and isfinite(value), f"motor {self.name}", f"{name} must be > 0", value)
        require(self.gear_efficiency <= 1.0, f"motor {self.name}", "gear_efficiency must be <= 1", self.gear_efficiency)
        require(
            self.derate_from_c < self.max_winding_c,
            f"motor {self.name}",
            "derate_from_c must be < max_winding_c",
            self.derate_from_c,
        )

    @property
    def spool_inertia_kg_m2(self) -> float:
        """Rotor inertia as felt at the spool, N^2 J [kg m^2]."""
        return self.gear_ratio**2 * self.rotor_inertia_kg_m2

    @property
    def continuous_current_a(self) -> float:
        """Current at which the winding settles where the drive begins to cut, in air of 25 deg C, and at most the peak [A].

        i^2 R (1 + a (T - 25)) (R_wc + R_ca) = T - 25 at T = `derate_from_c`.
        """
        rise_k = self.derate_from_c - 25.0
        ohm = self.resistance_ohm * (1.0 + COPPER_PER_K * rise_k)
        return min(self.peak_current_a, sqrt(rise_k / (ohm * (self.winding_k_w + self.case_k_w))))

    @property
    def peak_torque_nm(self) -> float:
        """Spool torque at the current limit [N m]."""
        return self.peak_current_a * self.torque_constant_nm_a * self.gear_ratio * self.gear_efficiency

    @property
    def no_load_speed_rad_s(self) -> float:
        """Spool speed at bus voltage without load [rad/s]."""
        return self.bus_v / (self.torque_constant_nm_a * self.gear_ratio)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a tendon passes one joint: moment arms, positive where the flexor shortens as the joint angle grows.

    `flexor_m` and `extensor_m` hold at angle zero; both change by their slope per radian.
    `wrap` is how much wrap angle one radian of the joint adds to the tendon's contact with its guides [rad/rad].
    `by_encoder`: the drive compensates for this joint where its encoder says it is, not where it was told to go.
    """

    joint: str
    flexor_m: float
    extensor_m: float
    flexor_slope_m: float = 0.0
    extensor_slope_m: float = 0.0
    wrap: float = 1.0
    by_encoder: bool = False

    def __post_init__(self) -> None:
        finite(f"arm over {self.joint}", self)


@dataclass(frozen=True, kw_only=True)
class Tendon:
    """A pull-pull pair on one stepped spool in the forearm: two cables, one motor, one joint it is meant for.

    Attributes:
        name: Same as the motor's place: one motor, one name.
        motor: The gear motor that turns the spool.
        joint: The joint the pair drives.
        arms: Every joint the pair passes, the driven one included.
        spool_flexor_m, spool_extensor_m: Radii of the two steps of the spool [m].
        stiffness_n_m: EA/L of one cable from spool to insertion [N/m].
        damping_n_s_m: Internal damping of one cable [N s/m].
        pretension_n: Tension of the flexor at rest [N]. The extensor's balances it on the stepped spool, so that a hand at rest
            needs no current: `extensor_pretension_n`.
        friction: Capstan coefficient mu.
        wrap_rad: Wrap angle over all guides at the zero posture [rad].
        servo_stiffness_n_m, servo_damping_n_s_m: Position servo of the drive, in cable units [N/m], [N s/m].
        source: Where the numbers come from.
        also: Further joints that the pair drives and no other motor does: a synergy.
    """

    name: str
    motor: Motor
    joint: str
    arms: tuple[Arm, ...]
    spool_flexor_m: float
    spool_extensor_m: float
    stiffness_n_m: float
    damping_n_s_m: float
    pretension_n: float
    friction: float
    wrap_rad: float
    servo_stiffness_n_m: float
    servo_damping_n_s_m: float
    source: str
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"tendon {self.name}"
        finite(where, self)
        for name in ("spool_flexor_m", "spool_extensor_m", "stiffness_n_m", "servo_stiffness_n_m"):
            require(getattr(self, name) > 0.0, where, f"{name} must be > 0", getattr(self, name))
        for name in ("damping_n_s_m", "pretension_n", "friction", "wrap_rad", "servo_damping_n_s_m"):
            require(getattr(self, name) >= 0.0, where, f"{name} must be >= 0", getattr(self, name))
        names = [arm.joint for arm in self.arms]
        for joint in self.driven:
            require(joint in names, where, f"its own joint {joint!r} must be among its arms", names)
        require(len(set(names)) == len(names), where, "passes one joint twice", names)

    @property
    def driven(self) -> tuple[str, ...]:
        """The joints that the pair drives, the one it is named for first."""
        return (self.joint, *self.also)

    @property
    def extensor_pretension_n(self) -> float:
        """Tension of the extensor at rest, where both cables turn the spool alike [N]."""
        return self.pretension_n * self.spool_flexor_m / self.spool_extensor_m

    def ratio(self, joint: str, angle_rad: float = 0.0) -> float:
        """Spool angle per angle of a joint that the pair passes, where that joint stands."""
        arm = next(arm for arm in self.arms if arm.joint == joint)
        return (arm.flexor_m + arm.flexor_slope_m * angle_rad) / self.spool_flexor_m


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A gear motor that sits on its joint: no cable, no elasticity; the rotor's reflected inertia is the joint's armature.

    Attributes:
        name: The motor's place; one name among tendons and drives.
        motor: The gear motor, whose output shaft is the joint.
        joint: The joint it turns.
        servo_stiffness_nm_rad, servo_damping_nm_s_rad: Position servo of the drive [N m/rad], [N m s/rad].
        source: Where the numbers come from.
    """

    name: str
    motor: Motor
    joint: str
    servo_stiffness_nm_rad: float
    servo_damping_nm_s_rad: float
    source: str

    def __post_init__(self) -> None:
        finite(f"drive {self.name}", self)
        for name in ("servo_stiffness_nm_rad", "servo_damping_nm_s_rad"):
            require(getattr(self, name) > 0.0, f"drive {self.name}", f"{name} must be > 0", getattr(self, name))
