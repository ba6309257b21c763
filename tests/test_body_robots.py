"""Robots with a free base and gear drives behind the same seams: engines, mock, contract, limits, heat."""

from dataclasses import replace

import numpy as np
import pytest

from robot.contract import ContractMismatchError
from robot.description import load
from robot.energy import winding_ohm
from robot.mock import MockBackend
from robot.safety import Limits
from robot.state import Command
from sim import engines
from sim.tasks import TASKS
from sim.world import Ground, Start, World

ROBOTS = ("body28", "humanoid")
FLOOR = World(ground=Ground(kind="flat"))


@pytest.fixture(params=("pybullet", "mujoco", "mock"))
def backend(request):
    return request.param


def make(backend, model):
    return MockBackend(model, 50.0) if backend == "mock" else engines.make(backend, model, control_hz=50.0, world=FLOOR)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_free_robot_fills_its_imu_and_counts_tendons_before_drives(backend, name):
    model = load(name)
    robot = make(backend, model)
    state = robot.reset(None, np.random.default_rng(0))
    for _ in range(10):
        state = robot.step(Command(target_rad=model.home_rad))
    assert state.imu_gyro_rad_s.shape == (3,)
    assert np.linalg.norm(state.imu_quat_xyzw) == pytest.approx(1.0)
    motors = len(model.tendons) + len(model.drives)
    assert (
        state.motor_rad.shape == state.motor_current_a.shape == (motors,)
        and model.motor_names[-1] == model.drives[-1].name
    )
    last = model.index(model.drives[-1].joint)
    assert state.motor_rad[-1] == pytest.approx(state.q_rad[last], abs=0.05)  # a drive's shaft is its joint
    assert np.abs(state.q_rad - model.home_rad).max() < 0.6  # still on its feet after 0.2 s
    robot.close()


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_the_hands_of_a_falling_humanoid_do_not_diverge(engine):
    model = load("humanoid")
    robot = engines.make(engine, model, control_hz=50.0, world=FLOOR)
    robot.begin(Start(q_rad=model.home_rad, base_velocity_m_s=np.array([0.8, 0.0, 0.0])))
    rng = np.random.default_rng(1)
    for _ in range(100):
        robot.step(Command(target_rad=model.home_rad + 0.2 * rng.uniform(-1.0, 1.0, len(model.joints))))
    world = robot.world_state()
    assert world.base_position_m[2] < 0.7  # it has fallen
    assert (world.links[1][:, 2] > -0.05).all()  # and lies on the ground
    robot.close()


def test_limits_and_windings_count_gear_drives():
    model = load("body28")
    assert winding_ohm(model).shape == (28,) and (winding_ohm(model) > 0.0).all()
    limits = Limits.of(model, 0.02)
    knee, drive = model.index("left_knee"), next(d for d in model.drives if d.joint == "left_knee")
    assert limits.torque_rad[knee] == pytest.approx(drive.motor.peak_torque_nm / drive.servo_stiffness_nm_rad)


def test_a_contract_for_softer_drives_is_not_bound():
    model = load("body28")
    contract = TASKS["flexor/BodyWalk-v0"](model).contract()
    contract.bind(model)
    soft = replace(model, drives=(replace(model.drives[0], servo_stiffness_nm_rad=1.0), *model.drives[1:]))
    with pytest.raises(
        ContractMismatchError,
        match=r"drive_stiffness_nm_rad: contract 28 entries, \[0\] = 200.0, robot 28 entries, \[0\] = 1.0",
    ):
        contract.bind(soft)
