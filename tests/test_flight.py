"""The flight recorder: what is kept, what is written, and that it is written whatever happens."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onboard_helpers import CONTRACT, HAND, artifact, write
from test_onboard_loop import FakeClock, Scripted, loop, nan_in_joint

from robot.mock import MockReach
from robot.onboard import flight, mcap
from robot.onboard.flight import FlightRecorder
from robot.onboard.flight_log import to_mcap
from robot.onboard.flight_ring import FlightError, Layout, make_ring, open_ring
from robot.safety import STAGES, Fault, Mode

INTERFACE = CONTRACT.bind(HAND)
ROOT = Path(__file__).resolve().parents[1]


def messages(data):
    """(topic, time, message) of an MCAP file by a reader that is not ours."""
    reader = pytest.importorskip("mcap.reader")
    import io

    found = reader.make_reader(io.BytesIO(data), validate_crcs=True)
    summary = found.get_summary()
    listed = [(channel.topic, m.log_time, msgspec.json.decode(m.data)) for _, channel, m in found.iter_messages()]
    assert summary.statistics.message_count == len(listed)
    return listed, {m.name: m.metadata for m in found.iter_metadata()}, summary


def records_of(data, opcode):
    """Contents of the top-level records of a kind, by eye: for where the reader is not installed."""
    at, found = len(mcap.MAGIC), []
    while at < len(data) - len(mcap.MAGIC):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 9], "little")
        found += [data[at + 9 : at + 9 + size]] if kind == opcode else []
        at += 9 + size
    assert at == len(data) - len(mcap.MAGIC) and data.startswith(mcap.MAGIC) and data.endswith(mcap.MAGIC)
    return found


def test_messages_of_several_chunks_come_back_in_a_reader_that_is_not_ours():
    out = mcap.McapWriter()
    a = out.channel("/a", "A", {"type": "object"})
    b = out.channel("/b", "B", {"type": "object"})
    rows = [(b if k % 3 else a, 10**9 + k, {"k": k, "text": "x" * 500, "nan": float("nan")}) for k in range(3000)]
    for row in rows:
        out.message(*row)
    out.metadata("facts", {"one": "1"})
    data = out.finish()
    assert len(records_of(data, mcap.CHUNK)) == 2
    listed, metadata, summary = messages(data)
    assert listed == [("/b" if c == b else "/a", t, {**m, "nan": None}) for c, t, m in rows]
    assert metadata == {"facts": {"one": "1"}} and len(summary.chunk_indexes) == 2
    assert {s.encoding for s in summary.schemas.values()} == {"jsonschema"}


def test_a_file_without_messages_is_a_file():
    assert messages(mcap.McapWriter().finish())[0] == []


@pytest.fixture
def recorder(tmp_path):
    made = FlightRecorder(INTERFACE, tmp_path / "flights", seconds=0.5, facts={"artifact": "test_policy/v1"})
    yield made
    made.close()


def written(tmp_path):
    return sorted((tmp_path / "flights").glob("flight-*.mcap"))


def test_a_fault_in_the_loop_is_written_with_what_led_to_it(tmp_path, recorder):
    clock = FakeClock()
    robot = Scripted(clock)
    robot.spoil = {40: nan_in_joint(4)}
    report = loop(robot, clock, flight=recorder).run()
    assert report.fault is Fault.OBSERVATION
    recorder.close()
    (path,) = written(tmp_path)
    assert path.name.endswith("-fault.mcap")
    listed, metadata, _ = messages(path.read_bytes())
    assert metadata["flexor"]["reason"] == "fault" and metadata["flexor"]["artifact"] == "test_policy/v1"
    controller = [m for topic, _, m in listed if topic == "/controller"]
    # Half a second at 50 Hz; a little more when the watcher came late, a little less when this clock, which does not wait, ran over its rows.
    assert len(controller) in range(20, 28)
    assert next(m["mode"] for m in controller if m["fault"]) == "hold" and controller[0]["mode"] == "policy"
    (said,) = [m for topic, _, m in listed if topic == "/faults"]
    assert f"joint_position.{HAND.joint_names[4]}" in said["message"] and said["level"] == 4
    targets = [m for topic, _, m in listed if topic == "/target"]
    start = 41 - [m["fault"] for m in controller].index("observation not finite") - 1
    sent = np.array([list(m["sent_rad"].values()) for m in targets])
    np.testing.assert_array_equal(sent, robot.sent[start : start + len(sent)])
    assert [m for topic, _, m in listed if topic == "/state"][-1]["q_rad"][HAND.joint_names[0]] is not None
    observed = [m for topic, _, m in listed if topic == "/observation"]
    assert len(observed) == sum(m["mode"] == "policy" for m in controller)


def test_an_undisturbed_run_writes_nothing_and_leaves_no_ring(tmp_path, recorder):
    clock = FakeClock()
    loop(Scripted(clock), clock, flight=recorder).run()
    ring = recorder._path
    recorder.close()
    recorder.close()
    assert written(tmp_path) == [] and not ring.exists()


def test_the_loop_is_the_same_with_and_without_a_recorder(recorder):
    runs = []
    for kept in (None, recorder):
        robot = Scripted(FakeClock())
        loop(robot, robot.clock, flight=kept).run()
        runs.append(np.array(robot.sent))
    np.testing.assert_array_equal(*runs)


def noted(ring, n):
    """Note n periods by hand."""
    state, _ = MockReach(HAND, 50.0).reset(0)
    made = FlightRecorder.__new__(FlightRecorder)
    made._take(ring, INTERFACE)
    for k in range(n):
        made.note(
            state,
            mode=Mode.POLICY,
            fault=None,
            fault_text="",
            latency_us=1.0,
            changed=(0,) * len(STAGES),
            observation=None,
            action=None,
            asked_rad=None,
            sent_rad=HAND.home_rad,
            time_ns=k,
        )


@pytest.mark.parametrize("n, kept", [(0, []), (3, [0, 1, 2]), (25, [*range(1, 25)]), (60, [*range(36, 60)])])
def test_a_ring_keeps_the_newest_in_order(tmp_path, n, kept):
    ring = make_ring(tmp_path / "ring", Layout.of(INTERFACE, 0.5))
    noted(ring, n)
    assert open_ring(tmp_path / "ring").last()["time_ns"].tolist() == kept


def test_a_row_that_is_seen_later_than_its_count_is_waited_for(tmp_path):
    """As two processors may see it that do not order their stores."""
    ring = make_ring(tmp_path / "a.ring", Layout.of(INTERFACE, 0.08))  # four periods
    ring.records["robot_s"] = [1.0, 2.0, -1.0, -1.0]
    ring.count[0] = 3  # the third is on its way

    def pause(seconds):
        assert seconds > 0.0
        ring.records["robot_s"][2] = 3.0

    assert ring.last(pause)["robot_s"].tolist() == [1.0, 2.0, 3.0]
    ring.count[0], ring.records["robot_s"] = 4, [1.0, 2.0, 3.0, 4.0]
    late = iter([0, 1])

    def overwritten(seconds):  # while it is copied; its count comes last
        if next(late):
            ring.count[0] = 5

    assert ring.last(overwritten)["robot_s"].tolist() == [3.0, 4.0]


def test_what_is_no_ring_is_refused(tmp_path):
    path = tmp_path / "ring"
    make_ring(path, Layout.of(INTERFACE, 0.5))
    good = path.read_bytes()
    for bad in (b"", b"x" + good[1:], good[:-1], good[:20] + b"\xff" + good[21:]):
        path.write_bytes(bad)
        with pytest.raises(FlightError):
            open_ring(path)


def test_old_recordings_make_room(tmp_path):
    ring = make_ring(tmp_path / "ring", Layout.of(INTERFACE, 0.1))
    for k in range(flight.KEPT_FILES):
        (tmp_path / f"flight-2020010{k:02}-fault.mcap").write_bytes(b"")
    flight.write(ring, tmp_path, "asked")
    names = sorted(p.name for p in tmp_path.glob("flight-*"))
    assert len(names) == flight.KEPT_FILES and names[-1].endswith("-asked.mcap") and "202001000-" not in names[0]
    assert to_mcap(ring.layout, ring.last(), "asked")[:8] == mcap.MAGIC


RUN = """
import sys
from robot.onboard import cli
cli.run(sys.argv[1], backend="hardware", seconds=60.0, realtime=False, inference="numpy", flight_s=1.0)
"""


def wait_for(condition, what):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen in 20 s")


def test_a_recording_is_written_on_request_and_as_the_last_thing_when_the_process_is_killed(tmp_path):
    folder = write(tmp_path / "models" / "test_policy" / "v1", artifact())
    place = tmp_path / "state" / "flexor" / "flight"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    try:
        rings = lambda: [p for p in flight.SHARED_MEMORY.glob("flexor-flight-*.ring") if belongs(p, process.pid)]  # noqa: E731
        wait_for(lambda: any(int(open_ring(p).count[0]) > 5 for p in rings()), "the run")
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: list(place.glob("*-asked.mcap")), "the recording that was asked for")
        assert process.poll() is None
    finally:
        process.kill()
    process.wait(10)
    wait_for(lambda: list(place.glob("*-died.mcap")), "the last recording")
    listed, metadata, _ = messages(next(place.glob("*-died.mcap")).read_bytes())
    assert {topic for topic, _, _ in listed} == {"/state", "/observation", "/action", "/target", "/controller"}
    assert metadata["flexor"]["backend"] == "hardware"
    assert re.fullmatch(r"[0-9a-f]{64}", metadata["flexor"]["policy_sha256"])
    wait_for(lambda: not rings(), "cleaning up")


def belongs(path, pid):
    """Whether a process has a ring mapped."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return str(path) in maps.read()
    except OSError:
        return False


