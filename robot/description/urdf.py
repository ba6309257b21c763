"""RobotModel -> URDF. One element per line, because PyBullet's reader fails on long lines."""

from math import pi

import numpy as np

from robot.description.model import Geom, Joint, Link, RobotModel
from robot.description.rotation import matrix_rpy, rpy_matrix

# URDF cylinders and capsules lie along z, ours along y.
_Z_TO_Y = rpy_matrix((-pi / 2, 0.0, 0.0))
COLORS = {
    "palm": "0.22 0.24 0.28 1",
    "default": "0.78 0.79 0.82 1",
    "tip": "0.96 0.55 0.26 1",
    "forearm": "0.16 0.17 0.20 1",
}


def write_urdf(model: RobotModel, *, for_torque_control: bool = False) -> str:
    """The URDF of a model.

    Args:
        model: The robot.
        for_torque_control: Write the variant that an engine without armature simulates under the transmission: joints are
            `continuous` (a limit costs the solver a row; the stops are in the transmission), and each joint's share of
            reflected inertia is part of its link.
    """
    tips = {tip.link for tip in model.tips}
    added = {link.name: np.zeros(3) for link in model.links}
    if for_torque_control:
        for joint, inertia in zip(model.joints, model.joint_inertia_kg_m2.tolist()):
            carrier = model.link(joint.child).geoms[0]
            along = np.square(
                rpy_matrix(carrier.rpy_rad).T @ joint.axis
            )  # in the axes the link's inertia is written in
            # Half of it goes to the other two axes: Bullet refuses an inertia that breaks the triangle inequality.
            added[joint.child] = inertia * (0.5 + 0.5 * along if along.max() > 0.999 else np.ones(3))
    lines = ['<?xml version="1.0"?>', f'<robot name="{model.name}">']
    for link in model.links:
        lines += _link(link, added[link.name], link_color(link.name, tips))
    for joint in model.joints:
        lines += _joint(joint, limited=not for_torque_control)
    return "\n".join([*lines, "</robot>", ""])


def link_color(name: str, tips: set[str]) -> str:
    if name in tips:
        return "tip"
    return next((key for key in ("palm", "forearm") if name.startswith(key)), "default")


def numbers(values) -> str:
    return " ".join(repr(float(v)) for v in values)


def _link(link: Link, added_kg_m2: np.ndarray, color: str) -> list[str]:
    ixx, iyy, izz = link.principal_inertia_kg_m2 + added_kg_m2
    geom = link.geoms[0]
    lines = [
        f'<link name="{link.name}">',
        "<inertial>",
        f'<origin xyz="{numbers(geom.origin_m)}" rpy="{numbers(geom.rpy_rad)}"/>',
        f'<mass value="{link.mass_kg!r}"/>',
        f'<inertia ixx="{float(ixx)!r}" ixy="0" ixz="0" iyy="{float(iyy)!r}" iyz="0" izz="{float(izz)!r}"/>',
        "</inertial>",
    ]
    for geom in link.geoms:
        for kind in ("visual", "collision") if geom.collides else ("visual",):
            lines += [f"<{kind}>", *geometry_lines(geom)]
            if kind == "visual":
                lines += [f'<material name="{color}">', f'<color rgba="{COLORS[color]}"/>', "</material>"]
            lines.append(f"</{kind}>")
    return [*lines, "</link>"]


def geometry_lines(geom: Geom) -> list[str]:
    rpy = geom.rpy_rad
    if geom.shape in ("capsule", "cylinder"):
        rpy = matrix_rpy(rpy_matrix(geom.rpy_rad) @ _Z_TO_Y)
        shape = f'<{geom.shape} radius="{geom.size_m[0]!r}" length="{geom.size_m[1]!r}"/>'
    elif geom.shape == "sphere":
        shape = f'<sphere radius="{geom.size_m[0]!r}"/>'
    else:
        shape = f'<box size="{numbers(geom.size_m)}"/>'
    return [f'<origin xyz="{numbers(geom.origin_m)}" rpy="{numbers(rpy)}"/>', "<geometry>", shape, "</geometry>"]


def _joint(joint: Joint, *, limited: bool) -> list[str]:
    limit = (
        f'<limit lower="{joint.lower_rad!r}" upper="{joint.upper_rad!r}" '
        f'effort="{joint.max_torque_nm!r}" velocity="{joint.max_speed_rad_s!r}"/>'
    )
    return [
        f'<joint name="{joint.name}" type="{"revolute" if limited else "continuous"}">',
        f'<parent link="{joint.parent}"/>',
        f'<child link="{joint.child}"/>',
        f'<origin xyz="{numbers(joint.origin_m)}" rpy="{numbers(joint.rpy_rad)}"/>',
        f'<axis xyz="{numbers(joint.axis)}"/>',
        *([limit] if limited else []),
        "</joint>",
    ]
