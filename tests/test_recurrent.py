"""A policy that remembers: trained, exported with an explicit state, admitted to a robot, and the same in closed loop."""

from pathlib import Path

import numpy as np
import pytest
from inline_sampler import InlineSampler

from policies import checkpoint as checkpoints
from policies.artifact import FileAct, PolicyFile
from policies.export import export
from policies.gate import golden_difference, rollout_difference
from policies.ppo import PPOConfig
from policies.settings import TrainConfig
from policies.train import Trainer
from robot.artifacts import GOLDEN_FILE, STATE_IN, STATE_OUT
from robot.description import load
from robot.onboard.admission import admit
from robot.onboard.artifact import load as load_artifact

CONFIG = TrainConfig(
    env_id="flexor/HandReach-v0",
    num_envs=4,
    workers=1,
    hidden=(16,),
    memory=8,
    ppo=PPOConfig(horizon=8, minibatch=16, epochs=2),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, checkpoints.Checkpoint]:
    run = tmp_path_factory.mktemp("run")
    ticks = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "chapter_iterations", 3)
        trainer = Trainer(run, CONFIG, make_sampler=InlineSampler)
        try:
            trainer.train(seconds=None, steps=96, report=lambda line: None, clock=lambda: float(next(ticks)))
        finally:
            trainer.close()
    saved = checkpoints.load(run)
    folder = export(
        saved.actor,
        saved.contract,
        tmp_path_factory.mktemp("models"),
        "hand_reach",
        recorded_observations=saved.recorded_observations,
        training=saved.training,
    )
    return folder, saved


def test_golden_samples_are_a_trace_of_the_state(trained):
    folder, _ = trained
    with np.load(folder / GOLDEN_FILE) as golden:
        before, after = golden[STATE_IN], golden[STATE_OUT]
    assert before.shape == after.shape == (64, 8)
    assert not before[0].any()
    np.testing.assert_array_equal(before[1:], after[:-1])
    assert golden_difference(PolicyFile.load(folder), folder) < 1e-6


def test_file_and_network_act_alike_in_closed_loop(trained):
    folder, saved = trained
    assert rollout_difference(PolicyFile.load(folder), saved, engine="mujoco", seed=3) < 1e-5


def test_an_episode_starts_with_an_empty_memory_and_the_memory_matters(trained):
    folder, saved = trained
    act, row = FileAct(PolicyFile.load(folder)), saved.recorded_observations[5]
    first, second = act(row, {}), act(row, {})
    assert (first != second).any()
    act.begin()
    np.testing.assert_array_equal(act(row, {}), first)


def test_a_robot_admits_it(trained):
    folder, _ = trained
    admit(load_artifact(folder), load("hand22"))
