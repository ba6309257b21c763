"""A cube on the palm of an upturned hand: what turning it about an axis and to goals have in common."""

from collections.abc import Sequence
from math import hypot

import numpy as np

from robot.contract import Term, two_columns
from robot.description.model import RobotModel
from robot.description.parts import Geom
from robot.state import RobotState
from sim.tasks.hand import OBJECT_TRUTH, HandTask, position_term, rotation_term, tips_truth
from sim.world import Body, Start, World, WorldState

EDGE_M = 0.0575  # in the middle of 50 to 65 mm
MASS_KG = 0.090  # of 60 to 120 g
FRICTION = 0.7
SEAT_M = (0.006, 0.292, 0.046)  # centre of the palm in the base frame, and the centre of the largest cube above it
DROP_M = 0.045  # from the seat, sideways: beyond it the cube lies at the edge, where no finger turns it any more
FALL_M = 0.035  # below the seat: beside the palm
START = {
    **{f"{finger}_mcp": 0.75 for finger in ("index", "middle", "ring", "little")},
    **{f"{finger}_pip": 0.75 for finger in ("index", "middle", "ring", "little")},
    **{f"{finger}_dip": 0.40 for finger in ("index", "middle", "ring", "little")},
    "thumb_rotation": 0.3,
    "thumb_abduction": 0.7,
    "thumb_mp": 0.3,
    "thumb_ip": 0.3,
}
START_NOISE_RAD = 0.1


class CubeTask(HandTask):
    """The palm looks up; the cube's pose comes from a camera's tracker, as Dactyl (2018) and DeXtreme (2022) had it."""

    privileged_names = (*OBJECT_TRUTH, *(f"tip_force_{i}_n" for i in range(5)))
    tracked = "cube"
    ranges = {"object_mass_factor": (0.667, 1.333), "object_scale": (0.87, 1.13)}  # noqa: RUF012 - read only
    pushed = ("cube",)

    def task_terms(self) -> tuple[Term, ...]:
        return (self.touch(), position_term(history=3), rotation_term(history=3))

    def world(self) -> World:
        box = Geom(shape="box", size_m=(EDGE_M,) * 3)
        return World(
            bodies=(
                Body(name="cube", shapes=(box,), mass_kg=MASS_KG, friction=FRICTION, color=(0.90, 0.45, 0.15, 1.0)),
            )
        )

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model)
        self._around = self.posture(**START)
        self._around_moved = self._around[self.rows]
        self._seat_m: tuple[float, float, float] = tuple((self.base_m + SEAT_M).tolist())

    @property
    def posture_rad(self) -> np.ndarray:
        """The posture around the cube that episodes start near, of the joints that move, shape (n,)."""
        return self._around_moved

    def seated(self, rng: np.random.Generator, quat_xyzw: np.ndarray) -> Start:
        """The cube above the palm, fingers around it."""
        q = self._around.copy()
        q[self.rows] += rng.uniform(-START_NOISE_RAD, START_NOISE_RAD, len(self.rows))
        q = np.clip(q, self.model.lower_rad, self.model.upper_rad)
        place = self.base_m + SEAT_M + rng.uniform(-0.004, 0.004, 3)
        return Start(q_rad=q, body_poses=np.concatenate([place, quat_xyzw])[None])

    def away_m(self, pose: Sequence[float]) -> float:
        """Distance of the cube from its seat, sideways."""
        return hypot(pose[0] - self._seat_m[0], pose[1] - self._seat_m[1])

    def strain(self, state: RobotState) -> float:
        """Mean squared distance of the fingers' targets from the posture around the cube [rad^2]. Relative actions add up: without a
        price for it half of all targets end at a stop, where fingers turn nothing.
        """
        away = state.target_rad[self.rows] - self._around_moved
        return float(away @ away) / away.size

    def dropped(self, pose: Sequence[float]) -> bool:
        return self.away_m(pose) > DROP_M or pose[2] < self._seat_m[2] - FALL_M

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        pose, twist = world.body_pose[0], world.body_twist[0]
        return np.concatenate([pose[:3] - self.base_m, two_columns(pose[3:].tolist()), twist, tips_truth(world)])


def yawed(angle_rad: float) -> np.ndarray:
    """The orientation after a turn about the vertical, shape (4,)."""
    return np.array([0.0, 0.0, np.sin(angle_rad / 2.0), np.cos(angle_rad / 2.0)])
