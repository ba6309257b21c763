"""The last filter between a policy and the motors, and the states a controller may be in. Pure: no clock, no I/O.

A command passes in this order; p is the target sent last, q and qd are what the joint's sensors say. What changed is counted.

| stage    | bound                                                                                                    |
|----------|----------------------------------------------------------------------------------------------------------|
| finite   | a NaN or an infinity anywhere is refused: nothing is sent                                                |
| slew     | |q* - p| <= slew                                                                                         |
| position | lower <= q* <= upper                                                                                     |
| velocity | |q* - p| <= v_max dt: a target that was outside the range comes back no faster than the joint may move   |
| torque   | |k_p (q* - q) - k_d qd| <= tau_max: a blocked or pushed joint takes its target along                     |
| barrier  | qd <= alpha (upper - q) + touch, both ways: a joint about to hit its stop is damped, and the target's     |
|          | own speed keeps the same rule without touch                                                              |

Torque and barrier yield towards where the joint is, and may do so faster than the velocity stage allows.

| mode    | what is commanded                                  | left by                                   |
|---------|----------------------------------------------------|-------------------------------------------|
| HOLD    | the last target that was sent; a body stands       | no fault: POLICY; a fault: DAMPING        |
| POLICY  | the policy's filtered target                       | any fault: HOLD in the same period        |
| DAMPING | the joint angles as measured: the servos only damp | an operator's `rearm`                     |

A fault in period k is answered by HOLD in period k and by DAMPING in period k + 1. An emergency stop goes straight to DAMPING.
Every switch is bumpless: HOLD sends what was sent, DAMPING leaves its targets where the joints are, POLICY fades in (`blend`).

| age of the sensor data | is            |
|------------------------|---------------|
| up to 1.5 periods      | fresh         |
| up to 3.5 periods      | late: counted |
| beyond                 | a fault       |
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError, NotFiniteError

LATE_PERIODS = 1.5
STALE_PERIODS = 3.5  # three answers in a row are missing
STAGES = ("slew", "position", "velocity", "torque", "barrier")
TOUCH = 0.1  # of a joint's largest speed: a stop may be met so fast
NO_MOTOR_RAD = 1e9  # a joint that no servo drives has no torque to bound
LEAST_STD = 1e-4  # 0.1 mrad, 0.1 mm: finer than any sensor
SANE = 1e12  # sum of squares of all angles and speeds; beyond it something is broken or not a number


class Mode(StrEnum):
    DAMPING = "damping"
    HOLD = "hold"
    POLICY = "policy"


class Fault(StrEnum):
    ESTOP = "emergency stop"
    OBSERVATION = "observation not finite"
    ACTION = "action not finite"
    INFERENCE = "the policy cannot be run"
    STALE = "sensor data too old"
    STRANGE = "observations far from what the policy was trained on"


class LimitsError(FlexorError, ValueError):
    """Limits that bound nothing, or contradict each other."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a joint may be asked for. Arrays have shape (n_joints,).

    Attributes:
        joint_names: For messages.
        lower_rad, upper_rad: Position range [rad].
        slew_rad: Largest change of the target in one period that an operator allows [rad].
        max_step_rad: The same by the joint's speed limit, v_max dt [rad].
        torque_rad: tau_max / k_p: how far the target may lead the joint at rest [rad].
        damping_s: k_d / k_p of the drive [s].
        alpha_1_s: Rate of the barrier, at most 1 / dt [1/s].
        touch_rad_s: Speed at which a joint may meet its stop [rad/s].
        dt_s: Control period [s].
    """

    joint_names: tuple[str, ...]
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    slew_rad: np.ndarray
    max_step_rad: np.ndarray
    torque_rad: np.ndarray
    damping_s: np.ndarray
    touch_rad_s: np.ndarray
    alpha_1_s: float
    dt_s: float

    def __post_init__(self) -> None:
        shape = (len(self.joint_names),)
        for name in ("lower_rad", "upper_rad", "slew_rad", "max_step_rad", "torque_rad", "damping_s", "touch_rad_s"):
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise LimitsError(f"{name} must be {shape[0]} finite numbers, got {value.tolist()}")
        for name in ("slew_rad", "max_step_rad", "torque_rad"):
            if not (getattr(self, name) > 0.0).all():
                raise LimitsError(f"{name} must be > 0, got {getattr(self, name).tolist()}")
        if not (self.lower_rad < self.upper_rad).all():
            raise LimitsError("lower_rad must be below upper_rad for every joint")
        if not 0.0 < self.alpha_1_s <= 1.0 / self.dt_s * (1.0 + 1e-9):
            raise LimitsError(
                f"alpha_1_s must be > 0 and at most 1 / dt = {1.0 / self.dt_s:g}, got {self.alpha_1_s}; "
                "a larger one passes the stop within a period"
            )

    @classmethod
    def of(cls, model: RobotModel, dt_s: float, *, slew: float = 1.0, alpha_1_s: float | None = None) -> "Limits":
        """The limits a description states, for a control period.

        Args:
            model: Its joint ranges, speeds, torques, and the gains of the drives at the joint: servo stiffness times the
                squared moment arm of the tendon that drives it.
            dt_s: Control period [s].
            slew: Share of the speed limit that targets may use, 0..1.
            alpha_1_s: Rate of the barrier; 1 / dt when None, the least that keeps a joint inside [1/s].
        """
        step = np.array([joint.max_speed_rad_s for joint in model.joints]) * dt_s
        stiffness, damping = np.zeros(len(step)), np.zeros(len(step))  # at the joint [N m/rad], [N m s/rad]
        for tendon in model.tendons:
            i = model.index(tendon.joint)
            arm_m = next(arm.flexor_m for arm in tendon.arms if arm.joint == tendon.joint)
            stiffness[i] += tendon.servo_stiffness_n_m * arm_m**2
            damping[i] += tendon.servo_damping_n_s_m * arm_m**2
        for drive in model.drives:
            stiffness[model.index(drive.joint)] += drive.servo_stiffness_nm_rad
            damping[model.index(drive.joint)] += drive.servo_damping_nm_s_rad
        driven = stiffness > 0.0
        torque = np.full(len(step), NO_MOTOR_RAD)
        torque[driven] = np.array([joint.max_torque_nm for joint in model.joints])[driven] / stiffness[driven]
        return cls(
            joint_names=model.joint_names,
            lower_rad=model.lower_rad,
            upper_rad=model.upper_rad,
            slew_rad=slew * step,
            max_step_rad=step,
            torque_rad=torque,
            damping_s=np.divide(damping, stiffness, out=np.zeros(len(step)), where=driven),
            touch_rad_s=TOUCH / dt_s * step,
            alpha_1_s=1.0 / dt_s if alpha_1_s is None else alpha_1_s,
            dt_s=dt_s,
        )


class Filtered(NamedTuple):
    """A target that may be sent, a fresh array of the filter's shape [rad], and how many joints each stage changed."""

    target_rad: np.ndarray
    slew: int = 0
    position: int = 0
    velocity: int = 0
    torque: int = 0
    barrier: int = 0


