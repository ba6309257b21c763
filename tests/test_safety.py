"""The filter between a policy and the motors: what can never get past it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot import safety
from robot.description import load
from robot.errors import NotFiniteError
from robot.onboard.filter import CompiledFilter
from robot.safety import Fault, Mode, Watch, advance

HAND = load("hand22")
N = len(HAND.joints)
DT_S = 0.02
LIMITS = safety.Limits.of(HAND, DT_S)
FILTER = safety.Filter(LIMITS)
STILL = np.zeros(N)
ROUNDING = 1e-12  # previous + step, rounded once, against range and step of a few radians
SPECIALS = np.array([5e-324, -5e-324, 1e-310, 0.0, -0.0, 1e308, -1e308, np.pi, np.nan, np.inf, -np.inf])

anything = arrays(np.float64, N, elements=st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True))
inside = arrays(np.float64, N, elements=st.floats(0.0, 1.0)).map(
    lambda share: np.clip(HAND.lower_rad + share * (HAND.upper_rad - HAND.lower_rad), HAND.lower_rad, HAND.upper_rad)
)
speeds = arrays(np.float64, N, elements=st.floats(-30.0, 30.0))


def violations(sent, p, q, qd, limits=LIMITS) -> int:
    """How many joints of filtered targets break a rule; `p` must be within the range. Written apart from the filter."""
    wrong = ~np.isfinite(sent) | (sent > limits.upper_rad) | (sent < limits.lower_rad)
    # the torque the servo would ask, in units of its largest; a target at the edge nearest to the joint is always allowed
    lead = (sent - q - limits.damping_s * qd) / limits.torque_rad
    strained = np.abs(lead) > 1.0 + 1e-9
    rising = qd > limits.alpha_1_s * (limits.upper_rad - q) + limits.touch_rad_s + 1e-9
    falling = -qd > limits.alpha_1_s * (q - limits.lower_rad) + limits.touch_rad_s + 1e-9
    braking = rising | falling
    at_edge = (sent == limits.upper_rad) | (sent == limits.lower_rad)
    wrong |= strained & ~at_edge & ~braking
    # a step beyond the speed limit is a step towards where the joint is
    fast = np.abs(sent - p) > np.minimum(limits.slew_rad, limits.max_step_rad) + ROUNDING
    wrong |= fast & ((sent - p) * (q + limits.damping_s * qd - p) <= 0.0) & ~braking
    wrong |= rising & (sent > np.clip(q, limits.lower_rad, limits.upper_rad))
    wrong |= falling & (sent < np.clip(q, limits.lower_rad, limits.upper_rad))
    return int(np.count_nonzero(wrong))


@given(anything, inside, inside, speeds)
@settings(max_examples=100, deadline=None)
def test_whatever_is_asked_nothing_outside_the_limits_is_sent(target, previous, q, qd):
    if np.isfinite(target).all():
        assert violations(FILTER(target, previous, q, qd).target_rad, previous, q, qd) == 0
    else:
        with pytest.raises(NotFiniteError, match="target_rad") as caught:
            FILTER(target, previous, q, qd)
        assert HAND.joint_names[int(np.flatnonzero(~np.isfinite(target))[0])] in str(caught.value)


def fuzz(rng, rows):
    """Targets of all magnitudes with odd numbers among them, last targets inside the range, joints nearly anywhere."""
    lower, upper = HAND.lower_rad, HAND.upper_rad
    target = rng.normal(0.0, 1.0, (rows, N)) * 10.0 ** rng.integers(-3, 4, (rows, 1))
    odd = rng.random((rows, N)) < 2e-3
    target[odd] = rng.choice(SPECIALS, int(odd.sum()))
    previous = rng.uniform(lower, upper, (rows, N))
    q = previous + rng.normal(0.0, 0.3, (rows, N))
    return target, previous, q, rng.normal(0.0, 8.0, (rows, N))


def test_a_million_fuzzed_actions_break_no_rule():
    rng, rows = np.random.default_rng(0), 10_000
    many = safety.Filter(LIMITS, batch=(rows,))
    actions = refused = broken = 0
    changed = np.zeros(5, dtype=np.int64)
    while actions < 1_000_000:
        target, *joints = fuzz(rng, rows)
        bad = ~np.isfinite(target).all(axis=1)
        if actions == 0:
            with pytest.raises(NotFiniteError):
                many(target, *joints)
        target[bad] = joints[0][bad]  # what the loop does then: it holds
        sent = many(target, *joints)
        broken += violations(sent.target_rad, *joints)
        changed += sent[1:]
        refused += int(bad.sum())
        actions += rows
    assert broken == 0
    assert 0.005 * actions < refused < 0.5 * actions  # both ways were taken
    assert (changed[[0, 1, 3, 4]] > 1000).all()  # and every stage had something to do; velocity: see below


def test_the_violation_counter_can_count():
    """Negative control of the two tests above: each rule, broken alone."""
    home, one = HAND.home_rad, np.eye(N)[5]
    assert violations(home, home, home, STILL) == 0
    assert violations(np.full(N, np.nan), home, home, STILL) == N
    assert violations(LIMITS.upper_rad + 1e-9, LIMITS.upper_rad, LIMITS.upper_rad, STILL) == N
    assert violations(home + one * 1.01 * LIMITS.torque_rad, home + one, home, STILL) == 1
    assert violations(home + one * 1.1 * LIMITS.max_step_rad, home, home, STILL) == 1
    near = np.where(one > 0, LIMITS.upper_rad - 0.01, home)
    assert violations(near + one * 0.005, near, near, one * 4.0) == 1


@given(inside)
@settings(deadline=None)
def test_the_filter_leaves_a_good_target_alone(target):
    once = FILTER(target, target, target, STILL)
    np.testing.assert_array_equal(once.target_rad, target)
    assert once[1:] == (0, 0, 0, 0, 0)


def test_what_was_changed_is_counted_by_stage():
    home, step = HAND.home_rad, LIMITS.max_step_rad
    target = home.copy()
    target[3:6] += 10.0 * step[3:6]
    loose = safety.Filter(replace(LIMITS, torque_rad=np.full(N, 1e9)))
    assert loose(target, home, home, STILL)[1:] == (3, 0, 0, 0, 0)
    top = HAND.upper_rad.copy()
    assert loose(top + 0.5 * step * np.eye(N)[5], top, top, STILL)[1:] == (0, 1, 0, 0, 0)
    outside = top + 3.0 * step * np.eye(N)[5]  # sent last, before the range was known: come back at the speed limit
    back = loose(top, outside, top, STILL)
    assert back.target_rad[5] == outside[5] - step[5] and back[1:] == (1, 1, 1, 0, 0)
    blocked = home + np.eye(N)[5]  # a joint 1 rad behind its target, where 0.47 rad are all its torque
    eased = FILTER(blocked, blocked, home, STILL)
    assert eased.target_rad[5] == home[5] + LIMITS.torque_rad[5] and eased[1:] == (0, 0, 0, 1, 0)


def test_a_joint_that_runs_into_its_stop_is_damped_and_one_that_leaves_it_is_not():
    near = np.where(np.arange(N) == 5, HAND.upper_rad - 0.05, HAND.home_rad)
    speed = 5.0 * np.eye(N)[5]  # 0.1 rad in a period
    into = FILTER(near + 0.03 * np.eye(N)[5], near, near, speed)
    assert into.target_rad[5] == near[5] and into.barrier == 1
    away = FILTER(near + 0.03 * np.eye(N)[5], near, near, -speed)
    assert away.barrier == 0
    gentle = FILTER(near + 0.03 * np.eye(N)[5], near, near, 0.8 * speed)  # 0.03 rad beyond the stop: 1.5 rad/s, a touch
    assert gentle.barrier == 0


def test_a_slower_barrier_lets_targets_creep_up_to_a_stop():
    slow = safety.Filter(safety.Limits.of(HAND, DT_S, alpha_1_s=5.0))  # a tenth of the way in a period
    sent, ways = HAND.home_rad, []
    for _ in range(40):
        before, sent = sent, slow(HAND.upper_rad, sent, sent, STILL).target_rad
        ways.append((sent - before) / (HAND.upper_rad - before))
    assert np.max(ways) <= 0.1 + 1e-9 and (sent < HAND.upper_rad).all()
    assert (sent > HAND.home_rad + 0.9 * (HAND.upper_rad - HAND.home_rad)).all()


def test_a_slew_below_the_speed_limit_is_kept():
    slow = safety.Filter(safety.Limits.of(HAND, DT_S, slew=0.25))
    sent = slow(HAND.upper_rad, HAND.home_rad, HAND.home_rad, STILL).target_rad
    assert (sent - HAND.home_rad <= 0.25 * LIMITS.max_step_rad + ROUNDING).all()


@pytest.mark.parametrize("row", [2, 3])
def test_an_encoder_that_says_nan_is_named(row):
    rows = [HAND.home_rad.copy(), HAND.home_rad.copy(), HAND.home_rad.copy(), STILL.copy()]
    rows[row][4] = np.nan
    with pytest.raises(NotFiniteError, match=HAND.joint_names[4]):
        FILTER(*rows)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"alpha_1_s": 51.0}, "at most 1 / dt = 50"),
        ({"alpha_1_s": 0.0}, "alpha_1_s"),
        ({"torque_rad": np.zeros(N)}, "torque_rad must be > 0"),
        ({"slew_rad": np.full(N, np.nan)}, "slew_rad must be 25 finite numbers"),
        ({"upper_rad": HAND.lower_rad}, "below upper_rad"),
    ],
)
def test_limits_that_bound_nothing_are_refused(change, says):
    with pytest.raises(safety.LimitsError, match=says):
        replace(LIMITS, **change)


def test_one_row_and_a_batch_give_the_same_bits():
    rng = np.random.default_rng(2)
    target, *joints = fuzz(rng, 64)
    target[~np.isfinite(target)] = 0.0
    together = safety.Filter(LIMITS, batch=(64,))(target, *joints)
    alone = [FILTER(target[k], *(j[k] for j in joints)) for k in range(64)]
    np.testing.assert_array_equal(together.target_rad, [one.target_rad for one in alone])
    assert together[1:] == tuple(np.sum([one[1:] for one in alone], axis=0))


def test_the_filter_in_c_gives_the_bits_and_counts_of_the_one_in_numpy(tmp_path):
    rng = np.random.default_rng(1)
    for limits in (LIMITS, safety.Limits.of(HAND, DT_S, slew=0.5, alpha_1_s=8.0)):
        plain, compiled = safety.Filter(limits), CompiledFilter(limits, tmp_path)
        target, *joints = fuzz(rng, 2000)
        target[~np.isfinite(target)] = 1e308
        for k in range(2000):
            row = (target[k], *(j[k] for j in joints))
            want, got = plain(*row), compiled(*row)
            assert want[1:] == got[1:]
            np.testing.assert_array_equal(want.target_rad, got.target_rad)
        with pytest.raises(NotFiniteError, match=HAND.joint_names[7]):
            compiled(np.where(np.arange(N) == 7, np.inf, 0.0), *row[1:])


def test_arguments_are_not_changed_and_results_are_fresh():
    rows = [HAND.upper_rad + 1.0, HAND.home_rad.copy(), HAND.home_rad.copy(), STILL.copy()]
    kept = [row.copy() for row in rows]
    first = FILTER(*rows).target_rad
    again = first.copy()
    FILTER(HAND.lower_rad, *rows[1:])
    for row, was in zip([*rows, first], [*kept, again]):
        np.testing.assert_array_equal(row, was)


def test_a_policy_fades_in_and_is_itself_in_the_end():
    held, wanted = HAND.home_rad, HAND.home_rad + 0.4
    ways = [safety.blend(wanted, held, k, 4) - held for k in range(5)]
    np.testing.assert_allclose([way[0] for way in ways], [0.08, 0.16, 0.24, 0.32, 0.4])
    assert safety.blend(wanted, held, 4, 4) is wanted and safety.blend(wanted, held, 0, 0) is wanted


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
