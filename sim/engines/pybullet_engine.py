"""A robot in PyBullet: torque mode, every motor of the engine off, the transmission in between.

Joints are loaded without limits, because each active motor and limit is a row for the multibody solver; stops are in the
transmission. PyBullet has no armature, so a joint's share of reflected inertia is added to its link about the joint's axis.
"""

from collections.abc import Sequence
from operator import itemgetter
from struct import Struct

import numpy as np

from robot.description.model import RobotModel
from robot.transmission import Parameters
from sim.bodies import as_quat
from sim.engines.pybullet_world import (
    base_inertial,
    connect,
    heightfield,
    inertial_pose,
    load_body,
    load_ground,
    load_robot,
    pybullet,
    set_friction,
)
from sim.engines.robot import SKIN_FRICTION, SimulatedRobot
from sim.world import GROUND, NOTHING, ROBOT_ITSELF, Contacts, Variation, World, quat_matrix, rotated, turned

GRAVITY_M_S2 = -9.81
SOLVER_ITERATIONS = 10
CONTACT_BREAKING_M = 0.002  # the default of 20 mm is as large as a finger and keeps contacts that are none


class PyBulletRobot(SimulatedRobot):
    """One robot and its world in one PyBullet client of its own. Arguments as `SimulatedRobot`."""

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
        self._ground, self._field = load_ground(self.bullet, self.world)
        self._ground_seed = self.world.ground.seed
        self.body, self.joint_index, self.link_index = load_robot(self.bullet, model)
        self._indices = [self.joint_index[name] for name in model.joint_names]
        self._write = Struct(
            f"{2 * len(self._indices)}d"
        ).pack_into  # numbers into an array, in half the time of an assignment
        self._link_rows = [self.link_index[link.name] for link in model.links]
        self._row_of_link = {index: row for row, index in enumerate(self._link_rows)}
        self._tip_of_link = {self.link_index[tip.link]: i for i, tip in enumerate(model.tips)}
        self._link_mass = [self._mass(self.body, index) for index in self._link_rows]
        self._base_inertial = base_inertial(model)
        self._bodies = [load_body(self.bullet, body) for body in self.world.bodies]
        self._scales = np.ones(len(self.world.bodies))
        self._inertials = [body.inertial[:2] for body in self.world.bodies]
        self._free = [i for i, body in enumerate(self.world.bodies) if not body.fixed]
        self._poses = self.world.start_poses
        self._masses_varied = False
        self._apply(Variation())

    def _mass(self, body: int, link: int) -> tuple[float, tuple[float, ...]]:
        """Mass and principal moments as loaded."""
        info = self.bullet.getDynamicsInfo(body, link)
        return info[0], info[2]

    def _set_mass(
        self, body: int, link: int, nominal: tuple[float, tuple[float, ...]], factor: float, spread: float
    ) -> None:
        mass, moments = nominal
        self.bullet.changeDynamics(
            body, link, mass=factor * mass, localInertiaDiagonal=[factor * spread * x for x in moments]
        )

    def _apply(self, variation: Variation) -> None:
        world, bullet = self.world, self.bullet
        if variation.link_mass_factor is not None or self._masses_varied:
            self._masses_varied = variation.link_mass_factor is not None
            factors = (
                np.ones(len(self._link_rows)) if variation.link_mass_factor is None else variation.link_mass_factor
            )
            for index, nominal, factor in zip(self._link_rows, self._link_mass, factors.tolist()):
                self._set_mass(self.body, index, nominal, factor, 1.0)
        robot = SKIN_FRICTION if variation.robot_friction is None else variation.robot_friction
        set_friction(bullet, self.body, range(-1, len(self._indices)), robot)
        for made in self._ground:
            ground = world.ground.friction if variation.ground_friction is None else variation.ground_friction
            set_friction(bullet, made, range(-1, 0), ground)
        self._resize(variation.body_scale)
        for i, body in enumerate(world.bodies):
            friction = body.friction if variation.body_friction is None else float(variation.body_friction[i])
            set_friction(bullet, self._bodies[i], range(-1, 0), friction)
            if not body.fixed:
                factor = 1.0 if variation.body_mass_factor is None else float(variation.body_mass_factor[i])
                moments = body.inertial[2]
                self._set_mass(self._bodies[i], -1, (body.mass_kg, tuple(moments)), factor, float(self._scales[i]) ** 2)

    def _resize(self, scale: np.ndarray | None) -> None:
        """Bodies of another size are loaded anew: all from the first that changes, so that ids keep their order."""
        wanted = np.ones(len(self.world.bodies)) if scale is None else scale
        changed = np.flatnonzero(wanted != self._scales)
        if not len(changed):
            return
        for i in range(changed[0], len(wanted)):
            self.bullet.removeBody(self._bodies[i])
        for i in range(changed[0], len(wanted)):
            body = self.world.bodies[i]
            body = body if wanted[i] == 1.0 else body.scaled(float(wanted[i]))
            self._bodies[i], self._inertials[i] = load_body(self.bullet, body), body.inertial[:2]
        self._scales = np.array(wanted, dtype=np.float64)

    def _place(
        self,
        q_rad: np.ndarray,
        qd_rad_s: np.ndarray,
        base: Sequence[np.ndarray],
        body_poses: np.ndarray,
        ground_seed: int,
    ) -> None:
        bullet = self.bullet
        self._forget_contacts()
        if self._field is not None and ground_seed != self._ground_seed:
            heightfield(bullet, self.world.ground.heights_m(ground_seed), self._field)
            self._ground_seed = ground_seed
        for index, angle, speed in zip(self._indices, q_rad.tolist(), qd_rad_s.tolist()):
            bullet.resetJointState(self.body, index, angle, speed)
        if self._model.floating:
            position, quat, velocity, gyro = base
            com, turn = self._base_inertial
            bullet.resetBasePositionAndOrientation(self.body, *inertial_pose(position, quat, com, turn))
            bullet.resetBaseVelocity(self.body, (velocity + np.cross(gyro, rotated(quat, com))).tolist(), gyro.tolist())
        for made, pose, (com, turn) in zip(self._bodies, body_poses, self._inertials):
            bullet.resetBasePositionAndOrientation(made, *inertial_pose(pose[:3], pose[3:], com, turn))
            bullet.resetBaseVelocity(made, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        self._poses = body_poses

    def _forget_contacts(self) -> None:
        """Let the broadphase make all its pairs anew, in one order.

        Without it the contacts come to the solver in an order that depends on who touched whom in earlier episodes.
        Setting a filter, even to what it was, makes Bullet take the object out of the broadphase and put it in again.
        """
        set_filter = pybullet.setCollisionFilterGroupMask
        for body, link, group, mask in self._colliders():
            set_filter(body, link, group, mask, physicsClientId=self._client)

    def _colliders(self) -> list[tuple[int, int, int, int]]:
        """Body, link, and Bullet's default filter group and mask of everything that collides: 1 moves, 2 does not."""
        moves, stands = (1, -1), (2, -1 ^ 2)
        base = moves if self._model.floating else stands
        solid = [link for link in self._model.links if any(geom.collides for geom in link.geoms)]
        found = [(made, -1, *stands) for made in self._ground]
        indices = [self.link_index[link.name] for link in solid]
        found += [(self.body, index, *(base if index == -1 else moves)) for index in indices]
        found += [(made, -1, *(stands if body.fixed else moves)) for made, body in zip(self._bodies, self.world.bodies)]
        return found

    def _advance(self, substeps: int) -> None:
        # The raw functions with an explicit client: an attribute of BulletClient costs a wrapper per call.
        kernel, body, indices, client = self.kernel, self.body, self._indices, self._client
        apply, tick, read = pybullet.setJointMotorControlArray, pybullet.stepSimulation, pybullet.getJointStates
        kernel_step, torque, mode = kernel.step, kernel.torque_nm, pybullet.TORQUE_CONTROL
        write, joints, angle, speed = self._write, kernel.joints.data.cast("B"), itemgetter(0), itemgetter(1)
        for _ in range(substeps):
            kernel_step()
            apply(body, indices, mode, forces=torque.tolist(), physicsClientId=client)
            if self._pushes:
                self._apply_pushes()
            tick(physicsClientId=client)
            states = read(body, indices, physicsClientId=client)
            write(joints, 0, *map(angle, states), *map(speed, states))

    def _apply_pushes(self) -> None:
        """Bullet forgets external forces after each substep."""
        names = {body.name: made for body, made in zip(self.world.bodies, self._bodies)}
        for push in self._pushes:
            body, link = (names[push.on], -1) if push.on in names else (self.body, self.link_index[push.on])
            if link == -1:
                centre = pybullet.getBasePositionAndOrientation(body, physicsClientId=self._client)[0]
            else:
                centre = pybullet.getLinkState(body, link, computeForwardKinematics=1, physicsClientId=self._client)[0]
            force = np.asarray(push.force_n, dtype=np.float64)
            arm = np.zeros(3) if push.at_m is None else push.at_m - np.array(centre)
            torque = push.torque_nm + np.cross(arm, force)
            frame = pybullet.WORLD_FRAME
            pybullet.applyExternalForce(body, link, force.tolist(), centre, frame, physicsClientId=self._client)
            if torque.any():
                pybullet.applyExternalTorque(body, link, torque.tolist(), frame, physicsClientId=self._client)

    def _read(self) -> None:
        if self._model.floating:
            base = self._frame_of(self.body, *self._base_inertial)
            (x, y, z, w), gyro = base[1], base[3]
            self._base, self._gyro = tuple(map(np.array, base)), np.array(turned(-x, -y, -z, w, *gyro))
        if self._free:
            self._body_pose, self._body_twist = self._read_bodies()
        else:
            self._body_pose, self._body_twist = self._poses.copy(), np.zeros((len(self._poses), 6))
        self._tips_n = self._tip_forces()

    def _frame_of(
        self, body: int, com: np.ndarray, turn: np.ndarray
    ) -> tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]:
        """Position, quaternion, velocity and angular velocity of a base's frame, from those of its centre of mass."""
        (px, py, pz), quat = pybullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
        (vx, vy, vz), gyro = pybullet.getBaseVelocity(body, physicsClientId=self._client)
        if turn[0, 0] != 1.0 or turn[1, 1] != 1.0:
            quat = as_quat(quat_matrix(np.array(quat)) @ turn.T).tolist()
        (a, b, c), (x, y, z) = turned(*quat, *com.tolist()), gyro
        # v_frame = v_centre - w x offset; np.cross costs more than all of this
        return (px - a, py - b, pz - c), quat, (vx - (y * c - z * b), vy - (z * a - x * c), vz - (x * b - y * a)), gyro

    def _read_bodies(self) -> tuple[np.ndarray, np.ndarray]:
        pose, twist = self._poses.copy(), np.zeros((len(self.world.bodies), 6))
        for i in self._free:
            com, turn = self._inertials[i]
            position, quat, velocity, gyro = self._frame_of(self._bodies[i], com, turn)
            pose[i], twist[i] = (*position, *quat), (*velocity, *gyro)
        return pose, twist

    def _tip_forces(self) -> np.ndarray:
        force, body, tip_of = [0.0] * len(self._tip_of_link), self.body, self._tip_of_link
        for c in pybullet.getContactPoints(bodyA=body, physicsClientId=self._client) or ():
            # c[3] is the robot's link, c[2] and c[4] body and link of the other side; c[9] is the normal force
            tip = tip_of.get(c[3])
            if tip is not None:
                force[tip] += c[9]
            if c[2] == body and (tip := tip_of.get(c[4])) is not None:
                force[tip] += c[9]
        return np.array(force)

    def contacts(self) -> Contacts:
        row_of, rows, found = self._row_of_link, [], []
        thing = {made: i for i, made in enumerate(self._bodies)} | {self.body: ROBOT_ITSELF}
        for c in pybullet.getContactPoints(bodyA=self.body, physicsClientId=self._client) or ():
            if c[9] <= 0.0:
                continue
            # A is the robot: points on A and B; normal towards A and its force; two directions of friction and their forces
            normal = np.array(c[7])
            force = c[9] * normal + c[10] * np.array(c[11]) + c[12] * np.array(c[13])
            middle = 0.5 * (np.array(c[5]) + np.array(c[6]))
            other = thing.get(c[2], GROUND)
            itself = other == ROBOT_ITSELF
            rows.append((row_of[c[3]], other, row_of[c[4]] if itself else NOTHING))
            found.append([*middle, *normal, *force, c[9]])
            if itself:
                rows.append((row_of[c[4]], other, row_of[c[3]]))
                found.append([*middle, *-normal, *-force, c[9]])
        return Contacts.of(rows, np.array(found))

    def _links(self) -> tuple[np.ndarray, np.ndarray]:
        moving = [index for index in self._link_rows if index >= 0]
        states = pybullet.getLinkStates(self.body, moving, computeForwardKinematics=1, physicsClientId=self._client)
        rotation, origin = np.zeros((len(self._link_rows), 3, 3)), np.zeros((len(self._link_rows), 3))
        position, quat, _, _ = self._base
        for row, index in enumerate(self._link_rows):
            state = states[moving.index(index)] if index >= 0 else None
            rotation[row] = quat_matrix(quat if state is None else np.array(state[5]))
            origin[row] = position if state is None else state[4]
        return rotation, origin

    def close(self) -> None:
        if self._client >= 0:
            self.bullet.disconnect()
            self._client = -1
