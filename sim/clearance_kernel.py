"""`sim.clearance` compiled: link poses of a posture, then the least gap over all pairs of capsules."""

from math import cos, sin, sqrt

import numpy as np
from numba import njit

SIGNATURE = (
    "float64(float64[::1], int64[:, ::1], float64[:, ::1], float64[:, :, :, ::1], int64[::1], int64, "
    "float64[:, :, ::1], float64[::1], int64[:, ::1])"
)


@njit(inline="always")
def _segment_distance(p, d1, q, d2):  # pragma: no cover - compiled
    """Distance between segments p + s d1 and q + t d2, s and t in 0..1 (Ericson, Real-Time Collision Detection, 5.1.9)."""
    a = b = c = e = f = 0.0
    for r in range(3):
        a += d1[r] * d1[r]
        e += d2[r] * d2[r]
        b += d1[r] * d2[r]
        c += d1[r] * (p[r] - q[r])
        f += d2[r] * (p[r] - q[r])
    a, e = max(a, 1e-12), max(e, 1e-12)
    denominator = a * e - b * b
    s = min(max((b * f - c * e) / denominator, 0.0), 1.0) if denominator > 1e-12 else 0.0
    t = min(max((b * s + f) / e, 0.0), 1.0)
    s = min(max((b * t - c) / a, 0.0), 1.0)
    square = 0.0
    for r in range(3):
        gap = p[r] + d1[r] * s - q[r] - d2[r] * t
        square += gap * gap
    return sqrt(square)


@njit(SIGNATURE, cache=True)
def smallest_gap(q, tree, at, turns, link, base, ends, radius, pairs):  # pragma: no cover - compiled
    """The least gap [m].

    Args:
        q: Joint angles, (m,) [rad].
        tree: Parent and child link of every joint, parents first, (m, 2).
        at: Joint origins in the parent, (m, 3) [m].
        turns: R0, R0 A, R0 A^2 of every joint, (m, 3, 3, 3); A is the cross product with its axis.
        link: Link that each capsule belongs to, (n,).
        base: Index of the base link.
        ends: End points of the capsules in their links, (n, 2, 3) [m].
        radius: Of the capsules, (n,) [m].
        pairs: Capsules that may touch, (k, 2).
    """
    n_links = tree.max() + 1 if tree.size else base + 1
    rotation = np.zeros((n_links, 3, 3))
    origin = np.zeros((n_links, 3))
    for r in range(3):
        rotation[base, r, r] = 1.0
    turn = np.empty((3, 3))
    for j in range(q.shape[0]):
        parent, child = tree[j, 0], tree[j, 1]
        s, v = sin(q[j]), 1.0 - cos(q[j])  # Rodrigues
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
    n = link.shape[0]
    p = np.empty((n, 3))
    d = np.empty((n, 3))
    for i in range(n):
        for r in range(3):
            p[i, r], d[i, r] = origin[link[i], r], 0.0
            for c in range(3):
                p[i, r] += rotation[link[i], r, c] * ends[i, 0, c]
                d[i, r] += rotation[link[i], r, c] * (ends[i, 1, c] - ends[i, 0, c])
    least = np.inf
    for i in range(pairs.shape[0]):
        u, w = pairs[i, 0], pairs[i, 1]
        gap = _segment_distance(p[u], d[u], p[w], d[w]) - radius[u] - radius[w]
        least = min(least, gap)
    return least
