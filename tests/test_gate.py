"""The release gate: what fails on the engine it was not trained on, or no longer answers as it did, is not called released."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mock_gym import CONTRACT, SmallReach

from policies import cli
from policies.artifact import PolicyFile
from policies.export import export, write_card
from policies.gate import GateError, golden_difference, judge
from policies.networks import Actor
from robot.artifacts import CARD_FILE, GOLDEN_FILE

ROWS = np.random.default_rng(0).standard_normal((200, CONTRACT.observation_size)).astype(np.float32)
TRAINING = {"env": CONTRACT.env_id, "engine": "mujoco", "seed": 0, "steps": 1, "commit": "", "learner": "none"}


def network() -> Actor:
    torch.manual_seed(0)
    actor = Actor.for_contract(CONTRACT, hidden=(16,))
    actor.update_normalizer(torch.from_numpy(ROWS))
    return actor


@pytest.fixture
def folder(tmp_path) -> Path:
    return export(
        network(), CONTRACT, tmp_path, "hand_reach", recorded_observations=ROWS, training=TRAINING, cross_check=False
    )


def maker(fails_on: str | None = None, *, but_seeds: tuple[int, ...] = ()):
    """Environments in which everything succeeds, but on one engine, where only some seeds do."""

    class Decided(SmallReach):
        def step(self, action):
            *rest, info = super().step(action)
            good = self.settings["engine"] != fails_on or self.seeds[-1] in but_seeds
            return *rest, {**info, "is_success": good}

    return lambda env_id, **settings: Decided(**settings)


def saved(actor: Actor) -> SimpleNamespace:
    return SimpleNamespace(actor=actor, contract=CONTRACT, recorded_observations=ROWS, training=TRAINING)


def test_a_policy_that_works_on_both_engines_is_released(folder):
    verdict = judge(folder, saved(network()), episodes=3, make_env=maker())  # type: ignore[arg-type]
    assert verdict.reasons == []
    assert list(verdict.results) == ["mujoco", "pybullet"]
    assert verdict.sentence().startswith("**Released**: 100.0 % on mujoco, 100.0 % on pybullet")


def test_the_verdict_and_the_card_say_at_which_level_it_was_measured(folder, monkeypatch):
    monkeypatch.setattr("sim.tasks.hand_reach.HandReach.levels", ("near", "all"))
    verdict = judge(folder, saved(network()), episodes=2, level="near", make_env=maker())  # type: ignore[arg-type]
    assert verdict.sentence().startswith('**Released**: at the level "near" 100.0 % on mujoco')
    write_card(folder, {engine: result.as_dict() for engine, result in verdict.results.items()})
    assert 'randomisation on; level "near", an easier form of the task.' in (folder / CARD_FILE).read_text()


def test_one_that_fails_where_it_was_not_trained_is_not(folder):
    verdict = judge(folder, episodes=3, seed=0, make_env=maker("pybullet", but_seeds=(1,)))
    (reason,) = verdict.reasons
    assert "success on pybullet, where it was not trained, is 33 %, on mujoco 100 %" in reason
    assert verdict.sentence().startswith("**Not released**")


def test_one_that_is_worse_where_it_was_trained_has_no_drop(folder):
    assert judge(folder, episodes=3, seed=0, make_env=maker("mujoco", but_seeds=(1,))).reasons == []


def test_one_that_never_succeeds_is_not(folder):
    (reason,) = judge(folder, episodes=3, make_env=maker("mujoco")).reasons
    assert reason == "it never succeeded on mujoco (n = 3)"


def test_a_file_that_answers_otherwise_than_it_did_is_not(folder):
    with np.load(folder / GOLDEN_FILE) as file:
        golden = {name: file[name].copy() for name in file.files}
    golden["actions"][7, 0] += 1e-3
    np.savez(folder / GOLDEN_FILE, **golden)
    (reason,) = judge(folder, episodes=1, make_env=maker()).reasons
    assert "differ from golden.npz by 0.001" in reason


def test_a_file_without_golden_samples_proves_nothing(folder):
    (folder / GOLDEN_FILE).unlink()
    assert golden_difference(PolicyFile.load(folder), folder) == float("inf")


@pytest.mark.parametrize("spoil", ["nan", "empty"])
def test_golden_samples_that_say_nothing_prove_nothing(folder, spoil):
    with np.load(folder / GOLDEN_FILE) as file:
        golden = {name: file[name].copy() for name in file.files}
    if spoil == "nan":
        golden["actions"][3, 0] = np.nan
    else:
        golden = {name: array[:0] for name, array in golden.items()}
    np.savez(folder / GOLDEN_FILE, **golden)
    assert any("differ from golden.npz" in reason for reason in judge(folder, episodes=1, make_env=maker()).reasons)


def test_a_file_that_acts_otherwise_than_the_network_is_not(folder):
    other = network()
    with torch.no_grad():
        other.head.bias.add_(0.01)
    (reason,) = judge(folder, saved(other), episodes=1, make_env=maker()).reasons  # type: ignore[arg-type]
    assert "differ from a rollout by 0.01" in reason


@pytest.mark.parametrize("fails_on", [None, "pybullet"])
def test_export_with_release_writes_the_verdict_into_the_card(fails_on, monkeypatch, tmp_path):
    monkeypatch.setattr("policies.checkpoint", SimpleNamespace(load=lambda run: saved(network())), raising=False)
    monkeypatch.setattr("policies.evaluate.gymnasium.make", maker(fails_on))
    monkeypatch.setattr("policies.gate.gymnasium.make", maker(fails_on))
    how = {"out": tmp_path, "release": True, "episodes": 2, "workers": 1, "json": tmp_path / "gate.json"}
    if fails_on:
        with pytest.raises(GateError, match="stays a draft:\n  it never succeeded on pybullet"):
            cli.export(Path("runs/one"), **how)
    else:
        cli.export(Path("runs/one"), **how)
    card = (tmp_path / "hand_reach/v1" / CARD_FILE).read_text()
    assert ("**Not released**" if fails_on else "**Released**") in card
    assert json.loads((tmp_path / "gate.json").read_text())["results"]["released"] is not bool(fails_on)
