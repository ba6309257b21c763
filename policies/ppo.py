"""Proximal policy optimisation (Schulman et al. 2017), lean: advantages and an update. Nothing here knows an environment.

Credit may be split: where parts of the body have rewards of their own, each part's actions are weighed by its own advantage. The
policy is a product of independent Gaussians, so the gradient stays unbiased as far as the parts do not affect one another, and the
noise of the other parts' rewards is gone: for five fingers, about five times the samples. One group is plain PPO.

Samples may come from an earlier policy than the one being improved (simulation goes on while this learns). The clip is around the policy
the update starts from, and each sample is weighed by how much likelier that one is than the policy that acted (Hilton et al. 2022).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.mirror import Mirror
from policies.networks import Actor, Critic, elementwise_log_prob, gaussian_kl

EXPLODED = 1e6  # a value target beyond this is no return of a task whose rewards are of order one
MAX_WEIGHT = 2.0  # of a sample of an earlier policy; beyond it one sample would speak for many
# Times the target's KL: an update that has gone so far ends. The first one of a policy that imitates went to a thousand times it, and
# what had been imitated was gone.
TOO_FAR = 4.0
VALUE_RATE = 0.1  # share of an iteration in the scale of the critic's values


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of the learner; the defaults are HandReach's, found by measuring on two cores (docs/learning.md).

    Attributes:
        horizon: Control steps per environment and iteration.
        epochs, minibatch: Passes over an iteration's samples, and samples per gradient step.
        gamma, lam: Discount and GAE mixture.
        clip: Range of the probability ratio.
        learning_rate: Start; adapted so that the KL divergence of an iteration stays near `target_kl`.
        target_kl: Above twice this the rate falls, below half of it it rises; beyond four times it an update ends.
        entropy: Weight of the entropy bonus.
        value_weight: Weight of the value loss, in units of the values' own variance.
        max_gradient: Norm that each network's gradient is clipped to.
        mirror_weight: Of the mirror loss: how far an action is from the mirror image of what the policy does in the mirrored state, in
            standard deviations of its noise.
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
    mirror_weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One iteration's samples, n rows of (step, environment), steps outermost; g credit groups.

    Attributes:
        observation: shape (n, n_obs).
        seen: What the critic sees: the observation and what is privileged, shape (n, n_seen).
        action: As sampled, before clipping, shape (n, n_act).
        log_prob: Log density of each group's actions under the policy that acted, shape (n, g).
        advantage, value_target: shape (n, g).
        envs: Environments that are interleaved.
        fresh: Where episodes begin, shape (n / envs, envs), bool; of a policy with a memory only.
        memory: Its state before the first step, shape (envs, memory_size).
    """

    observation: Tensor
    seen: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    value_target: Tensor
    envs: int = 1
    fresh: Tensor | None = None
    memory: Tensor | None = None


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
        mirror: The robot's symmetry, which the policy is drawn to (Yu et al. 2018). Learning from mirrored samples instead fails as soon as
            the policy is not symmetric: what it did is then out of its own reach in the mirror. Not for a policy with memory.
    """

    def __init__(
        self, actor: Actor, critic: Critic, config: PPOConfig, groups: Tensor, mirror: Mirror | None = None
    ) -> None:
        self.actor, self.critic, self.config, self.groups = actor, critic, config, groups
        self.mirror = None if actor.memory_size else mirror
        self.learning_rate = config.learning_rate
        self.parameters = [*actor.parameters(), *critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, eps=1e-5, foreach=True)

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Improve the networks on one iteration's samples.

        Returns:
            Losses, and the KL divergence from the policy the update started from.

        Raises:
            FloatingPointError: A loss or value is not finite, or exploded; the networks are as they were before that step.
        """
        config, n = self.config, batch.observation.shape[0]
        largest = batch.value_target.abs().max().item()
        if not largest < EXPLODED:
            raise FloatingPointError(f"a value target is {largest:.3g}, beyond {EXPLODED:.0e}")
        self.critic.rescale(batch.value_target, VALUE_RATE if self.optimizer.state else 1.0)
        advantage = (batch.advantage - batch.advantage.mean(dim=0)) / (batch.advantage.std(dim=0) + 1e-8)
        samples = self._started(batch, advantage)
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "kl": 0.0}
        count = 0
        for _ in range(config.epochs):
            epoch_kl, epoch_count, too_far = 0.0, 0, False
            for rows in self._minibatches(batch, n, generator):
                figures = self._step(samples, rows)
                epoch_kl += figures["kl"]
                epoch_count += 1
                for name, value in figures.items():
                    sums[name] += value
                count += 1
                if too_far := figures["kl"] > TOO_FAR * config.target_kl:
                    break
            self._adapt(epoch_kl / epoch_count)
            if too_far:
                break
        return {name: value / max(count, 1) for name, value in sums.items()}

    @torch.no_grad()
    def _started(self, batch: Batch, advantage: Tensor) -> "_Samples":
        """Samples with what the policy at the start of the update says of them."""
        mean = self._mean(batch, torch.arange(batch.observation.shape[0]))
        log_std = self.actor.bounded_log_std.clone()
        near = elementwise_log_prob(batch.action, mean, log_std) @ self.groups
        weight = torch.exp(near - batch.log_prob).clamp(max=MAX_WEIGHT)
        return _Samples(batch=batch, advantage=advantage * weight, near=near, mean=mean, log_std=log_std)

    def _mean(self, batch: Batch, rows: Tensor) -> Tensor:
        """Mean actions of some rows, shape (k, n_act); with a memory, `rows` are whole columns of `_minibatches`."""
        if not self.actor.memory_size or batch.fresh is None or batch.memory is None:
            return self.actor.mean(batch.observation[rows])
        steps = batch.observation.shape[0] // batch.envs
        columns = rows[: rows.shape[0] // steps] % batch.envs
        observation = batch.observation[rows].reshape(steps, len(columns), -1)
        mean = self.actor.unroll(observation, batch.memory[columns], batch.fresh[:, columns])
        return mean.reshape(rows.shape[0], -1)

    def _minibatches(self, batch: Batch, n: int, generator: torch.Generator) -> list[Tensor]:
        """Rows of each gradient step: any rows, or all steps of some environments where the policy remembers."""
        if not self.actor.memory_size:
            return list(torch.randperm(n, generator=generator).split(self.config.minibatch))
        steps = n // batch.envs
        some = torch.randperm(batch.envs, generator=generator).split(max(1, self.config.minibatch // steps))
        return [(torch.arange(steps)[:, None] * batch.envs + columns).reshape(-1) for columns in some]

    def _step(self, samples: "_Samples", rows: Tensor) -> dict[str, float]:
        config, batch = self.config, samples.batch
        mean, log_std = self._mean(batch, rows), self.actor.bounded_log_std
        log_prob = elementwise_log_prob(batch.action[rows], mean, log_std) @ self.groups
        ratio = torch.exp(log_prob - samples.near[rows])
        clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
        advantage = samples.advantage[rows]
        policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).sum(dim=-1).mean()
        error = (self.critic(batch.seen[rows]) - batch.value_target[rows]) / self.critic.value_std
        value_loss = 0.5 * error.square().sum(dim=-1).mean()
        loss = policy_loss + config.value_weight * value_loss - config.entropy * self.actor.entropy()
        if self.mirror is not None:
            image = self.mirror.action(self.actor.mean(self.mirror.observation(batch.observation[rows])))
            loss = loss + config.mirror_weight * ((image - mean) / log_std.detach().exp()).square().mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} (policy {policy_loss.item()}, value {value_loss.item()})")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for network in (self.actor, self.critic):  # each by itself: a critic in trouble does not stop the actor
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            kl = gaussian_kl(samples.mean[rows], samples.log_std, mean, log_std).mean().item()
        return {"policy_loss": policy_loss.item(), "value_loss": value_loss.item(), "kl": kl}

    def _adapt(self, kl: float) -> None:
        config = self.config
        if kl > 2.0 * config.target_kl:
            self.learning_rate = max(config.min_rate, self.learning_rate / 1.5)
        elif kl < 0.5 * config.target_kl:
            self.learning_rate = min(config.max_rate, self.learning_rate * 1.5)
        self.apply_rate()

    def apply_rate(self) -> None:
        """Give the optimiser the learning rate in force."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """A batch and the policy the update starts from: weighed advantages, log densities, means."""

    batch: Batch
    advantage: Tensor
    near: Tensor
    mean: Tensor
    log_std: Tensor
