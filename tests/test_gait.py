"""The finger gait: a rule without a clock that keeps its own pace, a coding that loses nothing, and a cube that turns."""

import gymnasium
import numpy as np

import sim  # noqa: F401 - registers the environments
from robot.description import load
from sim import baselines
from sim.gait import PHASES, Gait, Walker, load_gait
from sim.gait_search import Coding, groups_of
from sim.tasks.hand_rotate_cube import HandRotateCube

DT_S = 0.05


def circle(hz: float) -> Gait:
    return Gait(
        robot_sha256="", generator="", joints=("a", "b"), hz=hz, mean_rad=(0.5, 0.5), sine_rad=(0.3, 0.0), cosine_rad=(0.0, 0.3)
    )  # fmt: skip


def test_the_gait_keeps_its_pace_from_wherever_the_targets_are():
    walk, hz = Walker(circle(0.5), np.zeros(2), np.ones(2), DT_S), 0.5
    target = np.array([0.9, 0.1])  # beside the circle
    phases = []
    for _ in range(40):
        target = walk(target)
        phases.append(np.arctan2(target[0] - 0.5, target[1] - 0.5))
    turned = np.diff(np.unwrap(phases))
    assert np.abs(np.hypot(*(target - 0.5)) - 0.3) < 1e-9
    assert np.abs(turned - 2.0 * np.pi * hz * DT_S).max() <= np.pi / PHASES + 1e-9 and turned.min() > 0.0


def test_targets_stay_within_the_joints_ranges():
    walk = Walker(circle(0.5), np.array([0.4, 0.4]), np.array([0.6, 0.6]), DT_S)
    target, seen = np.array([0.5, 0.6]), []
    for _ in range(60):
        target = walk(target)
        seen.append(target)
    assert np.min(seen) == 0.4 and np.max(seen) == 0.6


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
