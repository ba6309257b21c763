"""The laws of the tendon transmission, each against a calculation by hand where there is one."""

from dataclasses import replace
from math import exp, radians

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_samples import finger2, lever

import sim.engines
from robot.description import load
from robot.description.actuators import COPPER_PER_K
from robot.description.model import Motor
from robot.description.motors import LARGE, SMALL
from robot.kinematics import TipKinematics
from robot.state import Command
from robot.transmission import Parameters, TransmissionState, step
from robot.transmission.parameters import AMBIENT_C, ENERGY_TERMS
from sim.engines.robot import DivergedError
from sim.transmission_kernel import LayoutError, TransmissionKernel
from sim.world import Variation

HAND = load("hand22")
SUBSTEP_S = 0.005  # what the engines use
LOCKED = 1e9  # a rotor so heavy that its spool does not turn [kg m2]


def rest(p: Parameters, q: np.ndarray) -> TransmissionState:
    return TransmissionState.at_rest(p, q)


def drawn_out(
    p: Parameters, rng: np.random.Generator, fastest: float = 30.0
) -> tuple[TransmissionState, np.ndarray, np.ndarray, np.ndarray]:
    """A state far from rest, with joint angles and speeds and targets beyond what the robot can follow."""
    q = rng.uniform(p.lower - 0.3, p.upper + 0.3)
    state = rest(p, rng.uniform(p.lower, p.upper))
    state.spool_rad_s = rng.uniform(-fastest, fastest, p.n_motors)
    state.winding_c = rng.uniform(20.0, 130.0, p.n_motors)
    return (
        state,
        q,
        rng.uniform(-fastest, fastest, p.n_joints),
        p.spool_target(rng.uniform(p.lower - 1.0, p.upper + 1.0), q),
    )


# 1. A cable pulls or is slack.


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_tension_is_below_zero_whatever_the_state(seed):
    p = Parameters.of(HAND)
    state, q, qd, target = drawn_out(p, np.random.default_rng(seed))
    for _ in range(3):
        step(p, state, q, qd, target, SUBSTEP_S)
        assert min(state.tension_spool_n.min(), state.tension_joint_n.min()) >= 0.0
        assert (state.tension_joint_n + state.damping_n).min() >= 0.0
        assert (state.tension_spool_n + state.damping_n).min() >= 0.0


def test_a_slack_cable_carries_nothing_and_a_taut_one_does():
    p = Parameters.of(lever())
    state = rest(p, np.zeros(1))
    torque = step(
        p, state, np.array([0.2]), np.zeros(1), np.zeros(1), 1e-6
    )  # bent by force: the flexor's path is shorter now
    assert state.tension_joint_n[0] == 0.0
    assert state.tension_joint_n[1] > 4.0
    assert torque[0] == pytest.approx(-0.010 * state.tension_joint_n[1])


# 2. Guides: Euler's rope.


def test_tension_ratio_is_exp_mu_wrap_while_the_cable_slides_either_way():
    p = Parameters.of(lever(friction=0.1, wrap_rad=2.0))
    state, q = rest(p, np.zeros(1)), np.zeros(1)
    for way in (1.0, -1.0):
        for k in range(200):
            step(p, state, q, np.zeros(1), np.array([way * 0.3 * min(1.0, k / 150)]), SUBSTEP_S)
        pulling, paying = (0, 1) if way > 0 else (1, 0)
        assert state.tension_spool_n[pulling] / state.tension_joint_n[pulling] == pytest.approx(
            exp(0.1 * 2.0), rel=1e-9
        )
        assert state.tension_spool_n[paying] <= state.tension_joint_n[paying]


