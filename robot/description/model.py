"""RobotModel: one frozen description of a robot, from primary numbers. SI units, radians.

Frames: right-handed. A link's frame sits at its parent joint; with every joint at zero all frames of a hand are parallel to
the palm frame unless a joint's `rpy_rad` says otherwise (palm: x to the thumb side, y to the fingertips, z out of the palm).
The joint order of everything in this project is the order of `RobotModel.joints`; nothing else may keep one.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, pi
from typing import Any, Literal

import msgspec
import numpy as np

from robot.errors import FlexorError, UnknownNameError

Vec3 = tuple[float, float, float]
ZERO: Vec3 = (0.0, 0.0, 0.0)


class DescriptionError(FlexorError, ValueError):
    """A description that cannot exist; the message names the field and the value."""


def _require(ok: bool, where: str, what: str, value: object) -> None:
    if not ok:
        raise DescriptionError(f"{where}: {what}, got {value!r}")


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
        _require(len(self.size_m) == count, f"geom {self.shape}", f"size_m needs {count} numbers", self.size_m)
        _require(all(s > 0.0 for s in self.size_m), f"geom {self.shape}", "size_m must be > 0", self.size_m)

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
        _require(
            self.mass_kg > 0.0 and isfinite(self.mass_kg), f"link {self.name}", "mass_kg must be > 0", self.mass_kg
        )
        _require(len(self.geoms) > 0, f"link {self.name}", "needs at least one geom", self.geoms)

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

    def __post_init__(self) -> None:
        where = f"joint {self.name}"
        _require(
            self.lower_rad < self.upper_rad, where, "lower_rad must be < upper_rad", (self.lower_rad, self.upper_rad)
        )
        _require(self.lower_rad <= self.home_rad <= self.upper_rad, where, "home_rad must be in range", self.home_rad)
        _require(abs(float(np.linalg.norm(self.axis)) - 1.0) < 1e-6, where, "axis must have length 1", self.axis)
        for name in ("max_torque_nm", "max_speed_rad_s"):
            _require(getattr(self, name) > 0.0, where, f"{name} must be > 0", getattr(self, name))
        _require(self.damping_nm_s >= 0.0, where, "damping_nm_s must be >= 0", self.damping_nm_s)


@dataclass(frozen=True, kw_only=True)
class Motor:
    """A brushed DC gear motor by its data sheet. Everything about tendons is in `Tendon`.

    Attributes:
        bus_v: Supply voltage [V].
        resistance_ohm: Winding resistance at 25 deg C [ohm].
        torque_constant_nm_a: kt = ke of the rotor, before the gear [N m/A] = [V s/rad].
        rotor_inertia_kg_m2: Of the rotor alone [kg m^2].
        gear_ratio: Rotor turns per spool turn.
        gear_efficiency: Share of the rotor's work that reaches the spool, 0..1.
        peak_current_a: Limit set in the drive [A].
        winding_k_w, case_k_w: Thermal resistance winding to case, case to ambient [K/W].
        winding_j_k, case_j_k: Heat capacity of winding and case [J/K].
        derate_from_c, max_winding_c: The drive cuts current linearly between these winding temperatures [deg C].
        source: Where the numbers come from.
    """

    name: str
    bus_v: float
    resistance_ohm: float
    torque_constant_nm_a: float
    rotor_inertia_kg_m2: float
    gear_ratio: float
    gear_efficiency: float
    peak_current_a: float
    winding_k_w: float
    case_k_w: float
    winding_j_k: float
    case_j_k: float
    derate_from_c: float
    max_winding_c: float
    source: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str):
                _require(value > 0.0 and isfinite(value), f"motor {self.name}", f"{name} must be > 0", value)
        _require(
            self.gear_efficiency <= 1.0, f"motor {self.name}", "gear_efficiency must be <= 1", self.gear_efficiency
        )
        _require(
            self.derate_from_c < self.max_winding_c,
            f"motor {self.name}",
            "derate_from_c must be < max_winding_c",
            self.derate_from_c,
        )

    @property
    def spool_inertia_kg_m2(self) -> float:
        """Rotor inertia as felt at the spool, N^2 J [kg m^2]."""
        return self.gear_ratio**2 * self.rotor_inertia_kg_m2

    @property
    def peak_torque_nm(self) -> float:
        """Spool torque at the current limit [N m]."""
        return self.peak_current_a * self.torque_constant_nm_a * self.gear_ratio * self.gear_efficiency

    @property
    def no_load_speed_rad_s(self) -> float:
        """Spool speed at bus voltage without load [rad/s]."""
        return self.bus_v / (self.torque_constant_nm_a * self.gear_ratio)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a tendon passes one joint: moment arms, positive where the flexor shortens as the joint angle grows.

    `flexor_m` and `extensor_m` hold at angle zero; both change by their slope per radian.
    `wrap` is how much wrap angle one radian of the joint adds to the tendon's contact with its guides [rad/rad].
    `by_encoder`: the drive compensates for this joint where its encoder says it is, not where it was told to go.
    """

    joint: str
    flexor_m: float
    extensor_m: float
    flexor_slope_m: float = 0.0
    extensor_slope_m: float = 0.0
    wrap: float = 1.0
    by_encoder: bool = False


