"""What differs from one robot, and one day, to the next: drawn at every reset, reported in `info`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from robot.errors import FlexorError, UnknownNameError
from robot.state import RobotState
from robot.transmission import Parameters


class RandomizationError(FlexorError, ValueError):
    """A range that cannot be drawn from: low above high, not two finite numbers, or below what is possible."""


# Least low of a range, and whether it is allowed itself.
LEAST = {
    "friction": (0.0, True),
    "stiffness_factor": (0.0, False),
    "motor_factor": (0.0, False),
    "encoder_noise_rad": (0.0, True),
}


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Least and most of everything that is drawn. A pair of equal numbers switches that draw off.

    Attributes:
        friction: Capstan coefficient of all guides; smooth aluminium to worn lining (facts: plan 0.05-0.15).
        stiffness_factor: On every cable alike; creep and re-tensioning.
        motor_factor: On torque per ampere and on the current limit.
        encoder_bias_rad: Of each joint encoder, calibration left-over.
        encoder_noise_rad: Standard deviation per reading.
    """

    friction: tuple[float, float] = (0.03, 0.15)
    stiffness_factor: tuple[float, float] = (0.75, 1.25)
    motor_factor: tuple[float, float] = (0.9, 1.1)
    encoder_bias_rad: tuple[float, float] = (-0.005, 0.005)
    encoder_noise_rad: tuple[float, float] = (0.0, 0.001)

    def __post_init__(self) -> None:
        for item in fields(self):
            pair = getattr(self, item.name)
            if np.shape(pair) != (2,) or not np.isfinite(pair).all():
                raise RandomizationError(f"randomization {item.name}: expected two finite numbers, got {pair!r}")
            low, high = pair
            if not low <= high:
                raise RandomizationError(f"randomization {item.name}: low must be <= high, got ({low}, {high})")
            least, allowed = LEAST.get(item.name, (-np.inf, True))
            if low < least or (low == least and not allowed):
                raise RandomizationError(
                    f"randomization {item.name}: low must be {'>=' if allowed else '>'} {least:g}, got ({low}, {high})"
                )

    @staticmethod
    def of(changes: Mapping[str, tuple[float, float]]) -> "Ranges":
        """The default ranges with some exchanged by name.

        Raises:
            UnknownNameError: No such range; the message lists the known ones.
            RandomizationError: A range that cannot be drawn from.
        """
        known = [item.name for item in fields(Ranges)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("randomization", name, known)
        return Ranges(**changes)


ENCODER_STEP_RAD = 2.0 * np.pi / 2**14  # 14-bit magnetic encoders
_NOT_Q = tuple(item.name for item in fields(RobotState) if item.name != "q_rad")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One robot: the values drawn from `Ranges`."""

    friction: float
    stiffness_factor: float
    motor_factor: float
    encoder_bias_rad: np.ndarray
    encoder_noise_rad: float

    def parameters(self, nominal: Parameters) -> Parameters:
        """The transmission of this robot."""
        return replace(
            nominal,
            friction=np.full_like(nominal.friction, self.friction),
            stiffness_spool=nominal.stiffness_spool * self.stiffness_factor,
            stiffness_joint=nominal.stiffness_joint * self.stiffness_factor,
            slack_offset=nominal.slack_offset / self.stiffness_factor,  # same pretension
            torque_per_amp=nominal.torque_per_amp * self.motor_factor,
        )

    def measured(self, state: RobotState, rng: np.random.Generator) -> RobotState:
        """What this robot's encoders say of a true state."""
        noise = self.encoder_bias_rad
        if self.encoder_noise_rad > 0.0:
            noise = noise + self.encoder_noise_rad * rng.standard_normal(state.q_rad.shape)
        q = np.rint((state.q_rad + noise) / ENCODER_STEP_RAD) * ENCODER_STEP_RAD
        others = {name: getattr(state, name) for name in _NOT_Q}  # `replace` costs three times as much
        return RobotState(q_rad=q, **others)

    def as_info(self) -> dict[str, float]:
        """The values as plain numbers; of the biases, the largest."""
        return {
            "friction": self.friction,
            "stiffness_factor": self.stiffness_factor,
            "motor_factor": self.motor_factor,
            "encoder_bias_max_rad": float(np.abs(self.encoder_bias_rad).max(initial=0.0)),
            "encoder_noise_rad": self.encoder_noise_rad,
        }


def draw(ranges: Ranges, n_joints: int, rng: np.random.Generator) -> Draw:
    """One robot out of the ranges."""
    return Draw(
        friction=float(rng.uniform(*ranges.friction)),
        stiffness_factor=float(np.exp(rng.uniform(*np.log(ranges.stiffness_factor)))),
        motor_factor=float(rng.uniform(*ranges.motor_factor)),
        encoder_bias_rad=rng.uniform(*ranges.encoder_bias_rad, size=n_joints),
        encoder_noise_rad=float(rng.uniform(*ranges.encoder_noise_rad)),
    )
