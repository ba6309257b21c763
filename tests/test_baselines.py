"""Policies that learn nothing: what they do, that a seed repeats them, and how they rank."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import sim
from robot.description import load
from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics
from sim import baselines
from sim.finger import Finger
from sim.tasks import TASKS

REACH = "flexor/HandReach-v0"
HAND = load("hand22")


@pytest.fixture(scope="module", params=sim.TASKS)
def env(request):
    made = gymnasium.make(request.param, engine="mujoco")
    yield made
    made.close()


def mean_return(env, name: str, episodes: int) -> float:
    total = 0.0
    for seed in range(episodes):
        observation, info = env.reset(seed=seed)
        policy = baselines.make(name, env)
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(policy(observation, info))
            total += reward
            over = terminated or truncated
    return total / episodes


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_every_baseline_acts_within_the_action_space_and_a_seed_repeats_it(env, name):
    env_id = env.unwrapped.task.env_id
    written = {"scripted": baselines.SCRIPTED, "planner": baselines.PLANNED}
    if env_id not in written.get(name, TASKS):
        with pytest.raises(UnknownNameError, match=f"unknown {name} baseline for '{env_id}'.* Known: flexor/"):
            baselines.make(name, env)
        return
    runs = []
    for _ in range(2):
        observation, info = env.reset(seed=3)
        policy = baselines.make(name, env)
        actions = []
        for _ in range(8):
            action = np.asarray(policy(observation, info), dtype=np.float32)
            assert env.action_space.contains(action)
            actions.append(action)
            observation, _, _, _, info = env.step(action)
        runs.append(actions)
    np.testing.assert_array_equal(*runs)


def test_zero_asks_for_nothing(env):
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(baselines.make("zero", env)(observation, info), np.zeros(env.action_space.shape))


def test_in_reach_the_planner_beats_the_script_which_beats_doing_nothing_and_anything():
    env = gymnasium.make(REACH, engine="mujoco")
    returns = {name: mean_return(env, name, episodes=8) for name in ("planner", "scripted", "zero", "random")}
    env.close()
    assert returns["planner"] > returns["scripted"] + 5.0  # of 50
    assert returns["scripted"] > max(returns["zero"], returns["random"]) + 5.0


@pytest.mark.parametrize("engine, least", [("mujoco", 9), ("pybullet", 7)])
def test_the_script_finds_the_hole_and_doing_nothing_does_not(engine, least):
    env = gymnasium.make("flexor/HandInsert-v0", engine=engine)
    found = {}
    for name in ("scripted", "zero"):
        found[name] = 0
        for seed in range(10):
            observation, info = env.reset(seed=seed)
            policy = baselines.make(name, env)
            truncated = False
            while not truncated:
                observation, _, _, truncated, info = env.step(policy(observation, info))
            found[name] += info["success"]
    env.close()
    assert found["scripted"] >= least and found["zero"] == 0


def test_a_fingers_angles_are_found_again_from_its_tip():
    finger, rng = Finger(HAND, "index"), np.random.default_rng(0)
    tips, q = TipKinematics(HAND), HAND.home_rad.copy()
    for _ in range(20):
        q[finger.rows] = rng.uniform((-0.2, 0.1, 0.2, 0.1), (0.3, 0.7, 1.0, 0.6))
        tip, along = finger.tip(q[finger.rows])
        np.testing.assert_allclose(tip, tips.positions(q)[HAND.tip_names.index("index")], atol=1e-12)
        found = finger.angles(tip, finger.bend(tip, along))
        np.testing.assert_allclose(found, q[finger.rows], atol=1e-9)
    assert finger.angles(np.array([0.0, 0.4, 0.0]), 0.5) is None


def test_inverse_kinematics_finds_postures_that_exist():
    tips = TipKinematics(HAND)
    task: Any = TASKS[REACH](HAND)
    moved = np.array([HAND.index(joint) for joint in task.contract().action.joints])
    lower, upper = HAND.lower_rad[moved], HAND.upper_rad[moved]
    rng = np.random.default_rng(0)
    errors_m = []
    for _ in range(12):
        start = task.start(rng).q_rad
        goal = task.goal.reshape(-1, 3)
        q = baselines.inverse_kinematics(tips, start, goal, moved, lower, upper)
        assert (q[moved] >= lower).all() and (q[moved] <= upper).all()
        np.testing.assert_array_equal(np.delete(q, moved), np.delete(start, moved))
        errors_m.append(np.linalg.norm(tips.positions(q) - goal, axis=1).mean())
    assert np.median(errors_m) < 1e-4
    assert np.linalg.norm(tips.positions(HAND.home_rad) - goal, axis=1).mean() > 0.01  # the start was not the goal


def test_an_unknown_baseline_is_refused_with_the_known_ones(env):
    with pytest.raises(
        UnknownNameError, match=r"unknown baseline 'planer'. Did you mean 'planner'\? Known: zero, random"
    ):
        baselines.make("planer", env)


def test_a_task_without_a_script_is_watched_under_random_actions():
    assert baselines.usual(REACH) == "scripted" and baselines.usual("flexor/HandReorientCube-v0") == "random"
