"""BodyWalk: follow commands of forward speed and turning, on flat and uneven ground, pushed every five seconds."""

import numpy as np

from sim.tasks.walking import LEVELS, Walking
from sim.world import Ground, Start, World

UNEVEN_M = 0.02


class BodyWalk(Walking):
    """60 s of walking by command: -0.3 to 1.2 m/s, up to 0.6 rad/s to either side; half the episodes start on uneven ground.

    | observation | elements | unit | range |
    |---|---|---|---|
    | `base_gyro` | x, y, z of the IMU, 3 moments | rad/s | -6..6 |
    | `projected_gravity` | where down is, in the pelvis' frame, 3 moments | 1 | -1..1 |
    | `joint_position` | 12 leg, 2 waist, 2 shoulder joints | rad | their ranges and 0.2 |
    | `joint_velocity` | the same, 3 moments | rad/s | -15..15 |
    | `previous_action` | the same | 1 | -1..1 |
    | `goal` | forward speed, turning | m/s, rad/s | -0.5..1.5, -1..1 |
    | `gait_phase` | sine, cosine of a clock of 0.8 s | 1 | -1..1 |

    | action | elements | unit | range |
    |---|---|---|---|
    | joint targets | the same 16 joints, about the home posture | rad | 0.5 hip pitch, knee, ankle pitch; 0.4 hip roll; 0.25 others |

    It ends when the pelvis tilts by more than 37 degrees or is lower than 0.6 m. It succeeds when it was not so, and the speed, averaged
    over a gait cycle, was less than 0.15 m/s from the command on average.
    """

    env_id = "flexor/BodyWalk-v0"
    speeds_m_s = (-0.3, 1.2)
    turns_rad_s = (-0.6, 0.6)
    push_m_s = 0.4

    def world(self) -> World:
        return World(ground=Ground(kind="uneven", amplitude_m=UNEVEN_M))

    def start(self, rng: np.random.Generator) -> Start:
        self.commanded(rng)
        x = rng.uniform(2.0, 12.0) * rng.choice([-1.0, 1.0])  # flat, or uneven
        if LEVELS[self.level].flat:
            x = -12.0 - abs(x)  # so far from the uneven half that a walk does not get there soon
        return self.standing(rng, x_m=float(x), y_m=float(rng.uniform(-10.0, 10.0)), yaw_rad=rng.uniform(-np.pi, np.pi))
