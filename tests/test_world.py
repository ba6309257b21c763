"""A robot among bodies on a ground: the laws that hold in both engines, and what is refused."""

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot.description import load
from robot.description.parts import DescriptionError, Geom
from robot.errors import NotFiniteError, UnknownNameError
from robot.state import Command, CommandError
from sim import engines
from sim.bodies import Body, Hull, as_quat
from sim.engines.robot import DivergedError, VariationError
from sim.world import (
    CELL_M,
    FIELD_M,
    GROUND,
    ROBOT_ITSELF,
    Ground,
    Push,
    StaleWorldError,
    Start,
    Variation,
    World,
    into_frame,
    quat_matrix,
    quat_times,
    rotated,
)

BODY, HAND = load("body28"), load("hand22")
WEIGHT_N = 9.81 * sum(link.mass_kg for link in BODY.links)
CUBE_FACES = np.array(
    [
        (0, 1, 3),
        (0, 3, 2),
        (4, 7, 5),
        (4, 6, 7),
        (0, 5, 1),
        (0, 4, 5),
        (2, 3, 7),
        (2, 7, 6),
        (0, 2, 6),
        (0, 6, 4),
        (1, 7, 3),
        (1, 5, 7),
    ]
)
CORNERS = np.array([[x, y, z] for x in (0.0, 0.1) for y in (0.0, 0.2) for z in (0.0, 0.3)])


def box(name, edge_m=0.1, **settings):
    return Body(name=name, shapes=(Geom(shape="box", size_m=(edge_m,) * 3),), **settings)


def hammer():
    head = Geom(shape="cylinder", size_m=(0.02, 0.08), rpy_rad=(0.0, 0.0, 0.4))
    handle = Geom(shape="capsule", size_m=(0.012, 0.2), origin_m=(0.0, -0.11, 0.03), rpy_rad=(0.2, 0.0, 0.0))
    return Body(name="hammer", shapes=(head, handle), mass_kg=0.6, position_m=(0.3, 0.5, 0.6), friction=0.6)


def wedge():
    return Body(name="block", shapes=(Hull.of(CORNERS, CUBE_FACES),), mass_kg=2.0, position_m=(1.0, 0.4, 0.05))


YARD = World(
    ground=Ground(kind="flat"), bodies=(box("crate", mass_kg=3.0, position_m=(0.8, 0.0, 0.05)), hammer(), wedge())
)


@pytest.fixture(scope="module", params=engines.ENGINES)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def yard(engine):
    robot = engines.make(engine, BODY, control_hz=50.0, world=YARD)
    yield robot
    robot.close()


def begin(robot, **settings):
    return robot.begin(Start(q_rad=BODY.home_rad, **settings))


def stand(robot, steps, **settings):
    state = begin(robot, **settings)
    for _ in range(steps):
        state = robot.step(Command(target_rad=BODY.home_rad))
    return state


def digest(robot, steps=60):
    """A fall among the bodies, as a hash over all that is true of it."""
    said, rng = hashlib.sha256(), np.random.default_rng(3)
    begin(robot, base_velocity_m_s=np.array([0.8, 0.1, 0.0]))
    for k in range(steps):
        state = robot.step(Command(target_rad=BODY.home_rad + 0.2 * rng.uniform(-1.0, 1.0, len(BODY.joints))))
        world = robot.world_state()
        for array in (state.q_rad, state.qd_rad_s, state.imu_gyro_rad_s, state.tip_force_n, world.base_position_m):
            said.update(array.tobytes())
        said.update(world.body_pose.tobytes() + world.body_twist.tobytes() + world.contacts.force_n.tobytes())
        if k == 10:
            robot.push([Push(on="hammer", force_n=np.array([5.0, 0.0, 3.0]))])
    return said.hexdigest()


# Placing and reading


