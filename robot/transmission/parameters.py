"""The numbers of a RobotModel's transmission as arrays, and the state that evolves. SI units.

Two cables a motor: index 2 i is motor i's flexor cable (sign +1), 2 i + 1 its extensor (sign -1).
Arms are sparse: arms `arm_start[c] : arm_start[c + 1]` belong to cable c.
"""

from dataclasses import dataclass, fields, replace
from math import tau as TURN

import numpy as np

from robot.description.model import RobotModel

AMBIENT_C = 25.0
COPPER_PER_K = 0.00393  # temperature coefficient of copper's resistance at 25 deg C
CONTACT_AT = (
    1.0 / 3.0
)  # share of the stretch between spool and the lumped guide; the implicit side gets the stiffer piece
LIMIT_NATURAL_HZ = 20.0  # a stop, on the armature. With w^2 = w_stop^2 + w_tendon^2 a 5 ms substep is stable while (w h)^2 < 4 - 2 c h
LIMIT_DAMPING_RATIO = 0.2  # c h = 0.25 there; 0.5 at 30 Hz diverged in PyBullet against a stop (docs/transmission.md)

ENERGY_TERMS = ("electrical", "copper", "gear", "friction", "viscous", "mechanical", "stored")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Transmission constants. Shapes: n motors, 2 n cables, m joints."""

    # motors, (n,)
    inertia: np.ndarray  # at the spool, the share that the joints do not carry [kg m2]
    servo_stiffness: np.ndarray  # [N m/rad] at the spool
    servo_damping: np.ndarray  # [N m s/rad] at the spool
    torque_per_amp: np.ndarray  # N kt, before gear losses [N m/A]
    efficiency: np.ndarray
    resistance: np.ndarray  # at 25 deg C [ohm]
    bus_v: np.ndarray
    peak_current: np.ndarray  # [A]
    winding_k_w: np.ndarray
    case_k_w: np.ndarray
    winding_j_k: np.ndarray
    case_j_k: np.ndarray
    derate_from_c: np.ndarray
    max_winding_c: np.ndarray
    # cables, (2 n,)
    spool: np.ndarray  # radius [m]
    stiffness_spool: np.ndarray  # k1, spool to contact [N/m]
    stiffness_joint: np.ndarray  # k2, contact to insertion [N/m]
    damping: np.ndarray  # [N s/m]
    slack_offset: np.ndarray  # stretch at zero posture and zero spool angle, from the pretension [m]
    friction: np.ndarray  # mu
    wrap: np.ndarray  # at zero posture [rad]
    # arms, sparse
    arm_start: np.ndarray  # (2 n + 1,) int64
    arm_joint: np.ndarray  # (k,) int64
    arm_m: np.ndarray  # moment arm at zero angle [m]
    arm_slope_m: np.ndarray  # change per radian [m/rad]
    arm_wrap: np.ndarray  # wrap added per |radian|
    arm_by_encoder: np.ndarray  # bool: compensated where the encoder says the joint is
    # joints, (m,)
    lower: np.ndarray
    upper: np.ndarray
    limit_stiffness: np.ndarray  # [N m/rad]
    limit_damping: np.ndarray  # [N m s/rad]
    bearing_damping: np.ndarray  # [N m s/rad]

    @property
    def n_motors(self) -> int:
        return self.inertia.shape[0]

    @property
    def n_joints(self) -> int:
        return self.lower.shape[0]

    @staticmethod
    def of(model: RobotModel) -> "Parameters":
        """The arrays of a description."""
        tendons, motors = model.tendons, [t.motor for t in model.tendons]
        share = 1.0 - model.reflected_share
        flex = np.array([t.spool_flexor_m for t in tendons])

        def each(get) -> np.ndarray:
            return np.array([get(item) for item in motors], dtype=np.float64)

        def cables(get) -> np.ndarray:
            return np.repeat(np.array([get(t) for t in tendons], dtype=np.float64), 2)

        start, joint, arm, slope, wrap, by_encoder = [0], [], [], [], [], []
        for tendon in tendons:
            for side in ("flexor", "extensor"):
                for a in tendon.arms:
                    joint.append(model.index(a.joint))
                    arm.append(getattr(a, f"{side}_m"))
                    slope.append(getattr(a, f"{side}_slope_m"))
                    wrap.append(a.wrap)
                    by_encoder.append(a.by_encoder)
                start.append(len(joint))
        stiffness = cables(lambda t: t.stiffness_n_m)
        limit = model.joint_inertia_kg_m2 * (TURN * LIMIT_NATURAL_HZ) ** 2
        peak = np.array([j.max_torque_nm for j in model.joints])
        limit_stiffness = np.maximum(limit, peak)  # where a joint carries no armature: one radian at peak torque
        parameters = Parameters(
            inertia=share * each(lambda m: m.spool_inertia_kg_m2),
            servo_stiffness=np.array([t.servo_stiffness_n_m for t in tendons]) * flex**2,
            servo_damping=np.array([t.servo_damping_n_s_m for t in tendons]) * flex**2,
            torque_per_amp=each(lambda m: m.gear_ratio * m.torque_constant_nm_a),
            efficiency=each(lambda m: m.gear_efficiency),
            resistance=each(lambda m: m.resistance_ohm),
            bus_v=each(lambda m: m.bus_v),
            peak_current=each(lambda m: m.peak_current_a),
            winding_k_w=each(lambda m: m.winding_k_w),
            case_k_w=each(lambda m: m.case_k_w),
            winding_j_k=each(lambda m: m.winding_j_k),
            case_j_k=each(lambda m: m.case_j_k),
            derate_from_c=each(lambda m: m.derate_from_c),
            max_winding_c=each(lambda m: m.max_winding_c),
            spool=np.array([[t.spool_flexor_m, t.spool_extensor_m] for t in tendons]).reshape(-1),
            stiffness_spool=stiffness / CONTACT_AT,
            stiffness_joint=stiffness / (1.0 - CONTACT_AT),
            damping=cables(lambda t: t.damping_n_s_m),
            slack_offset=cables(lambda t: t.pretension_n) / stiffness,
            friction=cables(lambda t: t.friction),
            wrap=cables(lambda t: t.wrap_rad),
            arm_start=np.array(start, dtype=np.int64),
            arm_joint=np.array(joint, dtype=np.int64),
            arm_m=np.array(arm),
            arm_slope_m=np.array(slope),
            arm_wrap=np.array(wrap),
            arm_by_encoder=np.array(by_encoder, dtype=bool),
            lower=np.array(model.lower_rad),
            upper=np.array(model.upper_rad),
            limit_stiffness=limit_stiffness,
            limit_damping=2.0 * LIMIT_DAMPING_RATIO * np.sqrt(limit_stiffness * model.joint_inertia_kg_m2),
            bearing_damping=np.array([j.damping_nm_s for j in model.joints]),
        )
        for item in fields(parameters):
            getattr(parameters, item.name).setflags(write=False)
        return parameters

    def excursion(self, q_rad: np.ndarray) -> np.ndarray:
        """Cable that the joints give back, E(q) = sum_j a q_j + b q_j^2 / 2, shape (2 n,) [m]; dE/dq is the moment arm."""
        return self._excursion(q_rad[self.arm_joint])

    def _excursion(self, q: np.ndarray) -> np.ndarray:
        return np.add.reduceat(self.arm_m * q + 0.5 * self.arm_slope_m * q * q, self.arm_start[:-1])

    def arms(self, q_rad: np.ndarray) -> np.ndarray:
        """Moment arms R(q) as a dense matrix, shape (2 n, m) [m]; for the reference and for people."""
        dense = np.zeros((2 * self.n_motors, self.n_joints))
        cable = np.repeat(np.arange(2 * self.n_motors), np.diff(self.arm_start))
        dense[cable, self.arm_joint] = self.arm_m + self.arm_slope_m * q_rad[self.arm_joint]
        return dense

    def spool_target(self, target_rad: np.ndarray, measured_rad: np.ndarray) -> np.ndarray:
        """Spool angles at which the flexor cables fit the joint targets, shape (n,) [rad].

        This is the compensation: a finger's spool turns along with the wrist, whose encoder is read, and with the
        finger's other joints, whose targets are taken.

        Args:
            target_rad, measured_rad: Joint targets and joint encoders, shape (m,) [rad].
        """
        q = np.where(self.arm_by_encoder, measured_rad[self.arm_joint], target_rad[self.arm_joint])
        return self._excursion(q)[0::2] / self.spool[0::2]

    def without_friction(self) -> "Parameters":
        """The same drive with frictionless guides and bearings, for comparing engines and laws."""
        return replace(self, friction=np.zeros_like(self.friction), bearing_damping=np.zeros_like(self.bearing_damping))


@dataclass(kw_only=True)
class TransmissionState:
    """What the transmission remembers between substeps; changed in place by a step.

    Attributes:
        spool_rad, spool_rad_s: Spool angles and speeds, (n,).
        current_a: Motor currents of the last step, (n,).
        winding_c, case_c: Temperatures, (n,) [deg C].
        contact_m: Where the cable stands in its guide, (2 n,) [m].
        tension_spool_n, tension_joint_n: Elastic tensions on either side of the guides, (2 n,) [N].
        damping_n: Viscous part of the tension, on both sides alike, (2 n,) [N].
        energy_j: Running sums in the order of `ENERGY_TERMS` [J].
    """

    spool_rad: np.ndarray
    spool_rad_s: np.ndarray
    current_a: np.ndarray
    winding_c: np.ndarray
    case_c: np.ndarray
    contact_m: np.ndarray
    tension_spool_n: np.ndarray
    tension_joint_n: np.ndarray
    damping_n: np.ndarray
    energy_j: np.ndarray

    @staticmethod
    def at_rest(parameters: Parameters, q_rad: np.ndarray) -> "TransmissionState":
        """Spools where they fit the posture, cables at pretension, motors cold and still."""
        n = parameters.n_motors
        spool = parameters.spool_target(q_rad, q_rad)
        state = TransmissionState(
            spool_rad=spool,
            spool_rad_s=np.zeros(n),
            current_a=np.zeros(n),
            winding_c=np.full(n, AMBIENT_C),
            case_c=np.full(n, AMBIENT_C),
            contact_m=np.zeros(2 * n),
            tension_spool_n=np.zeros(2 * n),
            tension_joint_n=np.zeros(2 * n),
            damping_n=np.zeros(2 * n),
            energy_j=np.zeros(len(ENERGY_TERMS)),
        )
        sign = np.tile([1.0, -1.0], n)
        wound = parameters.slack_offset + sign * parameters.spool * np.repeat(spool, 2)
        given = sign * parameters.excursion(q_rad)
        k1, k2 = parameters.stiffness_spool, parameters.stiffness_joint
        state.contact_m = np.where(wound > given, (k1 * wound + k2 * given) / (k1 + k2), given)
        state.tension_spool_n = np.maximum(k1 * (wound - state.contact_m), 0.0)
        state.tension_joint_n = np.maximum(k2 * (state.contact_m - given), 0.0)
        return state

    def stored_j(self, p: Parameters) -> float:
        """Kinetic energy of the rotors and elastic energy of the cables [J]."""
        kinetic = (p.inertia * self.spool_rad_s**2).sum()
        elastic = (self.tension_spool_n**2 / p.stiffness_spool + self.tension_joint_n**2 / p.stiffness_joint).sum()
        return 0.5 * float(kinetic + elastic)
