"""Child processes that never outlive the demo: each in a group of its own, ended as a group, watched by `fleet.demo.guard`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from fleet.demo.guard import kill_group
from robot.errors import FlexorError

FLEXOR = (sys.executable, "-m", "flexor")  # the same interpreter, whatever PATH says
POLL_S = 0.05
GRACE_S = 3.0  # from the polite signal to the hard one: long enough to save a checkpoint or sync a log
LOG_LINES_IN_ERROR = 12


class StageError(FlexorError):
    """A stage's process failed; the message carries its command, its last lines and where its log is."""


class Process:
    """One child with its log file."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, popen: subprocess.Popen[bytes]) -> None:
        self.name, self.argv, self.log = name, tuple(argv), log
        self._popen = popen

    @property
    def group(self) -> int:
        return self._popen.pid

    def ended(self) -> bool:
        """Whether the group's leader has exited; it is not reaped, so its number cannot be given to another."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask(self, number: int) -> None:
        """Signal the leader alone: it ends its own children in its own order."""
        if not self.ended():
            os.kill(self._popen.pid, number)

    def reap(self) -> int:
        """Kill what is left of the group, then collect the leader's exit code."""
        kill_group(self.group)
        return self._popen.wait()

    def command(self) -> str:
        return " ".join(self.argv)

    def tail(self, lines: int = LOG_LINES_IN_ERROR) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Runner:
    """Starts and ends children. As a context manager it ends all of them on the way out, whatever the reason.

    Args:
        logs: Folder for one log file per child.
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self._living: dict[int, Process] = {}
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "fleet.demo.guard"], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every child, then the guard. All are asked at once and share one grace. Safe to call twice."""
        living = list(self._living.values())
        for process in living:
            process.ask(signal.SIGINT)
        self._await(living, GRACE_S)
        for process in living:
            self._forget(process)
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
        self._guard.wait()

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(line.encode())
        self._guard.stdin.flush()

    def start(self, name: str, argv: Sequence[str]) -> Process:
        """Start a child in a process group of its own; its output goes to `logs/NAME.log`."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, process_group=0
            )
        process = Process(name, argv, log, popen)
        self._living[process.group] = process
        self._tell_guard(f"+{process.group}\n")
        return process

    def _forget(self, process: Process) -> int:
        code = process.reap()
        self._living.pop(process.group, None)
        self._tell_guard(f"-{process.group}\n")
        return code

    def stop(self, process: Process, *, grace_s: float, number: int = signal.SIGINT) -> int:
        """Ask a child to end, make it end after `grace_s`, and return its exit code."""
        if process.group not in self._living:
            return process.reap()
        process.ask(number)
        self._await([process], grace_s)
        return self._forget(process)

    @staticmethod
    def _await(processes: Sequence[Process], grace_s: float) -> None:
        deadline_s = time.monotonic() + grace_s
        while time.monotonic() < deadline_s and not all(process.ended() for process in processes):
            time.sleep(POLL_S)

    def kill(self, process: Process) -> int:
        """End a child as a power cut would: SIGKILL to its whole group."""
        kill_group(process.group)
        return self._forget(process)

    def wait(self, process: Process, tick: Callable[[], None] | None = None) -> None:
        """Wait for a child that ends by itself.

        Args:
            process: The child.
            tick: Called while waiting, to show progress and to check on others.

        Raises:
            StageError: Its exit code was not 0.
        """
        while not process.ended():
            if tick is not None:
                tick()
            time.sleep(POLL_S)
        code = self._forget(process)
        if code != 0:
            raise failure(process, f"exit code {code}")

    def call(self, name: str, argv: Sequence[str], tick: Callable[[], None] | None = None) -> None:
        """Start a child and wait for it."""
        self.wait(self.start(name, argv), tick)

    def require_alive(self, *processes: Process) -> None:
        """Refuse to go on when a child that should run on has ended.

        Raises:
            StageError: One of them has.
        """
        for process in processes:
            if process.ended():
                raise failure(process, f"exit code {self._forget(process)}, expected to run on")


def failure(process: Process, what: str) -> StageError:
    """The error that tells everything needed to repeat a failed stage by hand."""
    indented = "\n".join(f"    {line}" for line in process.tail().splitlines())
    return StageError(
        f"stage {process.name}: {what}\n  command: {process.command()}\n  last lines of {process.log}:\n{indented}\n"
        f"  do: run the command by hand, or look at the whole log"
    )
