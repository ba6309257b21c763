"""How the compiled period reaches a robot: over a link, by itself; any other robot, through Python."""

import ctypes
from typing import Protocol

import numpy as np

from robot.errors import FlexorError
from robot.link import LinkBackend
from robot.link_wire import (
    ARRAYS,
    MAX_MESSAGE_BYTES,
    STATE_HEAD,
    LinkClosedError,
    LinkError,
    Step,
    frame,
    raw,
    state_head,
)
from robot.onboard.robots import Robot
from robot.onboard.tick_record import CLOSED, DONE, OTHER, SILENT, Keeper, Record
from robot.state import Command, RobotState

NO_LINK = -1  # what tick.c takes for a robot that Python talks to
OUT_OF_ORDER = 4  # an answer that the loop in Python must see: OVER in tick.c


def patience_ms(record: Record) -> int:
    """How long an answer is waited for before the loop in Python is asked what to do: a period."""
    return max(1, round(1e-6 * record.period_ns))


class Line(Protocol):
    """A robot as the compiled period sees it."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each array of a state has, goal and reward terms after them."""
        ...

    @property
    def in_step(self) -> bool:
        """Whether the robot has answered everything that was asked."""
        ...

    def numbers(self, state: RobotState) -> np.ndarray:
        """Those of the state that the robot said last, in a row."""
        ...

    def attach(self, record: Record, own: Keeper, values: np.ndarray) -> None:
        """Where a state's numbers go."""
        ...

    def decide(self) -> int:
        """Decide and send; DONE, or why nothing was sent."""
        ...

    def read(self) -> int:
        """Wait for the record's deadline, take in the answer, account for it; DONE, or what else there is. Where the record's `wake_fd`
        allows it, decide and go on, as long as nobody has to be asked; `unanswered` then says that C would not decide.
        """
        ...

    def state(self, code: int) -> RobotState | None:
        """The state that `read` took in last; after SILENT the one before, None where there was none since `numbers`.

        Raises:
            FlexorError: There is none: the other end is gone, or announced an absurd length.
        """
        ...


class OverLink:
    """A robot behind a link: C reads and writes its socket."""

    def __init__(self, robot: LinkBackend, library: ctypes.CDLL) -> None:
        self._robot, self._library = robot, library
        self.sizes = robot.sizes

    @property
    def in_step(self) -> bool:
        return self._robot.in_step

    def numbers(self, state: RobotState) -> np.ndarray:
        self._heard = False
        return self._robot.numbers

    def attach(self, record: Record, own: Keeper, values: np.ndarray) -> None:
        robot, t = self._robot, record
        self._record, self._at = t, ctypes.addressof(t)
        head = state_head(0.0, self.sizes)
        self._frame = np.zeros(MAX_MESSAGE_BYTES, dtype=np.uint8)
        t.frame, t.frame_room = own(self._frame), MAX_MESSAGE_BYTES
        t.head, t.head_size = own(np.frombuffer(head, dtype=np.uint8)), len(head)
        t.flags_at, t.time_at = 1, STATE_HEAD.size - 8
        t.fd, t.timeout_ms = robot.fileno(), round(1e3 * robot.timeout_s)
        t.patience_ms = patience_ms(t)
        step = frame(Step(target_rad=raw(np.zeros(t.joints))))
        t.out, t.out_size = own(np.frombuffer(step, dtype=np.uint8).copy()), len(step)
        t.out_at = len(step) - 8 * t.joints

    def decide(self) -> int:
        return self._library.tick_decide(self._at)

    def read(self) -> int:
        steps = self._record.steps
        code = self._library.tick_run(self._at)
        if code == SILENT:
            self._robot.sent_elsewhere()
        self._heard = self._heard or self._record.steps > steps
        return code

    def state(self, code: int) -> RobotState | None:
        size = self._record.frame_size
        if code == CLOSED:
            raise LinkClosedError("the other end of the link is gone")
        if code == OTHER:
            raise LinkError(f"a message must have 1..{MAX_MESSAGE_BYTES} bytes, got a length of {size}")
        if code == SILENT and not self._heard:
            return None
        return self._robot.take(self._frame[:size].tobytes())


class ThroughPython:
    """Any other robot: C decides and keeps account, Python sends and receives between.

    Args:
        robot: Any.
        state: What it said last.
        target_rad: Where C leaves the target, shape (n_joints,).
    """

    def __init__(self, robot: Robot, state: RobotState, target_rad: np.ndarray, library: ctypes.CDLL) -> None:
        self._robot, self._state, self._target, self._library = robot, state, target_rad, library
        self._error: FlexorError | None = None
        self.sizes = tuple(len(array) for array in self._arrays(state))

    def _arrays(self, state: RobotState) -> list[np.ndarray]:
        feedback = self._robot.feedback
        return [*(getattr(state, name) for name in ARRAYS), feedback.goal, feedback.reward_terms]

    @property
    def in_step(self) -> bool:
        return True

    def numbers(self, state: RobotState) -> np.ndarray:
        return np.concatenate(self._arrays(state))

    def attach(self, record: Record, own: Keeper, values: np.ndarray) -> None:
        self._at, self._values = ctypes.addressof(record), values
        record.fd = NO_LINK
        self._patience_ms = patience_ms(record)

    def decide(self) -> int:
        code = self._library.tick_decide(self._at)
        if code == DONE:
            self._robot.send(Command(target_rad=self._target.copy()))
            self._library.tick_sent(self._at)
        return code

    def read(self) -> int:
        self._library.tick_wait(self._at)
        if not self._robot.ready(1e-3 * self._patience_ms):
            return SILENT
        try:
            self._state = self._robot.receive()
        except FlexorError as error:  # what was done so far is to be counted first
            self._error = error
            return CLOSED
        arrays, feedback = self._arrays(self._state), self._robot.feedback
        if feedback.over or tuple(len(array) for array in arrays) != self.sizes:
            return OUT_OF_ORDER
        np.concatenate(arrays, out=self._values)
        self._library.tick_account(self._at, self._state.time_s, feedback.success)
        return DONE

    def state(self, code: int) -> RobotState | None:
        if self._error is not None:
            raise self._error
        return self._state
