"""A first policy from a task's script: a network that does what `sim.baselines.scripted` does, from where learning can start.

A body that falls within a second teaches a learner little; one that balances for a few seconds on a script's gains lives through
more per sample. The script is followed under noise, so that the network also sees what the script does about its own errors
(Laskey et al. 2017, DART).

    flexor train flexor/BodyStand-v0 --imitate 8000
"""

from collections.abc import Mapping
from math import log
from typing import Any

import gymnasium
import numpy as np
import torch

from policies.networks import Actor

NOISE = 0.2  # of the actions that are followed, and of those the learner begins with: a body's script lasts 3.4 s without, 2.9 s with it, 2.1 s with 0.3
BATCH, RATE, EPOCHS = 256, 1e-3, 30


def gather(env: gymnasium.Env, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Observations and the script's actions there, while noisy ones are followed, shapes (steps, n_obs), (steps, n_act)."""
    from sim.baselines import scripted

    act = scripted(env)
    shape = env.action_space.shape or ()
    seen, done = [], []
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    for _ in range(steps):
        action = act(observation, info)
        seen.append(observation)
        done.append(action)
        followed = np.clip(action + NOISE * rng.standard_normal(shape), -1.0, 1.0)
        observation, _, terminated, truncated, info = env.step(followed)
        if terminated or truncated:
            observation, info = env.reset()
    return np.array(seen, np.float32), np.array(done, np.float32)


def imitate(actor: Actor, seen: np.ndarray, done: np.ndarray, *, epochs: int, generator: torch.Generator) -> float:
    """Fit an actor's mean to actions; its normaliser takes in the observations.

    Returns:
        Root mean squared error of the last epoch.
    """
    observation, action = torch.from_numpy(seen), torch.from_numpy(done)
    actor.update_normalizer(observation)
    optimizer = torch.optim.Adam(actor.parameters(), lr=RATE)
    error = float("nan")
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(observation), generator=generator).split(BATCH):
            loss = (actor.mean(observation[rows]) - action[rows]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        error = (total / len(observation)) ** 0.5
    return error


def begin_from_script(
    actor: Actor, env_id: str, settings: Mapping[str, Any], *, steps: int, seed: int, epochs: int = EPOCHS
) -> float:
    """Have a fresh policy watch the task's script for some control steps and imitate it; its noise begins small.

    Args:
        settings: Keyword arguments of `gymnasium.make`.

    Returns:
        Root mean squared error of an action.
    """
    import sim  # noqa: F401 - registers the environments

    env = gymnasium.make(env_id, **settings)
    try:
        seen, done = gather(env, steps, np.random.default_rng(seed))
    finally:
        env.close()
    error = imitate(actor, seen, done, epochs=epochs, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        actor.log_std.fill_(log(NOISE))
    return error
