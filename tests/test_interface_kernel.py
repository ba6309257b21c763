"""The compiled observation and command are the contract's own, for every task and every term."""

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from robot.contract import OBSERVATION_TERMS, ContractError, Interface, Term
from robot.description import load
from robot.errors import NotFiniteError, UnknownNameError
from sim.interface_kernel import CompiledInterface
from sim.ranges import sizes_of
from sim.readings import Readings
from sim.tasks import TASKS, find

MODEL = load("hand22")
READINGS = Readings.of(sizes_of(MODEL, tracked=True) | {"imu_gyro_rad_s": 3, "imu_quat_xyzw": 4})
# Elements of each term, and its frame, where neither is one number per joint
OTHERS = {
    "motor_position": (25, "motor"),
    "motor_current": (25, "motor"),
    "tip_position": (15, "palm"),
    "tip_force": (5, "tip"),
    "base_gyro": (3, "base"),
    "projected_gravity": (3, "base"),
    "gait_phase": (2, "clock"),
    "goal": (15, "palm"),
    "goal_position": (15, "palm"),
    "goal_error": (15, "palm"),
    "object_position": (3, "base"),
    "object_rotation": (6, "base"),
    "object_turn_to_goal": (6, "base"),
    "object_goal_error": (15, "base"),
    "previous_action": (22, "joint_order"),
}


def term(name: str, history: int) -> Term:
    n, frame = OTHERS.get(name, (25, "joint"))
    known = {"joint": MODEL.joint_names, "motor": MODEL.motor_names}
    elements = known.get(frame, tuple(map(str, range(n)))) * history
    size = len(elements)
    low, high = (-99.0,) * size, (99.0,) * size
    return Term(name=name, elements=elements, unit="1", frame=frame, low=low, high=high, history=history, period_s=0.8)


def contract_of(*terms: Term):
    goal = tuple(map(str, range(4 if any(t.name == "object_turn_to_goal" for t in terms) else 15)))
    contract = find("flexor/HandRotateCube-v0")(MODEL).contract()
    return msgspec.structs.replace(contract, observation=terms, goal=goal, goal_unit="m", goal_frame="palm")


def moment(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Readings and targets."""
    said = rng.uniform(-1.0, 1.0, READINGS.size)
    for quat in (said[READINGS.slices["imu_quat_xyzw"]], said[READINGS.slices["object_pose"]][3:]):
        quat /= np.linalg.norm(quat)
    return said, rng.uniform(-1.0, 1.0, 25)


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("name", OBSERVATION_TERMS)
def test_every_term_is_what_the_interface_observes_over_an_episode_with_and_without_a_history(name, history):
    before = "motor_current" if name != "motor_current" else "joint_position"
    interface = Interface(contract_of(term(before, 1), term(name, history)), MODEL)
    compiled, rng = CompiledInterface(interface, READINGS), np.random.default_rng(0)
    goals = len(interface.contract.goal)
    for _ in range(2):  # the second episode remembers nothing of the first
        action, memory = np.zeros(22), interface.memory(rng.uniform(-1.0, 1.0, goals))
        for step in range(5):
            said, target = moment(rng)
            state = READINGS.state(said, 0.0, target)
            seen = compiled.observe(said, target, memory.goal, action, memory.time_s, first=step == 0)
            np.testing.assert_array_almost_equal_nulp(seen, interface.observe(state, memory), 2)
            action = rng.uniform(-1.0, 1.0, 22)
            memory = interface.remember(memory, state, action, rng.uniform(-1.0, 1.0, goals))


def test_a_term_that_is_not_compiled_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(OBSERVATION_TERMS, "weather", lambda *_: np.zeros(25))
    with pytest.raises(UnknownNameError, match="compiled observation term"):
        CompiledInterface(Interface(contract_of(term("weather", 1)), MODEL), READINGS)


def test_a_reading_that_is_not_finite_and_a_goal_of_another_shape_are_refused():
    compiled = CompiledInterface(Interface(contract_of(term("joint_position", 1)), MODEL), READINGS)
    said, target = moment(np.random.default_rng(0))
    said[3] = np.nan
    with pytest.raises(NotFiniteError, match=f"joint_position.{MODEL.joint_names[3]}"):
        compiled.observe(said, target, np.zeros(15), np.zeros(22), 0.0, first=True)
    with pytest.raises(ContractError, match="goal must have shape"):
        compiled.observe(said, target, np.zeros(14), np.zeros(22), 0.0, first=True)


def test_an_action_is_clipped_and_one_that_cannot_be_is_none():
    compiled = CompiledInterface(Interface(contract_of(term("joint_position", 1)), MODEL), READINGS)
    for last, fine in ((1.0, True), (1.0 + 5e-7, True), (-1.1, False), (np.nan, False), (np.inf, False)):
        action = np.append(np.linspace(-1.0, 0.9, 21), last)
        clipped = compiled.clipped(action, 1.0 + 1e-6)
        assert (clipped is not None) == fine
        if clipped is not None:
            np.testing.assert_array_equal(clipped, np.clip(action, -1.0, 1.0))


@pytest.mark.parametrize("env_id", TASKS)
def test_an_environment_observes_and_commands_what_its_contract_says(env_id):
    env: Any = gymnasium.make(env_id, engine="mujoco").unwrapped
    observation, _ = env.reset(seed=0)
    interface, rng = env.interface, np.random.default_rng(0)
    memory = interface.memory(env.task.goal)
    for _ in range(5):
        np.testing.assert_array_almost_equal_nulp(observation, interface.observe(env.measured, memory), 2)
        action, seen = rng.uniform(-1.0, 1.0, env.action_space.shape), env.measured
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(env.state.target_rad, interface.command(action, seen).target_rad)
        memory = interface.remember(memory, seen, action, env.task.goal)
    env.close()
