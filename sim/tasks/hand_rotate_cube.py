"""HandRotateCube: turn a cube on the palm about the vertical, on and on, without dropping it."""

from math import sqrt

import numpy as np

from robot.contract import Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.tasks.cube import CubeTask, yawed
from sim.tasks.hand import jerk, turn_between
from sim.tasks.task import Judgement, clock
from sim.world import Start, WorldState

PERIOD_S = 1.6  # of the gait's clock: a side of the cube after the other at 1 rad/s
RATE_RAD_S = 1.0  # mean over the episode, to succeed
CAP_RAD_S = 1.6  # faster earns no more: a cube that spins away is lost


def spin(rate_rad_s: float) -> float:
    """The rate up to a cap; backwards a loss, down to four times the cap: slow turns and quick snaps back must not pay."""
    return min(max(rate_rad_s, -4.0 * CAP_RAD_S), CAP_RAD_S)


def steadiness(speed_m_s: float) -> float:
    """Minus the cube's speed, in tenths of a metre per second."""
    return -min(speed_m_s / 0.1, 5.0)


def off_centre(away_m: float) -> float:
    """Minus the square of the way from the seat, 1 at 40 mm."""
    return -min((away_m / 0.04) ** 2, 4.0)


class HandRotateCube(CubeTask):
    """30 s. Cubes of 50 to 65 mm and 60 to 120 g. It ends when the cube is dropped.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | 22 finger joints | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `object_position` | x, y, z in the base frame by the camera's tracker, now and one and two steps ago | m | -0.6..0.6 |
    | `object_rotation` | two columns of the rotation matrix, the same three moments | 1 | -1..1 |
    | `gait_phase` | sine, cosine of a clock of 1.6 s | 1 | -1..1 |
    | `previous_action` | 22 | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | 22 finger joints; forearm and wrist stay at home | rad per step | -0.2..0.2 |

    It succeeds when after 30 s the cube is still there and has turned at 1 rad/s or more on average.
    """

    env_id = "flexor/HandRotateCube-v0"
    max_steps = 600  # 30 s
    reward_names = ("spin", "steady", "centred", "pose", "smooth", "power", "drop")
    metric_names = ("spin_rad_s", "survived_s", "power_w")

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._quat = yawed(0.0).tolist()
        self._turned_rad, self._steps = 0.0, 0

    def task_terms(self) -> tuple[Term, ...]:
        return (*super().task_terms(), clock(PERIOD_S))

    def start(self, rng: np.random.Generator) -> Start:
        quat = yawed(rng.uniform(-np.pi, np.pi))
        self._quat, self._turned_rad, self._steps = quat.tolist(), 0.0, 0
        return self.seated(rng, quat)

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        pose, velocity = world.body_pose[0].tolist(), world.body_twist[0, :3]
        _, _, turned = turn_between(self._quat, pose[3:])
        self._quat = pose[3:]
        self._turned_rad += turned
        self._steps += 1
        dropped = self.dropped(pose)
        mean_rate = self._turned_rad * self.control_hz / self._steps
        return Judgement(
            reward_terms={
                "spin": spin(turned * self.control_hz),
                "steady": 0.05 * steadiness(sqrt(velocity @ velocity)),
                "centred": 0.05 * off_centre(self.away_m(pose)),
                "pose": -0.1 * self.strain(state),
                "smooth": -0.01 * jerk(action, previous_action),
                "power": -0.002 * min(max(world.electrical_w, 0.0), 200.0),
                "drop": -5.0 if dropped else 0.0,
            },
            terminated=dropped,
            success=not dropped and self._steps >= self.max_steps and mean_rate >= RATE_RAD_S,
            metrics={
                "spin_rad_s": mean_rate,
                "survived_s": self._steps / self.control_hz,
                "power_w": world.electrical_w,
            },
        )
