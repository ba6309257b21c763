"""Where the fingertips are for given joint angles: forward kinematics of all tips at once, in numpy.

Used by the contract, so that the environment and the robot compute the same tip positions from the same encoders.
Eq. 1: T_tip = prod_k [R0_k Rot(a_k, q_k) | p0_k], Rot(a, q) = I + sin q [a]x + (1 - cos q) [a]x^2 (Rodrigues).
"""

from typing import NamedTuple

import numpy as np

from robot.description.model import Joint, RobotModel
from robot.description.rotation import rpy_matrix
from robot.errors import UnknownNameError


def chain(model: RobotModel, link: str, root: str) -> list[Joint]:
    """Joints on the way from `root` to `link`, root first.

    Raises:
        UnknownNameError: `root` is not an ancestor of `link`.
    """
    by_child = {joint.child: joint for joint in model.joints}
    path: list[Joint] = []
    at = link
    while at != root:
        if at not in by_child:
            ancestors = [joint.parent for joint in path]
            raise UnknownNameError(f"ancestor of link {link}", root, ancestors)
        path.append(by_child[at])
        at = by_child[at].parent
    return path[::-1]


class Tables(NamedTuple):
    """The constants of Eq. 1, the first two axes depth and tip: which joint, whether it turns, R0, R0 [a]x, R0 [a]x^2, p0; and the
    tips' offsets. For code that computes the same elsewhere.
    """

    joint: np.ndarray
    moves: np.ndarray
    fixed: np.ndarray
    fixed_a: np.ndarray
    fixed_aa: np.ndarray
    origin: np.ndarray
    offset: np.ndarray


class TipKinematics:
    """Forward kinematics of every fingertip of a model, in the frame of one link.

    Args:
        model: The robot.
        frame: Link whose frame positions are given in; every tip must hang below it.
    """

    def __init__(self, model: RobotModel, frame: str = "palm") -> None:
        paths = [chain(model, tip.link, frame) for tip in model.tips]
        depth, n_tips = max(map(len, paths), default=0), len(paths)
        # Shorter chains are padded at the root with joints that do not turn, so all tips advance together.
        self._joint = np.zeros((depth, n_tips), dtype=np.intp)
        self._moves = np.zeros((depth, n_tips))
        self._axis_x = np.zeros((depth, n_tips, 3, 3))
        self._fixed = np.broadcast_to(np.eye(3), (depth, n_tips, 3, 3)).copy()
        self._origin = np.zeros((depth, n_tips, 3))
        for t, path in enumerate(paths):
            for d, joint in enumerate(path, start=depth - len(path)):
                x, y, z = joint.axis
                self._joint[d, t] = model.index(joint.name)
                self._moves[d, t] = 1.0
                self._axis_x[d, t] = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
                self._fixed[d, t] = rpy_matrix(joint.rpy_rad)
                self._origin[d, t] = joint.origin_m
        # R0 (I + sin q A + (1 - cos q) A^2), folded into three constant stacks
        self._fixed_a = self._fixed @ self._axis_x
        self._fixed_aa = self._fixed_a @ self._axis_x
        self._offset = np.array([tip.offset_m for tip in model.tips]).reshape(n_tips, 3, 1)
        self._axis = np.stack([self._axis_x[..., 2, 1], self._axis_x[..., 0, 2], self._axis_x[..., 1, 0]], axis=-1)
        self.tip_names = model.tip_names
        self.n_joints = len(model.joints)

    @property
    def tables(self) -> Tables:
        return Tables(
            self._joint, self._moves, self._fixed, self._fixed_a, self._fixed_aa, self._origin, self._offset[..., 0]
        )

    def _turns(self, q_rad: np.ndarray) -> np.ndarray:
        angle = q_rad[self._joint] * self._moves  # (depth, n_tips)
        sin, versin = np.sin(angle), 1.0 - np.cos(angle)
        return self._fixed + sin[..., None, None] * self._fixed_a + versin[..., None, None] * self._fixed_aa

    def positions(self, q_rad: np.ndarray) -> np.ndarray:
        """Tip positions for joint angles of shape (n_joints,) [rad], shape (n_tips, 3) [m]."""
        turns = self._turns(q_rad)
        p = self._offset
        for d in range(turns.shape[0] - 1, -1, -1):  # from the tip back to the root: p <- R p + o
            p = turns[d] @ p + self._origin[d, :, :, None]
        return p[..., 0]

    def jacobian(self, q_rad: np.ndarray) -> np.ndarray:
        """d positions / d q, shape (n_tips, 3, n_joints) [m/rad]. Column j is axis_j x (p_tip - p_joint)."""
        turns = self._turns(q_rad)
        depth, n_tips = turns.shape[:2]
        rotation = np.broadcast_to(np.eye(3), (n_tips, 3, 3))
        origin = np.zeros((n_tips, 3))
        axes, origins = np.zeros((depth, n_tips, 3)), np.zeros((depth, n_tips, 3))
        for d in range(depth):
            origin = origin + (rotation @ self._origin[d, :, :, None])[..., 0]
            rotation = rotation @ turns[d]
            axes[d] = (rotation @ self._axis[d, :, :, None])[..., 0]  # an axis is fixed by its own turn
            origins[d] = origin
        tip = origin + (rotation @ self._offset)[..., 0]
        columns = np.cross(axes, tip[None] - origins) * self._moves[..., None]  # (depth, n_tips, 3)
        jacobian = np.zeros((n_tips, 3, self.n_joints))
        for d in range(depth):
            for t in range(n_tips):
                if self._moves[d, t]:
                    jacobian[t, :, self._joint[d, t]] += columns[d, t]
        return jacobian


__all__ = ["TipKinematics", "chain", "rpy_matrix"]
