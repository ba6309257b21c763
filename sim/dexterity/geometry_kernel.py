"""Compiled geometry of a hand at an object: link poses, balls along the bones, their distance to primitives. SI units.

The object's frame is given in the palm's; everything here is in the palm frame.
"""

from math import cos, hypot, sin, sqrt

import numpy as np
from numba import njit

SPHERE, CAPSULE, CYLINDER, BOX = 0, 1, 2, 3


@njit(cache=True)
def link_poses(q, tree, at, turns, joint, n_links):  # pragma: no cover - compiled
    """Rotations (n, 3, 3) and origins (n, 3) of the links in the frame of link 0.

    Args:
        q: Joint angles (m,) [rad].
        tree: Parent and child link of every joint below link 0, parents first, (k, 2).
        at: Their origins in the parent, (k, 3).
        turns: R0, R0 A, R0 A^2 of each, (k, 3, 3, 3).
        joint: Row of each in q, (k,).
    """
    rotation = np.zeros((n_links, 3, 3))
    origin = np.zeros((n_links, 3))
    for r in range(3):
        rotation[0, r, r] = 1.0
    turn = np.empty((3, 3))
    for j in range(tree.shape[0]):
        parent, child = tree[j, 0], tree[j, 1]
        s, v = sin(q[joint[j]]), 1.0 - cos(q[joint[j]])
        for r in range(3):
            for c in range(3):
                turn[r, c] = turns[j, 0, r, c] + s * turns[j, 1, r, c] + v * turns[j, 2, r, c]
        for r in range(3):
            origin[child, r] = origin[parent, r]
            for c in range(3):
                origin[child, r] += rotation[parent, r, c] * at[j, c]
                rotation[child, r, c] = 0.0
                for k in range(3):
                    rotation[child, r, c] += rotation[parent, r, k] * turn[k, c]
    return rotation, origin


@njit(cache=True)
def turn_of(v):  # pragma: no cover - compiled
    """Rotation matrix of a rotation vector (3,) [rad]."""
    angle = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    m = np.eye(3)
    if angle < 1e-9:
        return m
    x, y, z = v[0] / angle, v[1] / angle, v[2] / angle
    s, c = sin(angle), 1.0 - cos(angle)
    m[0, 0] -= c * (y * y + z * z)
    m[1, 1] -= c * (x * x + z * z)
    m[2, 2] -= c * (x * x + y * y)
    m[0, 1] += -s * z + c * x * y
    m[1, 0] += s * z + c * x * y
    m[0, 2] += s * y + c * x * z
    m[2, 0] += -s * y + c * x * z
    m[1, 2] += -s * x + c * y * z
    m[2, 1] += s * x + c * y * z
    return m


@njit(cache=True)
def product(a, b):  # pragma: no cover - compiled
    """a @ b of 3 x 3 matrices; numba's own would need scipy."""
    out = np.zeros((3, 3))
    for r in range(3):
        for c in range(3):
            for k in range(3):
                out[r, c] += a[r, k] * b[k, c]
    return out


@njit(cache=True)
def moved_point(turn, at, p):  # pragma: no cover - compiled
    """at + turn @ p."""
    out = np.empty(3)
    for r in range(3):
        out[r] = at[r] + turn[r, 0] * p[0] + turn[r, 1] * p[1] + turn[r, 2] * p[2]
    return out