def test_a_joint_adds_its_bend_to_the_wrap():
    bent = replace(lever(friction=0.1, wrap_rad=2.0).tendons[0].arms[0], wrap=1.0)
    p = Parameters.of(lever(friction=0.1, wrap_rad=2.0, arms=(bent,)))
    q = np.array([0.5])
    state = rest(p, q)
    for k in range(200):
        step(p, state, q, np.zeros(1), q + 0.2 * min(1.0, k / 150), SUBSTEP_S)
    assert state.tension_spool_n[0] / state.tension_joint_n[0] == pytest.approx(exp(0.1 * 2.5), rel=1e-6)


def hold_against(p: Parameters, load_nm: float, spool_rad: np.ndarray) -> np.ndarray:
    """Joint angle at each spool angle, the joint in equilibrium with its cables and a constant load: quasi-static, no speeds."""
    p = replace(p, inertia=np.full_like(p.inertia, LOCKED))
    state, q, found = rest(p, np.zeros(1)), np.zeros(1), []
    slope = float(
        (p.stiffness_joint * p.arm_m**2).sum()
    )  # steeper than the equilibrium's, so the fixed point comes from one side
    for angle in spool_rad:
        state.spool_rad = np.array([angle])
        for _ in range(400):
            torque = step(p, state, q, np.zeros(1), np.array([angle]), 1e-9)
            q = q + (torque - load_nm) / slope
            if abs(torque[0] - load_nm) < 1e-6:
                break
        else:
            raise AssertionError("no equilibrium")
        found.append(float(q[0]))
    return np.array(found)


def turning_back(friction: float) -> float:
    """How far the spool turns back, in metres of cable, before a joint under 0.5 N m follows."""
    p = Parameters.of(lever(friction=friction, wrap_rad=2.0))
    spool = np.concatenate([np.linspace(0.0, 0.6, 25), 0.6 - np.linspace(0.0, 0.3, 121)[1:]])
    q = hold_against(p, 0.5, spool)
    top = q[24]
    moved = np.flatnonzero(q[24:] < top - 1e-3)[0]
    return 0.010 * float(0.6 - spool[24 + moved])


def test_reversal_shows_a_dead_band_as_wide_as_the_tension_must_fall():
    load_n = 0.5 / 0.010  # 50 N at the joint, so the extensor is slack and the flexor alone carries
    band_m = load_n * (exp(0.2) - exp(-0.2)) / (30e3 * 3.0)  # the spool's side of the cable is three times as stiff
    assert turning_back(0.1) == pytest.approx(band_m, abs=4e-5)  # one and a half of the spool's 25 um steps


def test_without_friction_a_reversal_has_no_dead_band():
    assert turning_back(0.0) < 4e-5


# 3. Energy.


def imbalance(h_s: float, *, seconds: float = 0.6) -> float:
    """Share of the electrical energy that the ledger cannot place after violent random motion of all 25 motors."""
    p = Parameters.of(HAND)
    kernel, rng = TransmissionKernel(p, h_s), np.random.default_rng(0)
    q, qd, target = np.array(HAND.home_rad), np.zeros(25), np.array(HAND.home_rad)
    kernel.reset(rest(p, q))
    inertia = HAND.joint_inertia_kg_m2 + np.where(np.arange(25) < 3, 1e-2, 2e-4)  # links, roughly
    per_command = round(0.04 / h_s)
    for i in range(round(seconds / h_s)):
        if i % per_command == 0:
            target = np.clip(target + rng.uniform(-0.3, 0.3, 25), HAND.lower_rad, HAND.upper_rad)
            kernel.target_rad[:] = p.spool_target(target, q)
        kernel.q_rad[:], kernel.qd_rad_s[:] = q, qd
        kernel.step()
        qd = qd + h_s * kernel.torque_nm / inertia
        q = q + h_s * qd
    ledger = dict(zip(ENERGY_TERMS, kernel.state.energy_j))
    assert all(ledger[name] > 0.0 for name in ("electrical", "copper", "gear", "friction", "viscous"))
    return (
        abs(ledger["electrical"] - sum(v for name, v in ledger.items() if name != "electrical")) / ledger["electrical"]
    )


