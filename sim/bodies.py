"""Rigid bodies a robot meets: shapes, mass, friction. SI units; frozen, and refusing what cannot exist."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, pi

import numpy as np

from robot.description.parts import ZERO, Geom, Vec3, require
from robot.description.rotation import quat_xyzw, rpy_matrix

Quat = tuple[float, float, float, float]
UPRIGHT: Quat = (0.0, 0.0, 0.0, 1.0)
GREY = (0.72, 0.74, 0.78, 1.0)
DENSITY_KG_M3 = 1000.0  # of a fixed body, whose mass nothing asks for


@dataclass(frozen=True, kw_only=True)
class Hull:
    """A convex polyhedron fixed to a body.

    Attributes:
        vertices_m: Corners in the body's frame [m].
        faces: Triangles as indices of corners, counter-clockwise seen from outside; a closed surface.
    """

    vertices_m: tuple[Vec3, ...]
    faces: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        require(len(self.vertices_m) >= 4, "hull", "needs at least 4 vertices", len(self.vertices_m))
        require(bool(np.isfinite(self.vertices_m).all()), "hull", "vertices_m must be finite", self.vertices_m)
        require(len(self.faces) >= 4, "hull", "needs at least 4 faces", len(self.faces))
        flat = np.array(self.faces).reshape(-1)
        require(flat.min() >= 0 and flat.max() < len(self.vertices_m), "hull", "faces must index vertices", flat.max())
        require(self.volume_m3 > 0.0, "hull", "volume must be > 0: are the faces turned outwards?", self.volume_m3)

    @staticmethod
    def of(vertices_m: np.ndarray, faces: np.ndarray) -> "Hull":
        """From arrays, shapes (n, 3) and (k, 3)."""
        return Hull(
            vertices_m=tuple((float(x), float(y), float(z)) for x, y, z in vertices_m),
            faces=tuple((int(a), int(b), int(c)) for a, b, c in faces),
        )

    @cached_property
    def _tetrahedra(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the tetrahedra between each face and the frame's origin, (k, 3, 3), and their signed volumes, (k,)."""
        corners = np.array(self.vertices_m)[np.array(self.faces)]
        return corners, np.linalg.det(corners) / 6.0

    @property
    def volume_m3(self) -> float:
        return float(self._tetrahedra[1].sum())

    @property
    def centre_m(self) -> np.ndarray:
        """Centre of the volume, shape (3,) [m]."""
        corners, volume = self._tetrahedra
        return (volume[:, None] * corners.sum(axis=1) / 4.0).sum(axis=0) / self.volume_m3

    def unit_moments(self) -> np.ndarray:
        """Inertia matrix of one kilogram about the centre, in the body's axes, shape (3, 3) [m^2]."""
        corners, volume = self._tetrahedra
        corners = corners - self.centre_m
        volume = np.linalg.det(corners) / 6.0
        total = corners.sum(axis=1)
        # Second moments of a tetrahedron with one corner at the origin: V/20 (sum_i p_i p_i^T + s s^T), s = sum_i p_i.
        second = np.einsum("k,kni,knj->ij", volume, corners, corners) + np.einsum("k,ki,kj->ij", volume, total, total)
        second /= 20.0 * volume.sum()
        return np.trace(second) * np.eye(3) - second


Shape = Geom | Hull


