"""The contract survives its own file, refuses what contradicts itself or another robot, and means the same on both sides."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from robot_samples import finger2

from robot.contract import (
    OBSERVATION_TERMS,
    ActionTerm,
    Contract,
    ContractError,
    ContractMismatchError,
    Interface,
    Memory,
    Term,
)
from robot.errors import NotFiniteError, UnknownNameError
from robot.kinematics import TipKinematics
from robot.state import RobotState

MODEL = finger2()
JOINTS = MODEL.joint_names
TIP = tuple(f"finger.{axis}" for axis in "xyz")


def term(name: str, elements: tuple[str, ...], unit: str, frame: str) -> Term:
    return Term(
        name=name, elements=elements, unit=unit, frame=frame, low=(-1.0,) * len(elements), high=(1.0,) * len(elements)
    )


def contract(mode: str = "relative", **changes: object) -> Contract:
    given = dict(
        env_id="flexor/Test-v0",
        robot=MODEL.name,
        robot_sha256=MODEL.sha256,
        joint_names=JOINTS,
        home_rad=tuple(MODEL.home_rad.tolist()),
        control_hz=25.0,
        observation=(
            term("joint_position", JOINTS, "rad", "joint"),
            term("joint_velocity", JOINTS[::-1], "rad/s", "joint"),  # another order than the robot's, on purpose
            term("joint_target", JOINTS, "rad", "joint"),
            term("tracking_error", ("pip",), "rad", "joint"),
            term("tip_position", TIP, "m", "palm"),
            term("goal_error", TIP, "m", "palm"),
            term("tip_force", ("finger",), "N", "tip"),
            term("goal_position", TIP, "m", "palm"),
            term("previous_action", ("pip", "mcp"), "1", "action"),
            term("motor_position", JOINTS[::-1], "rad", "motor"),
            term("motor_current", ("pip",), "A", "motor"),
            term("base_gyro", ("x", "y", "z"), "rad/s", "base"),
            term("projected_gravity", ("x", "y", "z"), "1", "base"),
            msgspec.structs.replace(term("gait_phase", ("sin", "cos"), "1", "clock"), period_s=0.8),
            term("goal", TIP, "m", "palm"),
        ),
        action=ActionTerm(
            joints=("pip", "mcp"),
            mode=mode,  # type: ignore[arg-type]
            scale_rad=(0.2, 4e-4),
            offset_rad=(0.3, 0.1),
            lower_rad=(0.0, -0.2),
            upper_rad=(1.2, 1.1),
        ),
        goal=TIP,
        goal_unit="m",
        goal_frame="palm",
        motor_names=MODEL.motor_names,
        servo_stiffness_n_m=tuple(t.servo_stiffness_n_m for t in MODEL.tendons),
        servo_damping_n_s_m=tuple(t.servo_damping_n_s_m for t in MODEL.tendons),
        delay_range_s=(0.0, 0.02),
    )
    return Contract(**(given | changes))  # type: ignore[arg-type]


CONTRACT = contract()
numbers = st.floats(-2.0, 2.0)
pair = arrays(float, 2, elements=numbers)


def state(q=(0.1, 0.2), qd=(1.0, 2.0), target=(0.3, 0.5), force=(7.0,)) -> RobotState:
    return RobotState(
        time_s=0.0,
        q_rad=np.array(q),
        qd_rad_s=np.array(qd),
        target_rad=np.array(target),
        tip_force_n=np.array(force),
        motor_rad=np.array([5.0, 6.0]),
        motor_current_a=np.array([0.5, 0.7]),
        imu_gyro_rad_s=np.array([0.1, 0.2, 0.3]),
        imu_quat_xyzw=np.array([0.0, math.sin(0.25), 0.0, math.cos(0.25)]),  # half a radian nose down
    )


# The file


def test_json_keeps_every_bit_also_of_a_gain_of_4e_4():
    again = Contract.from_json(CONTRACT.to_json())
    assert again == CONTRACT
    assert again.action.scale_rad[1] == 4e-4
    assert again.sha256 == CONTRACT.sha256


@given(st.lists(st.floats(1e-12, 1e12), min_size=2, max_size=2))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_json_keeps_every_bit_of_any_number(gains):
    ours = contract(servo_stiffness_n_m=tuple(gains))
    assert Contract.from_json(ours.to_json()).servo_stiffness_n_m == tuple(gains)


@pytest.mark.parametrize(
    "changes", [{"control_hz": 50.0}, {"goal_unit": "mm"}, {"delay_range_s": (0.0, 0.021)}, {"env_id": "x"}]
)
def test_hash_changes_with_every_field(changes):
    assert contract(**changes).sha256 != CONTRACT.sha256


# Refusals


def altered(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(CONTRACT.to_json()) | changes)


REFUSED_TEXTS = {
    "no JSON": (b"{", "not a contract of schema 1"),
    "not text": (b"\xff\xfe\x00", "not a contract of schema 1"),
    "a list": (b"[]", "not a contract of schema 1: Expected `object`"),
    "a field missing": (CONTRACT.to_json().replace('"env_id"', '"env"').encode(), "not a contract of schema 1"),
    "a field nobody knows": (altered(colour="red"), "unknown field `colour`"),
    "a field of another type": (altered(control_hz="fast"), r"Expected `float`, got `str` - at `\$.control_hz`"),
    "nests without end": (b'{"x":' + b"[" * 100_000, "not a contract of schema 1"),
    "another schema": (altered(schema=2), "contract schema: expected 1, got 2; export the policy again"),
    "another quaternion order": (altered(quaternion_order="wxyz"), "Invalid enum value 'wxyz'"),
}


@pytest.mark.parametrize("case", REFUSED_TEXTS)
def test_a_text_that_is_no_contract_is_refused_with_the_place(case):
    text, message = REFUSED_TEXTS[case]
    with pytest.raises(ContractError, match=message):
        Contract.from_json(text)


def action(**changes: object) -> ActionTerm:
    return msgspec.structs.replace(CONTRACT.action, **changes)


def observing(**changes: object) -> tuple[Term, ...]:
    return (msgspec.structs.replace(CONTRACT.observation[0], **changes),)


REFUSED_CONTRACTS = {
    "rate of zero": (dict(control_hz=0.0), "control_hz must be 5 to 2000, got 0.0"),
    "rate that is no number": (dict(control_hz=math.nan), "control_hz must be 5 to 2000, got nan"),
    "home of another length": (dict(home_rad=(0.0,)), r"lengths disagree.*'home_rad': \(1, 2\)"),
    "scale of another length": (dict(action=action(scale_rad=(1.0,))), r"'action.scale_rad': \(1, 2\)"),
    "offset of another length": (dict(action=action(offset_rad=())), r"'action.offset_rad': \(0, 2\)"),
    "limits of another length": (dict(action=action(lower_rad=())), r"'action.lower_rad': \(0, 2\)"),
    "gains of another length": (dict(servo_stiffness_n_m=(1.0,)), r"'servo_stiffness_n_m': \(1, 2\)"),
    "bounds of another length": (dict(observation=observing(low=())), r"'joint_position.low': \(0, 2\)"),
    "unknown term": (
        dict(observation=observing(name="joint_postion")),
        "unknown observation term 'joint_postion'. Did you mean 'joint_position'",
    ),
    "unknown joint": (dict(action=action(joints=("pip", "dip"))), "unknown action joint 'dip'.*Known: mcp, pip"),
    "scale of zero": (
        dict(action=action(scale_rad=(0.0, 1.0))),
        r"action.scale_rad must be > 0 and at most 6.28319, got \(0.0, 1.0\)",
    ),
    "gain below zero": (dict(servo_stiffness_n_m=(-1.0, 1.0)), r"servo_stiffness_n_m must be > 0, got \(-1.0, 1.0\)"),
}


@pytest.mark.parametrize("case", REFUSED_CONTRACTS)
def test_a_contract_that_contradicts_itself_is_refused(case):
    changes, message = REFUSED_CONTRACTS[case]
    with pytest.raises((ContractError, UnknownNameError), match=message):
        contract(**changes).validate()


def test_binding_to_another_robot_lists_every_difference():
    softer = replace(MODEL.tendons[1], servo_stiffness_n_m=10.0e3, servo_damping_n_s_m=500.0)
    other = replace(
        MODEL,
        name="finger2b",
        joints=(MODEL.joints[0], replace(MODEL.joints[1], name="dip", home_rad=0.0)),
        tendons=(
            MODEL.tendons[0],
            replace(softer, name="dip", joint="dip", arms=(replace(softer.arms[0], joint="dip"), softer.arms[1])),
        ),
    )
    with pytest.raises(ContractMismatchError) as caught:
        CONTRACT.bind(other)
    message = str(caught.value)
    for difference in (
        "robot: contract 'finger2', robot 'finger2b'",
        "joint_names: contract 2 entries, [1] = 'pip', robot 2 entries, [1] = 'dip'",
        "home_rad: contract 2 entries, [1] = 0.349",
        "motor_names: contract 2 entries, [1] = 'pip', robot 2 entries, [1] = 'dip'",
        "servo_stiffness_n_m: contract 2 entries, [1] = 30000.0, robot 2 entries, [1] = 10000.0",
        "servo_damping_n_s_m: contract 2 entries, [1] = 800.0, robot 2 entries, [1] = 500.0",
        f"robot_sha256: contract '{MODEL.sha256}', robot '{other.sha256}'",
        "do: run it on 'finger2', or export it again for 'finger2b'",
    ):
        assert difference in message
    assert message.count("\n  ") == 8


def test_a_number_nobody_lists_is_still_seen_by_the_hash():
    other = replace(MODEL, links=(*MODEL.links[:2], replace(MODEL.links[2], mass_kg=0.021)))
    with pytest.raises(ContractMismatchError) as caught:
        CONTRACT.bind(other)
    assert str(caught.value).count("contract ") == 1
    assert "robot_sha256" in str(caught.value)


# Observing

OF_OBJECTS = {"object_position", "object_rotation", "object_turn_to_goal", "object_goal_error"}


def test_every_term_is_read_from_its_place_in_its_own_order():
    bound, goal = CONTRACT.bind(MODEL), np.array([0.01, 0.12, 0.03])
    s, memory = state(), Memory(goal=goal, previous_action=np.array([0.5, -0.5]), time_s=0.2)
    vector = bound.observe(s, memory)
    (tip,) = TipKinematics(MODEL).positions(s.q_rad)
    expected = {
        "joint_position": s.q_rad,
        "joint_velocity": s.qd_rad_s[::-1],
        "joint_target": s.target_rad,
        "tracking_error": [0.3],
        "tip_position": tip,
        "goal_error": goal - tip,
        "tip_force": [7.0],
        "goal_position": goal,
        "previous_action": [0.5, -0.5],
        "motor_position": [6.0, 5.0],
        "motor_current": [0.7],
        "base_gyro": [0.1, 0.2, 0.3],
        "projected_gravity": [math.sin(0.5), 0.0, -math.cos(0.5)],  # down is forward of the nose
        "gait_phase": [1.0, 0.0],  # a quarter of 0.8 s
        "goal": goal,
    }
    assert set(expected) | OF_OBJECTS == set(OBSERVATION_TERMS)
    assert vector.dtype == np.float32
    assert vector.shape == (CONTRACT.observation_size,)
    for name, where in CONTRACT.slices.items():
        assert vector[where] == pytest.approx(np.float32(expected[name]), abs=1e-7), name


def test_an_object_is_read_from_its_tracker_as_two_columns_of_its_matrix_and_the_turn_still_to_make():
    half = math.sqrt(0.5)
    quarter = np.array([0.0, 0.0, half, half])  # about z
    s = replace(state(), object_pose=np.array([0.1, 0.2, 0.3, *quarter]))

    columns, names = ("xx", "yx", "zx", "xy", "yy", "zy"), ("0", "1", "2", "3", "4", "5")

    def seen(name, goal, elements):
        made = contract(observation=(term(name, elements, "1", "base"),), goal=names[: len(goal)])
        return made.bind(MODEL).observe(s, Memory(goal=np.array(goal), previous_action=np.zeros(2)))

    assert seen("object_position", [], ("x", "y", "z")) == pytest.approx([0.1, 0.2, 0.3])
    assert seen("object_rotation", [], columns) == pytest.approx([0, 1, 0, -1, 0, 0], abs=1e-7)
    assert seen("object_turn_to_goal", quarter, columns) == pytest.approx([1, 0, 0, 0, 1, 0], abs=1e-7)  # it is there
    half_turn = seen("object_turn_to_goal", [0.0, 0.0, -half, half], columns)
    assert half_turn == pytest.approx([-1, 0, 0, 0, -1, 0], abs=1e-7)
    goals = [0.2, 0.2, 0.3, 0.1, 0.2, 0.5]  # two points of a path
    assert seen("object_goal_error", goals, names) == pytest.approx([0.1, 0, 0, 0, 0, 0.2], abs=1e-7)


def test_a_policy_that_needs_a_tracker_says_so_where_there_is_none():
    made = contract(observation=(term("object_position", ("x", "y", "z"), "m", "base"),)).bind(MODEL)
    with pytest.raises(
        ContractError, match=r"object_pose must have shape \(7,\), got \(0,\): this policy needs a pose"
    ):
        made.observe(state(), made.memory(np.zeros(3)))


def test_a_history_holds_the_newest_value_first_and_before_the_start_the_first():
    seen = ("mcp", "pip", "mcp", "pip", "mcp", "pip")
    past = msgspec.structs.replace(term("joint_position", seen, "rad", "joint"), history=3)
    bound = contract(observation=(past, term("joint_target", ("mcp",), "rad", "joint"))).bind(MODEL)
    memory = bound.memory(np.zeros(3))
    shown = []
    for k in range(4):
        s = state(q=(k, 10.0 + k))
        shown.append(bound.observe(s, memory)[:6].tolist())
        memory = bound.remember(memory, s, np.full(2, 9.0))
    assert shown == [[0, 10, 0, 10, 0, 10], [1, 11, 0, 10, 0, 10], [2, 12, 1, 11, 0, 10], [3, 13, 2, 12, 1, 11]]
    assert memory.time_s == pytest.approx(4 / 25.0)
    np.testing.assert_array_equal(memory.previous_action, [1.0, 1.0])  # clipped


def test_a_goal_is_exchanged_while_the_clock_goes_on():
    bound = CONTRACT.bind(MODEL)
    memory = bound.remember(bound.memory(np.zeros(3)), state(), np.zeros(2), np.ones(3))
    np.testing.assert_array_equal(memory.goal, 1.0)
    assert memory.time_s == 1.0 / 25.0
    with pytest.raises(ContractError, match=r"goal must have shape \(3,\), got \(2,\)"):
        bound.remember(memory, state(), np.zeros(2), np.zeros(2))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"history": 2}, r"previous_action.history must be >= 1 and divide 3 elements, got 2"),
        ({"history": 0}, r"previous_action.history must be >= 1"),
        ({"name": "gait_phase"}, r"gait_phase.period_s must be > 0, got 0.0"),
    ],
)
def test_a_history_or_a_clock_that_cannot_be_is_refused(changes, message):
    bad = msgspec.structs.replace(term("previous_action", TIP, "1", "action"), **changes)
    with pytest.raises(ContractError, match=message):
        contract(observation=(bad,)).validate()


def test_what_is_younger_than_the_first_policies_shows_in_the_file_only_where_it_is_set():
    text = CONTRACT.to_json()
    assert "history" not in text and "drive_" not in text and text.count("period_s") == 1
    geared = contract(drive_stiffness_nm_rad=(5.0,), drive_damping_nm_s_rad=(1.0,))
    assert Contract.from_json(contract().to_json()) == CONTRACT
    assert '"drive_stiffness_nm_rad":[5.0]' in geared.to_json()


@given(pair, pair, pair, arrays(float, 3, elements=numbers))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_observing_changes_nothing_and_repeats_bit_for_bit(q, qd, target, goal):
    bound, s = CONTRACT.bind(MODEL), state(q, qd, target)
    memory = bound.memory(goal)
    first = bound.observe(s, memory)
    assert (bound.observe(s, memory) == first).all()
    assert (s.q_rad == q).all()
    assert (memory.goal == goal).all()
    first[:] = 0.0
    assert (s.target_rad == target).all()  # the vector is the caller's own


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sensor_that_is_not_finite_is_named_before_anything_is_commanded(bad):
    bound = CONTRACT.bind(MODEL)
    with pytest.raises(NotFiniteError, match=r"observation must be finite, got \{'joint_velocity.pip'") as caught:
        bound.observe(state(qd=(0.0, bad)), bound.memory(np.zeros(3)))
    assert "joint_velocity.mcp" not in str(caught.value)


def test_a_goal_of_another_shape_is_refused():
    with pytest.raises(ContractError, match=r"goal must have shape \(3,\), got \(2,\)"):
        CONTRACT.bind(MODEL).memory(np.zeros(2))


# Commanding

actions = arrays(float, 2, elements=st.floats(-5.0, 5.0))


@given(actions, pair)
@settings(max_examples=200, deadline=None, derandomize=True)
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_a_command_is_the_scaled_action_clamped_to_the_contracts_range(mode, a, target):
    ours = contract(mode)
    bound, s = Interface(ours, MODEL), state(target=target)
    command = bound.command(a, s)
    pip, mcp = MODEL.index("pip"), MODEL.index("mcp")
    for joint, index, i in (("pip", pip, 0), ("mcp", mcp, 1)):
        base = ours.action.offset_rad[i] if mode == "absolute" else target[index]
        wanted = base + ours.action.scale_rad[i] * min(max(a[i], -1.0), 1.0)
        assert command.target_rad[index] == min(max(wanted, ours.action.lower_rad[i]), ours.action.upper_rad[i]), joint
    assert (bound.command(a, s).target_rad == command.target_rad).all()
    assert (s.target_rad == target).all()


@given(actions)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_clipping_an_action_twice_is_clipping_it_once(a):
    bound = CONTRACT.bind(MODEL)
    assert (bound.command(a, state()).target_rad == bound.command(np.clip(a, -1.0, 1.0), state()).target_rad).all()


def test_joints_that_the_policy_does_not_move_stay_at_home():
    only = ActionTerm(
        joints=("mcp",), mode="relative", scale_rad=(0.2,), offset_rad=(0.0,), lower_rad=(-0.2,), upper_rad=(1.1,)
    )
    bound = contract(action=only, observation=(term("joint_target", ("mcp",), "rad", "joint"),)).bind(MODEL)
    command = bound.command(np.ones(1), state())
    assert command.target_rad[MODEL.index("pip")] == MODEL.home_rad[MODEL.index("pip")]
    assert command.target_rad[MODEL.index("mcp")] == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_action_that_is_not_finite_is_refused_by_joint(bad):
    with pytest.raises(NotFiniteError, match=r"action must be finite, got \{'mcp': "):
        CONTRACT.bind(MODEL).command(np.array([0.0, bad]), state())


def test_an_action_of_another_shape_is_refused():
    with pytest.raises(ContractError, match=r"action must have shape \(2,\), got \(3,\)"):
        CONTRACT.bind(MODEL).command(np.zeros(3), state())
