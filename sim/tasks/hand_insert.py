"""HandInsert: put the index finger into a hole that is half a millimetre wider than it."""

from math import cos, hypot, pi, sin, tan

import numpy as np

from robot.contract import Term, tip_axes, two_columns
from robot.description.model import RobotModel
from robot.description.parts import Geom
from robot.state import RobotState
from sim.bodies import as_quat
from sim.finger import Finger
from sim.tasks.hand import HandTask, jerk, palm_in_base_m, position_term, rotation_term, term, tips_truth
from sim.tasks.task import Judgement
from sim.world import Body, Start, World, WorldState, quat_matrix

FINGER_RADIUS_M = 0.0075  # of hand22's index fingertip
CLEARANCE_M = 0.0005  # of diameters
SIDES, WALL_M, LENGTH_M = 8, 0.008, 0.014  # an octagonal tube; its flats are what the clearance counts from
INSERTED_M = 0.005  # how deep the tip's centre is in the end: 12.5 mm of the finger are inside
GAP_M = (0.006, 0.016)  # from the tip's centre to the mouth at the start
OFFSET_RAD = 0.05  # of each joint at the start, from the straight way in
LATERAL_M = 0.003
CURRENT_A = 2.0


def tube() -> tuple[Geom, ...]:
    """The walls around the hole: mouth at the origin, z out of it."""
    inner = FINGER_RADIUS_M + CLEARANCE_M / 2.0
    width = 2.0 * (inner + WALL_M) * tan(pi / SIDES)
    walls = []
    for k in range(SIDES):
        angle, at = 2.0 * pi * k / SIDES, inner + WALL_M / 2.0
        walls.append(
            Geom(
                shape="box",
                size_m=(WALL_M, width, LENGTH_M),
                origin_m=(at * cos(angle), at * sin(angle), -LENGTH_M / 2.0),
                rpy_rad=(0.0, 0.0, angle),
            )
        )
    return tuple(walls)


def nearness(lateral_m: float) -> float:
    """1 on the hole's axis, falling with the distance from it."""
    return 1.0 / (1.0 + (lateral_m / LATERAL_M) ** 2)


def insertion(depth_m: float, lateral_m: float) -> float:
    """The share of the way in, from the start's farthest to inserted; what is beside the hole does not count as in it."""
    if lateral_m > FINGER_RADIUS_M:
        depth_m = min(depth_m, 0.0)
    return min(max((depth_m + GAP_M[1]) / (INSERTED_M + GAP_M[1]), 0.0), 1.0)


