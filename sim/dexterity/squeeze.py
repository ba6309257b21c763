"""What to ask the joints for so that the fingers press with given forces: statics through the tendons.

At rest the motors' servos, stretched over cables and pulleys, balance the contacts: K (target - q) + J^T f = 0, with f the force on
the hand at each contact, J its Jacobian, K = sum_i k_i R_i^T R_i the stiffness of servo and cable in series at the joints.
"""

import numpy as np

from robot.description.model import RobotModel
from sim.dexterity.fit import Fit
from sim.dexterity.geometry import HandGeometry

LARGEST_RAD = 0.7  # a target further off than this is a search gone wrong


class Squeeze:
    """Statics of one hand."""

    def __init__(self, model: RobotModel, hand: HandGeometry) -> None:
        self._hand = hand
        self._axes = np.array([model.joints[row].axis for row in hand.joints])
        parent = dict(zip(hand.tree[:, 1].tolist(), hand.tree[:, 0].tolist()))
        joint_of = {int(child): j for j, child in enumerate(hand.tree[:, 1])}
        self._moves = np.zeros((len(hand.links), len(hand.joints)), dtype=bool)
        for link in range(len(hand.links)):
            at = link
            while at in parent:
                self._moves[link, joint_of[at]] = True
                at = parent[at]
        column = {int(row): j for j, row in enumerate(hand.joints)}
        rows, stiffness = [], []
        for tendon in model.tendons:
            arms = np.zeros(len(hand.joints))
            for arm in tendon.arms:
                j = column.get(model.index(arm.joint))
                if j is not None:
                    arms[j] = arm.flexor_m
            if arms.any():
                rows.append(arms)
                stiffness.append(1.0 / (1.0 / tendon.servo_stiffness_n_m + 1.0 / tendon.stiffness_n_m))
        matrix = np.array(rows)
        # A joint that shares its motor with another has no stiffness of its own; the least target does for both.
        self._soft = np.linalg.pinv(matrix.T @ (np.array(stiffness)[:, None] * matrix), rcond=1e-6)

    def target(self, fit: Fit, force_n: float) -> np.ndarray:
        """Targets of the hand's joints for `force_n` times each contact's share, shape (n,) [rad]."""
        hand = self._hand
        rotation, origin = hand.poses(fit.q_rad)
        child = hand.tree[:, 1]
        axes = np.einsum("jab,jb->ja", rotation[child], self._axes)
        torque = np.zeros(len(hand.joints))
        for point, normal, link, share in zip(fit.point_m, fit.normal, fit.link, fit.share):
            force = force_n * share * normal
            lever = np.cross(axes, point - origin[child])
            torque += np.where(self._moves[link], lever @ force, 0.0)
        offset = np.clip(-self._soft @ torque, -LARGEST_RAD, LARGEST_RAD)
        return np.clip(fit.q_rad + offset, hand.lower_rad, hand.upper_rad)
