"""A robot without an engine: drives that move their targets evenly over a control period, joints that follow those with a first-order
lag, and a tiny reaching task on top.

For tests, for the fleet, and to try the runtime where no simulator is installed. It fails exactly where the others fail.
`python -m robot.mock --socket PATH` serves it behind a link.
"""

import argparse
from dataclasses import replace
from math import exp, pi

import numpy as np

from robot.description import load
from robot.description.model import RobotModel
from robot.kinematics import TipKinematics
from robot.link import RobotSide, TaskFeedback, host
from robot.reaching import ENV_ID, reach_contract
from robot.state import Command, CommandError, RobotState, checked_posture, checked_target

LAG_S = 0.06  # joints reach 63 % of a small step in this time; hand22 in PyBullet is of that order
ENCODER_RAD = 2.0 * pi / 4096.0  # 12-bit joint encoder
AMBIENT_C = 25.0
HOLDING_SHARE = 0.2  # current of a motor that tracks one radian behind, as a share of its peak


class MockBackend:
    """A `Backend` with first-order joints. Deterministic: equal commands and generators give equal states.

    Args:
        model: The robot.
        control_hz: Commands per second.
    """

    def __init__(self, model: RobotModel, control_hz: float = 25.0) -> None:
        self._model, self._control_hz = model, control_hz
        # After a step of T from r0 to r1, where the target moved evenly: q1 - r1 = (q0 - r0) keep - (r1 - r0) trail
        self._keep = exp(-1.0 / (control_hz * LAG_S))
        self._trail = (1.0 - self._keep) * control_hz * LAG_S
        # spool angle per joint angle, all joints a tendon passes, at the zero posture
        motors = (*model.tendons, *model.drives)
        self._spool = np.zeros((len(motors), len(model.joints)))
        for i, tendon in enumerate(model.tendons):
            for arm in tendon.arms:
                self._spool[i, model.index(arm.joint)] = arm.flexor_m / tendon.spool_flexor_m
        for i, drive in enumerate(model.drives, start=len(model.tendons)):
            self._spool[i, model.index(drive.joint)] = 1.0
        self._driven = np.array([model.index(motor.joint) for motor in motors], dtype=np.intp)
        self._peak_a = np.array([motor.motor.peak_current_a for motor in motors])
        self._q = self._qd = self._target = model.home_rad.copy()
        self._steps = 0

    @property
    def model(self) -> RobotModel:
        return self._model

    @property
    def control_hz(self) -> float:
        return self._control_hz

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """To a posture at rest; `rng` is not needed, nothing here is random.

        Raises:
            CommandError, NotFiniteError: The posture has another shape, or is not finite.
        """
        q = self._model.home_rad if state is None else state.q_rad
        q = checked_posture(q, self._model.joint_names)
        self._q = np.clip(q, self._model.lower_rad, self._model.upper_rad)
        self._qd = np.zeros_like(self._q)
        self._target = self._q.copy()
        self._steps = 0
        return self._read()

    def step(self, command: Command) -> RobotState:
        target = checked_target(command, self._model.joint_names)
        before, self._target = self._target, np.clip(target, self._model.lower_rad, self._model.upper_rad)
        q = self._target + self._keep * (self._q - before) - self._trail * (self._target - before)
        self._qd = (q - self._q) * self._control_hz
        self._q = q
        self._steps += 1
        return self._read()

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> RobotState:
        q = np.round(self._q / ENCODER_RAD) * ENCODER_RAD
        lag = (self._target - self._q)[self._driven]
        return RobotState(
            time_s=self._steps / self._control_hz,
            q_rad=q,
            qd_rad_s=self._qd.copy(),
            target_rad=self._target.copy(),
            motor_rad=self._spool @ q,
            motor_rad_s=self._spool @ self._qd,
            motor_current_a=HOLDING_SHARE * self._peak_a * np.clip(lag, -1.0, 1.0),
            motor_temperature_c=np.full(len(self._driven), AMBIENT_C),
            tip_force_n=np.zeros(len(self._model.tips)),
            imu_gyro_rad_s=np.zeros(3 if self._model.floating else 0),
            imu_quat_xyzw=np.array([0.0, 0.0, 0.0, 1.0] if self._model.floating else []),
        )


