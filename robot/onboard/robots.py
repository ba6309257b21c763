"""What the control loop drives: a robot that takes a command and later answers with a state, and the task beside it."""

from typing import Protocol

import numpy as np

from robot.description.model import RobotModel
from robot.link import RobotSide, TaskFeedback
from robot.state import Command, RobotState, checked_target


class Robot(Protocol):
    """A `robot.link.LinkBackend`, a `Direct` robot, or hardware."""

    @property
    def model(self) -> RobotModel: ...

    @property
    def control_hz(self) -> float: ...

    @property
    def feedback(self) -> TaskFeedback:
        """What the task said with the last state."""
        ...

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState: ...

    def send(self, command: Command) -> None:
        """Hand a command over; `receive` must follow."""
        ...

    def ready(self, timeout_s: float) -> bool:
        """Whether an answer is there, or comes within a time [s]; True where `receive` itself waits for nothing."""
        ...

    def receive(self) -> RobotState:
        """The state at the end of the period; called then, and waits for nothing but an answer that is late."""
        ...

    def close(self) -> None: ...


class Direct:
    """A robot and its task in this process, without a link between; for tests and for the mock."""

    def __init__(self, side: RobotSide) -> None:
        self._side = side
        self._command: Command | None = None
        self.feedback = TaskFeedback()

    @property
    def model(self) -> RobotModel:
        return self._side.model

    @property
    def control_hz(self) -> float:
        return self._side.control_hz

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        if state is not None:
            raise ValueError("the task places the robot; call reset(None, rng)")
        fresh, self.feedback = self._side.reset(int(rng.integers(2**62)))
        return fresh

    def send(self, command: Command) -> None:
        checked_target(command, self.model.joint_names)
        self._command = command

    def ready(self, timeout_s: float) -> bool:
        return True

    def receive(self) -> RobotState:
        if self._command is None:
            raise ValueError("receive follows send; no command was sent")
        state, self.feedback = self._side.step(self._command)
        self._command = None
        return state

    def close(self) -> None:
        self._side.close()
