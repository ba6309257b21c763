"""A first policy from a task's script: the network does what the script does, and a run goes on from it."""

import time

import gymnasium
import numpy as np
import torch
from inline_sampler import InlineSampler

import sim  # noqa: F401 - registers the environments
from policies import checkpoint
from policies.imitate import NOISE, begin_from_script, gather, imitate
from policies.networks import Actor
from policies.ppo import PPOConfig
from policies.settings import TrainConfig
from policies.train import Trainer
from robot.description import load
from sim import baselines
from sim.tasks import find

STAND, WALK = "flexor/BodyStand-v0", "flexor/BodyWalk-v0"


def lasts_s(policy, seeds) -> float:
    """Mean time until a body falls."""
    env = gymnasium.make(WALK, engine="mujoco")
    act, steps = policy(env), 0
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(act(observation, info))
            over, steps = terminated or truncated, steps + 1
    env.close()
    return steps / 50.0 / len(seeds)


def test_a_body_stands_longer_on_its_script_than_without():
    assert lasts_s(baselines.scripted, range(6)) > 1.2 * lasts_s(baselines.zero, range(6))


def test_a_network_does_what_the_script_does():
    torch.manual_seed(0)
    task = find(STAND)
    actor = Actor.for_contract(task(load(task.default_robot)).contract())
    error, _ = begin_from_script(actor, STAND, {"engine": "mujoco"}, steps=3000, seed=0, epochs=40)
    assert error < 0.1
    torch.testing.assert_close(actor.std.detach(), torch.full((actor.action_size,), NOISE))
    env = gymnasium.make(STAND, engine="mujoco")
    seen, done = gather(env, 200, np.random.default_rng(9))  # none of what it learned from
    env.close()
    with torch.no_grad():
        ours = actor.mean(torch.from_numpy(seen)).numpy()
    assert (
        np.square(ours - done).mean() < 0.4 * np.square(done).mean()
    )  # the script is clipped at its edges, the network bends


def test_in_further_rounds_the_policy_acts_and_the_script_says_what_it_would_have_done():
    env = gymnasium.make("flexor/HandReach-v0", engine="mujoco", randomization=False)
    asleep = np.zeros(env.action_space.shape)
    seen, done = gather(env, 30, np.random.default_rng(0), lambda observation: asleep)
    at = env.unwrapped.contract.slices["previous_action"]
    env.close()
    assert not seen[:, at].any() and np.abs(done).max() == 1.0  # nobody moved, and the script wanted to


def test_rounds_share_the_steps_and_all_are_learned_from(monkeypatch):
    sizes, who = [], []

    def remember(env, steps, rng, follow=None):
        who.append(follow)
        return np.zeros((steps, 5), np.float32), np.zeros((steps, 2), np.float32)

    monkeypatch.setattr("policies.imitate.gather", remember)
    monkeypatch.setattr("policies.imitate.imitate", lambda actor, seen, done, **how: sizes.append(len(seen)) or 0.0)
    _, last = begin_from_script(Actor(5, 2, hidden=(4,)), WALK, {"engine": "mujoco"}, steps=90, seed=0, rounds=2)
    assert sizes == [30, 60, 90] and len(last) == 30
    assert who[0] is None and who[1] is not None and who[1](np.zeros(5)).shape == (2,)


def test_imitation_repeats_with_its_seed():
    rng = np.random.default_rng(0)
    seen, done = rng.standard_normal((300, 5)).astype(np.float32), rng.uniform(-1, 1, (300, 2)).astype(np.float32)
    errors = []
    for _ in range(2):
        torch.manual_seed(0)
        actor = Actor(5, 2, hidden=(16,))
        errors.append(imitate(actor, seen, done, epochs=3, generator=torch.Generator().manual_seed(1)))
    assert errors[0] == errors[1] < 1.0


def test_a_fresh_run_imitates_first_and_a_resumed_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 1)
    asked = []

    def imitates(actor, *args, **how):
        asked.append(how["steps"])
        return 0.0, np.zeros((20, actor.observation_size), np.float32)

    monkeypatch.setattr("policies.train.begin_from_script", imitates)
    config = TrainConfig(
        env_id="flexor/HandReach-v0", num_envs=2, workers=1, hidden=(8,), imitate=40, ppo=PPOConfig(horizon=4)
    )
    for saved, steps in ((None, 8), (True, 16)):
        trainer = Trainer(
            tmp_path, config, resume_from=checkpoint.load(tmp_path) if saved else None, make_sampler=InlineSampler
        )
        try:
            trainer.train(seconds=None, steps=steps, report=lambda line: None, clock=time.monotonic)
        finally:
            trainer.close()
    assert asked == [40]