class HandInsert(HandTask):
    """10 s. The tube stands somewhere before the index finger, whose tip starts 6 to 16 mm away from its mouth and off its axis.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `joint_position` | the index finger's 4 joints | rad | their ranges and 0.3 |
    | `joint_target` | the same, targets in force | rad | their ranges |
    | `tip_position` | 5 tips, x, y, z in the palm frame, by the encoders | m | -0.3..0.3 |
    | `tip_force` | 5 tips, normal force | N | 0..20 |
    | `motor_current` | the finger's 4 motors | A | -2..2 |
    | `object_position` | the hole's mouth in the base frame, by a structured-light camera bolted to the base | m | -0.6..0.6 |
    | `object_rotation` | two columns of its rotation matrix | 1 | -1..1 |
    | `previous_action` | 4 | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | change of joint targets | the index finger's 4 joints; all others stay at home | rad per step | -0.1..0.1 |

    It succeeds when the centre of the tip is 5 mm deep in the hole. Hole and tip differ by 0.5 mm in diameter.
    """

    env_id = "flexor/HandInsert-v0"
    max_steps = 200  # 10 s
    reach_rad = 0.1
    reward_names = ("in", "aligned", "inserted", "smooth", "press")
    metric_names = ("depth_mm", "lateral_mm", "force_n")
    privileged_names = (
        *(f"hole_{axis}_m" for axis in "xyz"),
        *(f"hole_turn_{k}" for k in range(6)),
        "depth_m",
        "lateral_x_m",
        "lateral_y_m",
        *(f"tip_force_{i}_n" for i in range(5)),
    )
    tracked = "tube"
    # A structured-light camera on a fixture: a few tenths of a millimetre, not the centimetre-class tracker of a moving object.
    ranges = {  # noqa: RUF012 - read only
        "tracker_bias_m": (-0.0004, 0.0004),
        "tracker_noise_m": (0.0, 0.0002),
        "tracker_bias_rad": (-0.01, 0.01),
        "tracker_noise_rad": (0.0, 0.003),
        "object_friction": (0.1, 0.6),  # printed plastic, dry or oiled
    }

    def __init__(self, model: RobotModel) -> None:
        self.finger = Finger(model, "index")
        self.still = tuple(name for name in model.joint_names if name not in self.finger.joints)
        super().__init__(model)
        self.palm_m = palm_in_base_m(model)
        self._link = [link.name for link in model.links].index("index_distal")
        (tip,) = (tip for tip in model.tips if tip.name == "index")
        self._tip_in_link_m = np.array(tip.offset_m)

    def task_terms(self) -> tuple[Term, ...]:
        tips = tip_axes(self.model)
        return (
            term("tip_position", tips, "m", "palm", -0.3, 0.3),
            self.touch(),
            term("motor_current", self.finger.joints, "A", "motor", -CURRENT_A, CURRENT_A),
            position_term(),
            rotation_term(),
        )

    def world(self) -> World:
        return World(bodies=(Body(name="tube", shapes=tube(), fixed=True, friction=0.3, position_m=(0.0, 0.4, 0.2)),))

    def start(self, rng: np.random.Generator) -> Start:
        while True:  # a way in that the finger can go straight
            inside = rng.uniform((-0.15, 0.35, 0.5, 0.2), (0.2, 0.8, 1.1, 0.6))
            at, along = self.finger.tip(inside)
            mouth = at - INSERTED_M * along
            outside = self.finger.angles(mouth - rng.uniform(*GAP_M) * along, float(inside[1:].sum()))
            if outside is not None:
                break
        q = self.posture(
            middle_mcp=-0.3,
            middle_pip=0.0,
            ring_mcp=-0.3,
            ring_pip=0.0,
            little_mcp=-0.3,
            little_pip=0.0,
            thumb_rotation=-0.8,
            thumb_abduction=0.0,
        )
        q[self.finger.rows] = outside + rng.uniform(-OFFSET_RAD, OFFSET_RAD, 4)
        q = np.clip(q, self.model.lower_rad, self.model.upper_rad)
        z = -along
        x = np.cross((0.0, 1.0, 0.0), z)
        x /= np.linalg.norm(x)
        turn = np.stack([x, np.cross(z, x), z], axis=1)
        place = self.base_m + self.palm_m + mouth
        return Start(q_rad=q, body_poses=np.concatenate([place, as_quat(turn)])[None])

    def in_hole(self, world: WorldState) -> np.ndarray:
        """The tip's centre in the frame of the mouth, shape (3,) [m]."""
        rotation, origin = world.links
        tip = origin[self._link] + rotation[self._link] @ self._tip_in_link_m
        pose = world.body_pose[0]
        return quat_matrix(pose[3:]).T @ (tip - pose[:3])

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        x, y, z = self.in_hole(world).tolist()
        lateral, depth = hypot(x, y), -z
        inserted = depth >= INSERTED_M and lateral < FINGER_RADIUS_M
        force = float(world.tip_force_n[self.model.tip_names.index("index")])
        return Judgement(
            reward_terms={
                "in": insertion(depth, lateral),
                "aligned": 0.5 * nearness(lateral),
                "inserted": 1.0 if inserted else 0.0,
                "smooth": -0.02 * jerk(action, previous_action),
                "press": -0.02 * min(force, 20.0),
            },
            success=inserted,
            metrics={"depth_mm": 1e3 * depth, "lateral_mm": 1e3 * lateral, "force_n": force},
        )

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        pose = world.body_pose[0]
        x, y, z = self.in_hole(world).tolist()
        return np.concatenate([pose[:3] - self.base_m, two_columns(pose[3:]), [-z, x, y], tips_truth(world)])
