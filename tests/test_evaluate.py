"""Evaluation: fixed seeds, the exported file, honest intervals. The world here is the mock task behind a Gymnasium face."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from mock_gym import CONTRACT, Maker, SmallReach

from policies import cli
from policies.artifact import PolicyFile
from policies.evaluate import EvaluationError, evaluate, margin, run_episode, with_baselines
from policies.export import export
from policies.intervals import mean_interval, t95, wilson
from policies.networks import Actor
from policies.watch import watch
from robot.errors import UnknownNameError

torch.set_num_threads(1)  # on networks this small two threads mostly wait for each other


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    actor = Actor.for_contract(CONTRACT, hidden=(16,))
    rows = np.random.default_rng(0).standard_normal((200, CONTRACT.observation_size)).astype(np.float32)
    actor.update_normalizer(torch.from_numpy(rows))
    with torch.no_grad():
        actor.head.weight.mul_(100.0)
    training = {"env": CONTRACT.env_id, "engine": "mock", "seed": 0, "steps": 1, "commit": "", "learner": "none"}
    out = tmp_path_factory.mktemp("models")
    return export(actor, CONTRACT, out, "hand_reach", recorded_observations=rows, training=training, cross_check=False)


def constant(value: float):
    return lambda observation, info: np.full(CONTRACT.action_size, value, dtype=np.float32)


# ---- episodes


def test_episode_i_has_seed_plus_i_and_the_settings_asked_for(folder):
    maker = Maker()
    result = evaluate(folder, engine="mujoco", episodes=3, seed=40, randomization=False, make_env=maker)
    (env,) = maker.made
    assert env.seeds == [40, 41, 42] == [episode.seed for episode in result.episodes]
    assert env.settings == {"engine": "mujoco", "hand": "hand22", "randomization": False}
    assert maker.ids == ["sim:flexor/HandReach-v0"]
    assert env.closed


def test_a_level_reaches_the_environment_the_result_and_the_table(folder, monkeypatch, capsys):
    monkeypatch.setattr("sim.tasks.hand_reach.HandReach.levels", ("near", "all"))
    maker = Maker()
    result = evaluate(folder, episodes=1, level="near", make_env=maker)
    assert maker.made[0].settings["level"] == "near" and result.as_dict()["level"] == "near"
    assert "near" in cli.table([result.as_dict()])
    with pytest.raises(EvaluationError, match="the same level"):
        margin(result, evaluate(folder, episodes=1, make_env=Maker()))
    with pytest.raises(UnknownNameError, match=r"unknown level of flexor/HandReach-v0 'nera'.*Known: near, all"):
        evaluate(folder, episodes=1, level="nera", make_env=Maker())


def test_the_same_seeds_give_the_same_result_and_others_another(folder):
    results = [evaluate(folder, episodes=2, seed=seed, make_env=Maker()).as_dict() for seed in (5, 5, 6)]
    assert results[0] == results[1]
    assert results[0]["returns"] != results[2]["returns"]


def test_the_exported_file_acts(folder):
    policy = PolicyFile.load(folder)
    env = SmallReach()
    seen = []

    def spy(observation, info):
        seen.append(policy.run(observation)[0])
        return np.clip(seen[-1], -1.0, 1.0)

    by_hand = run_episode(env, spy, 7)
    assert evaluate(folder, episodes=1, seed=7, make_env=Maker()).episodes[0] == by_hand
    assert len(seen) == by_hand.steps == 10
    assert np.std(seen) > 0.1


def test_figures_follow_from_the_episodes(folder):
    result = evaluate(folder, episodes=4, seed=0, make_env=Maker())
    figures = result.as_dict()
    env, policy = SmallReach(), PolicyFile.load(folder)
    episodes = [run_episode(env, lambda observation, info: policy.act(observation), seed) for seed in range(4)]
    assert figures["episodes"] == 4
    assert figures["return_mean"] == pytest.approx(np.mean([e.total_reward for e in episodes]), abs=1e-12)
    assert figures["success"] == np.mean([e.success for e in episodes])
    assert figures["success_ci95"] == list(wilson(sum(e.success for e in episodes), 4))
    assert figures["metrics"]["tip_error_mm"]["mean"] == pytest.approx(
        np.mean([e.metrics["tip_error_mm"] for e in episodes])
    )
    assert figures["energy_j"]["mean"] == 2.0
    assert "energy_j" not in figures["metrics"]
    json.dumps(figures, allow_nan=False)


def test_progress_is_told_after_each_episode(folder):
    told = []
    evaluate(folder, episodes=3, make_env=Maker(), progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_environment_is_closed_when_an_episode_fails(folder, monkeypatch):
    maker = Maker()
    monkeypatch.setattr(SmallReach, "step", lambda self, action: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(folder, episodes=1, make_env=maker)
    assert maker.made[0].closed


def test_an_environment_without_a_verdict_is_refused(monkeypatch):
    env = SmallReach()
    monkeypatch.setattr(env, "step", lambda action: (None, 0.0, True, False, {"metrics": {}}))
    with pytest.raises(EvaluationError, match=r"must have 'is_success', got \['metrics'\]"):
        run_episode(env, constant(0.0), 0)


def test_a_file_for_another_interface_is_refused_and_the_difference_named(folder):
    other = msgspec.structs.replace(CONTRACT, control_hz=50.0)
    with pytest.raises(EvaluationError, match=r"control_hz: file 25\.0, environment 50\.0"):
        evaluate(folder, episodes=1, make_env=Maker(other))


def test_an_environment_without_a_contract_is_refused(folder):
    maker = Maker()
    maker.contract = CONTRACT

    def without(env_id, **settings):
        env = maker(env_id, **settings)
        del env.contract
        return env

    with pytest.raises(EvaluationError, match="has no contract"):
        evaluate(folder, episodes=1, make_env=without)


def test_an_unknown_policy_lists_the_known_ones(folder):
    with pytest.raises(UnknownNameError, match="hand_reach/v1"):
        evaluate("hand_rech", models_dir=folder.parents[1], make_env=Maker())


def test_no_episodes_is_no_measurement(folder):
    with pytest.raises(EvaluationError, match="episodes must be >= 1, got 0"):
        evaluate(folder, episodes=0, make_env=Maker())


# ---- comparison


@pytest.fixture
def baselines(monkeypatch):
    """Two baselines of known worth in the place of the real ones."""
    acts = {"zero": constant(0.0), "random": constant(1.0)}
    monkeypatch.setattr("policies.evaluate.baseline_policy", lambda name: lambda env: acts[name])
    return ("zero", "random")


def test_baselines_face_the_same_episodes_and_margins_are_paired(folder, baselines):
    maker = Maker()
    results = with_baselines(folder, baselines, episodes=5, seed=3, make_env=maker)
    assert list(results) == ["hand_reach/v1", "zero", "random"]
    assert [env.seeds for env in maker.made] == [[3, 4, 5, 6, 7]] * 3
    ours, zero = results["hand_reach/v1"], results["zero"]
    difference = margin(ours, zero)
    paired = ours.returns - zero.returns
    assert difference["return_mean"] == pytest.approx(paired.mean())
    half = t95(4) * paired.std(ddof=1) / math.sqrt(5)
    assert difference["return_ci95"] == pytest.approx([paired.mean() - half, paired.mean() + half])
    assert difference["success"] == pytest.approx(ours.success - zero.success)


@pytest.mark.parametrize("change", [{"seed": 1}, {"engine": "mujoco"}, {"randomization": False}, {"episodes": 3}])
def test_runs_on_other_episodes_are_not_paired(folder, change):
    settings = {"episodes": 2, "seed": 0, "make_env": Maker()}
    with pytest.raises(EvaluationError, match="are paired"):
        margin(evaluate(folder, **settings), evaluate(folder, **{**settings, **change}))


# ---- intervals


def test_wilson_is_newcombes_worked_example():
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


@pytest.mark.parametrize(
    "freedom, quantile", [(1, 12.7062), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423), (99, 1.9842)]
)
def test_t_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t95(freedom) == pytest.approx(quantile, abs=1.5e-3)


def test_nineteen_of_twenty_mean_intervals_hold_the_mean():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 8))
    intervals = [mean_interval(row)[1] for row in samples]
    share = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert share == pytest.approx(0.95, abs=0.015)  # three standard errors of 2000 trials


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_a_mean_of_nothing_or_of_nan_is_refused(values):
    with pytest.raises(ValueError, match="expected finite values"):
        mean_interval(np.array(values))


def test_one_value_has_no_interval():
    assert mean_interval(np.array([4.0])) == (4.0, None)


@pytest.mark.parametrize("successes, n", [(1, 0), (-1, 3), (4, 3)])
def test_a_rate_that_cannot_be_is_refused(successes, n):
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson(successes, n)


# ---- command line


@pytest.mark.parametrize(
    "env_id, name",
    [
        ("flexor/HandReach-v0", "hand_reach"),
        ("flexor/HandReorientCube-v0", "hand_reorient_cube"),
        ("flexor/BodyWalk-v1", "body_walk"),
    ],
)
def test_an_artifact_is_named_after_its_environment(env_id, name):
    assert cli.artifact_name(env_id) == name


def test_export_releases_a_run_under_the_name_of_its_environment(monkeypatch, tmp_path):
    torch.manual_seed(0)
    actor = Actor.for_contract(CONTRACT, hidden=(8,))
    rows = np.random.default_rng(0).standard_normal((20, CONTRACT.observation_size)).astype(np.float32)
    actor.update_normalizer(torch.from_numpy(rows))
    training = {"env": CONTRACT.env_id, "engine": "mock", "seed": 0, "steps": 1, "commit": "", "learner": "none"}
    saved = SimpleNamespace(
        actor=actor, contract=CONTRACT, recorded_observations=rows, training=training, cross_check=False
    )
    asked = []
    checkpoint = SimpleNamespace(load=lambda run: asked.append(run) or saved)
    monkeypatch.setattr("policies.checkpoint", checkpoint, raising=False)
    folder = cli.export(Path("runs/one"), out=tmp_path)
    assert asked == [Path("runs/one")]
    assert folder == tmp_path / "hand_reach/v1"
    assert PolicyFile.load(folder).training == training


def test_eval_writes_what_scripts_read(folder, baselines, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("policies.evaluate.BASELINES", baselines)
    monkeypatch.setattr("policies.evaluate.gymnasium.make", Maker())
    cli.eval_(str(folder), episodes=3, seed=9, baselines=True, workers=1, json=tmp_path / "eval.json")
    report = json.loads((tmp_path / "eval.json").read_text())
    assert set(report) == {"command", "version", "machine", "seed", "results"}
    assert report["command"] == "eval" and report["seed"] == 9
    results = report["results"]
    assert 0.0 <= results["success_ci95"][0] <= results["success"] <= results["success_ci95"][1] <= 1.0
    assert results["return_ci95"][0] <= results["return_mean"] <= results["return_ci95"][1]
    assert set(results["baselines"]) == set(results["margins"]) == set(baselines)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:4]] == ["policy", "hand_reach/v1", "zero", "random"]
    assert "tip_error_mm" in printed[4] and "energy 2 J" in printed[4]


def test_both_engines_and_nominal_robots_are_rows_of_one_report(folder, monkeypatch, tmp_path):
    maker = Maker()
    monkeypatch.setattr("policies.evaluate.gymnasium.make", maker)
    cli.eval_(str(folder), engine="both", episodes=2, nominal=True, workers=1, json=tmp_path / "eval.json")
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert list(results["rows"]) == ["pybullet", "pybullet, nominal", "mujoco", "mujoco, nominal"]
    assert results["success"] == results["rows"]["pybullet"]["success"]
    assert [(env.settings["engine"], env.settings["randomization"]) for env in maker.made] == [
        ("pybullet", True),
        ("pybullet", False),
        ("mujoco", True),
        ("mujoco", False),
    ]


def test_energy_heat_and_smoothness_come_from_the_steps():
    class Warm(SmallReach):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, {**info, "heat_j": 1.5}

    still = run_episode(Warm(), constant(0.3), 0)
    assert (still.energy_j, still.heat_j, still.action_change) == (2.0, 1.5, 0.0)
    signs = iter([1.0, -1.0] * 10)
    jumpy = run_episode(Warm(), lambda observation, info: np.full(CONTRACT.action_size, next(signs)), 0)
    assert jumpy.action_change == pytest.approx(2.0)


def test_the_figures_do_not_depend_on_the_number_of_processes():
    how = {"env_id": "flexor/HandReach-v0", "engine": "mujoco", "hand": "hand22", "episodes": 12, "seed": 3}
    told = []
    one, two = (evaluate("random", workers=n, progress=lambda *at: told.append(at), **how) for n in (1, 2))
    assert one == two
    assert told[-1] == (12, 12)


def test_a_film_needs_no_display_and_holds_a_picture_per_control_step(tmp_path, monkeypatch):
    import av

    monkeypatch.delenv("DISPLAY", raising=False)
    film, said = tmp_path / "reach.mp4", []
    settings = {"engine": "mujoco", "hand": None, "steps": 6, "seed": 0, "frames": None, "video": film, "view": False}
    watch("flexor/HandReach-v0", "random", **settings, say=said.append)
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert said == [f"wrote {film}"]
    assert [picture.shape for picture in pictures] == 6 * [(360, 480, 3)]
    assert (
        pictures[0].std() > 10.0 and np.abs(pictures[0].astype(int) - pictures[-1]).max() > 50
    )  # a hand, and it moves
