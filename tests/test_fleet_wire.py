"""FLX1 frames: golden bytes, round trips, and a named error for everything that is not a message."""

import zlib
from contextlib import ExitStack

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.checksum import crc32
from fleet.errors import CrcError, LengthError, MagicError, MessageTypeError, MetaError, VersionError, WireError
from fleet.keys import CurvePair
from fleet.messages import MESSAGE_CODES, Ack, Err, Get, Heartbeat, Hello, Nack, Put, Welcome
from fleet.sockets import BACKLOG, BULK_THREADS, CONTROL_THREADS, IO_THREADS, VIEW_BYTES, contents, listen
from fleet.wire import ENVELOPE_BYTES, LAST_FRAGMENT, MAX_META_BYTES, MAX_PAYLOAD_BYTES, TOMBSTONE, decode, encode

# Golden bytes of protocol 1.0: never edited. A change here is a new version, and the old bytes must still decode.
GOLDEN_PUT = [
    bytes.fromhex(
        "464c5831"  # FLX1
        "01000402"  # 1.0, put, last fragment
        "00020007"  # steps, schema 7
        "0102030405060708"  # epoch
        "0000000000000029"  # seq 41
        "00000005"  # length
        "3610a686"  # crc32(b"hello")
        "00000000499602d2"  # t_ns
        "00000000"
    ),
    b"",
    b"hello",
]
GOLDEN_ACK = [
    bytes.fromhex("464c5831010005" + "00" * 41),
    bytes.fromhex("84a474797065a361636ba565706f636809a7637572736f7273810229ac6372656469745f6279746573ce00100000"),
]


def test_a_put_has_the_golden_bytes():
    frames = encode(
        Put(),
        payload=b"hello",
        stream=2,
        schema=7,
        epoch=0x0102030405060708,
        seq=41,
        t_ns=1234567890,
        flags=LAST_FRAGMENT,
    )
    assert frames == GOLDEN_PUT


def test_golden_bytes_decode():
    put = decode(GOLDEN_PUT)
    assert (put.envelope.epoch, put.envelope.seq, put.envelope.stream) == (0x0102030405060708, 41, 2)
    assert (put.message, put.payload) == (Put(), b"hello")
    assert decode(GOLDEN_ACK).message == Ack(epoch=9, cursors={2: 41}, credit_bytes=1 << 20)
    assert encode(Ack(epoch=9, cursors={2: 41}, credit_bytes=1 << 20)) == GOLDEN_ACK


def test_the_envelope_has_48_bytes_and_codes_are_unique():
    assert ENVELOPE_BYTES == 48
    assert len(set(MESSAGE_CODES.values())) == len(MESSAGE_CODES) == 22


def _changed(frames, index, start, new):
    frames = list(frames)
    frames[index] = frames[index][:start] + new + frames[index][start + len(new) :]
    return frames


@pytest.mark.parametrize(
    ("frames", "error", "match"),
    [
        ([], LengthError, "2 or 3 frames, got 0"),
        ([*GOLDEN_PUT, b""], LengthError, "2 or 3 frames, got 4"),
        (_changed(GOLDEN_PUT, 0, 0, b"FXX1"), MagicError, "starts with b'FLX1', got b'FXX1'"),
        ([GOLDEN_PUT[0][:-1], b"", b"hello"], LengthError, "48 bytes, got 47"),
        (_changed(GOLDEN_PUT, 0, 4, b"\x02"), VersionError, r"protocol 2.0: this side speaks 1.0 to 1.0"),
        (_changed(GOLDEN_PUT, 0, 6, b"\x63"), MessageTypeError, "message type 99: known are 1 Hello"),
        (_changed(GOLDEN_PUT, 0, 7, b"\x80"), MessageTypeError, "flags 0x80"),
        ([*GOLDEN_PUT[:2], b"hell"], LengthError, "announces a payload of 5 bytes, got 4"),
        ([*GOLDEN_PUT[:2], b"hellO"], CrcError, "envelope says 0x3610a686"),
        ([GOLDEN_ACK[0], b""], MetaError, "Ack needs a meta frame"),
        ([GOLDEN_ACK[0], b"\xc1"], MetaError, "meta of Ack"),
        ([GOLDEN_ACK[0], encode(Err(code="session"))[1]], MetaError, "Invalid value 'err'"),
        ([GOLDEN_ACK[0], b"\x80" * (MAX_META_BYTES + 1)], LengthError, "meta of 65537 bytes; at most 65536"),
    ],
)
def test_what_is_not_a_message_is_refused_by_name(frames, error, match):
    with pytest.raises(error, match=match):
        decode(frames)


