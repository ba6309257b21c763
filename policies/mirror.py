"""The robot's left-right symmetry, as a signed permutation of its observation and its action.

The mirror is the sagittal plane, y to -y in a frame with x ahead and z up. A joint's mirror image is the one whose name has the other
side; its angle changes sign where the mirrored axis points the other way. Vectors change the sign of y, those of rotation of x and z.
A contract with an element that has no rule here has no mirror: a wrong one would teach a wrong thing in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robot.contract import Contract, Term
from robot.description.model import Joint, RobotModel
from robot.description.rotation import rpy_matrix

OTHER_SIDE = {"left": "right", "right": "left"}
# Of a rotation axis under y -> -y: an axial vector keeps y and turns x and z.
MIRRORED_AXIS = np.array([-1.0, 1.0, -1.0])
ALIGNED = 0.99  # cosine between a mirrored axis and its partner's; a skeleton that is symmetric has 1

Rule = tuple[str, float]  # which element it becomes, with which sign


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Signed permutations: mirrored[i] = sign[i] * x[index[i]].

    Attributes:
        observation_index, observation_sign: shape (n_obs,).
        action_index, action_sign: shape (n_act,).
        seen_index, seen_sign: The same for what a critic sees; None where the privileged part has no rule.
    """

    observation_index: Tensor
    observation_sign: Tensor
    action_index: Tensor
    action_sign: Tensor
    seen_index: Tensor | None = None
    seen_sign: Tensor | None = None

    def observation(self, x: Tensor) -> Tensor:
        """Mirror image of observations, shape (..., n_obs)."""
        return x[..., self.observation_index] * self.observation_sign

    def action(self, x: Tensor) -> Tensor:
        """Mirror image of actions, shape (..., n_act)."""
        return x[..., self.action_index] * self.action_sign

    def seen(self, x: Tensor) -> Tensor:
        """Mirror image of what a critic sees; as it is where there is no rule for all of it."""
        return x if self.seen_index is None or self.seen_sign is None else x[..., self.seen_index] * self.seen_sign


def mirror_of(contract: Contract, model: RobotModel, privileged_names: Sequence[str] = ()) -> Mirror | None:
    """The mirror of a contract on a robot; None where the robot has no two sides, or an element has no rule.

    Args:
        privileged_names: What the critic sees behind the observation.
    """
    joints = joint_signs(model)
    if joints is None:
        return None
    observation: list[tuple[int, float]] = []
    at = 0
    for term in contract.observation:
        frame = term.elements[: term.size // term.history]
        moved = [_found(_rule(term, element, joints), frame) for element in frame]
        if any(place is None for place in moved):
            return None
        for _ in range(term.history):  # each moment by itself
            observation += [(at + place[0], place[1]) for place in moved if place is not None]
            at += len(frame)
    order = contract.action.joints
    action = [_found((swapped(joint), joints[joint]), order) for joint in order]
    if any(place is None for place in action):
        return None
    behind = [_found(rule, privileged_names) if (rule := _named(name)) else None for name in privileged_names]
    whole = None if None in behind else [*observation, *((at + i, sign) for i, sign in behind)]  # type: ignore[misc]
    return Mirror(
        observation_index=_index(observation),
        observation_sign=_sign(observation),
        action_index=_index(action),
        action_sign=_sign(action),
        seen_index=None if whole is None else _index(whole),
        seen_sign=None if whole is None else _sign(whole),
    )


def swapped(name: str) -> str:
    """The name of the other side: "left_knee" -> "right_knee"; as it is where it has no side."""
    for side, other in OTHER_SIDE.items():
        if name.startswith(f"{side}_"):
            return f"{other}_{name.removeprefix(f'{side}_')}"
    return name


def joint_signs(model: RobotModel) -> dict[str, float] | None:
    """Sign of each joint's angle in the mirror; None where the skeleton has no two sides."""
    by_name = {joint.name: joint for joint in model.joints}
    if not any(name.startswith("left_") for name in by_name):
        return None
    axes = _axes(model.joints)
    signs = {}
    for name in by_name:
        if swapped(name) not in by_name:
            return None
        cosine = float(axes[swapped(name)] @ (MIRRORED_AXIS * axes[name]))
        if abs(cosine) < ALIGNED:
            return None
        signs[name] = float(np.sign(cosine))
    return signs


def _axes(joints: Sequence[Joint]) -> dict[str, np.ndarray]:
    """Axis of each joint in the root's frame, all joints at zero."""
    by_child = {joint.child: joint for joint in joints}

    def frame(link: str) -> np.ndarray:
        joint = by_child.get(link)
        return np.eye(3) if joint is None else frame(joint.parent) @ rpy_matrix(joint.rpy_rad)

    return {joint.name: frame(joint.child) @ np.array(joint.axis) for joint in joints}


def _rule(term: Term, element: str, joints: dict[str, float]) -> Rule | None:
    """What an element of a term becomes."""
    if term.name == "gait_phase":  # the other foot's turn is half a period later: sine and cosine change sign
        return element, -1.0
    if element in joints:
        return swapped(element), joints[element]
    return _named(element, term.name)


# Vectors in a frame that turns with the robot: sign of each component. Angular ones are those with one of these words in their name.
POLAR, AXIAL = {"x": 1.0, "y": -1.0, "z": 1.0}, {"x": -1.0, "y": 1.0, "z": -1.0}
AXIAL_WORDS = ("gyro", "angular", "torque", "rotation")
# Elements that stand for themselves, by their last word.
SINGLE = {"forward": 1.0, "sideways": -1.0, "yaw": -1.0, "roll": -1.0, "pitch": 1.0, "height": 1.0}


def _named(element: str, term: str = "") -> Rule | None:
    """What an element becomes by its name alone: "left_foot.x", "gravity.y", "gait.sin"."""
    stem, _, last = element.rpartition(".")
    vector = AXIAL if any(word in f"{term}.{stem}" for word in AXIAL_WORDS) else POLAR
    sign = vector.get(last, SINGLE.get(last))
    if sign is None:
        return (swapped(element), 1.0) if swapped(element) != element else None
    return (f"{swapped(stem)}.{last}" if stem else last), sign


def _found(rule: Rule | None, elements: Sequence[str]) -> tuple[int, float] | None:
    if rule is None or rule[0] not in elements:
        return None
    return list(elements).index(rule[0]), rule[1]


def _index(places: Sequence[tuple[int, float] | None]) -> Tensor:
    return torch.tensor([place[0] for place in places if place is not None])


def _sign(places: Sequence[tuple[int, float] | None]) -> Tensor:
    return torch.tensor([place[1] for place in places if place is not None], dtype=torch.float32)
