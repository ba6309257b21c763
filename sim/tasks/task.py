"""What a task is: what is there, where an episode starts, what it asks for, what disturbs it, and how a step is judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec
import numpy as np

from robot.contract import Contract, Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.ranges import Pair
from sim.world import Push, Start, World, WorldState


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a task says of one step.

    Attributes:
        reward_terms: By name; the reward is their sum.
        terminated: The task itself is over (a fall, a drop); never a time limit.
        success: The goal holds now.
        metrics: Figures people ask for, with the unit in the name.
    """

    reward_terms: dict[str, float]
    terminated: bool = False
    success: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Credit:
    """Which rewards a part of the body answers for.

    Attributes:
        joints: Action joints of the part.
        rewards: Names of the reward terms these joints can change.
    """

    joints: tuple[str, ...]
    rewards: tuple[str, ...]


class Task(ABC):
    """Rules of one environment for one robot. Holds what belongs to the running episode (goal, timers) and nothing else.

    The environment calls, per episode: `start`, then `proceed`, then for every control step `judge` and `proceed`.

    Attributes:
        env_id: Gymnasium id.
        max_steps: Control steps until an episode is truncated.
        control_hz: Commands per second.
        reward_names: Names of the reward terms, in order.
        metric_names: Names of the metrics, in order.
        privileged_names: Of the numbers that `privileged` gives, in order; empty where it gives none.
        robots: Descriptions it can be played with.
        default_robot: The one used when none is named.
        ranges: What is drawn from other ranges than `sim.ranges.Ranges` says, by name.
        levels: Names of easier forms of the task for a curriculum, from easy to hard; none where there is only one.
        level: The one in force, the hardest unless an environment is made with another.
        kinds: What an episode may be about, where each has a bar of its own: success is reported for each. None where there is only one.
        kind: The one that the next episode shall be about; drawn when empty.
        pushed: Links or bodies that random pushes act on, where `push_n_s` is not zero.
        tracked: Body whose pose a camera reports (`RobotState.object_pose`); none when empty.
    """

    env_id: str
    max_steps: int
    control_hz: float
    reward_names: tuple[str, ...]
    metric_names: tuple[str, ...]
    privileged_names: tuple[str, ...] = ()
    robots: tuple[str, ...]
    default_robot: str
    ranges: Mapping[str, Pair] = MappingProxyType({})
    levels: tuple[str, ...] = ()
    level: str = ""
    kinds: tuple[str, ...] = ()
    kind: str = ""
    pushed: tuple[str, ...] = ()
    tracked: str = ""

    def __init__(self, model: RobotModel) -> None:
        self.model = model

    @abstractmethod
    def contract(self) -> Contract:
        """What a policy for this task sees and moves."""

    def credit(self) -> tuple[Credit, ...]:
        """The parts of the body whose rewards can be told apart; together they hold every action joint once.

        A learner may weigh each part's actions by its own rewards only, which leaves out the noise of the others.
        """
        return (Credit(joints=self.contract().action.joints, rewards=self.reward_names),)

    def world(self) -> World:
        """What is there besides the robot, for all episodes."""
        return World()

    def draw_world(self, rng: np.random.Generator) -> World | None:
        """Another world for the coming episode; None keeps the one there is. Each is loaded once, some 50 ms."""
        return None

    @abstractmethod
    def start(self, rng: np.random.Generator) -> Start:
        """Draw an episode: set the goal and say where everything starts."""

    @property
    @abstractmethod
    def goal(self) -> np.ndarray:
        """The goal in force, in the contract's elements and unit. A policy sees it from the next observation on."""

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        """Move the episode on after a step was judged, and once at its start: exchange the goal where it is time.

        Returns:
            What pushes the robot or bodies throughout the next step.
        """
        return ()

    @abstractmethod
    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        """Judge the true state after an action, by the goal that was in force when it was chosen."""

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        """What a critic may know and a robot cannot: one number per `privileged_names`."""
        return np.zeros(0)


def term(
    name: str,
    elements: tuple[str, ...],
    unit: str,
    frame: str,
    low: tuple[float, ...] | float,
    high: tuple[float, ...] | float,
    history: int = 1,
) -> Term:
    """A term; a single number as `low` or `high` holds for all elements. With a history, those of one step are given."""
    n = len(elements)
    lows, highs = (x if isinstance(x, tuple) else (float(x),) * n for x in (low, high))
    past = tuple(f"{e}@-{k}" for k in range(1, history) for e in elements)
    if frame in ("joint", "motor"):
        past = elements * (history - 1)
    return Term(
        name=name,
        elements=elements + past,
        unit=unit,
        frame=frame,
        low=lows * history,
        high=highs * history,
        history=history,
    )


def clock(period_s: float) -> Term:
    """The controller's clock as an observation, for what is done again and again: whose turn it is cannot be seen otherwise."""
    return msgspec.structs.replace(term("gait_phase", ("sin", "cos"), "1", "clock", -1.0, 1.0), period_s=period_s)
