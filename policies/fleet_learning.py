"""Learning from what a fleet lived through: the policy that gathered the packs is improved on their steps, then polished in hindsight.

The robots acted with the exploration noise of a known policy, so their steps are on-policy samples of it. The behaviour's log
densities are computed again from that policy and held against the ones the robots wrote down: experience of another policy, or
damaged, does not pass. Steps of other policies in the packs are counted and left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.collect import Groups
from policies.hindsight import Hindsight, HindsightConfig, applies
from policies.networks import Actor, elementwise_log_prob
from policies.ppo import PPO, Batch, PPOConfig, generalized_advantages
from policies.train import git_commit
from robot.contract import Contract
from robot.errors import FlexorError
from robot.packs import GOES_ON, TERMINATED, Pack, find_packs, open_packs
from robot.report import version
from sim.tasks import find

LOG_PROB_AGREES = 1e-2  # float32 on both sides, 22 terms, two matrix libraries
EPOCHS = 8
# One large batch instead of a small one per iteration: larger minibatches, a slower start, and a policy that stays near the one that
# acted. At the settings of training it moved by a KL of 0.4 in one pass and got worse (docs/learning.md).
FLEET_PPO = {"epochs": 1, "minibatch": 1024, "learning_rate": 1e-4, "min_rate": 1e-6, "target_kl": 0.02}
FARTHEST_KL = 0.1  # the steps say no more about a policy this far away
# A policy that is good already learns from what lies close together; on pairs from anywhere it got worse.
FLEET_HINDSIGHT = HindsightConfig(steps=200, memory=10**9, near=0.9, near_steps=5, learning_rate=3e-4)
ROUNDS = 10  # of so many hindsight steps


class FleetLearningError(FlexorError, ValueError):
    """Packs that this policy cannot learn from; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Unbroken runs of steps from the packs, end to end. `ends[k]` is the row after run k."""

    observation: np.ndarray
    action: np.ndarray
    reward_terms: np.ndarray
    log_prob: np.ndarray
    ends: np.ndarray
    terminated: np.ndarray
    last_observation: np.ndarray
    left_out: int


def sequences(packs: list[Pack]) -> Sequences:
    """The runs of steps in packs that were gathered with exploration noise.

    Raises:
        FleetLearningError: None of the steps were taken with noise.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("observation", "action", "reward_terms", "log_prob")}
    ends, terminated, last, at, left_out = [], [], [], 0, 0
    for pack in packs:
        for low, high in _runs(pack):
            if not np.isfinite(pack.log_prob[low:high]).all():
                left_out += high - low
                continue
            for name, rows in parts.items():
                rows.append(np.asarray(getattr(pack, name)[low:high]))
            at += high - low
            ends.append(at)
            terminated.append(pack.ended[high - 1] == TERMINATED)
            last.append(np.asarray(pack.last_observation[pack.last_index[high - 1]]))
    if not ends:
        raise FleetLearningError(
            f"none of the {left_out} steps in the packs were taken with exploration noise; run robots with --explore"
        )
    return Sequences(
        **{name: np.concatenate(rows) for name, rows in parts.items()},
        ends=np.array(ends),
        terminated=np.array(terminated),
        last_observation=np.stack(last),
        left_out=left_out,
    )


def _runs(pack: Pack) -> Iterator[tuple[int, int]]:
    low = 0
    for end in np.flatnonzero(np.asarray(pack.ended) != GOES_ON).tolist():
        yield low, end + 1
        low = end + 1


@torch.no_grad()
def batch_of(saved: Checkpoint, data: Sequences, groups: Groups, config: PPOConfig) -> Batch:
    """The steps as one batch for the learner, with advantages by the run's own critic.

    Raises:
        FleetLearningError: The recorded log densities are not this policy's.
    """
    observation, action = torch.from_numpy(data.observation), torch.from_numpy(data.action)
    mean, log_std = saved.actor.distribution(observation)
    each = elementwise_log_prob(action, mean, log_std)
    off = np.abs(each.sum(dim=-1).numpy() - data.log_prob)
    if not off.max() < LOG_PROB_AGREES:
        raise FleetLearningError(
            f"{int((off >= LOG_PROB_AGREES).sum())} of {off.size} steps were not taken by the policy of this run: recorded and computed "
            f"log densities differ by up to {off.max():.3g}, expected below {LOG_PROB_AGREES}"
        )
    reward = data.reward_terms @ groups.rewards
    assert saved.critic is not None  # improve() has looked
    value, after = saved.critic(observation).numpy(), saved.critic(torch.from_numpy(data.last_observation)).numpy()
    advantage = np.zeros_like(value, dtype=np.float64)
    low = 0
    for run, high in enumerate(data.ends.tolist()):
        following = np.zeros_like(after[run]) if data.terminated[run] else after[run]
        next_value = np.concatenate([value[low + 1 : high], following[None]])
        ended = np.zeros((high - low, 1), dtype=bool)
        ended[-1] = True
        advantage[low:high] = generalized_advantages(
            reward[low:high, None], value[low:high, None], next_value[:, None], ended, config.gamma, config.lam
        )[:, 0]
        low = high
    return Batch(
        observation=observation,
        seen=observation,
        action=action,
        log_prob=each @ groups.actions,
        advantage=torch.from_numpy(advantage.astype(np.float32)),
        value_target=torch.from_numpy((advantage + value).astype(np.float32)),
    )


