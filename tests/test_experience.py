"""A chunk of experience is its bytes: nothing is lost, nothing foreign is believed, and yesterday's bytes stay readable."""

import hashlib
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.experience import (
    MAGIC,
    MAX_STEPS,
    MAX_WIDTH,
    Chunk,
    ChunkHeader,
    ExperienceError,
    decode,
    encode,
    read_header,
)

ARRAYS = ("observation", "action", "reward", "log_prob", "success", "time_s", "last_observation")


def chunk(
    steps: int = 3, observation: int = 2, action: int = 1, terms: tuple[str, ...] = ("goal", "smooth"), **header: object
) -> Chunk:
    """A chunk whose numbers say where they stand: observation of step k starts with k, its action is 10 k."""
    k = np.arange(steps)
    given: dict[str, object] = dict(
        contract_sha256="c" * 64,
        policy_sha256="p" * 64,
        episode_id="e" * 32,
        first_step=7,
        steps=steps,
        observation_size=observation,
        action_size=action,
        reward_names=terms,
        ended="truncated",
        cohort="canary",
        control_hz=25.0,
        start_time_ns=1_700_000_000_000_000_000,
    )
    return Chunk(
        header=ChunkHeader(**(given | header)),  # type: ignore[arg-type]
        observation=(k[:, None] + 0.125 * np.arange(observation)).astype(np.float32),
        action=(10.0 * k[:, None] + np.arange(action)).astype(np.float32),
        reward=(0.5 * k[:, None] * np.ones(len(terms))).astype(np.float32),
        log_prob=np.where(k == 0, np.nan, -k).astype(np.float32),
        success=(k % 2).astype(np.uint8),
        time_s=0.04 * k.astype(np.float64),
        last_observation=np.full(observation, steps, dtype=np.float32),
    )


def same(a: Chunk, b: Chunk) -> bool:
    return a.header == b.header and all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in ARRAYS)


