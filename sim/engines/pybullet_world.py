"""A robot and the world around it, loaded into a PyBullet client.

PyBullet multiplies the friction of two surfaces; each gets the root of its coefficient, so that two surfaces meet with the geometric
mean of theirs, as in MuJoCo here.
"""

import atexit
import tempfile
import weakref
from math import sqrt
from pathlib import Path

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import RobotModel
from robot.description.rotation import matrix_rpy, rpy_matrix
from robot.description.urdf import geometry_lines, numbers, write_urdf
from sim.bodies import Body, Hull, as_quat
from sim.engines.quiet import quiet
from sim.world import CELL_M, CELLS, FIELD_M, World, quat_matrix

with quiet():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

_OPEN: "weakref.WeakSet[BulletClient]" = weakref.WeakSet()


def connect() -> BulletClient:
    """A world of its own, without a window."""
    with quiet():
        bullet = BulletClient(connection_mode=pybullet.DIRECT)
        # All boxes against all: with some thirty of them faster than Bullet's trees, by 13 % of a substep, and the same contacts.
        bullet.resetSimulation(flags=pybullet.RESET_USE_SIMPLE_BROADPHASE)
    _OPEN.add(bullet)
    return bullet


@atexit.register
def _disconnect_all() -> None:
    """While the modules are still there: a client that is collected after them complains on standard error."""
    for bullet in list(_OPEN):
        if bullet._client >= 0:
            bullet.disconnect()


def load_robot(bullet: BulletClient, model: RobotModel) -> tuple[int, dict[str, int], dict[str, int]]:
    """Load a model into a client, ready for torque control.

    Returns:
        Body id, joint index by joint name, link index by link name (the base is -1).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model.name}.urdf"
        path.write_text(write_urdf(model, for_torque_control=True))
        flags = (
            pybullet.URDF_USE_INERTIA_FROM_FILE
            | pybullet.URDF_USE_SELF_COLLISION
            | pybullet.URDF_MAINTAIN_LINK_ORDER
            | pybullet.URDF_USE_MATERIAL_COLORS_FROM_MTL
        )
        body = bullet.loadURDF(
            str(path),
            basePosition=(0.0, 0.0, model.base_height_m),
            baseOrientation=bullet.getQuaternionFromEuler(model.base_rpy_rad),
            useFixedBase=not model.floating,
            flags=flags,
        )
    joints, links = {}, {model.base_link: -1}
    for index in range(bullet.getNumJoints(body)):
        info = bullet.getJointInfo(body, index)
        joints[info[1].decode()] = index
        links[info[12].decode()] = index
    for index in (-1, *joints.values()):
        awake_and_undamped(bullet, body, index)
    for index in joints.values():
        bullet.setJointMotorControl2(body, index, pybullet.VELOCITY_CONTROL, force=0.0)
    touching = {frozenset(pair) for pair in colliding_pairs(model)}
    names = [link.name for link in model.links]
    for i, a in enumerate(names):
        for b in names[:i]:
            bullet.setCollisionFilterPair(body, body, links[a], links[b], int(frozenset((a, b)) in touching))
    return body, joints, links


def awake_and_undamped(bullet: BulletClient, body: int, link: int) -> None:
    """Bullet's own damping off: air is none of ours, and bearings are in the transmission. No sleeping: it breaks repetition."""
    bullet.changeDynamics(
        body,
        link,
        jointDamping=0.0,
        linearDamping=0.0,
        angularDamping=0.0,
        activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING,
    )


def set_friction(bullet: BulletClient, body: int, links: range, friction: float) -> None:
    """Give all of a thing's surfaces a coefficient."""
    for link in links:
        bullet.changeDynamics(body, link, lateralFriction=sqrt(friction))


def load_body(bullet: BulletClient, body: Body) -> int:
    """Load a free or fixed body."""
    if any(isinstance(shape, Hull) for shape in body.shapes):
        with tempfile.TemporaryDirectory() as folder:
            for i, shape in enumerate(body.shapes):
                if isinstance(shape, Hull):
                    (Path(folder) / f"{i}.obj").write_text(_obj(shape))
            path = Path(folder) / "body.urdf"
            path.write_text(_urdf(body))
            return _load(bullet, body, str(path))
    # A body of another size is loaded at every reset, and to remove a folder can take longer than all the rest of that.
    with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
        file.write(_urdf(body))
        file.flush()
        return _load(bullet, body, file.name)


