"""The seam every robot stands behind: simulators, the mock, a link to another process, hardware."""

from typing import Protocol

import numpy as np

from robot.description.model import RobotModel
from robot.state import Command, RobotState


class Backend(Protocol):
    """A robot that can be reset and stepped at a fixed rate.

    One contract test runs over every implementation (tests/test_backend_contract.py).
    """

    @property
    def model(self) -> RobotModel:
        """The description whose joint and motor order all arrays use."""
        ...

    @property
    def control_hz(self) -> float:
        """Commands per second; `step` covers exactly one period."""
        ...

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """Go to a joint state at rest (the home posture when None) and say what the sensors read.

        Args:
            state: Posture to start from; only `q_rad` is used.
            rng: Source of every random number until the next reset.
        """
        ...

    def step(self, command: Command) -> RobotState:
        """Apply a command for one control period.

        Raises:
            CommandError: The command has another shape.
            NotFiniteError: The command holds NaN or infinity. Nothing is applied in either case.
        """
        ...

    def close(self) -> None:
        """Release what the backend holds. Safe to call twice."""
        ...
