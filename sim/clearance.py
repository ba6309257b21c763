"""How far a robot's capsules are from one another in a posture: plain geometry, the same for every engine. SI units."""

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import Geom, RobotModel
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
        ends, radii = zip(*(_capsule(link.geoms[0]) for link in solid))
        fixed = np.array([rpy_matrix(j.rpy_rad) for j in model.joints])
        x, y, z = np.array([j.axis for j in model.joints]).T
        o = np.zeros_like(x)
        cross = np.array([[o, -z, y], [z, o, -x], [-y, x, o]]).transpose(2, 0, 1)
        turns = np.stack([fixed, fixed @ cross, fixed @ cross @ cross], axis=1)
        self._geometry = (
            _integers([(names.index(j.parent), names.index(j.child)) for j in model.joints], 2),
            np.array([j.origin_m for j in model.joints]),
            np.ascontiguousarray(turns),
            np.array([names.index(link.name) for link in solid], dtype=np.int64),
            names.index(model.base_link),
            np.array(ends),  # (n, 2, 3) in the link frame
            np.array(radii, dtype=np.float64),
            _integers([(row[a], row[b]) for a, b in colliding_pairs(model)], 2),
        )

    def smallest_m(self, q_rad: np.ndarray) -> float:
        """The least gap over all pairs in a posture, negative where two overlap, infinite where no two can touch [m]."""
        from sim.clearance_kernel import smallest_gap  # numba takes a third of a second, and tasks are listed without

        return smallest_gap(np.ascontiguousarray(q_rad, dtype=np.float64), *self._geometry)


def _integers(rows: list[tuple[int, int]], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _capsule(geom: Geom) -> tuple[np.ndarray, float]:
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
