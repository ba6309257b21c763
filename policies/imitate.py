"""A first policy from a task's script: a network that does what `sim.baselines.scripted` does, from where learning can start.

A body that falls within a second teaches a learner little; one that balances for a few seconds on a script's gains lives through
more per sample. The script is followed under noise, so that the network also sees what the script does about its own errors
(Laskey et al. 2017, DART).

    python -m policies.imitate flexor/BodyStand-v0 --out runs/stand
    flexor train flexor/BodyStand-v0 --out runs/stand --resume
"""

import argparse
from math import log
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from policies.networks import Actor

NOISE = 0.2  # of the actions that are followed, and of those the learner begins with: a body's script lasts 3.4 s without, 2.9 s with it, 2.1 s with 0.3
BATCH, RATE = 256, 1e-3


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


def first_checkpoint(env_id: str, out: Path, *, engine: str, seed: int, steps: int, epochs: int) -> float:
    """Make a run whose policy imitates the task's script; `flexor train --resume` goes on with it. Returns the error."""
    import sim  # noqa: F401 - registers the environments
    from policies.sampler import LocalSampler
    from policies.settings import settings_of
    from policies.train import Trainer

    env: Any = gymnasium.make(env_id, engine=engine)
    try:
        seen, done = gather(env, steps, np.random.default_rng(seed))
    finally:
        env.close()
    config = settings_of(env_id, engine=engine, seed=seed)
    trainer = Trainer(out, config, make_sampler=lambda places: LocalSampler(()))  # nothing is simulated yet
    try:
        error = imitate(trainer.method.actor, seen, done, epochs=epochs, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            trainer.method.actor.log_std.fill_(log(NOISE))
        trainer.save(0.0)
    finally:
        trainer.close()
    return error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m policies.imitate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env", help="environment id")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run to make")
    parser.add_argument("--engine", default="mujoco")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000, help="control steps to watch the script for")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args(argv)
    error = first_checkpoint(
        args.env, args.out, engine=args.engine, seed=args.seed, steps=args.steps, epochs=args.epochs
    )
    print(
        f"{args.out}: imitates the script within {error:.3f} of an action; next: flexor train {args.env} --out {args.out} --resume"
    )


if __name__ == "__main__":
    main()
