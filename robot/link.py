"""The link: a robot in one process, its controller in another, over a unix stream socket.

For a controller a simulator is a robot like any other. The simulator's process calls `serve(side, path)`; the controller's
holds a `LinkBackend`, which is a `robot.backend.Backend`. The controller's process therefore never imports an engine.

The messages are in `robot.link_wire`. After a state that says terminated or truncated only a reset is accepted.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from robot.description import load
from robot.description.model import RobotModel
from robot.errors import FlexorError
from robot.link_wire import (
    PROTOCOL,
    Bye,
    Error,
    Hello,
    LinkClosedError,
    LinkError,
    Message,
    Reset,
    RobotMismatchError,
    State,
    Step,
    TaskFeedback,
    array,
    from_state_message,
    parse,
    raw,
    receive,
    send,
    state_message,
)
from robot.state import Command, RobotState, checked_target, wrong_sizes

Answer = TypeVar("Answer", Hello, State)


class RobotSide(Protocol):
    """What `serve` puts behind a link: a robot and the task it stands in."""

    @property
    def model(self) -> RobotModel: ...

    @property
    def control_hz(self) -> float: ...

    @property
    def env_id(self) -> str: ...

    def reset(self, rng_seed: int) -> tuple[RobotState, TaskFeedback]:
        """Start an episode; equal seeds start equal episodes."""
        ...

    def step(self, command: Command) -> tuple[RobotState, TaskFeedback]:
        """One control period.

        Raises:
            CommandError, NotFiniteError: As `Backend.step`; nothing is applied.
        """
        ...

    def close(self) -> None: ...


class LinkBackend:
    """A robot behind a link, as a `Backend`. `step` is `send` and then `receive`; a loop may call them apart.

    Attributes:
        feedback: What the task said with the last state.
        env_id: Environment at the other end.
        sizes, numbers: How many numbers each array of the last state had, and all of them in a row, as on the wire.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._closed, self._waiting = False, 0  # so many answers are still to come
        self.feedback = TaskFeedback()
        self.sizes: tuple[int, ...] = ()
        self.numbers = np.zeros(0)
        send(sock, Hello())
        hello = self._answer(Hello)
        if hello.protocol != PROTOCOL:
            raise LinkError(f"link protocol: expected {PROTOCOL}, got {hello.protocol}; update the older side")
        self._model = load(hello.robot)
        if self._model.sha256 != hello.robot_sha256:
            raise RobotMismatchError(
                f"the process behind the link has another {hello.robot!r}: sha256 {hello.robot_sha256[:12] or 'empty'}, "
                f"here {self._model.sha256[:12]}; run both from one version"
            )
        if not hello.control_hz > 0.0:
            raise LinkError(f"control_hz must be > 0, got {hello.control_hz}")
        self._control_hz, self.env_id = hello.control_hz, hello.env_id

    @classmethod
    def connect(cls, path: Path | str, *, timeout_s: float = 60.0) -> "LinkBackend":
        """Connect to a robot that `serve`s at a path.

        Args:
            path: Its socket.
            timeout_s: Longest wait for an answer; a first reset may compile kernels [s].

        Raises:
            OSError: Nobody listens there.
            LinkError: Whoever listens is no robot of ours.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    @property
    def model(self) -> RobotModel:
        return self._model

    @property
    def control_hz(self) -> float:
        return self._control_hz

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def timeout_s(self) -> float:
        """Longest wait for an answer."""
        return self._sock.gettimeout() or 0.0

    def _answer(self, kind: type[Answer]) -> Answer:
        return self._expected(receive(self._sock), kind)

    def _expected(self, message: Message, kind: type[Answer]) -> Answer:
        if isinstance(message, Error):
            raise LinkError(f"the robot refused: {message.name}: {message.text}")
        if not isinstance(message, kind):
            raise LinkError(f"expected {kind.__name__.upper()}, got {type(message).__name__.upper()}")
        return message

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """Start an episode. The task places the robot, so `state` must be None.

        Raises:
            LinkError: A state was given, or the other end refused.
        """
        if state is not None:
            raise LinkError("behind a link the task places the robot; call reset(None, rng)")
        send(self._sock, Reset(rng_seed=int(rng.integers(2**62))))
        self._waiting, self._fresh_id = self._waiting + 1, uuid.uuid4().hex
        while self._waiting > 1:  # what was asked before is nobody's any more
            self.receive()
        return self.receive()

    def send(self, command: Command) -> None:
        """Send a command; `receive` must follow, unless the robot stays silent: then another command may.

        Raises:
            CommandError, NotFiniteError: As `Backend.step`; nothing was sent.
        """
        target = checked_target(command, self._model.joint_names)
        send(self._sock, Step(target_rad=raw(target)))
        self._waiting += 1

    def ready(self, timeout_s: float) -> bool:
        """Whether an answer is there, or comes within a time [s]."""
        return bool(select.select([self._sock], [], [], timeout_s)[0])

    def receive(self) -> RobotState:
        """The state that answers the last command; the newest that is there where several are."""
        if not self._waiting:
            raise LinkError("receive follows send or reset; nothing was asked")
        while True:
            self._waiting -= 1
            state = self._taken(self._answer(State))
            if not (self._waiting and self.ready(0.0)):
                return state

    @property
    def in_step(self) -> bool:
        """Whether everything that was asked is answered."""
        return self._waiting == 0

    def sent_elsewhere(self) -> None:
        """Somebody else sent a command on this socket, and did not get the answer."""
        self._waiting += 1

    def take(self, body: bytes) -> RobotState:
        """As `receive`, of a message that somebody else read from the socket, who had also sent the command."""
        return self._taken(self._expected(parse(body), State))

    def _taken(self, message: State) -> RobotState:
        state, feedback = from_state_message(message)
        if wrong := wrong_sizes(state, self._model):
            raise LinkError(f"STATE carries sensors that {self._model.name} does not have: {wrong}")
        for name in ("q_rad", "qd_rad_s", "target_rad"):
            if getattr(state, name).shape != (len(self._model.joints),):
                raise LinkError(
                    f"STATE.{name} needs {len(self._model.joints)} joints, got {getattr(state, name).shape}"
                )
        self.sizes, self.numbers = message.sizes, array("STATE", message.data)
        self.feedback = feedback if feedback.episode_id else replace(feedback, episode_id=self._fresh_id)
        return state

    def step(self, command: Command) -> RobotState:
        self.send(command)
        return self.receive()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(LinkClosedError):  # then it is already as wanted
                send(self._sock, Bye())
            self._sock.close()


def answer(side: RobotSide, message: Message, *, over: bool) -> tuple[State | Error, bool]:
    """What a robot answers to RESET or STEP, and whether its episode is over then.

    Args:
        side: The robot and its task.
        message: What the controller asked.
        over: Whether the episode is over, or none was started, before it.
    """
    try:
        if isinstance(message, Reset):
            state, feedback = side.reset(message.rng_seed)
        elif isinstance(message, Step) and not over:
            state, feedback = side.step(Command(target_rad=array("target_rad", message.target_rad)))
        elif isinstance(message, Step):
            raise LinkError("no episode is running; send RESET")
        else:
            raise LinkError(f"expected RESET, STEP or BYE, got {type(message).__name__.upper()}")
    except FlexorError as error:
        return Error(name=type(error).__name__, text=str(error)), over
    return state_message(state, feedback), feedback.over


def converse(side: RobotSide, sock: socket.socket) -> None:
    """Serve one controller until it says BYE or is gone.

    Raises:
        LinkError: The controller broke the protocol.
    """
    over = True
    try:
        while not isinstance(message := receive(sock), Bye):
            if isinstance(message, Hello):
                model = side.model
                send(
                    sock,
                    Hello(
                        robot=model.name,
                        robot_sha256=model.sha256,
                        control_hz=side.control_hz,
                        env_id=side.env_id,
                    ),
                )
                continue
            reply, over = answer(side, message, over=over)
            send(sock, reply)
    except LinkClosedError:
        pass  # a controller that died ends the service like one that left


def serve(side: RobotSide, path: Path | str, *, parent_pid: int | None = None) -> None:
    """Put a robot behind a socket for one controller; returns when that controller leaves. The socket file is removed.

    Args:
        side: The robot and its task; closed on return.
        path: Socket to make; only the own user can open it.
        parent_pid: Stop waiting for a controller once another process is the parent.

    Raises:
        OSError: Something is at the path already.
        LinkError: The controller broke the protocol.
    """
    path = Path(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            free = not path.exists()  # what is there already is another's, and bind refuses it
            try:
                old_mask = os.umask(0o177)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(old_mask)
                listener.listen(1)
                while not select.select([listener], [], [], 0.5)[0]:
                    if parent_pid is not None and os.getppid() != parent_pid:
                        return
                sock, _ = listener.accept()
                with sock:
                    converse(side, sock)
            finally:
                if free:
                    path.unlink(missing_ok=True)
    finally:
        side.close()


def host(make_side: Callable[[], RobotSide], path: Path | str, *, parent_pid: int | None = None) -> None:
    """The whole life of a process that serves a robot: dies with its parent, and on SIGINT or SIGTERM leaves no socket.

    Args:
        make_side: Builds the robot; called after the signal handlers are in place.
        path: As in `serve`.
        parent_pid: The process to die with; None to live until told.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if parent_pid is not None:
        die_with_parent(parent_pid)
    try:
        serve(make_side(), path, parent_pid=parent_pid)
    except FlexorError as error:  # the parent reads these as the last words
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends (Linux; elsewhere the socket's end tells)."""
    PR_SET_PDEATHSIG = 1  # linux/prctl.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before we could ask
        raise SystemExit(128 + signal.SIGTERM)


__all__ = [
    "LinkBackend",
    "LinkClosedError",
    "LinkError",
    "RobotMismatchError",
    "RobotSide",
    "TaskFeedback",
    "host",
    "serve",
]