@dataclass(frozen=True, kw_only=True)
class Tendon:
    """A pull-pull pair on one stepped spool in the forearm: two cables, one motor, one joint it is meant for.

    Attributes:
        name: Same as the motor's place: one motor, one name.
        motor: The gear motor that turns the spool.
        joint: The joint the pair drives.
        arms: Every joint the pair passes, the driven one included.
        spool_flexor_m, spool_extensor_m: Radii of the two steps of the spool [m].
        stiffness_n_m: EA/L of one cable from spool to insertion [N/m].
        damping_n_s_m: Internal damping of one cable [N s/m].
        pretension_n: Tension of both cables at rest [N].
        friction: Capstan coefficient mu.
        wrap_rad: Wrap angle over all guides at the zero posture [rad].
        servo_stiffness_n_m, servo_damping_n_s_m: Position servo of the drive, in cable units [N/m], [N s/m].
        source: Where the numbers come from.
    """

    name: str
    motor: Motor
    joint: str
    arms: tuple[Arm, ...]
    spool_flexor_m: float
    spool_extensor_m: float
    stiffness_n_m: float
    damping_n_s_m: float
    pretension_n: float
    friction: float
    wrap_rad: float
    servo_stiffness_n_m: float
    servo_damping_n_s_m: float
    source: str

    def __post_init__(self) -> None:
        where = f"tendon {self.name}"
        for name in ("spool_flexor_m", "spool_extensor_m", "stiffness_n_m", "servo_stiffness_n_m"):
            _require(getattr(self, name) > 0.0, where, f"{name} must be > 0", getattr(self, name))
        for name in ("damping_n_s_m", "pretension_n", "friction", "wrap_rad", "servo_damping_n_s_m"):
            _require(getattr(self, name) >= 0.0, where, f"{name} must be >= 0", getattr(self, name))
        names = [arm.joint for arm in self.arms]
        _require(self.joint in names, where, "its own joint must be among its arms", names)
        _require(len(set(names)) == len(names), where, "passes one joint twice", names)


@dataclass(frozen=True, kw_only=True)
class Tip:
    """A fingertip: the point at `offset_m` in a link's frame that reaches and touches."""

    name: str
    link: str
    offset_m: Vec3


