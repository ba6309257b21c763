"""The benchmark's own parts: networks nobody trained, seeded faults, fuzzed actions, and a table that can say no."""

import dataclasses

import msgspec
import numpy as np
import onnx
import pytest

from robot.description import load
from robot.onboard import bench, bench_report
from robot.onboard.admission import admit
from robot.onboard.bench import BenchError, Cost
from robot.onboard.bench_checks import filter_limits, fuzz, fuzzed, parity, periods_to_damping, violations
from robot.onboard.bench_faults import EXPECTED, seeded_faults
from robot.onboard.bench_nets import NETS, ROBOT, bench_net
from robot.onboard.filter import make_filter
from robot.onboard.onnxfile import read
from robot.onboard.onnxwrite import write
from robot.safety import Fault, Filter


@pytest.mark.parametrize("net", NETS)
def test_the_networks_are_what_the_table_says_and_may_drive_their_robot(net):
    made = bench_net(net)
    onnx.checker.check_model(onnx.load_from_string(made.onnx), full_check=True)
    assert (made.contract.observation_size, made.contract.action_size) == (98, 29)
    weights = sorted(a.shape for a in made.file.constants.values() if a.ndim == 2 and min(a.shape) > 1)
    if net == "mlp":
        assert weights == [(29, 128), (128, 256), (256, 512), (512, 98)]
    else:
        assert (384, 98) in weights and (384, 128) in weights
    assert admit(made, load(ROBOT)).figures["golden_samples"] == 32


def test_a_written_file_reads_back_as_it_was():
    file = bench_net("gru").file
    again = read(write(file))
    assert again.nodes == file.nodes and again.inputs == file.inputs and again.outputs == file.outputs
    assert again.metadata == file.metadata and again.opsets == file.opsets and again.ir_version == file.ir_version
    assert set(again.constants) == set(file.constants)
    for name, value in file.constants.items():
        np.testing.assert_array_equal(again.constants[name], value)


def test_every_seeded_fault_is_refused_by_its_own_name_and_the_good_file_is_not():
    faults = seeded_faults()
    assert len(EXPECTED) == 13 and EXPECTED["no fault"] == ""
    assert {name: type(error).__name__ if (error := ask()) else "" for name, ask in faults.items()} == EXPECTED


@pytest.mark.parametrize("net", NETS)
def test_every_backend_stays_with_the_graph_in_float64_over_a_thousand_recurrent_steps(net):
    apart = parity(bench_net(net))
    assert set(apart) == {"c", "onnxruntime", "numpy"} and max(apart.values()) <= 1e-5


def test_fuzzed_actions_break_no_limit_one_by_one_in_c_and_in_numpy():
    limits, _ = filter_limits()
    for check in (make_filter(limits), Filter(limits)):
        seen = fuzz(3000, check, block=1000)
        assert seen["actions"] == 3000 and seen["violations"] == 0 and 20 < seen["refused"] < 600


def test_the_violation_counter_of_the_benchmark_can_count():
    limits, home = filter_limits()
    target, previous, *_ = fuzzed(limits, 1000, np.random.default_rng(0))
    assert violations(limits, target, previous) > 1000  # unfiltered
    assert violations(limits, home[None], home[None]) == 0
    assert violations(limits, np.full((1, 29), np.nan), home[None]) == 29


def test_every_fault_leads_to_damping_within_two_periods():
    expected = {f.name.lower(): 0 if f is Fault.ESTOP else 1 for f in Fault}
    compiled = {name: periods for name, periods in expected.items() if name != "inference"}
    assert periods_to_damping() == {"python": expected, "compiled": compiled}


def test_a_benchmark_says_what_is_not_met():
    cost = Cost(mode="loop", p50_us=10.0, p99_us=20.0, p999_us=40.0, cpu_share=0.009, deadlines=100)
    costs = {
        "loop": cost,
        "c": msgspec.structs.replace(cost, mode="c"),
        "sleep": msgspec.structs.replace(cost, mode="sleep", cpu_share=0.002),
        "default": msgspec.structs.replace(cost, mode="default", cpu_share=0.46),
        "tuned": msgspec.structs.replace(cost, mode="tuned", p50_us=29.0),
    }
    good = bench_report.Measured(
        rate_hz=50.0,
        repeats=1,
        costs={"mlp": costs},
        tails={("mlp", 50.0): cost},
        sleepers={("mlp", 50.0): msgspec.structs.replace(cost, mode="sleep")},
        parity={"mlp": {"c": 1e-6}},
        filter_us={"here_changed_p50_us": 5.0, "numpy_changed_p50_us": 50.0},
        fuzz={"actions": 10, "refused": 1, "violations": 0},
        faults=dict(EXPECTED),
        damping={"python": {"stale": 1}, "compiled": {"stale": 1}},
    )
    met = {figure: met for figure, _, _, met in bench_report.rows(good)}
    assert met["mlp: CPU of the whole loop, 50 Hz"] and met["mlp: p99.9 of the loop, 50 Hz"]
    assert met["mlp: CPU against InferenceSession(path)"] is True  # 51 times
    assert met["mlp: p50 against tuned session.run"] is False  # 2.9 times
    assert met["filter, 29 joints: numpy changed"] is None and met["seeded faults refused"]
    other = dataclasses.replace(
        good, faults={**EXPECTED, "wrong scale": "JudgeError"}
    )  # refused, but for another reason
    assert {figure: met for figure, _, _, met in bench_report.rows(other)}["seeded faults refused"] is False
    cut = dataclasses.replace(
        good, tails={("mlp", 50.0): msgspec.structs.replace(cost, fault="sensor data too old: 7 ms")}
    )
    seen, ok = {figure: (seen, met) for figure, _, seen, met in bench_report.rows(cut)}["mlp: missed deadlines, 50 Hz"]
    assert not ok and seen.endswith("ended there: sensor data too old: 7 ms")
    assert met["mlp: missed deadlines, 50 Hz"] is True
    assert "NOT met" in bench_report.text(good)
    assert bench_report.figures(good)["mlp"]["loop"]["cpu_share"] == 0.009


def test_a_bare_sleeper_says_what_the_machine_does():
    cost = bench.in_process("mlp", "sleep", 200.0, 0.3)
    assert cost.deadlines == 60 and cost.max_us >= cost.p999_us >= cost.p50_us > 0.0 and 0.0 < cost.cpu_share < 0.5


def test_the_whole_loop_is_measured_in_a_process_of_its_own():
    cost = bench.in_process("gru", "loop", 50.0, 0.5)
    assert cost.deadlines - cost.missed <= 25 <= cost.deadlines  # a busy machine may wake it after the end
    assert cost.p50_us > 0.0 and 0.0 < cost.cpu_share < 1.0
    with pytest.raises(BenchError, match="unknown mode 'lop'"):
        bench.in_process("gru", "lop", 50.0, 0.5)