@njit(cache=True)
def primitive_distance(kind, size, p, out):  # pragma: no cover - compiled
    """Signed distance of a point to a primitive about its own frame, axis along y; `out` gets the outward normal."""
    x, y, z = p[0], p[1], p[2]
    if kind in (SPHERE, CAPSULE):
        half = 0.0 if kind == SPHERE else size[1] / 2.0
        dy = y - min(max(y, -half), half)
        d = sqrt(x * x + dy * dy + z * z)
        if d > 1e-9:
            out[0], out[1], out[2] = x / d, dy / d, z / d
        else:
            out[0], out[1], out[2] = 0.0, 0.0, 1.0
        return d - size[0]
    if kind == CYLINDER:
        radial = hypot(x, z)
        a, b = radial - size[0], abs(y) - size[1] / 2.0
        ux, uz = (x / radial, z / radial) if radial > 1e-9 else (0.0, 1.0)
        sy = 1.0 if y >= 0.0 else -1.0
        if a > 0.0 and b > 0.0:
            d = hypot(a, b)
            out[0], out[1], out[2] = ux * a / d, sy * b / d, uz * a / d
            return d
        if a > b:
            out[0], out[1], out[2] = ux, 0.0, uz
            return a
        out[0], out[1], out[2] = 0.0, sy, 0.0
        return b
    ax, ay, az = abs(x) - size[0] / 2.0, abs(y) - size[1] / 2.0, abs(z) - size[2] / 2.0
    sx, sy, sz = (1.0 if x >= 0.0 else -1.0), (1.0 if y >= 0.0 else -1.0), (1.0 if z >= 0.0 else -1.0)
    px, py, pz = max(ax, 0.0), max(ay, 0.0), max(az, 0.0)
    d = sqrt(px * px + py * py + pz * pz)
    if d > 1e-12:
        out[0], out[1], out[2] = sx * px / d, sy * py / d, sz * pz / d
        return d
    out[0], out[1], out[2] = 0.0, 0.0, 0.0
    if ax >= ay and ax >= az:
        out[0] = sx
        return ax
    if ay >= az:
        out[1] = sy
        return ay
    out[2] = sz
    return az


@njit(cache=True)
def solid_distance(kinds, sizes, turns, at, p, out):  # pragma: no cover - compiled
    """Signed distance of a point to a union of primitives; `out` gets the outward normal."""
    best = 1e9
    local, normal = np.empty(3), np.empty(3)
    for i in range(kinds.shape[0]):
        for r in range(3):
            local[r] = 0.0
            for c in range(3):
                local[r] += turns[i, c, r] * (p[c] - at[i, c])
        d = primitive_distance(kinds[i], sizes[i], local, normal)
        if d < best:
            best = d
            for r in range(3):
                out[r] = turns[i, r, 0] * normal[0] + turns[i, r, 1] * normal[1] + turns[i, r, 2] * normal[2]
    return best


@njit(cache=True)
def segment_distance(p, p2, q, q2):  # pragma: no cover - compiled
    """Distance between two segments (Ericson, Real-Time Collision Detection, 5.1.9)."""
    a = b = c = e = f = 0.0
    for r in range(3):
        d1, d2, w = p2[r] - p[r], q2[r] - q[r], p[r] - q[r]
        a += d1 * d1
        e += d2 * d2
        b += d1 * d2
        c += d1 * w
        f += d2 * w
    a, e = max(a, 1e-12), max(e, 1e-12)
    denominator = a * e - b * b
    s = min(max((b * f - c * e) / denominator, 0.0), 1.0) if denominator > 1e-12 else 0.0
    t = min(max((b * s + f) / e, 0.0), 1.0)
    s = min(max((b * t - c) / a, 0.0), 1.0)
    square = 0.0
    for r in range(3):
        gap = p[r] + (p2[r] - p[r]) * s - q[r] - (q2[r] - q[r]) * t
        square += gap * gap
    return sqrt(square)


@njit(cache=True)
def deepest_overlap(
    rotation, origin, b_link, b_at, b_radius, b_level, ends, pairs, x_link, x_turn, x_at, x_size
):  # pragma: no cover - compiled
    """How deep any two bones, or a bone and a box of the palm, overlap; 0 when all are clear [m]."""
    n = b_link.shape[0]
    centre = np.empty((n, 3))
    for i in range(n):
        centre[i] = moved_point(rotation[b_link[i]], origin[b_link[i]], b_at[i])
    deepest = 0.0
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 0], pairs[k, 1]
        d = segment_distance(centre[ends[a, 0]], centre[ends[a, 1]], centre[ends[b, 0]], centre[ends[b, 1]])
        deepest = min(deepest, d - b_radius[ends[a, 0]] - b_radius[ends[b, 0]])
    local, out = np.empty(3), np.empty(3)
    for k in range(x_link.shape[0]):
        turn = product(rotation[x_link[k]], x_turn[k])
        at = moved_point(rotation[x_link[k]], origin[x_link[k]], x_at[k])
        for i in range(n):
            if b_level[i] == 0:
                continue
            for r in range(3):
                local[r] = 0.0
                for c in range(3):
                    local[r] += turn[c, r] * (centre[i, c] - at[c])
            deepest = min(deepest, primitive_distance(BOX, x_size[k], local, out) - b_radius[i])
    return -deepest
