"""The numbers of a RobotModel's transmission as arrays, and the state that evolves. SI units.

The first n motors pull tendons, in the order of `RobotModel.tendons`; g more sit on a joint each, in the order of `RobotModel.drives`.
Two cables a tendon: index 2 i is tendon i's flexor cable (sign +1), 2 i + 1 its extensor (sign -1).
Arms are sparse: arms `arm_start[c] : arm_start[c + 1]` belong to cable c.
"""

from dataclasses import dataclass, fields, replace
from math import tau as TURN

import numpy as np

from robot.description.model import RobotModel

AMBIENT_C = 25.0
# A motor that gives way more slowly than this still counts as holding: its gear does not help it. Without it, a hold's current
# would hang on the sign of a speed that has decayed to rounding.
CREEP_RAD_S = 0.05
CONTACT_AT = (
    1.0 / 3.0
)  # share of the stretch between spool and the lumped guide; the implicit side gets the stiffer piece
LIMIT_NATURAL_HZ = 30.0  # a stop on the joint's armature: as stiff as 5 ms substeps bear beside the tendon's own 25 Hz
# The engine's step is stable while h^2 K / J + 2 h C / J < 4 for all that acts on a joint; with the tendon's 1.6 and the stop's
# own stiffness 0.9, a ratio of 0.5 (2 h C / J = 1.9) made stops throw joints back faster than they came. In PyBullet neighbours
# that lean on their stops move against each other with a third of J, so the ratio is well below what one joint bears.
LIMIT_DAMPING_RATIO = 0.15

