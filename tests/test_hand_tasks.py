"""The tasks with an object in the hand: what they promise beyond what every environment does."""

import re
from typing import Any

import gymnasium
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from robot.contract import two_columns
from robot.description import load
from robot.errors import UnknownNameError
from robot.state import Command
from sim import engines
from sim.engines import ENGINES
from sim.randomization import Pushes
from sim.tasks import TASKS
from sim.tasks.hand import HandTask, turn_between
from sim.tasks.hand_insert import CLEARANCE_M, FINGER_RADIUS_M, SIDES, WALL_M, insertion, tube
from sim.tasks.hand_reorient_cube import FACES, LEAST_TURN_RAD, REACHED_RAD, apart_rad, uniform_turn
from sim.tasks.hand_trace import PATHS, SIZE_M, precision, resampled
from sim.world import quat_matrix, quat_times

HAND = load("hand22")
OURS = {env_id: task for env_id, task in TASKS.items() if issubclass(task, HandTask)}
ROTATE, REORIENT, TRACE, INSERT = (
    f"flexor/Hand{name}-v0" for name in ("RotateCube", "ReorientCube", "Trace", "Insert")
)


def make(env_id: str, engine: str = "mujoco", **settings) -> Any:
    return gymnasium.make(env_id, engine=engine, **settings).unwrapped


def test_these_tasks_are_looked_at():
    assert {ROTATE, REORIENT, TRACE, INSERT} <= set(OURS)


@pytest.mark.parametrize("env_id", [ROTATE, REORIENT, TRACE, INSERT])
def test_the_table_in_the_docstring_names_every_term_in_order_with_its_unit(env_id):
    task = TASKS[env_id]
    rows = re.findall(r"^ *\| `(\w+)` \|.*\| ([^|]+) \| [^|]+ \|$", task.__doc__ or "", re.MULTILINE)
    terms = task(HAND).contract().observation
    assert [(name, unit.strip()) for name, unit in rows] == [(term.name, term.unit) for term in terms]


def test_a_turn_is_found_again_from_two_orientations():
    rng = np.random.default_rng(0)
    for _ in range(50):
        before, turn = uniform_turn(rng), rng.standard_normal(3)
        turn *= rng.uniform(0.0, np.pi) / np.linalg.norm(turn)
        half = np.linalg.norm(turn) / 2.0
        after = quat_times(np.array([*(np.sin(half) * turn / (2.0 * half)), np.cos(half)]), before)
        np.testing.assert_allclose(turn_between(before, after), turn, atol=1e-9)
        np.testing.assert_allclose(two_columns(after), quat_matrix(after)[:, :2].T.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cube_left_alone_stays_and_one_that_is_pushed_off_ends_the_episode_without_success(engine):
    env = make(ROTATE, engine)
    env.reset(seed=0)
    for _ in range(100):
        *_, terminated, _, info = env.step(np.zeros(22))
        assert not terminated and not info["success"]
    assert info["reward_terms"]["drop"] == 0.0 and abs(info["metrics"]["spin_rad_s"]) < 0.2
    env = make(ROTATE, engine, ranges={"push_n_s": (0.3, 0.3), "push_gap_s": (0.2, 0.3)})
    env.reset(seed=0)
    for _ in range(600):
        *_, terminated, _, info = env.step(np.zeros(22))
        if terminated:
            break
    assert terminated and not info["success"] and info["reward_terms"]["drop"] < 0.0


def test_cubes_are_of_all_sizes_and_masses_that_are_asked_for():
    env = make(ROTATE)
    drawn = [env.reset(seed=seed)[1]["randomization"] for seed in range(40)]
    edges = np.array([57.5 * d["object_scale"][0] for d in drawn])
    grams = np.array([90.0 * d["object_mass_factor"][0] for d in drawn])
    assert 49.9 < edges.min() < 53.0 and 62.0 < edges.max() < 65.1
    assert 59.9 < grams.min() < 67.0 and 113.0 < grams.max() < 120.1


def test_the_tracker_sees_the_cube_where_it_is_but_late_and_not_quite():
    perfect, real = make(ROTATE, randomization=False), make(ROTATE)
    for env, least, most in ((perfect, 0.0, 1e-12), (real, 1e-5, 0.02)):
        env.reset(seed=3)
        for _ in range(5):
            env.step(np.zeros(22))
        pose = env.world_state.body_pose[0]
        error = np.abs(env.measured.object_pose[:3] - (pose[:3] - env.task.base_m)).max()
        assert least <= error <= most


def test_there_are_24_ways_to_put_a_cube_and_a_goal_is_never_reached_at_once():
    apart = [[apart_rad(a, b) for b in FACES] for a in FACES]
    assert len(FACES) == 24 and (np.array(apart) + np.eye(24) * 9).min() > np.pi / 2.0 - 1e-6
    for level in TASKS[REORIENT].levels:
        env = make(REORIENT, level=level)
        for seed in range(10):
            _, info = env.reset(seed=seed)
            start = env.world_state.body_pose[0, 3:]
            assert apart_rad(start, info["goal"]) > LEAST_TURN_RAD > REACHED_RAD
            if level == "axis":
                assert np.abs(turn_between(start, info["goal"])[:2]).max() < 1e-9


def test_a_reached_goal_pays_and_is_followed_by_another():
    env = make(REORIENT, randomization=False)
    env.reset(seed=0)
    env.task._goal = env.world_state.body_pose[0, 3:].copy()
    *_, info = env.step(np.zeros(22))
    assert info["reward_terms"]["goal"] == 5.0 and info["metrics"]["goals_reached"] == 1.0
    assert apart_rad(env.world_state.body_pose[0, 3:], env.task.goal) > LEAST_TURN_RAD
    *_, info = env.step(np.zeros(22))
    assert info["reward_terms"]["goal"] == 0.0 and info["metrics"]["goals_reached"] == 1.0


def test_an_unknown_level_is_refused_with_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown level of flexor/HandReorientCube-v0 'axes'.*Known: axis, faces, all"
    ):
        make(REORIENT, level="axes")
    with pytest.raises(UnknownNameError, match="unknown level of flexor/HandRotateCube-v0 'axis'"):
        make(ROTATE, level="axis")


