"""From what a robot, its surroundings and its sensors are drawn: a least and a most for everything that differs from day to day."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError, UnknownNameError

Pair = tuple[float, float]


class RandomizationError(FlexorError, ValueError):
    """A range that cannot be drawn from: low above high, not two finite numbers, or below what is possible."""


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Least and most of everything that is drawn. A pair of equal numbers switches that draw off.

    Attributes:
        capstan_friction: Coefficient of all cable guides; smooth aluminium to worn lining (planned 0.05-0.15).
        tendon_stiffness_factor: On every cable alike; creep and re-tensioning.
        motor_factor: On torque per ampere, of every motor alike.
        link_mass_factor: On mass and inertia, each link on its own.
        skin_friction, ground_friction, object_friction: Coefficients; two surfaces meet with the geometric mean of theirs.
        object_mass_factor, object_scale: On each object's mass and on its size.
        command_delay_s: From a command to the drives' acting on it.
        push_n_s: Impulse of a push on what the task names, in a random direction [N s].
        push_gap_s: From one push to the next.
        encoder_*, velocity_*: Joint angles and speeds.
        motor_encoder_*, motor_velocity_*, current_*, temperature_*: Of the motors.
        touch_*: Normal force on the tips.
        gyro_*, tilt_*: The base's inertial sensor.
        tracker_*: A camera's estimate of an object's pose.
        bus_latency_s, bus_dropout: Age of all readings but the tracker's, and the chance that one is lost.
        *_bias_*: Drawn for each element; *_gain: a factor, for each element; *_noise_*: standard deviation of each reading.
    """

    capstan_friction: Pair = (0.03, 0.15)
    tendon_stiffness_factor: Pair = (0.75, 1.25)
    motor_factor: Pair = (0.9, 1.1)
    link_mass_factor: Pair = (0.95, 1.05)
    skin_friction: Pair = (0.7, 1.0)
    ground_friction: Pair = (0.6, 1.0)
    object_friction: Pair = (0.5, 1.0)
    object_mass_factor: Pair = (0.9, 1.1)
    object_scale: Pair = (1.0, 1.0)
    command_delay_s: Pair = (0.0, 0.01)
    push_n_s: Pair = (0.0, 0.0)
    push_gap_s: Pair = (1.0, 3.0)
    encoder_bias_rad: Pair = (-0.005, 0.005)
    encoder_noise_rad: Pair = (0.0, 0.001)
    velocity_noise_rad_s: Pair = (0.0, 0.05)
    motor_encoder_bias_rad: Pair = (-0.01, 0.01)
    motor_encoder_noise_rad: Pair = (0.0, 0.001)
    motor_velocity_noise_rad_s: Pair = (0.0, 0.05)
    current_gain: Pair = (0.95, 1.05)
    current_noise_a: Pair = (0.0, 0.01)
    temperature_bias_c: Pair = (-3.0, 3.0)
    temperature_noise_c: Pair = (0.0, 0.5)
    touch_gain: Pair = (0.8, 1.2)
    touch_bias_n: Pair = (-0.02, 0.02)
    touch_noise_n: Pair = (0.0, 0.05)
    gyro_bias_rad_s: Pair = (-0.01, 0.01)
    gyro_noise_rad_s: Pair = (0.0, 0.01)
    tilt_bias_rad: Pair = (-0.01, 0.01)
    tilt_noise_rad: Pair = (0.0, 0.003)
    tracker_bias_m: Pair = (-0.002, 0.002)
    tracker_noise_m: Pair = (0.0, 0.001)
    tracker_bias_rad: Pair = (-0.03, 0.03)
    tracker_noise_rad: Pair = (0.0, 0.02)
    bus_latency_s: Pair = (0.0, 0.004)
    bus_dropout: Pair = (0.0, 0.002)
    tracker_latency_s: Pair = (0.02, 0.05)
    tracker_dropout: Pair = (0.0, 0.02)

    def __post_init__(self) -> None:
        for item in fields(self):
            pair = getattr(self, item.name)
            if np.shape(pair) != (2,) or not np.isfinite(pair).all():
                raise RandomizationError(f"randomization {item.name}: expected two finite numbers, got {pair!r}")
            low, high = pair
            if not low <= high:
                raise RandomizationError(f"randomization {item.name}: low must be <= high, got ({low}, {high})")
            least, allowed = _least(item.name)
            if low < least or (low == least and not allowed):
                raise RandomizationError(
                    f"randomization {item.name}: low must be {'>=' if allowed else '>'} {least:g}, got ({low}, {high})"
                )
            if item.name.endswith("_dropout") and high >= 1.0:
                raise RandomizationError(f"randomization {item.name}: high must be < 1, got ({low}, {high})")

    @staticmethod
    def of(*changes: Mapping[str, Pair]) -> "Ranges":
        """The default ranges with some exchanged by name, later changes over earlier ones.

        Raises:
            UnknownNameError: No such range; the message lists the known ones.
            RandomizationError: A range that cannot be drawn from.
        """
        known = [item.name for item in fields(Ranges)]
        merged: dict[str, Pair] = {}
        for change in changes:
            for name in change:
                if name not in known:
                    raise UnknownNameError("randomization", name, known)
            merged |= change
        return Ranges(**merged)


def _least(name: str) -> tuple[float, bool]:
    """Least low of a range, and whether it is allowed itself."""
    if "_bias_" in name:
        return -np.inf, True
    return 0.0, not (name.endswith(("_factor", "_gain", "_scale")) or name == "push_gap_s")


def sizes_of(model: RobotModel, tracked: bool) -> dict[str, int]:
    """Elements of each sensed field of a robot's state; `tracked`: whether a camera reports an object's pose."""
    joints, motors = len(model.joints), len(model.motor_names)
    return {
        "q_rad": joints,
        "qd_rad_s": joints,
        "motor_rad": motors,
        "motor_rad_s": motors,
        "motor_current_a": motors,
        "motor_temperature_c": motors,
        "tip_force_n": len(model.tips),
        "imu_gyro_rad_s": 3 if model.floating else 0,
        "imu_quat_xyzw": 4 if model.floating else 0,
        "object_pose": 7 if tracked else 0,
    }