def _urdf(body: Body) -> str:
    """The URDF of a body, its hulls as `0.obj` and so on beside it."""
    com, axes, moments = body.inertial
    lines = ['<?xml version="1.0"?>', f'<robot name="{body.name}">', '<link name="body">', "<inertial>"]
    lines += [
        f'<origin xyz="{numbers(com)}" rpy="{numbers(matrix_rpy(axes))}"/>',
        f'<mass value="{0.0 if body.fixed else body.mass_kg!r}"/>',
        f'<inertia ixx="{float(moments[0])!r}" ixy="0" ixz="0" iyy="{float(moments[1])!r}" iyz="0" izz="{float(moments[2])!r}"/>',
        "</inertial>",
    ]
    for i, shape in enumerate(body.shapes):
        if isinstance(shape, Hull):
            drawn = ["<geometry>", f'<mesh filename="{i}.obj"/>', "</geometry>"]
        else:
            drawn = geometry_lines(shape)
        for kind in ("visual", "collision") if isinstance(shape, Hull) or shape.collides else ("visual",):
            lines += [f"<{kind}>", *drawn]
            if kind == "visual":
                lines += ['<material name="own">', f'<color rgba="{numbers(body.color)}"/>', "</material>"]
            lines.append(f"</{kind}>")
    return "\n".join([*lines, "</link>", "</robot>", ""])


def _load(bullet: BulletClient, body: Body, path: str) -> int:
    with quiet():
        made = bullet.loadURDF(
            path,
            basePosition=body.position_m,
            baseOrientation=body.quat_xyzw,
            useFixedBase=body.fixed,
            flags=pybullet.URDF_USE_INERTIA_FROM_FILE | pybullet.URDF_USE_MATERIAL_COLORS_FROM_MTL,
        )
    awake_and_undamped(bullet, made, -1)
    return made


def base_inertial(model: RobotModel) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (3,) [m] and rotation (3, 3) of the inertial frame in the base link, which is what Bullet calls the base's pose."""
    carrier = model.link(model.base_link).geoms[0]
    return np.array(carrier.origin_m), rpy_matrix(carrier.rpy_rad)


def inertial_pose(
    position: np.ndarray, quat: np.ndarray, com: np.ndarray, turn: np.ndarray
) -> tuple[list[float], list[float]]:
    """Pose of the inertial frame of something whose frame is at a pose."""
    matrix = quat_matrix(quat)
    return (position + matrix @ com).tolist(), as_quat(matrix @ turn).tolist()


def load_ground(bullet: BulletClient, world: World) -> tuple[list[int], int | None]:
    """Load the ground: ids of its bodies, and of the uneven field's shape."""
    ground = world.ground
    if ground.kind == "none":
        return [], None
    plane = bullet.createMultiBody(0.0, bullet.createCollisionShape(pybullet.GEOM_PLANE))
    if ground.kind == "flat":
        return [plane], None
    heights = ground.heights_m(ground.seed)
    heights.flat[:2] = (
        0.0,
        ground.amplitude_m,
    )  # Bullet puts the frame midway between lowest and highest, and keeps it there
    shape = heightfield(bullet, heights, None)
    unseen = bullet.createVisualShape(pybullet.GEOM_SPHERE, radius=0.001)  # else 200 000 triangles to draw, 100 MB
    field = bullet.createMultiBody(
        0.0, shape, baseVisualShapeIndex=unseen, basePosition=(FIELD_M / 2.0, 0.0, ground.amplitude_m / 2.0)
    )
    heightfield(bullet, ground.heights_m(ground.seed), shape)
    return [plane, field], shape


def heightfield(bullet: BulletClient, heights_m: np.ndarray, replace: int | None) -> int:
    """A shape of uneven ground, or other heights for one that is there; takes 40 ms."""
    return bullet.createCollisionShape(
        pybullet.GEOM_HEIGHTFIELD,
        meshScale=(CELL_M, CELL_M, 1.0),
        heightfieldData=heights_m.reshape(-1).tolist(),
        numHeightfieldRows=CELLS,
        numHeightfieldColumns=CELLS,
        **({} if replace is None else {"replaceHeightfieldIndex": replace}),
    )


def _obj(hull: Hull) -> str:
    lines = [f"v {numbers(vertex)}" for vertex in hull.vertices_m]
    return "\n".join([*lines, *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in hull.faces), ""])


__all__ = [
    "BulletClient",
    "connect",
    "heightfield",
    "load_body",
    "load_ground",
    "load_robot",
    "pybullet",
    "set_friction",
]
