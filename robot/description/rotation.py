"""Rotations as URDF and MJCF write them: fixed-axis roll, pitch, yaw, and quaternions."""

import numpy as np


def rpy_matrix(rpy_rad: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix of fixed-axis roll, pitch, yaw (URDF convention), shape (3, 3)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy_rad), np.sin(rpy_rad)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def matrix_rpy(matrix: np.ndarray) -> tuple[float, float, float]:
    """Fixed-axis roll, pitch, yaw of a rotation matrix; the inverse of `rpy_matrix` away from pitch = +-90 degrees."""
    pitch = float(np.arcsin(np.clip(-matrix[2, 0], -1.0, 1.0)))
    if abs(matrix[2, 0]) < 1.0 - 1e-9:
        return float(np.arctan2(matrix[2, 1], matrix[2, 2])), pitch, float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return float(np.arctan2(-matrix[1, 2], matrix[1, 1])), pitch, 0.0


def quat_xyzw(matrix: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion of a rotation matrix (Shepperd's method)."""
    m = matrix
    candidates = np.array(
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 1] - m[0, 0] - m[2, 2], m[2, 2] - m[0, 0] - m[1, 1], np.trace(m)]
    )
    largest = int(np.argmax(candidates))
    s = 0.5 / np.sqrt(1.0 + candidates[largest])
    off = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    total = (m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2])
    big = 0.25 / s
    if largest == 3:
        x, y, z, w = off[0] * s, off[1] * s, off[2] * s, big
    elif largest == 0:
        x, y, z, w = big, total[0] * s, total[1] * s, off[0] * s
    elif largest == 1:
        x, y, z, w = total[0] * s, big, total[2] * s, off[1] * s
    else:
        x, y, z, w = total[1] * s, total[2] * s, big, off[2] * s
    return float(x), float(y), float(z), float(w)
