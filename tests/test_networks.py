"""Networks and their normaliser."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.networks import (
    ACTIVATIONS,
    LOG_STD_MAX,
    LOG_STD_MIN,
    STD_MAX,
    STD_MIN,
    Actor,
    Critic,
    Inputs,
    QCritic,
    gaussian_kl,
    gaussian_log_prob,
    mlp,
)
from policies.normalizer import CLIP_SIGMA, VARIANCE_EPS, Normalizer
from robot.description import load
from robot.errors import UnknownNameError
from robot.mock import reach_contract

torch.set_num_threads(1)  # on networks this small two threads mostly wait for each other


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- normaliser


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**31))
def test_statistics_do_not_depend_on_how_samples_are_cut_into_batches(sizes, seed):
    samples = 5.0 + 3.0 * torch.randn(sum(sizes), 3, generator=generator(seed))
    normalizer = Normalizer(3)
    for batch in samples.split(sizes):
        normalizer.update(batch)
    exact = samples.double()
    assert normalizer.count.item() == len(samples)
    torch.testing.assert_close(normalizer.mean, exact.mean(dim=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(normalizer.var, exact.var(dim=0, correction=0), rtol=1e-10, atol=1e-12)


def test_statistics_survive_an_offset_that_float32_sums_would_lose():
    samples = 1.0e4 + 1.0e-1 * torch.randn(1000, 1, dtype=torch.float64, generator=generator())
    normalizer = Normalizer(1)
    for batch in samples.split(10):
        normalizer.update(batch)
    torch.testing.assert_close(normalizer.var, samples.var(dim=0, correction=0), rtol=1e-6, atol=0.0)


def test_forward_is_zero_mean_unit_variance_and_clipped():
    normalizer = Normalizer(2)
    samples = torch.tensor([3.0, -2.0]) + torch.tensor([0.5, 4.0]) * torch.randn(4000, 2, generator=generator())
    normalizer.update(samples)
    out = normalizer(samples)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(out.var(dim=0, correction=0), torch.ones(2), atol=1e-5, rtol=0.0)
    assert normalizer(torch.full((2,), 1e9)).tolist() == [CLIP_SIGMA] * 2


def test_a_normaliser_that_saw_nothing_changes_nothing():
    x = torch.linspace(-3.0, 3.0, 5)
    torch.testing.assert_close(Normalizer(5)(x), x, rtol=VARIANCE_EPS, atol=0.0)


@pytest.mark.parametrize("bad, message", [(float("nan"), r"elements \[1\]"), (float("inf"), r"elements \[1\]")])
def test_a_sample_that_is_not_finite_is_refused_and_leaves_no_trace(bad, message):
    normalizer = Normalizer(2)
    normalizer.update(torch.ones(3, 2))
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        normalizer.update(torch.tensor([[0.0, bad]]))
    assert all(torch.equal(before[name], value) for name, value in normalizer.state_dict().items())


def test_a_batch_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"shape \(n, 2\), got \(3,\)"):
        Normalizer(2).update(torch.ones(3))


# ---- inputs


def test_observations_are_clipped_before_they_are_normalised_and_before_they_are_counted():
    inputs = Inputs(2, low=[-1.0, -np.inf], high=[1.0, np.inf])
    inputs.update(torch.tensor([[100.0, 7.0], [-100.0, 9.0]]))
    assert inputs.normalizer.mean.tolist() == [0.0, 8.0]
    assert inputs.normalizer.var.tolist() == [1.0, 1.0]
    torch.testing.assert_close(inputs(torch.tensor([50.0, 10.0])), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("low, high", [([1.0, 0.0], [0.0, 1.0]), ([0.0], [1.0]), ([np.nan, 0.0], [1.0, 1.0])])
def test_ranges_that_cannot_be_are_refused(low, high):
    with pytest.raises(ValueError, match="low must"):
        Inputs(2, low, high)


# ---- actor


@pytest.fixture
def actor() -> Actor:
    torch.manual_seed(0)
    actor = Actor(6, 3, hidden=(16, 8))
    actor.update_normalizer(torch.randn(100, 6, generator=generator()))
    return actor


def test_log_prob_and_entropy_are_those_of_torch_distributions(actor):
    observation = torch.randn(32, 6, generator=generator(1))
    action = torch.randn(32, 3, generator=generator(2))
    with torch.no_grad():
        reference = torch.distributions.Normal(actor.mean(observation), actor.std)
        torch.testing.assert_close(actor.log_prob(observation, action), reference.log_prob(action).sum(-1))
        torch.testing.assert_close(actor.entropy(), reference.entropy()[0].sum())


def test_kl_is_that_of_torch_distributions_and_zero_for_itself():
    means, log_stds = torch.randn(2, 5, 3, generator=generator()), torch.randn(2, 3, generator=generator(1))
    first, second = (torch.distributions.Normal(m, s.exp()) for m, s in zip(means, log_stds))
    reference = torch.distributions.kl_divergence(first, second).sum(-1)
    torch.testing.assert_close(gaussian_kl(means[0], log_stds[0], means[1], log_stds[1]), reference)
    assert gaussian_kl(means[0], log_stds[0], means[0], log_stds[0]).abs().max() == 0.0


def test_sampled_actions_come_with_their_own_log_prob_and_follow_the_generator(actor):
    observation = torch.randn(64, 6, generator=generator(1))
    action, log_prob = actor.act(observation, generator(5))
    again, _ = actor.act(observation, generator(5))
    other, _ = actor.act(observation, generator(6))
    assert torch.equal(action, again)
    assert not torch.equal(action, other)
    mean, log_std = actor.distribution(observation)
    torch.testing.assert_close(log_prob, gaussian_log_prob(action, mean, log_std).detach(), atol=1e-4, rtol=0.0)


def test_sampled_actions_have_the_mean_and_spread_that_the_actor_says(actor):
    observation = torch.randn(1, 6, generator=generator(1)).expand(20000, 6)
    action, _ = actor.act(observation, generator(2))
    tolerance = 5.0 * 0.5 / 20000**0.5  # five standard errors of a mean at std 0.5
    torch.testing.assert_close(action.mean(0), actor.mean(observation[0]).detach(), atol=tolerance, rtol=0.0)
    torch.testing.assert_close(action.std(0), actor.std.detach(), atol=tolerance, rtol=0.0)


def test_first_mean_actions_are_near_zero(actor):
    assert actor.mean(torch.randn(100, 6, generator=generator(1))).abs().max() < 0.1


@pytest.mark.parametrize("far, bound", [(LOG_STD_MIN - 3.0, STD_MIN), (LOG_STD_MAX + 3.0, STD_MAX)])
def test_the_standard_deviation_stays_in_bounds_and_finds_back(actor, far, bound):
    with torch.no_grad():
        actor.log_std.fill_(far)
    torch.testing.assert_close(actor.std.detach(), torch.full((3,), bound))
    actor.entropy().backward()
    assert actor.log_std.grad.tolist() == [1.0] * 3  # a clamp would give 0 and hold it there


def test_a_tanh_mean_is_within_one_however_large_the_network_output():
    actor = Actor(2, 2, hidden=(4,), squash="tanh")
    with torch.no_grad():
        actor.head.weight.mul_(1e6)
    assert actor.mean(torch.randn(50, 2, generator=generator())).abs().max() <= 1.0


def test_an_actor_is_rebuilt_from_its_config_and_state_dict():
    contract = reach_contract(load("hand22"))
    actor = Actor.for_contract(contract, hidden=(16,), activation="silu", squash="tanh", layer_norm=True)
    actor.update_normalizer(torch.randn(50, contract.observation_size, generator=generator()))
    again = Actor(**actor.config)
    again.load_state_dict(actor.state_dict())
    observation = torch.randn(20, contract.observation_size, generator=generator(1))
    assert torch.equal(actor.mean(observation), again.mean(observation))
    assert again.inputs.low.tolist() == contract.observation_low.tolist()


@pytest.mark.parametrize(
    "config, error",
    [
        ({"activation": "gelo"}, UnknownNameError),
        ({"squash": "sigmoid"}, UnknownNameError),
        ({"initial_std": 0.0}, ValueError),
        ({"initial_std": float("nan")}, ValueError),
    ],
)
def test_an_actor_that_cannot_be_is_refused(config, error):
    with pytest.raises(error):
        Actor(2, 1, **config)


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=", ".join(ACTIVATIONS)):
        mlp((2, 2), "gelo")


# ---- critics


def test_a_critic_gives_one_value_per_observation_and_has_its_own_width():
    critic = Critic(9, hidden=(8,), low=[-1.0] * 9, high=[1.0] * 9)
    critic.update_normalizer(torch.randn(10, 9, generator=generator()))
    assert critic(torch.zeros(4, 7, 9)).shape == (4, 7, 1)
    assert Critic(9, hidden=(8,), outputs=5)(torch.zeros(4, 9)).shape == (4, 5)


def test_layer_norm_bounds_the_value_of_actions_nobody_took():
    torch.manual_seed(0)
    observation, far = torch.zeros(1, 3), torch.full((1, 2), 1e6)
    bounded, unbounded = QCritic(3, 2, hidden=(32, 32)), QCritic(3, 2, hidden=(32, 32), layer_norm=False)
    assert bounded(observation, far).shape == (1, 1)
    assert bounded(observation, far).abs().item() < 100.0
    assert unbounded(observation, far).abs().item() > 1e4


def test_initial_std_is_what_was_asked_for():
    torch.testing.assert_close(Actor(2, 2, initial_std=0.3).log_std.detach(), torch.full((2,), log(0.3)))
