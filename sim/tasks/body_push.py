"""BodyPush: walk by command, pushing a cart of 20 kg, while a leash pulls with up to 40 N from anywhere."""

import numpy as np

from robot.description.model import RobotModel
from robot.description.parts import Geom
from sim.bodies import Body
from sim.tasks.walking import Walking
from sim.world import Ground, Push, Start, World, WorldState, into_frame

CART_KG, LEASH_N = 20.0, 40.0
# Forearms forward and level; the palms' ends are 0.44 m before the shoulders.
ARMS_RAD = {
    f"{side}_{joint}": angle
    for side in ("left", "right")
    for joint, angle in {"shoulder_pitch": 0.0, "shoulder_roll": 0.0, "elbow_flexion": np.pi / 2.0}.items()
}
BOARD_X_M, BOARD_Z_M = 0.47, 1.06  # the board it pushes at, before the pelvis and over the ground
CART = Body(
    name="cart",
    shapes=(
        Geom(shape="box", size_m=(0.60, 0.60, 0.20), origin_m=(0.70, 0.0, 0.10)),
        Geom(shape="box", size_m=(0.02, 0.60, 0.30), origin_m=(0.0, 0.0, BOARD_Z_M)),
        # A cart on castors rolls any way: between these two the hands take it along sideways and in turns.
        *(
            Geom(shape="box", size_m=(0.12, 0.02, 0.30), origin_m=(-0.07, side * 0.29, BOARD_Z_M))
            for side in (-1.0, 1.0)
        ),
    ),
    mass_kg=CART_KG,
    friction=0.003,  # with the ground's 0.9 a coefficient of 0.05: castors on a hard floor
    color=(0.35, 0.50, 0.62, 1.0),
)
LOST_M = 0.5  # between the board's place and the board


class BodyPush(Walking):
    """60 s of walking by command, up to 0.8 m/s straight or in wide turns, a cart before the hands and a leash on the pelvis.

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

    The leash pulls level with 0 to 40 N; strength and direction are drawn anew every 5 s.

    It ends as `BodyWalk` does, and when the cart's board is more than 0.5 m from its place before the hands.
    """

    env_id = "flexor/BodyPush-v0"
    speeds_m_s = (0.0, 0.8)
    turns_rad_s = (-0.1, 0.1)
    push_m_s = 0.0
    ranges = {"object_friction": (0.002, 0.005)}  # noqa: RUF012 - read only; the cart stands on castors

    def __init__(self, model: RobotModel) -> None:
        super().__init__(model, ARMS_RAD)
        self._leash_n = np.zeros(3)

    def world(self) -> World:
        return World(ground=Ground(kind="flat"), bodies=(CART,))

    def start(self, rng: np.random.Generator) -> Start:
        self.commanded(rng)
        self.disturb(rng)
        ahead = np.array([BOARD_X_M + 0.01, 0.0, -self.model.base_height_m - 0.02])
        return self.with_bodies(self.standing(rng, yaw_rad=rng.uniform(-np.pi, np.pi)), ahead)

    def disturb(self, rng: np.random.Generator) -> None:
        angle, pull_n = rng.uniform(-np.pi, np.pi), rng.uniform(0.0, LEASH_N)
        self._leash_n = pull_n * np.array([np.cos(angle), np.sin(angle), 0.0])

    def pulls(self, force: float) -> tuple[Push, ...]:
        return (Push(on="pelvis", force_n=force * self._leash_n),)

    def astray(self, world: WorldState) -> float:
        ahead = into_frame(world.base_quat_xyzw, world.body_pose[0, :3] - world.base_position_m)
        return float(np.hypot(ahead[0] - BOARD_X_M, ahead[1])) / LOST_M