def test_electrical_energy_is_heat_friction_work_and_storage_and_better_so_with_a_smaller_substep():
    coarse, middle, fine = imbalance(SUBSTEP_S), imbalance(0.001), imbalance(0.0001)
    assert coarse < 0.25  # the substep resolves neither the rotor's 3 ms nor the cable's 5 ms
    assert middle < 0.10
    assert fine < 0.01
    assert fine < middle < coarse


@pytest.mark.parametrize("engine", sim.engines.ENGINES)
def test_a_fist_once_a_second_takes_what_it_loses_at_the_very_substep_of_the_engines(engine):
    """Cables stretch by 0.1 mm and run 0.2 mm in a substep: spool and joint must be looked at at one and the same time."""
    flexing = [i for i, name in enumerate(HAND.joint_names) if name.endswith(("_mcp", "_pip", "_dip"))]
    robot = sim.engines.make(engine, HAND)
    try:
        robot.reset(None, np.random.default_rng(0))
        target = np.array(HAND.home_rad)
        for k in range(76):
            if k == 26:
                before = robot.kernel.state.energy_j
            target[flexing] = (0.4 - 0.4 * np.cos(2.0 * np.pi * k / 25.0)) * HAND.upper_rad[flexing]
            robot.step(Command(target_rad=target))
        spent = dict(zip(ENERGY_TERMS, robot.kernel.state.energy_j - before))
    finally:
        robot.close()
    placed = sum(value for name, value in spent.items() if name != "electrical")
    assert spent["electrical"] > 2.0  # joules in two seconds
    assert placed == pytest.approx(spent["electrical"], rel=0.03)


def test_a_spool_that_is_taken_along_by_its_joint_feels_no_drag_from_the_substep():
    p = replace(Parameters.of(lever(friction=0.0)), servo_stiffness=np.full(1, 1e-9), servo_damping=np.zeros(1))
    state, speed, angle = rest(p, np.zeros(1)), 2.0, np.zeros(1)
    for _ in range(400):
        step(p, state, angle, np.array([speed]), angle, SUBSTEP_S)
        angle = angle + SUBSTEP_S * speed
    assert state.spool_rad_s[0] == pytest.approx(speed, rel=1e-3)
    drag_nm = 0.010 * (state.tension_spool_n[1] - state.tension_spool_n[0])
    # With cables taken to pull at a joint that stands still it would be 2 h k1 rho^2 speed = 0.18 N m, a twelfth of stall.
    assert abs(drag_nm) < 1e-3


def peak_speed(p: Parameters, episode: int) -> float:
    """Fastest joint while every joint gets a new random target each step for one second."""
    hand = sim.engines.make("pybullet", HAND, parameters=p)
    rng, target, peak = np.random.default_rng(episode), np.array(HAND.home_rad), 0.0
    try:
        hand.reset(None, rng)
        for _ in range(25):
            target = np.clip(target + rng.uniform(-0.3, 0.3, 25), HAND.lower_rad, HAND.upper_rad)
            peak = max(peak, float(np.abs(hand.step(Command(target_rad=target)).qd_rad_s).max()))
    except DivergedError:
        return float("inf")
    finally:
        hand.close()
    return peak


def test_stops_do_not_throw_joints_back_faster_than_they_came():
    p = Parameters.of(HAND)
    p = replace(
        p, stiffness_spool=1.25 * p.stiffness_spool, stiffness_joint=1.25 * p.stiffness_joint
    )  # the stiffest drawn in training
    more = replace(
        p, limit_damping=3.0 * p.limit_damping
    )  # h^2 K / J + 2 h C / J passes 4: a stop that feeds the joint
    episodes = (1, 8, 19)
    assert max(peak_speed(p, k) for k in episodes) < 40.0
    assert max(peak_speed(more, k) for k in episodes) > 60.0  # one of them diverges


# 4. Stiffness.


