"""The last filter between a policy and the motors, and the states a controller may be in. Pure: no clock, no I/O.

A command passes in this order: finite check, slew clamp |q* - q*_prev| <= v_max dt, position clamp. What was clamped is counted.

| mode    | what is commanded                                  | left by                                   |
|---------|----------------------------------------------------|-------------------------------------------|
| HOLD    | the last target that was sent                      | no fault: POLICY; a fault: DAMPING        |
| POLICY  | the policy's filtered target                       | any fault: HOLD in the same period        |
| DAMPING | the joint angles as measured: the servos only damp | an operator's `rearm`                     |

A fault in period k is answered by HOLD in period k and by DAMPING in period k + 1. An emergency stop goes straight to DAMPING.

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
from robot.errors import NotFiniteError

LATE_PERIODS = 1.5
STALE_PERIODS = 3.5  # three answers in a row are missing


class Mode(StrEnum):
    DAMPING = "damping"
    HOLD = "hold"
    POLICY = "policy"


class Fault(StrEnum):
    ESTOP = "emergency stop"
    OBSERVATION = "observation not finite"
    ACTION = "action not finite"
    STALE = "sensor data too old"
    STRANGE = "observations far from what the policy was trained on"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a joint may be asked for.

    Attributes:
        joint_names: For messages.
        lower_rad, upper_rad: Position range, shape (n_joints,) [rad].
        max_step_rad: Largest change of the target in one period, shape (n_joints,) [rad].
    """

    joint_names: tuple[str, ...]
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    max_step_rad: np.ndarray

    @classmethod
    def of(cls, model: RobotModel, dt_s: float) -> "Limits":
        """The limits a description states, for a control period."""
        speed = np.array([joint.max_speed_rad_s for joint in model.joints])
        return cls(
            joint_names=model.joint_names,
            lower_rad=model.lower_rad,
            upper_rad=model.upper_rad,
            max_step_rad=speed * dt_s,
        )


class Filtered(NamedTuple):
    """A target that may be sent, shape (n_joints,) [rad], and how many joints each clamp changed."""

    target_rad: np.ndarray
    slewed: int
    clamped: int


def limit(target_rad: np.ndarray, previous_rad: np.ndarray, limits: Limits) -> Filtered:
    """Make a target safe to send.

    Args:
        target_rad: What the policy asks for, shape (n_joints,) [rad].
        previous_rad: What was sent last, finite, shape (n_joints,) [rad].
        limits: Of the robot.

    Raises:
        NotFiniteError: A target is NaN or infinite; the joints are named. Send nothing then.
    """
    finite = np.isfinite(target_rad)
    if not finite.all():
        bad = {limits.joint_names[i]: float(target_rad[i]) for i in np.flatnonzero(~finite)}
        raise NotFiniteError("target_rad", bad)
    slewed = np.maximum(np.minimum(target_rad, previous_rad + limits.max_step_rad), previous_rad - limits.max_step_rad)
    safe = np.maximum(np.minimum(slewed, limits.upper_rad), limits.lower_rad)
    if not (safe != target_rad).any():
        return Filtered(safe, 0, 0)
    return Filtered(safe, int(np.count_nonzero(slewed != target_rad)), int(np.count_nonzero(safe != slewed)))


def damping_target(q_rad: np.ndarray, previous_rad: np.ndarray, limits: Limits) -> np.ndarray:
    """Targets at which a position servo only damps: where the joint is, or what was sent last where no encoder says."""
    where = np.where(np.isfinite(q_rad), q_rad, previous_rad)
    return np.maximum(np.minimum(where, limits.upper_rad), limits.lower_rad)


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
        z = (observation - self.mean) / np.maximum(self.std, 1e-4)  # 0.1 mrad, 0.1 mm: finer than any sensor
        z = np.minimum(np.abs(z), self.cap)
        return float(np.sqrt(z @ z / len(z)))
