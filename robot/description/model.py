"""RobotModel: one frozen description of a robot, from primary numbers. SI units, radians.

Frames: right-handed. A link's frame sits at its parent joint; with every joint at zero all frames of a hand are parallel to
the palm frame unless a joint's `rpy_rad` says otherwise (palm: x to the thumb side, y to the fingertips, z out of the palm).
The joint order of everything in this project is the order of `RobotModel.joints`; nothing else may keep one.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from robot.description.actuators import Arm, Drive, Motor, Tendon
from robot.description.parts import ZERO, DescriptionError, Geom, Joint, Link, Tip, Vec3, require, unique
from robot.description.rotation import rpy_matrix
from robot.errors import UnknownNameError

# Fields younger than the first robots, left out of a robot's identity while they are zero, False or empty.
YOUNG = {
    "joint": ("spring_nm_rad", "spring_rest_rad"),
    "tendon": ("also",),
    "robot": ("drives", "floating", "base_height_m"),
}


@dataclass(frozen=True, kw_only=True)
class RobotModel:
    """A robot: links, joints in their one order, tendons, fingertips. Validated when made; a tree with one root.

    Attributes:
        name: What `load` knows it by.
        base_link: The root link.
        base_rpy_rad: How a fixed base is mounted in the world: palm up, fingers along world y, for hands [rad].
        reflected_share: Part of each motor's reflected inertia that is carried by the joint instead of the spool, so that
            light links are stable at the substep the engines use. The sum is the true one. See docs/robot.md.
        drives: Motors that turn a joint without a tendon; they come after the tendons in the order of motors.
        floating: The base moves freely; False when it is bolted to the world.
        base_height_m: Height at which the base of a floating robot stands in the home posture [m].
    """

    name: str
    base_link: str
    links: tuple[Link, ...]
    joints: tuple[Joint, ...]
    tendons: tuple[Tendon, ...]
    tips: tuple[Tip, ...]
    base_rpy_rad: Vec3 = ZERO
    reflected_share: float = 0.5
    drives: tuple[Drive, ...] = ()
    floating: bool = False
    base_height_m: float = 0.0

    def __post_init__(self) -> None:
        links = {link.name for link in self.links}
        unique("link", self.links)
        unique("joint", self.joints)
        unique("motor", (*self.tendons, *self.drives))
        unique("tip", self.tips)
        if self.base_link not in links:
            raise UnknownNameError("base link", self.base_link, sorted(links))
        reached = {self.base_link}
        for joint in self.joints:  # parents come before children, which also excludes loops
            if joint.parent not in links or joint.child not in links:
                missing = joint.parent if joint.parent not in links else joint.child
                raise UnknownNameError(f"link of joint {joint.name}", missing, sorted(links))
            require(
                joint.parent in reached,
                f"joint {joint.name}",
                "parent must be reached by an earlier joint",
                joint.parent,
            )
            require(joint.child not in reached, f"joint {joint.name}", "child already has a parent", joint.child)
            reached.add(joint.child)
        require(reached == links, f"robot {self.name}", "every link needs a joint", sorted(links - reached))
        known = set(self.joint_names)
        for tendon in self.tendons:
            for arm in tendon.arms:
                if arm.joint not in known:
                    raise UnknownNameError(f"joint of tendon {tendon.name}", arm.joint, self.joint_names)
        for drive in self.drives:
            if drive.joint not in known:
                raise UnknownNameError(f"joint of drive {drive.name}", drive.joint, self.joint_names)
        driven = [joint for tendon in self.tendons for joint in tendon.driven] + [drive.joint for drive in self.drives]
        twice = sorted({joint for joint in driven if driven.count(joint) > 1})
        require(not twice, f"robot {self.name}", "a joint needs one motor", twice)
        loose = sorted(known - set(driven))
        require(not loose, f"robot {self.name}", "joints without a motor", loose)
        require(
            0.0 <= self.reflected_share <= 1.0,
            f"robot {self.name}",
            "reflected_share must be 0..1",
            self.reflected_share,
        )
        for tip in self.tips:
            if tip.link not in links:
                raise UnknownNameError(f"link of tip {tip.name}", tip.link, sorted(links))

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def motor_names(self) -> tuple[str, ...]:
        return tuple(motor.name for motor in (*self.tendons, *self.drives))

    @cached_property
    def tip_names(self) -> tuple[str, ...]:
        return tuple(tip.name for tip in self.tips)

    @cached_property
    def lower_rad(self) -> np.ndarray:
        return readonly(joint.lower_rad for joint in self.joints)

    @cached_property
    def upper_rad(self) -> np.ndarray:
        return readonly(joint.upper_rad for joint in self.joints)

    @cached_property
    def home_rad(self) -> np.ndarray:
        return readonly(joint.home_rad for joint in self.joints)

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
        return self.reflected_inertia_kg_m2(self.reflected_share)

    def reflected_inertia_kg_m2(self, share: float) -> np.ndarray:
        """Rotor inertia as the joints feel it, of a tendon's motor only a share, of a gear drive all, shape (n_joints,) [kg m^2].

        Where a moment arm changes with posture, its longest counts: there the cable is stiffest and the joint needs it most.
        """
        inertia = np.zeros(len(self.joints))
        for tendon in self.tendons:
            for name in tendon.driven:
                joint = self.joints[self.index(name)]
                ratio = max(abs(tendon.ratio(name, angle)) for angle in (joint.lower_rad, joint.upper_rad))
                inertia[self.index(name)] += share * tendon.motor.spool_inertia_kg_m2 * ratio**2
        for drive in self.drives:
            inertia[self.index(drive.joint)] += drive.motor.spool_inertia_kg_m2
        inertia.setflags(write=False)
        return inertia

    def drive_inertia_kg_m2(self, drive: Drive) -> float:
        """The least inertia a gear drive can feel: its rotor and the joint's own link, everything beyond free to move [kg m^2].

        The drive's torque-speed line counts on it; counting on more would not be stable.
        """
        joint = self.joints[self.index(drive.joint)]
        link = self.link(joint.child)
        turn = rpy_matrix(link.geoms[0].rpy_rad).T @ joint.axis  # the joint's axis in the geom's principal axes
        arm = np.cross(joint.axis, link.com_m)
        own = float(link.principal_inertia_kg_m2 @ np.square(turn)) + link.mass_kg * float(arm @ arm)
        return drive.motor.spool_inertia_kg_m2 + own

    @cached_property
    def sha256(self) -> str:
        """Identity of the description: the hash of all its numbers and names in canonical JSON."""
        return hashlib.sha256(msgspec.json.encode(self.as_dict(), order="deterministic")).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """All numbers and names. A field that is younger than the first robots appears only where it is set, so that the
        identity of a robot that does not use it stays what it was."""
        data = msgspec.to_builtins(self)
        for kind, items in (("joint", data["joints"]), ("tendon", data["tendons"]), ("robot", [data])):
            for item in items:
                for name in YOUNG[kind]:
                    if not item[name]:
                        del item[name]
        return data

    def urdf(self) -> str:
        """The robot as URDF, one element per line (PyBullet's reader wants that)."""
        from robot.description.urdf import write_urdf

        return write_urdf(self)

    def mjcf(self) -> str:
        """The robot as MJCF with native tendons and armature."""
        from robot.description.mjcf import write_mjcf

        return write_mjcf(self)


def readonly(values: Iterable[float]) -> np.ndarray:
    """Numbers as an array that cannot be written to."""
    array = np.array(list(values))
    array.setflags(write=False)
    return array


__all__ = [
    "ZERO",
    "Arm",
    "DescriptionError",
    "Drive",
    "Geom",
    "Joint",
    "Link",
    "Motor",
    "RobotModel",
    "Tendon",
    "Tip",
    "Vec3",
]
