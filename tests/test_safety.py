"""The filter between a policy and the motors: what can never get past it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot import safety
from robot.description import load
from robot.errors import NotFiniteError
from robot.safety import Fault, Mode, Watch, advance

HAND = load("hand22")
N = len(HAND.joints)
LIMITS = safety.Limits.of(HAND, 0.02)
ROUNDING = 1e-12  # previous + step, rounded once, against range and step of a few radians

anything = arrays(np.float64, N, elements=st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True))
inside = arrays(np.float64, N, elements=st.floats(0.0, 1.0)).map(
    lambda share: np.clip(HAND.lower_rad + share * (HAND.upper_rad - HAND.lower_rad), HAND.lower_rad, HAND.upper_rad)
)


def violations(target, previous) -> int:
    """How many joints of a filtered target break a limit."""
    outside = (target > LIMITS.upper_rad) | (target < LIMITS.lower_rad)
    fast = np.abs(target - previous) > LIMITS.max_step_rad + ROUNDING
    return int(np.count_nonzero(outside | fast | ~np.isfinite(target)))


@given(anything, inside)
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked_nothing_outside_the_limits_is_sent(target, previous):
    if np.isfinite(target).all():
        assert violations(safety.limit(target, previous, LIMITS).target_rad, previous) == 0
    else:
        with pytest.raises(NotFiniteError) as caught:
            safety.limit(target, previous, LIMITS)
        assert HAND.joint_names[int(np.flatnonzero(~np.isfinite(target))[0])] in str(caught.value)


def test_a_million_fuzzed_targets_break_no_limit():
    rng = np.random.default_rng(0)
    specials = np.array([5e-324, -5e-324, 1e-310, 0.0, -0.0, 1e308, -1e308, np.pi, np.nan, np.inf, -np.inf])
    rounds = 1_000_000 // N
    refused = broken = 0
    previous = HAND.home_rad.copy()
    for _ in range(rounds):
        target = rng.normal(0.0, 10.0 ** rng.integers(-3, 4), N)
        odd = rng.random(N) < 0.02
        target[odd] = rng.choice(specials, int(odd.sum()))
        try:
            sent = safety.limit(target, previous, LIMITS).target_rad
        except NotFiniteError:
            refused += 1
            continue
        broken += violations(sent, previous)
        previous = sent
    assert broken == 0
    assert 0.05 * rounds < refused < 0.95 * rounds  # both ways were taken


def test_the_violation_counter_can_count():
    """Negative control of the two tests above."""
    assert violations(LIMITS.upper_rad + 1.0, LIMITS.upper_rad) == N
    assert violations(HAND.home_rad + 2.0 * LIMITS.max_step_rad, HAND.home_rad) == N


@given(inside)
@settings(deadline=None)
def test_the_filter_leaves_a_good_target_alone_and_is_idempotent(target):
    once = safety.limit(target, target, LIMITS)
    np.testing.assert_array_equal(once.target_rad, target)
    assert (once.slewed, once.clamped) == (0, 0)


def test_what_was_changed_is_counted():
    target = HAND.home_rad.copy()
    target[:3] += 10.0 * LIMITS.max_step_rad[:3]
    assert safety.limit(target, HAND.home_rad, LIMITS)[1:] == (3, 0)
    at_top = HAND.upper_rad.copy()
    target = at_top.copy()
    target[5] += 0.5 * LIMITS.max_step_rad[5]
    assert safety.limit(target, at_top, LIMITS)[1:] == (0, 1)


def test_arguments_are_not_changed():
    target, previous = HAND.upper_rad + 1.0, HAND.home_rad.copy()
    kept = target.copy(), previous.copy()
    safety.limit(target, previous, LIMITS)
    np.testing.assert_array_equal(target, kept[0])
    np.testing.assert_array_equal(previous, kept[1])


def test_damping_follows_the_joints_and_survives_a_dead_encoder():
    q = HAND.home_rad + 0.01
    q[2] = np.nan
    q[3] = HAND.upper_rad[3] + 1.0
    target = safety.damping_target(q, HAND.home_rad, LIMITS)
    assert target[2] == HAND.home_rad[2] and target[3] == HAND.upper_rad[3]
    assert target[4] == pytest.approx(HAND.home_rad[4] + 0.01)


@pytest.mark.parametrize("fault", list(Fault))
def test_any_fault_is_held_at_once_and_damped_in_the_next_period(fault):
    running = advance(Watch(), fault=None)
    assert running.mode is Mode.POLICY
    first = advance(running, fault=fault)
    second = advance(first, fault=None)  # even if it is gone again
    assert (first.mode, second.mode) == (Mode.HOLD, Mode.DAMPING)
    assert second.fault is fault
    assert advance(second, fault=None).mode is Mode.DAMPING


def test_only_an_operator_leads_out_of_damping():
    damping = Watch(mode=Mode.DAMPING, fault=Fault.STALE)
    assert advance(safety.rearm(damping), fault=None).mode is Mode.POLICY


@pytest.mark.parametrize("watch", [Watch(), Watch(mode=Mode.POLICY), Watch(mode=Mode.HOLD, fault=Fault.STALE)])
def test_the_emergency_stop_wins_over_everything(watch):
    for fault in (None, *Fault):
        assert advance(watch, fault=fault, estop=True) == Watch(mode=Mode.DAMPING, fault=Fault.ESTOP)


@pytest.mark.parametrize(
    "age_periods, late, fault",
    [(0.0, False, None), (1.4, False, None), (1.6, True, None), (3.4, True, None), (3.6, True, Fault.STALE)],
)
def test_sensor_data_by_age(age_periods, late, fault):
    assert safety.sensor_late(age_periods * 0.02, 0.02) is late
    assert safety.sensor_fault(age_periods * 0.02, 0.02) is fault


def test_an_age_that_is_no_number_is_a_fault():
    assert safety.sensor_fault(float("nan"), 0.02) is Fault.STALE


def test_strangeness_is_one_for_training_data_and_one_wild_element_is_not_enough():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=60), rng.uniform(0.1, 2.0, 60)
    strange = safety.Strangeness(mean=mean, std=std)
    scores = [strange.score(rng.normal(mean, std)) for _ in range(200)]
    assert np.mean(scores) == pytest.approx(1.0, abs=0.05)
    wild = mean.copy()
    wild[0] += 1e6
    assert strange.score(wild) < strange.limit < strange.score(mean + 6.0 * std)
