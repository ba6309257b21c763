"""The learner: advantages are the formula, updates move the right way, credit stays with the part that earned it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.collect import Groups
from policies.mirror import Mirror
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
        seen=observation,
        action=action,
        log_prob=log_prob,
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


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("advantage", torch.nan, "loss is nan"),
        ("value_target", torch.nan, "a value target is nan"),
        ("value_target", 1e9, "a value target is 1e"),
    ],
)
def test_a_loss_or_value_that_explodes_stops_the_update_and_leaves_the_networks_finite(field, value, message):
    ppo = learner(torch.ones(2, 1))
    data = batch(ppo, lambda action: action.sum(dim=-1, keepdim=True))
    with pytest.raises(FloatingPointError, match=message):
        ppo.update(replace(data, **{field: torch.full_like(data.advantage, value)}), torch.Generator())
    assert all(torch.isfinite(p).all() for p in ppo.parameters)


def test_a_critic_keeps_its_values_while_their_scale_changes():
    torch.manual_seed(0)
    critic, seen = Critic(3, hidden=(16,), outputs=2), torch.randn(64, 3)
    before = critic(seen).detach()
    critic.rescale(1000.0 + 300.0 * torch.randn(64, 2), 0.5)
    torch.testing.assert_close(critic(seen).detach(), before, rtol=1e-4, atol=1e-3)
    assert critic.value_std.min().item() > 100.0


def test_samples_of_an_earlier_policy_weigh_as_much_as_they_are_likely_now():
    ppo = learner(torch.ones(2, 1))
    data = batch(ppo, lambda action: torch.ones(256, 1))
    rare = replace(data, log_prob=data.log_prob + np.log(4.0))  # they were four times likelier when they were drawn
    weighed = ppo._started(rare, data.advantage).advantage
    torch.testing.assert_close(weighed, torch.full((256, 1), 0.25))


def test_a_policy_with_a_memory_learns_what_only_the_past_tells():
    """The first observation of four says which action is good in the last; the others say nothing."""
    torch.manual_seed(0)
    actor, critic = Actor(1, 1, hidden=(16,), initial_std=0.5, memory=8), Critic(1, hidden=(16,))
    ppo = PPO(actor, critic, PPOConfig(minibatch=128, learning_rate=1e-2, max_rate=1e-2), torch.ones(1, 1))
    generator, steps, envs = torch.Generator().manual_seed(1), 4, 64

    def play() -> tuple[torch.Tensor, Batch]:
        cue = torch.randint(0, 2, (envs,), generator=generator) * 2.0 - 1.0
        observation = torch.zeros(steps, envs, 1)
        observation[0, :, 0] = cue
        fresh = torch.zeros(steps, envs, dtype=torch.bool)
        fresh[0] = True
        with torch.no_grad():
            mean = actor.unroll(observation, actor.initial_memory(envs), fresh)
            action = mean + actor.std * torch.randn(mean.shape, generator=generator)
            log_prob = elementwise_log_prob(action, mean, actor.bounded_log_std)
        advantage = torch.zeros(steps, envs, 1)
        advantage[-1, :, 0] = -(action[-1, :, 0] - cue).square()
        right = (mean[-1, :, 0] * cue).mean()
        return right, Batch(
            observation=observation.reshape(-1, 1),
            seen=observation.reshape(-1, 1),
            action=action.reshape(-1, 1),
            log_prob=log_prob.reshape(-1, 1),
            advantage=advantage.reshape(-1, 1),
            value_target=torch.zeros(steps * envs, 1),
            envs=envs,
            fresh=fresh,
            memory=actor.initial_memory(envs),
        )

    for _ in range(40):
        ppo.update(play()[1], generator)
    assert play()[0].item() > 0.4


def test_stepping_and_unrolling_a_memory_are_the_same():
    torch.manual_seed(0)
    actor = Actor(3, 2, hidden=(8,), memory=4)
    observation, fresh = torch.randn(6, 2, 3), torch.zeros(6, 2, dtype=torch.bool)
    fresh[3, 1] = True
    memory, means = actor.initial_memory(2), []
    for t in range(6):
        mean, memory = actor.step(observation[t], memory * (~fresh[t]).float()[:, None])
        means.append(mean)
    torch.testing.assert_close(actor.unroll(observation, actor.initial_memory(2), fresh), torch.stack(means))


def test_the_learning_rate_falls_when_the_policy_moves_too_far_and_rises_when_it_hardly_moves():
    far, near = learner(torch.ones(2, 1), target_kl=1e-6), learner(torch.ones(2, 1), target_kl=1e6, max_rate=1.0)
    for ppo in (far, near):
        ppo.update(batch(ppo, lambda action: action.sum(dim=-1, keepdim=True)), torch.Generator().manual_seed(0))
    assert far.learning_rate < 1e-2 < near.learning_rate


def test_an_update_that_has_gone_too_far_ends():
    steps = []
    for target_kl in (1e-6, 1e6):
        ppo = learner(torch.ones(2, 1), target_kl=target_kl)
        ppo.update(batch(ppo, lambda action: action.sum(dim=-1, keepdim=True)), torch.Generator().manual_seed(0))
        steps.append(int(next(iter(ppo.optimizer.state.values()))["step"]))
    assert steps == [2, 16]  # the second minibatch sees how far the first went; four epochs of four else


def test_a_joint_in_no_credit_group_is_named():
    credit = (Credit(joints=("a",), rewards=("r",)),)
    with pytest.raises(ValueError, match=r"exactly one credit group, not so: \['b'\]"):
        Groups.of(credit, ("a", "b"), ("r",))


def test_a_policy_is_drawn_to_its_mirror_image():
    swap = Mirror(
        observation_index=torch.tensor([1, 0, 2]),
        observation_sign=torch.tensor([1.0, 1.0, -1.0]),
        action_index=torch.tensor([1, 0]),
        action_sign=torch.ones(2),
    )

    def crookedness(weight: float) -> float:
        ppo = learner(torch.ones(2, 1), mirror_weight=weight)
        ppo.mirror = swap
        data = batch(ppo, lambda action: torch.randn(256, 1, generator=torch.Generator().manual_seed(3)))
        for _ in range(5):
            ppo.update(data, torch.Generator().manual_seed(0))
        mean = ppo.actor.mean(data.observation)
        image = swap.action(ppo.actor.mean(swap.observation(data.observation)))
        return (mean - image).square().mean().item()

    assert crookedness(1.0) < 0.2 * crookedness(0.0)
