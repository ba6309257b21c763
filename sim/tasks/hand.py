"""What the tasks with an object in the hand share: their terms, their action, and what is true of an object."""

from abc import abstractmethod
from collections.abc import Sequence
from math import atan2, sqrt

import numpy as np

from robot.contract import COLUMNS, ActionTerm, Contract, Term
from robot.description.model import RobotModel
from sim.ranges import Ranges
from sim.tasks.task import Task, term
from sim.world import WorldState

FOREARM = ("forearm_pronation", "wrist_flexion", "wrist_deviation")
TRACK_M = 0.6  # the hand's own length and a half from the elbow: farther is out of every hand
FORCE_N = 20.0


class HandTask(Task):
    """A task for a fixed forearm: relative joint targets of all joints but those in `still`.

    Attributes:
        reach_rad: Change of a joint target per control step at full action.
        still: Joints that stay at home.
        goal_elements, goal_unit, goal_frame: Of the contract's goal, where there is one.
    """

    control_hz = 20.0
    robots = ("hand22",)
    default_robot = "hand22"
    reach_rad = 0.2  # 4 rad/s at 20 Hz: a quarter of the fingers' no-load speed
    still: tuple[str, ...] = FOREARM
    goal_elements: tuple[str, ...] = ()
    goal_unit, goal_frame = "", ""

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self.moved = tuple(name for name in model.joint_names if name not in self.still)
        self.rows = np.array([model.index(name) for name in self.moved])
        self.base_m = np.array([0.0, 0.0, model.base_height_m])

    @abstractmethod
    def task_terms(self) -> tuple[Term, ...]:
        """Terms of the observation between the joints' and the previous action."""

    def contract(self) -> Contract:
        model, moved = self.model, self.moved
        low, high = tuple(model.lower_rad[self.rows].tolist()), tuple(model.upper_rad[self.rows].tolist())
        return Contract(
            env_id=self.env_id,
            robot=model.name,
            robot_sha256=model.sha256,
            joint_names=model.joint_names,
            home_rad=tuple(model.home_rad.tolist()),
            control_hz=self.control_hz,
            observation=(
                term(
                    "joint_position", moved, "rad", "joint", tuple(x - 0.3 for x in low), tuple(x + 0.3 for x in high)
                ),
                term("joint_target", moved, "rad", "joint", low, high),
                *self.task_terms(),
                term("previous_action", moved, "1", "joint_order", -1.0, 1.0),
            ),
            action=ActionTerm(
                joints=moved,
                mode="relative",
                scale_rad=(self.reach_rad,) * len(moved),
                offset_rad=(0.0,) * len(moved),
                lower_rad=low,
                upper_rad=high,
            ),
            goal=self.goal_elements,
            goal_unit=self.goal_unit,
            goal_frame=self.goal_frame,
            motor_names=model.motor_names,
            servo_stiffness_n_m=tuple(t.servo_stiffness_n_m for t in model.tendons),
            servo_damping_n_s_m=tuple(t.servo_damping_n_s_m for t in model.tendons),
            delay_range_s=Ranges.of(self.ranges).command_delay_s,
        )

    @property
    def goal(self) -> np.ndarray:
        return np.zeros(0)

    def touch(self) -> Term:
        return term("tip_force", self.model.tip_names, "N", "tip", 0.0, FORCE_N)

    def posture(self, **angles_rad: float) -> np.ndarray:
        """The home posture with some joints elsewhere, shape (n_joints,) [rad]."""
        q = np.array(self.model.home_rad)
        for name, angle in angles_rad.items():
            q[self.model.index(name)] = angle
        return q


def position_term(history: int = 1) -> Term:
    """Where the tracker sees the object."""
    return term("object_position", ("x", "y", "z"), "m", "base", -TRACK_M, TRACK_M, history)


def rotation_term(history: int = 1) -> Term:
    """How it sees it turned."""
    return term("object_rotation", COLUMNS, "1", "base", -1.0, 1.0, history)


OBJECT_TRUTH = (
    *(f"object_{axis}_m" for axis in "xyz"),
    *(f"object_turn_{name}" for name in COLUMNS),
    *(f"object_v{axis}_m_s" for axis in "xyz"),
    *(f"object_w{axis}_rad_s" for axis in "xyz"),
)


def turn_between(before_xyzw: Sequence[float], after_xyzw: Sequence[float]) -> tuple[float, float, float]:
    """The turn from one orientation to another as a rotation vector in the world [rad]. Plain numbers: arrays this small cost more than the sum."""
    (x, y, z, w), (a, b, c, d) = after_xyzw, before_xyzw
    # after times the inverse of before
    x, y, z, w = (
        d * x - w * a - y * c + z * b,
        d * y - w * b - z * a + x * c,
        d * z - w * c - x * b + y * a,
        w * d + x * a + y * b + z * c,
    )
    if w < 0.0:
        x, y, z, w = -x, -y, -z, -w
    sine = sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < 1e-9 else 2.0 * atan2(sine, w) / sine
    return scale * x, scale * y, scale * z


def jerk(action: np.ndarray, previous_action: np.ndarray) -> float:
    """Mean squared change of the action."""
    change = action - previous_action
    return float(change @ change) / change.size


def tips_truth(world: WorldState) -> list[float]:
    """True forces on the tips [N]."""
    return [min(force, FORCE_N) for force in world.tip_force_n.tolist()]


def palm_in_base_m(model: RobotModel) -> np.ndarray:
    """The palm frame's origin in the base frame with the forearm at zero, where their axes are parallel, shape (3,) [m]."""
    by_child, at, origin = {joint.child: joint for joint in model.joints}, "palm", np.zeros(3)
    while at in by_child:
        origin = origin + by_child[at].origin_m
        at = by_child[at].parent
    return origin
