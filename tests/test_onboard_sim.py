"""The onboard loop and the environment are the same thing seen from two processes: equal numbers over a whole run."""

import numpy as np
import pytest
from onboard_helpers import HAND, artifact, model

from robot.onboard.inference import make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.recorder import Recorder
from robot.onboard.simulator import spawn
from robot.onboard.start import drive

pytest.importorskip("pybullet")
gymnasium = pytest.importorskip("gymnasium")

ENV = "flexor/HandReach-v0"
EPISODES = 4  # 200 steps


@pytest.fixture(scope="module")
def reach():
    """An untrained artifact for the environment's own contract, too gentle for the filter to have a say."""
    import sim  # noqa: F401 - registers the environments

    env = gymnasium.make(ENV, engine="pybullet")
    contract = env.unwrapped.contract
    yield env, artifact(model(contract, vigour=0.03), contract)
    env.close()


def test_a_policy_lives_through_the_same_episodes_onboard_and_in_the_environment(reach):
    env, made = reach
    chunks = []
    recorder = Recorder(
        contract=made.contract,
        policy_sha256=made.sha256,
        reward_names=env.unwrapped.task.reward_names,
        steps_per_chunk=64,
    )
    policy = make_inference(made, "numpy")
    robot = spawn(ENV, "hand22", "pybullet")
    try:
        report = ControlLoop(
            robot,
            made.contract.bind(HAND),
            policy,
            rng=np.random.default_rng(5),
            config=LoopConfig(episodes=EPISODES, paced=False),
            recorder=recorder,
            on_chunk=chunks.append,
        ).run()
    finally:
        robot.close()
    assert report.fault is None
    assert report.slewed == report.clamped == report.slowed == report.eased == report.braked == 0
    assert len(chunks) == EPISODES

    seeds = np.random.default_rng(5)
    steps = 0
    for chunk in chunks:
        obs, _ = env.reset(seed=int(seeds.integers(2**62)))
        for k in range(chunk.header.steps):
            np.testing.assert_array_equal(chunk.observation[k], obs)
            action, _ = policy.act(obs)
            np.testing.assert_array_equal(chunk.action[k], action)
            obs, _, terminated, truncated, info = env.step(action)
            for name, got in zip(chunk.header.reward_names, chunk.reward[k]):
                # Behind the link the action is known only from the command, which is clamped to the joint's range.
                slack = 0.02 if name == "smooth" else 1e-6
                assert got == pytest.approx(info["reward_terms"][name], abs=slack)
            assert bool(chunk.success[k]) == info["success"]
            steps += 1
        assert terminated or truncated
        assert chunk.header.ended == ("terminated" if terminated else "truncated")
        np.testing.assert_array_equal(chunk.last_observation, obs)
    assert steps == report.steps >= 100


def test_the_loop_drives_a_simulated_hand_at_its_rate(reach):
    _, made = reach
    done = drive(made, "pybullet", config=LoopConfig(seconds=1.0), inference="numpy")
    report = done.report
    assert report.fault is None and report.deadlines == pytest.approx(25, abs=1)
    assert report.steps + report.missed == report.deadlines
    assert report.copper_j > 0.0  # the simulated drives report currents
