"""What every environment promises: one file over every row of `TASKS`, every robot it takes and both engines."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from sim_helpers import actions, digest
from stable_baselines3.common.env_checker import check_env as sb3_check

import sim  # noqa: F401 - registers the environments
from robot.description import load
from robot.errors import NotFiniteError, UnknownNameError
from sim.clearance import Clearance
from sim.engines import ENGINES
from sim.engines.robot import DivergedError
from sim.env import ActionError, RobotEnv
from sim.ranges import RandomizationError, Ranges
from sim.tasks import TASKS, find

CASES = [(env_id, robot, engine) for env_id, task in TASKS.items() for robot in task.robots for engine in ENGINES]
REACH = "flexor/HandReach-v0"


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def made(request):
    """One environment of each kind, for the whole file."""
    env_id, robot, engine = request.param
    env = gymnasium.make(env_id, hand=robot, engine=engine, render_mode="rgb_array")
    yield env
    env.close()


def reach(**settings) -> Any:
    return gymnasium.make(REACH, **{"engine": "mujoco"} | settings).unwrapped


def test_every_row_is_tried_on_every_engine():
    assert len(CASES) == len(set(CASES)) >= len(TASKS) * len(ENGINES) >= 2


def test_gymnasiums_checker_has_nothing_to_say(made):
    gymnasium_check(made.unwrapped)


def test_stable_baselines_checker_has_nothing_to_say(made):
    sb3_check(made)


def test_a_seeded_rollout_repeats_bit_for_bit_also_after_many_resets(made):
    first = digest(made, seed=7, steps=80)
    assert digest(made, seed=8, steps=80) != first
    for _ in range(1000 if made.unwrapped.task.env_id == REACH else 30):  # one of them has to do it a thousand times
        made.reset()
    assert digest(made, seed=7, steps=80) == first


@pytest.mark.slow
def test_a_seeded_rollout_repeats_bit_for_bit_after_a_thousand_resets_whatever_the_task(made):
    first = digest(made, seed=7, steps=80)
    for _ in range(1000):
        made.reset()
    assert digest(made, seed=7, steps=80) == first


def test_a_seeded_rollout_repeats_bit_for_bit_in_another_process(made):
    unwrapped = made.unwrapped
    code = (
        "import gymnasium, sim, sim_helpers\n"
        f"env = gymnasium.make({unwrapped.task.env_id!r}, engine={unwrapped.engine!r}, hand={unwrapped.model.name!r})\n"
        "print(sim_helpers.digest(env, seed=7, steps=60))"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert there.stdout.split() == [digest(made, seed=7, steps=60)], there.stderr


def test_an_episode_is_truncated_by_time_alone(made):
    task = made.unwrapped.task
    made.reset(seed=1)
    flags = []
    while not (flags and any(flags[-1])):
        *_, terminated, truncated, _ = made.step(np.zeros(made.action_space.shape))
        flags.append((terminated, truncated))
        assert len(flags) <= task.max_steps
    if not flags[-1][0]:  # a task that ended by itself says so instead
        assert flags == [(False, False)] * (task.max_steps - 1) + [(False, True)]


def test_the_reward_is_the_sum_of_its_terms_and_info_says_the_rest(made):
    task = made.unwrapped.task
    observation, info = made.reset(seed=2)
    extra = {"privileged"} if task.privileged_names else set()
    assert set(info) == {"goal", "randomization"} | extra
    np.testing.assert_array_equal(info["goal"], task.goal)
    assert set(info["randomization"]) <= {item.name for item in fields(Ranges)}
    assert {"capstan_friction", "command_delay_s", "link_mass_factor", "encoder_bias_rad"} <= set(info["randomization"])
    energy = 0.0
    for action in actions(made, 10):
        observation, reward, _, _, info = made.step(action)
        assert made.observation_space.contains(observation)
        assert set(info) == {"reward_terms", "metrics", "success", "is_success", "energy_j", "heat_j"} | extra
        if extra:
            assert made.unwrapped.privileged_space.contains(info["privileged"])
            assert len(set(made.unwrapped.privileged_names)) == made.unwrapped.privileged_space.shape[0]
        assert tuple(info["reward_terms"]) == task.reward_names and tuple(info["metrics"]) == task.metric_names
        assert reward == sum(info["reward_terms"].values())
        assert info["is_success"] is info["success"] and type(info["success"]) is bool
        assert info["energy_j"] != energy  # a body's motors also feed back
        energy = info["energy_j"]


def test_a_picture_shows_the_robot_move(made):
    made.reset(seed=0)
    before = made.render()
    for _ in range(10):
        made.step(np.ones(made.action_space.shape))
    after = made.render()
    assert before.shape == after.shape == (360, 480, 3) and before.dtype == np.uint8
    assert (before != after).any(axis=2).mean() > 0.01  # a hundredth of the picture, at least


def test_an_action_outside_the_space_is_refused_by_joint_and_nothing_has_moved(made):
    made.reset(seed=4)
    expected = made.step(np.ones(made.action_space.shape))[0]
    made.reset(seed=4)
    outside = np.zeros(made.action_space.shape)
    outside[1] = -1.01
    joint = made.unwrapped.contract.action.joints[1]
    with pytest.raises(ActionError, match=rf"actions must lie in -1..1, got {{'{joint}': -1.01}}; clip them first"):
        made.step(outside)
    np.testing.assert_array_equal(made.step(np.full(made.action_space.shape, 1.0 + 1e-7))[0], expected)


def test_an_action_of_another_shape_is_refused(made):
    made.reset(seed=0)
    n = made.action_space.shape[0]
    with pytest.raises(ActionError, match=rf"shape \({n},\), got \({n + 1},\)"):
        made.step(np.zeros(n + 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_by_joint_and_the_episode_goes_on_as_if_nothing_was(made, bad):
    made.reset(seed=0)
    expected = [made.step(a)[0] for a in actions(made, 3)]
    made.reset(seed=0)
    for action, observation in zip(actions(made, 3), expected):
        wrong = np.zeros(made.action_space.shape)
        wrong[2] = bad
        with pytest.raises(NotFiniteError, match=made.unwrapped.contract.action.joints[2]):
            made.step(wrong)
        np.testing.assert_array_equal(made.step(action)[0], observation)


def test_a_step_before_the_first_reset_is_refused():
    env = reach()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(env.action_space.shape))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"hand": "hand21"}, r"unknown hand for flexor/HandReach-v0 'hand21'. Did you mean 'hand22'\? Known: hand22"),
        ({"engine": "bullet"}, r"unknown engine 'bullet'. Did you mean 'pybullet'\? Known: pybullet, mujoco"),
        (
            {"ranges": {"capstan_fricton": (0.0, 0.1)}},
            r"unknown randomization 'capstan_fricton'. Did you mean 'capstan_friction'\? Known: capstan_friction, ",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unknown_name_is_refused_with_the_known_ones(wrong, message):
    with pytest.raises(UnknownNameError, match=message):
        reach(**wrong)


def test_an_unknown_environment_is_refused_with_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"environment 'flexor/HandRech-v0'. Did you mean 'flexor/HandReach-v0'\?"
    ):
        find("flexor/HandRech-v0")


def test_an_unknown_render_mode_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown render_mode 'rgb'. Known: rgb_array"):
        RobotEnv(REACH, render_mode="rgb")


@pytest.mark.parametrize(
    "name, pair, message",
    [
        ("capstan_friction", (0.2, 0.1), r"randomization capstan_friction: low must be <= high, got \(0.2, 0.1\)"),
        ("skin_friction", (-0.1, 0.1), r"randomization skin_friction: low must be >= 0, got"),
        ("tendon_stiffness_factor", (0.0, 1.0), r"randomization tendon_stiffness_factor: low must be > 0, got"),
        ("motor_factor", (0.9, np.nan), r"randomization motor_factor: expected two finite numbers, got"),
        ("encoder_bias_rad", (0.1,), r"randomization encoder_bias_rad: expected two finite numbers, got"),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused_by_field(name, pair, message):
    with pytest.raises(RandomizationError, match=message):
        Ranges.of({name: pair})


def test_what_is_drawn_lies_in_its_range_and_is_in_info():
    env = reach(ranges={"capstan_friction": (0.04, 0.05), "encoder_noise_rad": (0.0, 0.0)})
    seen = set()
    for seed in range(20):
        drawn = env.reset(seed=seed)[1]["randomization"]
        assert 0.04 <= drawn["capstan_friction"] <= 0.05 and drawn["encoder_noise_rad"] == 0.0
        assert 0.75 <= drawn["tendon_stiffness_factor"] <= 1.25 and np.abs(drawn["encoder_bias_rad"]).max() <= 0.005
        np.testing.assert_array_equal(env.backend.kernel.parameters.friction, drawn["capstan_friction"])
        seen.add(drawn["capstan_friction"])
    assert len(seen) == 20


def test_without_randomization_the_encoders_are_perfect_and_with_it_they_are_not():
    perfect, real = reach(randomization=False), reach()
    assert perfect.reset(seed=0)[1]["randomization"] == {}
    np.testing.assert_array_equal(perfect.measured.q_rad, perfect.state.q_rad)
    real.reset(seed=0)
    error = np.abs(real.measured.q_rad - real.state.q_rad).max()
    assert 0.0 < error < 0.02


@pytest.mark.parametrize("engine", ENGINES)
def test_a_simulation_that_diverges_says_so_with_the_joint_and_can_be_reset(engine):
    env = reach(engine=engine, randomization=False)
    expected = digest(env, seed=7, steps=10)
    sane = env.backend.kernel.parameters
    env.backend.use(
        replace(sane, limit_stiffness=1e9 * sane.limit_stiffness, bearing_damping=sane.bearing_damping + 10.0)
    )
    env.reset(seed=7)
    joints = "|".join(env.model.joint_names)
    with pytest.raises(
        DivergedError, match=rf"hand22 diverged at t = 0\.\d+ s: joint ({joints}) at .*'index_mcp': -?\d"
    ):
        for _ in range(50):
            env.step(np.ones(env.action_space.shape))
    env.backend.use(sane)
    assert digest(env, seed=7, steps=10) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_a_policy_that_bangs_every_joint_into_its_stops_does_not_diverge(engine):
    env = reach(engine=engine)
    rng = np.random.default_rng(0)
    action = rng.choice([-1.0, 1.0], env.action_space.shape)
    env.reset(seed=0)
    for _ in range(400):
        if rng.random() < 0.1:
            action = rng.choice([-1.0, 1.0], env.action_space.shape)
        observation, _, _, truncated, _ = env.step(action)
        assert env.observation_space.contains(observation)
        if truncated:
            env.reset()


def test_goals_and_starts_keep_the_fingers_apart_and_the_forearm_still():
    model = load("hand22")
    task, clearance = TASKS[REACH](model), Clearance(model)
    rng = np.random.default_rng(0)
    starts = [task.start(rng).q_rad for _ in range(100)]
    assert min(clearance.smallest_m(q) for q in starts) > 0.002
    assert min(clearance.smallest_m(q) for q in rng.uniform(model.lower_rad, model.upper_rad, (100, 25))) < 0.0
    np.testing.assert_array_equal([q[:3] for q in starts], [model.home_rad[:3]] * 100)


def run(code: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # no engine's chatter, no warning
    return done.stdout.split()


@pytest.mark.parametrize("engine", ENGINES)
def test_one_line_makes_an_environment_from_any_folder_in_silence(tmp_path, engine):
    code = f"import gymnasium as g; e = g.make('sim:{REACH}', engine={engine!r}); print(e.reset(seed=0)[0].size, e.unwrapped.dt)"
    assert run(code, tmp_path) == ["118", "0.04"]
    assert list(tmp_path.iterdir()) == []


def test_importing_sim_loads_no_engine(tmp_path):
    heavy = "('pybullet', 'mujoco', 'numba', 'viser', 'av', 'PIL', 'torch', 'onnxruntime', 'scipy', 'matplotlib')"
    code = f"import sys, sim; print('gymnasium' in sys.modules, [m for m in {heavy} if m in sys.modules])"
    assert run(code, tmp_path) == ["True", "[]"]
