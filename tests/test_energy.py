"""Joules: no figure without its source, no single number without a measurement."""

import numpy as np
import pytest

from robot import energy
from robot.description import load

HAND = load("hand22")
OHM = energy.winding_ohm(HAND)


def test_the_least_for_a_known_network_is_the_published_arithmetic():
    """98-512-256-128-29: 217,728 MAC; 1.0 uJ of fp32 arithmetic, 10.9 uJ of weights from a 1 MB cache."""
    least = energy.least_decision_j(217_728, 4 * 217_728)
    assert least == pytest.approx(217_728 * 4.6e-12 + 217_728 * 50e-12)
    assert 11.8e-6 < least < 12.0e-6


@pytest.mark.parametrize(
    "size, per_read", [(8 * 1024, 10e-12), (8 * 1024 + 8, 20e-12), (2**20, 100e-12), (2**20 + 8, 1300e-12)]
)
def test_weights_are_read_from_the_smallest_memory_that_holds_them(size, per_read):
    assert energy.least_decision_j(0, size) == pytest.approx(size / 8 * per_read)


def test_a_model_gives_an_interval_and_says_what_it_assumed():
    modelled = energy.modelled_decision(multiply_adds=1000, weight_bytes=4000, cpu_s=0.5, decisions=100)
    assert modelled.high_j == pytest.approx(0.5 / 100 * energy.UPPER_CORE_W)
    assert modelled.low_j < modelled.high_j and not modelled.measured
    assert "15 W/core" in modelled.source
    assert modelled.as_dict()["value"] is None
    assert " to " in str(modelled) and "modelled" in str(modelled)


def test_an_interval_is_never_upside_down():
    idle = energy.modelled_decision(multiply_adds=10**6, weight_bytes=10**7, cpu_s=0.0, decisions=1)
    assert idle.low_j == idle.high_j > 0.0


def test_copper_heat_is_current_squared_times_a_resistance_that_grows_with_heat():
    current = np.zeros(len(HAND.tendons))
    current[3] = 0.2
    cold = energy.copper_w(OHM, current)
    assert cold == pytest.approx(0.04 * HAND.tendons[3].motor.resistance_ohm)
    hot = energy.copper_w(OHM, current, np.full(len(HAND.tendons), 125.0))
    assert hot == pytest.approx(1.393 * cold)
    assert energy.copper_w(OHM, -current) == cold
    assert energy.copper_w(OHM, np.zeros(0)) == 0.0


def rapl(folder, name, uj, most=1000):
    zone = folder / "powercap" / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(str(uj))
    (zone / "max_energy_range_uj").write_text(str(most))


def test_package_counters_are_summed_through_their_wrap(tmp_path):
    rapl(tmp_path, "intel-rapl:0", 900)
    rapl(tmp_path, "intel-rapl:1", 10)
    rapl(tmp_path, "intel-rapl:0:0", 5)  # a part of package 0, not to be counted twice
    meter = energy.find_meter(0.0, tmp_path)
    assert meter is not None and meter.source.startswith("measured:rapl")
    rapl(tmp_path, "intel-rapl:0", 100)  # wrapped: +200
    rapl(tmp_path, "intel-rapl:1", 60)  # +50
    rapl(tmp_path, "intel-rapl:0:0", 999)
    assert meter.sample(1.0) == pytest.approx(250e-6)


def test_board_rails_are_integrated(tmp_path):
    chip = tmp_path / "hwmon" / "hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    for i, (mv, ma) in enumerate([(5000, 1000), (12000, 500)], start=1):
        (chip / f"in{i}_input").write_text(str(mv))
        (chip / f"curr{i}_input").write_text(str(ma))
    meter = energy.find_meter(10.0, tmp_path)
    assert meter is not None and meter.source.startswith("measured:ina3221")
    assert meter.sample(12.0) == pytest.approx(2.0 * 11.0)
    (chip / "curr1_input").write_text("3000")
    assert meter.sample(13.0) == pytest.approx(22.0 + 0.5 * (11.0 + 21.0))


def test_without_a_readable_sensor_nothing_is_called_measured(tmp_path):
    assert energy.find_meter(0.0, tmp_path) is None
    rapl(tmp_path, "intel-rapl:0", 900)
    (tmp_path / "powercap/intel-rapl:0/energy_uj").write_text("not a number")
    assert energy.find_meter(0.0, tmp_path) is None


@pytest.mark.parametrize("value, text", [(2.0, "2 J"), (1.5e-3, "1.5 mJ"), (2e-5, "20 uJ"), (3e-8, "30 nJ")])
def test_joules_for_people(value, text):
    assert energy.joules(value) == text


def test_a_ledger_divides_a_run_by_its_decisions_and_its_tasks_and_keeps_the_sources():
    computer = energy.Energy(low_j=1.0, high_j=3.0, source="modelled: test")
    motors = energy.Energy(low_j=8.0, high_j=8.0, source="measured:test")
    cameras = energy.camera_energy(2, 10.0)
    ledger = energy.Ledger(computer=computer, motors=motors, cameras=cameras, decisions=100, tasks=4)
    found = ledger.as_dict()
    assert found["per_decision"]["computer"] == {"value": None, "low": 0.01, "high": 0.03, "source": "modelled: test"}
    assert found["per_task"]["motors"]["value"] == 2.0 and found["per_task"]["motors"]["source"] == "measured:test"
    assert (found["per_run"]["cameras"]["low"], found["per_run"]["cameras"]["high"]) == (2.0, 50.0)
    none = energy.Ledger(computer=computer, motors=motors, cameras=energy.camera_energy(0, 9.0), decisions=1, tasks=0)
    assert none.as_dict()["per_task"] is None and none.as_dict()["per_run"]["cameras"]["value"] == 0.0
