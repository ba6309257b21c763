"""Calibration of a tendon hand's motors: tension the cables, find the hard stops, and keep what was found in a TOML file.

One joint is moved at a time, from the root outwards. Its motor turns, and with it the motors of all tendons that pass this joint
on their way to another one (a wrist moves every finger's cables), so that the other joints stay where they are. A tendon
passes only joints nearer to the root than its own, and these stand at zero by then.

Nothing here prints or asks: whoever calls passes `progress`, `confirm` and `should_stop`.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError
from robot.motorbus.bus import WATCHDOG_S, MotorBus, check_faults
from robot.transmission import Parameters

STEP_RAD = 0.05  # of the goal, per tick of the search
TICK_S = 0.02
STOP_A = 0.25  # current that says a stop is met; a fifth of what a motor can
LEAD_RAD = 0.2  # the goal never leads the motor by more, so the push on a stop is bounded
MAX_TRAVEL_RAD = 40.0
SLACK_RAD = 0.25  # of the spool: what the cables may hang
MAX_ROUNDS = 4
PROGRESS_RAD, STUCK_TICKS = 1e-3, 100  # a motor that gets nowhere for two seconds and meets no stop
HOT_C = 65.0  # a search must not overheat what it searches


class CalibrationError(FlexorError):
    """A calibration that cannot be made, read, or used for this robot."""


class CalibrationStopped(CalibrationError):
    """Somebody asked to stop; torque is off and nothing was written."""


@dataclass(frozen=True, kw_only=True)
class MotorCalibration:
    """Of one motor: spool angle = direction (motor angle - zero_rad), zero where the joint angles are zero.

    Attributes:
        id: On the bus.
        lower_rad, upper_rad: Hard stops, motor angle [rad].
        slack_rad: Travel between them beyond what the description says [rad].
    """

    id: int
    direction: int
    zero_rad: float
    lower_rad: float
    upper_rad: float
    slack_rad: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of a robot: one entry per motor, in motor order."""

    robot: str
    robot_sha256: str
    motors: dict[str, MotorCalibration]

    def check(self, model: RobotModel) -> None:
        """Refuse a calibration of another robot.

        Raises:
            CalibrationError: Another robot, another description, other motors, two motors of one id.
        """
        ids = [motor.id for motor in self.motors.values()]
        for what, expected, seen in (
            ("robot", model.name, self.robot),
            ("description sha256", model.sha256[:12], self.robot_sha256[:12]),
            ("motors", model.motor_names, tuple(self.motors)),
            ("motor ids", len(ids), len(set(ids))),
        ):
            if expected != seen:
                raise CalibrationError(
                    f"calibration: {what}: expected {expected}, got {seen}; calibrate this robot again"
                )

    def save(self, path: Path) -> None:
        """Write the file."""
        lines = ["# Made by a calibration; angles in radians.", f'robot = "{self.robot}"']
        lines += [f'robot_sha256 = "{self.robot_sha256}"']
        for name, motor in self.motors.items():
            lines += ["", f"[motors.{name}]", *(f"{key} = {value!r}" for key, value in vars(motor).items())]
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text("\n".join(lines) + "\n")
        draft.replace(path)

    @staticmethod
    def load(path: Path) -> "Calibration":
        """Read a file.

        Raises:
            CalibrationError: No such file, not TOML, a field missing, unknown, or no number.
        """
        try:
            data = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CalibrationError(f"calibration {path}: {error}") from error
        try:
            motors = {name: _motor(entry) for name, entry in data["motors"].items()}
            return Calibration(robot=str(data["robot"]), robot_sha256=str(data["robot_sha256"]), motors=motors)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CalibrationError(f"calibration {path}: field missing or wrong: {error}") from error


def _motor(entry: dict[str, Any]) -> MotorCalibration:
    motor = MotorCalibration(**entry)
    for key, value in vars(motor).items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise ValueError(f"{key} must be a number, got {value!r}")
    if motor.direction not in (-1, 1) or not 0 <= motor.id <= 252 or not motor.lower_rad < motor.upper_rad:
        raise ValueError(f"direction must be 1 or -1, id 0..252, lower_rad below upper_rad, got {entry}")
    return motor


