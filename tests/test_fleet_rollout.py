"""The rollout rules against simulated fleets whose truth is known, and its states one by one."""

import msgspec
import numpy as np
import pytest

from fleet.assignment import ArtifactRef
from fleet.errors import RolloutError
from fleet.evidence import Counts, Rules, falls_worse, judge, return_worse, success_worse
from fleet.rollout import PLANS, QUICK, Plan, RobotView, Stage, View, advance, hold, resume, roll_back, start, wanted

REF = ArtifactRef(name="walk", version="v2", sha256="2" * 64)
OLD = "1" * 64


def counts(episodes, success=0.5, falls_per_hour=0.0, hours=None, mean=0.0, std=1.0, trips=0):
    hours = episodes * 0.01 if hours is None else hours
    return Counts(
        episodes=episodes,
        successes=round(episodes * success),
        falls=round(falls_per_hour * hours),
        hours=hours,
        return_sum=mean * episodes,
        return_sq_sum=episodes * (mean**2 + std**2),
        trips=trips,
    )


def test_probabilities_are_the_textbook_ones():
    rng = np.random.default_rng(0)
    rules = Rules(fall_ratio=1.0, tolerable_falls_per_hour=0.0, success_margin=0.0, return_margin=0.0)
    same = counts(1000, falls_per_hour=10.0, mean=1.0)
    for p in (falls_worse, success_worse, return_worse):
        assert p(same, same, rules, rng) == pytest.approx(0.5, abs=0.03)  # 8192 draws
    worse = counts(1000, success=0.4, falls_per_hour=30.0, mean=0.5)
    for p in (falls_worse, success_worse, return_worse):
        assert p(worse, same, rules, rng) > 0.99
        assert p(same, worse, rules, rng) < 0.01


def test_without_falls_in_either_group_the_tolerable_rate_decides():
    rng = np.random.default_rng(0)
    rules = Rules(tolerable_falls_per_hour=0.5)
    assert falls_worse(counts(1, hours=0.1), counts(1, hours=0.1), rules, rng) > 0.3  # too little seen
    assert falls_worse(counts(1, hours=20.0), counts(1, hours=20.0), rules, rng) < 0.01


def test_the_verdict_needs_evidence_in_both_directions():
    rng = np.random.default_rng(0)
    assert judge(counts(3), counts(3), Rules(), rng).verdict == "extend"
    good = counts(3000, hours=300.0, falls_per_hour=0.01)
    assert judge(good, good, Rules(), rng).verdict == "promote"
    assert judge(counts(3000, success=0.3, hours=300.0), good, Rules(), rng).verdict == "rollback"


def plan(stages=QUICK, **rules):
    return Plan(id="r1", candidate=REF, stages=stages, rules=Rules(**rules) if rules else PLANS["quick"][1])


def view(robots, candidate=None, control=None, now_s=1.0):
    return View(
        now_s=now_s,
        robots={
            n: v if isinstance(v, RobotView) else RobotView(online=True, policy_sha256=v) for n, v in robots.items()
        },
        candidate=candidate or Counts(),
        control=control or Counts(),
    )


def test_exactly_one_robot_gets_it_first_and_the_others_keep_what_they_have():
    state = advance(start(plan(), 0.0), view(dict.fromkeys("abcd", OLD)))
    assert [wanted(state, r) for r in "abcd"].count("candidate") == 1
    assert state.status == "paused"  # nobody runs it yet
    again = advance(state, view(dict.fromkeys("abcd", OLD), now_s=2.0))
    assert again.canaries == state.canaries


def test_a_stage_whose_robot_goes_away_pauses_and_never_promotes():
    state = advance(start(plan(), 0.0), view(dict.fromkeys("abc", OLD)))
    (canary,) = state.canaries
    robots = {r: RobotView(online=r != canary, policy_sha256=REF.sha256 if r == canary else OLD) for r in "abc"}
    good = counts(500, success=1.0, hours=100.0)
    for now_s in range(2, 50):
        state = advance(state, view(robots, good, good, float(now_s)))
    assert (state.status, state.stage) == ("paused", 0)
    assert f"waits for {canary}" in state.reason
    robots[canary] = RobotView(online=True, policy_sha256=REF.sha256)
    assert advance(state, view(robots, good, good, 60.0)).stage == 1


def test_a_stage_whose_robot_went_away_is_taken_back_when_the_others_are_worse():
    """The robot that is away may be the one that the policy broke."""
    stages = (Stage(name="half", fraction=0.5, min_episodes=1000), Stage(name="all", fraction=1.0))
    state = advance(start(plan(stages), 0.0), view(dict.fromkeys("abcdefgh", OLD)))
    gone, *left = state.canaries
    robots = {r: REF.sha256 if r in left else OLD for r in "abcdefgh"} | {gone: RobotView(online=False)}
    good, bad = counts(500, success=0.9), counts(60, success=0.1)
    paused = advance(state, view(robots, counts(60, success=0.9), good, 2.0))
    assert (paused.status, paused.stage) == ("paused", 0)
    back = advance(paused, view(robots, counts(60, success=0.9) + bad, good, 3.0))
    assert (back.status, set(map(lambda r: wanted(back, r), robots))) == ("rolled_back", {"before"})