def improve(
    init: Path,
    packs: Path,
    out: Path,
    *,
    env_id: str,
    seed: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Improve a run's policy on a fleet's packs and save it as a run of its own.

    Args:
        init: The run whose policy acted.
        packs: Folder of packs.
        out: Where the new run goes.
        report: Takes one line per epoch.

    Returns:
        Steps learned from, steps left out, episodes' runs, losses.

    Raises:
        FleetLearningError, CheckpointError, PackError: As their names say.
    """
    saved = checkpoints.load(init)
    if saved.contract.env_id != env_id:
        raise FleetLearningError(f"{init} was trained for {saved.contract.env_id}, not {env_id}")
    if saved.critic is None:
        raise FleetLearningError(
            f"{init} has no critic of states; do: flexor train {env_id} --learner sac --from-packs {packs}"
        )
    from robot.description import load

    task = find(env_id)(load(saved.contract.robot))
    groups = Groups.of(task.credit(), saved.contract.action.joints, task.reward_names)
    paths = find_packs(packs)
    if not paths:
        raise FleetLearningError(f"no experience pack in {packs}; do: flexor fleet export --dir HUB --out {packs}")
    data = sequences(open_packs(paths, saved.contract.sha256))
    config = replace(PPOConfig(**saved.training["config"]["ppo"]), **FLEET_PPO)
    batch = batch_of(saved, data, groups, config)
    steps = batch.observation.shape[0]
    report(f"{steps:,} steps in {len(data.ends):,} runs from the packs, {data.left_out:,} without noise left out")
    learner = PPO(saved.actor, saved.critic, config, groups.actions)
    generator = torch.Generator().manual_seed(seed)
    losses: dict[str, float] = {}
    for epoch in range(EPOCHS):
        losses = learner.update(batch, generator)
        report(f"epoch {epoch + 1}/{EPOCHS}: kl {losses['kl']:.4f}, policy loss {losses['policy_loss']:.4f}")
        if losses["kl"] > FARTHEST_KL:
            break
    hindsight_loss = polish(learner.actor, saved.contract, batch.observation, generator, report)
    kept = data.observation[:: max(1, steps // 256)][:256]
    training = {
        **saved.training,
        "learner": "ppo + hindsight on fleet packs",
        "steps": saved.training["steps"] + steps,
        "fleet_steps": steps,
        "seed": seed,
        "commit": git_commit(),
        "version": version(),
        "command": f"flexor train {env_id} --from-packs PACKS --init RUN --seed {seed}",
    }
    checkpoints.save(
        out,
        replace(
            saved,
            recorded_observations=kept,
            training=training,
            tables={"optimizer": checkpoints.optimizer_arrays(learner.optimizer)},
            generators={"torch": generator.get_state().numpy()},
        ),
    )
    return {"steps": steps, "runs": len(data.ends), "left_out": data.left_out, **losses, **hindsight_loss}


def polish(
    actor: Actor,
    contract: Contract,
    observation: torch.Tensor,
    generator: torch.Generator,
    report: Callable[[str], None],
) -> dict[str, float]:
    """Teach the actor in hindsight on the fleet's observations; nothing where that does not apply."""
    if not applies(contract):
        return {}
    hindsight = Hindsight(actor, contract, FLEET_HINDSIGHT, stride=1)
    hindsight.remember(observation)
    loss = 0.0
    for done in range(1, ROUNDS + 1):
        loss = hindsight.learn(generator)
        report(f"hindsight {done}/{ROUNDS}: loss {loss:.4f}")
    return {"hindsight_loss": loss}
