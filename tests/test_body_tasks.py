"""The body's tasks: what they reward, what they ask for, what disturbs, and when they end."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from robot.description import load
from robot.state import RobotState
from sim.bodies import as_quat
from sim.tasks import TASKS
from sim.tasks.body import CYCLE_S, FALLEN_M, MASS_KG, PUSH_S, TOUCH_N, Gait, gait_of, near, tilt_deg
from sim.tasks.body_carry import CRATE_AT_M, CRATE_KG
from sim.tasks.body_push import CART_KG, LEASH_N
from sim.tasks.body_stand import PUSH_M_S
from sim.tasks.walking import (
    LEVELS,
    PUSH_EVERY_S,
    RAMP_M_S2,
    RAMP_RAD_S2,
    STANCE,
    SWING_RAD,
    bent,
    feet_in_time,
    progress,
)
from sim.world import Source, WorldState, quat_matrix

BODY = load("body28")
WALKS = ("flexor/BodyWalk-v0", "flexor/BodyCarry-v0", "flexor/BodyPush-v0")


def make(env_id: str, engine: str = "mujoco") -> Any:
    return gymnasium.make(env_id, engine=engine, randomization=False).unwrapped


def gait(**changes) -> Gait:
    given = dict(
        forward_m_s=0.0,
        left_m_s=0.0,
        up_m_s=0.0,
        yaw_rad_s=0.0,
        roll_rad_s=0.0,
        pitch_rad_s=0.0,
        down=(0.0, 0.0, -1.0),
        heading=(1.0, 0.0),
        height_m=0.89,
        left_n=300.0,
        right_n=300.0,
    )
    return Gait(**(given | changes))  # type: ignore[arg-type]


def seen(quat, velocity, gyro) -> tuple[RobotState, WorldState]:
    """A moment of a body with this motion of its base, in the world."""
    source = Source(contacts=lambda: None, links=lambda: None, moment=lambda: 0)  # type: ignore[arg-type,return-value]
    world = WorldState(
        time_s=0.0,
        base_position_m=np.array([1.0, 2.0, 0.8]),
        base_quat_xyzw=quat,
        base_velocity_m_s=velocity,
        base_gyro_rad_s=gyro,
        body_pose=np.zeros((0, 7)),
        body_twist=np.zeros((0, 6)),
        tip_force_n=np.array([10.0, 500.0, 0.0, 0.0]),
        electrical_w=100.0,
        source=source,
    )
    zero = np.zeros(28)
    state = RobotState(
        time_s=0.0,
        q_rad=zero,
        qd_rad_s=zero,
        target_rad=zero,
        imu_gyro_rad_s=quat_matrix(quat).T @ gyro,
        imu_quat_xyzw=quat,
    )
    return state, world


def turn(yaw: float, pitch: float = 0.0) -> np.ndarray:
    (c, s), (cp, sp) = (np.cos(yaw), np.sin(yaw)), (np.cos(pitch), np.sin(pitch))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ np.array(
        [[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]]
    )


# Rewards


def test_motion_is_judged_alike_whichever_way_the_body_faces():
    rng = np.random.default_rng(0)
    for yaw in rng.uniform(-np.pi, np.pi, 10):
        velocity, gyro = rng.standard_normal(3), rng.standard_normal(3)
        around = turn(yaw)
        here = gait_of(*seen(as_quat(turn(0.0, 0.2)), velocity, gyro))
        there = gait_of(*seen(as_quat(turn(yaw, 0.2)), around @ velocity, around @ gyro))
        for name in Gait.__slots__:
            if name != "heading":
                assert getattr(there, name) == pytest.approx(getattr(here, name), abs=1e-9), name
        assert here.forward_m_s == pytest.approx(velocity[0])
        assert there.heading == pytest.approx((np.cos(yaw), np.sin(yaw)))
        assert tilt_deg(here) == pytest.approx(np.degrees(0.2))


def test_a_fall_is_a_tilt_or_a_low_pelvis():
    assert not gait().fallen
    assert gait(height_m=FALLEN_M - 0.01).fallen
    assert not gait_of(*seen(as_quat(turn(1.0, np.radians(36.0))), np.zeros(3), np.zeros(3))).fallen
    assert gait_of(*seen(as_quat(turn(1.0, np.radians(38.0))), np.zeros(3), np.zeros(3))).fallen


@pytest.mark.parametrize(
    "phase, left_n, right_n, share",
    [
        (0.25, 300.0, 0.0, 1.0),  # left stands, right swings
        (0.75, 0.0, 300.0, 1.0),
        (0.25, 0.0, 300.0, 0.0),
        (0.25, 300.0, 300.0, 0.5),
        (0.02, 300.0, 300.0, 1.0),  # both, between the swings
        (0.25, TOUCH_N - 1.0, 0.0, 0.5),
    ],
)
def test_feet_keep_time_with_the_clock(phase, left_n, right_n, share):
    assert feet_in_time(gait(left_n=left_n, right_n=right_n), phase) == share


def test_a_body_told_to_stand_steps_on_the_spot_by_the_same_clock():
    env = make("flexor/BodyWalk-v0")
    env.reset(seed=0)
    task, action = env.task, np.zeros(env.action_space.shape)

    def paid(command: float, left_n: float) -> float:
        state, world = seen(as_quat(np.eye(3)), np.zeros(3), np.zeros(3))
        world.tip_force_n[:2], state.q_rad[:] = (left_n, 500.0), task._home
        task._command = np.array([command, 0.0])
        return task.judge(state, world, action, action).reward_terms["feet"]

    assert paid(0.0, 500.0) == paid(0.5, 500.0) > paid(0.0, 0.0) == paid(0.5, 0.0)
    env.close()


def test_a_knee_bends_most_in_the_middle_of_its_swing_and_not_while_it_stands():
    assert bent((1.0 + STANCE) / 2.0) == pytest.approx(SWING_RAD)
    assert [bent(p) for p in np.linspace(0.0, STANCE, 5)] == [0.0] * 5
    assert max(bent(p) for p in np.linspace(0.0, 0.999, 200)) <= SWING_RAD


def test_progress_is_a_slope_to_the_command_from_anywhere():
    assert [progress(v, 0.5) for v in (-1.0, -0.25, 0.0, 0.25, 0.5, 2.0)] == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.0]
    assert progress(-0.15, -0.3) == 0.5
    assert progress(1.0, 0.0) == 0.0  # nothing to get nearer to
    assert near(0.0, 0.4) == 1.0 > near(0.1, 0.4) > near(-0.3, 0.4) > 0.0


# Goals and disturbances


@pytest.mark.parametrize("env_id", WALKS)
def test_commands_stay_in_range_change_within_an_episode_and_never_jump(env_id):
    env = make(env_id)
    task = env.task
    goals, rng = [], np.random.default_rng(0)
    env.reset(seed=3)
    state, world = env.state, env.world_state
    for step in range(1500):
        moment = RobotState(time_s=step / 50.0, q_rad=state.q_rad, qd_rad_s=state.qd_rad_s, target_rad=state.target_rad)
        task.proceed(moment, world, rng)
        goals.append(task.goal)
    goals = np.array(goals)
    steps = np.abs(np.diff(goals, axis=0)).max(axis=0)
    assert (steps <= np.array([RAMP_M_S2, RAMP_RAD_S2]) / 50.0 + 1e-12).all()
    assert len(np.unique(goals.round(3), axis=0)) > 50
    for column, (low, high) in enumerate((task.speeds_m_s, task.turns_rad_s)):
        assert low - 1e-9 <= goals[:, column].min() and goals[:, column].max() <= high + 1e-9
    env.close()


def test_the_policy_sees_the_command_that_is_in_force():
    env = make("flexor/BodyWalk-v0")
    where = env.contract.slices["goal"]
    observation, info = env.reset(seed=5)
    np.testing.assert_allclose(observation[where], info["goal"], atol=1e-6)
    for _ in range(40):
        observation, *_ = env.step(np.zeros(16))
        np.testing.assert_allclose(observation[where], env.task.goal, atol=1e-6)
    clock = observation[env.contract.slices["gait_phase"]]
    angle = 2.0 * np.pi * 40 / 50.0 / CYCLE_S
    np.testing.assert_allclose(clock, [np.sin(angle), np.cos(angle)], atol=1e-6)
    env.close()


def test_a_push_has_the_momentum_it_says_and_comes_every_five_seconds():
    assert pushed_by("all")[0] == pytest.approx(0.4 * MASS_KG)
    for level, of_the_task in (("nudged", 0.5), ("shoved", 1.0), ("beyond", 1.5)):
        momentum, begun = pushed_by(level)
        assert momentum == pytest.approx(of_the_task * 0.4 * MASS_KG)
        assert np.diff(begun) == pytest.approx([LEVELS[level].every_s] * (len(begun) - 1), abs=0.021)
    begun = pushed_by("all")[1]
    assert len(begun) >= 3 and np.diff(begun) == pytest.approx([PUSH_EVERY_S] * (len(begun) - 1), abs=0.021)
    assert PUSH_S * 50.0 == 5.0
    assert pushed_by("turning")[1] == pushed_by("steady")[1] == []


def pushed_by(level: str) -> tuple[float, list[float]]:
    """Momentum of the last push of 20 s at a level of BodyWalk, and when pushes began."""
    task = TASKS["flexor/BodyWalk-v0"](BODY)
    task.level = level
    rng = np.random.default_rng(2)
    task.start(rng)
    state, world = seen(as_quat(np.eye(3)), np.zeros(3), np.zeros(3))
    momentum, begun, before = np.zeros(3), [], 0
    for step in range(1000):
        moment = RobotState(time_s=step / 50.0, q_rad=state.q_rad, qd_rad_s=state.qd_rad_s, target_rad=state.target_rad)
        pushes = task.proceed(moment, world, rng)
        if pushes and not before:
            begun.append(step / 50.0)
            momentum = np.zeros(3)
        before = len(pushes)
        for push in pushes:
            assert push.on == "thorax"
            momentum = momentum + push.force_n / 50.0
    return float(np.linalg.norm(momentum)), begun


def test_half_the_walks_start_on_flat_ground_and_half_on_the_uneven_field():
    task, rng = TASKS["flexor/BodyWalk-v0"](BODY), np.random.default_rng(0)
    starts: Any = [task.start(rng).base_position_m for _ in range(400)]
    x = np.array(starts)[:, 0]
    assert 0.4 < (x > 0.0).mean() < 0.6 and np.abs(x).min() > 1.0


def test_levels_without_pushes_start_far_from_the_uneven_field_and_only_the_easiest_goes_straight():
    for level in ("steady", "turning"):
        task, rng = TASKS["flexor/BodyWalk-v0"](BODY), np.random.default_rng(0)
        task.level = level
        starts, goals = [], []
        for _ in range(100):
            starts.append(task.start(rng).base_position_m)
            goals.append(task._wanted)  # type: ignore[attr-defined]
        assert np.array(starts)[:, 0].max() < -12.0
        assert (np.array(goals)[:, 1].any(), np.array(goals)[:, 0].min() < 0.0) == (level == "turning",) * 2


def test_a_standing_body_is_pushed_as_hard_as_its_level_says():
    pushed = {}
    for level in TASKS["flexor/BodyStand-v0"].levels:
        task: Any = TASKS["flexor/BodyStand-v0"](BODY)
        task.level = level
        rng, speeds = np.random.default_rng(0), []
        state, world = seen(as_quat(np.eye(3)), np.zeros(3), np.zeros(3))
        for _ in range(60):
            task.start(rng)
            task._push_s = 0.0
            (push,) = task.proceed(state, world, rng)
            speeds.append(np.linalg.norm(push.force_n) * PUSH_S / MASS_KG)
        pushed[level] = min(speeds), max(speeds)
        assert all(low - 1e-9 <= s <= high + 1e-9 for s, (low, high) in zip(speeds, [PUSH_M_S[level]] * 60))
    assert (
        list(pushed) == ["nudged", "pushed", "beyond", "all"]
        and pushed["nudged"][1] < pushed["pushed"][1] < pushed["beyond"][1]
    )
    assert pushed["all"] == pytest.approx((0.6, 0.6))


# Loads


@pytest.mark.parametrize("engine", ("pybullet", "mujoco"))
def test_a_crate_lies_on_the_forearms_of_a_body_that_stands(engine):
    env = make("flexor/BodyCarry-v0", engine)
    env.reset(seed=1)
    for _ in range(25):
        *_, terminated, _, _ = env.step(np.zeros(env.action_space.shape))
        assert not terminated
    world, backend = env.world_state, env.backend
    touching = world.contacts.other == 0
    carriers = {BODY.links[row].name for row in world.contacts.link[touching]}
    assert any("left_forearm" in name or "left_hand" in name for name in carriers)
    assert any("right_forearm" in name or "right_hand" in name for name in carriers)
    held = -world.contacts.force_n[touching].sum(axis=0)  # on the crate
    assert held[2] == pytest.approx(9.81 * CRATE_KG, rel=0.6)
    assert env.task.astray(world) < 1.0
    assert backend.world.bodies[0].mass_kg == CRATE_KG
    env.close()


@pytest.mark.parametrize("env_id", ("flexor/BodyCarry-v0", "flexor/BodyPush-v0"))
def test_a_load_that_is_gone_ends_the_episode(env_id):
    env = make(env_id)
    env.reset(seed=1)
    *_, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert not terminated and info["reward_terms"]["fall"] == 0.0 and info["reward_terms"]["load"] > -0.1
    backend = env.backend
    backend.data.qpos[backend._free_joints[0, 1]] += 1.0
    *_, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert terminated and info["reward_terms"]["fall"] < 0.0 and not info["success"]
    assert info["reward_terms"]["load"] == -1.0
    env.close()


def test_the_leash_pulls_level_and_never_harder_than_it_says():
    task: Any = TASKS["flexor/BodyPush-v0"](BODY)
    rng = np.random.default_rng(0)
    pulls = []
    for _ in range(200):
        task.start(rng)
        (pull,) = task.pulls(1.0)
        assert np.linalg.norm(task.pulls(0.5)[0].force_n) == pytest.approx(0.5 * np.linalg.norm(pull.force_n))
        assert pull.on == "pelvis" and pull.force_n[2] == 0.0
        pulls.append(np.linalg.norm(pull.force_n))
    assert 0.9 * LEASH_N < max(pulls) <= LEASH_N
    assert task.world().bodies[0].mass_kg == CART_KG


def test_the_crate_starts_before_the_chest_in_any_heading():
    task, rng = TASKS["flexor/BodyCarry-v0"](BODY), np.random.default_rng(0)
    for _ in range(20):
        start = task.start(rng)
        assert start.body_poses is not None and start.base_quat_xyzw is not None and start.base_position_m is not None
        ahead = quat_matrix(start.base_quat_xyzw).T @ (start.body_poses[0, :3] - start.base_position_m)
        np.testing.assert_allclose(ahead, CRATE_AT_M, atol=1e-9)
