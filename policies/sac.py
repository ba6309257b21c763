"""Soft actor-critic (Haarnoja et al. 2018) made for two cores: residual networks with LayerNorm (SimBa, Lee et al. 2025), values by
credit group, returns over several steps, value behind a time limit, mirror images. It learns from any policy's steps.
"""

import copy
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor, nn

from policies.mirror import Mirror
from policies.networks import Actor, QCritic
from policies.ppo import EXPLODED
from policies.replay import Steps


@dataclass(frozen=True, kw_only=True)
class SACConfig:
    """Settings of the learner (docs/learning.md says what was measured).

    Attributes:
        horizon: Control steps per environment and iteration.
        updates_per_step: Gradient steps per control step; a core learns about as fast as another simulates at 1/15.
        batch: Steps per gradient step.
        gamma, ahead: Discount, and steps looked ahead before the value takes over.
        tau: Share of the critics that their targets take over per gradient step.
        learning_rate: Of all networks.
        actor_every: Critic steps per actor step.
        initial_std: Of the action before it is squashed, at the start.
        initial_alpha: Weight of the entropy, at the start; adapted.
        target_entropy: Per action [nat] of the squashed action; -1 is a deviation of about 0.2.
        first_steps: Control steps with actions drawn evenly, before anything is learned.
        capacity: Steps kept.
        hidden, blocks: Width, and residual blocks of each network.
        own_weight: Share of the run's own steps where packs are mixed in; the packs share the rest by size.
    """

    horizon: int = 8
    updates_per_step: float = 0.0625
    batch: int = 256
    gamma: float = 0.95
    ahead: int = 3
    tau: float = 0.01
    learning_rate: float = 5e-4
    actor_every: int = 2
    initial_std: float = 0.5
    initial_alpha: float = 0.01
    target_entropy: float = -1.0
    first_steps: int = 5_000
    capacity: int = 400_000
    hidden: int = 256
    blocks: int = 1
    own_weight: float = 0.5


class SAC:
    """The learner: an actor, two critics, their targets, and the weight of the entropy.

    Args:
        actor: With `state_std` and squash "tanh".
        critics: Two, of any equal shape; outputs one per credit group.
        mirror: Steps are learned from as they are or as their mirror images, by a coin.
    """

    def __init__(
        self, actor: Actor, critics: tuple[QCritic, QCritic], config: SACConfig, mirror: Mirror | None = None
    ) -> None:
        self.actor, self.critics, self.config, self.mirror = actor, nn.ModuleList(critics), config, mirror
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = torch.tensor(log(config.initial_alpha), requires_grad=True)
        rate = config.learning_rate
        self.actor_optimizer = torch.optim.AdamW(actor.parameters(), lr=rate, weight_decay=1e-2, foreach=True)
        self.critic_optimizer = torch.optim.AdamW(self.critics.parameters(), lr=rate, weight_decay=1e-2, foreach=True)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=rate)
        self.updates = 0

    def update(self, steps: Steps, generator: torch.Generator) -> dict[str, float]:
        """One gradient step on drawn steps.

        Raises:
            FloatingPointError: A loss or value is not finite, or exploded; nothing was changed by it.
        """
        observation, seen, action, reward, following, next_seen, discount = (
            torch.from_numpy(np.ascontiguousarray(getattr(steps, name), dtype=np.float32))
            for name in ("observation", "seen", "action", "reward", "next_observation", "next_seen", "discount")
        )
        if self.mirror is not None and torch.rand((), generator=generator).item() < 0.5:
            observation, following = self.mirror.observation(observation), self.mirror.observation(following)
            seen, next_seen = self.mirror.seen(seen), self.mirror.seen(next_seen)
            action = self.mirror.action(action)
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            chosen, log_prob = self.actor.sample_squashed(following, generator)
            value = torch.minimum(*(target(next_seen, chosen) for target in self.targets))
            value = value - alpha * log_prob[:, None] / value.shape[1]
            target = reward + discount[:, None] * value
        if not target.abs().max().item() < EXPLODED:
            raise FloatingPointError(f"a value target is {target.abs().max().item():.3g}, beyond {EXPLODED:.0e}")
        loss = torch.stack([(critic(seen, action) - target).square().mean() for critic in self.critics]).sum()
        _descend(self.critic_optimizer, loss, "value loss")
        with torch.no_grad():
            for behind, ahead in zip(self.targets.parameters(), self.critics.parameters()):
                behind.lerp_(ahead, self.config.tau)
        figures = {"value_loss": loss.item(), "value": target.sum(dim=1).mean().item(), "alpha": alpha.item()}
        if self.updates % self.config.actor_every == 0:
            figures |= self._improve(observation, seen, alpha, generator)
        self.updates += 1
        return figures

    def _improve(
        self, observation: Tensor, seen: Tensor, alpha: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        action, log_prob = self.actor.sample_squashed(observation, generator)
        self.critics.requires_grad_(False)  # their gradients would cost and not be used
        value = torch.minimum(*(critic(seen, action) for critic in self.critics)).sum(dim=1)
        loss = (alpha * log_prob - value).mean()
        _descend(self.actor_optimizer, loss, "policy loss")
        self.critics.requires_grad_(True)
        surplus = log_prob.detach().mean() + self.config.target_entropy * action.shape[1]
        _descend(self.alpha_optimizer, -self.log_alpha * surplus, "entropy loss")
        return {"policy_loss": loss.item(), "entropy": -log_prob.mean().item() / action.shape[1]}

    def update_normalizers(self, observation: Tensor, seen: Tensor) -> None:
        """Take new steps into the statistics of all networks."""
        self.actor.update_normalizer(observation)
        for network in (*self.critics, *self.targets):
            network.update_normalizer(seen)  # type: ignore[operator]


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, what: str) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(f"{what} is {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
