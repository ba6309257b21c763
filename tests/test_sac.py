"""The off-policy learner: its replay looks ahead and stops where episodes do, mixes by weight, refuses what is not its own, and a run
goes on as if it had never stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from inline_sampler import InlineSampler

from policies import checkpoint as checkpoints
from policies.artifact import PolicyFile
from policies.cli import packs_below
from policies.export import graph, metadata
from policies.networks import Actor, QCritic
from policies.offpolicy import check_pack
from policies.replay import Mix, PackSource, ReplayError, Ring, Steps
from policies.rollout import EnvFacts, Trajectory
from policies.sac import SAC, SACConfig
from policies.settings import TrainConfig, settings_of
from policies.train import Trainer, config_of
from robot.contract import Contract
from robot.description import load
from robot.errors import UnknownNameError
from robot.experience import Chunk, ChunkHeader
from robot.packs import CorruptPackError, EmptyPackError, MixedContractError, open_pack, write_pack

REACH = "flexor/HandReach-v0"
SMALL = SACConfig(horizon=4, updates_per_step=0.25, batch=8, hidden=8, first_steps=8, capacity=64)
CONFIG = TrainConfig(env_id=REACH, num_envs=2, workers=1, learner="sac", sac=SMALL)
CHAPTER_STEPS = 2 * 4 * 2
ONE = np.ones((1, 1))
WIDTHS = (1, 0, 1, 1)


def counted(first: int, steps: int, lanes: int = 2, end: int | None = None, terminated: bool = True) -> Trajectory:
    """Steps whose observation, action and reward is the step's number; lane 1 counts from 1000."""
    number = (first + np.arange(steps))[:, None] + 1000.0 * np.arange(lanes)[None]
    here = np.zeros((steps, lanes), dtype=bool)
    ends = [] if end is None else [(end - first, lane) for lane in range(lanes)]
    for step, lane in ends:
        here[step, lane] = True
    e = np.array(ends, dtype=np.int64).reshape(-1, 2)
    empty = np.zeros((steps, lanes, 0))
    return Trajectory(
        observation=number[..., None],
        privileged=empty,
        action=number[..., None] / 2000.0,
        mean=number[..., None],
        log_std=np.zeros(1),
        terms=number[..., None],
        terminated=here if terminated else np.zeros_like(here),
        truncated=np.zeros_like(here) if terminated else here,
        fresh=np.zeros_like(here),
        memory=np.zeros((lanes, 0)),
        last_observation=number[-1][:, None] + 1.0,
        last_privileged=np.zeros((lanes, 0)),
        end_step=e[:, 0],
        end_env=e[:, 1],
        end_observation=np.full((len(e), 1), -5.0),
        end_privileged=np.zeros((len(e), 0)),
        end_return=np.zeros(len(e)),
        end_length=np.zeros(len(e)),
        end_success=np.zeros(len(e), dtype=bool),
        end_metrics=np.zeros((len(e), 0)),
    )


def drawn(source, n: int = 400) -> dict[float, tuple[float, float, float]]:
    """observation -> (reward, next observation, discount) of many draws, looking two steps ahead."""
    steps: Steps = source.draw(np.random.default_rng(0), n, ahead=2, gamma=0.5, groups=ONE)
    rows = zip(steps.observation[:, 0], steps.reward[:, 0], steps.next_observation[:, 0], steps.discount)
    return {float(o): (float(r), float(f), float(d)) for o, r, f, d in rows}


def test_returns_look_ahead_and_stop_at_the_newest_step(tmp_path):
    ring = Ring(tmp_path, 2, 40, WIDTHS)
    ring.add(counted(0, 5))
    table = drawn(ring)
    assert len(table) == 10
    assert table[1.0] == (1.0 + 0.5 * 2.0, 3.0, 0.25)
    assert table[4.0] == (4.0, 5.0, 0.5)


@pytest.mark.parametrize("terminated, worth", [(True, 0.0), (False, 0.5)])
def test_value_goes_on_behind_a_time_limit_and_not_behind_a_fall(tmp_path, terminated, worth):
    ring = Ring(tmp_path, 2, 40, WIDTHS)
    ring.add(counted(0, 5, end=2, terminated=terminated))
    table = drawn(ring)
    assert table[2.0] == (2.0, -5.0, worth)
    assert table[1.0] == (1.0 + 0.5 * 2.0, -5.0, worth * 0.5)
    assert table[3.0] == (3.0 + 0.5 * 4.0, 5.0, 0.25)


def test_the_oldest_steps_give_way_and_lanes_do_not_mix(tmp_path):
    ring = Ring(tmp_path, 2, 20, WIDTHS)
    for first in range(0, 30, 5):
        ring.add(counted(first, 5))
    table = drawn(ring, 2000)
    assert sorted(table) == [*map(float, range(20, 30)), *map(float, range(1020, 1030))]
    assert table[29.0][1] == 30.0
    assert table[20.0][1] == 22.0


