"""The learner: advantages are the formula, updates move the right way, credit stays with the part that earned it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.collect import Groups
from policies.networks import Actor, Critic, elementwise_log_prob
from policies.ppo import PPO, Batch, PPOConfig, generalized_advantages
from sim.tasks.task import Credit

GAMMA, LAM = 0.9, 0.8


def test_advantages_are_the_discounted_sum_of_td_errors_up_to_the_end_of_the_episode():
    rng = np.random.default_rng(0)
    reward, value, following = rng.normal(size=(3, 6, 2, 3))
    ended = np.zeros((6, 2), dtype=bool)
    ended[2, 0] = True
    delta = reward + GAMMA * following - value
    got = generalized_advantages(reward, value, following, ended, GAMMA, LAM)
    for env, steps in ((0, range(3)), (1, range(6))):  # environment 0 ends at step 2, environment 1 does not
        expected = sum((GAMMA * LAM) ** k * delta[k, env] for k in steps)
        np.testing.assert_allclose(got[0, env], expected, rtol=1e-12)


def learner(groups: torch.Tensor, **settings) -> PPO:
    torch.manual_seed(0)
    actor = Actor(3, 2, hidden=(16,), initial_std=0.5)
    critic = Critic(3, hidden=(16,), outputs=groups.shape[1])
    return PPO(actor, critic, replace(PPOConfig(minibatch=64, learning_rate=1e-2), **settings), groups)


def batch(ppo: PPO, advantage_of) -> Batch:
    observation = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        action, _ = ppo.actor.act(observation, torch.Generator().manual_seed(2))
        mean, log_std = ppo.actor.distribution(observation)
        log_prob = elementwise_log_prob(action, mean, log_std) @ ppo.groups
    advantage = advantage_of(action)
    return Batch(
        observation=observation,
        action=action,
        log_prob=log_prob,
        mean=mean,
        log_std=log_std.clone(),
        advantage=advantage,
        value_target=torch.zeros_like(advantage),
    )


def test_an_update_makes_advantageous_actions_likelier():
    ppo = learner(torch.ones(2, 1))
    data = batch(ppo, lambda action: action.sum(dim=-1, keepdim=True))
    before = ppo.actor.mean(data.observation).mean().item()
    ppo.update(data, torch.Generator().manual_seed(0))
    assert ppo.actor.mean(data.observation).mean().item() > before + 0.05


def test_with_split_credit_each_action_follows_its_own_advantage():
    ppo = learner(torch.eye(2))
    data = batch(ppo, lambda action: torch.stack([action[:, 0], -action[:, 1]], dim=-1))
    before = ppo.actor.mean(data.observation).mean(dim=0)
    ppo.update(data, torch.Generator().manual_seed(0))
    moved = ppo.actor.mean(data.observation).mean(dim=0) - before
    assert moved[0].item() > 0.05
    assert moved[1].item() < -0.05


def test_a_loss_that_is_not_finite_stops_the_update_and_leaves_the_networks_finite():
    ppo = learner(torch.ones(2, 1))
    data = batch(ppo, lambda action: action.sum(dim=-1, keepdim=True))
    with pytest.raises(FloatingPointError, match="loss is nan"):
        ppo.update(replace(data, value_target=torch.full_like(data.value_target, torch.nan)), torch.Generator())
    assert all(torch.isfinite(p).all() for p in ppo.parameters)


def test_the_learning_rate_falls_when_the_policy_moves_too_far_and_rises_when_it_hardly_moves():
    far, near = learner(torch.ones(2, 1), target_kl=1e-6), learner(torch.ones(2, 1), target_kl=1e6, max_rate=1.0)
    for ppo in (far, near):
        ppo.update(batch(ppo, lambda action: action.sum(dim=-1, keepdim=True)), torch.Generator().manual_seed(0))
    assert far.learning_rate < 1e-2 < near.learning_rate


def test_a_joint_in_no_credit_group_is_named():
    credit = (Credit(joints=("a",), rewards=("r",)),)
    with pytest.raises(ValueError, match=r"exactly one credit group, not so: \['b'\]"):
        Groups.of(credit, ("a", "b"), ("r",))
