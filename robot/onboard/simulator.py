"""A simulator as a robot: start it in a process of its own and get the link to it. This process imports no engine."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from robot.errors import FlexorError, UnknownNameError
from robot.link import LinkBackend, LinkError
from robot.onboard.processes import ROOT, python_module

ENGINES = ("pybullet", "mujoco", "mock")
START_TIMEOUT_S = 90.0  # a first start compiles kernels
CLOSE_TIMEOUT_S = 5.0


class SimulatorError(FlexorError):
    """The simulator's process ended, or did not come up in time; the message carries its last words."""


class SimulatedRobot(LinkBackend):
    """The link to a simulator that this process started; `close` ends it."""

    _process: "subprocess.Popen[bytes]"
    _folder: Path

    @property
    def pid(self) -> int:
        """Of the simulator's process."""
        return self._process.pid

    def close(self) -> None:
        super().close()
        _end(self._process, self._folder)


def spawn(
    env_id: str,
    robot: str,
    engine: str = "pybullet",
    *,
    control_hz: float | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> SimulatedRobot:
    """Start a simulator and connect to it. It dies with the calling thread, also when that is killed.

    Args:
        env_id: Environment, e.g. "flexor/HandReach-v0".
        robot: Description, e.g. "hand22".
        engine: One of `ENGINES`; "mock" needs no simulator installed.
        control_hz: Rate of the mock; the other engines take the environment's own.
        start_timeout_s: How long it may take to come up [s].

    Raises:
        UnknownNameError: Unknown engine.
        SimulatorError: The process ended or did not come up; its last words are in the message.
        RobotMismatchError: It holds another version of the robot.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    folder = Path(tempfile.mkdtemp(prefix="flexor-"))  # 0700: nobody else reaches the socket
    path = folder / "robot.sock"
    command = python_module("robot.mock" if engine == "mock" else "sim.serve")
    command += ["--env", env_id, "--robot", robot, "--socket", str(path), "--parent", str(os.getpid())]
    if engine != "mock":
        command += ["--engine", engine]
    elif control_hz is not None:
        command += ["--control-hz", repr(control_hz)]
    with open(folder / "stderr", "wb") as words:
        # A session of its own: Ctrl-C reaches the controller, which then ends the simulator in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True, cwd=ROOT
        )
    try:
        backend = _connect(process, folder, path, time.monotonic() + start_timeout_s)
    except BaseException:
        _end(process, folder)
        raise
    backend._process, backend._folder = process, folder
    return backend


def _connect(process: "subprocess.Popen[bytes]", folder: Path, path: Path, deadline_s: float) -> SimulatedRobot:
    while True:
        try:
            return SimulatedRobot.connect(path)  # type: ignore[return-value]
        except OSError:  # no socket yet
            pass
        except LinkError as error:
            if process.poll() is None:
                raise
            raise SimulatorError(f"the simulator ended while it answered:\n{last_words(folder)}") from error
        if process.poll() is not None:
            raise SimulatorError(f"the simulator ended with exit code {process.returncode}:\n{last_words(folder)}")
        if time.monotonic() > deadline_s:
            raise SimulatorError(f"the simulator did not come up in time:\n{last_words(folder)}")
        time.sleep(0.02)


def last_words(folder: Path, limit: int = 2000) -> str:
    return (folder / "stderr").read_bytes()[-limit:].decode(errors="replace").strip() or "(it said nothing)"


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End the child, whatever state it is in, and remove its folder. Safe to call twice."""
    try:
        process.wait(0.5)  # BYE was sent: it usually leaves by itself
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
