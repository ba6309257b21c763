"""Simulation workers: the same steps however many there are, values where time ran out, and another worker where one died."""

import os
import signal

import numpy as np
import pytest
import torch
from inline_sampler import InlineSampler

from policies.arrays import decode, encode
from policies.collect import Groups, batch_of
from policies.networks import Actor, Critic
from policies.rollout import EnvFacts, Trajectory
from policies.sampler import LocalSampler, places
from sim.workers import WorkerError

REACH = "flexor/HandReach-v0"
SETTINGS = {"engine": "mujoco", "hand": None}


@pytest.fixture(scope="module")
def facts() -> EnvFacts:
    return EnvFacts.of(REACH, SETTINGS)


@pytest.fixture(scope="module")
def actor(facts) -> Actor:
    torch.manual_seed(0)
    return Actor.for_contract(facts.contract, hidden=(8,))


def weights(actor: Actor) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in actor.state_dict().items()}


def collected(actor: Actor, workers: int) -> Trajectory:
    sampler = InlineSampler(places(REACH, [SETTINGS] * 2, workers, actor.config))
    try:
        sampler.reset(7)
        sampler.ask(weights(actor), 52)
        return sampler.take()
    finally:
        sampler.close()


@pytest.fixture(scope="module")
def path(actor) -> Trajectory:
    return collected(actor, 1)


def test_arrays_come_back_as_they_were():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((0, 4), np.float32), "c": np.array([True, False])}
    for name, array in decode(encode(arrays)).items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == arrays[name].dtype


def test_the_same_seed_gives_the_same_steps(actor, path):
    again = collected(actor, 1)
    np.testing.assert_array_equal(again.observation, path.observation)
    np.testing.assert_array_equal(again.action, path.action)


def test_environments_start_alike_however_many_workers_there_are(actor, path):
    two = collected(actor, 2)
    np.testing.assert_array_equal(two.observation[0], path.observation[0])
    assert two.end_env.tolist() == [0, 1]
    assert two.observation.shape == path.observation.shape


def test_ends_are_where_the_time_limit_is_and_a_new_episode_follows(path):
    assert path.end_step.tolist() == [49, 49]
    assert path.end_length.tolist() == [50, 50]
    assert path.truncated[49].all()
    assert not path.terminated.any()
    assert np.argwhere(path.fresh)[:, 0].tolist() == [0, 0, 50, 50]
    assert (path.end_observation != path.observation[50]).any()


def test_where_time_ran_out_the_future_is_worth_what_the_critic_says(facts, path):
    groups = Groups.of(facts.credit, facts.contract.action.joints, facts.reward_names)
    critic = Critic(facts.contract.observation_size, hidden=(8,), outputs=5)
    with torch.no_grad():
        after = critic(torch.from_numpy(np.array(path.end_observation))).numpy()
        value = critic(torch.from_numpy(np.array(path.observation[49]))).numpy()
    batch = batch_of(path, critic, groups, gamma=0.9, lam=0.5)
    expected = path.terms[49] @ groups.rewards + 0.9 * after - value
    np.testing.assert_allclose(batch.advantage.reshape(52, 2, 5)[49], expected, rtol=1e-4, atol=1e-5)


def test_processes_collect_and_what_a_killed_one_owed_is_collected_by_another(actor, path):
    sampler = LocalSampler(places(REACH, [SETTINGS] * 2, 2, actor.config))
    try:
        sampler.reset(7)
        os.kill(sampler.pids[0], signal.SIGKILL)
        sampler.ask(weights(actor), 4)
        done = sampler.take()
        assert sampler.restarts == 1
        assert done.observation.shape[:2] == (4, 2)
        np.testing.assert_array_equal(done.observation[0, 1], path.observation[0, 1])  # the other one went on
    finally:
        sampler.close()


def test_what_is_wrong_in_a_worker_is_said(actor):
    sampler = LocalSampler(places(REACH, [{**SETTINGS, "hand": "hand23"}], 1, actor.config))
    try:
        with pytest.raises(WorkerError, match="hand23"):
            sampler.reset(0)
    finally:
        sampler.close()


def test_more_workers_than_environments_are_refused():
    with pytest.raises(ValueError, match=r"workers must be 1\.\.2"):
        places(REACH, [SETTINGS] * 2, 3, {})