def spool_range(model: RobotModel) -> np.ndarray:
    """Spool angles at both ends of each motor's own joint, all other joints at zero, shape (n_motors, 2) [rad]."""
    parameters = Parameters.of(model)
    ends = np.zeros((len(model.tendons), 2))
    for i, tendon in enumerate(model.tendons):
        j = model.index(tendon.joint)
        for k, end in enumerate((model.lower_rad[j], model.upper_rad[j])):
            q = np.zeros(len(model.joints))
            q[j] = end
            ends[i, k] = parameters.spool_target(q, q)[i]
    return np.sort(ends, axis=1)


def spool_slopes(model: RobotModel) -> np.ndarray:
    """How far each spool turns per radian of each joint, at zero, shape (n_motors, n_joints)."""
    parameters, small_rad = Parameters.of(model), 1e-4
    return np.array([parameters.spool_target(row, row) for row in small_rad * np.eye(len(model.joints))]).T / small_rad


def following(model: RobotModel, directions: tuple[int, ...]) -> np.ndarray:
    """How far motor k must turn per radian of motor i for all joints but i's own to stay, shape (n_motors, n_motors) as [k, i].

    Exact where moment arms do not change with the angle.
    """
    slopes = spool_slopes(model)[:, [model.index(tendon.joint) for tendon in model.tendons]]
    return np.array(directions)[:, None] * (slopes / np.diag(slopes)) * np.array(directions)


def nominal(model: RobotModel, ids: tuple[int, ...] | None = None) -> Calibration:
    """The calibration of a robot that was built exactly as described; for a simulated bus."""
    ids = ids or tuple(range(1, len(model.motor_names) + 1))
    motors = {
        name: MotorCalibration(id=motor, direction=1, zero_rad=0.0, lower_rad=float(ends[0]), upper_rad=float(ends[1]))
        for name, motor, ends in zip(model.motor_names, ids, spool_range(model))
    }
    return Calibration(robot=model.name, robot_sha256=model.sha256, motors=motors)


def calibrate(
    bus: MotorBus,
    model: RobotModel,
    *,
    wait: Callable[[float], None],
    progress: Callable[[str, float], None],
    confirm: Callable[[str], bool],
    should_stop: Callable[[], bool],
    directions: tuple[int, ...] | None = None,
) -> Calibration:
    """Find every motor's stops, one joint after the other, having its cables tensioned where they hang.

    Args:
        bus: Motors in the model's motor order.
        model: The robot.
        wait: Lets time pass [s].
        progress: Gets what is done, and the share of the whole, 0..1.
        confirm: Asked before anything moves and when somebody must tension a cable; False ends the calibration.
        should_stop: Asked every tick.
        directions: 1 or -1 per motor; all 1 when None.

    Raises:
        CalibrationStopped: `confirm` said no, or `should_stop` yes.
        CalibrationError: Slack that no tensioning removed, travel too short (something is in the way), no stop found.
        MotorBusError: The bus failed. Torque is off in every case.
    """
    names, expected = model.motor_names, np.diff(spool_range(model), axis=1)[:, 0]
    directions = directions or (1,) * len(names)
    if len(bus.ids) != len(names):
        raise CalibrationError(f"{model.name} has {len(names)} motors, the bus {len(bus.ids)}")
    if not confirm(f"All {len(names)} motors of {model.name} will move to both ends of their range. Is the hand free?"):
        raise CalibrationStopped("not confirmed; nothing was moved")
    found, follow = {}, following(model, directions)
    alone = np.linalg.inv(follow)  # how much of motor i's way its own joint went, when others gave way, as [i, :]

    def asked(text: str) -> bool:
        bus.guard(0.0)  # people take their time
        said = confirm(text)
        bus.guard(WATCHDOG_S)
        return said

    try:
        bus.guard(0.0)  # a watchdog that has tripped lets go
        bus.pace(TICK_S)
        bus.set_torque(True)
        bus.guard(WATCHDOG_S)
        goals = bus.read().position_rad.copy()
        for i, name in enumerate(names):
            progress(f"{name}: looking for its stops", i / len(names))
            for _ in range(MAX_ROUNDS):
                lower = _stop(bus, i, -1, goals, follow[:, i], alone[i], names, wait, should_stop)
                upper = _stop(bus, i, 1, goals, follow[:, i], alone[i], names, wait, should_stop)
                slack = upper - lower - float(expected[i])
                if slack <= SLACK_RAD:
                    break
                _go(bus, i, 0.5 * (lower + upper), goals, follow[:, i], names, wait, should_stop)
                if not asked(f"{name} turns {slack:.2f} rad too far: its cables hang. Tension them, then go on?"):
                    raise CalibrationStopped(f"{name}: tensioning was declined")
            else:
                raise CalibrationError(
                    f"{name}: {slack:.2f} rad of slack after {MAX_ROUNDS} rounds, at most {SLACK_RAD}"
                )
            if slack < -SLACK_RAD:
                raise CalibrationError(
                    f"{name} turns {upper - lower:.2f} rad, expected {expected[i]:.2f}; something is in the way"
                )
            low, high = spool_range(model)[i]
            zero = float(0.5 * (lower + upper) - directions[i] * 0.5 * (low + high))
            found[name] = MotorCalibration(
                id=bus.ids[i], direction=directions[i], zero_rad=zero, lower_rad=lower, upper_rad=upper, slack_rad=slack
            )
            _go(bus, i, zero, goals, follow[:, i], names, wait, should_stop)
        bus.guard(0.0)
        progress("done", 1.0)
    finally:
        bus.set_torque(False)
    return Calibration(robot=model.name, robot_sha256=model.sha256, motors=found)


