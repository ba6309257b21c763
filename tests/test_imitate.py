"""A first policy from a task's script: the network does what the script does, and a run goes on from it."""

import gymnasium
import numpy as np
import torch

import sim  # noqa: F401 - registers the environments
from policies import checkpoint
from policies.imitate import first_checkpoint, gather, imitate
from policies.networks import Actor
from sim import baselines

STAND = "flexor/BodyStand-v0"


def lasts_s(policy, seeds) -> float:
    """Mean time until a body falls."""
    env = gymnasium.make(STAND, engine="mujoco")
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


def test_a_network_does_what_the_script_does_and_a_run_goes_on_from_it(tmp_path):
    error = first_checkpoint(STAND, tmp_path / "run", engine="mujoco", seed=0, steps=3000, epochs=40)
    assert error < 0.1
    saved = checkpoint.load(tmp_path / "run")
    env = gymnasium.make(STAND, engine="mujoco")
    seen, done = gather(env, 200, np.random.default_rng(9))  # none of what it learned from
    env.close()
    with torch.no_grad():
        ours = saved.actor.mean(torch.from_numpy(seen)).numpy()
    assert (
        np.square(ours - done).mean() < 0.4 * np.square(done).mean()
    )  # the script is clipped at its edges, the network bends


def test_imitation_repeats_with_its_seed():
    rng = np.random.default_rng(0)
    seen, done = rng.standard_normal((300, 5)).astype(np.float32), rng.uniform(-1, 1, (300, 2)).astype(np.float32)
    errors = []
    for _ in range(2):
        torch.manual_seed(0)
        actor = Actor(5, 2, hidden=(16,))
        errors.append(imitate(actor, seen, done, epochs=3, generator=torch.Generator().manual_seed(1)))
    assert errors[0] == errors[1] < 1.0
