"""What a robot's body tells: joules by the motors' data sheets, a battery that is counted down, and the seconds before a fall."""

from dataclasses import replace

import numpy as np
import pytest
from fleet_places import Place
from onboard_helpers import artifact, model, write

from fleet.body import KEPT_S, Body
from fleet.messages import EpisodeResult, FallReport
from fleet.robot import FleetRobot, RobotConfig
from robot.description import load
from robot.link import TaskFeedback
from robot.state import Command, RobotState

HAND = load("hand22")
N = len(HAND.motor_names)


class Scripted:
    """A robot that answers with what the test wants."""

    model, control_hz, feedback, complaint = HAND, 20.0, TaskFeedback(), "the bus is slow"

    def __init__(self, **fields):
        self.fields, self.steps = fields, 0

    def state(self):
        return RobotState(
            time_s=self.steps / 20.0,
            q_rad=np.full(len(HAND.joints), self.steps / 100.0),
            qd_rad_s=np.zeros(len(HAND.joints)),
            target_rad=np.zeros(len(HAND.joints)),
            **self.fields,
        )

    def reset(self, state, rng):
        self.steps = 0
        return self.state()

    def send(self, command):
        self.steps += 1

    def receive(self):
        return self.state()

    def close(self):
        """Nothing is held."""


def driven(steps=20, body_options=None, **fields):
    body = Body(Scripted(**fields), **(body_options or {}))
    body.reset(None, np.random.default_rng(0))
    for _ in range(steps):
        body.send(Command(target_rad=np.zeros(len(HAND.joints))))
        body.receive()
    return body


def test_a_stalled_motor_costs_its_winding_heat():
    motor = HAND.tendons[0].motor
    current_a = np.zeros(N)
    current_a[0] = 0.3
    body = driven(20, motor_current_a=current_a, motor_rad_s=np.zeros(N))
    assert body.energy_j == pytest.approx(0.3**2 * motor.resistance_ohm * 1.0)  # 20 steps of 50 ms
    hot = driven(20, motor_current_a=current_a, motor_temperature_c=np.full(N, 125.0))
    assert hot.energy_j == pytest.approx(1.393 * body.energy_j)


def test_a_turning_motor_also_pays_for_its_shaft_and_a_braking_one_gives_nothing_back():
    motor, current_a, speed = HAND.tendons[0].motor, np.zeros(N), np.zeros(N)
    current_a[0], speed[0] = 0.3, 2.0
    shaft_w = 0.3 * motor.torque_constant_nm_a * motor.gear_ratio * 2.0
    heat_w = 0.3**2 * motor.resistance_ohm
    assert driven(20, motor_current_a=current_a, motor_rad_s=speed).energy_j == pytest.approx(heat_w + shaft_w)
    braking = driven(20, motor_current_a=current_a, motor_rad_s=-1000.0 * speed)
    assert braking.energy_j == 0.0


def test_the_battery_is_counted_down_and_ends_at_nothing():
    body = driven(20, {"battery_wh": 0.01, "base_w": 18.0})
    assert body.energy_j == pytest.approx(18.0)
    assert body.battery == pytest.approx(0.5)
    assert driven(80, {"battery_wh": 0.01, "base_w": 18.0}).battery == 0.0
    assert driven(1).battery is None
    assert "18 W for the rest" in body.source


def test_a_robot_without_sensors_and_one_with_a_broken_sensor_stay_countable():
    assert driven(5).energy_j == 0.0
    current_a = np.full(N, 0.1)
    current_a[3], current_a[4] = np.nan, np.inf
    assert 0.0 < driven(5, motor_current_a=current_a).energy_j < np.inf


def test_a_fall_holds_the_last_seconds_in_order_and_a_reset_forgets_the_ones_before():
    body = driven(300, tip_force_n=np.full(len(HAND.tips), 2.0), imu_quat_xyzw=np.array([0.0, 0.0, 0.0, 1.0]))
    report = body.fall(reason="dropped", episode_id="e", policy_sha256="a" * 64, artifact="x/v1", time_ns=1)
    time_s = np.frombuffer(report.time_s, "<f4")
    assert report.states == len(time_s) == KEPT_S * 20.0
    assert time_s[-1] == pytest.approx(15.0)
    assert np.allclose(np.diff(time_s), 0.05, atol=1e-5)
    q_rad = np.frombuffer(report.q_rad, "<f4").reshape(report.states, -1)
    assert np.allclose(q_rad[:, 0], time_s * 20.0 / 100.0, atol=1e-5)
    assert len(report.imu_quat_xyzw) == 16 * report.states
    assert len(report.tip_force_n) == 4 * len(HAND.tips) * report.states
    body.reset(None, np.random.default_rng(0))
    assert body.fall(reason="", episode_id="", policy_sha256="", artifact="", time_ns=1).states == 1
    assert Body(Scripted()).fall(reason="", episode_id="", policy_sha256="", artifact="", time_ns=1) is None


def test_the_loop_sees_the_robot_through_it():
    body = Body(Scripted())
    assert (body.control_hz, body.model, body.complaint) == (20.0, HAND, "the bus is slow")


def test_a_fleet_robot_tells_a_fall_once_in_a_while_and_reports_its_body(tmp_path):
    place = Place(tmp_path)
    folder = write(tmp_path / "models/test_policy/v1", artifact(model(seed=0)))
    config = RobotConfig(
        hubs=place.address, keys=place.keys, name="a", folder=tmp_path / "a", artifact=str(folder), battery_wh=1.0
    )
    robot = FleetRobot(config)
    robot._body = driven(20, {"battery_wh": 1.0, "base_w": 5.0})
    for _ in range(3):
        robot._emit("e" * 32, -1.0, False, True, 20)
    robot._emit("e" * 32, 1.0, True, False, 20)
    told = [event for _, event, _ in robot.uplink._ring]
    assert [type(event) for event in told].count(EpisodeResult) == 4
    (report,) = [event for event in told if isinstance(event, FallReport)]
    assert (report.robot_model, report.reason, report.states) == ("hand22", "the task ended the episode", 21)
    beat = robot._heartbeat()
    assert (beat.skills, beat.robot_model, beat.energy_j) == (("test_policy",), "hand22", pytest.approx(5.0))
    assert beat.battery == pytest.approx(1.0 - 5.0 / 3600.0)
    assert not beat.wants_job  # it is not running yet
    robot._state = "running"
    assert robot._heartbeat().wants_job
    robot.config = replace(config, jobs=False)
    assert not robot._heartbeat().wants_job
    robot._files.close()
    robot.uplink.spool.close()
