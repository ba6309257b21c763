"""The finger gait: it follows the clock, its coding loses nothing, and a cube turns."""

from typing import Any

import gymnasium
import numpy as np

import sim  # noqa: F401 - registers the environments
from robot.description import load
from sim import baselines
from sim.gait import Gait, load_gait
from sim.gait_search import Coding, groups_of
from sim.scripted_hands import turning
from sim.tasks.hand_rotate_cube import HandRotateCube


def test_targets_follow_the_clock_and_stay_within_the_joints_ranges():
    env = gymnasium.make("flexor/HandRotateCube-v0", engine="mujoco", randomization=False).unwrapped
    contract: Any = env.contract  # type: ignore[attr-defined]
    n = len(contract.action.joints)
    wide = Gait(
        robot_sha256="", generator="", joints=contract.action.joints, mean_rad=(0.0,) * n, sine_rad=(9.0,) * n, cosine_rad=(0.0,) * n
    )  # fmt: skip
    policy, observation = turning(env, wide), np.zeros(contract.observation_size)
    lower, upper = np.array(contract.action.lower_rad), np.array(contract.action.upper_rad)
    for sine, at in ((1.0, upper), (-1.0, lower)):
        observation[contract.slices["gait_phase"]] = sine, 0.0
        observation[contract.slices["joint_target"]] = at - 0.01 * sine
        np.testing.assert_allclose(
            policy(observation, {}), 0.01 * sine / np.array(contract.action.scale_rad), atol=1e-9
        )
    env.close()


def test_the_search_codes_a_gait_without_loss():
    coding = Coding(HandRotateCube(load("hand22")), "a test")
    x = 0.1 * np.random.default_rng(0).standard_normal(coding.size)
    np.testing.assert_allclose(coding.numbers(coding.gait(x)), x, atol=1e-3)
    assert groups_of(("index_mcp", "index_pip", "index_dip", "thumb_ip")) == [[0], [1, 2], [3]]
    assert np.count_nonzero(coding.sweep()) >= 8


def test_the_shipped_gait_is_this_hands_and_turns_a_cube():
    hand = load("hand22")
    gait = load_gait("hand22")
    assert gait.robot_sha256 == hand.sha256 and gait.joints == HandRotateCube(hand).moved
    env = gymnasium.make("flexor/HandRotateCube-v0", engine="mujoco")
    rates = {}
    for name in ("scripted", "zero"):
        policy = baselines.make(name, env)
        observation, info = env.reset(seed=3)
        for _ in range(100):
            observation, _, _, _, info = env.step(policy(observation, info))
        rates[name] = info["metrics"]["spin_rad_s"]
    env.close()
    assert rates["scripted"] > 0.5 and abs(rates["zero"]) < 0.1
