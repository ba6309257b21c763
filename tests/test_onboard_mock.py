"""The mock robot and the report writer: small parts that everything else leans on."""

import json
import math
from dataclasses import fields

import numpy as np
import pytest

from robot import report
from robot.description import load
from robot.errors import NotFiniteError
from robot.mock import LAG_S, MockBackend, MockReach, reach_contract
from robot.state import Command, CommandError, RobotState

HAND = load("hand22")
N = len(HAND.joints)


def rng():
    return np.random.default_rng(0)


def test_joints_follow_their_targets_with_the_stated_lag():
    backend = MockBackend(HAND, control_hz=1000.0)
    start = backend.reset(None, rng()).q_rad
    target = 0.5 * (start + HAND.upper_rad)
    for _ in range(round(LAG_S * 1000.0)):
        state = backend.step(Command(target_rad=target))
    np.testing.assert_allclose(
        state.q_rad - start, (1.0 - math.exp(-1.0)) * (target - start), atol=5e-3
    )  # one encoder count, and half a millisecond for the target to get there
    assert state.time_s == pytest.approx(LAG_S)


def test_a_target_is_moved_evenly_over_the_control_period_as_the_servos_of_the_simulations_move_theirs():
    backend, steps = MockBackend(HAND, control_hz=25.0), 10_000
    backend.reset(None, rng())
    start, dt_s = HAND.home_rad, 0.04 / steps
    targets = [start + share * (HAND.upper_rad - start) for share in (0.5, 0.2)]
    q, before = start, start
    for target in targets:
        state = backend.step(Command(target_rad=target))
        for k in range(steps):  # the same with a target for each moment
            q = q + dt_s / LAG_S * (before + (k + 0.5) / steps * (target - before) - q)
        before = target
        np.testing.assert_allclose(state.q_rad, q, atol=1e-3)  # half an encoder count


def test_equal_commands_give_equal_states_and_arrays_are_fresh():
    runs = []
    for _ in range(2):
        backend = MockBackend(HAND)
        states = [backend.reset(None, rng())]
        states += [backend.step(Command(target_rad=HAND.home_rad + 0.01 * k)) for k in range(10)]
        runs.append(states)
    for a, b in zip(*runs):
        for f in fields(RobotState):
            np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name))
    first = runs[0][0]
    kept = first.q_rad.copy()
    first.target_rad[:] = 99.0  # a caller's own business
    backend = MockBackend(HAND)
    state = backend.reset(None, rng())
    state.q_rad[:] = 99.0
    np.testing.assert_array_equal(backend.step(Command(target_rad=HAND.home_rad)).q_rad, kept)


def test_the_mock_fails_where_a_robot_fails_and_does_nothing_then():
    backend = MockBackend(HAND)
    backend.reset(None, rng())
    with pytest.raises(CommandError):
        backend.step(Command(target_rad=np.zeros(N + 1)))
    with pytest.raises(NotFiniteError, match=HAND.joint_names[0]):
        backend.step(Command(target_rad=np.full(N, np.nan)))
    assert backend.step(Command(target_rad=HAND.home_rad)).time_s == pytest.approx(0.04)
    backend.close()
    backend.close()


def test_goals_can_be_reached_and_then_count_as_success():
    side = MockReach(HAND, 25.0)
    _, feedback = side.reset(4)
    again = MockReach(HAND, 25.0).reset(4)[1]
    np.testing.assert_array_equal(feedback.goal, again.goal)
    assert not feedback.success and not feedback.over
    posture = np.random.default_rng(4).random(N)  # what reset drew
    reached = HAND.home_rad + 0.5 * posture * (HAND.upper_rad - HAND.home_rad)
    for _ in range(25):
        _, feedback = side.step(Command(target_rad=reached))
    assert feedback.success and feedback.reward_terms[0] > -0.002


def test_the_mocks_contract_fits_its_robot():
    contract = reach_contract(HAND, control_hz=50.0)
    contract.validate()
    interface = contract.bind(HAND)
    state, feedback = MockReach(HAND, 50.0).reset(0)
    assert interface.observe(state, interface.memory(feedback.goal)).shape == (contract.observation_size,)


def test_a_report_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "r.json"
    report.write_json(path, command="x", seed=3, results={"a": np.float32(0.5), "b": np.arange(2), "c": path})
    data = json.loads(path.read_text())
    assert data["results"] == {"a": 0.5, "b": [0, 1], "c": str(path)} and data["seed"] == 3
    assert set(data["machine"]) == {"cpu", "cores", "python", "platform"} and data["version"]
    before = path.read_text()
    for bad in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            report.write_json(path, command="x", seed=3, results=bad)
    assert path.read_text() == before and [p.name for p in path.parent.iterdir()] == ["r.json"]