def _tick(bus: MotorBus, goals: np.ndarray, names: tuple[str, ...], wait: Callable[[float], None], should_stop) -> Any:
    if should_stop():
        raise CalibrationStopped("stopped")
    bus.write_goals(goals)
    wait(TICK_S)
    readings = bus.read()
    check_faults(readings, names)
    return readings


def _stop(
    bus: MotorBus,
    i: int,
    sign: int,
    goals: np.ndarray,
    follow: np.ndarray,
    alone: np.ndarray,
    names: tuple[str, ...],
    wait: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> float:
    """Where motor i meets its stop in a direction [rad]; the others `follow`. Goals are changed in place.

    A tendon at its joint's stop pulls on the joints it passes, whose motors give way a little: that is not part of the travel.
    """
    start = furthest = goals[i]
    idle = 0
    while abs(goals[i] - start) < MAX_TRAVEL_RAD:
        readings = _tick(bus, goals, names, wait, should_stop)
        at = readings.position_rad[i]
        idle = 0 if sign * (at - furthest) > PROGRESS_RAD else idle + 1
        furthest = furthest if idle else at
        if idle > STUCK_TICKS:
            raise CalibrationError(
                f"{names[i]} does not move at {at:.2f} rad and draws {readings.current_a[i]:.2f} A, less than the {STOP_A} A of "
                "a stop; is it loose, blocked softly, or is its current not measured?"
            )
        if readings.temperature_c[i] > HOT_C:
            raise CalibrationError(
                f"{names[i]} is at {readings.temperature_c[i]:.0f} deg C, at most {HOT_C:g}; let it cool"
            )
        if abs(readings.current_a[i]) > STOP_A and abs(readings.velocity_rad_s[i]) < 0.1:
            stop = float(goals[i] + alone @ (readings.position_rad - goals))
            goals += follow * (stop - goals[i])  # let go of it
            _tick(bus, goals, names, wait, should_stop)
            return stop
        goals += follow * (np.clip(goals[i] + sign * STEP_RAD, at - LEAD_RAD, at + LEAD_RAD) - goals[i])
    raise CalibrationError(f"{names[i]}: no stop within {MAX_TRAVEL_RAD:g} rad; is the tendon on its spool?")


def _go(
    bus: MotorBus,
    i: int,
    to_rad: float,
    goals: np.ndarray,
    follow: np.ndarray,
    names: tuple[str, ...],
    wait: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> None:
    while abs(goals[i] - to_rad) > 1e-6:
        goals += follow * np.clip(to_rad - goals[i], -2.0 * STEP_RAD, 2.0 * STEP_RAD)
        _tick(bus, goals, names, wait, should_stop)
