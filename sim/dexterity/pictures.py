"""Pictures of a hand with an object, drawn by PyBullet's software renderer from joint angles and a pose."""

import base64
import io

import numpy as np

from robot.description.model import RobotModel
from sim.bodies import Body
from sim.camera import SUPERSAMPLE
from sim.scene import LinkPoses

SIZE_PX = (300, 260)
EYE_M, LOOK_M = (0.20, 0.06, 0.24), (0.008, 0.085, 0.035)  # in the palm frame: from the thumb's side and above
COLOR = (0.96, 0.62, 0.22, 1.0)


class Album:
    """One hand before the camera."""

    def __init__(self, model: RobotModel) -> None:
        from sim.engines.pybullet_world import connect, load_robot, pybullet

        self._pybullet = pybullet
        self._bullet = connect()
        self._hand, joints, _ = load_robot(self._bullet, model)
        self._indices = [joints[name] for name in model.joint_names]
        self._poses = LinkPoses(model)
        self._palm = self._poses.names.index("palm")

    def picture(self, q_rad: np.ndarray, body: Body | None = None, pose: np.ndarray | None = None) -> np.ndarray:
        """A posture, perhaps with an object at a pose in the world, shape (height, width, 3), uint8."""
        from sim.engines.pybullet_world import load_body

        bullet = self._bullet
        for index, angle in zip(self._indices, q_rad.tolist()):
            bullet.resetJointState(self._hand, index, angle)
        made = None
        if body is not None and pose is not None:
            made = load_body(bullet, body)
            com = bullet.getDynamicsInfo(made, -1)[3]  # Bullet places the centre of mass, a pose here the frame
            at, turn = bullet.multiplyTransforms(pose[:3].tolist(), pose[3:].tolist(), com, (0.0, 0.0, 0.0, 1.0))
            bullet.resetBasePositionAndOrientation(made, at, turn)
            bullet.changeVisualShape(made, -1, rgbaColor=COLOR)
        rotation, origin = self._poses.at(q_rad)
        turn, at = rotation[self._palm], origin[self._palm]
        eye, look = at + turn @ np.array(EYE_M), at + turn @ np.array(LOOK_M)
        view = bullet.computeViewMatrix(eye.tolist(), look.tolist(), turn[:, 1].tolist())
        width, height = SIZE_PX[0] * SUPERSAMPLE, SIZE_PX[1] * SUPERSAMPLE
        _, _, rgba, _, _ = bullet.getCameraImage(
            width,
            height,
            view,
            bullet.computeProjectionMatrixFOV(42.0, width / height, 0.02, 2.0),
            shadow=0,
            lightDirection=(turn @ np.array([0.5, -0.3, 1.0])).tolist(),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.55,
            lightSpecularCoeff=0.15,
            renderer=self._pybullet.ER_TINY_RENDERER,
        )
        if made is not None:
            bullet.removeBody(made)
        image = np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3].astype(np.float32)
        return image.reshape(SIZE_PX[1], SUPERSAMPLE, SIZE_PX[0], SUPERSAMPLE, 3).mean(axis=(1, 3)).astype(np.uint8)

    def close(self) -> None:
        self._bullet.disconnect()


def as_data_uri(picture: np.ndarray) -> str:
    """A picture as text that a page can hold."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