def test_everything_starts_where_it_is_told(yard):
    turn = np.array([0.0, 0.0, np.sin(0.3), np.cos(0.3)])
    poses = YARD.start_poses + np.array([0.5, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0])
    poses[:, 3:] = turn
    state = begin(
        yard,
        base_position_m=np.array([-1.0, 2.0, 1.5]),
        base_quat_xyzw=turn,
        base_velocity_m_s=np.array([0.1, 0.2, 0.3]),
        base_gyro_rad_s=np.array([0.4, 0.5, 0.6]),
        body_poses=poses,
    )
    world = yard.world_state()
    np.testing.assert_allclose(world.base_position_m, [-1.0, 2.0, 1.5], atol=1e-12)
    np.testing.assert_allclose(world.base_quat_xyzw, turn, atol=1e-12)
    np.testing.assert_allclose(world.base_velocity_m_s, [0.1, 0.2, 0.3], atol=1e-12)
    np.testing.assert_allclose(world.base_gyro_rad_s, [0.4, 0.5, 0.6], atol=1e-12)
    np.testing.assert_allclose(state.imu_gyro_rad_s, into_frame(turn, np.array([0.4, 0.5, 0.6])), atol=1e-12)
    np.testing.assert_allclose(state.imu_quat_xyzw, turn, atol=1e-12)
    np.testing.assert_allclose(world.body_pose, poses, atol=1e-9)
    np.testing.assert_array_equal(world.body_twist, 0.0)


def test_a_state_holds_what_joints_motors_tips_base_and_the_tracked_body_say_each_in_its_place(yard):
    yard.track("hammer")
    state, kernel, world = stand(yard, 8, base_gyro_rad_s=np.array([0.4, 0.5, 0.6])), yard.kernel, yard.world_state()
    drive, quat, (_, hammer, _) = kernel.state, world.base_quat_xyzw, world.body_pose
    np.testing.assert_array_equal(np.concatenate([state.q_rad, state.qd_rad_s]), kernel.joints)
    np.testing.assert_array_equal(state.motor_rad_s, drive.spool_rad_s)
    np.testing.assert_array_equal(state.motor_temperature_c, drive.winding_c)
    np.testing.assert_array_equal(state.tip_force_n, world.tip_force_n)
    np.testing.assert_array_equal(state.imu_quat_xyzw, quat)
    np.testing.assert_allclose(rotated(quat, state.imu_gyro_rad_s), world.base_gyro_rad_s, atol=1e-12)
    there = rotated(quat, state.object_pose[:3]) + world.base_position_m
    np.testing.assert_allclose(there, hammer[:3], atol=1e-12)
    np.testing.assert_allclose(quat_times(quat, state.object_pose[3:]), hammer[3:], atol=1e-12)
    yard.track("")


def test_links_are_where_the_description_puts_them(yard):
    from sim.scene import LinkPoses

    turn = as_quat(quat_matrix(np.array([0.1, 0.2, 0.3, 0.9]) / np.linalg.norm([0.1, 0.2, 0.3, 0.9])))
    q = np.random.default_rng(0).uniform(BODY.lower_rad, BODY.upper_rad)
    yard.begin(Start(q_rad=q, base_position_m=np.array([0.0, 0.0, 3.0]), base_quat_xyzw=turn))
    rotation, origin = yard.world_state().links
    ours, at = LinkPoses(BODY).at(q, np.array([0.0, 0.0, 3.0, *turn]))
    np.testing.assert_allclose(rotation, ours, atol=1e-6)
    np.testing.assert_allclose(origin, at, atol=1e-6)


def test_free_flight_follows_a_parabola_and_keeps_its_spin(engine):
    ball = Body(name="ball", shapes=(Geom(shape="sphere", size_m=(0.1,)),), position_m=(0.0, 0.0, 5.0))
    robot = engines.make(engine, BODY, control_hz=50.0, world=World(bodies=(ball,)))
    velocity = np.array([1.0, 0.0, 2.0])
    begin(robot, base_velocity_m_s=velocity)
    before = robot.world_state()
    for _ in range(25):
        robot.step(Command(target_rad=BODY.home_rad))
    after, t = robot.world_state(), 0.5
    fallen = before.body_pose[0, :3] - [0.0, 0.0, 0.5 * 9.81 * t * (t + robot.substep_s)]  # symplectic Euler
    np.testing.assert_allclose(after.body_pose[0, :3], fallen, atol=1e-6)
    np.testing.assert_allclose(after.body_twist[0, :3], [0.0, 0.0, -9.81 * t], atol=1e-6)
    assert after.base_velocity_m_s[0] == pytest.approx(1.0, abs=0.05)
    robot.close()


