"""How a grasp is tried: times, distances and directions. The benchmark and the HandGrasp task share them. SI units.

Handed over means: for `HAND_OVER_S` a helper carries the object's weight (a force of minus its weight at its centre of mass, nothing
else holds it), while the fingers close; then it is let go.
"""

import numpy as np

from sim.world import rotated

GRAVITY_M_S2 = 9.81
HAND_OVER_S, CLOSE_S = 0.8, 0.4  # carried, of which the fingers close in the first part
HOLD_S = 5.0
PULL_S, REST_S = 0.6, 0.4
WATCH_S, TOUCHED = (
    0.4,
    0.5,
)  # contacts are looked at over so long, and a part must touch for this share of it: many chatter
DRIFT_M = 0.010  # held still: it moves less than this in the palm after it was let go
LOST_M = 0.025  # from where it was let go: it slides, or has gone
WAYS = {  # in the palm frame
    "thumb": (1.0, 0.0, 0.0),
    "little": (-1.0, 0.0, 0.0),
    "fingers": (0.0, 1.0, 0.0),
    "wrist": (0.0, -1.0, 0.0),
    "out": (0.0, 0.0, 1.0),
    "in": (0.0, 0.0, -1.0),
}


def matrix_of(quat_xyzw: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix of a unit quaternion, shape (3, 3)."""
    quat = np.array(quat_xyzw)
    return np.stack([rotated(quat, axis) for axis in np.eye(3)], axis=1)
