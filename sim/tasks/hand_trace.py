"""HandTrace: the tip of a held tool follows a suture or a letter."""

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi, sin

import numpy as np

from robot.contract import COLUMNS, Term, two_columns
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.bodies import Body, Hull
from sim.scene import LinkPoses
from sim.tasks.hand import HandTask, jerk, position_term, rotation_term, term, tips_truth
from sim.tasks.task import Judgement
from sim.tasks.trace_start import load_start, thing
from sim.world import Push, Start, World, WorldState, quat_matrix

HAND_OVER_S = 1.0  # a helper carries the tool's weight while the fingers close; then the path begins
SIZE_M = 0.006  # height of a letter
SUCCESS_M = 0.0005  # root mean square over the path
LOST_M = 0.02
AHEAD = (1, 4, 8)  # control steps
ANGLES = tuple(2.0 * pi * k / 24 for k in range(25))
PATHS: dict[str, tuple[tuple[float, float], ...]] = {  # in units of the height, one stroke each
    "suture": tuple((0.05 * k, 0.25 * sin(0.3 * pi * k)) for k in range(21)),
    "C": tuple((0.5 + 0.5 * cos(0.8 + a * 0.745), 0.5 + 0.5 * sin(0.8 + a * 0.745)) for a in ANGLES),
    "L": ((0.0, 1.0), (0.0, 0.0), (0.6, 0.0)),
    "N": ((0.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.6, 1.0)),
    "O": tuple((0.5 + 0.5 * cos(a), 0.5 + 0.5 * sin(a)) for a in ANGLES),
    "V": ((0.0, 1.0), (0.35, 0.0), (0.7, 1.0)),
    "Z": ((0.0, 1.0), (0.6, 1.0), (0.0, 0.0), (0.6, 0.0)),
}


