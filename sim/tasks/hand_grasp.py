"""HandGrasp: take an object in one of the 33 grasps of the taxonomy, hold it, and survive pulls in six directions."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robot.contract import Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.bodies import as_quat
from sim.dexterity.grasp import Grasp, load_grasps
from sim.dexterity.protocol import (
    GRAVITY_M_S2,
    HAND_OVER_S,
    LOST_M,
    PULL_S,
    REST_S,
    TOUCHED,
    WATCH_S,
    WAYS,
    matrix_of,
)
from sim.dexterity.taxonomy import TYPES, find
from sim.objects import find as find_thing
from sim.scene import LinkPoses
from sim.tasks.hand import HandTask, jerk, term
from sim.tasks.task import Judgement
from sim.world import Push, Start, World, WorldState, rotated

OBJECT = "object"
CALM_S = 1.2  # let go, before the first pull
OPEN_SHARE = 0.5  # of the way from touching to squeezing, which the fingers start out backwards
POSTURE_RAD, PLACE_M = 0.01, 0.001  # spread of the start
ELEMENTS = (*(f"type_{kind.number}" for kind in TYPES), "size_x_m", "size_y_m", "size_z_m", "mass_kg")
TRUTH = (
    *(f"object_{axis}_in_palm_m" for axis in "xyz"),
    *(f"object_v{axis}_m_s" for axis in "xyz"),
    "weight_n",
    "pulls",
)


def touching(share: float) -> float:
    """How much of the type's contact pattern is there, 0 to 1."""
    return share


def mostly(touched: Sequence[set[tuple[str, str]]]) -> set[tuple[str, str]]:
    """What is in at least `TOUCHED` of some moments' touches."""
    counts = Counter(item for moment in touched for item in moment)
    return {item for item, n in counts.items() if n >= TOUCHED * len(touched)}


def stillness(away_m: float) -> float:
    """1 where the object was let go, 0 where it counts as lost."""
    return 1.0 - min(away_m / LOST_M, 1.0)


