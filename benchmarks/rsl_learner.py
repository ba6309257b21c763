"""What learning costs beside the simulation: ours and rsl_rl's PPO on the same sizes, processor time per sample, in turn in one process.

`pip install rsl-rl-lib` into an environment that has this project, then `python benchmarks/rsl_learner.py`. Prints JSON. Both act for
an iteration (24 environments x 64 steps), form advantages, and learn: 4 epochs, minibatches of 384, networks 256-128 ELU, observations
normalised, adaptive rate. The environment is random numbers, so only learner and glue are measured.
"""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rsl_rl.algorithms import PPO as RslPPO
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

from policies.collect import Groups, batch_of
from policies.networks import Actor, Critic
from policies.ppo import PPO
from policies.rollout import Trajectory
from policies.settings import settings_of

ENVS, STEPS, OBSERVATION, ACTION, REPEATS = 24, 64, 58, 16, 10
PPO_SETTINGS = settings_of("flexor/BodyWalk-v0").ppo


def ours(rng: np.random.Generator) -> Callable[[], None]:
    actor, critic = Actor(OBSERVATION, ACTION, initial_std=0.3), Critic(OBSERVATION)
    groups = Groups(actions=torch.ones(ACTION, 1), rewards=np.ones((1, 1)))
    learner, generator = PPO(actor, critic, PPO_SETTINGS, groups.actions), torch.Generator().manual_seed(0)
    seen = rng.normal(size=(STEPS + 1, ENVS, OBSERVATION)).astype(np.float32)
    reward, ended = rng.normal(size=(STEPS, ENVS, 1)), rng.random((STEPS, ENVS)) < 0.01
    nothing, none = np.zeros((STEPS, ENVS, 0), np.float32), np.zeros((0,))

    def iteration() -> None:
        action, mean = (np.zeros((STEPS, ENVS, ACTION), np.float32) for _ in range(2))
        memory = actor.initial_memory(ENVS)
        with torch.no_grad():
            for t in range(STEPS):
                noise = torch.randn((ENVS, ACTION), generator=generator)
                sample, middle, memory = actor.explore(torch.from_numpy(seen[t]), memory, noise)
                action[t], mean[t] = sample.numpy(), middle.numpy()
        path = Trajectory(
            observation=seen[:-1],
            privileged=nothing,
            action=action,
            mean=mean,
            log_std=actor.bounded_log_std.detach().numpy(),
            terms=reward,
            terminated=ended,
            truncated=np.zeros_like(ended),
            fresh=np.zeros_like(ended),
            memory=np.zeros((ENVS, 0), np.float32),
            last_observation=seen[-1],
            last_privileged=nothing[0],
            end_step=none.astype(int),
            end_env=none.astype(int),
            end_observation=np.zeros((0, OBSERVATION), np.float32),
            end_privileged=np.zeros((0, 0), np.float32),
            end_return=none,
            end_length=none,
            end_success=none,
            end_metrics=np.zeros((0, 0)),
        )
        batch = batch_of(path, critic, groups, gamma=PPO_SETTINGS.gamma, lam=PPO_SETTINGS.lam)
        learner.update(batch, generator)
        actor.update_normalizer(batch.observation)
        critic.update_normalizer(batch.seen)

    return iteration


def theirs(rng: np.random.Generator) -> Callable[[], None]:
    seen = torch.from_numpy(rng.normal(size=(STEPS + 1, ENVS, OBSERVATION)).astype(np.float32))
    frames = [TensorDict({"policy": row}, batch_size=[ENVS]) for row in seen]
    reward = torch.from_numpy(rng.normal(size=(STEPS, ENVS)).astype(np.float32))
    ended = torch.from_numpy(rng.random((STEPS, ENVS)) < 0.01)
    groups = {"actor": ["policy"], "critic": ["policy"]}
    common = {"hidden_dims": [256, 128], "activation": "elu", "obs_normalization": True}
    noise = {"class_name": "GaussianDistribution", "init_std": 0.3}
    actor = MLPModel(frames[0], groups, "actor", ACTION, distribution_cfg=noise, **common)
    critic = MLPModel(frames[0], groups, "critic", 1, **common)
    learner = RslPPO(
        actor,
        critic,
        RolloutStorage("rl", ENVS, STEPS, frames[0], [ACTION]),
        num_learning_epochs=PPO_SETTINGS.epochs,
        num_mini_batches=ENVS * STEPS // PPO_SETTINGS.minibatch,
        gamma=PPO_SETTINGS.gamma,
        lam=PPO_SETTINGS.lam,
        learning_rate=PPO_SETTINGS.learning_rate,
        entropy_coef=0.0,
    )

    def iteration() -> None:
        with torch.inference_mode():
            for t in range(STEPS):
                learner.act(frames[t])
                actor.update_normalization(frames[t + 1])
                critic.update_normalization(frames[t + 1])
                learner.process_env_step(frames[t + 1], reward[t], ended[t], {})
            learner.compute_returns(frames[-1])
        learner.update()

    return iteration


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ways = {"ours": ours(rng), "rsl_rl": theirs(rng)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if repeat:  # the first one warms up
                times[name].append(time.process_time() - started)
    samples = ENVS * STEPS
    figures = {f"{name}_us_per_sample": 1e6 * statistics.median(spent) / samples for name, spent in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["rsl_rl"]))
    print(json.dumps({**figures, "ours_over_rsl_rl": ratio}))


if __name__ == "__main__":
    main()
