"""Messages of the link between a robot's process and its controller's, and their bytes. `robot.link` is what to use.

Wire: u32 little-endian length, then one message of a closed, typed set. A message past `MAX_MESSAGE_BYTES` is refused before
memory is taken for it. All are msgpack, except STATE, which comes every period and has a fixed layout that compiled code reads in
place (`robot/onboard/tick.c`), little-endian:

    u8 'S', u8 flags (1 terminated, 2 truncated, 4 success), u16 number of arrays, u32 zero, f64 time_s,
    u32 size of each array (one of zero to make them even), all arrays as f64, msgpack [reward_names, episode_id]

The arrays are `RobotState`'s in the order of its fields, then the goal and the reward terms. Order of messages:

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

PROTOCOL = 2  # 2: STATE in a layout of its own
MAX_MESSAGE_BYTES = 256 * 1024  # a state of hand22 is 2 kB
F8 = np.dtype("<f8")
STATE = b"S"  # no msgpack map begins with it
TERMINATED, TRUNCATED, SUCCESS = 1, 2, 4
STATE_HEAD = struct.Struct("<cBHId")


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


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes and the float64 of every array, in the order of `ARRAYS`, then goal and reward terms; and what the task said."""

    time_s: float
    sizes: tuple[int, ...]
    data: bytes
    terminated: bool
    truncated: bool
    success: bool
    reward_names: tuple[str, ...]
    episode_id: str


class Bye(msgspec.Struct, tag="bye", frozen=True, kw_only=True):
    pass


class Error(msgspec.Struct, tag="error", frozen=True, kw_only=True):
    name: str
    text: str


Packed = Hello | Reset | Step | Bye | Error  # those in msgpack
Message = Packed | State
ARRAYS = tuple(f.name for f in fields(RobotState) if f.name != "time_s")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode
_decode_tail = msgspec.msgpack.Decoder(tuple[tuple[str, ...], str]).decode


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
    arrays = (*(getattr(state, name) for name in ARRAYS), feedback.goal, feedback.reward_terms)
    return State(
        time_s=state.time_s,
        sizes=tuple(len(values) for values in arrays),
        data=raw(np.concatenate(arrays)),
        terminated=feedback.terminated,
        truncated=feedback.truncated,
        success=feedback.success,
        reward_names=feedback.reward_names,
        episode_id=feedback.episode_id,
    )


def from_state_message(message: State) -> tuple[RobotState, TaskFeedback]:
    """The inverse of `state_message`; all arrays are fresh.

    Raises:
        LinkError: The number of arrays, or their lengths, are not those of a RobotState.
    """
    if len(message.sizes) != len(ARRAYS) + 2:
        raise LinkError(f"STATE must carry {len(ARRAYS)} arrays ({', '.join(ARRAYS)}) and 2, got {len(message.sizes)}")
    values = array("STATE", message.data)
    ends = np.cumsum(message.sizes).tolist()
    if ends[-1] != len(values):
        raise LinkError(f"STATE announces {ends[-1]} numbers and carries {len(values)}")
    *arrays, goal, terms = (values[end - size : end] for end, size in zip(ends, message.sizes))
    if len(terms) != len(message.reward_names):
        raise LinkError(f"STATE names {len(message.reward_names)} reward terms and carries {len(terms)}")
    return RobotState(time_s=message.time_s, **dict(zip(ARRAYS, arrays))), TaskFeedback(
        goal=goal,
        reward_names=message.reward_names,
        reward_terms=terms,
        terminated=message.terminated,
        truncated=message.truncated,
        success=message.success,
        episode_id=message.episode_id,
    )


def state_head(time_s: float, sizes: tuple[int, ...], flags: int = 0) -> bytes:
    """What comes before the numbers of a STATE."""
    even = (*sizes, 0) if len(sizes) % 2 else sizes
    return STATE_HEAD.pack(STATE, flags, len(sizes), 0, time_s) + struct.pack(f"<{len(even)}I", *even)


def _state_body(message: State) -> bytes:
    flags = TERMINATED * message.terminated + TRUNCATED * message.truncated + SUCCESS * message.success
    tail = _encode((message.reward_names, message.episode_id))
    return state_head(message.time_s, message.sizes, flags) + message.data + tail


def _read_state(body: bytes) -> State:
    try:
        _, flags, count, _, time_s = STATE_HEAD.unpack_from(body)
        start = STATE_HEAD.size + 4 * (count + count % 2)
        sizes = struct.unpack_from(f"<{count}I", body, STATE_HEAD.size)
        end = start + F8.itemsize * sum(sizes)
        reward_names, episode_id = _decode_tail(body[end:])
    except struct.error as error:
        raise LinkError(f"a STATE that ends in its head ({error})") from error
    return State(
        time_s=time_s,
        sizes=sizes,
        data=body[start:end],
        terminated=bool(flags & TERMINATED),
        truncated=bool(flags & TRUNCATED),
        success=bool(flags & SUCCESS),
        reward_names=reward_names,
        episode_id=episode_id,
    )


def frame(message: Message) -> bytes:
    """A message as it goes over the wire."""
    body = _state_body(message) if isinstance(message, State) else _encode(message)
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
    return parse(_exactly(sock, size))


def parse(body: bytes) -> Message:
    """The message in some bytes, its length not among them.

    Raises:
        LinkError: They are none of the messages.
    """
    try:
        return _read_state(body) if body[:1] == STATE else _decode(body)
    except msgspec.MsgspecError as error:
        raise LinkError(f"not a message of this link: {error}") from error