def test_the_hole_is_half_a_millimetre_wider_than_the_finger():
    distal = HAND.link("index_distal").geoms[0]
    assert distal.shape == "capsule" and distal.size_m[0] == FINGER_RADIUS_M
    inner = [np.hypot(*wall.origin_m[:2]) - WALL_M / 2.0 for wall in tube()]
    assert len(inner) == SIDES
    np.testing.assert_allclose(np.array(inner) * 2.0, 2.0 * FINGER_RADIUS_M + CLEARANCE_M)
    assert insertion(0.005, 0.0) == 1.0 and insertion(-0.016, 0.0) == 0.0
    assert insertion(0.005, 0.02) == insertion(0.0, 0.0) < 1.0  # beside the hole is not in it


def test_paths_are_strokes_of_even_speed():
    for stroke in PATHS.values():
        points = resampled(np.array(stroke) * SIZE_M, 201)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert steps.max() < 0.0003  # 6 mm/s at 20 Hz
        assert np.median(steps) == pytest.approx(steps.max(), rel=0.02)
    assert precision(0.0) == 1.0 and precision(0.0005) == 0.5


@pytest.mark.parametrize("engine", ENGINES)
def test_the_tool_is_held_by_contact_alone_from_hand_over_to_the_end(engine):
    env = make(TRACE, engine)
    env.reset(seed=1)
    at_rest = None
    for k in range(220):
        *_, terminated, truncated, _ = env.step(np.zeros(25))
        assert not terminated
        if k == 30:
            at_rest = env.world_state.body_pose[0, :3].copy()
    assert truncated
    assert np.linalg.norm(env.world_state.body_pose[0, :3] - at_rest) < 0.006
    touching = env.world_state.contacts
    assert len(set(touching.link[touching.other == 0].tolist())) >= 3


@pytest.mark.parametrize("engine, least", [("mujoco", 4), ("pybullet", 1)])
def test_the_script_follows_the_path_and_doing_nothing_does_not(engine, least):
    from sim import baselines

    env = gymnasium.make(TRACE, engine=engine)
    good = {}
    for name in ("scripted", "zero"):
        good[name] = 0
        for seed in range(4):
            observation, info = env.reset(seed=seed)
            policy = baselines.make(name, env)
            over = False
            while not over:
                observation, _, terminated, truncated, info = env.step(policy(observation, info))
                over = terminated or truncated
            good[name] += info["success"]
    assert good["scripted"] >= least and good["zero"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_command_acts_later_by_the_delay(engine):
    moved = {}
    for delay_s in (0.0, 0.01, 0.05, 0.12):
        robot = engines.make(engine, HAND, control_hz=20.0)
        robot.delay(delay_s)
        robot.reset(None, np.random.default_rng(0))
        row, target = HAND.index("index_pip"), HAND.home_rad.copy()
        target[row] += 0.4
        moved[delay_s] = [robot.step(Command(target_rad=target)).q_rad[row] - HAND.home_rad[row] for _ in range(6)]
        robot.close()
    first = {delay_s: next(k for k, angle in enumerate(angles) if angle > 0.02) for delay_s, angles in moved.items()}
    assert first[0.0] <= first[0.01] < first[0.05] < first[0.12]
    assert moved[0.01][0] < 0.95 * moved[0.0][0]
    np.testing.assert_allclose(moved[0.05][1:], moved[0.0][:-1], atol=0.02)  # one step later, the same


def test_pushes_come_at_their_gaps_with_their_impulse_in_all_directions():
    pushes = Pushes(on=("cube",), impulse_n_s=0.2, gap_s=(0.5, 1.0), dt_s=0.05)
    rng = np.random.default_rng(0)
    seen = [(k * 0.05, push) for k in range(4000) for push in pushes.at(k * 0.05, rng)]
    times, forces = [t for t, _ in seen], np.array([push.force_n for _, push in seen])
    gaps = np.diff(times)
    assert gaps.min() >= 0.5 - 1e-9 and gaps.max() <= 1.05 + 1e-9 and len(seen) > 200
    np.testing.assert_allclose(np.linalg.norm(forces, axis=1) * 0.05, 0.2)
    assert np.abs(forces.mean(axis=0)).max() < 0.6  # of 4 N
    assert not Pushes(on=(), impulse_n_s=0.2, gap_s=(0.5, 1.0), dt_s=0.05).at(9.0, rng)
