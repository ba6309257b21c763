"""What every robot promises behind `robot.backend.Backend`: one file over both engines, the mock, a robot behind a link, and a
hand on a motor bus."""

import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from robot.description import load
from robot.errors import NotFiniteError, UnknownNameError
from robot.link import LinkBackend, LinkError
from robot.mock import MockBackend
from robot.motorbus.backend import HardwareBackend
from robot.motorbus.calibration import nominal
from robot.onboard.hardware import simulated
from robot.state import Command, CommandError, RobotState
from sim import engines

HAND = load("hand22")
N, MOTORS, TIPS = len(HAND.joints), len(HAND.tendons), len(HAND.tips)
PER_JOINT = ("q_rad", "qd_rad_s", "target_rad")
PER_MOTOR = ("motor_rad", "motor_rad_s", "motor_current_a", "motor_temperature_c")
START_TIMEOUT_S = 60.0


def served(folder):
    """A robot in a process of its own, and the link to it."""
    path = folder / "robot.sock"
    process = subprocess.Popen([sys.executable, "-m", "sim.serve", "--engine", "mock", "--socket", str(path)])
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return process, LinkBackend.connect(path, timeout_s=START_TIMEOUT_S)
        except OSError:  # not there yet
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)


def on_a_bus():
    """A hand of simulated motors; the Dynamixel bus is held to the same in test_motorbus.py."""
    calibration = nominal(HAND)
    bus = simulated(HAND, calibration)
    return HardwareBackend(bus, HAND, calibration, control_hz=25.0, wait=bus.advance)


MAKE = {"mock": lambda: MockBackend(HAND), "hardware": on_a_bus}


@pytest.fixture(scope="module", params=["pybullet", "mujoco", "mock", "link", "hardware"])
def robot(request, tmp_path_factory):
    """A backend and whether the caller may place it; the task does that behind a link."""
    if request.param == "link":
        process, backend = served(tmp_path_factory.mktemp("link"))
    else:
        process = None
        backend = MAKE.get(request.param, lambda: engines.make(request.param, HAND, control_hz=25.0))()
    yield backend, request.param != "link"
    backend.close()
    backend.close()  # twice is as good as once
    if process is not None:
        assert process.wait(timeout=10.0) == 0


def rng():
    return np.random.default_rng(7)


def wave(step):
    """A command that moves every joint and touches nothing it should not."""
    return Command(target_rad=HAND.home_rad + 0.1 * np.sin(0.4 * step) * np.ones(N))


def same(a, b):
    """Bit for bit; a real robot, which no generator places, only as near as its encoders tell."""
    if a.tip_force_n.size == 0:
        near = np.allclose(a.q_rad, b.q_rad, atol=5e-3) and np.allclose(a.motor_rad, b.motor_rad, atol=2e-2)
        return near and np.array_equal(a.target_rad, b.target_rad) and a.time_s == b.time_s
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(RobotState))


def test_a_state_has_the_shapes_of_the_model_and_only_numbers(robot):
    backend, _ = robot
    assert backend.model.sha256 == HAND.sha256 and backend.control_hz > 0.0
    backend.reset(None, rng())
    state = backend.step(wave(1))
    tips = TIPS if state.tip_force_n.size else 0  # sensors that a robot does not have are empty
    for name, count in ({k: N for k in PER_JOINT} | {k: MOTORS for k in PER_MOTOR} | {"tip_force_n": tips}).items():
        array = getattr(state, name)
        assert array.shape == (count,) and array.dtype == np.float64 and np.isfinite(array).all(), name


def test_time_counts_control_steps_from_the_reset(robot):
    backend, _ = robot
    assert backend.reset(None, rng()).time_s == 0.0
    times = [backend.step(wave(k)).time_s for k in range(3)]
    assert times == pytest.approx([(k + 1) / backend.control_hz for k in range(3)])