def test_a_locked_motor_under_5_n_at_the_tip_sags_by_force_over_stiffness():
    p = replace(Parameters.of(lever(friction=0.0)), inertia=np.full(1, LOCKED))
    load_nm = 5.0 * 0.09
    # Two cables of 30 kN/m at 10 mm until the extensor is slack at 4 N, then one.
    both, one = 2.0 * 30e3 * 0.01**2, 30e3 * 0.01**2
    slack_at_nm = 2.0 * 4.0 * 0.01
    expected = -(slack_at_nm / both + (load_nm - slack_at_nm) / one)
    state, q = rest(p, np.zeros(1)), np.zeros(1)
    for _ in range(300):
        torque = step(p, state, q, np.zeros(1), np.zeros(1), SUBSTEP_S)
        q = q + (torque - load_nm) / (4.0 * both)
    assert q[0] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(-radians(7.83), abs=2e-4)  # what an unlocked calculation on paper gives


def test_a_whole_finger_of_hand22_sags_as_its_tendons_stiffness_matrix_says():
    p = replace(Parameters.of(HAND).without_friction(), inertia=np.full(25, LOCKED))
    q0 = np.array(HAND.home_rad)
    tips = TipKinematics(HAND)
    push_n = np.array([0.0, 0.0, 0.2])  # light, so that no cable goes slack and the law is linear
    joints = [HAND.index(f"index_{part}") for part in ("abduction", "mcp", "pip", "dip")]
    arms = p.arms(q0)
    series = p.stiffness_spool * p.stiffness_joint / (p.stiffness_spool + p.stiffness_joint)
    stiffness = (arms.T @ (series[:, None] * arms))[np.ix_(joints, joints)]
    load = (tips.jacobian(q0)[HAND.tip_names.index("index")].T @ push_n)[joints]
    expected = np.linalg.solve(stiffness, load)

    def settled(load_nm: np.ndarray) -> np.ndarray:
        state, q = rest(p, q0), q0.copy()
        for _ in range(60):
            torque = step(p, state, q, np.zeros(25), p.spool_target(q0, q0), SUBSTEP_S)[joints]
            q[joints] += np.linalg.solve(1.5 * stiffness, torque + load_nm)
        return q[joints]

    assert settled(load) - settled(np.zeros(4)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert np.abs(expected).max() > 1e-3


# 5. Motor: current, voltage, heat.


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_current_limit_and_bus_voltage_hold_whatever_the_state(seed):
    p = Parameters.of(HAND)
    rng = np.random.default_rng(seed)
    _, _, qd, target = drawn_out(p, rng, fastest=5.0)
    q = rng.uniform(p.lower, p.upper)
    state = rest(p, q)
    state.spool_rad_s, state.winding_c = rng.uniform(-10.0, 10.0, 25), rng.uniform(20.0, 130.0, 25)
    for _ in range(3):
        hot = state.winding_c.copy()
        step(p, state, q, qd, target, SUBSTEP_S)
        derate = np.clip((p.max_winding_c - hot) / (p.max_winding_c - p.derate_from_c), 0.0, 1.0)
        ohm = p.resistance * (1.0 + COPPER_PER_K * (hot - AMBIENT_C))
        drives = state.current_a * state.spool_rad_s >= 0.0
        volts = ohm * state.current_a + p.torque_per_amp * state.spool_rad_s
        below_no_load = np.abs(state.spool_rad_s) <= p.bus_v / p.torque_per_amp
        # A spool that is pulled faster than it can run feeds the bus through the bridge's diodes, which know no limit.
        assert below_no_load.sum() > 12
        assert (np.abs(state.current_a) <= p.peak_current * derate * (1.0 + 1e-9))[below_no_load].all()
        assert (np.abs(volts)[drives & below_no_load] <= p.bus_v[0] * (1.0 + 1e-9)).all()


def test_an_unloaded_spool_reaches_its_no_load_speed_and_not_more():
    p = Parameters.of(lever(stiffness_n_m=1e-3, pretension_n=0.0, damping_n_s_m=0.0, servo_damping_n_s_m=1e-3))
    state = rest(p, np.zeros(1))
    for _ in range(100):
        step(p, state, np.zeros(1), np.zeros(1), state.spool_rad + 1e3, SUBSTEP_S)
    assert state.spool_rad_s[0] == pytest.approx(24.0 / p.torque_per_amp[0], rel=1e-3)
    assert state.spool_rad_s[0] == pytest.approx(0.150 / 0.010, rel=1e-3)  # 150 mm/s of cable on a 10 mm spool


def held(tension_n: float, minutes: float, motor: Motor = SMALL) -> tuple[TransmissionState, Parameters]:
    """A motor that holds a cable at a fixed joint; without friction the spool's tension is the joint's."""
    p = Parameters.of(lever(friction=0.0, pretension_n=0.0, motor=motor))
    kernel = TransmissionKernel(p, SUBSTEP_S)
    stretch_rad = tension_n / 30e3 / 0.010
    kernel.target_rad[:] = stretch_rad + tension_n * 0.010 / p.servo_stiffness
    for _ in range(round(minutes * 60 / SUBSTEP_S)):
        kernel.step()
    return kernel.state, p


def test_heat_rises_to_what_two_thermal_resistances_say():
    state, p = held(40.0, 90.0)
    assert state.tension_spool_n[0] == pytest.approx(40.0, rel=1e-3)
    current = 40.0 * 0.010 / (p.torque_per_amp[0] * p.efficiency[0])
    power_25 = current**2 * p.resistance[0]
    path = p.winding_k_w[0] + p.case_k_w[0]
    rise = path * power_25 / (1.0 - COPPER_PER_K * path * power_25)  # copper's resistance rises with the heat it makes
    assert state.winding_c[0] - AMBIENT_C == pytest.approx(rise, rel=1e-3)
    assert state.case_c[0] - AMBIENT_C == pytest.approx(rise * p.case_k_w[0] / path, rel=1e-3)


def test_a_motor_that_is_asked_for_too_much_derates_and_stays_below_its_limit():
    early, p = held(110.0, 0.05)
    late, _ = held(110.0, 60.0)
    assert early.tension_spool_n[0] == pytest.approx(110.0, rel=0.01)
    assert p.derate_from_c[0] < late.winding_c[0] < p.max_winding_c[0]
    assert late.tension_spool_n[0] < 0.8 * early.tension_spool_n[0]
    assert late.current_a[0] < 0.7 * p.peak_current[0]


@pytest.mark.parametrize("motor, tension_n", [(SMALL, 65.0), (LARGE, 190.0)])
def test_a_motor_holds_its_published_continuous_load_for_ever_without_being_cut(motor, tension_n):
    late, p = held(tension_n, 60.0, motor)
    assert late.tension_spool_n[0] == pytest.approx(tension_n, rel=1e-3)
    assert p.derate_from_c[0] - 5.0 < late.winding_c[0] < p.derate_from_c[0]  # and not by much


# 6. The wrist, in the engines.


def move_wrist(engine: str, *, compensated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Extend the wrist by 30 degrees in one second and wait two; the change of all joints and of the tips in the palm."""
    hand = sim.engines.make(engine, HAND)
    hand.vary(Variation(robot_friction=0.0))  # the fingers touch as they curl; this is about their cables
    try:
        state = hand.reset(None, np.random.default_rng(0))
        target = np.array(HAND.home_rad)
        for _ in range(20):
            state = hand.step(Command(target_rad=target))
        tips, before = TipKinematics(HAND), state.q_rad
        if not compensated:  # the drives do not know of the wrist; the cables do
            p = hand.kernel.parameters
            unaware = replace(p, arm_m=np.where(p.arm_by_encoder, 0.0, p.arm_m))
            hand.kernel.shafts = lambda target_rad: unaware.spool_target(target_rad, hand.kernel.q_rad)
        for i in range(75):
            target[HAND.index("wrist_flexion")] = -radians(30.0) * min(1.0, (i + 1) / 25)
            state = hand.step(Command(target_rad=target))
        return np.degrees(state.q_rad - before), tips.positions(state.q_rad) - tips.positions(before)
    finally:
        hand.close()


@pytest.mark.parametrize("engine", sim.engines.ENGINES)
def test_30_degrees_of_wrist_move_uncompensated_fingers_as_the_routing_says(engine):
    moved_deg, _ = move_wrist(engine, compensated=False)
    wrist = -moved_deg[HAND.index("wrist_flexion")]
    assert wrist == pytest.approx(30.0, abs=1.0)
    for finger in ("index", "middle", "ring"):
        mcp, pip = moved_deg[HAND.index(f"{finger}_mcp")], moved_deg[HAND.index(f"{finger}_pip")]
        assert 35.0 < mcp < 50.0
        assert mcp == pytest.approx(wrist * 14.0 / 10.0, abs=3.0)  # arms at the wrist and at the joint
        assert 12.0 * -wrist + 8.0 * mcp + 8.0 * pip == pytest.approx(
            0.0, abs=8.0 * 3.0
        )  # the PIP tendon keeps its length


@pytest.mark.parametrize("engine", sim.engines.ENGINES)
def test_30_degrees_of_wrist_move_compensated_fingertips_by_less_than_2_mm(engine):
    moved_deg, moved_m = move_wrist(engine, compensated=True)
    assert -moved_deg[HAND.index("wrist_flexion")] == pytest.approx(30.0, abs=1.0)
    assert np.linalg.norm(moved_m, axis=1).max() < 0.002


# 7. Bookkeeping.


def test_torque_is_the_transpose_of_the_arms_times_tension_so_tendons_neither_create_nor_lose_power():
    p = Parameters.of(finger2()).without_friction()
    rng = np.random.default_rng(3)
    for _ in range(50):
        state, q, qd, target = drawn_out(p, rng)
        q = np.clip(q, p.lower, p.upper)
        torque = step(p, state, q, qd, target, SUBSTEP_S)
        cables = np.tile([1.0, -1.0], 2) * (state.tension_joint_n + state.damping_n)
        assert torque @ qd == pytest.approx(cables @ (p.arms(q) @ qd), rel=1e-9, abs=1e-12)


def test_moment_arms_are_the_slope_of_the_excursion():
    arms = (replace(lever().tendons[0].arms[0], flexor_slope_m=0.003, extensor_slope_m=-0.002),)
    p = Parameters.of(lever(arms=arms))
    q, d = np.array([0.7]), 1e-6
    slope = (p.excursion(q + d) - p.excursion(q - d)) / (2 * d)
    assert p.arms(q)[:, 0] == pytest.approx(slope, rel=1e-8)


def test_a_drive_that_interpolates_moves_its_target_before_each_substep_acts_on_it():
    p = Parameters.of(finger2())
    ramp, jump = TransmissionKernel(p, SUBSTEP_S), TransmissionKernel(p, SUBSTEP_S)
    ramp.target_step_rad[:] = 0.1
    for k in range(4):
        jump.target_rad[:] = 0.1 * (k + 1)
        for kernel in (ramp, jump):
            kernel.step()
        assert ramp.torque_nm == pytest.approx(jump.torque_nm, rel=1e-12)
    assert ramp.target_rad == pytest.approx(np.full(p.n_motors, 0.4))


def test_a_tendon_whose_cables_pass_other_joints_is_refused_by_the_kernel():
    p = Parameters.of(finger2())
    swapped = p.arm_joint.copy()
    swapped[-2:] = swapped[-2:][::-1]
    with pytest.raises(LayoutError, match="must pass the same joints"):
        TransmissionKernel(replace(p, arm_joint=swapped), SUBSTEP_S)