@given(st.integers(1, 50), st.integers(1, 30), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_decoding_what_was_encoded_gives_it_back_bit_for_bit(steps, observation, action, terms):
    ours = chunk(steps, observation, action, tuple(f"term{i}" for i in range(terms)))
    data = encode(ours)
    assert same(decode(data), ours)
    assert encode(decode(data)) == data
    assert len(data) % 8 == 0


def test_arrays_are_read_in_place_aligned_and_not_writable():
    data = encode(chunk())
    read = decode(data)
    for name in ARRAYS:
        array = getattr(read, name)
        assert not array.flags.writeable
        assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        read.action[0] = 1.0


def test_the_header_can_be_read_alone():
    ours = chunk()
    header, offset = read_header(encode(ours)[:4096])
    assert header == ours.header
    assert offset % 8 == 0


GOLDEN = bytes.fromhex(
    "46584331660100008daf636f6e74726163745f736861323536d9406363636363636363636363636363636363636363636363"
    "6363636363636363636363636363636363636363636363636363636363636363636363636363636363ad706f6c6963795f73"
    "6861323536d94070707070707070707070707070707070707070707070707070707070707070707070707070707070707070"
    "707070707070707070707070707070707070707070aa657069736f64655f6964d92065656565656565656565656565656565"
    "65656565656565656565656565656565aa66697273745f7374657007a5737465707301b06f62736572766174696f6e5f7369"
    "7a6501ab616374696f6e5f73697a6501ac7265776172645f6e616d657391a4676f616ca5656e646564a97472756e63617465"
    "64a6636f686f7274a663616e617279aa636f6e74726f6c5f687acb4039000000000000ad73746172745f74696d655f6e73cf"
    "17979cfe362a0000a6736368656d610100000000000000000000000000000000000000000000000000000000c07f00000000"
    "000000000000000000000000000000000000803f00000000"
)  # version 1, never edited; made by encode(chunk(steps=1, observation=1, action=1, terms=("goal",)))


def test_bytes_of_version_1_still_decode():
    ours = chunk(steps=1, observation=1, action=1, terms=("goal",))
    assert same(decode(GOLDEN), ours)


def test_version_1_is_still_what_is_written():
    assert encode(chunk(steps=1, observation=1, action=1, terms=("goal",))) == GOLDEN
    assert (
        hashlib.sha256(encode(chunk())).hexdigest()
        == "73892667aaaef1a5809bd5a1bbd5326a00543b4f1e0f8b0820a8cec2c3c7e0b4"
    )


def with_header(**changes: object) -> bytes:
    """A chunk with an altered header before the same arrays."""
    data = encode(chunk())
    header, offset = read_header(data)
    head = msgspec.msgpack.encode(msgspec.to_builtins(header) | changes)
    padding = b"\0" * (-(8 + len(head)) % 8)
    return MAGIC + struct.pack("<I", len(head)) + head + padding + data[offset:]


REFUSED = {
    "nothing": (b"", "expected a chunk that starts with b'FXC1', got b''"),
    "something else": (b"PK\x03\x04" + bytes(100), "expected a chunk that starts with b'FXC1'"),
    "a header that claims more than is there": (
        MAGIC + struct.pack("<I", 1 << 31) + bytes(64),
        "chunk header of 2147483648 bytes",
    ),
    "a header of no length": (MAGIC + struct.pack("<I", 0) + bytes(64), "chunk header of 0 bytes"),
    "a header that is no msgpack": (MAGIC + struct.pack("<I", 8) + b"\xc1" * 8, "chunk header: "),
    "a missing field": (with_header(steps=None), r"chunk header: Expected `int`, got `None` - at `\$.steps`"),
    "a name that is no text": (encode(chunk()).replace(b"e" * 32, b"\xff" * 32), "chunk header: "),
    "nests without end": (
        MAGIC + struct.pack("<I", 60_004) + b"\x81\xa1x" + b"\x91" * 60_000 + b"\xc0" + bytes(8),
        "chunk header: ",
    ),
    "another schema": (with_header(schema=2), "chunk schema: expected 1, got 2"),
    "no steps": (with_header(steps=0), f"chunk steps must be 1..{MAX_STEPS}, got 0"),
    "steps below zero": (with_header(steps=-3), f"chunk steps must be 1..{MAX_STEPS}, got -3"),
    "steps past the cap": (with_header(steps=10**9), f"chunk steps must be 1..{MAX_STEPS}, got 1000000000"),
    "width past the cap": (with_header(observation_size=10**9), f"chunk observation_size must be 1..{MAX_WIDTH}"),
    "no reward": (with_header(reward_names=[]), "chunk reward_names must be 1..64, got 0"),
    "an unknown ending": (with_header(ended="bored"), "Invalid enum value 'bored'"),
    "a step more than the arrays hold": (with_header(steps=4), "chunk of 4 steps needs"),
    "a byte too few": (encode(chunk())[:-1], "chunk of 3 steps needs"),
    "a byte too many": (encode(chunk()) + b"\0", "chunk of 3 steps needs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bytes_that_are_no_chunk_are_refused_by_field(case):
    data, message = REFUSED[case]
    with pytest.raises(ExperienceError, match=message):
        decode(data)


def tried(data: bytes) -> bool:
    """Whether bytes decode; anything but a chunk or a named refusal fails the test."""
    try:
        read = decode(data)
    except ExperienceError:
        return False
    assert read.observation.shape == (read.header.steps, read.header.observation_size)
    return True


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_bytes_never_do_more_than_be_refused(data):
    assert not tried(data)
    assert not tried(MAGIC + data)


@given(st.integers(0, len(encode(chunk())) - 1), st.integers(1, 255))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_a_flipped_byte_is_refused_or_changes_only_what_it_stands_in(place, flip):
    data = bytearray(encode(chunk()))
    data[place] ^= flip
    tried(bytes(data))


@given(st.integers(0, len(encode(chunk())) - 1))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_truncated_chunk_is_refused_wherever_it_is_cut(length):
    assert not tried(encode(chunk())[:length])


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_shape_than_the_header_says_is_refused_by_name(name):
    ours = chunk()
    longer = np.concatenate([getattr(ours, name)] * 2)
    with pytest.raises(ExperienceError, match=rf"chunk.{name}: header says shape"):
        encode(msgspec.structs.replace(ours, **{name: longer}))
