"""Making one robot from another: weld a joint, mirror, rename, put a hand on an arm. Every step gives a new, checked model."""

from dataclasses import replace

import numpy as np

from robot.description.actuators import Tendon
from robot.description.model import RobotModel
from robot.description.parts import Geom, Joint, Link, Tip, Vec3
from robot.description.rotation import matrix_rpy, rpy_matrix
from robot.errors import UnknownNameError


def vec3(values) -> Vec3:
    """Three plain floats."""
    x, y, z = (float(v) for v in values)
    return x, y, z


def axis_rotation(axis: Vec3, angle_rad: float) -> np.ndarray:
    """Rotation about a unit axis (Rodrigues), shape (3, 3)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle_rad) * cross + (1.0 - np.cos(angle_rad)) * cross @ cross


def weld(links: list[Link], joints: list[Joint], tips: list[Tip], name: str, angle_rad: float) -> None:
    """Fix a joint at an angle: its child becomes part of its parent. The lists are changed in place.

    The joined link keeps the heavier one's name, and that one's first shape carries the whole mass.

    Raises:
        UnknownNameError: No joint of that name.
    """
    joint = next((j for j in joints if j.name == name), None)
    if joint is None:
        raise UnknownNameError("joint", name, [j.name for j in joints])
    turn = rpy_matrix(joint.rpy_rad) @ axis_rotation(joint.axis, angle_rad)
    at = np.array(joint.origin_m)

    def moved(p: Vec3) -> Vec3:
        return vec3(at + turn @ p)

    def turned(rpy: Vec3) -> Vec3:
        return matrix_rpy(turn @ rpy_matrix(rpy))

    by_name = {link.name: link for link in links}
    parent, child = by_name[joint.parent], by_name[joint.child]
    shapes = tuple(replace(g, origin_m=moved(g.origin_m), rpy_rad=turned(g.rpy_rad)) for g in child.geoms)
    heavy = child if child.mass_kg > parent.mass_kg else parent
    joined = Link(
        name=heavy.name,
        mass_kg=parent.mass_kg + child.mass_kg,
        geoms=shapes + parent.geoms if heavy is child else parent.geoms + shapes,
        source=f"{parent.source}; {child.name} welded to it" if parent.source != child.source else parent.source,
    )
    links[:] = [joined if link is parent else link for link in links if link is not child]
    joints.remove(joint)
    for i, other in enumerate(joints):
        if other.parent == child.name:
            joints[i] = replace(
                other, parent=joined.name, origin_m=moved(other.origin_m), rpy_rad=turned(other.rpy_rad)
            )
        elif other.parent == parent.name:
            joints[i] = replace(other, parent=joined.name)
        elif other.child == parent.name:
            joints[i] = replace(other, child=joined.name)
    for i, tip in enumerate(tips):
        if tip.link == child.name:
            tips[i] = Tip(name=tip.name, link=joined.name, offset_m=moved(tip.offset_m))
        elif tip.link == parent.name:
            tips[i] = replace(tip, link=joined.name)


def mirrored(model: RobotModel) -> RobotModel:
    """The mirror image in the yz plane: a left hand from a right one. Positive angles keep their meaning."""
    flip = np.diag([-1.0, 1.0, 1.0])

    def point(p: Vec3) -> Vec3:
        return (-p[0], p[1], p[2])

    def turn(rpy: Vec3) -> Vec3:
        return matrix_rpy(flip @ rpy_matrix(rpy) @ flip)

    def shape(geom: Geom) -> Geom:
        return replace(geom, origin_m=point(geom.origin_m), rpy_rad=turn(geom.rpy_rad))

    return replace(
        model,
        links=tuple(replace(link, geoms=tuple(map(shape, link.geoms))) for link in model.links),
        joints=tuple(
            # A mirrored rotation turns the other way about the mirrored axis.
            replace(j, origin_m=point(j.origin_m), rpy_rad=turn(j.rpy_rad), axis=(j.axis[0], -j.axis[1], -j.axis[2]))
            for j in model.joints
        ),
        tips=tuple(replace(tip, offset_m=point(tip.offset_m)) for tip in model.tips),
    )


def prefixed(model: RobotModel, prefix: str) -> RobotModel:
    """The same robot with every name of a part under a prefix."""

    def tendon(t: Tendon) -> Tendon:
        return replace(
            t,
            name=prefix + t.name,
            joint=prefix + t.joint,
            also=tuple(prefix + joint for joint in t.also),
            arms=tuple(replace(arm, joint=prefix + arm.joint) for arm in t.arms),
        )

    return replace(
        model,
        base_link=prefix + model.base_link,
        links=tuple(replace(link, name=prefix + link.name) for link in model.links),
        joints=tuple(
            replace(j, name=prefix + j.name, parent=prefix + j.parent, child=prefix + j.child) for j in model.joints
        ),
        tendons=tuple(tendon(t) for t in model.tendons),
        drives=tuple(replace(d, name=prefix + d.name, joint=prefix + d.joint) for d in model.drives),
        tips=tuple(replace(tip, name=prefix + tip.name, link=prefix + tip.link) for tip in model.tips),
    )