def test_the_ground_carries_the_weight_of_the_robot(yard):
    """It tips over slowly, so its weight is on the soles for a while."""
    state = stand(yard, 25)
    contacts = yard.world_state().contacts
    assert (contacts.other == GROUND).all() and len(contacts) >= 3
    np.testing.assert_allclose(contacts.force_n.sum(axis=0), [0.0, 0.0, WEIGHT_N], atol=0.15 * WEIGHT_N)
    np.testing.assert_allclose(contacts.normal @ [0.0, 0.0, 1.0], 1.0, atol=1e-6)
    names = {BODY.links[row].name for row in contacts.link}
    assert names == {"left_foot", "right_foot"}
    feet = contacts.normal_force_n.sum()
    assert state.tip_force_n.sum() == pytest.approx(feet)
    assert 0.0 < yard.world_state().electrical_w < 2000.0


def test_a_body_at_rest_stays_and_a_hull_rests_on_its_face(yard):
    stand(yard, 20, base_position_m=np.array([0.0, -5.0, 1.0]))
    world = yard.world_state()
    np.testing.assert_allclose(world.body_pose[0, :3], [0.8, 0.0, 0.05], atol=2e-3)
    np.testing.assert_allclose(world.body_pose[2, :3], [1.0, 0.4, 0.0], atol=8e-3)  # it fell 5 cm


def test_what_is_known_of_a_moment_is_asked_before_the_next(yard):
    begin(yard)
    old = yard.world_state()
    seen = yard.world_state()
    assert len(seen.contacts) >= 0
    yard.step(Command(target_rad=BODY.home_rad))
    assert seen.contacts is seen.contacts  # asked for in time
    with pytest.raises(StaleWorldError, match=r"contacts of t = 0\.000 s"):
        _ = old.contacts
    with pytest.raises(StaleWorldError, match="links of"):
        _ = old.links


# Forces


def test_a_push_gives_the_momentum_it_should(engine):
    crate = box("crate", mass_kg=4.0, position_m=(3.0, 0.0, 2.0))
    robot = engines.make(engine, BODY, control_hz=50.0, world=World(bodies=(crate,)))
    begin(robot)
    robot.push(
        [
            Push(on="crate", force_n=np.array([80.0, 0.0, 0.0]), torque_nm=np.array([0.0, 0.0, 0.5])),
            Push(on="thorax", force_n=np.array([0.0, 570.0, 0.0])),
        ]
    )
    robot.step(Command(target_rad=BODY.home_rad))
    first = robot.world_state()
    moment = box("crate", mass_kg=4.0).inertial[2][2]
    np.testing.assert_allclose(
        first.body_twist[0], [0.4, 0.0, -9.81 * 0.02, 0.0, 0.0, 0.5 * 0.02 / moment], rtol=1e-3, atol=1e-9
    )
    robot.step(Command(target_rad=BODY.home_rad))
    np.testing.assert_allclose(robot.world_state().body_twist[0, 0], 0.4, rtol=1e-3)  # it was for one step
    for _ in range(10):
        robot.step(Command(target_rad=BODY.home_rad))
    links = robot.world_state().links
    assert links[1][:, 1].mean() > 0.0  # all of it went left
    robot.close()


def test_a_push_beside_the_centre_turns_too(engine):
    crate = box("crate", mass_kg=1.0, position_m=(3.0, 0.0, 2.0))
    robot = engines.make(engine, BODY, control_hz=50.0, world=World(bodies=(crate,)))
    begin(robot)
    robot.push([Push(on="crate", force_n=np.array([0.0, 1.0, 0.0]), at_m=np.array([3.05, 0.0, 2.0]))])
    robot.step(Command(target_rad=BODY.home_rad))
    moment = box("crate", mass_kg=1.0).inertial[2][2]
    assert robot.world_state().body_twist[0, 5] == pytest.approx(0.05 * 0.02 / moment, rel=0.02)
    robot.close()


