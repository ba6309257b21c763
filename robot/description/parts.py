"""What a robot's body is made of: shapes, links, joints, fingertips. SI units, radians; frozen, and refusing what cannot exist."""

from dataclasses import dataclass
from math import isfinite, pi
from typing import Any, Literal

import numpy as np

from robot.errors import FlexorError, UnknownNameError

Vec3 = tuple[float, float, float]
ZERO: Vec3 = (0.0, 0.0, 0.0)


class DescriptionError(FlexorError, ValueError):
    """A description that cannot exist; the message names the field and the value."""


def require(ok: bool, where: str, what: str, value: object) -> None:
    """Refuse what cannot exist."""
    if not ok:
        raise DescriptionError(f"{where}: {what}, got {value!r}")


def finite(where: str, record: object) -> None:
    """Refuse a record that holds a number which is none: NaN or infinity, also within its tuples."""
    for name, value in vars(record).items():
        numbers = value if isinstance(value, tuple) else (value,)
        ok = all(isfinite(x) for x in numbers if isinstance(x, float | int))
        require(ok, where, f"{name} must be finite", value)


def unique(kind: str, items: tuple[Any, ...]) -> None:
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"{kind}s", "two of one name", twice)


@dataclass(frozen=True, kw_only=True)
class Geom:
    """A convex primitive fixed to a link. Capsules and cylinders lie along the geom's y axis, the distal direction.

    Attributes:
        shape: Which primitive.
        size_m: sphere (radius,), capsule and cylinder (radius, length between the cap centres), box (x, y, z full edges) [m].
        origin_m: Centre of the primitive in the link frame [m].
        rpy_rad: Orientation in the link frame, fixed-axis roll, pitch, yaw [rad].
        collides: False for a shape that is only seen.
    """

    shape: Literal["sphere", "capsule", "cylinder", "box"]
    size_m: tuple[float, ...]
    origin_m: Vec3 = ZERO
    rpy_rad: Vec3 = ZERO
    collides: bool = True

    def __post_init__(self) -> None:
        count = {"sphere": 1, "capsule": 2, "cylinder": 2, "box": 3}.get(self.shape)
        if count is None:
            raise UnknownNameError("geom shape", self.shape, ("sphere", "capsule", "cylinder", "box"))
        finite(f"geom {self.shape}", self)
        require(len(self.size_m) == count, f"geom {self.shape}", f"size_m needs {count} numbers", self.size_m)
        require(all(s > 0.0 for s in self.size_m), f"geom {self.shape}", "size_m must be > 0", self.size_m)

    def unit_inertia(self) -> np.ndarray:
        """Principal moments for one kilogram about the geom's own axes, shape (3,) [m^2]. Uniform density."""
        if self.shape == "sphere":
            return np.full(3, 0.4 * self.size_m[0] ** 2)
        if self.shape == "box":
            x, y, z = np.square(self.size_m)
            return np.array([y + z, x + z, x + y]) / 12.0
        r, length = self.size_m
        if self.shape == "cylinder":
            side = r * r / 4.0 + length**2 / 12.0
            return np.array([side, r * r / 2.0, side])
        # Capsule = cylinder + two half spheres, masses in proportion to volume; half sphere CoM at 3r/8 from its face.
        v_cyl, v_caps = pi * r * r * length, 4.0 / 3.0 * pi * r**3
        m_cyl, m_caps = v_cyl / (v_cyl + v_caps), v_caps / (v_cyl + v_caps)
        side = m_cyl * (r * r / 4.0 + length**2 / 12.0) + m_caps * (
            0.4 * r * r + length**2 / 4.0 + 3.0 * r * length / 8.0
        )
        return np.array([side, m_cyl * r * r / 2.0 + m_caps * 0.4 * r * r, side])


@dataclass(frozen=True, kw_only=True)
class Link:
    """A rigid body. Its inertia is computed from its mass and its first geom, at uniform density.

    Attributes:
        mass_kg: Mass, > 0 [kg].
        geoms: Shapes, the first of which carries the mass.
        source: Where the numbers come from.
    """

    name: str
    mass_kg: float
    geoms: tuple[Geom, ...]
    source: str

    def __post_init__(self) -> None:
        require(self.mass_kg > 0.0 and isfinite(self.mass_kg), f"link {self.name}", "mass_kg must be > 0", self.mass_kg)
        require(len(self.geoms) > 0, f"link {self.name}", "needs at least one geom", self.geoms)

    @property
    def com_m(self) -> Vec3:
        """Centre of mass in the link frame [m]."""
        return self.geoms[0].origin_m

    @property
    def principal_inertia_kg_m2(self) -> np.ndarray:
        """Moments about the centre of mass along the first geom's axes, shape (3,) [kg m^2]."""
        return self.mass_kg * self.geoms[0].unit_inertia()


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A revolute joint.

    Attributes:
        parent, child: Link names.
        origin_m, rpy_rad: Pose of the child's frame in the parent's frame at angle zero [m], [rad].
        axis: Unit axis in the child's frame.
        lower_rad, upper_rad: Mechanical range [rad].
        home_rad: Angle in the home posture [rad].
        max_torque_nm, max_speed_rad_s: What the actuator can do at the joint, for the URDF limits [N m], [rad/s].
        damping_nm_s: Viscous friction of the bearing [N m s/rad].
        spring_nm_rad, spring_rest_rad: Return spring and the angle it pulls to [N m/rad], [rad].
        source: Where the numbers come from.
    """

    name: str
    parent: str
    child: str
    origin_m: Vec3 = ZERO
    rpy_rad: Vec3 = ZERO
    axis: Vec3
    lower_rad: float
    upper_rad: float
    home_rad: float = 0.0
    max_torque_nm: float
    max_speed_rad_s: float
    damping_nm_s: float
    source: str
    spring_nm_rad: float = 0.0
    spring_rest_rad: float = 0.0

    def __post_init__(self) -> None:
        where = f"joint {self.name}"
        require(
            self.lower_rad < self.upper_rad, where, "lower_rad must be < upper_rad", (self.lower_rad, self.upper_rad)
        )
        require(self.lower_rad <= self.home_rad <= self.upper_rad, where, "home_rad must be in range", self.home_rad)
        require(abs(float(np.linalg.norm(self.axis)) - 1.0) < 1e-6, where, "axis must have length 1", self.axis)
        finite(where, self)
        for name in ("max_torque_nm", "max_speed_rad_s"):
            require(getattr(self, name) > 0.0, where, f"{name} must be > 0", getattr(self, name))
        for name in ("damping_nm_s", "spring_nm_rad"):
            require(getattr(self, name) >= 0.0, where, f"{name} must be >= 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Tip:
    """A fingertip: the point at `offset_m` in a link's frame that reaches and touches."""

    name: str
    link: str
    offset_m: Vec3

    def __post_init__(self) -> None:
        finite(f"tip {self.name}", self)