def test_where_there_is_no_room_for_a_ring_the_next_folder_has_it_or_it_is_said(tmp_path, monkeypatch):
    layout = Layout.of(INTERFACE, 1.0)
    full = tmp_path / "full"
    full.mkdir()
    right = os.posix_fallocate

    def fallocate(fd, start, size):
        if "/full/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        right(fd, start, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    path, ring = flight._somewhere((full, tmp_path), layout)
    assert path.parent == tmp_path and int(ring.count[0]) == 0
    with pytest.raises(FlightError, match=r"no room .* No space left"):
        flight._somewhere((full,), layout)
    assert list(full.iterdir()) == []


def test_a_disk_that_is_full_for_a_while_costs_one_recording_and_not_the_watcher(tmp_path, monkeypatch):
    layout = Layout.of(INTERFACE, 1.0)
    ring = tmp_path / "a.ring"
    make_ring(ring, layout)
    right, said, calls = flight.write, [], []

    def write(*arguments):
        calls.append(1)
        if len(calls) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(*arguments)

    monkeypatch.setattr(flight, "write", write)
    flight.watch(ring, tmp_path, iter([b"fault\n", b"asked\n", b"goodbye\n"]), said.append)
    assert "lost" in said[0] and "No space left" in said[0] and "-asked.mcap" in said[1]


@pytest.mark.slow
def test_the_real_rerun_reads_a_recording(tmp_path):
    rerun = ROOT / ".venv-rerun/bin/rerun"
    if not rerun.exists():
        pytest.skip("no .venv-rerun; do: make rerun-check")
    ring = make_ring(tmp_path / "ring", Layout.of(INTERFACE, 0.5))
    noted(ring, 20)
    rows = ring.last()
    for name in ("q_rad", "observation", "action", "asked_rad", "sent_rad"):
        rows[name] = 0.5
    rows["fault"][10:] = 0  # a fault begins
    path = tmp_path / "flight.mcap"
    path.write_bytes(to_mcap(ring.layout, rows, "fault"))
    topics = {"/state", "/observation", "/action", "/target", "/controller", "/faults"}
    assert {topic for topic, _, _ in messages(path.read_bytes())[0]} == topics

    def said(*words):
        done = subprocess.run([rerun, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    said("mcap", "convert", path, "-o", tmp_path / "flight.rrd")
    said("rrd", "verify", tmp_path / "flight.rrd")
    assert said("rrd", "stats", tmp_path / "flight.rrd").strip()
    listed = said("rrd", "print", tmp_path / "flight.rrd")
    assert [topic for topic in topics if topic not in listed] == []
