"""A tendon-driven hand in PyBullet: torque mode, every motor of the engine off, the transmission in between.

Joints are loaded without limits, because each active motor and limit is a row for the multibody solver; stops are in the
transmission. PyBullet has no armature, so a joint's share of reflected inertia is added to its link about the joint's axis.
"""

import atexit
import tempfile
import weakref
from pathlib import Path

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import RobotModel
from robot.description.urdf import write_urdf
from robot.transmission import Parameters
from sim.engines.hand import SimulatedHand
from sim.engines.quiet import quiet

with quiet():
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

GRAVITY_M_S2 = -9.81
SOLVER_ITERATIONS = 10
CONTACT_BREAKING_M = 0.002  # the default of 20 mm is as large as a finger and keeps contacts that are none
FRICTION = 0.9  # rubber skin on smooth plastic; never above 1


class PyBulletHand(SimulatedHand):
    """One robot with a fixed base in one PyBullet client of its own. Arguments as `SimulatedHand`."""

    def __init__(
        self,
        model: RobotModel,
        *,
        control_hz: float = 25.0,
        substep_s: float = 0.005,
        parameters: Parameters | None = None,
    ) -> None:
        super().__init__(model, control_hz=control_hz, substep_s=substep_s, parameters=parameters)
        self.bullet = connect()
        self._client = self.bullet._client
        self.bullet.setGravity(0.0, 0.0, GRAVITY_M_S2)
        self.bullet.setPhysicsEngineParameter(
            fixedTimeStep=substep_s,
            numSolverIterations=SOLVER_ITERATIONS,
            contactBreakingThreshold=CONTACT_BREAKING_M,
            deterministicOverlappingPairs=1,
            enableFileCaching=0,
        )
        self.body, self.joint_index, self.link_index = load_robot(self.bullet, model)
        self._indices = [self.joint_index[name] for name in model.joint_names]
        self._tip_of_link = {self.link_index[tip.link]: i for i, tip in enumerate(model.tips)}

    def _place(self, q_rad: np.ndarray) -> None:
        for index, angle in zip(self._indices, q_rad.tolist()):
            self.bullet.resetJointState(self.body, index, angle, 0.0)

    def _advance(self, substeps: int) -> None:
        # The raw functions with an explicit client: an attribute of BulletClient costs a wrapper per call.
        kernel, body, indices, client = self.kernel, self.body, self._indices, self._client
        apply, tick, read = pybullet.setJointMotorControlArray, pybullet.stepSimulation, pybullet.getJointStates
        kernel_step, torque, mode = kernel.step, kernel.torque_nm, pybullet.TORQUE_CONTROL
        q_rad, qd_rad_s = kernel.q_rad, kernel.qd_rad_s
        for _ in range(substeps):
            kernel_step()
            apply(body, indices, mode, forces=torque.tolist(), physicsClientId=client)
            tick(physicsClientId=client)
            states = read(body, indices, physicsClientId=client)
            q_rad[:] = [s[0] for s in states]
            qd_rad_s[:] = [s[1] for s in states]

    def _tip_forces(self) -> np.ndarray:
        force = np.zeros(len(self._tip_of_link))
        for c in pybullet.getContactPoints(bodyA=self.body, physicsClientId=self._client) or ():
            sides = (c[1], c[3]), (c[2], c[4])  # body and link of either side; c[9] is the normal force
            touched = {self._tip_of_link.get(link, -1) for body, link in sides if body == self.body}
            force[list(touched - {-1})] += c[9]
        return force

    def contacts(self) -> np.ndarray:
        found = []
        for c in pybullet.getContactPoints(bodyA=self.body, physicsClientId=self._client) or ():
            # point on B; normal towards A and its force; two directions of friction and their forces
            force = c[9] * np.array(c[7]) + c[10] * np.array(c[11]) + c[12] * np.array(c[13])
            if c[9] > 0.0:
                found.append([*c[6], *force])
        return np.array(found).reshape(-1, 6)

    def close(self) -> None:
        if self._client >= 0:
            self.bullet.disconnect()
            self._client = -1


_OPEN: "weakref.WeakSet[BulletClient]" = weakref.WeakSet()


def connect() -> BulletClient:
    """A world of its own, without a window."""
    with quiet():
        bullet = BulletClient(connection_mode=pybullet.DIRECT)
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
            baseOrientation=bullet.getQuaternionFromEuler(model.base_rpy_rad),
            useFixedBase=True,
            flags=flags,
        )
    joints, links = {}, {model.base_link: -1}
    for index in range(bullet.getNumJoints(body)):
        info = bullet.getJointInfo(body, index)
        joints[info[1].decode()] = index
        links[info[12].decode()] = index
    for index in joints.values():
        bullet.changeDynamics(
            body,
            index,
            jointDamping=0.0,
            linearDamping=0.0,
            angularDamping=0.0,
            lateralFriction=FRICTION,
            activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING,
        )
        bullet.setJointMotorControl2(body, index, pybullet.VELOCITY_CONTROL, force=0.0)
    touching = {frozenset(pair) for pair in colliding_pairs(model)}
    names = [link.name for link in model.links]
    for i, a in enumerate(names):
        for b in names[:i]:
            bullet.setCollisionFilterPair(body, body, links[a], links[b], int(frozenset((a, b)) in touching))
    return body, joints, links
