"""A robot and the world around it as one MuJoCo model.

Every contact is an explicit pair, so that who may touch whom and with which friction is the same as in PyBullet: the geometric mean of
the two surfaces' coefficients (MuJoCo alone would take the larger).
"""

# pyright: reportAttributeAccessIssue=false
# mujoco ships no stubs for its compiled module.

from dataclasses import dataclass

import mujoco
import numpy as np

from robot.description.mjcf import write_mjcf
from robot.description.model import RobotModel
from robot.description.rotation import rpy_matrix
from sim.bodies import Body, Hull, Shape, as_quat
from sim.world import CELLS, FIELD_M, GROUND, ROBOT_ITSELF, World

FLAT, UNEVEN = "ground", "uneven ground"
STICK_IMPRATIO = 10.0  # friction ten times as hard as the normal direction
STICK_ITERATIONS = 3  # of MuJoCo's own pass that takes out what slip the soft solution left
BASE_M = 0.2  # thickness of uneven ground below its lowest point
MESH = mujoco.mjtGeom.mjGEOM_MESH
GEOMS = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Who a geom belongs to.

    Attributes:
        link: Row of the robot's link a geom is part of, -1 where none, shape (ngeom,).
        thing: Row of the body it is part of, `ROBOT_ITSELF` or `GROUND`, shape (ngeom,).
    """

    link: np.ndarray
    thing: np.ndarray


def build(model: RobotModel, world: World, substep_s: float) -> tuple[mujoco.MjModel, Layout]:
    """Compile a robot and its world."""
    spec = mujoco.MjSpec.from_string(write_mjcf(model, for_torque_control=True))
    for pair in spec.pairs:  # the robot with itself
        pair.friction = _five(1.0)
    solid = [f"{link.name}_{i}" for link in model.links for i, geom in enumerate(link.geoms) if geom.collides]
    field = [UNEVEN] if world.ground.kind == "uneven" else []
    if world.ground.kind != "none":
        _add_ground(spec, world)
        _pairs(spec, [FLAT], solid)
        _pairs(spec, field, _tips(model))
    done: list[tuple[Body, list[str]]] = []
    for body in world.bodies:
        names = _add_body(spec, body)
        _pairs(spec, names, solid)
        if world.ground.kind != "none" and not body.fixed:
            _pairs(spec, [FLAT, *field], names)
        for other, theirs in done:
            if not (body.fixed and other.fixed):
                _pairs(spec, theirs, names)
        done.append((body, names))
    for geom in spec.geoms:  # pairs only
        geom.contype, geom.conaffinity = 0, 0
    compiled = spec.compile()
    compiled.opt.timestep = substep_s
    if not world.creeps:
        compiled.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        compiled.opt.impratio = STICK_IMPRATIO
        compiled.opt.noslip_iterations = STICK_ITERATIONS
    # MuJoCo would answer a NaN by starting over in silence; the check in `SimulatedRobot.step` is ours.
    compiled.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    # A robot and what it touches are nearly always one island; looking for others costs 5 % of a substep.
    compiled.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    return compiled, _layout(compiled, model, world)


def _layout(compiled: mujoco.MjModel, model: RobotModel, world: World) -> Layout:
    row = {link.name: i for i, link in enumerate(model.links)}
    bodies = {f"body:{body.name}": i for i, body in enumerate(world.bodies)}
    names = [compiled.body(int(body)).name for body in compiled.geom_bodyid]
    return Layout(
        link=np.array([row.get(name, -1) for name in names], dtype=np.intp),
        thing=np.array([bodies.get(name, ROBOT_ITSELF if name in row else GROUND) for name in names], dtype=np.intp),
    )


def pair_friction(
    compiled: mujoco.MjModel, layout: Layout, robot: float, ground: float, bodies: np.ndarray
) -> np.ndarray:
    """Sliding friction of every pair: the geometric mean of both surfaces', shape (npair,)."""
    table = np.concatenate([bodies, [ground, robot]])  # rows -2 and -1 are GROUND and ROBOT_ITSELF
    one, other = layout.thing[compiled.pair_geom1], layout.thing[compiled.pair_geom2]
    return np.sqrt(table[one] * table[other])