def test_a_fresh_start_is_not_the_next_step_of_what_came_before(tmp_path):
    ring = Ring(tmp_path, 2, 40, WIDTHS)
    ring.add(counted(0, 5))
    ring.cut()
    ring.add(counted(100, 5))
    assert drawn(ring)[4.0] == (4.0, 5.0, 0.5)


def test_a_ring_in_files_is_found_again_and_one_of_another_size_refused(tmp_path):
    ring = Ring(tmp_path, 2, 40, WIDTHS)
    ring.add(counted(0, 5))
    ring.flush()
    assert drawn(Ring(tmp_path, 2, 40, WIDTHS, written=5)) == drawn(ring)
    with pytest.raises(ReplayError, match=r"expected float32 \(60, 1\)"):
        Ring(tmp_path, 2, 60, WIDTHS, written=5)


def test_a_disk_without_room_is_named_before_anything_is_learned(tmp_path, monkeypatch):
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policies.replay.os.posix_fallocate", full)
    with pytest.raises(ReplayError, match=r"no room for \d+ MB of replay: No space left"):
        Ring(tmp_path, 2, 40, WIDTHS)
    assert list(tmp_path.iterdir()) == []


def test_sources_are_mixed_by_weight(tmp_path):
    one, other, empty = (Ring(tmp_path / name, 2, 40, WIDTHS) for name in "abc")
    one.add(counted(0, 5))
    other.add(counted(500, 5))
    mix = Mix(sources=(one, other, empty), weights=(0.25, 0.75, 5.0))
    steps = mix.draw(np.random.default_rng(0), 4000, ahead=1, gamma=0.5, groups=ONE)
    share = ((steps.observation % 1000.0) >= 500.0).mean()
    assert abs(share - 0.75) < 0.03
    with pytest.raises(ValueError, match="every source with a weight is empty"):
        Mix(sources=(empty,), weights=(1.0,)).draw(np.random.default_rng(0), 4, ahead=1, gamma=0.5, groups=ONE)


# ---- packs


@pytest.fixture(scope="module")
def facts() -> EnvFacts:
    return EnvFacts.of(REACH, {"engine": "mujoco"})


def chunk(facts: EnvFacts, seed: int, contract_sha256: str | None = None) -> Chunk:
    rng, steps, contract = np.random.default_rng(seed), 20, facts.contract
    observation = rng.normal(0.0, 0.3, (steps + 1, contract.observation_size)).astype(np.float32)
    return Chunk(
        header=ChunkHeader(
            contract_sha256=contract_sha256 or contract.sha256,
            policy_sha256="a" * 64,
            episode_id=f"{seed:032x}",
            first_step=0,
            steps=steps,
            observation_size=contract.observation_size,
            action_size=contract.action_size,
            reward_names=facts.reward_names,
            ended="truncated",
            control_hz=25.0,
        ),
        observation=observation[:-1],
        action=rng.normal(0.0, 2.0, (steps, contract.action_size)).astype(np.float32),
        reward=rng.uniform(0.0, 0.2, (steps, len(facts.reward_names))).astype(np.float32),
        log_prob=np.full(steps, np.nan, np.float32),
        success=np.zeros(steps, np.uint8),
        time_s=np.arange(steps) / 25.0,
        last_observation=observation[-1],
    )


def test_a_pack_is_drawn_from_in_place_with_actions_as_they_were_applied(facts, tmp_path):
    write_pack(tmp_path / "p", [chunk(facts, 1)])
    pack = open_pack(tmp_path / "p")
    steps = PackSource(pack).draw(
        np.random.default_rng(0), 200, ahead=3, gamma=0.9, groups=np.ones((len(facts.reward_names), 1))
    )
    assert np.abs(steps.action).max() == 1.0
    assert isinstance(pack.observation, np.memmap)
    last = np.flatnonzero((steps.observation == pack.observation[19]).all(axis=1))
    np.testing.assert_array_equal(steps.next_observation[last[0]], pack.last_observation[0])
    assert steps.discount[last[0]] == pytest.approx(0.9)


def test_packs_of_another_contract_empty_folders_and_damaged_packs_are_refused_by_name(facts, tmp_path):
    write_pack(tmp_path / "other" / "p", [chunk(facts, 1, contract_sha256="b" * 64)])
    with pytest.raises(MixedContractError, match="of contract bbbb"):
        packs_below(tmp_path / "other", facts.contract)
    with pytest.raises(MixedContractError, match="contract bbbb"):
        check_pack(open_pack(tmp_path / "other" / "p"), facts)
    (tmp_path / "none").mkdir()
    with pytest.raises(EmptyPackError, match="flexor fleet export"):
        packs_below(tmp_path / "none", facts.contract)
    write_pack(tmp_path / "bad" / "p", [chunk(facts, 1)])
    column = tmp_path / "bad" / "p" / "action.npy"
    column.write_bytes(column.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CorruptPackError, match=r"action\.npy: not the bytes"):
        packs_below(tmp_path / "bad", facts.contract)


