"""Pictures of a simulated hand without a display.

Whatever engine simulates, the picture is drawn by PyBullet's TinyRenderer from the joint angles: one look, and no OpenGL.
"""

from functools import cache
from typing import Any

import numpy as np

from robot.description import load

GOAL_RADIUS_M = 0.006
GOAL_COLORS = ((0.93, 0.33, 0.31), (0.98, 0.75, 0.18), (0.40, 0.73, 0.42), (0.26, 0.65, 0.96), (0.67, 0.28, 0.74))
LOOK_AT_M = (0.0, 0.30, 0.01)  # the middle of the palm, with the forearm along y
SUPERSAMPLE = 2  # TinyRenderer has no anti-aliasing


class Studio:
    """A scene of its own in which a posture is drawn."""

    def __init__(self, robot: str) -> None:
        from sim.engines.pybullet_world import connect, load_robot, pybullet

        self._pybullet = pybullet
        self.bullet = connect()
        self.model = load(robot)
        self.body, joints, links = load_robot(self.bullet, self.model)
        self._indices = [joints[name] for name in self.model.joint_names]
        self._palm = links.get("palm", -1)
        self._goals: list[int] = []

    def picture(
        self,
        q_rad: np.ndarray,
        goals_m: np.ndarray,
        size_px: tuple[int, int],
        *,
        yaw_deg: float = 325.0,
        pitch_deg: float = -36.0,
        distance_m: float = 0.34,
    ) -> np.ndarray:
        """The hand in a posture with goals as coloured balls, shape (height, width, 3), uint8.

        Args:
            q_rad: Joint angles, shape (n_joints,).
            goals_m: Points in the palm frame, shape (n, 3).
        """
        bullet = self.bullet
        for index, angle in zip(self._indices, q_rad.tolist()):
            bullet.resetJointState(self.body, index, angle)
        self._place_goals(goals_m)
        width, height = size_px[0] * SUPERSAMPLE, size_px[1] * SUPERSAMPLE
        view = bullet.computeViewMatrixFromYawPitchRoll(LOOK_AT_M, distance_m, yaw_deg, pitch_deg, 0.0, 2)
        projection = bullet.computeProjectionMatrixFOV(45.0, width / height, 0.02, 2.0)
        _, _, rgba, _, _ = bullet.getCameraImage(
            width,
            height,
            view,
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

    def _place_goals(self, goals_m: np.ndarray) -> None:
        bullet = self.bullet
        while len(self._goals) < len(goals_m):
            color = (*GOAL_COLORS[len(self._goals) % len(GOAL_COLORS)], 1.0)
            shape = bullet.createVisualShape(self._pybullet.GEOM_SPHERE, radius=GOAL_RADIUS_M, rgbaColor=color)
            self._goals.append(bullet.createMultiBody(baseVisualShapeIndex=shape))
        state = bullet.getLinkState(self.body, self._palm, computeForwardKinematics=1)
        rotation = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        for ball, point in zip(self._goals, goals_m @ rotation.T + np.array(state[4])):
            bullet.resetBasePositionAndOrientation(ball, point.tolist(), (0.0, 0.0, 0.0, 1.0))


@cache
def studio(robot: str) -> Studio:
    """The one studio of a robot in this process."""
    return Studio(robot)


def picture(backend: Any, size_px: tuple[int, int], *, goals_m: np.ndarray) -> np.ndarray:
    """The hand of a backend as it is now, shape (height, width, 3), uint8."""
    return studio(backend.model.name).picture(backend.kernel.q_rad, goals_m, size_px)
