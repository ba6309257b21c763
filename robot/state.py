"""What crosses the seam between a controller and a robot: RobotState one way, Command the other. SI units.

Both are plain frozen records of arrays in the joint and motor order of one RobotModel. Arrays are float64
and never aliased by their producer: a state that was returned does not change afterwards.
"""

from dataclasses import dataclass, field

import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError, NotFiniteError


def _empty() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RobotState:
    """What the robot's own sensors say at one control step.

    Attributes:
        time_s: Seconds since the last reset, on the robot's clock.
        q_rad: Joint encoders, shape (n_joints,) [rad].
        qd_rad_s: Joint velocities, shape (n_joints,) [rad/s].
        target_rad: Position target in force, shape (n_joints,) [rad]; what relative actions add to.
        motor_rad: Spool angles from the motor encoders, shape (n_motors,) [rad].
        motor_rad_s: Spool speeds, shape (n_motors,) [rad/s].
        motor_current_a: Motor currents, shape (n_motors,) [A].
        motor_temperature_c: Winding temperatures as estimated by the drive, shape (n_motors,) [deg C].
        tip_force_n: Normal force on each fingertip, shape (n_tips,) [N].
        imu_gyro_rad_s: Angular velocity of the base in the base frame, shape (3,) or (0,) for a fixed base [rad/s].
        imu_quat_xyzw: Orientation of the base in the world, shape (4,) or (0,).
        object_pose: What a camera's pose tracker says of the object at hand, in the base frame: x y z, qx qy qz qw, shape (7,), or
            (0,) where nothing is tracked.
    """

    time_s: float
    q_rad: np.ndarray
    qd_rad_s: np.ndarray
    target_rad: np.ndarray
    motor_rad: np.ndarray = field(default_factory=_empty)
    motor_rad_s: np.ndarray = field(default_factory=_empty)
    motor_current_a: np.ndarray = field(default_factory=_empty)
    motor_temperature_c: np.ndarray = field(default_factory=_empty)
    tip_force_n: np.ndarray = field(default_factory=_empty)
    imu_gyro_rad_s: np.ndarray = field(default_factory=_empty)
    imu_quat_xyzw: np.ndarray = field(default_factory=_empty)
    object_pose: np.ndarray = field(default_factory=_empty)


def wrong_sizes(state: RobotState, model: RobotModel) -> str:
    """Which arrays of a state have neither the model's size nor, where it has no such sensor, none; "" where all is well."""
    motors, floating = len(model.motor_names), model.floating
    sizes = {
        **dict.fromkeys(("motor_rad", "motor_rad_s", "motor_current_a", "motor_temperature_c"), motors),
        "tip_force_n": len(model.tips),
        "imu_gyro_rad_s": 3 if floating else 0,
        "imu_quat_xyzw": 4 if floating else 0,
        "object_pose": 7,
    }
    wrong = {
        name: (len(getattr(state, name)), n) for name, n in sizes.items() if len(getattr(state, name)) not in (0, n)
    }
    return "; ".join(f"{name} has {got} numbers, expected {n}" for name, (got, n) in wrong.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What a controller asks for until the next control step.

    Attributes:
        target_rad: Joint position targets, shape (n_joints,) [rad]. The drives close the loop around them.
    """

    target_rad: np.ndarray


class CommandError(FlexorError, ValueError):
    """A command, or a posture to start from, of the wrong shape."""


def checked_target(command: Command, joint_names: tuple[str, ...]) -> np.ndarray:
    """The targets of a command, as a fresh float64 array, or a named refusal.

    Args:
        command: The command to check.
        joint_names: Names of the joints the targets are for; its length is the expected shape.

    Raises:
        CommandError: The shape is not (n_joints,).
        NotFiniteError: A target is NaN or infinite; the joints are named.
    """
    return _checked("command.target_rad", command.target_rad, joint_names)


def checked_posture(q_rad: np.ndarray, joint_names: tuple[str, ...]) -> np.ndarray:
    """Joint angles or speeds to start from, as a fresh float64 array, or the same refusals as of a command.

    Raises:
        CommandError: The shape is not (n_joints,).
        NotFiniteError: A number is NaN or infinite; the joints are named.
    """
    return _checked("posture", q_rad, joint_names)


def _checked(what: str, values: np.ndarray, joint_names: tuple[str, ...]) -> np.ndarray:
    fresh = np.array(values, dtype=np.float64)
    if fresh.shape != (len(joint_names),):
        raise CommandError(f"{what} must have shape ({len(joint_names)},), got {fresh.shape}")
    finite = np.isfinite(fresh)
    if not finite.all():
        raise NotFiniteError(what, {joint_names[i]: float(fresh[i]) for i in np.flatnonzero(~finite)})
    return fresh
