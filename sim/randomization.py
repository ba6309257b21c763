"""What differs from one robot, and one day, to the next: drawn at every reset, reported in `info`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log

import numpy as np

from robot.transmission import Parameters
from sim.ranges import RandomizationError, Ranges
from sim.sensors import Sensors
from sim.world import Push, Variation


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One robot on one day, and what is around it: the values drawn from `Ranges`.

    Attributes:
        capstan_friction, tendon_stiffness_factor, motor_factor: See `Ranges`.
        variation: Masses, friction and sizes.
        command_delay_s: From a command to the drives' acting on it.
        sensors: What measures it.
        pushes: What disturbs it.
    """

    capstan_friction: float
    tendon_stiffness_factor: float
    motor_factor: float
    variation: Variation
    command_delay_s: float
    sensors: Sensors
    pushes: "Pushes"

    def parameters(self, nominal: Parameters) -> Parameters:
        """The transmission of this robot."""
        return replace(
            nominal,
            friction=np.full_like(nominal.friction, self.capstan_friction),
            stiffness_spool=nominal.stiffness_spool * self.tendon_stiffness_factor,
            stiffness_joint=nominal.stiffness_joint * self.tendon_stiffness_factor,
            slack_offset=nominal.slack_offset / self.tendon_stiffness_factor,  # same pretension
            torque_per_amp=nominal.torque_per_amp * self.motor_factor,
        )

    def as_info(self) -> dict[str, float | list[float]]:
        """Every value by the name of its range: a number, or one per element."""
        said: dict[str, float | list[float]] = {
            "capstan_friction": self.capstan_friction,
            "tendon_stiffness_factor": self.tendon_stiffness_factor,
            "motor_factor": self.motor_factor,
            "command_delay_s": self.command_delay_s,
            "push_n_s": self.pushes.impulse_n_s,
        }
        for name, value in _varied(self.variation).items():
            said[name] = value.tolist() if isinstance(value, np.ndarray) else float(value)
        return said | self.sensors.drawn


def _varied(variation: Variation) -> dict[str, float | np.ndarray]:
    """A variation by the names of the ranges; what is not there is left out."""
    named = {
        "link_mass_factor": variation.link_mass_factor,
        "skin_friction": variation.robot_friction,
        "ground_friction": variation.ground_friction,
        "object_mass_factor": variation.body_mass_factor,
        "object_friction": variation.body_friction,
        "object_scale": variation.body_scale,
    }
    return {name: value for name, value in named.items() if value is not None}


@dataclass(kw_only=True)
class Pushes:
    """Pushes at random moments in random directions, each as long as a control step.

    Attributes:
        on: Links or bodies that are pushed; each time one of them.
        impulse_n_s: Of every push [N s].
        gap_s: Least and most time from one push to the next.
        dt_s: One control step.
    """

    on: tuple[str, ...]
    impulse_n_s: float
    gap_s: tuple[float, float]
    dt_s: float
    _due_s: float = field(default=-1.0, init=False)

    def at(self, time_s: float, rng: np.random.Generator) -> Sequence[Push]:
        """What pushes throughout the step that begins now."""
        if self.impulse_n_s == 0.0 or not self.on:
            return ()
        if self._due_s < 0.0:  # a new episode
            self._due_s = time_s + rng.uniform(*self.gap_s)
        if time_s < self._due_s:
            return ()
        self._due_s = time_s + rng.uniform(*self.gap_s)
        direction = rng.standard_normal(3)
        force_n = self.impulse_n_s / self.dt_s * direction / np.linalg.norm(direction)
        return (Push(on=self.on[rng.integers(len(self.on))], force_n=force_n),)


def draw(
    ranges: Ranges,
    rng: np.random.Generator,
    *,
    links: int,
    bodies: int,
    readings: Mapping[str, int],
    dt_s: float,
    pushed: tuple[str, ...] = (),
) -> Draw:
    """One robot on one day out of the ranges.

    Args:
        links, bodies: Links of the robot, bodies of its world.
        readings: Elements of each sensed field of `RobotState`, see `sim.ranges.sizes_of`.
        dt_s: One control step.
        pushed: Links or bodies that random pushes act on.
    """

    def one(pair: tuple[float, float]) -> float:
        return float(rng.uniform(*pair))

    variation = Variation(
        link_mass_factor=rng.uniform(*ranges.link_mass_factor, size=links),
        robot_friction=one(ranges.skin_friction),
        ground_friction=one(ranges.ground_friction),
        body_mass_factor=rng.uniform(*ranges.object_mass_factor, size=bodies) if bodies else None,
        body_friction=rng.uniform(*ranges.object_friction, size=bodies) if bodies else None,
        body_scale=rng.uniform(*ranges.object_scale, size=bodies) if bodies and ranges.object_scale != (1, 1) else None,
    )
    return Draw(
        capstan_friction=one(ranges.capstan_friction),
        tendon_stiffness_factor=exp(
            one((log(ranges.tendon_stiffness_factor[0]), log(ranges.tendon_stiffness_factor[1])))
        ),
        motor_factor=one(ranges.motor_factor),
        variation=variation,
        command_delay_s=one(ranges.command_delay_s),
        sensors=Sensors(ranges, readings, dt_s, rng),
        pushes=Pushes(on=pushed, impulse_n_s=one(ranges.push_n_s), gap_s=ranges.push_gap_s, dt_s=dt_s),
    )


__all__ = ["Draw", "Pushes", "RandomizationError", "Ranges", "draw"]