def resampled(points: np.ndarray, count: int) -> np.ndarray:
    """A stroke as `count` points evenly spaced along it, shapes (n, 2) -> (count, 2)."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, i]) for i in range(2)], axis=1)


def precision(error_m: float) -> float:
    """1 on the path, a half at half a millimetre, falling on."""
    return 1.0 / (1.0 + (error_m / SUCCESS_M) ** 2)


class HandTrace(HandTask):
    """11 s. The tool is held by contact alone, in a grasp the benchmark's search found, from a hand-over in the first second on; then a
    point moves along the path for ten seconds. It ends when the tool is lost.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | all 25 joints, forearm and wrist too | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `object_position` | the tool's tip in the base frame, by an optical tool tracker | m | -0.6..0.6 |
    | `object_rotation` | two columns of the tool's rotation matrix | 1 | -1..1 |
    | `object_goal_error` | from the tip to where it should be in 1, 4 and 8 steps | m | -0.03..0.03 |
    | `previous_action` | 25 | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | all 25 joints | rad per step | -0.03..0.03 |

    The goal is those three points in the base frame. It succeeds when the tip's error is 0.5 mm or less, root mean square over the path.
    """

    env_id = "flexor/HandTrace-v0"
    still = ()
    max_steps = 220  # 11 s
    reach_rad = 0.03
    reward_names = ("precise", "near", "smooth", "lost")
    metric_names = ("rms_mm", "error_mm")
    privileged_names = (
        *(f"tool_tip_{axis}_m" for axis in "xyz"),
        *(f"tool_turn_{name}" for name in COLUMNS),
        *(f"error_{axis}_m" for axis in "xyz"),
        *(f"tip_force_{i}_n" for i in range(5)),
    )
    tracked = "tool"
    goal_elements = tuple(f"{axis}+{k}" for k in AHEAD for axis in "xyz")
    goal_unit, goal_frame = "m", "base"
    # An optical tracker for surgical tools: a tenth of a millimetre, at 60 frames a second or more.
    ranges = {  # noqa: RUF012 - read only
        "tracker_bias_m": (-0.0001, 0.0001),
        "tracker_noise_m": (0.0, 0.00005),
        "tracker_bias_rad": (-0.005, 0.005),
        "tracker_noise_rad": (0.0, 0.002),
        "tracker_latency_s": (0.01, 0.02),
        "tracker_dropout": (0.0, 0.005),
        "object_friction": (0.7, 1.0),
        "skin_friction": (0.85, 1.0),
    }

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        held = load_start(model.name)
        self._q, self._target, pose = np.array(held.q_rad), np.array(held.target_rad), np.array(held.pose)
        self.tool, to_tip = with_frame_at_tip(thing(model.name))
        origin = LinkPoses(model).at(self._q)[1]
        palm = [link.name for link in model.links].index("palm")
        self.tip_m = tip = pose[:3] + quat_matrix(pose[3:]) @ to_tip  # in the world, at the start
        self._start = np.concatenate([tip, pose[3:] / np.linalg.norm(pose[3:])])
        outwards = tip - origin[palm]
        outwards /= np.linalg.norm(outwards)
        across = np.cross(outwards, (0.0, 0.0, 1.0))
        across /= np.linalg.norm(across)
        self._plane = np.stack([across, np.cross(across, outwards)])  # what the wrist can reach without stretching
        self._weight_n = self.tool.mass_kg * 9.81
        self._path = np.tile(tip, (self.max_steps + max(AHEAD) + 1, 1))
        self._steps, self._sum = 0, 0.0
        self.hand_over_steps = round(HAND_OVER_S * self.control_hz)

    def task_terms(self) -> tuple[Term, ...]:
        return (
            self.touch(),
            position_term(),
            rotation_term(),
            term("object_goal_error", self.goal_elements, "m", "base", -0.03, 0.03),
        )

    def world(self) -> World:
        return World(bodies=(self.tool,), creeps=False)

    def start(self, rng: np.random.Generator) -> Start:
        names = list(PATHS)
        stroke = np.array(PATHS[names[rng.integers(len(names))]]) * SIZE_M
        wait = self.hand_over_steps
        flat = resampled(stroke - stroke[0], self.max_steps - wait + 1)
        self._path[:wait] = self._start[:3]
        self._path[wait : self.max_steps + 1] = self._start[:3] + flat @ self._plane
        self._path[self.max_steps + 1 :] = self._path[self.max_steps]
        self._steps, self._sum = 0, 0.0
        return Start(q_rad=self._q, target_rad=self._target, body_poses=self._start[None])

    @property
    def goal(self) -> np.ndarray:
        return (self._path[[self._steps + k for k in AHEAD]] - self.base_m).reshape(-1)

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        if state.time_s < HAND_OVER_S:
            self._path += (
                world.body_pose[0, :3] - self._path[self._steps]
            )  # the path begins where the tip comes to rest
            return (Push(on="tool", force_n=np.array([0.0, 0.0, self._weight_n])),)
        return ()

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        self._steps += 1
        error = float(np.linalg.norm(world.body_pose[0, :3] - self._path[self._steps]))
        on_path = self._steps - self.hand_over_steps
        if on_path > 0:
            self._sum += error * error
        rms = (self._sum / on_path) ** 0.5 if on_path > 0 else error
        lost = error > LOST_M
        return Judgement(
            reward_terms={
                "precise": precision(error),
                "near": -min(error / 0.005, 2.0),
                "smooth": -0.02 * jerk(action, previous_action),
                "lost": -20.0 if lost else 0.0,
            },
            terminated=lost,
            success=not lost and on_path > 0 and rms <= SUCCESS_M,
            metrics={"rms_mm": 1e3 * rms, "error_mm": 1e3 * error},
        )

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        pose = world.body_pose[0]
        return np.concatenate(
            [
                pose[:3] - self.base_m,
                two_columns(pose[3:]),
                self._path[self._steps + 1] - pose[:3],
                tips_truth(world),
            ]
        )


def with_frame_at_tip(body: Body) -> tuple[Body, np.ndarray]:
    """A long thing of the catalogue as a tool whose frame sits at its end, and where that end was in its frame, shape (3,) [m]."""
    (rod,) = body.shapes
    assert not isinstance(rod, Hull)
    length = rod.size_m[1] + (2.0 * rod.size_m[0] if rod.shape == "capsule" else 0.0)
    end = np.array(rod.origin_m) + np.array([0.0, length / 2.0, 0.0])  # all of them lie along y
    x, y, z = (np.array(rod.origin_m) - end).tolist()
    return replace(body, name="tool", shapes=(replace(rod, origin_m=(x, y, z)),)), end