def test_what_was_shown_while_a_robot_was_away_counts_when_it_is_back():
    state = advance(start(plan(**{"look_growth": 1.5}), 0.0), view(dict.fromkeys("abc", OLD)))
    (canary,) = state.canaries
    robots = dict.fromkeys("abc", OLD) | {canary: RobotView(online=False)}
    good = counts(2000, success=0.9, hours=200.0)
    assert not advance(state, view(robots, counts(3), good, 2.0)).ready  # too few episodes for the stage
    state = advance(state, view(robots, good, good, 2.0))
    assert (state.status, state.stage, state.ready) == ("paused", 0, True)
    state = advance(state, view(robots | {canary: REF.sha256}, good, good, 3.0))
    assert (state.stage, state.ready) == (1, False)
    assert state.reason.startswith("after one: promote")


def test_an_emergency_stop_of_the_first_robot_brings_it_back_and_later_ones_count_as_falls():
    stopped = Counts(episodes=30, successes=27, falls=1, stops=1, hours=100.0, return_sum=0.0, return_sq_sum=30.0)
    control = counts(3000, success=0.9, falls_per_hour=0.01, hours=10_000.0)
    state = advance(start(plan(stages=PLANS["standard"][0][1:], fall_ratio=1.2), 0.0), view(dict.fromkeys("abc", OLD)))
    robots = dict.fromkeys("abc", OLD) | dict.fromkeys(state.canaries, REF.sha256)
    one = advance(state, view(robots, stopped, control))
    assert (one.status, "emergency stop" in one.reason) == ("rolled_back", True)
    many = msgspec.structs.replace(state, stage=2)  # 25 %
    names = [f"r{i}" for i in range(40)]
    many = msgspec.structs.replace(many, canaries=tuple(names[:10]))
    robots = {n: REF.sha256 if n in many.canaries else OLD for n in names}
    assert advance(many, view(robots, stopped, control)).status == "running"
    often = msgspec.structs.replace(stopped, falls=20, stops=20)
    assert advance(many, view(robots, often, control)).status == "rolled_back"


def test_a_refusal_of_an_earlier_rollout_is_none_of_this_one():
    """Until a robot has heard of this one, its heartbeats repeat what it said of the one before."""
    state = advance(start(plan(), 0.0), view(dict.fromkeys("abc", OLD)))
    (canary,) = state.canaries
    for rollout, status in (("r0", "paused"), (state.plan.id, "rolled_back"), ("", "rolled_back")):
        seen = RobotView(online=True, policy_sha256=OLD, refused="altered", rollout=rollout)
        assert advance(state, view({**dict.fromkeys("abc", OLD), canary: seen})).status == status


def test_a_refusal_or_a_trip_brings_it_back_at_once():
    state = advance(start(plan(), 0.0), view(dict.fromkeys("abc", OLD)))
    (canary,) = state.canaries
    refused = advance(state, view({**dict.fromkeys("abc", OLD), canary: RobotView(online=True, refused="altered")}))
    assert (refused.status, refused.reason) == ("rolled_back", f"{canary} refused it: altered")
    tripped = advance(state, view({**dict.fromkeys("abc", OLD), canary: REF.sha256}, counts(1, trips=1)))
    assert tripped.status == "rolled_back"
    assert {wanted(tripped, r) for r in "abc"} == {"before"}


def test_offline_robots_do_not_keep_the_last_stage_from_ending_and_get_it_when_they_return():
    good = counts(500, success=1.0, hours=100.0)
    robots = {"a": RobotView(online=True, policy_sha256=REF.sha256), "b": RobotView(online=False)}
    state = start(plan(), 0.0)
    for now_s in range(1, 5):
        state = advance(state, view(robots, good, good, float(now_s)))
    assert state.status == "done"
    assert wanted(state, "b") == "candidate"


def test_time_that_runs_out_holds_for_the_operator():
    stages = (Stage(name="one", min_episodes=100, max_minutes=1.0), Stage(name="all", fraction=1.0))
    state = advance(start(plan(stages), 0.0), view({"a": REF.sha256}))
    for now_s in (10.0, 80.0):
        state = advance(state, view({"a": REF.sha256}, counts(2), now_s=now_s))
    assert state.status == "held"
    assert "time is up in stage one" in state.reason


