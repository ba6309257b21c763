"""The mirror: twice is nothing, joints go by their axes, and what has no rule has no mirror."""

import numpy as np
import pytest
import torch

from policies.mirror import joint_signs, mirror_of, swapped
from robot.contract import ActionTerm, Contract, Term
from robot.description import load
from robot.kinematics import TipKinematics
from sim.tasks.hand_reach import HandReach

BODY = load("body28")


def body_contract(*extra: tuple[str, tuple[str, ...]]) -> Contract:
    joints = BODY.joint_names
    n = len(joints)
    terms = [("joint_position", joints), ("previous_action", joints), *extra]
    return Contract(
        env_id="flexor/Test-v0",
        robot=BODY.name,
        robot_sha256=BODY.sha256,
        joint_names=joints,
        home_rad=tuple(BODY.home_rad.tolist()),
        control_hz=50.0,
        observation=tuple(
            Term(name=name, elements=e, unit="1", frame="joint", low=(-9.0,) * len(e), high=(9.0,) * len(e))
            for name, e in terms
        ),
        action=ActionTerm(
            joints=joints,
            mode="absolute",
            scale_rad=(0.5,) * n,
            offset_rad=(0.0,) * n,
            lower_rad=(-1.0,) * n,
            upper_rad=(1.0,) * n,
        ),
    )


def test_mirrored_joint_angles_give_mirrored_feet_and_hands():
    signs = joint_signs(BODY)
    assert signs is not None
    q = np.random.default_rng(0).uniform(-0.5, 0.5, len(BODY.joints))
    mirrored = np.array([signs[name] * q[BODY.index(swapped(name))] for name in BODY.joint_names])
    tips = TipKinematics(BODY, frame=BODY.links[0].name)
    ours, theirs = tips.positions(q), tips.positions(mirrored)
    for i, name in enumerate(tips.tip_names):
        other = tips.tip_names.index(swapped(name))
        np.testing.assert_allclose(theirs[other], ours[i] * [1.0, -1.0, 1.0], atol=1e-9)


def test_a_mirror_twice_is_nothing():
    extra = ("gravity", ("gravity.x", "gravity.y", "gravity.z"))
    mirror = mirror_of(body_contract(extra), BODY, ("left_foot.force", "right_foot.force"))
    assert mirror is not None
    assert mirror.seen_index is not None
    x = torch.randn(5, len(mirror.seen_index))
    torch.testing.assert_close(mirror.seen(mirror.seen(x)), x)
    action = torch.randn(5, 28)
    torch.testing.assert_close(mirror.action(mirror.action(action)), action)


def test_vectors_turn_by_what_they_are():
    polar = ("accelerometer", ("x", "y", "z"))
    axial = ("gyro", ("x", "y", "z"))
    mirror = mirror_of(body_contract(polar, axial), BODY)
    assert mirror is not None
    assert mirror.observation_sign[-6:].tolist() == [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]


def test_an_element_without_a_rule_leaves_no_mirror():
    assert mirror_of(body_contract(("smell", ("sulphur",))), BODY) is None


def test_a_privileged_element_without_a_rule_leaves_the_critic_as_it_is():
    mirror = mirror_of(body_contract(), BODY, ("sulphur",))
    assert mirror is not None
    assert mirror.seen_index is None


@pytest.mark.parametrize("robot", ["hand22"])
def test_a_hand_has_no_mirror(robot):
    model = load(robot)
    assert mirror_of(HandReach(model).contract(), model) is None


def test_a_skeleton_with_one_side_missing_has_no_mirror():
    joints = tuple(joint for joint in BODY.joints if joint.name != "left_knee")
    stub = type("Stub", (), {"joints": joints})()
    assert joint_signs(stub) is None
