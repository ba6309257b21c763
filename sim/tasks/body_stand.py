"""BodyStand: stand where it is told to, through pushes of the trunk from any side."""

from collections.abc import Sequence

import numpy as np

from robot.contract import Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.tasks.body import CYCLE_S, TOUCH_N, BodyTask, jerk, near, tilt, tilt_deg, unrest
from sim.tasks.task import Judgement, clock
from sim.world import Ground, Push, Start, World, WorldState

# The trunk's push as the speed it would give the whole body, least and most, at each level
PUSH_M_S = {"nudged": (0.0, 0.25), "pushed": (0.15, 0.45), "beyond": (0.3, 0.75), "all": (0.6, 0.6)}
PUSH_EVERY_S = 3.0


class BodyStand(BodyTask):
    """10 s of standing; three pushes of the trunk of 0.6 m/s from anywhere.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `base_gyro` | x, y, z of the IMU, 3 moments | rad/s | -6..6 |
    | `projected_gravity` | where down is, in the pelvis' frame, 3 moments | 1 | -1..1 |
    | `joint_position` | 12 leg, 2 waist, 2 shoulder joints | rad | their ranges and 0.2 |
    | `joint_velocity` | the same, 3 moments | rad/s | -15..15 |
    | `previous_action` | the same | 1 | -1..1 |
    | `gait_phase` | sine, cosine of a clock of 0.8 s | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | joint targets | the same 16 joints, about the home posture | rad | 0.5 hip pitch, knee, ankle pitch; 0.4 hip roll; 0.25 others |

    It ends when the pelvis tilts by more than 37 degrees or is lower than 0.6 m. It succeeds when it still stands at the end.
    """

    env_id = "flexor/BodyStand-v0"
    levels = tuple(PUSH_M_S)
    level = "all"
    max_steps = 500  # 10 s
    reward_names = ("still", "alive", "feet", "upright", "height", "unrest", "posture", "smooth", "power", "fall")
    metric_names = ("speed_m_s", "tilt_deg", "power_w", "moved_m", "survived_s")

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._begin()

    def _begin(self) -> None:
        self._push_s = 0.0
        self._push_steps = self._steps = 0
        self._sums = np.zeros(3)

    def extra_terms(self) -> tuple[Term, ...]:
        return (clock(CYCLE_S),)

    def world(self) -> World:
        return World(ground=Ground(kind="flat"))

    def start(self, rng: np.random.Generator) -> Start:
        self._begin()
        self._push_s = rng.uniform(0.5, 1.5)
        return self.standing(rng, yaw_rad=rng.uniform(-np.pi, np.pi))

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        if state.time_s >= self._push_s:
            self._push_s += PUSH_EVERY_S
            self.shove(rng.uniform(*PUSH_M_S[self.level]), rng)
        return self.pushing()

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        gait = self.gait(state, world)
        speed = (gait.forward_m_s**2 + gait.left_m_s**2) ** 0.5
        power = min(max(world.electrical_w, 0.0), 5000.0)
        self._steps += 1
        self._sums += (speed, tilt_deg(gait), power)
        mean_speed, mean_tilt, mean_power = (self._sums / self._steps).tolist()
        both = 0.5 * (gait.left_n > TOUCH_N) + 0.5 * (gait.right_n > TOUCH_N)
        return Judgement(
            reward_terms={
                "still": near(speed, 0.4) + 0.5 * near(gait.yaw_rad_s, 0.5),
                "alive": 1.0,
                "feet": 0.3 * both,
                "upright": -3.0 * tilt(gait),
                "height": -20.0 * min(0.0, gait.height_m - 0.85) ** 2,
                "unrest": -0.05 * unrest(gait),
                "posture": -1.5 * self.wander(state),
                "smooth": -0.3 * jerk(action, previous_action),
                "power": -2e-4 * power,
                "fall": -50.0 if gait.fallen else 0.0,
            },
            terminated=gait.fallen,
            success=not gait.fallen,
            metrics={
                "speed_m_s": mean_speed,
                "tilt_deg": mean_tilt,
                "power_w": mean_power,
                "moved_m": float(np.hypot(*world.base_position_m[:2])),
                "survived_s": self._steps / self.control_hz,
            },
        )