def test_a_push_on_nothing_or_by_nan_is_refused(yard):
    begin(yard)
    with pytest.raises(UnknownNameError, match=r"link or body to push 'crat'. Did you mean 'crate'\?"):
        yard.push([Push(on="crat")])
    with pytest.raises(NotFiniteError, match="push on crate"):
        yard.push([Push(on="crate", force_n=np.array([np.nan, 0.0, 0.0]))])


@pytest.mark.parametrize("friction", [0.25, 0.6])
def test_two_surfaces_meet_with_the_geometric_mean_of_their_friction(engine, friction):
    """A slab of 2 kg on the ground, pushed sideways: it moves just when the force passes mu m g."""
    slab = Geom(shape="box", size_m=(0.3, 0.3, 0.02))
    crate = Body(name="crate", shapes=(slab,), mass_kg=2.0, friction=friction, position_m=(3.0, 0.0, 0.01))
    robot = engines.make(
        engine, BODY, control_hz=50.0, world=World(ground=Ground(kind="flat", friction=0.9), bodies=(crate,))
    )
    slide_n = np.sqrt(0.9 * friction) * 2.0 * 9.81
    moved = []
    for share in (0.85, 1.15):
        begin(robot)
        for _ in range(50):
            robot.push([Push(on="crate", force_n=np.array([share * slide_n, 0.0, 0.0]))])
            robot.step(Command(target_rad=BODY.home_rad))
        moved.append(robot.world_state().body_pose[0, 0] - 3.0)
    assert moved[0] < 0.02 and moved[1] > 0.3, moved
    robot.close()


# Ground


def test_uneven_ground_is_as_high_as_it_says(engine):
    ground = Ground(kind="uneven", amplitude_m=0.02, seed=4)
    marble = Body(name="marble", shapes=(Geom(shape="sphere", size_m=(0.02,)),), friction=1.0)
    robot = engines.make(engine, BODY, control_hz=50.0, world=World(ground=ground, bodies=(marble,)))
    half = FIELD_M / 2.0
    for seed in (4, 9):
        heights = ground.heights_m(seed)
        assert heights.min() == 0.0 and heights.max() > 0.019
        peaks = [
            (y, x)
            for y in range(100, 220)
            for x in range(20, 90)
            if heights[y, x] == heights[y - 1 : y + 2, x - 1 : x + 2].max()
        ]
        for y, x in peaks[:3]:
            at = np.array([[x * CELL_M, y * CELL_M - half, heights[y, x] + 0.021, 0.0, 0.0, 0.0, 1.0]])
            begin(robot, body_poses=at, ground_seed=seed)
            for _ in range(4):
                robot.step(Command(target_rad=BODY.home_rad))
            assert robot.world_state().body_pose[0, 2] == pytest.approx(heights[y, x] + 0.02, abs=1e-3)
    robot.close()


# Repeating


def test_a_fall_among_bodies_repeats_bit_for_bit_also_after_1000_resets_and_in_another_process(yard, engine):
    first = digest(yard)
    for _ in range(1000):
        begin(yard)
    assert digest(yard) == first
    code = f"import test_world as t\nprint(t.digest(t.engines.make({engine!r}, t.BODY, control_hz=50.0, world=t.YARD)))"
    there = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert there.stdout.split() == [first], there.stderr


# Varying


def test_a_variation_holds_until_the_next_and_repeats(yard):
    nominal = digest(yard)
    n = len(YARD.bodies)
    changes = {
        "link_mass_factor": np.full(len(BODY.links), 1.1),
        "robot_friction": 0.3,
        "ground_friction": 0.4,
        "body_mass_factor": np.full(n, 2.0),
        "body_friction": np.full(n, 0.1),
        "body_scale": np.array([0.8, 1.2, 1.0]),
    }
    seen = {nominal}
    for name, value in changes.items():
        yard.vary(Variation(**{name: value}))
        varied = digest(yard)
        assert digest(yard) == varied, name
        seen.add(varied)
    assert len(seen) == 1 + len(changes)
    yard.vary(Variation())
    assert digest(yard) == nominal