class Filter:
    """The stages of the table above, for one robot. A target that needs no change comes back with the same bits.

    `robot.onboard.filter` is the same in C, five times faster; a test holds the two together.

    Args:
        limits: Of the robot.
        batch: Leading shape of what is filtered at once; () for a control loop. All rows are independent.
    """

    def __init__(self, limits: Limits, batch: tuple[int, ...] = ()) -> None:
        self.limits = limits
        shape = (*batch, len(limits.joint_names))
        self._lower, self._upper = (np.array(b, dtype=np.float64) for b in (limits.lower_rad, limits.upper_rad))
        self._slew = np.minimum(limits.slew_rad, limits.max_step_rad)
        self._step, self._torque, self._lag = limits.max_step_rad, limits.torque_rad, limits.damping_s
        self._share = min(1.0, limits.alpha_1_s * limits.dt_s)  # of the way to the stop, per period
        touch = limits.touch_rad_s / limits.alpha_1_s
        self._nearest, self._farthest = self._lower - touch, self._upper + touch
        self._ahead = np.full(shape[-1], 1.0 / limits.alpha_1_s)  # an array: a scalar is converted in every call
        # One block, all views of it made once: where the joint's torque is zero; five values with bounds, so that two comparisons
        # see to all (where the joint is about to be, the last target, the target in range, near the last, near the joint); stages.
        block = np.empty((10, *shape))
        self._joint, self._previous, self._targets = block[:2], block[2], block[3:6]
        self._centre, self._given, self._values = block[0], block[:6].reshape(-1), block[1:6]
        self._brief, (self._first, *self._after) = block[5:], tuple(block[5:])
        bounds = np.empty((2, 5, *shape))
        bounds[0, 0], bounds[1, 0] = self._nearest, self._farthest
        bounds[0, 1:3], bounds[1, 1:3] = self._lower, self._upper
        (self._low, self._high), self._near_last, self._near_joint = bounds, bounds[:, 3], bounds[:, 4]
        self._bands = tuple((*bounds[:, row], after) for row, after in zip((3, 2, 4, 2), self._after))
        one = (1,) * len(batch)
        self._slews = np.stack([-self._slew, self._slew]).reshape(2, *one, -1)
        self._torques = np.stack([-self._torque, self._torque]).reshape(2, *one, -1)
        self._leads = np.stack([self._lag, self._ahead]).reshape(2, *one, -1)
        self._outside, self._changed = np.empty((2, 5, *shape), dtype=bool), np.empty((4, *shape), dtype=bool)
        self._below, self._above = self._outside
        self._falling, self._rising = self._braking = self._outside[:, 0]
        self._last_outside, self._changes = self._outside[:, 1], tuple(self._changed)
        self._here, self._shape = np.empty(shape), shape

    def __call__(
        self, target_rad: np.ndarray, previous_rad: np.ndarray, q_rad: np.ndarray, qd_rad_s: np.ndarray
    ) -> Filtered:
        """Make a target safe to send.

        Args:
            target_rad: What the policy asks for, shape (*batch, n_joints) [rad].
            previous_rad: What was sent last [rad].
            q_rad, qd_rad_s: Joint angles and speeds as measured [rad], [rad/s].

        Raises:
            NotFiniteError: A number is NaN or infinite; the joints are named. Send nothing then.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers are bounded like all others
            return self._filtered(target_rad, previous_rad, q_rad, qd_rad_s)

    def _filtered(self, target: np.ndarray, p: np.ndarray, q: np.ndarray, qd: np.ndarray) -> Filtered:
        joint, given = self._joint, self._given
        self._targets[:] = target
        self._previous[:] = p
        np.multiply(self._leads, qd, out=joint)
        np.add(joint, q, out=joint)
        if not given.dot(given) < SANE:  # also where anything is NaN or infinite
            self._check(target, p, q, qd)
            return self._stages(target, p, q, qd)
        np.add(p, self._slews, out=self._near_last)
        np.add(self._centre, self._torques, out=self._near_joint)
        np.less(self._values, self._low, out=self._below)
        np.greater(self._values, self._high, out=self._above)
        if self._share < 1.0:
            return self._stages(target, p, q, qd)
        if not np.count_nonzero(self._outside):
            return Filtered(target.copy())
        if np.count_nonzero(self._last_outside):
            return self._stages(target, p, q, qd)
        return self._bounded(q)

    def _check(self, *rows: np.ndarray) -> None:
        for name, row in zip(("target_rad", "previous_rad", "q_rad", "qd_rad_s"), rows):
            finite = np.isfinite(row)
            if not finite.all():
                where = np.argwhere(~finite)
                bad = {self.limits.joint_names[at[-1]]: float(row[tuple(at)]) for at in where}
                raise NotFiniteError(name, bad)

    def _bounded(self, q: np.ndarray) -> Filtered:
        """The stages for an ordinary period: the bounds are there, and the last target is in range.

        From there a slewed target in range is no farther than the joint may move: the velocity stage would change nothing.
        """
        value = self._first
        for low, high, after in self._bands:
            np.minimum(value, high, out=after)
            np.maximum(after, low, out=after)
            value = after
        if np.count_nonzero(self._braking):
            here = np.maximum(np.minimum(q, self._upper, out=self._here), self._lower, out=self._here)
            np.minimum(value, here, out=value, where=self._rising)
            np.maximum(value, here, out=value, where=self._falling)
        np.not_equal(self._brief[1:], self._brief[:-1], out=self._changed)
        slewed, placed, eased, braked = map(_count, self._changes)
        return Filtered(value.copy(), slewed, placed, 0, eased, braked)

    def _stages(self, target: np.ndarray, p: np.ndarray, q: np.ndarray, qd: np.ndarray) -> Filtered:
        """All bounds one after the other, wherever the joints and the last target are."""
        stage = np.empty((6, *self._shape))
        stage[0] = target
        _between(stage[0], p - self._slew, p + self._slew, stage[1])
        _between(stage[1], self._lower, self._upper, stage[2])
        lowest, highest = p - self._step, p + self._step
        _between(stage[2], lowest, highest, stage[3])
        # the range, or as near to it as a target from outside may come in one period
        low, high = np.minimum(self._lower, highest), np.maximum(self._upper, lowest)
        centre = self._lag * qd + q
        _between(stage[3], centre - self._torque, centre + self._torque, stage[4])
        floor, ceiling = low, high
        if self._share < 1.0:
            floor = np.maximum(low, np.minimum(p + self._share * (self._lower - p), highest))
            ceiling = np.minimum(high, np.maximum(p + self._share * (self._upper - p), lowest))
        _between(stage[4], floor, ceiling, stage[5])
        ahead = qd * self._ahead + q  # where the joint is about to be
        here = np.maximum(np.minimum(q, high), low)
        np.minimum(stage[5], here, out=stage[5], where=ahead > self._farthest)
        np.maximum(stage[5], here, out=stage[5], where=ahead < self._nearest)
        return Filtered(stage[5].copy(), *map(_count, stage[1:] != stage[:-1]))


def _count(flags: np.ndarray) -> int:
    return int(np.count_nonzero(flags))


def _between(value: np.ndarray, low: np.ndarray, high: np.ndarray, out: np.ndarray) -> None:
    np.minimum(value, high, out=out)
    np.maximum(out, low, out=out)


def damping_target(q_rad: np.ndarray, previous_rad: np.ndarray, limits: Limits) -> np.ndarray:
    """Targets at which a position servo only damps: where the joint is, or what was sent last where no encoder says."""
    where = np.where(np.isfinite(q_rad), q_rad, previous_rad)
    return np.maximum(np.minimum(where, limits.upper_rad), limits.lower_rad)


def blend(target_rad: np.ndarray, held_rad: np.ndarray, done: int, periods: int) -> np.ndarray:
    """A policy's target faded in over what was held, so that taking over is bumpless.

    Args:
        target_rad: What the policy asks for [rad].
        held_rad: What was sent last, before the policy took over [rad].
        done: Periods since it took over, from 0.
        periods: Length of the fade; the target itself from there on, with the same bits.
    """
    if done >= periods:
        return target_rad
    return held_rad + (done + 1) / (periods + 1) * (target_rad - held_rad)


def sensor_fault(age_s: float, period_s: float) -> Fault | None:
    """Whether sensor data of an age may still be acted upon. An age that is not a number may not."""
    return None if age_s <= STALE_PERIODS * period_s else Fault.STALE


def sensor_late(age_s: float, period_s: float) -> bool:
    """Whether an age is worth counting, though still usable."""
    return age_s > LATE_PERIODS * period_s


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Where the controller stands. Made new each period by `advance`."""

    mode: Mode = Mode.HOLD
    fault: Fault | None = None


