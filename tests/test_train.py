"""A training run: it goes on as if it had never stopped, says what is wrong, and learns from a fleet's packs."""

import itertools
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from inline_sampler import InlineSampler

from policies import checkpoint as checkpoints
from policies import train as training
from policies.curve import Curve, Progress, read_curve
from policies.fleet_learning import FleetLearningError, improve
from policies.ppo import PPOConfig
from policies.settings import TrainConfig, settings_of
from policies.train import Trainer, TrainingError, config_of
from robot.errors import UnknownNameError
from robot.experience import Chunk, ChunkHeader
from robot.packs import write_pack

CONFIG = TrainConfig(
    env_id="flexor/HandReach-v0", num_envs=2, workers=1, hidden=(16,), ppo=PPOConfig(horizon=4, minibatch=4, epochs=1)
)
TICKS = itertools.count()  # a clock: every look is a second later
CHAPTER_STEPS = 2 * 4 * 2  # environments x horizon x iterations


@pytest.fixture(autouse=True)
def short_chapters(monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 2)


def run(folder: Path, steps: int, resume: bool = False) -> dict:
    saved = checkpoints.load(folder) if resume else None
    trainer = Trainer(
        folder, config_of(saved.training) if saved else CONFIG, resume_from=saved, make_sampler=InlineSampler
    )
    try:
        return trainer.train(seconds=None, steps=steps, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()


def _tick() -> float:
    return float(next(TICKS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "chapter_iterations", 2)
        folder = tmp_path_factory.mktemp("whole")
        run(folder, steps=3 * CHAPTER_STEPS)
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    run(tmp_path, steps=CHAPTER_STEPS)
    done = run(tmp_path, steps=3 * CHAPTER_STEPS, resume=True)
    assert done["steps"] == 3 * CHAPTER_STEPS
    ours, theirs = checkpoints.load(whole), checkpoints.load(tmp_path)
    for name, value in ours.actor.state_dict().items():
        assert torch.equal(value, theirs.actor.state_dict()[name]), name
    np.testing.assert_array_equal(ours.recorded_observations, theirs.recorded_observations)


def chunk_of(saved: checkpoints.Checkpoint, seed: int, *, shift: float = 0.0, noisy: bool = True) -> Chunk:
    """A chunk as a robot writes it: sampled from the policy, with its log density."""
    rng = np.random.default_rng(seed)
    contract, steps = saved.contract, 40
    low, high = np.maximum(contract.observation_low, -1.0), np.minimum(contract.observation_high, 1.0)
    observation = rng.uniform(low, high, (steps, contract.observation_size)).astype(np.float32)
    with torch.no_grad():
        action, log_prob = saved.actor.act(torch.from_numpy(observation), torch.Generator().manual_seed(seed))
    return Chunk(
        header=ChunkHeader(
            contract_sha256=contract.sha256,
            policy_sha256="a" * 64,
            episode_id=f"{seed:032x}",
            first_step=0,
            steps=steps,
            observation_size=contract.observation_size,
            action_size=contract.action_size,
            reward_names=("thumb", "index", "middle", "ring", "little", "smooth"),
            ended="truncated",
            control_hz=25.0,
        ),
        observation=observation,
        action=action.numpy(),
        reward=rng.uniform(0.0, 0.2, (steps, 6)).astype(np.float32),
        log_prob=log_prob.numpy() + shift if noisy else np.full(steps, np.nan, np.float32),
        success=np.zeros(steps, np.uint8),
        time_s=np.arange(steps) / 25.0,
        last_observation=observation[-1],
    )


def learn(whole: Path, packs: Path, out: Path) -> dict:
    return improve(whole, packs, out, env_id="flexor/HandReach-v0", seed=0, report=lambda line: None)


def test_a_policy_learned_from_packs_is_a_run_that_can_be_exported_and_counts_its_steps(whole, tmp_path):
    saved = checkpoints.load(whole)
    for i in range(2):
        write_pack(tmp_path / "packs" / f"p{i}", [chunk_of(saved, 10 + 2 * i + k) for k in range(2)])
    result = learn(whole, tmp_path / "packs", tmp_path / "out")
    assert result["steps"] == 160
    assert result["left_out"] == 0
    improved = checkpoints.load(tmp_path / "out")
    assert improved.training["fleet_steps"] == 160
    assert not torch.equal(improved.actor.head.weight, saved.actor.head.weight)


def test_steps_of_another_policy_are_refused(whole, tmp_path):
    write_pack(tmp_path / "packs" / "p", [chunk_of(checkpoints.load(whole), 1, shift=0.5)])
    with pytest.raises(FleetLearningError, match="40 of 40 steps were not taken by the policy of this run"):
        learn(whole, tmp_path / "packs", tmp_path / "out")


def test_steps_without_noise_teach_nothing_and_the_error_says_what_to_do(whole, tmp_path):
    write_pack(tmp_path / "packs" / "p", [chunk_of(checkpoints.load(whole), 1, noisy=False)])
    with pytest.raises(FleetLearningError, match="run robots with --explore"):
        learn(whole, tmp_path / "packs", tmp_path / "out")


def test_an_empty_folder_of_packs_says_how_to_fill_it(whole, tmp_path):
    (tmp_path / "packs").mkdir()
    with pytest.raises(FleetLearningError, match="flexor fleet export"):
        learn(whole, tmp_path / "packs", tmp_path / "out")


def test_a_diverged_loss_keeps_the_last_good_checkpoint(whole, tmp_path, monkeypatch):
    trainer = Trainer(tmp_path, CONFIG, make_sampler=InlineSampler)
    try:
        trainer.train(seconds=None, steps=CHAPTER_STEPS, report=lambda line: None, clock=_tick)
        good = (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes()

        def explode(path, generator):
            raise FloatingPointError("loss is nan")

        monkeypatch.setattr(trainer.method, "learn", explode)
        with pytest.raises(training.TrainingError, match="keeps the last good checkpoint"):
            trainer.train(seconds=None, steps=9 * CHAPTER_STEPS, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()
    assert (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes() == good


def test_a_checkpoint_of_another_environment_is_refused(whole, tmp_path):
    saved = checkpoints.load(whole)
    other = replace(saved, contract=msgspec.structs.replace(saved.contract, env_id="flexor/Other-v0"))
    with pytest.raises(training.TrainingError, match="was trained for flexor/Other-v0, not flexor/HandReach-v0"):
        Trainer(tmp_path, CONFIG, resume_from=other)


def test_a_long_chapter_is_saved_within_it_and_a_run_goes_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 4)
    monkeypatch.setattr(training, "SAVE_S", 0.0)
    trainer, saved = Trainer(tmp_path, CONFIG, make_sampler=InlineSampler), []
    kept = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda run, it: saved.append(dict(it.counters)) or kept(run, it))
    try:
        trainer.train(seconds=None, steps=4 * 8, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()
    assert [(it["steps"], it["chapter"]) for it in saved] == [(8, 1), (16, 1), (24, 1), (32, 1), (32, 1)]


def test_overlapping_changes_when_things_are_done_and_not_how_many(tmp_path):
    trainer = Trainer(tmp_path, replace(CONFIG, overlap=False), make_sampler=InlineSampler)
    try:
        done = trainer.train(seconds=None, steps=2 * CHAPTER_STEPS, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()
    assert done["steps"] == 2 * CHAPTER_STEPS


def test_lines_of_a_stretch_that_is_gone_through_again_are_taken_out(tmp_path):
    line = Progress(
        seconds=1, steps=10, rate_hz=1, left_s=0, episodes=0, return_mean=None, success=None, length_s=None, reward_hz=1
    )
    first = Curve(tmp_path, ("kl",), 0, tensorboard=True)
    for steps in (10, 20, 30):
        first.write(replace(line, steps=steps, losses={"kl": 0.5}))
    first.close()
    Curve(tmp_path, ("kl",), 20, tensorboard=False).close()
    assert [(row["steps"], row["kl"], row["success"]) for row in read_curve(tmp_path)] == [
        ("10", "0.5", ""),
        ("20", "0.5", ""),
    ]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_run_of_packs_cannot_be_resumed_as_a_simulation_run():
    with pytest.raises(training.TrainingError, match="no usable settings"):
        config_of({"env": "flexor/HandReach-v0"})


def test_settings_survive_the_record():
    record = training.training_record(replace(CONFIG, seed=5), steps=10, seconds=1.0, learner="ppo")
    assert config_of(record) == replace(CONFIG, seed=5)


REORIENT = replace(CONFIG, env_id="flexor/HandReorientCube-v0", level_success=0.5)


def levels_of(folder: Path, success: list[float], *, stop_after: int | None = None) -> list[str]:
    """The level of each chapter when so many episodes of each succeed; with `stop_after` chapters it is stopped and resumed once."""
    levels: list[str] = []
    left = iter(success)

    def trainer(saved: checkpoints.Checkpoint | None) -> Trainer:
        made = Trainer(folder, config_of(saved.training) if saved else REORIENT, saved, make_sampler=InlineSampler)
        rise = made._rise

        def seen(ends: np.ndarray) -> None:
            levels.append(made.sampler._rollouts[0]._task.level)  # type: ignore[attr-defined]
            rise(np.arange(100) < 100 * next(left))

        made._rise = seen  # type: ignore[method-assign]
        return made

    for chapters in [len(success)] if stop_after is None else [stop_after, len(success)]:
        saved = checkpoints.load(folder) if levels else None
        running = trainer(saved)
        try:
            running.train(seconds=None, steps=chapters * CHAPTER_STEPS, report=lambda line: None, clock=_tick)
        finally:
            running.close()
    return levels


def test_a_run_rises_a_level_when_enough_of_a_chapters_episodes_succeed(tmp_path):
    assert levels_of(tmp_path, [0.4, 0.5, 0.0, 0.9, 1.0]) == ["axis", "axis", "faces", "faces", "all"]


def test_a_resumed_run_stands_at_the_level_it_had_reached(tmp_path):
    assert levels_of(tmp_path, [0.6, 0.1, 0.6, 0.6], stop_after=1) == ["axis", "faces", "faces", "all"]


def test_a_chapter_that_was_cut_short_says_nothing_of_a_level(tmp_path):
    trainer, risen = Trainer(tmp_path, REORIENT, make_sampler=InlineSampler), []
    trainer._rise = risen.append  # type: ignore[method-assign]
    try:
        trainer.train(seconds=None, steps=1, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()
    assert risen == []


def test_a_level_that_is_named_stays_and_the_curve_tells_it(tmp_path):
    config = replace(REORIENT, level="faces", level_success=0.0)
    trainer = Trainer(tmp_path, config, make_sampler=InlineSampler)
    try:
        done = trainer.train(seconds=None, steps=2 * CHAPTER_STEPS, report=lambda line: None, clock=_tick)
    finally:
        trainer.close()
    assert done["level"] == "faces"
    assert {row["level"] for row in read_curve(tmp_path)} == {"faces"}
    assert settings_of("flexor/BodyWalk-v0", level="steady").level_success == 0.0


def test_levels_that_the_task_does_not_have_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"level of flexor/HandReorientCube-v0 'axes'.*Known: axis, faces, all"):
        Trainer(tmp_path, replace(REORIENT, level="axes", level_success=0.0), make_sampler=InlineSampler)
    with pytest.raises(TrainingError, match=r"level_success 0.5 needs levels.*HandReach-v0 has \(\)"):
        Trainer(tmp_path, replace(CONFIG, level_success=0.5), make_sampler=InlineSampler)
    with pytest.raises(TrainingError, match="level is 'axis'"):
        Trainer(tmp_path, replace(REORIENT, level="axis"), make_sampler=InlineSampler)
