"""A tendon-driven hand in MuJoCo, under the same transmission as in PyBullet: joint torques applied, armature native."""

# pyright: reportAttributeAccessIssue=false
# mujoco ships no stubs for its compiled module.

import mujoco
import numpy as np

from robot.description.mjcf import write_mjcf
from robot.description.model import RobotModel
from robot.transmission import Parameters
from sim.engines.hand import SimulatedHand


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
        self.data = mujoco.MjData(self.mj_model)
        address = [self.mj_model.joint(name).qposadr[0] for name in model.joint_names]
        dof = [self.mj_model.joint(name).dofadr[0] for name in model.joint_names]
        self._qpos, self._dof = np.array(address), np.array(dof)
        self._tip_bodies = [self.mj_model.body(tip.link).id for tip in model.tips]

    def _place(self, q_rad: np.ndarray) -> None:
        mujoco.mj_resetData(self.mj_model, self.data)
        self.data.qpos[self._qpos] = q_rad
        mujoco.mj_forward(self.mj_model, self.data)

    def _advance(self, substeps: int) -> None:
        kernel, data, mj_model = self.kernel, self.data, self.mj_model
        q, qd, torque, qpos, dof = data.qpos, data.qvel, data.qfrc_applied, self._qpos, self._dof
        for _ in range(substeps):
            kernel.step()
            torque[dof] = kernel.torque_nm
            mujoco.mj_step(mj_model, data)
            kernel.q_rad[:] = q[qpos]
            kernel.qd_rad_s[:] = qd[dof]

    def _tip_forces(self) -> np.ndarray:
        force = np.zeros(len(self._tip_bodies))
        data, wrench = self.data, np.zeros(6)
        for i in range(data.ncon):
            contact = data.contact[i]
            bodies = {int(self.mj_model.geom_bodyid[g]) for g in contact.geom}
            touched = [t for t, body in enumerate(self._tip_bodies) if body in bodies]
            if touched:
                mujoco.mj_contactForce(self.mj_model, data, i, wrench)
                force[touched] += wrench[0]
        return force

    def close(self) -> None:
        """Nothing to release: MuJoCo's memory goes with the object."""