@dataclass(frozen=True, kw_only=True)
class Body:
    """A rigid body that is not part of the robot. Its frame is the one its shapes are given in.

    Attributes:
        name: One name per world.
        shapes: Convex pieces; all of them collide unless a `Geom` says otherwise.
        mass_kg: Spread evenly over the shapes' volume, > 0. Of a fixed body it means nothing.
        friction: Coulomb coefficient against a surface of the same kind; two surfaces meet with the geometric mean of theirs.
        fixed: Bolted to the world: a table, a board with a hole.
        color: Red, green, blue, opacity, 0..1.
        position_m, quat_xyzw: Pose of the frame in the world, where an episode does not say otherwise.
        com_m: Centre of mass in the frame; computed from the shapes when None.
        inertia_kg_m2: Moments about the centre of mass along the frame's axes; computed when None.
    """

    name: str
    shapes: tuple[Shape, ...]
    mass_kg: float = 1.0
    friction: float = 0.5
    fixed: bool = False
    color: tuple[float, float, float, float] = GREY
    position_m: Vec3 = ZERO
    quat_xyzw: Quat = UPRIGHT
    com_m: Vec3 | None = None
    inertia_kg_m2: Vec3 | None = None

    def __post_init__(self) -> None:
        where = f"body {self.name}"
        require(len(self.shapes) > 0, where, "needs at least one shape", self.shapes)
        require(self.mass_kg > 0.0 and isfinite(self.mass_kg), where, "mass_kg must be > 0", self.mass_kg)
        require(self.friction >= 0.0 and isfinite(self.friction), where, "friction must be >= 0", self.friction)
        require(
            abs(float(np.linalg.norm(self.quat_xyzw)) - 1.0) < 1e-6,
            where,
            "quat_xyzw must have length 1",
            self.quat_xyzw,
        )
        if self.inertia_kg_m2 is not None:
            x, y, z = sorted(self.inertia_kg_m2)
            require(x > 0.0, where, "inertia_kg_m2 must be > 0", self.inertia_kg_m2)
            require(
                x + y >= z * (1.0 - 1e-9), where, "inertia_kg_m2 breaks the triangle inequality", self.inertia_kg_m2
            )

    def scaled(self, factor: float) -> "Body":
        """The same body, larger or smaller, at the same mass."""
        return replace(
            self,
            shapes=tuple(_scaled(shape, factor) for shape in self.shapes),
            com_m=None if self.com_m is None else _times(self.com_m, factor),
            inertia_kg_m2=None if self.inertia_kg_m2 is None else _times(self.inertia_kg_m2, factor**2),
        )

    @cached_property
    def inertial(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centre of mass (3,) [m], rotation from principal axes to the frame (3, 3), principal moments (3,) [kg m^2]."""
        parts = [(volume_m3(shape), *_centre_and_moments(shape)) for shape in self.shapes]
        volume = sum(part[0] for part in parts)
        com = np.sum([v * centre for v, centre, _ in parts], axis=0) / volume
        if self.com_m is not None:
            com = np.array(self.com_m)
        if self.inertia_kg_m2 is not None:
            return com, np.eye(3), np.array(self.inertia_kg_m2)
        inertia = np.zeros((3, 3))
        for v, centre, unit in parts:
            arm = centre - com
            inertia += self.mass_kg * v / volume * (unit + arm @ arm * np.eye(3) - np.outer(arm, arm))
        if np.abs(inertia - np.diag(np.diag(inertia))).max() < 1e-9 * inertia.max():
            return com, np.eye(3), np.diag(inertia).copy()
        moments, axes = np.linalg.eigh(inertia)
        return com, axes * np.sign(np.linalg.det(axes)), moments


def volume_m3(shape: Shape) -> float:
    """Volume of a shape [m^3]."""
    if isinstance(shape, Hull):
        return shape.volume_m3
    size = shape.size_m
    if shape.shape == "box":
        return size[0] * size[1] * size[2]
    ball = 4.0 / 3.0 * pi * size[0] ** 3
    if shape.shape == "sphere":
        return ball
    return pi * size[0] ** 2 * size[1] + (ball if shape.shape == "capsule" else 0.0)


def _centre_and_moments(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Centre (3,) [m] and inertia matrix of one kilogram about it in the body's axes (3, 3) [m^2]."""
    if isinstance(shape, Hull):
        return shape.centre_m, shape.unit_moments()
    turn = rpy_matrix(shape.rpy_rad)
    return np.array(shape.origin_m), turn @ np.diag(shape.unit_inertia()) @ turn.T


def _times(vector: Sequence[float], factor: float) -> Vec3:
    x, y, z = (factor * v for v in vector)
    return x, y, z


def _scaled(shape: Shape, factor: float) -> Shape:
    if isinstance(shape, Hull):
        return replace(shape, vertices_m=tuple(_times(v, factor) for v in shape.vertices_m))
    return replace(shape, size_m=tuple(factor * s for s in shape.size_m), origin_m=_times(shape.origin_m, factor))


def as_quat(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion x, y, z, w of a rotation matrix, shape (4,)."""
    return np.array(quat_xyzw(matrix))
