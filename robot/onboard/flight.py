"""The flight recorder: the last seconds of a run, kept in shared memory and written as MCAP by a process of its own.

The loop writes one fixed-size record per period into a ring that is a mapped file, and nothing else: no encoding, no file, no
growth. A watcher process (`python -m robot.onboard.flight`) holds the other end of a pipe. It writes the ring out when the loop
asks (a fault, SIGUSR1) and when the pipe closes without a goodbye: then the process died, by whatever signal, SIGKILL included.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from robot.contract import Interface
from robot.onboard.flight_log import to_mcap
from robot.onboard.flight_ring import (
    FAULT_TEXT,
    FAULTS,
    MODES,
    NO_FAULT,
    FlightError,
    Layout,
    Ring,
    make_ring,
    open_ring,
)
from robot.onboard.processes import ROOT, python_module
from robot.safety import Fault, Mode
from robot.state import RobotState

KEPT_FILES = 20  # the oldest are then removed
SHARED_MEMORY = Path("/dev/shm")  # no disk behind it, so no page of the ring ever waits for one
DIED, GOODBYE = "died", "goodbye"
WRITING_S = 30.0


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
