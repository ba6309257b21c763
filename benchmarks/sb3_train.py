"""One run of Stable-Baselines3 against the clock, on this project's environment: `python benchmarks/sb3_train.py SPEC`.

SPEC is a `policies.race.Spec` as JSON. Settings "zoo" are those of rl-baselines3-zoo (hyperparams/ppo.yml and sac.yml, commit 00128b5):
HumanoidBulletEnv for PPO, the tuned PyBullet defaults for SAC; no zoo has settings for hands. `policies.bench_train` starts it with the
repository on the path.
"""

import copy
import sys
import time
from math import log
from typing import Any

import msgspec
import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from policies.adapters.sb3 import SB3VecEnv
from policies.race import ActMany, Marks, Spec, finish
from policies.settings import TrainConfig, settings_of
from sim.vec import make_vec

VERBOSE = 0


def made(spec: Spec, config: TrainConfig, envs: VecEnv) -> Any:
    """The learner of a contender."""
    common = {"env": envs, "seed": spec.seed, "verbose": VERBOSE, "device": "cpu"}
    if spec.contender == "sb3_ppo":
        return PPO("MlpPolicy", **common)
    if spec.contender == "sb3_sac":
        return SAC("MlpPolicy", **common)
    if spec.contender == "sb3_ppo_zoo":
        return PPO(
            "MlpPolicy",
            n_steps=2048,
            batch_size=64,
            gae_lambda=0.95,
            gamma=0.99,
            n_epochs=10,
            learning_rate=2.5e-4,
            **common,
        )
    if spec.contender == "sb3_sac_zoo":
        return SAC(
            "MlpPolicy",
            learning_rate=7.3e-4,
            buffer_size=300_000,
            batch_size=256,
            gamma=0.98,
            tau=0.02,
            train_freq=8,
            gradient_steps=8,
            learning_starts=10_000,
            use_sde=True,
            policy_kwargs={"log_std_init": -3, "net_arch": [400, 300]},
            **common,
        )
    ppo, hidden = config.ppo, list(config.hidden)
    return PPO(
        "MlpPolicy",
        n_steps=ppo.horizon,
        batch_size=ppo.minibatch,
        n_epochs=ppo.epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.lam,
        clip_range=ppo.clip,
        learning_rate=ppo.learning_rate,
        ent_coef=ppo.entropy,
        max_grad_norm=ppo.max_gradient,
        policy_kwargs={
            "net_arch": {"pi": hidden, "vf": hidden},
            "activation_fn": nn.ELU,
            "log_std_init": log(config.initial_std),
        },
        **common,
    )


def environments(spec: Spec, config: TrainConfig) -> VecEnv:
    """As many as the contender's settings ask for, in as many processes as everybody gets."""
    count = {"sb3_ppo_zoo": 8, "sb3_sac": spec.workers, "sb3_sac_zoo": spec.workers}.get(
        spec.contender, config.num_envs
    )
    envs: VecEnv = SB3VecEnv(make_vec(spec.env_id, count, spec.workers, **spec.settings))
    envs.seed(spec.seed)
    if spec.contender in ("sb3_ppo_zoo", "sb3_ppo_ours"):
        envs = VecNormalize(envs, norm_obs=True, norm_reward=spec.contender == "sb3_ppo_zoo", gamma=config.ppo.gamma)
    return envs


class Clock(BaseCallback):
    """Puts copies of the policy aside, and stops when time is up."""

    def __init__(self, marks: Marks, seconds: float) -> None:
        super().__init__()
        self.marks, self.seconds = marks, seconds

    def _on_step(self) -> bool:
        self.marks.offer(self.num_timesteps, self.put_aside)
        return self.marks.used_s < self.seconds

    def put_aside(self) -> ActMany:
        policy = copy.deepcopy(self.model.policy)
        normalize = self.model.get_vec_normalize_env()
        seen = copy.deepcopy(normalize.obs_rms) if normalize is not None else None

        def act(observation: np.ndarray) -> np.ndarray:
            if seen is not None:
                observation = np.clip((observation - seen.mean) / np.sqrt(seen.var + 1e-8), -10.0, 10.0).astype(
                    np.float32
                )
            return policy.predict(observation, deterministic=True)[0]

        return act


def main(spec: Spec) -> None:
    torch.set_num_threads(1)
    marks = Marks(spec, time.monotonic)
    config = settings_of(spec.env_id)
    envs = environments(spec, config)
    try:
        model = made(spec, config, envs)
        callback = Clock(marks, spec.seconds)
        model.learn(total_timesteps=10**10, callback=callback)
        marks.offer(model.num_timesteps, callback.put_aside)
    finally:
        envs.close()
    finish(spec, marks, model.num_timesteps)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Spec))
