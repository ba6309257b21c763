"""Samples from simulated environments: one iteration's worth of steps under the current policy."""

from dataclasses import dataclass

import numpy as np
import torch

from policies.networks import Actor, Critic, elementwise_log_prob
from policies.ppo import Batch, PPOConfig, generalized_advantages
from sim.tasks.task import Credit
from sim.vec import WorkerVectorEnv


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Credit groups as matrices of ones and zeros.

    Attributes:
        actions: shape (n_actions, n_groups).
        rewards: shape (n_reward_terms, n_groups).
    """

    actions: torch.Tensor
    rewards: np.ndarray

    @staticmethod
    def of(credit: tuple[Credit, ...], joints: tuple[str, ...], reward_names: tuple[str, ...]) -> "Groups":
        """The matrices of a task's credit.

        Raises:
            ValueError: A joint is in no group or in two.
        """
        actions = np.array([[float(joint in group.joints) for group in credit] for joint in joints], dtype=np.float32)
        if not (actions.sum(axis=1) == 1.0).all():
            bad = [joint for joint, count in zip(joints, actions.sum(axis=1)) if count != 1.0]
            raise ValueError(f"every action joint must be in exactly one credit group, not so: {bad}")
        rewards = np.array([[float(name in group.rewards) for group in credit] for name in reward_names])
        return Groups(actions=torch.from_numpy(actions), rewards=rewards)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the episodes that ended during an iteration came to."""

    returns: list[float]
    successes: list[bool]
    metrics: list[np.ndarray]


class Collector:
    """Steps a vector environment under a policy and keeps what the learner needs."""

    def __init__(self, envs: WorkerVectorEnv, groups: Groups, config: PPOConfig) -> None:
        self.envs, self.groups, self.config = envs, groups, config
        self._observation = np.zeros((envs.num_envs, envs.contract.observation_size), np.float32)
        self._return = np.zeros(envs.num_envs)

    def reset(self, seed: int) -> None:
        """Start all environments anew; environment i gets seed + i."""
        self._observation, _ = self.envs.reset(seed=seed)
        self._return[:] = 0.0

    @torch.no_grad()
    def collect(self, actor: Actor, critic: Critic, generator: torch.Generator) -> tuple[Batch, Outcome]:
        """One iteration: `horizon` steps of every environment."""
        envs, steps, n = self.envs, self.config.horizon, self.envs.num_envs
        n_groups = self.groups.rewards.shape[1]
        observation = np.zeros((steps, n, envs.contract.observation_size), np.float32)
        action = np.zeros((steps, n, envs.contract.action_size), np.float32)
        mean_of = np.zeros_like(action)
        log_prob = np.zeros((steps, n, n_groups), np.float32)
        reward, value, next_value = (np.zeros((steps, n, n_groups)) for _ in range(3))
        ended = np.zeros((steps, n), dtype=bool)
        outcome = Outcome(returns=[], successes=[], metrics=[])
        log_std = actor.bounded_log_std.clone()
        for t in range(steps):
            seen = torch.from_numpy(self._observation)
            mean = actor.mean(seen)
            sample = mean + torch.exp(log_std) * torch.randn(mean.shape, generator=generator)
            envs.step_async(sample.clamp(-1.0, 1.0).numpy())  # the workers step while this process looks back
            value[t] = critic(seen).numpy()
            log_prob[t] = (elementwise_log_prob(sample, mean, log_std) @ self.groups.actions).numpy()
            observation[t], action[t], mean_of[t] = self._observation, sample.numpy(), mean.numpy()
            if t > 0:
                next_value[t - 1] = np.where(ended[t - 1][:, None], next_value[t - 1], value[t])
            self._observation, step_reward, terminated, truncated, info = envs.step_wait()
            reward[t] = info["reward_terms"] @ self.groups.rewards
            ended[t] = terminated | truncated
            self._return += step_reward
            if ended[t].any():
                rows = np.flatnonzero(ended[t])
                last = torch.from_numpy(np.stack([info["final_obs"][row] for row in rows]))
                next_value[t, rows] = np.where(terminated[rows][:, None], 0.0, critic(last).numpy())
                outcome.returns.extend(self._return[rows].tolist())
                outcome.successes.extend(info["success"][rows].tolist())
                outcome.metrics.extend(info["metrics"][rows])
                self._return[rows] = 0.0
        value_after = critic(torch.from_numpy(self._observation)).numpy()
        next_value[-1] = np.where(ended[-1][:, None], next_value[-1], value_after)
        advantage = generalized_advantages(reward, value, next_value, ended, self.config.gamma, self.config.lam)
        return flat_batch(observation, action, mean_of, log_std, log_prob, advantage, advantage + value), outcome


def flat_batch(
    observation: np.ndarray,
    action: np.ndarray,
    mean: np.ndarray,
    log_std: torch.Tensor,
    log_prob: np.ndarray,
    advantage: np.ndarray,
    value_target: np.ndarray,
) -> Batch:
    """Arrays of shape (steps, envs, ...) as one batch of shape (steps * envs, ...), float32."""

    def flat(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.reshape(-1, array.shape[-1]), dtype=np.float32))

    return Batch(
        observation=flat(observation),
        action=flat(action),
        log_prob=flat(log_prob),
        mean=flat(mean),
        log_std=log_std,
        advantage=flat(advantage),
        value_target=flat(value_target),
    )
