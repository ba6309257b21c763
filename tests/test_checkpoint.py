"""A checkpoint brings everything back, and a damaged one is refused by name."""

import numpy as np
import pytest
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint, CheckpointError
from policies.networks import Actor, Critic
from policies.ppo import PPO, PPOConfig
from robot.description import load
from sim.tasks.hand_reach import HandReach


def made() -> tuple[Checkpoint, PPO]:
    contract = HandReach(load("hand22")).contract()
    torch.manual_seed(0)
    actor = Actor.for_contract(contract, hidden=(8,))
    critic = Critic(contract.observation_size, hidden=(8,), outputs=5)
    ppo = PPO(actor, critic, PPOConfig(), torch.ones(contract.action_size, 5))
    loss = (
        actor.mean(torch.ones(4, contract.observation_size)).sum()
        + critic(torch.ones(4, contract.observation_size)).sum()
    )
    loss.backward()
    ppo.optimizer.step()
    return (
        Checkpoint(
            actor=actor,
            critic=critic,
            contract=contract,
            recorded_observations=np.ones((4, contract.observation_size), np.float32),
            training={"env": contract.env_id, "seed": 3},
            tables={"optimizer": checkpoints.optimizer_arrays(ppo.optimizer)},
            counters={"steps": 7.0},
            generators={"torch": torch.Generator().manual_seed(5).get_state().numpy()},
        ),
        ppo,
    )


def test_networks_optimizer_counters_and_generators_come_back_to_the_bit(tmp_path):
    saved, ppo = made()
    checkpoints.save(tmp_path, saved)
    loaded = checkpoints.load(tmp_path)
    compared = 0
    assert saved.critic is not None
    assert loaded.critic is not None
    for ours, theirs in ((saved.actor, loaded.actor), (saved.critic, loaded.critic)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
            compared += 1
    assert compared > 10
    assert loaded.contract == saved.contract
    assert loaded.counters == saved.counters
    assert loaded.training == saved.training
    fresh = PPO(loaded.actor, loaded.critic, PPOConfig(), ppo.groups)
    checkpoints.restore_optimizer(fresh.optimizer, loaded.tables["optimizer"])
    again = checkpoints.optimizer_arrays(fresh.optimizer)
    assert set(again) == set(saved.tables["optimizer"])
    for name, value in saved.tables["optimizer"].items():
        np.testing.assert_array_equal(again[name], value)
    np.testing.assert_array_equal(loaded.generators["torch"], saved.generators["torch"])


def test_a_folder_without_a_run_says_what_is_missing(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"is no training run: contract\.json, training\.json, checkpoint\.npz missing"
    ):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    checkpoints.save(tmp_path, made()[0])
    path = tmp_path / checkpoints.CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        checkpoints.load(tmp_path)


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    saved, _ = made()
    checkpoints.save(tmp_path, saved)
    before = (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robot.files.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; the last checkpoint there is kept"):
        checkpoints.save(tmp_path, saved)
    assert (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.npz", "contract.json", "training.json"]
