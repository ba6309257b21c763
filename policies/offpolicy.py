"""Soft actor-critic on the run's own steps and on experience packs, as a `Method`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.collect import Groups
from policies.method import Method, Tables
from policies.mirror import Mirror
from policies.networks import Actor, QCritic
from policies.replay import REPLAY_FOLDER, Mix, PackSource, Ring, Source
from policies.rollout import EnvFacts, Trajectory
from policies.sac import SAC
from policies.settings import TrainConfig
from robot.packs import MixedContractError, Pack


class OffPolicy(Method):
    """SAC. With packs, critics see what the packs hold: observations, nothing privileged.

    Args:
        run: The run's folder; the ring of its own steps lives below it.
        packs: Experience of others, under the same contract.
        saved: A checkpoint that goes on, None for a fresh start.

    Raises:
        MixedContractError: A pack of another contract or other reward terms.
        ReplayError: No room for the ring.
    """

    losses = ("policy_loss", "value_loss", "value", "alpha", "entropy", "updates")
    name = "sac"

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        facts: EnvFacts,
        groups: Groups,
        mirror: Mirror | None,
        saved: Checkpoint | None,
        packs: Sequence[Pack] = (),
    ) -> None:
        for pack in packs:
            check_pack(pack, facts)
        self._rewards, self._config, self.horizon = groups.rewards, config.sac, config.sac.horizon
        self._sees_more = not packs
        self.actor, critics = (
            networks(config, facts, groups, self._sees_more)
            if saved is None
            else (
                saved.actor,
                networks(config, facts, groups, self._sees_more)[1],
            )
        )
        if mirror is not None and self._sees_more and facts.privileged_names and mirror.seen_index is None:
            mirror = None  # a critic of mirrored actions and unmirrored states would learn a wrong value
        self.sac = SAC(self.actor, critics, config.sac, mirror)
        written = 0 if saved is None else int(saved.counters["written"])
        widths = (
            facts.contract.observation_size,
            len(facts.privileged_names) if self._sees_more else 0,
            facts.contract.action_size,
            len(facts.reward_names),
        )
        self.ring = Ring(run / REPLAY_FOLDER, config.num_envs, config.sac.capacity, widths, written)
        sources: list[Source] = [self.ring, *(PackSource(pack) for pack in packs)]
        own, shared = config.sac.own_weight, sum(map(len, packs))
        weights = [own, *((1.0 - own) * len(pack) / shared for pack in packs)] if packs else [1.0]
        self._mix = Mix(sources=tuple(sources), weights=tuple(weights))
        self._rng = np.random.default_rng(config.seed)
        self._debt = 0.0  # gradient steps owed, a fraction of one
        self._learned_packs = saved is not None
        self._packs = tuple(packs)

    def begin(self) -> None:
        self.ring.cut()

    def explores_evenly(self, steps: int) -> bool:
        return steps < self._config.first_steps and not self._packs

    def learn(self, path: Trajectory, generator: torch.Generator) -> dict[str, float]:
        self.ring.add(path if self._sees_more else _without_privileged(path))
        if not self._learned_packs:
            for pack in self._packs:
                observation = torch.from_numpy(np.array(pack.observation))
                self.sac.update_normalizers(observation, observation)
            self._learned_packs = True
        observation = torch.from_numpy(np.array(path.observation)).flatten(0, 1)
        privileged = torch.from_numpy(np.array(path.privileged)).flatten(0, 1)
        self.sac.update_normalizers(
            observation, torch.cat([observation, privileged], dim=1) if self._sees_more else observation
        )
        if self.explores_evenly(len(self.ring)):
            return {"updates": 0.0}
        self._debt += self._config.updates_per_step * path.steps
        figures: dict[str, float] = {}
        while self._debt >= 1.0:
            self._debt -= 1.0
            config = self._config
            drawn = self._mix.draw(
                self._rng, config.batch, ahead=config.ahead, gamma=config.gamma, groups=self._rewards
            )
            figures |= self.sac.update(drawn, generator)
        return {**figures, "updates": float(self.sac.updates)}

    def tables(self) -> Tables:
        sac = self.sac
        return {
            "critics": {name: value.numpy() for name, value in sac.critics.state_dict().items()},
            "targets": {name: value.numpy() for name, value in sac.targets.state_dict().items()},
            "alpha": {"log_alpha": sac.log_alpha.detach().numpy()},
            **{
                name: checkpoints.optimizer_arrays(optimizer)
                for name, optimizer in (
                    ("actor_optimizer", sac.actor_optimizer),
                    ("critic_optimizer", sac.critic_optimizer),
                    ("alpha_optimizer", sac.alpha_optimizer),
                )
            },
            "rng": _rng_arrays(self._rng),
        }

    def counters(self) -> dict[str, float]:
        return {"written": float(self.ring.written), "updates": float(self.sac.updates), "debt": self._debt}

    def restore(self, tables: Tables, counters: dict[str, float]) -> None:
        sac = self.sac
        for name, module in (("critics", sac.critics), ("targets", sac.targets)):
            module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tables[name].items()})
        with torch.no_grad():
            sac.log_alpha.copy_(torch.from_numpy(np.array(tables["alpha"]["log_alpha"])))
        for name, optimizer in (
            ("actor_optimizer", sac.actor_optimizer),
            ("critic_optimizer", sac.critic_optimizer),
            ("alpha_optimizer", sac.alpha_optimizer),
        ):
            checkpoints.restore_optimizer(optimizer, tables.get(name, {}))
        _restore_rng(self._rng, tables["rng"])
        sac.updates, self._debt = int(counters["updates"]), counters["debt"]

    def save(self, run: Path) -> None:
        self.ring.flush()


def check_pack(pack: Pack, facts: EnvFacts) -> None:
    """Refuse a pack of another interface or other rewards.

    Raises:
        MixedContractError: It is.
    """
    for what, ours, theirs in (
        ("contract", facts.contract.sha256[:12], pack.meta.contract_sha256[:12]),
        ("reward terms", facts.reward_names, pack.meta.reward_names),
    ):
        if ours != theirs:
            raise MixedContractError(f"{pack.path}: {what} {theirs}, {facts.contract.env_id} has {ours}")


def networks(
    config: TrainConfig, facts: EnvFacts, groups: Groups, sees_more: bool
) -> tuple[Actor, tuple[QCritic, QCritic]]:
    """Fresh networks for an environment."""
    contract, sac = facts.contract, config.sac
    n = len(facts.privileged_names) if sees_more else 0
    actor = Actor.for_contract(
        contract, hidden=(sac.hidden,), blocks=sac.blocks, squash="tanh", state_std=True, initial_std=sac.initial_std
    )
    low = np.concatenate([contract.observation_low, np.full(n, -np.inf)])
    high = np.concatenate([contract.observation_high, np.full(n, np.inf)])

    def critic() -> QCritic:
        return QCritic(
            contract.observation_size + n,
            contract.action_size,
            hidden=(sac.hidden,),
            blocks=sac.blocks,
            low=low,
            high=high,
            outputs=groups.rewards.shape[1],
        )

    return actor, (critic(), critic())


def _without_privileged(path: Trajectory) -> Trajectory:
    cut = {name: getattr(path, name)[..., :0] for name in ("privileged", "last_privileged", "end_privileged")}
    return replace(path, **cut)


def _rng_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A PCG64's state as numbers of 64 bits."""
    state = rng.bit_generator.state
    parts = []
    for number in (state["state"]["state"], state["state"]["inc"]):
        parts += [number & (2**64 - 1), number >> 64]
    return {
        "state": np.array(parts, dtype=np.uint64),
        "half": np.array([state["has_uint32"], state["uinteger"]], dtype=np.uint64),
    }


def _restore_rng(rng: np.random.Generator, arrays: dict[str, np.ndarray]) -> None:
    low, high, inc_low, inc_high = (int(number) for number in arrays["state"])
    has, held = (int(number) for number in arrays["half"])
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has,
        "uinteger": held,
    }
