"""PPO, with hindsight where the contract allows it, as a `Method`."""

import numpy as np
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.collect import Groups, batch_of, seen_by_critic
from policies.hindsight import Hindsight, applies
from policies.method import Method, Tables
from policies.mirror import Mirror
from policies.networks import Actor, Critic
from policies.ppo import PPO
from policies.rollout import EnvFacts, Trajectory
from policies.settings import TrainConfig


class OnPolicy(Method):
    """PPO on each trajectory, then hindsight on those remembered; hindsight pairs single moments, so not with a memory.

    Args:
        saved: A checkpoint whose networks are taken on, None for fresh ones.
    """

    losses = ("policy_loss", "value_loss", "kl", "hindsight_loss", "learning_rate", "action_std")

    def __init__(
        self, config: TrainConfig, facts: EnvFacts, groups: Groups, mirror: Mirror | None, saved: Checkpoint | None
    ) -> None:
        self.groups, self.horizon = groups, config.ppo.horizon
        if saved is None or saved.critic is None:
            self.actor, critic = networks(config, facts, groups)
        else:
            self.actor, critic = saved.actor, saved.critic
        self.ppo = PPO(self.actor, critic, config.ppo, groups.actions, mirror)
        self.hindsight = (
            Hindsight(self.actor, facts.contract, config.hindsight, stride=config.num_envs)
            if config.hindsight.steps and applies(facts.contract) and not self.actor.memory_size
            else None
        )
        self.name = "ppo + hindsight" if self.hindsight else "ppo"

    @property
    def critic(self) -> Critic:
        return self.ppo.critic

    def learn(self, path: Trajectory, generator: torch.Generator) -> dict[str, float]:
        config = self.ppo.config
        first = not self.critic.normalizer.count.item()
        if first:  # values of raw numbers would mean nothing once they are normalised
            self.critic.update_normalizer(seen_by_critic(path.observation, path.privileged).flatten(0, 1))
        batch = batch_of(path, self.ppo.critic, self.groups, gamma=config.gamma, lam=config.lam)
        losses = self.ppo.update(batch, generator)
        if self.hindsight is not None:
            self.hindsight.remember(batch.observation)
            losses["hindsight_loss"] = self.hindsight.learn(generator)
        self.actor.update_normalizer(batch.observation)
        if not first:
            self.critic.update_normalizer(batch.seen)
        return {
            **losses,
            "learning_rate": self.ppo.learning_rate,
            "action_std": float(self.actor.std.detach().mean()),
        }

    def tables(self) -> Tables:
        found: Tables = {"optimizer": checkpoints.optimizer_arrays(self.ppo.optimizer)}
        if self.hindsight is not None:
            found["hindsight_optimizer"] = checkpoints.optimizer_arrays(self.hindsight.optimizer)
            found["hindsight"] = {"memory": self.hindsight.memory.numpy()}
        return found

    def counters(self) -> dict[str, float]:
        return {"learning_rate": self.ppo.learning_rate}

    def restore(self, tables: Tables, counters: dict[str, float]) -> None:
        if "optimizer" in tables:  # not before the first update, as in a run that begins by imitating
            checkpoints.restore_optimizer(self.ppo.optimizer, tables["optimizer"])
        if self.hindsight is not None and "hindsight" in tables:
            checkpoints.restore_optimizer(self.hindsight.optimizer, tables["hindsight_optimizer"])
            self.hindsight.memory = torch.from_numpy(np.array(tables["hindsight"]["memory"]))
        self.ppo.learning_rate = counters["learning_rate"]
        self.ppo.apply_rate()


def networks(config: TrainConfig, facts: EnvFacts, groups: Groups) -> tuple[Actor, Critic]:
    """Fresh networks for an environment."""
    contract, n = facts.contract, len(facts.privileged_names)
    actor = Actor.for_contract(
        contract,
        hidden=config.hidden,
        activation=config.activation,
        initial_std=config.initial_std,
        memory=config.memory,
    )
    critic = Critic(
        contract.observation_size + n,
        hidden=config.hidden,
        activation=config.activation,
        low=np.concatenate([contract.observation_low, np.full(n, -np.inf)]),
        high=np.concatenate([contract.observation_high, np.full(n, np.inf)]),
        outputs=groups.rewards.shape[1],
    )
    return actor, critic
