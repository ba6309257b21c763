"""The flight recorder: the last seconds of a run, kept in shared memory and written as MCAP by a process of its own.

The loop writes one fixed-size record per period into a ring that is a mapped file, and nothing else: no encoding, no file, no
growth. A watcher process (`python -m robot.onboard.flight`) holds the other end of a pipe. It writes the ring out when the loop
asks (a fault, SIGUSR1) and when the pipe closes without a goodbye: then the process died, by whatever signal, SIGKILL included.
"""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from robot.contract import Interface
from robot.errors import FlexorError
from robot.onboard.mcap import McapWriter
from robot.onboard.processes import ROOT, python_module
from robot.safety import STAGES, Fault, Mode
from robot.state import RobotState

KEPT_FILES = 20  # the oldest are then removed
SHARED_MEMORY = Path("/dev/shm")  # no disk behind it, so no page of the ring ever waits for one
DIED, GOODBYE = "died", "goodbye"
MODES, FAULTS = tuple(Mode), tuple(Fault)
NO_FAULT = len(FAULTS)
FAULT_LEVEL, FAULT_TEXT = 4, 200  # foxglove.Log's ERROR; bytes of a fault's text that are kept
WRITING_S = 30.0
SETTLING_S = 1e-3


class FlightError(FlexorError):
    """A ring that is none, or a folder that cannot be written."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a ring, so that whoever finds one can read it."""

    joints: tuple[str, ...]
    motors: tuple[str, ...]
    tips: tuple[str, ...]
    observation: tuple[str, ...]
    action: tuple[str, ...]
    contract_sha256: str
    control_hz: float
    periods: int
    facts: dict[str, str] = {}

    @staticmethod
    def of(interface: Interface, seconds: float, facts: dict[str, str] | None = None) -> "Layout":
        contract, model = interface.contract, interface.model
        return Layout(
            joints=model.joint_names,
            motors=model.motor_names,
            tips=model.tip_names,
            observation=tuple(f"{t.name}.{element}" for t in contract.observation for element in t.elements),
            action=contract.action.joints,
            contract_sha256=contract.sha256,
            control_hz=contract.control_hz,
            periods=max(2, round(seconds * contract.control_hz)),
            facts=facts or {},
        )

    @property
    def dtype(self) -> np.dtype:
        """One period."""
        joints, motors, real = len(self.joints), len(self.motors), np.float64
        return np.dtype(
            [
                ("time_ns", np.int64),
                ("robot_s", real),
                ("mode", np.uint8),
                ("fault", np.uint8),
                ("fault_text", f"S{FAULT_TEXT}"),
                ("latency_us", real),
                ("changed", np.int32, len(STAGES)),
                ("q_rad", real, joints),
                ("qd_rad_s", real, joints),
                ("motor_current_a", real, motors),
                ("motor_temperature_c", real, motors),
                ("tip_force_n", real, len(self.tips)),
                ("observation", np.float32, len(self.observation)),
                ("action", np.float32, len(self.action)),
                ("asked_rad", real, joints),
                ("sent_rad", real, joints),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A mapped ring: an u64 count of the periods noted, and the records."""

    layout: Layout
    count: np.ndarray
    records: np.ndarray

    def last(self, pause: Callable[[float], None] = time.sleep) -> np.ndarray:
        """The periods kept, oldest first; what was overwritten while we copied, or may have been, is left out.

        Args:
            pause: Sleeps. The two processes share memory without a lock, and Python cannot order its stores and loads: on ARM the
                count may be seen before the row it counts. No store is on its way for so long.
        """
        size = self.layout.periods
        before = int(self.count[0])
        pause(SETTLING_S)
        copied = self.records.copy()
        pause(SETTLING_S)
        after = int(self.count[0])
        return copied[[k % size for k in range(max(0, after - size + 1), before)]]


HEAD = struct.Struct("<8sQ")
RING_MAGIC = b"FLXRING1"


def make_ring(path: Path, layout: Layout) -> Ring:
    text = msgspec.json.encode(layout)
    start = (HEAD.size + len(text) + 63) // 64 * 64
    with path.open("wb") as file:
        file.write(HEAD.pack(RING_MAGIC, len(text)) + text)
        file.flush()
        # Memory that is there: a hole in a full /dev/shm would be a SIGBUS in the middle of a motion.
        fill = getattr(os, "posix_fallocate", lambda fd, _, size: os.truncate(fd, size))  # not on macOS
        fill(file.fileno(), 0, start + 64 + layout.periods * layout.dtype.itemsize)
    return open_ring(path)


def open_ring(path: Path) -> Ring:
    """Map a ring that some process made.

    Raises:
        FlightError: Not a ring.
    """
    with path.open("rb") as file:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size or head[:8] != RING_MAGIC:
            raise FlightError(f"{path}: not a flight ring")
        size = HEAD.unpack(head)[1]
        try:
            layout = msgspec.json.decode(file.read(size), type=Layout)
        except msgspec.MsgspecError as error:
            raise FlightError(f"{path}: a flight ring with a broken head: {error}") from error
    start = (HEAD.size + size + 63) // 64 * 64
    memory = np.memmap(path, dtype=np.uint8, mode="r+")
    if len(memory) != start + 64 + layout.periods * layout.dtype.itemsize:
        raise FlightError(f"{path}: a flight ring of {len(memory)} bytes, which is not the size its head says")
    view = np.asarray(memory)
    return Ring(
        layout=layout, count=view[start : start + 8].view(np.uint64), records=view[start + 64 :].view(layout.dtype)
    )


def _schema(names: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of an object: names to a type, or to the names of an object's numbers."""
    number = {"type": ["number", "null"]}
    kinds = {
        name: {"type": kind} if isinstance(kind, str) else {"type": "object", "properties": dict.fromkeys(kind, number)}
        for name, kind in names.items()
    }
    return {"type": "object", "properties": kinds}


def to_mcap(layout: Layout, records: np.ndarray, reason: str) -> bytes:
    """The periods as a log: topics /state, /observation, /action, /target, /controller and, where there were any, /faults."""
    out = McapWriter("flexor flight recorder")
    state = {
        "q_rad": layout.joints,
        "qd_rad_s": layout.joints,
        "motor_current_a": layout.motors,
        "motor_temperature_c": layout.motors,
        "tip_force_n": layout.tips,
    }
    target = {"asked_rad": layout.joints, "sent_rad": layout.joints}
    groups = {
        out.channel("/state", "flexor.State", _schema(state)): state,
        out.channel("/observation", "flexor.Observation", _schema({"observation": layout.observation})): {
            "observation": layout.observation
        },
        out.channel("/action", "flexor.Action", _schema({"action": layout.action})): {"action": layout.action},
        out.channel("/target", "flexor.Target", _schema(target)): target,
    }
    plain = {"mode": "string", "fault": "string", "latency_us": "number", "robot_s": "number"}
    controller = out.channel("/controller", "flexor.Controller", _schema({**plain, "changed": STAGES}))
    stamp = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
    log = {"level": "integer", "message": "string", "name": "string", "file": "string", "line": "integer"}
    log_schema = _schema(log)
    log_schema["properties"]["timestamp"] = stamp
    faults = out.channel("/faults", "foxglove.Log", log_schema)
    before = NO_FAULT
    for record in records:
        time_ns, fault = int(record["time_ns"]), int(record["fault"])
        for channel, fields in groups.items():
            value = {
                name: dict(zip(names, record[name].tolist()))
                for name, names in fields.items()
                if not np.isnan(record[name]).all()
            }
            if value:
                out.message(channel, time_ns, value)
        says = {
            "mode": MODES[record["mode"]].value,
            "fault": FAULTS[fault].value if fault != NO_FAULT else "",
            "latency_us": float(record["latency_us"]),
            "robot_s": float(record["robot_s"]),
            "changed": dict(zip(STAGES, record["changed"].tolist())),
        }
        out.message(controller, time_ns, says)
        if fault not in (NO_FAULT, before):
            sec, nsec = divmod(time_ns, 1_000_000_000)
            text = f"{FAULTS[fault].value}: {record['fault_text'].decode(errors='replace')}".rstrip(": ")
            where = {"name": "flexor", "file": "", "line": 0, "timestamp": {"sec": sec, "nsec": nsec}}
            out.message(faults, time_ns, {"level": FAULT_LEVEL, "message": text, **where})
        before = fault
    facts = {"reason": reason, "contract_sha256": layout.contract_sha256, "control_hz": f"{layout.control_hz:g}"}
    out.metadata("flexor", {**facts, **layout.facts})
    return out.finish()


def write(ring: Ring, folder: Path, reason: str, now: datetime | None = None) -> Path:
    """Write what a ring holds; the file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    when = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"flight-{when}-{reason}.mcap"
    draft = folder / f".{path.name}.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            file.write(to_mcap(ring.layout, ring.last(), reason))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    for old in sorted(folder.glob("flight-*.mcap"))[:-KEPT_FILES]:
        old.unlink(missing_ok=True)
    return path


def _remove_oldest(folder: Path) -> None:
    for old in sorted(folder.glob("flight-*.mcap"))[:1]:
        old.unlink(missing_ok=True)


def default_folder() -> Path:
    """Where recordings go: below XDG_STATE_HOME."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "flexor" / "flight"


def _somewhere(folders: tuple[Path, ...], layout: Layout) -> tuple[Path, Ring]:
    """A ring in the first folder that has room for it.

    Raises:
        FlightError: None has.
    """
    said = []
    for folder in folders:
        try:
            handle, name = tempfile.mkstemp(prefix="flexor-flight-", suffix=".ring", dir=folder)
        except OSError as error:
            said.append(f"{folder}: {error.strerror}")
            continue
        os.close(handle)
        try:
            return Path(name), make_ring(Path(name), layout)
        except OSError as error:
            Path(name).unlink()
            said.append(f"{folder}: {error.strerror}")
    raise FlightError(
        f"no room for the ring of the flight recorder ({'; '.join(said)}); do: --flight-s 0 to run without"
    )


class FlightRecorder:
    """The loop's end. Close it, or the watcher takes it that we died.

    Args:
        interface: Of the run.
        folder: Where recordings go.
        seconds: How much is kept [s].
        facts: More to say in the file: artifact, backend.

    Raises:
        FlightError: The folder cannot be made, or there is no room for the ring.
    """

    def __init__(
        self, interface: Interface, folder: Path, *, seconds: float = 10.0, facts: dict[str, str] | None = None
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlightError(f"flight recordings cannot go to {folder}: {error.strerror}") from error
        self._path, ring = _somewhere((SHARED_MEMORY, folder), Layout.of(interface, seconds, facts))
        name = str(self._path)
        self._take(ring, interface)
        self._watcher = subprocess.Popen(
            python_module("robot.onboard.flight", name, str(folder.resolve())),
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at a terminal goes to the whole group, and it must outlive us
            cwd=ROOT,
        )
        assert self._watcher.stdin is not None
        self._pipe = self._watcher.stdin.fileno()
        os.set_blocking(self._pipe, False)

    def _take(self, ring: Ring, interface: Interface) -> None:
        """Where the columns of the ring are, and what stands for what was not measured."""
        self.ring = ring  # for compiled code that notes periods itself
        self._count, self._size = ring.count, ring.layout.periods
        self._columns = [ring.records[column] for column in ring.layout.dtype.names or ()]
        self._nothing = np.full(len(interface.contract.action.joints), np.nan, dtype=np.float32)
        self._unseen = np.full(interface.contract.observation_size, np.nan, dtype=np.float32)
        self._blank = np.full(len(interface.model.joints), np.nan)
        self._unmeasured = np.full(len(interface.model.motor_names), np.nan)
        self._untouched = np.full(len(interface.model.tips), np.nan)

    def note(
        self,
        state: RobotState,
        *,
        mode: Mode,
        fault: Fault | None,
        fault_text: str,
        latency_us: float,
        changed: tuple[int, ...],
        observation: np.ndarray | None,
        action: np.ndarray | None,
        asked_rad: np.ndarray | None,
        sent_rad: np.ndarray,
        time_ns: int,
    ) -> None:
        """Keep one period; `time_ns` is UTC."""
        i = int(self._count[0]) % self._size
        row = (
            time_ns,
            state.time_s,
            MODES.index(mode),
            NO_FAULT if fault is None else FAULTS.index(fault),
            fault_text[:FAULT_TEXT].encode()[:FAULT_TEXT],
            latency_us,
            changed,
            state.q_rad,
            state.qd_rad_s,
            state.motor_current_a if state.motor_current_a.size else self._unmeasured,
            state.motor_temperature_c if state.motor_temperature_c.size else self._unmeasured,
            state.tip_force_n if state.tip_force_n.size else self._untouched,
            self._unseen if observation is None else observation,
            self._nothing if action is None else action,
            self._blank if asked_rad is None else asked_rad,
            sent_rad,
        )
        for column, value in zip(self._columns, row):
            column[i] = value
        self._count[0] += np.uint64(1)

    def request(self, reason: str) -> None:
        """Ask for a recording of what is kept now; returns at once. Reasons are words: fault, asked, stopped."""
        with suppress(BlockingIOError, BrokenPipeError):  # a recorder must never stop a robot
            os.write(self._pipe, f"{reason}\n".encode())

    def close(self) -> None:
        """Say goodbye: what was asked for is written, nothing else is. Safe to call twice."""
        if self._watcher.stdin is not None and not self._watcher.stdin.closed:
            self.request(GOODBYE)
            with suppress(BrokenPipeError):
                self._watcher.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._watcher.wait(WRITING_S)
        self._path.unlink(missing_ok=True)


def watch(ring_path: Path, folder: Path, lines: Any, say: Any) -> None:
    """The watcher's life: a recording per line, and one more when the lines end without a goodbye."""
    ring = open_ring(ring_path)
    reason = ""

    def record(reason: str) -> None:
        try:
            say(f"flight recording: {write(ring, folder, reason)}")
        except OSError as error:
            _remove_oldest(folder)
            try:
                say(f"flight recording: {write(ring, folder, reason)}")
            except OSError:  # the next one may have room again
                say(f"flight recording of {reason!r} is lost: {folder}: {error.strerror}")

    for line in lines:
        reason = line.decode(errors="replace").strip()
        if reason == GOODBYE:
            break
        record("".join(c for c in reason if c.isalnum()) or "asked")
    if reason != GOODBYE:
        record(DIED)
        ring_path.unlink(missing_ok=True)  # whose it was is gone


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ring_path, folder = map(Path, sys.argv[1:])
    watch(
        ring_path, folder, iter(sys.stdin.buffer.readline, b""), lambda line: print(line, file=sys.stderr, flush=True)
    )


if __name__ == "__main__":
    main()
