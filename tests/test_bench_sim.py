"""The benchmark measures what it says, and a run that fails is told."""

import json
import subprocess
import sys

import pytest

from sim import bench


def one(kind: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "sim.bench", kind, "0.01"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_run_of_an_environment_says_how_fast_it_is_and_what_the_engine_takes_of_it():
    figures = one("reach_mujoco")
    assert figures["simulated_s_per_s"] == pytest.approx(0.04 * figures["steps_per_s"])
    assert figures["step_over_bare"] == pytest.approx(figures["step_cpu_us"] / figures["bare_substeps_cpu_us"], rel=0.5)
    assert figures["step_over_bare"] > 1.0 and figures["substep_ms"] == 5.0
    assert 50.0 < figures["resident_mb"] < 300.0  # what a simulation worker may take


def test_medians_are_taken_over_runs_and_peers_are_put_beside_ours(monkeypatch, tmp_path):
    values = iter(range(1, 100))
    names = ("simulated_s_per_s", "step_over_bare", "resident_mb", "kernel_us", "two_workers_over_one", "overhead")
    monkeypatch.setattr(bench, "PEERS_PYTHON", tmp_path)  # exists
    monkeypatch.setattr(bench, "_run", lambda command: dict.fromkeys(names, float(next(values))))
    said = []
    results = bench.measure(seconds=1.0, repeats=3, peers=True, say=said.append)
    kinds = len(bench.KINDS) + len(bench.PEERS)
    assert len(said) == 3 * kinds and said[-1].startswith(f"{3 * kinds}/{3 * kinds} runs, 0 s left")
    runs = results["runs"]
    assert runs["cube_pybullet"]["simulated_s_per_s"] == 1 + kinds  # the median of 1, 1 + k, 1 + 2 k
    assert [row["what"] for row in results["wanted"]] == [row[0] for row in bench.WANTED]
    first = results["wanted"][0]
    place = list(bench.KINDS | dict.fromkeys(bench.PEERS)).index(bench.HAND_PEER)
    assert first["value"] == (1 + kinds) / (1 + kinds + place)  # of the middle round, ours by the peer's beside it
    assert first["at_least"] == 2.5 and not first["met"]  # ours was the slower
    lines = bench.table(results).splitlines()
    assert len(lines) == kinds + 2 + len(bench.WANTED) and lines[kinds + 2].endswith("missed")
    assert lines[kinds + 1].startswith("beside it ran ")


def test_a_bound_is_met_on_its_right_side_and_what_was_not_measured_is_left_out():
    runs = {"vector": {"two_workers_over_one": 1.7, "overhead": 0.12}, "transmission": {"kernel_us": 4.0}}
    met = {row["what"]: row["met"] for row in bench.wanted(runs, {})}
    assert met == {
        "transmission kernel, us for 25 motors": True,
        "two workers / one": True,
        "vector layer over a plain loop": False,
    }


def test_peers_that_are_not_installed_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "PEERS_PYTHON", tmp_path / "none")
    with pytest.raises(bench.BenchError, match="do: make bench-peers"):
        bench.measure(seconds=1.0, repeats=1, peers=True, say=print)


def test_a_run_that_fails_is_told_with_its_last_words():
    with pytest.raises(bench.BenchError, match=r"(?s)sim\.bench coffee 1 failed: .*KeyError: 'coffee'"):
        bench._run([sys.executable, "-m", "sim.bench", "coffee", "1"])
