"""A tendon-driven hand in MuJoCo, under the same transmission as in PyBullet: joint torques applied, armature native."""

# pyright: reportAttributeAccessIssue=false
# mujoco ships no stubs for its compiled module.

import logging

import mujoco
import numpy as np

from robot.description.mjcf import write_mjcf
from robot.description.model import RobotModel
from robot.transmission import Parameters
from sim.engines.hand import SimulatedHand

if mujoco.get_mju_user_warning() is None:  # MuJoCo's own way is a file in the current folder
    mujoco.set_mju_user_warning(logging.getLogger(__name__).info)


class MuJoCoHand(SimulatedHand):
    """One robot with a fixed base in one MuJoCo model. Arguments as `SimulatedHand`."""

    def __init__(
        self,
        model: RobotModel,
        *,
        control_hz: float = 25.0,
        substep_s: float = 0.005,
        parameters: Parameters | None = None,
    ) -> None:
        super().__init__(model, control_hz=control_hz, substep_s=substep_s, parameters=parameters)
        self.mj_model = mujoco.MjModel.from_xml_string(write_mjcf(model, for_torque_control=True))
        self.mj_model.opt.timestep = substep_s
        # MuJoCo would answer a NaN by starting over in silence; the check in `step` is ours.
        self.mj_model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.data = mujoco.MjData(self.mj_model)
        self._qpos = as_slice([int(self.mj_model.joint(name).qposadr[0]) for name in model.joint_names])
        self._dof = as_slice([int(self.mj_model.joint(name).dofadr[0]) for name in model.joint_names])
        tip_of_body = {self.mj_model.body(tip.link).id: i for i, tip in enumerate(model.tips)}
        self._tip_of_geom = [tip_of_body.get(int(body), -1) for body in self.mj_model.geom_bodyid]
        self._n_tips = len(model.tips)

    def _place(self, q_rad: np.ndarray) -> None:
        mujoco.mj_resetData(self.mj_model, self.data)
        self.data.qpos[self._qpos] = q_rad
        mujoco.mj_forward(self.mj_model, self.data)

    def _advance(self, substeps: int) -> None:
        mj_step, kernel_step = mujoco.mj_step, self.kernel.step
        kernel, data, mj_model = self.kernel, self.data, self.mj_model
        q, qd, torque, qpos, dof = data.qpos, data.qvel, data.qfrc_applied, self._qpos, self._dof
        q_rad, qd_rad_s, torque_nm = kernel.q_rad, kernel.qd_rad_s, kernel.torque_nm
        for _ in range(substeps):
            kernel_step()
            torque[dof] = torque_nm
            mj_step(mj_model, data)
            q_rad[:] = q[qpos]
            qd_rad_s[:] = qd[dof]

    def _tip_forces(self) -> np.ndarray:
        force = np.zeros(self._n_tips)
        if self.data.ncon == 0:
            return force
        wrench = np.zeros(6)
        for i, geoms in enumerate(self.data.contact.geom.tolist()):
            touched = {self._tip_of_geom[geom] for geom in geoms} - {-1}
            if touched:
                mujoco.mj_contactForce(self.mj_model, self.data, i, wrench)
                force[list(touched)] += wrench[0]
        return force

    def contacts(self) -> np.ndarray:
        found, wrench = np.zeros((self.data.ncon, 6)), np.zeros(6)
        for i in range(self.data.ncon):
            contact = self.data.contact[i]
            mujoco.mj_contactForce(self.mj_model, self.data, i, wrench)
            found[i, :3], found[i, 3:] = contact.pos, wrench[:3] @ contact.frame.reshape(3, 3)
        return found

    def close(self) -> None:
        """Nothing to release: MuJoCo's memory goes with the object."""


def as_slice(indices: list[int]) -> slice | np.ndarray:
    """Indices that count up without a gap as a slice, which numpy copies five times as fast; others as an array."""
    start = indices[0] if indices else 0
    if indices == list(range(start, start + len(indices))):
        return slice(start, start + len(indices))
    return np.array(indices)
