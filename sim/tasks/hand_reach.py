"""HandReach: five fingertips to five goals at once. The goals are the tips of a random posture, so they can be reached."""

import numpy as np

from robot.contract import Contract
from robot.description.model import RobotModel
from robot.kinematics import TipKinematics
from robot.reaching import ENV_ID, reach_contract
from robot.state import RobotState
from sim.clearance import Clearance
from sim.tasks.task import Credit, Judgement, Task
from sim.world import Start, WorldState

SUCCESS_M = 0.005  # mean over the five tips
WIDE_M = 0.03  # scale of the reward that pulls from afar
NARROW_M = 0.006  # scale of the reward that rewards precision
RANGE_SHARE = 0.85  # goals and starts leave the outer 15 % of every joint's range alone
CLEARANCE_M = 0.002  # goal postures keep this gap between fingers
FOREARM = ("forearm_pronation", "wrist_flexion", "wrist_deviation")  # held still by their own motors


def tip_error_m(tips_m: np.ndarray, goals_m: np.ndarray) -> np.ndarray:
    """Distance of each tip to its goal, shapes (n_tips, 3) -> (n_tips,) [m]."""
    gap_m = tips_m - goals_m
    return np.sqrt(np.add.reduce(gap_m * gap_m, axis=-1))


def closeness(error_m: np.ndarray) -> np.ndarray:
    """0 far away, 1 at the goal, half of it earned within the last millimetres; shape as given."""
    return 1.0 - 0.5 * np.tanh(error_m / WIDE_M) - 0.5 * np.tanh(error_m / NARROW_M)


def smooth(action: np.ndarray, previous_action: np.ndarray) -> float:
    """Minus the mean squared change of the action."""
    change = action - previous_action
    return -float(np.add.reduce(change * change)) / change.size


class HandReach(Task):
    env_id = ENV_ID
    max_steps = 50  # 2 s
    control_hz = 25.0
    reward_names = ("thumb", "index", "middle", "ring", "little", "smooth")
    metric_names = ("tip_error_mm", "tip_error_max_mm")
    smooth_weight = 0.02
    robots = ("hand22",)
    default_robot = "hand22"

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._tips = TipKinematics(model)
        self._clearance = Clearance(model)
        self._goal_m = np.zeros((len(model.tips), 3))
        middle = (model.lower_rad + model.upper_rad) / 2.0
        half = RANGE_SHARE * (model.upper_rad - model.lower_rad) / 2.0
        still = np.array([name in FOREARM for name in model.joint_names])
        self._low = np.where(still, model.home_rad, middle - half)
        self._high = np.where(still, model.home_rad, middle + half)

    def contract(self) -> Contract:
        return reach_contract(self.model, control_hz=self.control_hz, env_id=self.env_id, still=FOREARM)

    def credit(self) -> tuple[Credit, ...]:
        """Each finger answers for its own tip, and all of them for smoothness."""
        joints = self.contract().action.joints
        return tuple(
            Credit(joints=tuple(j for j in joints if j.startswith(tip)), rewards=(tip, "smooth"))
            for tip in self.model.tip_names
        )

    def start(self, rng: np.random.Generator) -> Start:
        self._goal_m = self._tips.positions(self._posture(rng))
        return Start(q_rad=self._posture(rng))

    def _posture(self, rng: np.random.Generator) -> np.ndarray:
        """A posture in which no two fingers touch; in the worst case the home posture."""
        for _ in range(100):
            q = rng.uniform(self._low, self._high)
            if self._clearance.smallest_m(q) > CLEARANCE_M:
                return q
        return self.model.home_rad.copy()

    @property
    def goal(self) -> np.ndarray:
        return self._goal_m.reshape(-1).copy()

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        error = tip_error_m(self._tips.positions(state.q_rad), self._goal_m)
        terms = dict(zip(self._tips.tip_names, (closeness(error) / error.size).tolist()))
        each = error.tolist()
        mean = sum(each) / len(each)
        terms["smooth"] = self.smooth_weight * smooth(action, previous_action)
        return Judgement(
            reward_terms=terms,
            success=mean < SUCCESS_M,
            metrics={"tip_error_mm": 1e3 * mean, "tip_error_max_mm": 1e3 * max(each)},
        )
