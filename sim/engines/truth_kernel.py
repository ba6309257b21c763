"""What every engine's robot works out after each control step, compiled: turns of vectors, the tracked pose, what may be believed."""

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def turn(x, y, z, w, a, b, c):  # pragma: no cover - compiled
    """The vector a, b, c of a turned frame in the world."""
    p, q, r = y * c - z * b, z * a - x * c, x * b - y * a
    return a + 2.0 * (w * p + y * r - z * q), b + 2.0 * (w * q + z * p - x * r), c + 2.0 * (w * r + x * q - y * p)


@njit("void(float64[::1], float64[::1], float64[::1], float64[::1])", cache=True)
def pose_in_base(pose, origin, quat, out):  # pragma: no cover - compiled
    """A pose of the world, x y z and a quaternion xyzw, in the frame of a base."""
    x, y, z, w = -quat[0], -quat[1], -quat[2], quat[3]
    out[0], out[1], out[2] = turn(x, y, z, w, pose[0] - origin[0], pose[1] - origin[1], pose[2] - origin[2])
    a, b, c, d = pose[3], pose[4], pose[5], pose[6]
    out[3] = w * a + d * x + y * c - z * b
    out[4] = w * b + d * y + z * a - x * c
    out[5] = w * c + d * z + x * b - y * a
    out[6] = w * d - x * a - y * b - z * c


@njit(
    "void(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[:,::1], int64, b1, float64[::1])",
    cache=True,
)
def gather(joints, motors, tips, gyro, origin, quat, bodies, tracked, floating, out):  # pragma: no cover - compiled
    """All readings of a robot in a row, see `sim.readings`: joints, motors, tips, gyro, a floating base's quaternion, the tracked body's pose."""
    at = 0
    for part in (joints, motors, tips, gyro):
        out[at : at + part.shape[0]] = part
        at += part.shape[0]
    if floating:
        out[at : at + 4] = quat
        at += 4
    if tracked >= 0:
        pose_in_base(bodies[tracked], origin, quat, out[at:])


@njit("b1(float64[::1], float64, float64[::1], float64[::1], float64[:,::1], float64, float64)", cache=True)
def believable(qd, most_rad_s, velocity, gyro, twist, most_m_s, most_spin):  # pragma: no cover - compiled
    """Whether no joint, base or body is faster than anything gets, or not finite."""
    for speed in qd:
        if not abs(speed) < most_rad_s:  # also NaN
            return False
    for i in range(3):
        if not (abs(velocity[i]) < most_m_s and abs(gyro[i]) < most_spin):
            return False
    for row in range(twist.shape[0]):
        for i in range(3):
            if not (abs(twist[row, i]) < most_m_s and abs(twist[row, 3 + i]) < most_spin):
                return False
    return True


@njit("b1(float64[::1], float64[::1], float64[::1])", cache=True)
def in_range(target, lower, upper):  # pragma: no cover - compiled
    """Bring targets within limits, in place; False where one is not finite."""
    fine = True
    for i in range(target.shape[0]):
        fine = fine and np.isfinite(target[i])
        target[i] = min(max(target[i], lower[i]), upper[i])
    return fine


__all__ = ["believable", "gather", "in_range", "turn"]