def _five(sliding: float) -> list[float]:
    return [sliding, sliding, 0.005, 0.0001, 0.0001]  # two directions of sliding, torsion, two of rolling


def _pairs(spec: mujoco.MjSpec, ones: list[str], others: list[str]) -> None:
    for one in ones:
        for other in others:
            pair = spec.add_pair()
            pair.geomname1, pair.geomname2, pair.friction = one, other, _five(1.0)


def _tips(model: RobotModel) -> list[str]:
    """Solid geoms of the links that carry a tip: feet and hands."""
    tips = {tip.link for tip in model.tips}
    links = [link for link in model.links if link.name in tips]
    return [f"{link.name}_{i}" for link in links for i, geom in enumerate(link.geoms) if geom.collides]


def _add_ground(spec: mujoco.MjSpec, world: World) -> None:
    """A plane; where the ground is uneven, a field on it, which only tips and bodies feel: feet, hands, and what lies there."""
    plane = spec.worldbody.add_geom()
    plane.name, plane.type, plane.size = FLAT, mujoco.mjtGeom.mjGEOM_PLANE, [0.0, 0.0, 0.1]
    if world.ground.kind == "flat":
        return
    half = FIELD_M / 2.0
    field = spec.add_hfield()
    field.name, field.nrow, field.ncol = UNEVEN, CELLS, CELLS
    field.size = [half, half, world.ground.amplitude_m, BASE_M]
    field.userdata = [0.0] * CELLS**2  # filled in at reset
    geom = spec.worldbody.add_geom()
    geom.name, geom.type, geom.hfieldname = UNEVEN, mujoco.mjtGeom.mjGEOM_HFIELD, UNEVEN
    geom.pos = [half, 0.0, 0.0]


def _add_body(spec: mujoco.MjSpec, body: Body) -> list[str]:
    """Add a body and say what its solid geoms are called."""
    made = spec.worldbody.add_body()
    made.name, made.pos, made.quat = f"body:{body.name}", list(body.position_m), _wxyz(np.array(body.quat_xyzw))
    if not body.fixed:
        made.add_freejoint()
        com, axes, moments = body.inertial
        made.explicitinertial, made.mass = True, body.mass_kg
        made.ipos, made.iquat, made.inertia = com.tolist(), _wxyz(as_quat(axes)), moments.tolist()
    names = []
    for i, shape in enumerate(body.shapes):
        name = f"body:{body.name}:{i}"
        geom = made.add_geom()
        geom.name, geom.rgba = name, list(body.color)
        if isinstance(shape, Hull):
            mesh = spec.add_mesh()
            mesh.name, mesh.uservert = name, [x for vertex in shape.vertices_m for x in vertex]
            mesh.userface = [i for face in shape.faces for i in face]
            geom.type, geom.meshname = MESH, name
        else:
            geom.type, geom.size = GEOMS[shape.shape], _size(shape)
            geom.pos, geom.quat = list(shape.origin_m), _wxyz(as_quat(_turn(shape)))
        if isinstance(shape, Hull) or shape.collides:
            names.append(name)
    return names


def _size(shape: Shape) -> list[float]:
    """MuJoCo's three sizes of a primitive."""
    assert not isinstance(shape, Hull)
    if shape.shape == "box":
        return [edge / 2.0 for edge in shape.size_m]
    if shape.shape == "sphere":
        return [shape.size_m[0], 0.0, 0.0]
    return [shape.size_m[0], shape.size_m[1] / 2.0, 0.0]


def _turn(shape: Shape) -> np.ndarray:
    assert not isinstance(shape, Hull)
    turn = rpy_matrix(shape.rpy_rad)
    if shape.shape in ("capsule", "cylinder"):  # MuJoCo's lie along z, ours along y
        turn = turn @ rpy_matrix((-np.pi / 2.0, 0.0, 0.0))
    return turn


def _wxyz(quat_xyzw: np.ndarray) -> list[float]:
    x, y, z, w = quat_xyzw.tolist()
    return [w, x, y, z]
