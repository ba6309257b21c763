"""HandOppose: the thumb's tip visits Kapandji's positions on its own hand, one after another."""

from collections.abc import Sequence

import numpy as np

from robot.contract import Term, tip_axes
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.dexterity.positions import load_positions
from sim.tasks.hand import FOREARM, HandTask, jerk, term
from sim.tasks.task import Judgement
from sim.world import Push, Start, WorldState

ELEMENTS = tuple(f"position_{k}" for k in range(1, 11))
STAY_STEPS = 5  # 0.2 s at a target before the next
PATIENCE_S = 3.0  # for one target; then the next comes anyway
WIDE_M = 0.03  # scale of the reward that pulls from afar
NEAR = 0.05  # most that a step pays for being near
POSTURE_RAD = 0.03  # spread of the start


def closeness(gap_m: float) -> float:
    """1 at the target, falling with the distance."""
    return float(np.exp(-abs(gap_m) / WIDE_M))


class HandOppose(HandTask):
    """30 s. The positions that this hand's shipped postures reach, in Kapandji's order.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | the hand's joints | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_position` | 5 tips by the encoders, palm frame | m | -0.3..0.3 |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `goal` | which of the ten positions is wanted | 1 | 0..1 |
    | `previous_action` | one per joint | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | the hand's joints; forearm and wrist stay at home | rad per step | -0.2..0.2 |

    | reward | per step |
    |---|---|
    | `near` | up to 0.05, for a thumb that is near the target |
    | `visit` | 1 for each position reached and kept for 0.2 s |
    | `done` | when the last position is over: 0.05 for each step that is left, so that lingering never pays |
    | `clear` | -0.05 while parts of the hand overlap |
    | `smooth`, `power` | small losses |

    A position is reached as the benchmark has it: tip within 2 mm, with its pad, facing the target, nothing overlapping. It succeeds when all
    have been visited; a position that takes longer than 3 s is passed over.
    """

    env_id = "flexor/HandOppose-v0"
    control_hz = 25.0
    max_steps = 750
    reward_names = ("near", "visit", "done", "clear", "smooth", "power")
    metric_names = ("visited", "gap_mm", "position")
    still = FOREARM
    goal_elements = ELEMENTS
    goal_unit, goal_frame = "1", "task"

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._todo = load_positions(model.name).reached
        self._opposition = None  # made at the first start: it loads numba
        self._restart()

    def _restart(self) -> None:
        self._at = self._kept = self._waited = self._visited = self._steps = 0

    def task_terms(self) -> tuple[Term, ...]:
        tips = tip_axes(self.model)
        return (
            term("tip_position", tips, "m", "palm", -0.3, 0.3),
            self.touch(),
            term("goal", ELEMENTS, "1", "task", 0.0, 1.0),
        )

    @property
    def position(self) -> int:
        """The position that is wanted, 1 to 10."""
        return self._todo[min(self._at, len(self._todo) - 1)]

    @property
    def goal(self) -> np.ndarray:
        return np.eye(10)[self.position - 1]

    def start(self, rng: np.random.Generator) -> Start:
        from sim.dexterity.kapandji import Opposition

        self._opposition = self._opposition or Opposition(self.model)
        self._restart()
        q = np.array(self.model.home_rad)
        q[self.rows] += POSTURE_RAD * rng.normal(size=len(self.rows))
        return Start(q_rad=np.clip(q, self.model.lower_rad, self.model.upper_rad))

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        if self._kept >= STAY_STEPS or self._waited >= PATIENCE_S * self.control_hz:
            self._at += 1
            self._kept = self._waited = 0
        return ()

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        assert self._opposition is not None
        reach = self._opposition.reach(state.q_rad[self._opposition.hand.joints], self.position)
        over = self._at >= len(self._todo)
        self._steps += 1
        self._waited += 1
        self._kept = self._kept + 1 if reach.ok else 0
        fresh = self._kept == STAY_STEPS and not over
        self._visited += fresh
        return Judgement(
            reward_terms={
                "near": NEAR * closeness(reach.gap_m),
                "visit": float(fresh),
                "done": NEAR * (self.max_steps - self._steps) if over else 0.0,
                "clear": -0.05 if reach.overlap_m > 0.001 else 0.0,
                "smooth": -0.01 * jerk(action, previous_action),
                "power": -0.002 * min(max(world.electrical_w, 0.0), 200.0),
            },
            terminated=over,
            success=self._visited == len(self._todo),
            metrics={
                "visited": float(self._visited),
                "gap_mm": 1e3 * reach.gap_m,
                "position": float(self.position),
            },
        )