def advance(watch: Watch, *, fault: Fault | None, estop: bool = False) -> Watch:
    """The state for this period.

    Args:
        watch: The state of the last period.
        fault: What is wrong now, None if nothing is.
        estop: Whether the emergency stop is pressed; it wins over everything.
    """
    if estop:
        return Watch(mode=Mode.DAMPING, fault=Fault.ESTOP)
    if watch.fault is not None:  # a fault of an earlier period: its HOLD is over
        return Watch(mode=Mode.DAMPING, fault=watch.fault)
    if fault is not None:
        return Watch(mode=Mode.HOLD, fault=fault)
    return Watch(mode=Mode.POLICY)


def rearm(watch: Watch) -> Watch:
    """An operator's decision that the fault is gone: back to HOLD."""
    return Watch(mode=Mode.HOLD)


@dataclass(frozen=True, kw_only=True)
class Strangeness:
    """How far an observation is from what the policy was trained on: rms of z = (obs - mean) / std, each |z| capped.

    Attributes:
        mean, std: Of the training observations, shape (observation_size,).
        limit: Scores above this are strange; 1 is ordinary.
        ticks: So many strange observations in a row are a fault.
        cap: One wild element alone cannot reach the limit.
    """

    mean: np.ndarray
    std: np.ndarray
    limit: float = 5.0
    ticks: int = 10
    cap: float = 10.0

    def score(self, observation: np.ndarray) -> float:
        z = (observation - self.mean) / np.maximum(self.std, LEAST_STD)
        z = np.minimum(np.abs(z), self.cap)
        return float(np.sqrt(z @ z / len(z)))
