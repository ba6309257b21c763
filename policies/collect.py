"""From what the workers lived through to what the learner wants: credit, values, advantages."""

from dataclasses import dataclass

import numpy as np
import torch

from policies.networks import Critic, elementwise_log_prob
from policies.ppo import Batch, generalized_advantages
from policies.rollout import Trajectory
from sim.tasks.task import Credit


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


def seen_by_critic(observation: np.ndarray, privileged: np.ndarray) -> torch.Tensor:
    """What the critic gets: the observation and, behind it, what only it may see; any leading shape."""
    return torch.from_numpy(np.concatenate([observation, privileged], axis=-1, dtype=np.float32))


@torch.no_grad()
def batch_of(path: Trajectory, critic: Critic, groups: Groups, *, gamma: float, lam: float) -> Batch:
    """A trajectory as a batch for PPO.

    Values are the critic's of today. Where the task ended an episode nothing follows; where time ran out, what was last seen is worth
    what the critic says (Pardo et al. 2018).
    """
    t, n = path.terminated.shape
    seen = seen_by_critic(path.observation, path.privileged)
    value = critic(seen).numpy().astype(np.float64)
    next_value = np.concatenate([value[1:], critic(seen_by_critic(path.last_observation, path.last_privileged))[None]])
    if path.end_step.size:
        after = critic(seen_by_critic(path.end_observation, path.end_privileged)).numpy()
        over = path.terminated[path.end_step, path.end_env]
        next_value[path.end_step, path.end_env] = np.where(over[:, None], 0.0, after)
    reward = path.terms @ groups.rewards
    advantage = generalized_advantages(reward, value, next_value, path.ended, gamma, lam)
    action, mean, log_std = (torch.from_numpy(np.array(x)) for x in (path.action, path.mean, path.log_std))
    log_prob = elementwise_log_prob(action, mean, log_std) @ groups.actions
    return Batch(
        observation=_rows(path.observation),
        seen=seen.reshape(t * n, -1),
        action=_rows(path.action),
        log_prob=log_prob.reshape(t * n, -1),
        advantage=_rows(advantage),
        value_target=_rows(advantage + value),
        envs=n,
        fresh=torch.from_numpy(np.array(path.fresh)),
        memory=torch.from_numpy(np.array(path.memory)),
    )


def _rows(array: np.ndarray) -> torch.Tensor:
    """(steps, envs, k) as (steps * envs, k), float32."""
    return torch.from_numpy(np.array(array.reshape(-1, array.shape[-1]), dtype=np.float32))
