"""PyBullet and MuJoCo under one transmission: half a second after a step that touches nothing, they agree.

With friction and without. A command passes the drives as in life: interpolated over a control period.
"""

import numpy as np
import pybullet
import pytest

from robot.description import load
from robot.state import Command
from robot.transmission import Parameters
from sim import engines

HAND = load("hand22")
SPAN_RAD = HAND.upper_rad - HAND.lower_rad
AGREE = 0.02  # of a joint's range, 0.5 s after a step
STEPS = 13  # 0.52 s


@pytest.fixture(scope="module")
def real():
    yield from pair(Parameters.of(HAND))


@pytest.fixture(scope="module")
def smooth():
    yield from pair(Parameters.of(HAND).without_friction())


def pair(parameters):
    made = [engines.make(name, HAND, control_hz=25.0, parameters=parameters) for name in engines.ENGINES]
    yield made
    for hand in made:
        hand.close()


def contacts(hand) -> int:
    if hasattr(hand, "data"):
        return hand.data.ncon
    return len(pybullet.getContactPoints(bodyA=hand.body, physicsClientId=hand._client))


def response(hand, target):
    """Where the joints are at the end of a step response from home, and whether anything was touched on the way."""
    hand.reset(None, np.random.default_rng(0))
    touched = 0
    for _ in range(STEPS):
        state = hand.step(Command(target_rad=target))
        touched += contacts(hand)
    return state.q_rad, touched > 0


def free_step(hands, joint):
    """Both responses to the largest of a few steps of one joint that touches nothing."""
    for share in (0.3, -0.3, 0.15, -0.15, 0.05, -0.05):
        target = HAND.home_rad.copy()
        target[joint] += share * SPAN_RAD[joint]
        if not HAND.lower_rad[joint] <= target[joint] <= HAND.upper_rad[joint]:
            continue
        (a, touched_a), (b, touched_b) = (response(hand, target) for hand in hands)
        if not (touched_a or touched_b):
            return a, b, target
    raise AssertionError(f"no free step found for {HAND.joint_names[joint]}")


def apart(hands, joint):
    """The largest difference over all joints, as a share of their range, and whose it is."""
    a, b, target = free_step(hands, joint)
    moved = abs(a[joint] - HAND.home_rad[joint]) / abs(target[joint] - HAND.home_rad[joint])
    assert moved > 0.5  # it is a response that is compared
    share = np.abs(a - b) / SPAN_RAD
    return share.max(), f"{HAND.joint_names[int(share.argmax())]} is {100 * share.max():.2f} % of its range apart"


@pytest.mark.parametrize("joint", range(len(HAND.joints)), ids=HAND.joint_names)
def test_the_engines_agree_on_a_step_of_one_joint(real, joint):
    share, words = apart(real, joint)
    assert share < AGREE, words


@pytest.mark.parametrize("joint", range(len(HAND.joints)), ids=HAND.joint_names)
def test_without_friction_they_agree_too(smooth, joint):
    share, words = apart(smooth, joint)
    assert share < AGREE, words


def test_the_body_agrees_too_while_it_falls():
    body = load("body28")
    span = body.upper_rad - body.lower_rad
    robots = [engines.make(name, body, control_hz=50.0) for name in engines.ENGINES]
    for joint in range(len(body.joints)):
        target = body.home_rad.copy()
        step = 0.1 * span[joint]
        target[joint] += step if target[joint] + step <= body.upper_rad[joint] else -step
        ends = []
        for robot in robots:
            robot.reset(None, np.random.default_rng(0))
            for _ in range(25):
                state = robot.step(Command(target_rad=target))
            ends.append(state.q_rad)
        share = np.abs(ends[0] - ends[1]) / span
        assert share.max() < AGREE, f"{body.joint_names[joint]}: {body.joint_names[int(share.argmax())]} apart"
        assert abs(ends[0][joint] - body.home_rad[joint]) > 0.5 * step
    for robot in robots:
        robot.close()


def test_rotors_twice_as_heavy_in_one_of_them_would_be_seen(smooth):
    _, hand = smooth
    target = HAND.home_rad + 0.2 * SPAN_RAD
    right, _ = response(hand, target)
    armature = hand.mj_model.dof_armature.copy()
    hand.mj_model.dof_armature[:] = 2.0 * armature
    heavy, _ = response(hand, target)
    hand.mj_model.dof_armature[:] = armature
    assert (np.abs(right - heavy) / SPAN_RAD).max() > AGREE
