"""Joules: no figure without its source, no single number without a measurement."""

import numpy as np
import pytest

from robot import energy
from robot.description import load
from robot.onboard import meter

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
    found = energy.find_meter(0.0, tmp_path)
    assert found is not None and found.source.startswith("measured:rapl")
    rapl(tmp_path, "intel-rapl:0", 100)  # wrapped: +200
    rapl(tmp_path, "intel-rapl:1", 60)  # +50
    rapl(tmp_path, "intel-rapl:0:0", 999)
    assert found.sample(1.0) == pytest.approx(250e-6)


def test_board_rails_are_integrated(tmp_path):
    board(tmp_path, [("VDD_GPU_SOC", 5000, 1000), ("VDD_CPU_CV", 12000, 500)])
    chip = tmp_path / "hwmon" / "hwmon3"
    found = energy.find_meter(10.0, tmp_path)
    assert found is not None and found.source.startswith("measured:ina3221")
    assert found.sample(12.0) == pytest.approx(2.0 * 11.0)
    (chip / "curr1_input").write_text("3000")
    assert found.sample(13.0) == pytest.approx(22.0 + 0.5 * (11.0 + 21.0))


def board(folder, rails):
    """A board's monitor with these rails: (label, mV, mA)."""
    chip = folder / "hwmon" / "hwmon3"
    chip.mkdir(parents=True, exist_ok=True)
    (chip / "name").write_text("ina3221\n")
    for i, (label, mv, ma) in enumerate(rails, start=1):
        (chip / f"in{i}_label").write_text(f"{label}\n")
        (chip / f"in{i}_input").write_text(str(mv))
        (chip / f"curr{i}_input").write_text(str(ma))


def test_rails_that_are_fed_from_the_boards_input_are_not_counted_twice(tmp_path):
    board(tmp_path, [("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 1000), ("VDD_SOC", 5000, 500)])
    found = energy.find_meter(0.0, tmp_path)
    assert found is not None and found.source == "measured:ina3221, rail VDD_IN"
    assert found.sample(2.0) == pytest.approx(20.0)


class Run:
    """A run that a meter watches, without waiting: time passes while it is waited for."""

    def __init__(self, seconds, change):
        self.at_s, self.seconds, self.change = 0.0, seconds, change

    def over(self, wait_s):
        self.at_s = min(self.at_s + wait_s, self.seconds)
        self.change(self.at_s)
        return self.at_s >= self.seconds


def test_power_between_an_idle_beginning_and_an_idle_end_is_counted(tmp_path):
    """59 s at 30 W between two moments at 5 W: two readings would say 300 J."""
    board(tmp_path, [("", 5000, 1000)])
    run = Run(60.0, lambda s: board(tmp_path, [("", 5000, 6000 if 0.5 < s < 59.5 else 1000)]))
    found = meter.integrate(energy.find_meter(0.0, tmp_path), lambda: run.at_s, run.over)
    assert found.joules == pytest.approx(59.0 * 30.0 + 1.0 * 5.0, rel=2e-3)
    assert found.readings == pytest.approx(601, abs=1) and found.longest_s == pytest.approx(0.1)
    assert "601 readings at most 0.1 s apart" in found.per(100).source


def test_a_counter_that_wraps_again_and_again_is_followed(tmp_path):
    """Ten minutes at 300 W through a counter that wraps every 65.5 kJ."""
    wraps_uj = 65_532_610_987
    rapl(tmp_path, "intel-rapl:0", 0, wraps_uj)
    run = Run(600.0, lambda s: rapl(tmp_path, "intel-rapl:0", int(300e6 * s) % wraps_uj, wraps_uj))
    found = meter.integrate(energy.find_meter(0.0, tmp_path), lambda: run.at_s, run.over)
    assert found.joules == pytest.approx(180e3) and found.longest_s == pytest.approx(1.0)


def test_a_process_beside_the_run_reads_and_says_how_often(tmp_path):
    rapl(tmp_path, "intel-rapl:0", 900)
    with meter.metering(tmp_path) as found:
        found.begin()
        rapl(tmp_path, "intel-rapl:0", 950)
        measured = found.end()
    assert measured is not None and measured.joules in (0.0, pytest.approx(50e-6))  # changed before or after its first
    assert measured.source.startswith("measured:rapl") and measured.readings >= 2


def test_a_sensor_that_fails_in_a_run_measures_nothing(tmp_path):
    rapl(tmp_path, "intel-rapl:0", 900)
    with meter.metering(tmp_path) as found:
        found.begin()
        (tmp_path / "powercap/intel-rapl:0/energy_uj").write_text("not a number")
        assert found.end() is None
    with meter.metering(tmp_path / "nothing") as found:
        found.begin()
        assert found.end() is None


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
