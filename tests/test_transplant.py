"""Beginning with another task's networks: what means the same is taken over, what is new has no influence, what is gone reads zero."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from inline_sampler import InlineSampler

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.networks import Actor, Critic
from policies.ppo import PPOConfig
from policies.settings import TrainConfig
from policies.train import Trainer, words_for
from policies.transplant import TransplantError, begin_with, inputs_of, outputs_of
from robot.contract import Contract
from robot.description import load
from sim.tasks import TASKS

BODY = load("body28")
WALK, CARRY, STAND = (TASKS[f"flexor/Body{name}-v0"](BODY).contract() for name in ("Walk", "Carry", "Stand"))
PRIVILEGED = TASKS["flexor/BodyWalk-v0"].privileged_names


def networks(contract: Contract, seed: int, hidden: tuple[int, ...] = (24, 16)) -> tuple[Actor, Critic]:
    torch.manual_seed(seed)
    actor = Actor.for_contract(contract, hidden=hidden)
    critic = Critic(contract.observation_size + len(PRIVILEGED), hidden=hidden)
    with torch.no_grad():
        actor.head.weight.mul_(50.0)
        actor.head.bias.uniform_(-0.5, 0.5)
    return actor, critic


def source(contract: Contract = WALK) -> Checkpoint:
    actor, critic = networks(contract, 1)
    rng = np.random.default_rng(0)
    rows = rng.normal(0.2, 0.6, (500, contract.observation_size)).astype(np.float32)
    actor.update_normalizer(torch.from_numpy(rows))
    critic.update_normalizer(torch.from_numpy(np.hstack([rows, rng.normal(0.0, 2.0, (500, len(PRIVILEGED)))])))
    return Checkpoint(
        actor=actor,
        critic=critic,
        contract=contract,
        recorded_observations=rows,
        training={},
        counters={},
        generators={},
    )


def moment(contract: Contract, known: dict[Any, float]) -> torch.Tensor:
    return torch.tensor([known.get(key, 0.0) for key in inputs_of(contract)], dtype=torch.float32)


def shared(seed: int, *contracts: Contract) -> dict[Any, float]:
    """A number for everything that all of them see, within every range."""
    rng = np.random.default_rng(seed)
    common = set.intersection(*(set(inputs_of(c)) for c in contracts))
    return {key: float(rng.uniform(-0.1, 0.1)) for key in sorted(common, key=str)}


@pytest.mark.parametrize("target", (WALK, CARRY, STAND))
def test_joints_that_mean_the_same_are_moved_as_the_other_policy_would(target):
    saved = source()
    actor, critic = networks(target, 2)
    begin_with(actor, critic, target, PRIVILEGED, saved, PRIVILEGED)
    outputs, known = outputs_of(target), outputs_of(WALK)
    rows = [(i, known.index(out)) for i, out in enumerate(outputs) if out in known]
    assert len(rows) >= 14
    for seed in range(3):
        seen = shared(seed, WALK, target)
        ours, theirs = actor.mean(moment(target, seen)), saved.actor.mean(moment(WALK, seen))
        for i, j in rows:
            assert ours[i].item() == pytest.approx(theirs[j].item(), abs=1e-4), outputs[i]
        behind = torch.linspace(-1.0, 1.0, len(PRIVILEGED))
        assert saved.critic is not None
        value = critic(torch.cat([moment(target, seen), behind])).item()
        assert value == pytest.approx(saved.critic(torch.cat([moment(WALK, seen), behind])).item(), abs=1e-4)


def test_what_the_other_policy_did_not_see_has_no_influence_at_first():
    actor, critic = networks(CARRY, 2)
    begin_with(actor, critic, CARRY, PRIVILEGED, source(), PRIVILEGED)
    new = [i for i, key in enumerate(inputs_of(CARRY)) if key not in inputs_of(WALK)]
    assert len(new) >= 8
    before, changed = torch.zeros(CARRY.observation_size), torch.zeros(CARRY.observation_size)
    changed[new] = 0.1
    assert torch.equal(actor.mean(before), actor.mean(changed))


def test_joints_that_move_otherwise_begin_afresh():
    fresh, _ = networks(CARRY, 2)
    actor, critic = networks(CARRY, 2)
    begin_with(actor, critic, CARRY, PRIVILEGED, source(), PRIVILEGED)
    row = CARRY.action.joints.index("left_shoulder_pitch")  # holds the crate: 0.1 rad about another posture
    assert torch.equal(actor.head.weight[row], fresh.head.weight[row])


def test_an_older_moment_is_spread_like_the_newest():
    term = WALK.observation[0]
    n = term.size // term.history
    alone = msgspec.structs.replace(term, elements=term.elements[:n], low=term.low[:n], high=term.high[:n], history=1)
    old = msgspec.structs.replace(WALK, observation=(alone, *WALK.observation[1:]))
    saved = source(old)
    actor, critic = networks(WALK, 2)
    begin_with(actor, critic, WALK, PRIVILEGED, saved, PRIVILEGED)
    for k in range(3):
        assert torch.equal(actor.normalizer.mean[n * k : n * k + n], saved.actor.normalizer.mean[:n])


def test_other_layers_and_nothing_in_common_are_refused():
    actor, critic = networks(WALK, 2, hidden=(24, 8))
    with pytest.raises(TransplantError, match="other layers"):
        begin_with(actor, critic, WALK, PRIVILEGED, source(), PRIVILEGED)
    hand = TASKS["flexor/HandReach-v0"](load("hand22")).contract()
    strange = msgspec.structs.replace(
        hand, observation=tuple(term for term in hand.observation if term.name == "tip_position")
    )
    actor, critic = networks(strange, 2)
    with pytest.raises(TransplantError, match="saw nothing"):
        begin_with(actor, critic, strange, PRIVILEGED, source(), PRIVILEGED)


def test_a_run_that_begins_with_another_acts_like_it_and_says_so(tmp_path):
    ppo = PPOConfig(horizon=4, minibatch=4, epochs=1)
    saved = source()
    saved.actor.normalizer.count.fill_(
        5e6
    )  # whoever forgets them lets the first samples move the ground the weights stand on
    saved.training.update(env="flexor/BodyWalk-v0", seed=3, steps=7, commit="abc")
    config = TrainConfig(
        env_id="flexor/BodyWalk-v0", num_envs=1, workers=1, hidden=(24, 16), ppo=ppo, began_with=words_for(saved)
    )
    trainer = Trainer(tmp_path, config, init=saved, make_sampler=InlineSampler)
    try:
        row = torch.from_numpy(saved.recorded_observations[:5])
        assert torch.allclose(trainer.method.actor.mean(row), saved.actor.mean(row), atol=1e-5)
        trainer.save(0.0)
    finally:
        trainer.close()
    kept = checkpoints.load(tmp_path)
    assert kept.actor.normalizer.count.item() == 5e6
    assert kept.training["config"]["began_with"] == "flexor/BodyWalk-v0, seed 3, 7 steps, commit abc"