def test_hold_resume_rollback_and_what_is_over():
    state = advance(start(plan(), 0.0), view({"a": REF.sha256}))
    held = hold(state)
    assert advance(held, view({"a": REF.sha256}, counts(500, trips=1))).status == "held"
    assert resume(held).status == "running"
    back = roll_back(held)
    for change in (hold, resume, roll_back):
        with pytest.raises(RolloutError, match=r"rolled.back"):
            change(back)
    with pytest.raises(RolloutError, match=r"the last one must be fraction=1\.0"):
        start(plan((Stage(name="one"),)), 0.0)


# --- fleets with known truth ----------------------------------------------------------------------------------------------

ROBOTS = 40
STAGES = (
    Stage(name="one", robots=1, min_episodes=20, min_minutes=240.0, max_minutes=7 * 24 * 60.0),
    Stage(name="5%", fraction=0.05, min_episodes=60, min_minutes=1200.0, max_minutes=7 * 24 * 60.0),
    Stage(name="25%", fraction=0.25, min_episodes=200, min_minutes=6000.0, max_minutes=7 * 24 * 60.0),
    Stage(name="all", fraction=1.0),
)


def simulate(seed, *, falls_per_hour, success, control_falls_per_hour=0.2, control_success=0.8):
    """A week of 40 robots at 6 episodes an hour, looked at every hour: (how it ended, largest number of robots that ran the candidate)."""
    rng = np.random.default_rng(seed)
    state = start(Plan(id=f"r{seed}", candidate=REF, stages=STAGES, rules=PLANS["standard"][1], seed=seed), 0.0)
    names = [f"robot{i}" for i in range(ROBOTS)]
    groups = {True: Counts(), False: Counts()}
    exposed = 0
    for hour in range(1, 24 * 7):
        mine = set(state.canaries)
        for candidate, n in ((True, len(mine)), (False, ROBOTS - len(mine))):
            if not n:
                continue
            p, rate = (success, falls_per_hour) if candidate else (control_success, control_falls_per_hour)
            wins = rng.binomial(6 * n, p)
            groups[candidate] += Counts(
                episodes=6 * n,
                successes=int(wins),
                falls=int(rng.poisson(rate * n)),
                hours=float(n),
                return_sum=float(wins),
                return_sq_sum=float(wins),
            )
        robots = {n: RobotView(online=True, policy_sha256=REF.sha256 if n in mine else OLD) for n in names}
        state = advance(state, View(now_s=hour * 3600.0, robots=robots, candidate=groups[True], control=groups[False]))
        exposed = max(exposed, len(mine))
        if state.over:
            break
    return state.status, exposed


TRIALS = 40


@pytest.mark.parametrize(
    "truth", [{"falls_per_hour": 1.0, "success": 0.8}, {"falls_per_hour": 0.2, "success": 0.5}], ids=["falls", "fails"]
)
def test_a_bad_policy_never_gets_past_5_percent_of_the_robots(truth):
    ends = [simulate(seed, **truth) for seed in range(TRIALS)]
    assert all(exposed <= 0.05 * ROBOTS for _, exposed in ends)
    assert sum(status == "rolled_back" for status, _ in ends) >= 0.99 * TRIALS


def test_a_policy_as_good_as_the_old_one_is_wrongly_stopped_in_at_most_5_percent():
    ends = [simulate(1000 + seed, falls_per_hour=0.2, success=0.8)[0] for seed in range(TRIALS)]
    assert ends.count("rolled_back") <= 0.05 * TRIALS


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth",
    [
        {"falls_per_hour": 1.0, "success": 0.8},
        {"falls_per_hour": 0.6, "success": 0.8},
        {"falls_per_hour": 0.2, "success": 0.5},
        {"falls_per_hour": 0.2, "success": 0.7},
    ],
    ids=["falls 5x", "falls 3x", "success 0.5", "success 0.7"],
)
def test_over_300_trials_each_bad_policy_is_stopped_before_5_percent_of_the_robots_in_99_of_100(truth):
    ends = [simulate(5000 + seed, **truth) for seed in range(300)]
    assert sum(exposed <= 0.05 * ROBOTS for _, exposed in ends) >= 0.99 * len(ends)


@pytest.mark.slow
def test_over_300_trials_a_good_policy_is_wrongly_stopped_in_at_most_5_of_100():
    ends = [simulate(5000 + seed, falls_per_hour=0.2, success=0.8)[0] for seed in range(300)]
    assert ends.count("rolled_back") <= 0.05 * len(ends)


def test_a_clearly_better_policy_reaches_all_robots():
    ends = [simulate(2000 + seed, falls_per_hour=0.05, success=0.95) for seed in range(20)]
    assert [status for status, _ in ends].count("done") >= 19
    assert max(exposed for _, exposed in ends) == ROBOTS


def test_the_same_evidence_gives_the_same_verdict():
    assert simulate(5, falls_per_hour=0.2, success=0.8) == simulate(5, falls_per_hour=0.2, success=0.8)
    state = advance(start(plan(), 0.0), view(dict.fromkeys("abc", OLD)))
    assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state