def test_caps_hold_on_sending_too():
    with pytest.raises(LengthError, match="payload of 1114113 bytes"):
        encode(Put(), payload=b"x" * (MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(LengthError, match="meta of"):
        encode(Hello(robot="x" * 70_000, epoch=1))
    with pytest.raises(MessageTypeError, match="flags 0x40"):
        encode(Put(), flags=0x40)


def test_another_minor_version_with_unknown_keys_is_read():
    meta = msgspec.msgpack.encode({"type": "get", "path": "a/b", "from_the_future": 1})
    head = _changed(encode(Get(path="a/b")), 0, 5, b"\x09")[0]
    assert decode([head, meta]).message == Get(path="a/b")


cursors = st.dictionaries(st.integers(1, 5), st.integers(0, 2**63), max_size=5)
messages = st.one_of(
    st.builds(Hello, robot=st.text(max_size=40), epoch=st.integers(0, 2**63), first=cursors, recorded=cursors),
    st.builds(
        Welcome,
        hub=st.just("h"),
        epoch=st.integers(0, 2**63),
        cursors=cursors,
        credit_bytes=st.integers(0, 2**31),
        heartbeat_s=st.floats(0.1, 60.0),
    ),
    st.builds(Ack, epoch=st.integers(0, 2**63), cursors=cursors, credit_bytes=st.integers(0, 2**31)),
    st.builds(
        Nack,
        epoch=st.integers(0, 2**63),
        stream=st.integers(1, 5),
        cursor=st.integers(0, 2**63),
        why=st.sampled_from(["gap", "nospace", "conflict"]),
    ),
    st.builds(Heartbeat, state=st.just("running"), recorded=cursors),
    st.just(Put()),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    messages,
    st.binary(max_size=200),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, TOMBSTONE]),
)
def test_decode_undoes_encode(message, payload, stream, seq, flags):
    received = decode(encode(message, payload=payload, stream=stream, seq=seq, flags=flags))
    assert (received.message, received.payload) == (message, payload)
    envelope = received.envelope
    assert (envelope.stream, envelope.seq, envelope.flags) == (stream, seq, flags)
    assert envelope.crc == zlib.crc32(payload)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=120), max_size=4))
def test_arbitrary_frames_never_raise_anything_else(frames):
    with pytest.raises(WireError):
        decode(frames)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 47), st.integers(1, 255), st.sampled_from([0, 1, 2]), st.integers(0, 60))
def test_a_flipped_byte_is_a_wire_error_or_another_message_never_a_crash(at, xor, frame, meta_at):
    frames = [bytearray(f) for f in encode(Hello(robot="a", epoch=3, recorded={2: 9}), payload=b"p" * 9)]
    target = frames[frame]
    where = (at if frame == 0 else meta_at) % len(target)
    target[where] ^= xor
    try:
        decode([bytes(f) for f in frames])
    except WireError:
        return
    assert frame == 1 or where in (*range(5, 6), *range(7, 28), *range(36, 48))  # fields that are data, not form


@given(data=st.binary(max_size=5000), start=st.integers(0, 2**32 - 1))
def test_the_fast_checksum_is_the_standard_one(data, start):
    assert crc32(data) == crc32(memoryview(data)) == zlib.crc32(data)
    assert crc32(data, start) == zlib.crc32(data, start)


def test_large_frames_are_seen_where_they_are_and_small_ones_copied():
    small, large = contents([zmq.Frame(b"a" * (VIEW_BYTES - 1)), zmq.Frame(b"b" * VIEW_BYTES)])
    assert (type(small), type(large)) == (bytes, memoryview)
    assert (len(small), bytes(large)) == (VIEW_BYTES - 1, b"b" * VIEW_BYTES)


def test_a_whole_fleet_may_knock_at_once_and_bulk_is_decrypted_apart_from_control():
    public, secret = zmq.curve_keypair()
    with zmq.Context(io_threads=IO_THREADS) as context, ExitStack() as stack:
        pair = CurvePair(public=public, secret=secret)
        sockets = [listen(context, pair, "fleet", "127.0.0.1", "*", "test", t) for t in (CONTROL_THREADS, BULK_THREADS)]
        for socket in sockets:
            stack.callback(socket.close, 0)
        assert [socket.getsockopt(zmq.BACKLOG) for socket in sockets] == [BACKLOG, BACKLOG]
        control, bulk = (socket.getsockopt(zmq.AFFINITY) for socket in sockets)
    assert BACKLOG >= 4000  # two connections of each of two thousand robots
    assert control & bulk == 0
    assert (control | bulk).bit_length() == IO_THREADS
    assert bulk.bit_count() == 2
