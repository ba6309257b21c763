"""What a hand is said to do is what its transmission lets it do."""

import json
from dataclasses import replace

import numpy as np
import pytest

import flexor
from robot.description import load
from robot.description.actuators import COPPER_PER_K
from robot.errors import UnknownNameError
from robot.transmission import Parameters
from robot.transmission.parameters import AMBIENT_C
from sim import hand_bench

HAND = load("hand22")


def test_a_finger_with_half_the_current_pushes_half_as_hard_and_the_full_push_is_what_its_arms_give():
    full = Parameters.of(HAND)
    half = replace(full, peak_current=0.5 * full.peak_current)
    strong, weak = (hand_bench._push(HAND, "mujoco", "index", p) for p in (full, half))
    # About the MCP joint act three tendons at 10, 8 and 7 mm, about PIP two at 8 and 6: at 110 N each and levers of 0.085 and 0.045 m
    # along nearly straight bones no more than 32 and 34 N, and guides of 1.5 rad keep a tenth to a fifth of it.
    assert 22.0 < strong < 34.0
    assert weak == pytest.approx(0.5 * strong, rel=0.15)


def test_without_friction_a_posture_is_the_same_from_both_sides_and_with_friction_it_is_not():
    found = {}
    for name, p in (("real", Parameters.of(HAND)), ("smooth", Parameters.of(HAND).without_friction())):
        rows = hand_bench.precision(HAND, "mujoco", np.random.default_rng(0), p)
        found[name] = max(row["backlash_mm"] for row in rows.values())
    assert found["real"] > 0.5
    assert found["smooth"] < 0.25 * found["real"]


def test_heat_is_what_two_thermal_resistances_make_of_half_the_peak_current():
    heat = hand_bench.heat(HAND, minutes=30.0)  # the case of the large motor takes 140 s
    for name, motor in {tendon.motor.name: tendon.motor for tendon in HAND.tendons}.items():
        power = (0.5 * motor.peak_current_a) ** 2 * motor.resistance_ohm * (motor.winding_k_w + motor.case_k_w)
        assert heat[f"{name}_winding_c"] - AMBIENT_C == pytest.approx(power / (1.0 - COPPER_PER_K * power), rel=0.03)


def test_the_command_prints_every_finger_and_writes_the_figures(tmp_path, capsys):
    out = tmp_path / "hand.json"
    assert flexor.main(["bench", "hand", "--hand", "hand11", "--engine", "mujoco", "--json", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())["results"]
    assert [line.split()[0] for line in printed.splitlines()[3:8]] == ["thumb", "index", "middle", "ring", "little"]
    assert set(found["fingertip_force"]) == set(found["precision"]) == {"thumb", "index", "middle", "ring", "little"}
    for force in found["fingertip_force"].values():
        assert force["peak_n"] >= force["continuous_n"] - 0.5 > 1.0
    assert 0.05 < found["open_to_fist_s"] < 1.0
    assert found["hook"]["peak_n"] > 20.0
    assert found["watts"]["idle_w"] < found["watts"]["holding_w"]


def test_a_hand_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(UnknownNameError, match="hand22"):
        hand_bench.measure("body28", "mujoco", seed=0, say=print)
