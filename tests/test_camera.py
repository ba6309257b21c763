"""Pictures without a display: what is in them."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from robot.description import load
from robot.kinematics import TipKinematics
from sim.camera import GOAL_COLORS, studio
from sim.engines import ENGINES

HAND = load("hand22")
NO_GOALS = np.zeros((0, 3))
SIZE_PX = (160, 120)


def coloured(picture, color):
    """Share of the pixels whose hue is that of a colour."""
    pixels = picture.astype(float) / np.maximum(picture.max(axis=2, keepdims=True), 1)
    return (np.abs(pixels - np.array(color) / max(color)).max(axis=2) < 0.12).mean()


def test_a_picture_has_the_size_asked_for_and_shows_more_than_one_colour():
    picture = studio("hand22").picture(HAND.home_rad, NO_GOALS, SIZE_PX)
    assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_the_same_posture_gives_the_same_picture_and_another_one_another():
    fist = np.clip(HAND.home_rad + 0.8, HAND.lower_rad, HAND.upper_rad)
    first = studio("hand22").picture(HAND.home_rad, NO_GOALS, SIZE_PX)
    other = studio("hand22").picture(fist, NO_GOALS, SIZE_PX)
    np.testing.assert_array_equal(studio("hand22").picture(HAND.home_rad, NO_GOALS, SIZE_PX), first)
    assert (other != first).any(axis=2).mean() > 0.02


def test_goals_are_balls_of_their_colours_where_they_are():
    """Each ball, moved clear of the hand, adds pixels of its own hue."""
    tips = TipKinematics(HAND).positions(HAND.home_rad) + np.array([0.0, 0.0, 0.05])
    with_goals = studio("hand22").picture(HAND.home_rad, tips, (480, 360))
    far = studio("hand22").picture(HAND.home_rad, tips + np.array([0.0, 0.0, 9.0]), (480, 360))
    changed = (with_goals != far).any(axis=2)
    assert 5e-4 < changed.mean() < 0.05  # five small balls
    for color in GOAL_COLORS:
        assert coloured(with_goals, color) > coloured(far, color), color


@pytest.mark.parametrize("engine", ENGINES)
def test_an_environment_is_drawn_as_it_stands_whatever_simulates_it(engine):
    env: Any = gymnasium.make("flexor/HandReach-v0", engine=engine, render_mode="rgb_array", randomization=False)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(22))
    state, goal = env.unwrapped.state, env.unwrapped.task.goal
    np.testing.assert_array_equal(env.render(), studio("hand22").picture(state.q_rad, goal.reshape(-1, 3), (480, 360)))
    env.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_goal_in_the_base_frame_is_drawn_where_it_is_in_the_world(engine):
    env: Any = gymnasium.make("flexor/HandTrace-v0", engine=engine, randomization=False).unwrapped
    env.reset(seed=0)
    rotations, origins = env.world_state.links
    palm = [link.name for link in env.model.links].index("palm")
    in_world = env.goal_points_m() @ rotations[palm].T + origins[palm]
    np.testing.assert_allclose(in_world, env.task.goal.reshape(-1, 3) + env.task.base_m, atol=1e-9)
    assert np.linalg.norm(in_world - env.world_state.body_pose[0, :3], axis=1).max() < 0.005  # at the tool's tip
    env.close()
