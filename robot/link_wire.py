"""Messages of the link between a robot's process and its controller's, and their bytes. `robot.link` is what to use.

Wire: u32 little-endian length, then one msgpack message of a closed, typed set. Arrays are raw little-endian float64.
A message past `MAX_MESSAGE_BYTES` is refused before memory is taken for it. Order:

    controller                         robot
    HELLO(protocol)          ->
                             <-        HELLO(robot, robot_sha256, control_hz, env_id)
    RESET(rng_seed)          ->
                             <-        STATE
    STEP(target)             ->
                             <-        STATE | ERROR     the robot did nothing when it answers ERROR
    BYE                      ->                          or the socket closes

After a STATE that says terminated or truncated only RESET and BYE are accepted.
"""

import socket
import struct
from dataclasses import dataclass, field, fields

import msgspec
import numpy as np

from robot.errors import FlexorError
from robot.state import RobotState

PROTOCOL = 1
MAX_MESSAGE_BYTES = 256 * 1024  # a state of hand22 is 2 kB
F8 = np.dtype("<f8")


class LinkError(FlexorError):
    """The other end broke the protocol, refused, or does not answer."""


class LinkClosedError(LinkError):
    """The other end is gone."""


class RobotMismatchError(LinkError):
    """The process behind the link has another description of the robot than this one."""


def _nothing() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, kw_only=True)
class TaskFeedback:
    """What the task beside the robot says after a reset or a step. A robot without a task sends the defaults.

    Attributes:
        goal: Goal in force, in the contract's goal elements, unit and frame, shape (n_goal,).
        reward_names: Names of the reward terms; their sum is the reward.
        reward_terms: Their values for the step just done, shape (len(reward_names),).
        terminated: The task ended the episode.
        truncated: The time limit ended the episode.
        success: Whether the goal holds now.
        episode_id: 32 hex digits, one per episode; the controller's end gives a fresh one where the robot's left it empty.
    """

    goal: np.ndarray = field(default_factory=_nothing)
    reward_names: tuple[str, ...] = ()
    reward_terms: np.ndarray = field(default_factory=_nothing)
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    episode_id: str = ""

    @property
    def over(self) -> bool:
        """Whether the next thing to do is a reset."""
        return self.terminated or self.truncated


class Hello(msgspec.Struct, tag="hello", frozen=True, kw_only=True):
    protocol: int = PROTOCOL
    robot: str = ""
    robot_sha256: str = ""
    control_hz: float = 0.0
    env_id: str = ""


class Reset(msgspec.Struct, tag="reset", frozen=True, kw_only=True):
    rng_seed: int


class Step(msgspec.Struct, tag="step", frozen=True, kw_only=True):
    target_rad: bytes


class State(msgspec.Struct, tag="state", frozen=True, kw_only=True):
    time_s: float
    arrays: dict[str, bytes]  # RobotState's array fields by name
    goal: bytes
    reward_names: tuple[str, ...]
    reward_terms: bytes
    terminated: bool
    truncated: bool
    success: bool
    episode_id: str


class Bye(msgspec.Struct, tag="bye", frozen=True, kw_only=True):
    pass


class Error(msgspec.Struct, tag="error", frozen=True, kw_only=True):
    name: str
    text: str


Message = Hello | Reset | Step | State | Bye | Error
ARRAYS = tuple(f.name for f in fields(RobotState) if f.name != "time_s")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def raw(array: np.ndarray) -> bytes:
    return np.asarray(array, dtype=F8).tobytes()


def array(name: str, data: bytes) -> np.ndarray:
    """The float64 array in some bytes, fresh.

    Raises:
        LinkError: The length is no multiple of eight.
    """
    if len(data) % F8.itemsize:
        raise LinkError(f"{name}: raw float64 needs a multiple of {F8.itemsize} bytes, got {len(data)}")
    return np.frombuffer(data, dtype=F8).copy()


def state_message(state: RobotState, feedback: TaskFeedback) -> State:
    return State(
        time_s=state.time_s,
        arrays={name: raw(getattr(state, name)) for name in ARRAYS},
        goal=raw(feedback.goal),
        reward_names=feedback.reward_names,
        reward_terms=raw(feedback.reward_terms),
        terminated=feedback.terminated,
        truncated=feedback.truncated,
        success=feedback.success,
        episode_id=feedback.episode_id,
    )


def from_state_message(message: State) -> tuple[RobotState, TaskFeedback]:
    """The inverse of `state_message`.

    Raises:
        LinkError: Array names, or lengths, that are not those of a RobotState.
    """
    if set(message.arrays) != set(ARRAYS):
        odd = sorted(set(message.arrays) ^ set(ARRAYS))
        raise LinkError(f"STATE must carry the arrays {', '.join(ARRAYS)}; missing or unknown: {', '.join(odd)}")
    state = RobotState(time_s=message.time_s, **{name: array(name, message.arrays[name]) for name in ARRAYS})
    terms = array("reward_terms", message.reward_terms)
    if terms.shape != (len(message.reward_names),):
        raise LinkError(f"STATE names {len(message.reward_names)} reward terms and carries {len(terms)}")
    return state, TaskFeedback(
        goal=array("goal", message.goal),
        reward_names=message.reward_names,
        reward_terms=terms,
        terminated=message.terminated,
        truncated=message.truncated,
        success=message.success,
        episode_id=message.episode_id,
    )


def frame(message: Message) -> bytes:
    """A message as it goes over the wire."""
    body = _encode(message)
    return struct.pack("<I", len(body)) + body


def send(sock: socket.socket, message: Message) -> None:
    try:
        sock.sendall(frame(message))
    except OSError as error:
        raise LinkClosedError(f"the other end of the link is gone ({error})") from error


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = sock.recv(count - len(parts))
        except TimeoutError as error:
            raise LinkError(f"the other end of the link did not answer within {sock.gettimeout()} s") from error
        except OSError as error:
            raise LinkClosedError(f"the other end of the link is gone ({error})") from error
        if not part:
            raise LinkClosedError("the other end closed the link")
        parts += part
    return bytes(parts)


def receive(sock: socket.socket) -> Message:
    """The next message.

    Raises:
        LinkClosedError: End of file.
        LinkError: Silence past the socket's timeout, a length past the cap, or bytes that are none of the messages.
    """
    (size,) = struct.unpack("<I", _exactly(sock, 4))
    if not 0 < size <= MAX_MESSAGE_BYTES:
        raise LinkError(f"a message must have 1..{MAX_MESSAGE_BYTES} bytes, got a length of {size}")
    try:
        return _decode(_exactly(sock, size))
    except msgspec.MsgspecError as error:
        raise LinkError(f"not a message of this link: {error}") from error