# ---- the learner


def test_it_finds_the_action_that_is_rewarded():
    torch.manual_seed(0)
    actor = Actor(1, 1, hidden=(16,), blocks=1, squash="tanh", state_std=True)
    critics = QCritic(1, 1, hidden=(16,), blocks=1), QCritic(1, 1, hidden=(16,), blocks=1)
    sac = SAC(actor, critics, SACConfig(batch=64, learning_rate=3e-3, tau=0.05))
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(300):
        observation = rng.choice([-1.0, 1.0], (64, 1)).astype(np.float32)
        action = rng.uniform(-1.0, 1.0, (64, 1)).astype(np.float32)
        steps = Steps(
            observation=observation,
            seen=observation,
            action=action,
            reward=1.0 - (action - 0.5 * observation) ** 2,
            next_observation=observation,
            next_seen=observation,
            discount=np.zeros(64, np.float32),
        )
        sac.update(steps, generator)
    assert actor.mean(torch.tensor([[1.0]])).item() == pytest.approx(0.5, abs=0.15)
    assert actor.mean(torch.tensor([[-1.0]])).item() == pytest.approx(-0.5, abs=0.15)


def test_the_density_of_a_squashed_action_integrates_to_one():
    torch.manual_seed(0)
    actor = Actor(2, 1, hidden=(8,), blocks=1, squash="tanh", state_std=True, initial_std=0.8)
    observation = torch.randn(1, 2).expand(100_000, 2)
    action, log_prob = actor.sample_squashed(observation, torch.Generator().manual_seed(0))
    assert torch.exp(-log_prob).mean().item() == pytest.approx(2.0, rel=0.05)  # the length of -1..1
    assert action.abs().max().item() <= 1.0


def test_a_value_that_explodes_stops_it():
    torch.manual_seed(0)
    actor = Actor(1, 1, hidden=(8,), blocks=1, squash="tanh", state_std=True)
    sac = SAC(actor, (QCritic(1, 1, hidden=(8,)), QCritic(1, 1, hidden=(8,))), SACConfig())
    one = np.ones((4, 1), np.float32)
    steps = Steps(
        observation=one, seen=one, action=one, reward=1e9 * one, next_observation=one, next_seen=one, discount=one[:, 0]
    )
    with pytest.raises(FloatingPointError, match="a value target is 1e"):
        sac.update(steps, torch.Generator())


def run(folder: Path, steps: int, resume: bool = False, packs=()) -> dict:
    saved = checkpoints.load(folder) if resume else None
    config = config_of(saved.training) if saved else CONFIG
    trainer = Trainer(folder, config, resume_from=saved, packs=packs, make_sampler=InlineSampler)
    ticks = iter(range(10**6))
    try:
        return trainer.train(seconds=None, steps=steps, report=lambda line: None, clock=lambda: float(next(ticks)))
    finally:
        trainer.close()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 2)
    run(tmp_path / "whole", 3 * CHAPTER_STEPS)
    run(tmp_path / "parts", CHAPTER_STEPS)
    done = run(tmp_path / "parts", 3 * CHAPTER_STEPS, resume=True)
    assert done["losses"]["updates"] > 4
    ours, theirs = checkpoints.load(tmp_path / "whole"), checkpoints.load(tmp_path / "parts")
    for name, value in ours.actor.state_dict().items():
        assert torch.equal(value, theirs.actor.state_dict()[name]), name
    for name, value in ours.tables["critics"].items():
        np.testing.assert_array_equal(value, theirs.tables["critics"][name])


def test_a_run_learns_from_packs_beside_its_own_steps(facts, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 2)
    write_pack(tmp_path / "packs" / "p", [chunk(facts, i) for i in range(3)])
    done = run(tmp_path / "run", CHAPTER_STEPS, packs=packs_below(tmp_path / "packs", facts.contract))
    assert done["losses"]["updates"] == 4.0  # from the first step on: there is something to learn from


def test_settings_of_an_unknown_learner_list_the_known_ones():
    with pytest.raises(UnknownNameError, match="Known: ppo, sac"):
        settings_of(REACH, learner="td3")


def test_its_exported_file_gives_the_actions_of_the_network(facts):
    torch.manual_seed(0)
    contract = facts.contract
    actor = Actor.for_contract(contract, hidden=(16,), blocks=2, squash="tanh", state_std=True)
    observation = torch.randn(20, contract.observation_size)
    actor.update_normalizer(observation)
    file = PolicyFile.from_bytes(graph.to_bytes(graph.build(actor, contract, properties(actor, contract))))
    for row in observation[:5]:
        np.testing.assert_allclose(file.run(row.numpy())[0], actor.mean(row).detach().numpy(), atol=1e-5)


def properties(actor: Actor, contract: Contract) -> dict[str, str]:
    training = {"env": contract.env_id, "engine": "mujoco", "seed": 0, "steps": 1, "commit": "0", "learner": "sac"}
    return metadata.properties(actor, contract, load(contract.robot), training)