class MockReach:
    """Fingertips to goals that some posture reaches; reward is minus the mean tip error [m]. A `robot.link.RobotSide`.

    Args:
        model: The robot.
        control_hz: Commands per second.
        env_id: Environment it stands in for.
        episode_s: Length of an episode; it then truncates [s].
        success_m: The goal holds while every tip is nearer than this [m].
    """

    def __init__(
        self,
        model: RobotModel,
        control_hz: float = 25.0,
        env_id: str = ENV_ID,
        episode_s: float = 4.0,
        success_m: float = 0.015,
    ) -> None:
        self._backend = MockBackend(model, control_hz)
        self._tips = TipKinematics(model)
        self._env_id, self._success_m = env_id, success_m
        self._episode_steps = max(1, round(episode_s * control_hz))
        self._goal_m = np.zeros((len(model.tips), 3))
        self._steps = 0

    @property
    def model(self) -> RobotModel:
        return self._backend.model

    @property
    def control_hz(self) -> float:
        return self._backend.control_hz

    @property
    def env_id(self) -> str:
        return self._env_id

    def reset(self, rng_seed: int) -> tuple[RobotState, TaskFeedback]:
        rng = np.random.default_rng(rng_seed)
        model = self.model
        reached = model.home_rad + 0.5 * rng.random(len(model.joints)) * (model.upper_rad - model.home_rad)
        self._goal_m = self._tips.positions(reached)
        self._steps = 0
        state = self._backend.reset(None, rng)
        return state, replace(self._feedback(state), reward_terms=np.zeros(1))

    def step(self, command: Command) -> tuple[RobotState, TaskFeedback]:
        state = self._backend.step(command)
        self._steps += 1
        return state, self._feedback(state)

    def close(self) -> None:
        self._backend.close()

    def _feedback(self, state: RobotState) -> TaskFeedback:
        error_m = np.linalg.norm(self._tips.positions(state.q_rad) - self._goal_m, axis=1)  # (n_tips,)
        return TaskFeedback(
            goal=self._goal_m.reshape(-1).copy(),
            reward_names=("tip_error",),
            reward_terms=np.array([-error_m.mean()]),
            truncated=self._steps >= self._episode_steps,
            success=bool((error_m < self._success_m).all()),
        )


class MockIdle:
    """A robot with nothing to do: no goal, no reward, no end. A `robot.link.RobotSide` for any robot."""

    def __init__(self, model: RobotModel, control_hz: float, env_id: str) -> None:
        self._backend, self.env_id = MockBackend(model, control_hz), env_id

    @property
    def model(self) -> RobotModel:
        return self._backend.model

    @property
    def control_hz(self) -> float:
        return self._backend.control_hz

    def reset(self, rng_seed: int) -> tuple[RobotState, TaskFeedback]:
        return self._backend.reset(None, np.random.default_rng(rng_seed)), TaskFeedback()

    def step(self, command: Command) -> tuple[RobotState, TaskFeedback]:
        return self._backend.step(command), TaskFeedback()

    def close(self) -> None:
        self._backend.close()


def mock_side(env_id: str, robot: str, control_hz: float) -> RobotSide:
    """The mock of an environment: reaching where that is asked for, and nothing to do elsewhere."""
    make = MockReach if env_id == ENV_ID else MockIdle
    return make(load(robot), control_hz, env_id)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m robot.mock", description="Serve the mock task behind a link.")
    parser.add_argument("--env", default=ENV_ID)
    parser.add_argument("--robot", default="hand22")
    parser.add_argument("--control-hz", type=float, default=25.0)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--parent", type=int, default=None)
    args = parser.parse_args(argv)
    host(
        lambda: mock_side(args.env, args.robot, args.control_hz),
        args.socket,
        parent_pid=args.parent,
    )


if __name__ == "__main__":
    main()

__all__ = ["CommandError", "MockBackend", "MockReach", "reach_contract"]