def test_a_heavier_robot_presses_harder_and_a_larger_crate_stands_higher(yard):
    yard.vary(Variation(link_mass_factor=np.full(len(BODY.links), 1.2), body_scale=np.array([0.5, 1.0, 1.0])))
    poses = YARD.start_poses
    poses[0, 2] = 0.03
    stand(yard, 25, body_poses=poses)
    world = yard.world_state()
    assert world.contacts.force_n[:, 2].sum() == pytest.approx(1.2 * WEIGHT_N, rel=0.15)
    assert world.body_pose[0, 2] == pytest.approx(0.025, abs=1e-3)
    yard.vary(Variation())


@pytest.mark.parametrize(
    "variation, message",
    [
        (Variation(link_mass_factor=np.ones(3)), r"link_mass_factor: expected shape \(\d+,\), got \(3,\)"),
        (Variation(body_mass_factor=np.array([1.0, 0.0, 1.0])), "body_mass_factor: must be > 0"),
        (Variation(robot_friction=-0.1), "robot_friction: must be >= 0"),
        (Variation(ground_friction=float("nan")), "ground_friction: must be >= 0"),
        (Variation(body_scale=np.array([1.0, 1.0, 1.1])), "body_scale: body block is a mesh"),
    ],
)
def test_a_variation_that_cannot_be_is_refused(yard, variation, message):
    with pytest.raises(VariationError, match=message):
        yard.vary(variation)


# What is refused


@pytest.mark.parametrize(
    "start, error, message",
    [
        ({"base_position_m": np.zeros(2)}, CommandError, r"start position_m must have shape \(3,\), got \(2,\)"),
        ({"base_quat_xyzw": np.full(4, np.nan)}, NotFiniteError, "start quat_xyzw"),
        ({"body_poses": np.zeros((1, 7))}, CommandError, r"start body_poses must have shape \(3, 7\), got \(1, 7\)"),
        ({"qd_rad_s": np.zeros(3)}, CommandError, r"shape \(28,\), got \(3,\)"),
    ],
)
def test_a_start_that_cannot_be_is_refused_and_nothing_moves(yard, start, error, message):
    stand(yard, 5)
    before = yard.world_state().base_position_m
    with pytest.raises(error, match=message):
        begin(yard, **start)
    np.testing.assert_array_equal(yard.world_state().base_position_m, before)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: box("a", mass_kg=0.0), "body a: mass_kg must be > 0"),
        (lambda: box("a", friction=-1.0), "body a: friction must be >= 0"),
        (lambda: Body(name="a", shapes=()), "body a: needs at least one shape"),
        (lambda: box("a", quat_xyzw=(0.0, 0.0, 0.0, 2.0)), "body a: quat_xyzw must have length 1"),
        (lambda: box("a", inertia_kg_m2=(1.0, 1.0, 3.0)), "breaks the triangle inequality"),
        (lambda: Hull.of(CORNERS, CUBE_FACES[:, ::-1]), "volume must be > 0"),
        (lambda: Hull.of(CORNERS, CUBE_FACES + 5), "faces must index vertices"),
        (lambda: World(bodies=(box("a"), box("a"))), "two of one name"),
        (lambda: Ground(amplitude_m=0.0), "amplitude_m must be > 0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(make, message):
    with pytest.raises(DescriptionError, match=message):
        make()


def test_an_unknown_ground_or_body_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"kind of ground 'flt'\. Did you mean 'flat'"):
        Ground(kind="flt")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Known: crate, hammer, block"):
        YARD.index("anvil")