ENERGY_TERMS = ("electrical", "copper", "gear", "friction", "viscous", "mechanical", "stored")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Transmission constants. Shapes: n tendons, g gear drives, n + g motors, 2 n cables, m joints."""

    # motors, (n + g,); the output shaft of a tendon's motor is its spool, that of a gear drive its joint
    inertia: np.ndarray  # at the spool, the share that the joints do not carry; of a gear drive: see `Drive` [kg m2]
    servo_stiffness: np.ndarray  # [N m/rad] at the output shaft
    servo_damping: np.ndarray  # [N m s/rad] at the output shaft
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
    spring_stiffness: np.ndarray  # return spring [N m/rad]
    spring_rest: np.ndarray  # where it pulls to [rad]
    # gear drives, (g,)
    gear_joint: np.ndarray  # int64

    @property
    def n_motors(self) -> int:
        return self.inertia.shape[0]

    @property
    def n_tendons(self) -> int:
        return self.inertia.shape[0] - self.gear_joint.shape[0]

    @property
    def n_joints(self) -> int:
        return self.lower.shape[0]

    @staticmethod
    def of(model: RobotModel) -> "Parameters":
        """The arrays of a description."""
        tendons, drives = model.tendons, model.drives
        motors = [*(t.motor for t in tendons), *(d.motor for d in drives)]
        share = 1.0 - model.reflected_share
        servos = [
            (t.servo_stiffness_n_m * t.spool_flexor_m**2, t.servo_damping_n_s_m * t.spool_flexor_m**2) for t in tendons
        ]
        servos += [(d.servo_stiffness_nm_rad, d.servo_damping_nm_s_rad) for d in drives]
        inertia = [share * t.motor.spool_inertia_kg_m2 for t in tendons]
        inertia += [model.drive_inertia_kg_m2(d) for d in drives]

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
        pretension = np.array([[t.pretension_n, t.extensor_pretension_n] for t in tendons], dtype=np.float64)
        limit = model.joint_inertia_kg_m2 * (TURN * LIMIT_NATURAL_HZ) ** 2
        peak = np.array([j.max_torque_nm for j in model.joints])
        limit_stiffness = np.maximum(limit, peak)  # where a joint carries no armature: one radian at peak torque
        parameters = Parameters(
            inertia=np.array(inertia),
            servo_stiffness=np.array([stiffness for stiffness, _ in servos]),
            servo_damping=np.array([damping for _, damping in servos]),
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
            spool=np.array([[t.spool_flexor_m, t.spool_extensor_m] for t in tendons], dtype=np.float64).reshape(-1),
            stiffness_spool=stiffness / CONTACT_AT,
            stiffness_joint=stiffness / (1.0 - CONTACT_AT),
            damping=cables(lambda t: t.damping_n_s_m),
            slack_offset=pretension.reshape(-1) / stiffness,
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
            spring_stiffness=np.array([j.spring_nm_rad for j in model.joints]),
            spring_rest=np.array([j.spring_rest_rad for j in model.joints]),
            gear_joint=np.array([model.index(d.joint) for d in drives], dtype=np.int64),
        )
        for item in fields(parameters):
            getattr(parameters, item.name).setflags(write=False)
        return parameters

    def excursion(self, q_rad: np.ndarray) -> np.ndarray:
        """Cable that the joints give back, E(q) = sum_j a q_j + b q_j^2 / 2, shape (2 n,) [m]; dE/dq is the moment arm."""
        return self._excursion(q_rad[self.arm_joint])

    def _excursion(self, q: np.ndarray) -> np.ndarray:
        return self.per_cable(self.arm_m * q + 0.5 * self.arm_slope_m * q * q)

    def per_cable(self, per_arm: np.ndarray) -> np.ndarray:
        """Sums over the arms of each cable, shape (2 n,)."""
        return np.add.reduceat(per_arm, self.arm_start[:-1]) if per_arm.size else np.zeros(0)

    def arms(self, q_rad: np.ndarray) -> np.ndarray:
        """Moment arms R(q) as a dense matrix, shape (2 n, m) [m]; for the reference and for people."""
        dense = np.zeros((2 * self.n_tendons, self.n_joints))
        cable = np.repeat(np.arange(2 * self.n_tendons), np.diff(self.arm_start))
        dense[cable, self.arm_joint] = self.arm_m + self.arm_slope_m * q_rad[self.arm_joint]
        return dense

    def spool_target(self, target_rad: np.ndarray, measured_rad: np.ndarray) -> np.ndarray:
        """Angles of the output shafts at which the flexor cables fit the joint targets, shape (n + g,) [rad].

        This is the compensation: a finger's spool turns along with the wrist, whose encoder is read, and with the
        finger's other joints, whose targets are taken. A gear drive's shaft is its joint.

        Args:
            target_rad, measured_rad: Joint targets and joint encoders, shape (m,) [rad].
        """
        if not self.n_tendons:
            return target_rad[self.gear_joint]
        q = np.where(self.arm_by_encoder, measured_rad[self.arm_joint], target_rad[self.arm_joint])
        spools = self._excursion(q)[0::2] / self.spool[0::2]
        return np.concatenate([spools, target_rad[self.gear_joint]]) if self.gear_joint.size else spools

    def without_friction(self) -> "Parameters":
        """The same drive with frictionless guides and bearings, for comparing engines and laws."""
        return replace(self, friction=np.zeros_like(self.friction), bearing_damping=np.zeros_like(self.bearing_damping))


@dataclass(kw_only=True)
class TransmissionState:
    """What the transmission remembers between substeps; changed in place by a step.

    Attributes:
        spool_rad, spool_rad_s: Angles and speeds of the output shafts, (n + g,).
        current_a: Motor currents of the last step, (n + g,).
        winding_c, case_c: Temperatures, (n + g,) [deg C].
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
        n, motors = parameters.n_tendons, parameters.n_motors
        shaft = parameters.spool_target(q_rad, q_rad)
        state = TransmissionState(
            spool_rad=shaft,
            spool_rad_s=np.zeros(motors),
            current_a=np.zeros(motors),
            winding_c=np.full(motors, AMBIENT_C),
            case_c=np.full(motors, AMBIENT_C),
            contact_m=np.zeros(2 * n),
            tension_spool_n=np.zeros(2 * n),
            tension_joint_n=np.zeros(2 * n),
            damping_n=np.zeros(2 * n),
            energy_j=np.zeros(len(ENERGY_TERMS)),
        )
        sign = np.tile([1.0, -1.0], n)
        wound = parameters.slack_offset + sign * parameters.spool * np.repeat(shaft[:n], 2)
        given = sign * parameters.excursion(q_rad)
        k1, k2 = parameters.stiffness_spool, parameters.stiffness_joint
        state.contact_m = np.where(wound > given, (k1 * wound + k2 * given) / (k1 + k2), given)
        state.tension_spool_n = np.maximum(k1 * (wound - state.contact_m), 0.0)
        state.tension_joint_n = np.maximum(k2 * (state.contact_m - given), 0.0)
        return state

    def stored_j(self, p: Parameters) -> float:
        """Kinetic energy of the spools' rotors and elastic energy of the cables [J]; a gear drive's rotor is its joint's armature."""
        kinetic = (p.inertia * self.spool_rad_s**2)[: p.n_tendons].sum()
        elastic = (self.tension_spool_n**2 / p.stiffness_spool + self.tension_joint_n**2 / p.stiffness_joint).sum()
        return 0.5 * float(kinetic + elastic)
