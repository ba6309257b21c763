"""A robot on a motor bus as a `Backend`: joint targets to spool angles to motors, and back.

There are no joint encoders on a bus of motors. Joint angles are computed from the spools by inverting the tendons' excursion,
so a stretched or slack cable is not seen in them.
"""

from collections import Counter
from collections.abc import Callable
from math import tau as TURN

import numpy as np

from robot.description.model import RobotModel
from robot.motorbus.bus import WATCHDOG_S, MotorBus, MotorBusError, hardware_errors
from robot.motorbus.calibration import Calibration, CalibrationError, spool_slopes
from robot.state import Command, RobotState, checked_posture, checked_target
from robot.transmission import Parameters

NEWTON_STEPS = 6
RESET_SPEED = 0.2  # share of each joint's largest speed on the way to a start posture
ARRIVED_RAD = 0.1  # a zero found at a stop may be 0.02 rad of spool off, four times that at a thumb joint
AT_REST_RAD_S = 0.02
MAX_RESET_S = 20.0
MARGIN_RAD = 0.5  # of spool: stretch, and a zero that was found at a soft stop
MAX_FIRST_RAD = 0.6  # of spool: no first goal is further from where a motor is


class HardwareBackend:
    """A `Backend` over a `MotorBus`; it owns the bus and switches its torque off when closed.

    A read that fails is counted and answered with the last state, whose time stands still: the loop takes it for what it is,
    old data. A motor with a hardware error makes its joint's angle NaN, which is a fault at once.

    Args:
        bus: Motors in the model's motor order.
        model: The robot.
        calibration: Of these motors.
        control_hz: Commands per second.
        wait: Lets time pass between a command and its reading, in `reset` and `step` [s]. A loop that calls `send` and `receive`
            apart lets it pass by itself.

    Raises:
        CalibrationError: The calibration is another robot's or another bus's, or joints cannot be told from the motors.
    """

    def __init__(
        self,
        bus: MotorBus,
        model: RobotModel,
        calibration: Calibration,
        *,
        control_hz: float,
        wait: Callable[[float], None],
    ) -> None:
        calibration.check(model)
        motors = [calibration.motors[name] for name in model.motor_names]
        if tuple(motor.id for motor in motors) != bus.ids:
            raise CalibrationError(
                f"calibration is for motor ids {[m.id for m in motors]}, the bus has {list(bus.ids)}"
            )
        self._bus, self._model, self._control_hz, self._wait = bus, model, control_hz, wait
        self._parameters = Parameters.of(model)
        self._direction = np.array([motor.direction for motor in motors], dtype=np.float64)
        self._zero = np.array([motor.zero_rad for motor in motors])
        n = len(model.joints)
        slopes = spool_slopes(model)
        if slopes.shape[0] != n or np.linalg.matrix_rank(slopes) < n:
            raise CalibrationError(
                f"{model.name}: {n} joints cannot be told from {slopes.shape[0]} motors without encoders"
            )
        self._inverse = np.linalg.inv(slopes)
        self._slack = np.array([motor.slack_rad for motor in motors])
        self._driven = np.array([model.index(tendon.joint) for tendon in model.tendons], dtype=np.intp)
        self._target = model.home_rad.copy()
        self._q, self._spools = model.home_rad.copy(), self._spool(model.home_rad)
        self._steps, self._closed, self._guarded, self._unsent = 0, False, False, False
        self._state: RobotState | None = None
        self.errors: Counter[str] = Counter()
        self.complaint = ""

    @property
    def model(self) -> RobotModel:
        return self._model

    @property
    def control_hz(self) -> float:
        return self._control_hz

    def _spool(self, q_rad: np.ndarray) -> np.ndarray:
        return self._parameters.spool_target(q_rad, q_rad)

    def joints(self, spool_rad: np.ndarray) -> np.ndarray:
        """Joint angles at which the cables fit the spools: q <- q - S^-1 (spool(q) - spool), from the last ones [rad]."""
        q = self._q
        for _ in range(NEWTON_STEPS):
            q = q - self._inverse @ (self._spool(q) - spool_rad)
        return q

    def _find_turns(self) -> None:
        """A motor forgets without power how many turns it had made. Its own joint allows less than one, so that tells which it is:
        from the root outwards, as a tendon passes only joints that are nearer to the root than its own.

        Raises:
            MotorBusError: A motor is where no turn brings it into the range of its cables; nothing was moved.
        """
        spools = self._direction * (self._bus.read().position_rad - self._zero)
        q, turns, lost = self._model.home_rad.copy(), np.zeros(len(spools)), []
        for i, j in enumerate(self._driven):
            ends_rad = np.array([self._model.lower_rad[j], self._model.upper_rad[j]])
            ends = np.array([self._spool(np.where(np.arange(len(q)) == j, end, q))[i] for end in ends_rad])
            low, high = ends.min() - self._slack[i] - MARGIN_RAD, ends.max() + self._slack[i] + MARGIN_RAD
            turns[i] = np.round((0.5 * (low + high) - spools[i]) / TURN) if not low <= spools[i] <= high else 0.0
            there = spools[i] + TURN * turns[i]
            if not low <= there <= high or (turns[i] and high - low >= TURN):
                lost.append(
                    f"{self._model.motor_names[i]} at {spools[i]:.2f} rad of spool, possible is {low:.2f} to {high:.2f}"
                )
            order = np.argsort(ends)
            q[j] = np.interp(there, ends[order], ends_rad[order])
        if lost:
            raise MotorBusError(
                f"motors are where their cables cannot be: {'; '.join(lost)}; calibrate this hand again"
            )
        self._zero = self._zero - self._direction * TURN * turns

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """Torque on, and slowly to a posture; `rng` is not needed, nothing here is random.

        Raises:
            CommandError, NotFiniteError: The posture has another shape, or is not finite.
            MotorBusError: The bus failed, or a motor does not get there.
        """
        posture = self._model.home_rad if state is None else state.q_rad
        goal = self._clip(checked_posture(posture, self._model.joint_names))
        self._bus.guard(0.0)  # a watchdog that has tripped lets go
        if self._state is None:
            self._find_turns()
            self._bus.pace(1.0 / self._control_hz)
            self._bus.set_torque(True)
        at = self._read()
        self._target = self._clip(at.q_rad)
        far = np.abs(self._spool(self._target) - self._spools)
        if (far > MAX_FIRST_RAD).any():
            names = ", ".join(self._model.motor_names[i] for i in np.flatnonzero(far > MAX_FIRST_RAD))
            raise MotorBusError(
                f"motors {names} would jump by up to {far.max():.2f} rad of spool to get into their range"
            )
        step = RESET_SPEED / self._control_hz * np.array([joint.max_speed_rad_s for joint in self._model.joints])
        near = np.zeros(len(goal), dtype=bool)
        self._bus.guard(WATCHDOG_S)  # whoever dies on the way there leaves nothing turning
        for _ in range(round(MAX_RESET_S * self._control_hz)):
            self._target = self._target + np.clip(goal - self._target, -step, step)
            self._write()
            at = self._read()
            near = (np.abs(at.q_rad - goal) < ARRIVED_RAD) & (np.abs(at.qd_rad_s) < AT_REST_RAD_S)
            if (self._target == goal).all() and near.all():
                break
        else:
            far = np.flatnonzero(~near)
            names = ", ".join(self._model.joint_names[i] for i in far)
            raise MotorBusError(
                f"joints {names} did not reach the start posture in {MAX_RESET_S:g} s {self.complaint}".rstrip()
            )
        self._bus.guard(0.0)  # nothing moves until the first command, which may take its time
        self._steps, self._guarded = 0, False
        self._state = self._read()
        return self._state

    def send(self, command: Command) -> None:
        """Write the goals; `receive` must follow."""
        target, before = self._clip(checked_target(command, self._model.joint_names)), self._target
        self._target, self._unsent = target, True
        try:
            if not self._guarded:
                self._bus.guard(WATCHDOG_S)
                self._guarded = True
            self._bus.write_goals(self._goals())
            self._unsent = False
        except MotorBusError as error:
            self._target = before  # no motor has heard of the other one
            self._count(error)

    def receive(self) -> RobotState:
        """Read what the motors say now, at the end of the period."""
        assert self._state is not None, "reset first"
        self._steps += 1
        if self._unsent:  # what is not in force is old, whatever the sensors say
            return self._state
        try:
            self._state = self._read()
        except MotorBusError as error:
            self._count(error)
        return self._state

    def step(self, command: Command) -> RobotState:
        self.send(command)
        self._wait(1.0 / self._control_hz)
        return self.receive()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bus.close()

    def _clip(self, q_rad: np.ndarray) -> np.ndarray:
        return np.clip(q_rad, self._model.lower_rad, self._model.upper_rad)

    def _goals(self) -> np.ndarray:
        return self._zero + self._direction * self._spool(self._target)

    def _write(self) -> None:
        self._bus.write_goals(self._goals())
        self._wait(1.0 / self._control_hz)

    def _count(self, error: MotorBusError) -> None:
        self.errors[type(error).__name__] += 1
        self.complaint = f"{type(error).__name__}: {error}"

    def _read(self) -> RobotState:
        readings = self._bus.read()
        bad = readings.error != 0
        spools = self._direction * (readings.position_rad - self._zero)
        self._spools = np.where(bad, self._spools, spools)  # the last that could be believed
        speeds = np.where(bad, 0.0, self._direction * readings.velocity_rad_s)
        self._q = self.joints(self._spools)
        q = self._q.copy()
        if bad.any():
            q[self._driven[bad]] = np.nan
            self.complaint = "; ".join(
                f"motor {self._model.motor_names[i]}: {hardware_errors(int(readings.error[i]))}"
                for i in np.flatnonzero(bad)
            )
        return RobotState(
            time_s=self._steps / self._control_hz,
            q_rad=q,
            qd_rad_s=self._inverse @ speeds,
            target_rad=self._target.copy(),
            motor_rad=spools,
            motor_rad_s=speeds,
            motor_current_a=readings.current_a.copy(),
            motor_temperature_c=readings.temperature_c.copy(),
            tip_force_n=np.zeros(0),
        )