class HandGrasp(HandTask):
    """8.4 s. One of the grasp types that the hand's shipped grasps hold; the object is handed over, let go after 0.8 s, then pulled.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | all joints, forearm and wrist included | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `goal` | the type, one of 33; the object's edges along its axes [m]; its nominal mass [kg] | 1 | 0..1.5 |
    | `previous_action` | one per joint | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | all joints | rad per step | -0.2..0.2 |

    | reward | per step |
    |---|---|
    | `touch` | 0.05 times the share of the contact pattern that is right |
    | `still` | up to 0.05, for an object that stays where it was let go |
    | `pull` | 1 for each of the six pulls survived |
    | `smooth`, `power` | small losses |
    | `drop` | -5, and the episode ends |

    It starts with the fingers round the object, a little open. Until it is let go a helper carries the object's nominal weight, and nothing
    else holds it. It succeeds when the object is still held after the sixth pull, and over the last 0.4 s the parts that the type names touched
    for half of the time: the benchmark's own rule.
    """

    env_id = "flexor/HandGrasp-v0"
    control_hz = 25.0
    max_steps = round((HAND_OVER_S + CALM_S + len(WAYS) * (PULL_S + REST_S) + 0.4) * 25.0)
    reward_names = ("touch", "still", "pull", "smooth", "power", "drop")
    metric_names = ("pulls", "away_mm", "pattern", "power_w", "type")
    privileged_names = TRUTH
    still = ()
    goal_elements = ELEMENTS
    goal_unit, goal_frame = "1", "task"

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._grasps = tuple(g for g in load_grasps(model.name).grasps if g.held)
        self.kinds = tuple(str(grasp.number) for grasp in self._grasps)
        self._rule = None  # made at the first start: it loads numba
        self._poses = LinkPoses(model)
        self._palm = self._poses.names.index("palm")
        self._choose(self._grasps[0])

    def _choose(self, grasp: Grasp) -> None:
        self._grasp, self._kind = grasp, find(grasp.number)
        self._body = replace(find_thing(grasp.thing).body, name=OBJECT)
        self._order: tuple[str, ...] = tuple(WAYS)
        self._let_go_m: np.ndarray | None = None
        self._steps = self._pulls = 0
        self._touched: deque[set[tuple[str, str]]] = deque(maxlen=round(WATCH_S * self.control_hz))

    def task_terms(self) -> tuple[Term, ...]:
        return (self.touch(), term("goal", ELEMENTS, "1", "task", 0.0, 1.5))

    @property
    def grasp(self) -> Grasp:
        """The shipped grasp that the episode starts from: what the scripted baseline closes to."""
        return self._grasp

    def world(self) -> World:
        return World(bodies=(self._body,), creeps=False)

    def draw_world(self, rng: np.random.Generator) -> World:
        drawn = int(rng.integers(len(self._grasps)))
        self._choose(self._grasps[self.kinds.index(self.kind) if self.kind else drawn])
        return self.world()

    def start(self, rng: np.random.Generator) -> Start:
        from sim.dexterity.pattern import PatternRule

        self._rule = self._rule or PatternRule(self.model)
        self._order = tuple(rng.permutation(list(WAYS)).tolist())
        self._let_go_m, self._steps, self._pulls = None, 0, 0
        self._touched.clear()
        q, target = np.array(self._grasp.q_rad), np.array(self._grasp.target_rad)
        hand = self._rule.hand.joints
        q[hand] += POSTURE_RAD * rng.normal(size=len(hand)) - OPEN_SHARE * (target - q)[hand]
        q = np.clip(q, self.model.lower_rad, self.model.upper_rad)
        rotation, origin = self._poses.at(q)
        turn = rotation[self._palm]
        pose = np.empty(7)
        place = np.array(self._grasp.position_m) + PLACE_M * rng.normal(size=3)
        pose[:3] = origin[self._palm] + turn @ place
        pose[3:] = as_quat(turn @ matrix_of(self._grasp.quat_xyzw))
        return Start(q_rad=q, body_poses=pose[None])

    @property
    def goal(self) -> np.ndarray:
        goal = np.zeros(len(ELEMENTS))
        goal[self._kind.number - 1] = 1.0
        goal[33:36], goal[36] = _edges(self._body), self._body.mass_kg
        return goal

    @property
    def _weight_n(self) -> float:
        return self._body.mass_kg * GRAVITY_M_S2

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        now_s = self._steps / self.control_hz
        if now_s < HAND_OVER_S - 1e-9:
            return (Push(on=OBJECT, force_n=np.array([0.0, 0.0, self._weight_n])),)
        way = self._way(now_s)
        if not way:
            return ()
        rotation, _ = world.links
        return (Push(on=OBJECT, force_n=rotation[self._palm] @ (self._weight_n * np.array(WAYS[way]))),)

    def _way(self, now_s: float) -> str:
        """Which way the object is pulled at a time; empty when it is not."""
        k, within_s = divmod(now_s - HAND_OVER_S - CALM_S, PULL_S + REST_S)
        return self._order[int(k)] if 0 <= k < len(self._order) and within_s < PULL_S - 1e-9 else ""

    def _in_palm(self, world: WorldState) -> np.ndarray:
        rotation, origin = world.links
        pose = world.body_pose[0]
        centre = pose[:3] + rotated(pose[3:], self._body.inertial[0])
        return rotation[self._palm].T @ (centre - origin[self._palm])

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        assert self._rule is not None
        self._steps += 1
        now_s = self._steps / self.control_hz
        at = self._in_palm(world)
        if self._let_go_m is None and now_s >= HAND_OVER_S - 1e-9:
            self._let_go_m = at
        reference = np.array(self._grasp.position_m) if self._let_go_m is None else self._let_go_m
        away_m = float(np.linalg.norm(at - reference))
        dropped = away_m > (2.0 * LOST_M if self._let_go_m is None else LOST_M)
        self._touched.append(self._rule.touched(world.contacts, world.links, 0))
        pattern = self._rule.judge(self._kind, mostly(self._touched), world.links)
        done = int(max(0.0, (now_s - HAND_OVER_S - CALM_S + 1e-9) / (PULL_S + REST_S)))
        survived = 0 if dropped else min(done, len(WAYS))
        fresh, self._pulls = max(0, survived - self._pulls), max(self._pulls, survived)
        return Judgement(
            reward_terms={
                "touch": 0.05 * touching(pattern.share),
                "still": 0.05 * stillness(away_m) if self._let_go_m is not None else 0.0,
                "pull": float(fresh),
                "smooth": -0.01 * jerk(action, previous_action),
                "power": -0.002 * min(max(world.electrical_w, 0.0), 200.0),
                "drop": -5.0 if dropped else 0.0,
            },
            terminated=dropped,
            success=not dropped and self._pulls == len(WAYS) and pattern.ok,
            metrics={
                "pulls": float(self._pulls),
                "away_mm": 1e3 * away_m,
                "pattern": pattern.share,
                "power_w": world.electrical_w,
                "type": float(self._kind.number),
            },
        )

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        return np.concatenate([self._in_palm(world), world.body_twist[0, :3], [self._weight_n, float(self._pulls)]])


def _edges(body) -> np.ndarray:
    """Edges of the box around a body's primitives, along its axes, shape (3,) [m]."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for shape in body.shapes:
        size = shape.size_m
        half = np.array(size) / 2.0 if shape.shape == "box" else np.full(3, size[0])
        if len(size) == 2:
            half[1] = size[1] / 2.0 + (size[0] if shape.shape == "capsule" else 0.0)
        low, high = np.minimum(low, np.array(shape.origin_m) - half), np.maximum(high, np.array(shape.origin_m) + half)
    return high - low
