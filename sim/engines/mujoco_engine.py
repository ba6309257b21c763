"""A robot in MuJoCo, under the same transmission as in PyBullet: joint torques applied, armature native."""

# pyright: reportAttributeAccessIssue=false
# mujoco ships no stubs for its compiled module.

import logging
from collections.abc import Sequence

import mujoco
import numpy as np

from robot.description.model import RobotModel
from robot.transmission import Parameters
from sim.engines.mujoco_kernel import MJ_STEP, advance, read
from sim.engines.mujoco_world import build, pair_friction
from sim.engines.robot import SKIN_FRICTION, SimulatedRobot
from sim.world import NOTHING, ROBOT_ITSELF, Contacts, Variation, World, rotated

if mujoco.get_mju_user_warning() is None:  # MuJoCo's own way is a file in the current folder
    mujoco.set_mju_user_warning(logging.getLogger(__name__).info)

VARIED = ("body_mass", "body_inertia", "body_ipos", "geom_size", "geom_pos", "geom_aabb", "geom_rbound")
WXYZ = np.array([3, 0, 1, 2])  # MuJoCo's quaternions begin with the real part


class MuJoCoRobot(SimulatedRobot):
    """One robot and its world in one MuJoCo model. Arguments as `SimulatedRobot`."""

    def __init__(
        self,
        model: RobotModel,
        *,
        control_hz: float = 25.0,
        substep_s: float = 0.005,
        parameters: Parameters | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__(model, control_hz=control_hz, substep_s=substep_s, parameters=parameters, world=world)
        self.mj_model, self._layout = build(model, self.world, substep_s)
        self.data = mujoco.MjData(self.mj_model)
        qpos = [int(self.mj_model.joint(name).qposadr[0]) for name in model.joint_names]
        dof = [int(self.mj_model.joint(name).dofadr[0]) for name in model.joint_names]
        self._qpos, self._dof = as_slice(qpos), as_slice(dof)
        self._addresses = self.mj_model._address, self.data._address
        data = self.data
        self._arrays = data.qpos, data.qvel, data.qfrc_applied, np.array(qpos, np.int64), np.array(dof, np.int64)
        link_ids = [self.mj_model.body(link.name).id for link in model.links]
        self._link_ids = as_slice(link_ids)
        self._body_ids = [self.mj_model.body(f"body:{body.name}").id for body in self.world.bodies]
        self._id_of = {link.name: i for link, i in zip(model.links, link_ids)}
        self._id_of |= {body.name: i for body, i in zip(self.world.bodies, self._body_ids)}
        self._free = [i for i, body in enumerate(self.world.bodies) if not body.fixed]
        joints = [self.mj_model.body_jntadr[self._body_ids[i]] for i in self._free]
        self._free_joints = np.array(
            [
                (i, self.mj_model.jnt_qposadr[joint], self.mj_model.jnt_dofadr[joint])
                for i, joint in zip(self._free, joints)
            ],
            dtype=np.int64,
        ).reshape(-1, 3)  # row of the body, and where it is in qpos and qvel
        tip_of_link = {tip.link: i for i, tip in enumerate(model.tips)}
        tip_rows = [tip_of_link.get(link.name, -1) for link in model.links]
        # One more than the tip's row; 0 where a geom is of no tip
        self._tip_of_geom = np.array(
            [1 + tip_rows[row] if row >= 0 else 0 for row in self._layout.link.tolist()], np.int64
        )
        self._n_tips = len(model.tips)
        self._ground_seed: int | None = None
        self._poses = self.world.start_poses
        self._nominal = {name: getattr(self.mj_model, name).copy() for name in VARIED}
        self._apply(Variation())

    def _apply(self, variation: Variation) -> None:
        world, mj_model = self.world, self.mj_model
        link = np.ones(mj_model.nbody)
        if variation.link_mass_factor is not None:
            link[self._link_ids] = variation.link_mass_factor
        if variation.body_mass_factor is not None:
            link[self._body_ids] = variation.body_mass_factor
        spread = np.ones(mj_model.nbody)
        scale = np.ones(len(world.bodies)) if variation.body_scale is None else variation.body_scale
        spread[self._body_ids] = scale**2
        mj_model.body_mass[:] = link * self._nominal["body_mass"]
        mj_model.body_inertia[:] = (link * spread)[:, None] * self._nominal["body_inertia"]
        if world.bodies:
            self._resize(scale)
        friction = np.array([body.friction for body in world.bodies])
        friction = friction if variation.body_friction is None else variation.body_friction
        robot = SKIN_FRICTION if variation.robot_friction is None else variation.robot_friction
        ground = world.ground.friction if variation.ground_friction is None else variation.ground_friction
        if mj_model.npair:
            mj_model.pair_friction[:, :2] = pair_friction(mj_model, self._layout, robot, ground, friction)[:, None]
        mujoco.mj_setConst(mj_model, self.data)  # what follows from masses

    def _resize(self, scale: np.ndarray) -> None:
        """Give bodies of primitives another size; a body with a mesh keeps its own, which `vary` has made sure of."""
        mj_model, size = self.mj_model, np.ones(self.mj_model.ngeom)
        for i, factor in zip(self._body_ids, scale):
            first = mj_model.body_geomadr[i]
            size[first : first + mj_model.body_geomnum[i]] = factor
            mj_model.body_ipos[i] = factor * self._nominal["body_ipos"][i]
        for name in ("geom_size", "geom_pos", "geom_aabb"):
            getattr(mj_model, name)[:] = size[:, None] * self._nominal[name]
        mj_model.geom_rbound[:] = size * self._nominal["geom_rbound"]

    def _place(
        self,
        q_rad: np.ndarray,
        qd_rad_s: np.ndarray,
        base: Sequence[np.ndarray],
        body_poses: np.ndarray,
        ground_seed: int,
    ) -> None:
        mj_model, data = self.mj_model, self.data
        mujoco.mj_resetData(mj_model, data)
        if self.world.ground.kind == "uneven" and ground_seed != self._ground_seed:
            heights = self.world.ground.heights_m(ground_seed)
            mj_model.hfield_data[:] = (heights / self.world.ground.amplitude_m).reshape(-1)
            self._ground_seed = ground_seed
        data.qpos[self._qpos], data.qvel[self._dof] = q_rad, qd_rad_s
        if self._model.floating:
            position, quat, velocity, gyro = base
            data.qpos[:3], data.qpos[3:7] = position, quat[WXYZ]
            data.qvel[:3] = velocity
            x, y, z, w = quat.tolist()
            data.qvel[3:6] = rotated(np.array([-x, -y, -z, w]), gyro)
        for i, body in enumerate(self.world.bodies):
            if body.fixed:
                mj_model.body_pos[self._body_ids[i]] = body_poses[i, :3]
                mj_model.body_quat[self._body_ids[i]] = body_poses[i, 3:][WXYZ]
        for i, at, _ in self._free_joints.tolist():
            data.qpos[at : at + 3], data.qpos[at + 3 : at + 7] = body_poses[i, :3], body_poses[i, 3:][WXYZ]
        self._poses = body_poses
        mujoco.mj_forward(mj_model, data)

    def _advance(self, substeps: int) -> None:
        data = self.data
        for push in self._pushes:
            body = self._id_of[push.on]
            force = np.asarray(push.force_n, dtype=np.float64)
            arm = np.zeros(3) if push.at_m is None else push.at_m - data.xipos[body]
            data.xfrc_applied[body, :3] += force
            data.xfrc_applied[body, 3:] += push.torque_nm + np.cross(arm, force)
        advance(MJ_STEP, *self._addresses, substeps, *self.kernel.blocks, *self._arrays)
        if self._pushes:
            data.xfrc_applied[:] = 0.0

    def _read(self) -> None:
        data, contact = self.data, self.data.contact
        base, pose = np.empty(16), self._poses.copy()
        twist, tips = np.zeros((len(pose), 6)), np.empty(self._n_tips + 1)
        read(
            data.qpos,
            data.qvel,
            self._model.floating,
            self._free_joints,
            contact.geom,
            contact.efc_address,
            data.efc_force,
            self._tip_of_geom,
            self.world.creeps,  # pyramids, see `mujoco_world.build`
            base,
            pose,
            twist,
            tips,
        )
        if self._model.floating:
            self._base, self._gyro = (base[0:3], base[3:7], base[7:10], base[10:13]), base[13:16]
        self._body_pose, self._body_twist, self._tips_n = pose, twist, tips[1:]

    def contacts(self) -> Contacts:
        rows, numbers, wrench = [], [], np.zeros(6)
        link, thing = self._layout.link, self._layout.thing
        for i, geoms in enumerate(self.data.contact.geom.tolist()):
            if link[geoms[0]] < 0 and link[geoms[1]] < 0:
                continue
            contact = self.data.contact[i]
            mujoco.mj_contactForce(self.mj_model, self.data, i, wrench)
            if wrench[0] <= 0.0:
                continue
            frame = contact.frame.reshape(3, 3)  # rows; the first points from geom 1 to geom 2
            force = wrench[:3] @ frame  # on geom 2
            for me, you, sign in ((geoms[0], geoms[1], -1.0), (geoms[1], geoms[0], 1.0)):
                if link[me] >= 0:
                    itself = thing[you] == ROBOT_ITSELF
                    rows.append((link[me], thing[you], link[you] if itself else NOTHING))
                    numbers.append([*contact.pos, *(sign * frame[0]), *(sign * force), wrench[0]])
        return Contacts.of(rows, np.array(numbers))

    def _links(self) -> tuple[np.ndarray, np.ndarray]:
        mujoco.mj_kinematics(self.mj_model, self.data)  # poses in `data` are those before the last integration
        rotation = self.data.xmat[self._link_ids].reshape(-1, 3, 3).copy()
        return rotation, self.data.xpos[self._link_ids].copy()

    def close(self) -> None:
        """Nothing to release: MuJoCo's memory goes with the object."""


def as_slice(indices: list[int]) -> slice | np.ndarray:
    """Indices that count up without a gap as a slice, which numpy copies five times as fast; others as an array."""
    start = indices[0] if indices else 0
    if indices == list(range(start, start + len(indices))):
        return slice(start, start + len(indices))
    return np.array(indices)
