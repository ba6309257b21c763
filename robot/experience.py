"""Experience: a chunk of control steps as packed arrays. The same bytes in the spool, on the wire, in the hub's log.

Layout: 4-byte magic `FXC1`, u32 header length, a msgpack header, then the arrays one after the other, little-endian, each starting
on a multiple of 8 bytes. Nothing is executed on reading, and every length is checked against a cap before memory is taken.
"""

import struct
from typing import Literal

import msgspec
import numpy as np

from robot.errors import FlexorError

MAGIC = b"FXC1"
MAX_HEADER_BYTES = 64 * 1024
MAX_STEPS = 4096  # 163 s at 25 Hz; a chunk is meant to be 1-5 s
MAX_WIDTH = 4096


class ExperienceError(FlexorError, ValueError):
    """Bytes that are not a chunk of experience; the message names the field."""


class ChunkHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk is of.

    Attributes:
        contract_sha256: Contract the observations and actions follow.
        policy_sha256: The artifact's `policy.onnx` that acted, "" when no artifact did.
        episode_id: 32 hex digits, one per episode.
        first_step: Index in the episode of the chunk's first step.
        steps: Number of steps.
        observation_size, action_size: Widths.
        reward_names: Names of the reward terms, in column order; the reward is their sum.
        ended: How the chunk's last step left the episode.
        cohort: Which group of a deployment the robot was in.
        control_hz: Rate of the steps.
        start_time_ns: Robot's UTC clock at the first step; for display, never for order.
    """

    contract_sha256: str
    policy_sha256: str
    episode_id: str
    first_step: int
    steps: int
    observation_size: int
    action_size: int
    reward_names: tuple[str, ...]
    ended: Literal["no", "terminated", "truncated"] = "no"
    cohort: Literal["none", "control", "canary", "shadow"] = "none"
    control_hz: float = 0.0
    start_time_ns: int = 0
    schema: int = 1


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A header and its arrays.

    Attributes:
        observation: shape (steps, observation_size), float32, before each action.
        action: shape (steps, action_size), float32, as sampled, before clipping.
        reward: shape (steps, len(reward_names)), float32.
        log_prob: Log density of `action` under the behaviour policy, shape (steps,), float32; NaN where it acted without noise.
        success: Whether the task's goal held after the step, shape (steps,), uint8.
        time_s: Robot clock at each observation, shape (steps,), float64.
        last_observation: After the last action, shape (observation_size,), float32.
    """

    header: ChunkHeader
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    log_prob: np.ndarray
    success: np.ndarray
    time_s: np.ndarray
    last_observation: np.ndarray


def _layout(header: ChunkHeader) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    n, obs, act, terms = header.steps, header.observation_size, header.action_size, len(header.reward_names)
    f4, f8, u1 = np.dtype("<f4"), np.dtype("<f8"), np.dtype("u1")
    return [
        ("observation", f4, (n, obs)),
        ("action", f4, (n, act)),
        ("reward", f4, (n, terms)),
        ("log_prob", f4, (n,)),
        ("success", u1, (n,)),
        ("time_s", f8, (n,)),
        ("last_observation", f4, (obs,)),
    ]


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def encode(chunk: Chunk) -> bytes:
    """A chunk as bytes.

    Raises:
        ExperienceError: An array's shape is not what the header says.
    """
    head = msgspec.msgpack.encode(chunk.header)
    parts = [MAGIC, struct.pack("<I", len(head)), head, b"\0" * (_padded(8 + len(head)) - 8 - len(head))]
    for name, dtype, shape in _layout(chunk.header):
        array = np.ascontiguousarray(getattr(chunk, name), dtype=dtype)
        if array.shape != shape:
            raise ExperienceError(f"chunk.{name}: header says shape {shape}, got {array.shape}")
        raw = array.tobytes()
        parts += [raw, b"\0" * (_padded(len(raw)) - len(raw))]
    return b"".join(parts)


def read_header(data: bytes | memoryview) -> tuple[ChunkHeader, int]:
    """The header and the offset of the first array.

    Raises:
        ExperienceError: Not a chunk, or a header past the caps.
    """
    if len(data) < 8 or bytes(data[:4]) != MAGIC:
        raise ExperienceError(f"expected a chunk that starts with {MAGIC!r}, got {bytes(data[:4])!r}")
    (size,) = struct.unpack("<I", data[4:8])
    if not 0 < size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ExperienceError(
            f"chunk header of {size} bytes; at most {MAX_HEADER_BYTES}, and {len(data) - 8} are there"
        )
    try:
        header = msgspec.msgpack.decode(data[8 : 8 + size], type=ChunkHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ExperienceError(f"chunk header: {error}") from error
    if header.schema != 1:
        raise ExperienceError(f"chunk schema: expected 1, got {header.schema}")
    for name, value, cap in (
        ("steps", header.steps, MAX_STEPS),
        ("observation_size", header.observation_size, MAX_WIDTH),
        ("action_size", header.action_size, MAX_WIDTH),
        ("reward_names", len(header.reward_names), 64),
    ):
        if not 0 < value <= cap:
            raise ExperienceError(f"chunk {name} must be 1..{cap}, got {value}")
    return header, _padded(8 + size)


def decode(data: bytes | memoryview) -> Chunk:
    """The chunk in some bytes; arrays are read-only views of them.

    Raises:
        ExperienceError: Not a chunk, truncated, or longer than its header says.
    """
    header, offset = read_header(data)
    layout = _layout(header)
    expected = offset + sum(_padded(dtype.itemsize * int(np.prod(shape))) for _, dtype, shape in layout)
    if len(data) != expected:
        raise ExperienceError(f"chunk of {header.steps} steps needs {expected} bytes, got {len(data)}")
    arrays = {}
    for name, dtype, shape in layout:
        count = int(np.prod(shape))
        array = np.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)
        array.setflags(write=False)
        arrays[name] = array
        offset += _padded(dtype.itemsize * count)
    return Chunk(header=header, **arrays)
