"""Proximal policy optimisation (Schulman et al. 2017), lean: advantages and an update. Nothing here knows an environment.

Credit may be split: where parts of the body have rewards of their own, each part's actions are weighed by its own advantage. The
policy is a product of independent Gaussians, so the gradient stays unbiased as far as the parts do not affect one another, and the
noise of the other parts' rewards is gone: for five fingers, about five times the samples. One group is plain PPO.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.networks import Actor, Critic, elementwise_log_prob, gaussian_kl


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of the learner; the defaults are HandReach's, found by measuring on two cores (docs/learning.md).

    Attributes:
        horizon: Control steps per environment and iteration.
        epochs, minibatch: Passes over an iteration's samples, and samples per gradient step.
        gamma, lam: Discount and GAE mixture.
        clip: Range of the probability ratio.
        learning_rate: Start; adapted so that the KL divergence of an iteration stays near `target_kl`.
        target_kl: Above twice this the rate falls, below half of it it rises.
        entropy: Weight of the entropy bonus.
        value_weight: Weight of the value loss.
        max_gradient: Norm that gradients are clipped to.
    """

    horizon: int = 32
    epochs: int = 4
    minibatch: int = 512
    gamma: float = 0.95
    lam: float = 0.9
    clip: float = 0.2
    learning_rate: float = 1e-3
    min_rate: float = 1e-4
    max_rate: float = 2e-3
    target_kl: float = 0.06
    entropy: float = 0.0
    value_weight: float = 1.0
    max_gradient: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one iteration, first axis (n,); `log_prob`, `advantage`, `value_target` have a column per credit group.

    `log_prob`, `mean` and `log_std` are the behaviour policy's.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    mean: Tensor
    log_std: Tensor
    advantage: Tensor
    value_target: Tensor


def generalized_advantages(
    reward: np.ndarray, value: np.ndarray, next_value: np.ndarray, ended: np.ndarray, gamma: float, lam: float
) -> np.ndarray:
    """GAE(lambda) advantages, shape (steps, envs, groups).

    Args:
        reward: shape (steps, envs, groups).
        value: V(s_t), shape (steps, envs, groups).
        next_value: V of the state that followed, before any reset; 0 where the task terminated, shape (steps, envs, groups).
        ended: Whether the episode ended with the step, by termination or truncation, shape (steps, envs).
    """
    advantage = np.zeros_like(reward)
    running = np.zeros(reward.shape[1:])
    for t in range(reward.shape[0] - 1, -1, -1):
        delta = reward[t] + gamma * next_value[t] - value[t]  # TD error
        running = delta + gamma * lam * np.where(ended[t][:, None], 0.0, running)
        advantage[t] = running
    return advantage


class PPO:
    """The learner: two networks, one optimiser, one adapted learning rate.

    Args:
        groups: Which actions belong to which credit group, ones and zeros, shape (n_actions, n_groups).
    """

    def __init__(self, actor: Actor, critic: Critic, config: PPOConfig, groups: Tensor) -> None:
        self.actor, self.critic, self.config, self.groups = actor, critic, config, groups
        self.learning_rate = config.learning_rate
        self.parameters = [*actor.parameters(), *critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, eps=1e-5, foreach=True)

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Improve the networks on one iteration's samples.

        Returns:
            Losses and the KL divergence from the behaviour policy.

        Raises:
            FloatingPointError: A loss is not finite; the networks are left as they were before that gradient step.
        """
        config, n = self.config, batch.observation.shape[0]
        advantage = (batch.advantage - batch.advantage.mean(dim=0)) / (batch.advantage.std(dim=0) + 1e-8)
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "kl": 0.0}
        count = 0
        for _ in range(config.epochs):
            order = torch.randperm(n, generator=generator)
            epoch_kl, epoch_count = 0.0, 0
            for rows in order.split(config.minibatch):
                observation = batch.observation[rows]
                mean, log_std = self.actor.distribution(observation)
                log_prob = elementwise_log_prob(batch.action[rows], mean, log_std) @ self.groups
                ratio = torch.exp(log_prob - batch.log_prob[rows])
                clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
                policy_loss = -torch.minimum(ratio * advantage[rows], clipped * advantage[rows]).sum(dim=-1).mean()
                value_loss = 0.5 * (self.critic(observation) - batch.value_target[rows]).square().sum(dim=-1).mean()
                loss = policy_loss + config.value_weight * value_loss - config.entropy * self.actor.entropy()
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"loss is {loss.item()} (policy {policy_loss.item()}, value {value_loss.item()})"
                    )
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.parameters, config.max_gradient, foreach=True)
                self.optimizer.step()
                with torch.no_grad():
                    kl = gaussian_kl(batch.mean[rows], batch.log_std, mean, log_std).mean().item()
                epoch_kl += kl
                epoch_count += 1
                for name, value in (("policy_loss", policy_loss.item()), ("value_loss", value_loss.item()), ("kl", kl)):
                    sums[name] += value
                count += 1
            self._adapt(epoch_kl / epoch_count)
        return {name: value / max(count, 1) for name, value in sums.items()}

    def _adapt(self, kl: float) -> None:
        config = self.config
        if kl > 2.0 * config.target_kl:
            self.learning_rate = max(config.min_rate, self.learning_rate / 1.5)
        elif kl < 0.5 * config.target_kl:
            self.learning_rate = min(config.max_rate, self.learning_rate * 1.5)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