def test_returned_arrays_are_the_callers_own(robot):
    backend, _ = robot
    first = backend.reset(None, rng())
    kept = {f.name: np.copy(getattr(first, f.name)) for f in fields(RobotState)}
    for _ in range(3):
        backend.step(Command(target_rad=HAND.upper_rad))
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(first, name), value)

    backend.reset(None, rng())
    untouched = [backend.step(wave(k)) for k in range(3)]
    state = backend.reset(None, rng())
    for k in range(3):
        for name in (*PER_JOINT, *PER_MOTOR, "tip_force_n"):
            getattr(state, name)[:] = 99.0  # a caller that scribbles changes nothing
        state = backend.step(wave(k))
        assert same(state, untouched[k])


def test_a_command_is_not_kept_and_not_changed(robot):
    backend, _ = robot
    backend.reset(None, rng())
    expected = [backend.step(wave(k)) for k in range(2)]
    backend.reset(None, rng())
    for k in range(2):
        target = wave(k).target_rad.copy()
        state = backend.step(Command(target_rad=target))
        np.testing.assert_array_equal(target, wave(k).target_rad)
        target[:] = np.nan
        assert same(state, expected[k])


def test_the_target_in_force_is_the_command_within_the_joints_ranges(robot):
    backend, _ = robot
    backend.reset(None, rng())
    far = backend.step(Command(target_rad=HAND.upper_rad + 1.0))
    np.testing.assert_array_equal(far.target_rad, HAND.upper_rad)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_is_refused_by_joint_and_nothing_is_applied(robot, bad):
    backend, _ = robot
    backend.reset(None, rng())
    expected = [backend.step(wave(k)) for k in range(4)]
    backend.reset(None, rng())
    for k in range(4):
        target = HAND.lower_rad.copy()
        target[4] = bad
        with pytest.raises(NotFiniteError, match=HAND.joint_names[4]):
            backend.step(Command(target_rad=target))
        assert same(backend.step(wave(k)), expected[k])


def test_a_command_of_another_shape_is_refused(robot):
    backend, _ = robot
    backend.reset(None, rng())
    with pytest.raises(CommandError, match=rf"shape \({N},\), got \(3,\)"):
        backend.step(Command(target_rad=np.zeros(3)))


def test_the_same_commands_after_a_reset_give_the_same_states(robot):
    backend, _ = robot
    runs = []
    for _ in range(2):
        states = [backend.reset(None, rng())]
        states += [backend.step(Command(target_rad=HAND.lower_rad if k % 2 else HAND.upper_rad)) for k in range(6)]
        runs.append(states)
    assert all(same(a, b) for a, b in zip(*runs))
    assert not same(runs[0][2], runs[0][5])  # something moved


def test_reset_goes_to_the_posture_asked_for_at_rest(robot):
    backend, may_place = robot
    posture = HAND.home_rad + 0.05
    asked = RobotState(time_s=3.0, q_rad=posture, qd_rad_s=posture, target_rad=posture)
    if not may_place:
        with pytest.raises(LinkError, match="the task places the robot"):
            backend.reset(asked, rng())
        return
    state = backend.reset(asked, rng())
    np.testing.assert_allclose(state.q_rad, posture, atol=2e-3)  # the mock's encoders have 12 bits
    np.testing.assert_allclose(state.qd_rad_s, 0.0, atol=0.02 if isinstance(backend, HardwareBackend) else 0.0)
    np.testing.assert_array_equal(state.target_rad, posture)
    bad = np.full(N, np.nan)
    with pytest.raises(NotFiniteError, match=HAND.joint_names[0]):
        backend.reset(RobotState(time_s=0.0, q_rad=bad, qd_rad_s=bad, target_rad=bad), rng())


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown engine 'mujco'. Did you mean 'mujoco'\? Known: pybullet, mujoco"
    ):
        engines.make("mujco", HAND)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_control_period_must_be_whole_substeps(engine):
    with pytest.raises(ValueError, match=r"control period 0\.0333.* whole number of substeps of 0\.005 s"):
        engines.make(engine, HAND, control_hz=30.0)