@dataclass(frozen=True, kw_only=True)
class RobotModel:
    """A robot: links, joints in their one order, tendons, fingertips. Validated when made; a tree with one root.

    Attributes:
        name: What `load` knows it by.
        base_link: The root link.
        base_rpy_rad: How a fixed base is mounted in the world: palm up, fingers along world y, for hands [rad].
        reflected_share: Part of each motor's reflected inertia that is carried by the joint instead of the spool, so that
            light links are stable at the substep the engines use. The sum is the true one. See docs/robot.md.
    """

    name: str
    base_link: str
    links: tuple[Link, ...]
    joints: tuple[Joint, ...]
    tendons: tuple[Tendon, ...]
    tips: tuple[Tip, ...]
    base_rpy_rad: Vec3 = ZERO
    reflected_share: float = 0.5

    def __post_init__(self) -> None:
        links = {link.name for link in self.links}
        _unique("link", self.links)
        _unique("joint", self.joints)
        _unique("tendon", self.tendons)
        _unique("tip", self.tips)
        if self.base_link not in links:
            raise UnknownNameError("base link", self.base_link, sorted(links))
        reached = {self.base_link}
        for joint in self.joints:  # parents come before children, which also excludes loops
            if joint.parent not in links or joint.child not in links:
                missing = joint.parent if joint.parent not in links else joint.child
                raise UnknownNameError(f"link of joint {joint.name}", missing, sorted(links))
            _require(
                joint.parent in reached,
                f"joint {joint.name}",
                "parent must be reached by an earlier joint",
                joint.parent,
            )
            _require(joint.child not in reached, f"joint {joint.name}", "child already has a parent", joint.child)
            reached.add(joint.child)
        _require(reached == links, f"robot {self.name}", "every link needs a joint", sorted(links - reached))
        known = set(self.joint_names)
        for tendon in self.tendons:
            for arm in tendon.arms:
                if arm.joint not in known:
                    raise UnknownNameError(f"joint of tendon {tendon.name}", arm.joint, self.joint_names)
        for tip in self.tips:
            if tip.link not in links:
                raise UnknownNameError(f"link of tip {tip.name}", tip.link, sorted(links))

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def motor_names(self) -> tuple[str, ...]:
        return tuple(tendon.name for tendon in self.tendons)

    @cached_property
    def tip_names(self) -> tuple[str, ...]:
        return tuple(tip.name for tip in self.tips)

    @cached_property
    def lower_rad(self) -> np.ndarray:
        return _readonly([joint.lower_rad for joint in self.joints])

    @cached_property
    def upper_rad(self) -> np.ndarray:
        return _readonly([joint.upper_rad for joint in self.joints])

    @cached_property
    def home_rad(self) -> np.ndarray:
        return _readonly([joint.home_rad for joint in self.joints])

    def index(self, joint: str) -> int:
        """Position of a joint in the joint order.

        Raises:
            UnknownNameError: No joint of that name; the message lists them.
        """
        try:
            return self.joint_names.index(joint)
        except ValueError:
            raise UnknownNameError("joint", joint, self.joint_names) from None

    def link(self, name: str) -> Link:
        for link in self.links:
            if link.name == name:
                return link
        raise UnknownNameError("link", name, [link.name for link in self.links])

    @cached_property
    def joint_inertia_kg_m2(self) -> np.ndarray:
        """Reflected inertia carried by each joint (armature), shape (n_joints,) [kg m^2]."""
        inertia = np.zeros(len(self.joints))
        for tendon in self.tendons:
            ratio = tendon_ratio(tendon)
            inertia[self.index(tendon.joint)] += self.reflected_share * tendon.motor.spool_inertia_kg_m2 * ratio**2
        inertia.setflags(write=False)
        return inertia

    @cached_property
    def sha256(self) -> str:
        """Identity of the description: the hash of all its numbers and names in canonical JSON."""
        return hashlib.sha256(msgspec.json.encode(self.as_dict(), order="deterministic")).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return msgspec.to_builtins(self)

    def urdf(self) -> str:
        """The robot as URDF, one element per line (PyBullet's reader wants that)."""
        from robot.description.urdf import write_urdf

        return write_urdf(self)

    def mjcf(self) -> str:
        """The robot as MJCF with native tendons and armature."""
        from robot.description.mjcf import write_mjcf

        return write_mjcf(self)


def tendon_ratio(tendon: Tendon) -> float:
    """Spool angle per angle of the driven joint at the zero posture."""
    own = next(arm for arm in tendon.arms if arm.joint == tendon.joint)
    return own.flexor_m / tendon.spool_flexor_m


def _unique(kind: str, items: tuple[Any, ...]) -> None:
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(not twice, f"{kind}s", "two of one name", twice)


def _readonly(values: list[float]) -> np.ndarray:
    array = np.array(values)
    array.setflags(write=False)
    return array
