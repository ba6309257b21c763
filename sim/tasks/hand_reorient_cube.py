"""HandReorientCube: bring a cube on the palm to one orientation after another."""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np

from robot.contract import Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.bodies import as_quat
from sim.tasks.cube import CubeTask, yawed
from sim.tasks.hand import jerk, term, turn_between
from sim.tasks.task import Judgement
from sim.world import Push, Start, WorldState, quat_times

REACHED_RAD = 0.4  # as Dactyl and DeXtreme count
STREAK = 5  # goals in a row, to succeed
LEAST_TURN_RAD = 0.8  # a new goal is at least twice the tolerance away


def _faces() -> np.ndarray:
    """The 24 orientations that carry a cube into itself, shape (24, 4)."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        if np.linalg.det(matrix) > 0.0:
            found.append(as_quat(matrix))
    return np.array(found)


FACES = _faces()


def progress(before_rad: float, after_rad: float) -> float:
    """How much nearer the goal is [rad]; a jump counts no more than half a radian."""
    return float(np.clip(before_rad - after_rad, -0.5, 0.5))


def uniform_turn(rng: np.random.Generator) -> np.ndarray:
    """An orientation drawn evenly from all, shape (4,)."""
    quat = rng.standard_normal(4)
    return quat / np.linalg.norm(quat)


def apart_rad(one_xyzw: Sequence[float], other_xyzw: Sequence[float]) -> float:
    """The angle between two orientations [rad]."""
    return float(np.linalg.norm(turn_between(one_xyzw, other_xyzw)))


class HandReorientCube(CubeTask):
    """40 s, goal after goal. It ends when the cube is dropped. Levels, from easy to hard:

    - `axis`: goals are turns of the cube about the vertical;
    - `faces`: the 24 orientations with faces along the base's axes;
    - `all`: any orientation (the environment's own).

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | 22 finger joints | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `object_position` | x, y, z in the base frame by the camera's tracker, now and one and two steps ago | m | -0.6..0.6 |
    | `object_rotation` | two columns of the rotation matrix, the same three moments | 1 | -1..1 |
    | `object_turn_to_goal` | two columns of the turn still to make, by the tracker | 1 | -1..1 |
    | `previous_action` | 22 | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | 22 finger joints; forearm and wrist stay at home | rad per step | -0.2..0.2 |

    The goal is a quaternion x, y, z, w in the base frame. One is reached within 0.4 rad; five without a drop are a success.
    """

    env_id = "flexor/HandReorientCube-v0"
    max_steps = 800  # 40 s
    levels = ("axis", "faces", "all")
    level = "all"
    goal_elements = ("x", "y", "z", "w")
    goal_unit, goal_frame = "1", "base"
    reward_names = ("progress", "goal", "kept", "centred", "smooth", "power", "drop")
    metric_names = ("goals_reached", "angle_rad", "survived_s")

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._goal = yawed(0.0)
        self._angle_rad: float | None = None
        self._reached = self._steps = 0
        self._next = False

    def task_terms(self) -> tuple[Term, ...]:
        turn = ("xx", "yx", "zx", "xy", "yy", "zy")
        return (*super().task_terms(), term("object_turn_to_goal", turn, "1", "base", -1.0, 1.0))

    def start(self, rng: np.random.Generator) -> Start:
        about = yawed(rng.uniform(-np.pi, np.pi))
        quat = about if self.level == "axis" else quat_times(about, FACES[rng.integers(len(FACES))])
        self._angle_rad, self._reached, self._steps = None, 0, 0
        self._goal = self._drawn(quat, rng)
        self._next = False
        return self.seated(rng, quat)

    def _drawn(self, now_xyzw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another goal, well away from where the cube is."""
        while True:
            if self.level == "axis":
                goal = quat_times(yawed(rng.uniform(-np.pi, np.pi)), now_xyzw)
            else:
                goal = FACES[rng.integers(len(FACES))] if self.level == "faces" else uniform_turn(rng)
            if apart_rad(now_xyzw.tolist(), goal.tolist()) > LEAST_TURN_RAD:
                return goal

    @property
    def goal(self) -> np.ndarray:
        return self._goal.copy()

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        if self._next:
            self._goal, self._next, self._angle_rad = self._drawn(world.body_pose[0, 3:], rng), False, None
        return ()

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        pose = world.body_pose[0].tolist()
        angle = apart_rad(pose[3:], self._goal.tolist())
        before = angle if self._angle_rad is None else self._angle_rad
        self._angle_rad = angle
        self._next = angle < REACHED_RAD
        self._reached += self._next
        self._steps += 1
        dropped = self.dropped(pose)
        return Judgement(
            reward_terms={
                "progress": 2.0 * progress(before, angle),
                "goal": 5.0 if self._next else 0.0,
                "kept": 0.2,  # more than what follows costs: a drop must never be a way out
                "centred": -0.1 * min((self.away_m(pose) / 0.04) ** 2, 4.0),
                "smooth": -0.02 * jerk(action, previous_action),
                "power": -0.002 * min(max(world.electrical_w, 0.0), 200.0),
                "drop": -10.0 if dropped else 0.0,
            },
            terminated=dropped,
            success=self._reached >= STREAK,
            metrics={
                "goals_reached": float(self._reached),
                "angle_rad": angle,
                "survived_s": self._steps / self.control_hz,
            },
        )
