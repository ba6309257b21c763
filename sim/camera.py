"""Pictures of a simulated robot and what is around it, without a display.

Whatever engine simulates, the picture is drawn by PyBullet's TinyRenderer from the joint angles: one look, and no OpenGL.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from robot.description import load
from sim.scene import TILE_M, tiles
from sim.world import World

if TYPE_CHECKING:
    from sim.engines.robot import SimulatedRobot

NOTHING_THERE = World()

GOAL_RADIUS_M = 0.006
GOAL_COLORS = ((0.93, 0.33, 0.31), (0.98, 0.75, 0.18), (0.40, 0.73, 0.42), (0.26, 0.65, 0.96), (0.67, 0.28, 0.74))
LOOK_AT_M = (0.0, 0.30, 0.01)  # the middle of the palm, with the forearm along y
FLOOR = ((0.30, 0.32, 0.36, 1.0), (0.42, 0.44, 0.48, 1.0))


@dataclass(frozen=True, kw_only=True)
class View:
    """From where a picture is taken. `look_at_m` is in the world, or from the base of a floating robot, whose heading it keeps out of."""

    look_at_m: tuple[float, float, float]
    distance_m: float
    yaw_deg: float
    pitch_deg: float
    far_m: float


HAND_VIEW = View(look_at_m=LOOK_AT_M, distance_m=0.34, yaw_deg=325.0, pitch_deg=-36.0, far_m=2.0)
BODY_VIEW = View(look_at_m=(0.0, 0.0, -0.05), distance_m=2.6, yaw_deg=35.0, pitch_deg=-12.0, far_m=12.0)
SUPERSAMPLE = 2  # TinyRenderer has no anti-aliasing


class Studio:
    """A scene of its own in which a posture is drawn."""

    def __init__(self, robot: str, world: World) -> None:
        from sim.engines.pybullet_world import base_inertial, connect, load_body, load_robot, pybullet

        self._pybullet = pybullet
        self.bullet = connect()
        self.model = load(robot)
        self.body, joints, links = load_robot(self.bullet, self.model)
        self._indices = [joints[name] for name in self.model.joint_names]
        self._palm = links.get("palm", -1)
        self._goals: list[int] = []
        self.world, self._base = world, base_inertial(self.model)
        self._bodies = [load_body(self.bullet, body) for body in world.bodies]
        self._floor = (
            [self._tiles(*each) for each in zip(tiles(0.0, 0.0), FLOOR)] if world.ground.kind != "none" else []
        )

    def _tiles(self, squares: tuple[np.ndarray, np.ndarray], color: tuple[float, ...]) -> int:
        vertices, faces = squares
        shape = self.bullet.createVisualShape(
            self._pybullet.GEOM_MESH,
            vertices=vertices.tolist(),
            indices=faces.reshape(-1).tolist(),
            normals=[(0.0, 0.0, 1.0)] * len(vertices),
            rgbaColor=color,
        )
        return self.bullet.createMultiBody(baseVisualShapeIndex=shape)

    def picture(
        self,
        q_rad: np.ndarray,
        goals_m: np.ndarray,
        size_px: tuple[int, int],
        *,
        base_pose: np.ndarray | None = None,
        body_poses: np.ndarray | None = None,
        view: View | None = None,
    ) -> np.ndarray:
        """The robot in a posture with goals as coloured balls, shape (height, width, 3), uint8.

        Args:
            q_rad: Joint angles, shape (n_joints,).
            goals_m: Points in the palm frame, shape (n, 3).
            base_pose: x y z, qx qy qz qw of a floating base, shape (7,); standing at its place when None.
            body_poses: The same of every body of the world, shape (n, 7); as described when None.
            view: From where; a hand from near, a body from further away, when None.
        """
        bullet, view = self.bullet, view or (BODY_VIEW if self.model.floating else HAND_VIEW)
        for index, angle in zip(self._indices, q_rad.tolist()):
            bullet.resetJointState(self.body, index, angle)
        look_at = np.array(view.look_at_m)
        if self.model.floating:
            pose = (
                np.array([0.0, 0.0, self.model.base_height_m, 0.0, 0.0, 0.0, 1.0]) if base_pose is None else base_pose
            )
            self._put(self.body, pose, *self._base)
            look_at = look_at + pose[:3]
            for floor in self._floor:  # its squares seem to stay where they are
                x, y = (2.0 * TILE_M * np.round(pose[:2] / (2.0 * TILE_M))).tolist()
                bullet.resetBasePositionAndOrientation(floor, (x, y, 0.0), (0.0, 0.0, 0.0, 1.0))
        poses = self.world.start_poses if body_poses is None else body_poses
        for made, body, pose in zip(self._bodies, self.world.bodies, poses):
            self._put(made, pose, *body.inertial[:2])
        self._place_goals(goals_m)
        width, height = size_px[0] * SUPERSAMPLE, size_px[1] * SUPERSAMPLE
        camera = bullet.computeViewMatrixFromYawPitchRoll(
            look_at.tolist(), view.distance_m, view.yaw_deg, view.pitch_deg, 0.0, 2
        )
        projection = bullet.computeProjectionMatrixFOV(45.0, width / height, 0.02, view.far_m)
        _, _, rgba, _, _ = bullet.getCameraImage(
            width,
            height,
            camera,
            projection,
            shadow=0,
            lightDirection=(0.4, -0.3, 1.0),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.55,
            lightSpecularCoeff=0.15,
            renderer=self._pybullet.ER_TINY_RENDERER,
        )
        image = np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3].astype(np.float32)
        small = image.reshape(size_px[1], SUPERSAMPLE, size_px[0], SUPERSAMPLE, 3).mean(axis=(1, 3))
        return small.astype(np.uint8)

    def _put(self, body: int, pose: np.ndarray, com_m: np.ndarray, turn: np.ndarray) -> None:
        """Place something by its frame, where Bullet wants its inertial frame."""
        from sim.engines.pybullet_world import inertial_pose

        self.bullet.resetBasePositionAndOrientation(body, *inertial_pose(pose[:3], pose[3:], com_m, turn))

    def _place_goals(self, goals_m: np.ndarray) -> None:
        bullet = self.bullet
        while len(self._goals) < len(goals_m):
            color = (*GOAL_COLORS[len(self._goals) % len(GOAL_COLORS)], 1.0)
            shape = bullet.createVisualShape(self._pybullet.GEOM_SPHERE, radius=GOAL_RADIUS_M, rgbaColor=color)
            self._goals.append(bullet.createMultiBody(baseVisualShapeIndex=shape))
        if not self._goals:
            return
        state = bullet.getLinkState(self.body, self._palm, computeForwardKinematics=1)
        rotation = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        for ball, point in zip(self._goals, goals_m @ rotation.T + np.array(state[4])):
            bullet.resetBasePositionAndOrientation(ball, point.tolist(), (0.0, 0.0, 0.0, 1.0))


@cache
def studio(robot: str, world: World = NOTHING_THERE) -> Studio:
    """The one studio of a robot and a world in this process."""
    return Studio(robot, world)


def picture(
    backend: "SimulatedRobot", size_px: tuple[int, int], *, goals_m: np.ndarray, view: View | None = None
) -> np.ndarray:
    """The robot of a backend and what is around it as they are now, shape (height, width, 3), uint8."""
    truth = backend.world_state()
    base_pose = np.concatenate([truth.base_position_m, truth.base_quat_xyzw])
    return studio(backend.model.name, backend.world).picture(
        backend.kernel.q_rad, goals_m, size_px, base_pose=base_pose, body_poses=truth.body_pose, view=view
    )
