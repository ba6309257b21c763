"""A first policy from a task's script: a network that does what `sim.baselines.scripted` does, from where learning can start.

A body that falls within a second teaches a learner little; one that balances for a few seconds on a script's gains lives through
more per sample. The script is followed under noise, so that the network also sees what the script does about its own errors
(Laskey et al. 2017, DART). In further rounds the network acts, the script says what it would have done there, and both rounds' steps
are learned from (Ross et al. 2011, DAgger): where a small error grows, as with relative targets, the first round alone drifts.

    flexor train flexor/BodyStand-v0 --imitate 8000
"""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

import gymnasium
import numpy as np
import torch

from policies.networks import Actor

NOISE = 0.2  # of the actions that are followed, and of those the learner begins with: a body's script lasts 3.4 s without, 2.9 s with it, 2.1 s with 0.3
BATCH, RATE, EPOCHS = 256, 1e-3, 30


def gather(
    env: gymnasium.Env,
    steps: int,
    rng: np.random.Generator,
    follow: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Observations and the script's actions there, shapes (steps, n_obs), (steps, n_act).

    Args:
        follow: Who acts, from an observation; the script under noise when None.
    """
    from sim.baselines import scripted

    act = scripted(env)
    shape = env.action_space.shape or ()
    seen, done = [], []
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    for _ in range(steps):
        action = act(observation, info)
        seen.append(observation)
        done.append(action)
        followed = action + NOISE * rng.standard_normal(shape) if follow is None else follow(observation)
        observation, _, terminated, truncated, info = env.step(np.clip(followed, -1.0, 1.0))
        if terminated or truncated:
            observation, info = env.reset()
    return np.array(seen, np.float32), np.array(done, np.float32)


def imitate(actor: Actor, seen: np.ndarray, done: np.ndarray, *, epochs: int, generator: torch.Generator) -> float:
    """Fit an actor's mean to actions, with a rate that falls to a tenth.

    Returns:
        Root mean squared error of the last epoch.
    """
    observation, action = torch.from_numpy(seen), torch.from_numpy(done)
    optimizer = torch.optim.Adam(actor.parameters(), lr=RATE)
    error = float("nan")
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.1 ** (epoch / epochs)
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
    actor: Actor,
    env_id: str,
    settings: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    epochs: int = EPOCHS,
    rounds: int = 0,
) -> tuple[float, np.ndarray]:
    """Have a fresh policy watch the task's script for some control steps and imitate it; its noise begins small.

    Args:
        settings: Keyword arguments of `gymnasium.make`.
        steps: Of all rounds together.
        rounds: In which the policy acts and the script corrects it, after the first one.

    Returns:
        Root mean squared error of an action, and the observations of the last round, shape (n, n_obs).
    """
    import sim  # noqa: F401 - registers the environments

    env = gymnasium.make(env_id, **settings)
    rng, generator, error = np.random.default_rng(seed), torch.Generator().manual_seed(seed), float("nan")
    seen: list[np.ndarray] = []
    done: list[np.ndarray] = []

    @torch.no_grad()
    def learner(observation: np.ndarray) -> np.ndarray:
        return actor.mean(torch.from_numpy(np.asarray(observation, np.float32))[None]).numpy()[0]

    try:
        for k in range(rounds + 1):
            more = gather(env, steps // (rounds + 1), rng, learner if k else None)
            actor.update_normalizer(torch.from_numpy(more[0]))
            seen.append(more[0])
            done.append(more[1])
            error = imitate(actor, np.concatenate(seen), np.concatenate(done), epochs=epochs, generator=generator)
    finally:
        env.close()
    with torch.no_grad():
        actor.log_std.fill_(log(NOISE))
    return error, seen[-1]
