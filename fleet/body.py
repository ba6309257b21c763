"""What a robot's body tells the fleet: energy, battery, and the last seconds before a fall. Wraps the robot that the control loop drives.

Electrical power of a motor is `i^2 R(T) + ke N w i`: what heats the winding, and what goes into the shaft. It comes from the currents and
speeds the robot reports and the motors' data sheets, so it is modelled, and said to be. Drives are taken not to feed back: a motor that brakes
counts as zero. The battery is a count of joules against a capacity the operator states.
"""

import numpy as np

from fleet.messages import FallReport
from robot.description.actuators import COPPER_PER_K
from robot.description.model import RobotModel
from robot.link import TaskFeedback
from robot.onboard.robots import Robot
from robot.state import Command, RobotState

KEPT_S = 5.0  # before a fall
MAX_STATES = 1000
POWER_TIME_S = 1.0  # time constant of the power that is shown
SOURCE = "modelled: motor currents, data sheets"


class Body:
    """A robot like the one it wraps, that keeps account.

    Args:
        robot: What is driven.
        battery_wh: Capacity, 0 for none [W h].
        base_w: What everything but the motors takes: computer, sensors, drives at rest [W].
    """

    def __init__(self, robot: Robot, *, battery_wh: float = 0.0, base_w: float = 0.0) -> None:
        self._robot, self._base_w = robot, base_w
        self._capacity_j = 3600.0 * battery_wh
        self._motors = _Motors(robot.model)
        self.energy_j = self.power_w = 0.0
        self.source = SOURCE + (f", and {base_w:g} W for the rest" if base_w else "")
        size = min(MAX_STATES, max(2, round(KEPT_S * robot.control_hz)))
        self._time_s = np.zeros(size, np.float32)
        self._q_rad = np.zeros((size, len(robot.model.joints)), np.float32)
        self._quat = np.zeros((size, 4), np.float32)
        self._force_n = np.zeros((size, len(robot.model.tips)), np.float32)
        self._noted, self._has_quat, self._has_force = 0, False, False

    # --- as a robot --------------------------------------------------------------------------------------------------

    @property
    def model(self) -> RobotModel:
        return self._robot.model

    @property
    def control_hz(self) -> float:
        return self._robot.control_hz

    @property
    def feedback(self) -> TaskFeedback:
        return self._robot.feedback

    @property
    def complaint(self) -> str:
        return getattr(self._robot, "complaint", "")

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        fresh = self._robot.reset(state, rng)
        self._noted = 0  # what was before is another episode
        self._note(fresh)
        return fresh

    def send(self, command: Command) -> None:
        self._robot.send(command)

    def ready(self, timeout_s: float) -> bool:
        return self._robot.ready(timeout_s)

    def receive(self) -> RobotState:
        state = self._robot.receive()
        dt_s = 1.0 / self._robot.control_hz
        power_w = self._motors.power_w(state) + self._base_w
        self.energy_j += power_w * dt_s
        self.power_w += min(1.0, dt_s / POWER_TIME_S) * (power_w - self.power_w)
        self._note(state)
        return state

    def close(self) -> None:
        self._robot.close()

    # --- account -----------------------------------------------------------------------------------------------------

    @property
    def battery_j(self) -> float:
        """What is left [J]; 0 where there is no battery."""
        return max(0.0, self._capacity_j - self.energy_j)

    @property
    def battery(self) -> float | None:
        """Charge, 0 to 1; None where there is no battery."""
        return self.battery_j / self._capacity_j if self._capacity_j else None

    def fall(
        self, *, reason: str, episode_id: str, policy_sha256: str, artifact: str, time_ns: int
    ) -> FallReport | None:
        """The last seconds, None when there are none."""
        size = len(self._time_s)
        n = min(self._noted, size)
        if n == 0:
            return None
        rows = np.arange(self._noted - n, self._noted) % size

        def raw(array: np.ndarray) -> bytes:
            return array[rows].astype("<f4").tobytes()

        return FallReport(
            episode_id=episode_id,
            policy_sha256=policy_sha256,
            artifact=artifact,
            robot_model=self.model.name,
            reason=reason[:1000],
            states=n,
            time_s=raw(self._time_s),
            q_rad=raw(self._q_rad),
            imu_quat_xyzw=raw(self._quat) if self._has_quat else b"",
            tip_force_n=raw(self._force_n) if self._has_force else b"",
            time_ns=time_ns,
        )

    def _note(self, state: RobotState) -> None:
        i = self._noted % len(self._time_s)
        self._time_s[i], self._q_rad[i] = state.time_s, state.q_rad
        self._has_quat, self._has_force = state.imu_quat_xyzw.size == 4, state.tip_force_n.size == len(self.model.tips)
        if self._has_quat:
            self._quat[i] = state.imu_quat_xyzw
        if self._has_force:
            self._force_n[i] = state.tip_force_n
        self._noted += 1


class _Motors:
    """Electrical power of all motors of a model."""

    def __init__(self, model: RobotModel) -> None:
        motors = [unit.motor for unit in (*model.tendons, *model.drives)]
        self._ohm = np.array([motor.resistance_ohm for motor in motors])
        self._ke_v_s = np.array([motor.torque_constant_nm_a * motor.gear_ratio for motor in motors])

    def power_w(self, state: RobotState) -> float:
        """0 where the robot has no current sensors; a reading that is no number counts as nothing."""
        current_a = state.motor_current_a
        if current_a.shape != self._ohm.shape:
            return 0.0
        ohm = self._ohm
        if state.motor_temperature_c.shape == ohm.shape:
            ohm = ohm * (1.0 + COPPER_PER_K * (state.motor_temperature_c - 25.0))
        power_w = current_a * (ohm * current_a)
        if state.motor_rad_s.shape == ohm.shape:
            power_w = power_w + current_a * (self._ke_v_s * state.motor_rad_s)
        return float(np.clip(np.nan_to_num(power_w, nan=0.0, posinf=0.0, neginf=0.0), 0.0, None).sum())
