"""A hand on a motor bus as a robot for the control loop. It has no task: the goal is where the fingertips are at home."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robot.description.model import RobotModel
from robot.kinematics import TipKinematics
from robot.link import TaskFeedback
from robot.motorbus.backend import HardwareBackend
from robot.motorbus.bus import MotorBus
from robot.motorbus.calibration import Calibration, CalibrationError, nominal
from robot.motorbus.simulated import SimulatedBus
from robot.state import Command, RobotState
from robot.transmission import Parameters


class HardwareRobot:
    """`robot.onboard.robots.Robot` over a `HardwareBackend`.

    Args:
        backend: The robot.
        elapse: Moves a simulated bus through a period; on a real one the loop sleeps, and time passes by itself [s].
    """

    def __init__(self, backend: HardwareBackend, elapse: Callable[[float], None]) -> None:
        self._backend, self._elapse = backend, elapse
        goal = TipKinematics(backend.model).positions(backend.model.home_rad).reshape(-1)
        self.feedback = TaskFeedback(goal=goal, reward_names=("none",), reward_terms=np.zeros(1))

    @property
    def model(self) -> RobotModel:
        return self._backend.model

    @property
    def control_hz(self) -> float:
        return self._backend.control_hz

    @property
    def complaint(self) -> str:
        """What the bus or a motor said last, "" if nothing was wrong yet."""
        return self._backend.complaint

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        return self._backend.reset(state, rng)

    def send(self, command: Command) -> None:
        self._backend.send(command)

    def ready(self, timeout_s: float) -> bool:
        return True  # the bus has timeouts of its own

    def receive(self) -> RobotState:
        self._elapse(1.0 / self.control_hz)
        return self._backend.receive()

    def close(self) -> None:
        self._backend.close()


def _passes(period_s: float) -> None:
    """Real time needs no help."""


def simulated(model: RobotModel, calibration: Calibration) -> SimulatedBus:
    """A simulated bus with the motors of a calibration, at the home posture, between stops a little wider than needed."""
    motors = list(calibration.motors.values())
    home = Parameters.of(model).spool_target(model.home_rad, model.home_rad)
    direction = np.array([motor.direction for motor in motors])
    at = np.array([motor.zero_rad for motor in motors]) + direction * home
    return SimulatedBus(tuple(motor.id for motor in motors), position_rad=at)


def connect_hardware(
    model: RobotModel, control_hz: float, *, bus: str = "sim", calibration: Path | None = None
) -> HardwareRobot:
    """The hand on a bus.

    Args:
        model: What the hand should be.
        control_hz: Commands per second.
        bus: "sim", or a serial port.
        calibration: Its calibration file; a simulated bus needs none.

    Raises:
        CalibrationError: None was given for a real bus, or it is another robot's.
        MotorBusError: The port or a motor does not answer.
    """
    if bus != "sim" and calibration is None:
        raise CalibrationError("a real bus needs --calibration FILE; see docs/onboard.md, section 6")
    known = nominal(model) if calibration is None else Calibration.load(calibration)
    known.check(model)
    ids = tuple(known.motors[name].id for name in model.motor_names)
    motors: MotorBus
    if bus == "sim":
        motors = here = simulated(model, known)
        wait = elapse = here.advance
    else:
        from robot.motorbus.dynamixel import DynamixelBus

        motors = DynamixelBus(bus, ids)
        wait, elapse = time.sleep, _passes
    try:
        return HardwareRobot(HardwareBackend(motors, model, known, control_hz=control_hz, wait=wait), elapse)
    except BaseException:
        motors.close()
        raise
