"""Sensors: each error alone is what its range says, and without errors they tell the truth."""

from dataclasses import fields

import numpy as np
import pytest

from robot.description import load
from robot.state import RobotState
from sim.ranges import RandomizationError, Ranges, sizes_of
from sim.readings import SENSED
from sim.sensors import DEVICES, Sensors
from sim.world import quat_times

DT_S = 0.04
MODEL = load("hand22")
SIZES = sizes_of(MODEL, tracked=True) | {"imu_gyro_rad_s": 3, "imu_quat_xyzw": 4}
# Nothing is wrong with these sensors, but that readings are rounded.
PERFECT = {
    item.name: (1.0, 1.0) if item.name.endswith("_gain") else (0.0, 0.0)
    for item in fields(Ranges)
    if item.name.endswith(("_gain", "_latency_s", "_dropout")) or "_bias_" in item.name or "_noise_" in item.name
}


def state(at: float) -> RobotState:
    """Everything at a number, quaternions turned by it about z."""
    turned = np.array([0.0, 0.0, np.sin(at / 2.0), np.cos(at / 2.0)])
    values = {name: np.full(SIZES[name], at) for name in SENSED}
    values |= {"imu_quat_xyzw": turned, "object_pose": np.concatenate([np.full(3, at), turned])}
    return RobotState(time_s=0.0, target_rad=np.zeros(25), **values)


def sensors(seed: int = 0, **ranges: tuple[float, float]) -> Sensors:
    return Sensors(Ranges.of(PERFECT, ranges), SIZES, DT_S, np.random.default_rng(seed))


def readings(made: Sensors, states: list[RobotState], seed: int = 1) -> list[RobotState]:
    vectors = [made.layout.vector(true) for true in states]
    said = [made.reset(vectors[0], np.random.default_rng(seed)), *(made.read(true) for true in vectors[1:])]
    return [made.layout.state(one, 0.0, np.zeros(25)) for one in said]


def test_every_device_has_ranges_and_every_sensed_field_a_device():
    assert {device.reads for device in DEVICES} == set(SENSED)
    known = {item.name for item in fields(Ranges)}
    for device in DEVICES:
        assert {f"{device.name}_noise_{device.unit}", f"{device.link}_latency_s", f"{device.link}_dropout"} <= known
    assert len(PERFECT) == 25


def test_without_errors_a_reading_is_the_truth_rounded_to_the_resolution():
    resolution = {device.reads: device.resolution for device in DEVICES}
    for true, said in zip(states := [state(0.1 * k) for k in range(10)], readings(sensors(), states)):
        for name in SENSED:
            np.testing.assert_allclose(getattr(said, name), getattr(true, name), atol=resolution[name] / 2.0 + 1e-12)


def test_a_late_reading_is_what_was_true_then_in_a_straight_line_between_steps():
    states = [state(0.1 * k) for k in range(12)]
    said = readings(sensors(bus_latency_s=(0.05, 0.05), tracker_latency_s=(0.1, 0.1)), states)
    np.testing.assert_allclose(said[8].qd_rad_s, 0.1 * (8 - 0.05 / DT_S))
    np.testing.assert_allclose(said[8].object_pose[:3], 0.1 * (8 - 0.1 / DT_S))
    then = 0.1 * (8 - 0.1 / DT_S)
    np.testing.assert_allclose(said[8].object_pose[3:], state(then).object_pose[3:], atol=1e-5)
    np.testing.assert_allclose(said[0].qd_rad_s, 0.0)  # it stood like this before the episode


def test_a_lost_reading_repeats_the_last_one_and_as_many_are_lost_as_the_range_says():
    states = [state(0.1 * k) for k in range(400)]
    said = np.array([r.qd_rad_s for r in readings(sensors(bus_dropout=(0.25, 0.25)), states)])
    repeated = said[1:] == said[:-1]
    assert abs(repeated.mean() - 0.25) < 0.02
    fresh = ~np.vstack([np.zeros((1, 25), bool), repeated])
    np.testing.assert_allclose(said[fresh], np.broadcast_to(0.1 * np.arange(400)[:, None], said.shape)[fresh])


def test_a_lost_orientation_is_repeated_as_a_whole():
    states = [state(0.01 * k) for k in range(300)]
    said = np.array([r.object_pose[3:] for r in readings(sensors(tracker_dropout=(0.3, 0.3)), states)])
    same = said[1:] == said[:-1]
    assert (same[:, 2] == same[:, 3]).all() and 0.2 < same[:, 2].mean() < 0.4


def test_noise_has_its_deviation_and_no_mean_and_bias_stays():
    still = [state(1.0)] * 2000
    said = np.array([r.qd_rad_s for r in readings(sensors(velocity_noise_rad_s=(0.03, 0.03)), still)])
    assert abs(said.std() / 0.03 - 1.0) < 0.02 and abs(said.mean() - 1.0) < 0.001
    off = readings(sensors(encoder_bias_rad=(-0.2, 0.2)), still[:3])
    error = off[0].q_rad - 1.0
    assert 0.1 < np.abs(error).max() <= 0.2 + 1e-3 and len(set(error.tolist())) > 20
    np.testing.assert_array_equal(off[0].q_rad, off[2].q_rad)


def test_noise_of_an_orientation_is_a_turn_of_its_size():
    said = readings(sensors(tracker_noise_rad=(0.02, 0.02)), [state(0.5)] * 2000)
    true = state(0.5).object_pose[3:]
    apart = np.array([quat_times(true * [-1, -1, -1, 1], r.object_pose[3:]) for r in said])
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), 1.0)
    assert abs((2.0 * apart[:, :3]).std() / 0.02 - 1.0) < 0.03


def test_a_gain_is_a_factor_and_no_force_is_read_below_zero():
    said = readings(sensors(touch_gain=(0.5, 0.5), touch_noise_n=(0.3, 0.3)), [state(0.2)] * 500)
    force = np.array([r.tip_force_n for r in said])
    assert force.min() == 0.0 and abs(np.median(force) - 0.1) < 0.03


def test_what_was_drawn_is_told_and_repeats_with_the_seed():
    one, same, other = (Sensors(Ranges(), SIZES, DT_S, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.drawn == same.drawn != other.drawn
    assert set(one.drawn) == set(PERFECT)
    np.testing.assert_array_equal(
        readings(one, [state(0.3)] * 50)[-1].q_rad, readings(same, [state(0.3)] * 50)[-1].q_rad
    )


def test_readings_are_the_callers_own():
    made = sensors()
    first = made.reset(made.layout.vector(state(0.0)), np.random.default_rng(0))
    kept = first.copy()
    made.read(made.layout.vector(state(1.0)))
    np.testing.assert_array_equal(first, kept)
    assert first[0] == 0.0


@pytest.mark.parametrize(
    "name, pair, message",
    [
        ("encoder_noise_rad", (-0.1, 0.1), "encoder_noise_rad: low must be >= 0"),
        ("touch_gain", (0.0, 1.0), "touch_gain: low must be > 0"),
        ("bus_dropout", (0.0, 1.0), "bus_dropout: high must be < 1"),
        ("tracker_latency_s", (0.2, 0.1), "tracker_latency_s: low must be <= high"),
    ],
)
def test_a_range_no_sensor_can_have_is_refused_by_field(name, pair, message):
    with pytest.raises(RandomizationError, match=message):
        Ranges.of({name: pair})
