"""How far a robot's capsules are from one another in a posture: plain geometry, the same for every engine. SI units."""

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import RobotModel
from robot.kinematics import rpy_matrix


class Clearance:
    """Distances between the links that may touch.

    Boxes count as the capsule through their longest edge, with half of the shortest as radius: good enough to reject postures that
    overlap, not a collision engine.
    """

    def __init__(self, model: RobotModel) -> None:
        names = [link.name for link in model.links]
        solid = [link for link in model.links if any(geom.collides for geom in link.geoms)]
        row = {link.name: i for i, link in enumerate(solid)}
        self._pairs = np.array([(row[a], row[b]) for a, b in colliding_pairs(model)], dtype=np.intp).reshape(-1, 2)
        self._link = np.array([names.index(link.name) for link in solid], dtype=np.intp)
        ends, radii = zip(*(_capsule(link.geoms[0]) for link in solid))
        self._ends = np.array(ends)  # (n, 2, 3) in the link frame
        self._radius = np.array(radii)
        self._links = [(names.index(j.parent), names.index(j.child)) for j in model.joints]
        self._at = np.array([j.origin_m for j in model.joints])
        self._fixed = np.array([rpy_matrix(j.rpy_rad) for j in model.joints])
        x, y, z = np.array([j.axis for j in model.joints]).T
        o = np.zeros_like(x)
        cross = np.array([[o, -z, y], [z, o, -x], [-y, x, o]]).transpose(2, 0, 1)
        self._fixed_a = self._fixed @ cross
        self._fixed_aa = self._fixed_a @ cross
        self._base, self._n_links = names.index(model.base_link), len(names)

    def smallest_m(self, q_rad: np.ndarray) -> float:
        """The least gap over all pairs in a posture, negative where two overlap [m]."""
        rotation = np.zeros((self._n_links, 3, 3))
        origin = np.zeros((self._n_links, 3))
        rotation[self._base] = np.eye(3)
        sin, versin = np.sin(q_rad)[:, None, None], 1.0 - np.cos(q_rad)[:, None, None]
        turns = self._fixed + sin * self._fixed_a + versin * self._fixed_aa  # Rodrigues
        for (parent, child), at, turn in zip(self._links, self._at, turns):
            origin[child] = origin[parent] + rotation[parent] @ at
            rotation[child] = rotation[parent] @ turn
        ends = np.einsum("nij,nkj->nki", rotation[self._link], self._ends) + origin[self._link][:, None]
        a, b = self._pairs.T
        gap = _segment_distance(ends[a, 0], ends[a, 1], ends[b, 0], ends[b, 1]) - self._radius[a] - self._radius[b]
        return float(gap.min(initial=np.inf))


def _capsule(geom) -> tuple[np.ndarray, float]:
    """End points and radius of the capsule that stands for a geom."""
    centre = np.array(geom.origin_m)
    if geom.shape == "box":
        half = np.zeros(3)
        longest = int(np.argmax(geom.size_m))
        radius = min(geom.size_m) / 2.0
        half[longest] = max(geom.size_m) / 2.0 - radius
    elif geom.shape == "sphere":
        half, radius = np.zeros(3), geom.size_m[0]
    else:
        half, radius = np.array([0.0, geom.size_m[1] / 2.0, 0.0]), geom.size_m[0]
    half = rpy_matrix(geom.rpy_rad) @ half
    return np.stack([centre - half, centre + half]), radius


def _segment_distance(p0: np.ndarray, p1: np.ndarray, q0: np.ndarray, q1: np.ndarray) -> np.ndarray:
    """Distance between segments p and q, each argument of shape (n, 3) (Ericson, Real-Time Collision Detection, 5.1.9)."""
    d1, d2, r = p1 - p0, q1 - q0, p0 - q0
    a, e = np.maximum((d1 * d1).sum(1), 1e-12), np.maximum((d2 * d2).sum(1), 1e-12)
    b, c, f = (d1 * d2).sum(1), (d1 * r).sum(1), (d2 * r).sum(1)
    denominator = a * e - b * b
    s = np.where(denominator > 1e-12, np.clip((b * f - c * e) / np.maximum(denominator, 1e-12), 0.0, 1.0), 0.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    return np.linalg.norm(p0 + d1 * s[:, None] - q0 - d2 * t[:, None], axis=1)
