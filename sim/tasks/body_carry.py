"""BodyCarry: walk by command with a crate of 5 kg on the forearms."""

import numpy as np

from robot.description.model import RobotModel
from robot.description.parts import Geom
from sim.bodies import Body
from sim.tasks.walking import Walking
from sim.world import Ground, Start, World, WorldState, into_frame

CRATE_KG = 5.0
# Forearms forward and level, 0.446 m apart at the shoulders' breadth: the rim lies on them, the crate hangs between.
ARMS_RAD = {
    f"{side}_{joint}": angle
    for side in ("left", "right")
    for joint, angle in {"shoulder_pitch": 0.0, "shoulder_roll": 0.0, "elbow_flexion": np.pi / 2.0}.items()
}
CRATE = Body(
    name="crate",
    shapes=(
        Geom(shape="box", size_m=(0.26, 0.34, 0.18), origin_m=(0.0, 0.0, -0.10)),
        Geom(shape="box", size_m=(0.26, 0.56, 0.02)),
    ),
    mass_kg=CRATE_KG,
    friction=0.6,
    color=(0.75, 0.55, 0.33, 1.0),
)
# In the pelvis' frame, all joints of the trunk at zero: elbows 0.176 m up, forearms 0.04 m thick on either side of their axis.
CRATE_AT_M = np.array([0.26, 0.0, 0.498 - 0.322 + 0.04 + 0.012])
LOST_M = 0.25  # from there


class BodyCarry(Walking):
    """60 s of walking by command, up to 0.8 m/s, with a crate that nothing but the arms holds. Pushes of 0.2 m/s.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `base_gyro` | x, y, z of the IMU, 3 moments | rad/s | -6..6 |
    | `projected_gravity` | where down is, in the pelvis' frame, 3 moments | 1 | -1..1 |
    | `joint_position` | 12 leg, 2 waist, 2 shoulder pitch, then shoulder roll and elbow of either arm: 20 joints | rad | their ranges and 0.2 |
    | `joint_velocity` | the same, 3 moments | rad/s | -15..15 |
    | `previous_action` | the same | 1 | -1..1 |
    | `goal` | forward speed, turning | m/s, rad/s | -0.5..1.5, -1..1 |
    | `gait_phase` | sine, cosine of a clock of 0.8 s | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | joint targets | the same 20 joints, about the home posture with level forearms | rad | 0.5 hip pitch, knee, ankle pitch; 0.4 hip roll; 0.2 arms; 0.25 others |

    It ends as `BodyWalk` does, and when the crate is more than 0.25 m from its place before the chest.
    """

    env_id = "flexor/BodyCarry-v0"
    speeds_m_s = (0.0, 0.8)
    turns_rad_s = (-0.4, 0.4)
    push_m_s = 0.2

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model, ARMS_RAD)

    def world(self) -> World:
        return World(ground=Ground(kind="flat"), bodies=(CRATE,))

    def start(self, rng: np.random.Generator) -> Start:
        self.commanded(rng)
        return self.with_bodies(self.standing(rng, yaw_rad=rng.uniform(-np.pi, np.pi)), CRATE_AT_M)

    def astray(self, world: WorldState) -> float:
        away = into_frame(world.base_quat_xyzw, world.body_pose[0, :3] - world.base_position_m) - CRATE_AT_M
        return float(np.linalg.norm(away)) / LOST_M