def test_a_base_or_a_body_that_flies_off_is_named(engine):
    robot = engines.make(engine, BODY, control_hz=50.0, world=World(bodies=(box("crate", position_m=(2.0, 0.0, 0.0)),)))
    begin(robot)
    robot.push([Push(on="crate", force_n=np.array([1e5, 0.0, 0.0]))])
    with pytest.raises(DivergedError, match=r"body28 diverged at t = 0\.020 s: body crate at"):
        robot.step(Command(target_rad=BODY.home_rad))
    begin(robot, base_velocity_m_s=np.array([60.0, 0.0, 0.0]))
    with pytest.raises(DivergedError, match=r"body28 diverged at t = 0\.020 s: its base at"):
        robot.step(Command(target_rad=BODY.home_rad))
    begin(robot)
    robot.step(Command(target_rad=BODY.home_rad))
    robot.close()


# Inertia


def test_a_hull_weighs_and_turns_like_the_box_it_is():
    hull, plain = (
        wedge(),
        Body(name="b", shapes=(Geom(shape="box", size_m=(0.1, 0.2, 0.3), origin_m=(0.05, 0.1, 0.15)),), mass_kg=2.0),
    )
    for ours, theirs in zip(hull.inertial, plain.inertial):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_engines_hold_the_inertia_that_was_worked_out(engine):
    robot: Any = engines.make(engine, HAND, world=World(bodies=(hammer(),)))
    com, axes, moments = hammer().inertial
    if engine == "mujoco":
        row = robot.mj_model.body("body:hammer").id
        held = robot.mj_model.body_mass[row], robot.mj_model.body_ipos[row], robot.mj_model.body_inertia[row]
    else:
        info = robot.bullet.getDynamicsInfo(robot._bodies[0], -1)
        held = info[0], np.array(info[3]), np.array(info[2])
    assert held[0] == pytest.approx(0.6)
    np.testing.assert_allclose(np.abs(held[1]), np.abs(com if engine == "mujoco" else held[1]), atol=1e-9)
    np.testing.assert_allclose(np.sort(held[2]), np.sort(moments), rtol=1e-6)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    robot.close()


def test_rotating_there_and_back_changes_nothing():
    rng = np.random.default_rng(0)
    for _ in range(20):
        quat = rng.standard_normal(4)
        quat /= np.linalg.norm(quat)
        vector = rng.standard_normal(3)
        np.testing.assert_allclose(rotated(quat, vector), quat_matrix(quat) @ vector, atol=1e-12)
        np.testing.assert_allclose(into_frame(quat, rotated(quat, vector)), vector, atol=1e-12)


def test_a_hand_closes_around_a_ball_and_both_engines_say_what_touches(engine):
    ball = Body(name="ball", shapes=(Geom(shape="sphere", size_m=(0.03,)),), mass_kg=0.06, position_m=(0.0, 0.26, 0.05))
    robot = engines.make(engine, HAND, control_hz=25.0, world=World(bodies=(ball,)))
    start = Start(q_rad=HAND.home_rad)
    robot.begin(start)
    closed = HAND.home_rad + 0.3 * (HAND.upper_rad - HAND.home_rad)
    closed[:3] = HAND.home_rad[:3]
    touched = set()
    for _ in range(15):
        robot.step(Command(target_rad=closed))
        contacts = robot.world_state().contacts
        touched |= {int(other) for other in contacts.other}
        assert (contacts.normal_force_n >= 0.0).all()
        along = np.einsum("ki,ki->k", contacts.force_n, contacts.normal)
        np.testing.assert_allclose(along, contacts.normal_force_n, rtol=1e-6, atol=1e-9)
    assert 0 in touched and touched <= {0, ROBOT_ITSELF}
    robot.close()


def test_a_described_body_can_be_replaced_by_a_larger_one():
    assert replace(box("a"), mass_kg=2.0).scaled(2.0).inertial[2][0] == pytest.approx(
        4.0 * replace(box("a"), mass_kg=2.0).inertial[2][0]
    )


def test_the_program_in_the_documentation_runs_and_pushes_the_crate(capsys):
    text = (Path(__file__).resolve().parents[1] / "docs" / "simulation.md").read_text()
    (program,) = re.findall(r"^```python run\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(program, "docs/simulation.md", "exec"), {"__name__": "docs"})
    speed = float(capsys.readouterr().out.split()[0])
    assert 0.05 < speed < 60.0 / 4.0 * 0.02  # less what friction takes
