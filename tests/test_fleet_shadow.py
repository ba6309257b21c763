"""A candidate that watches: on the robot, and as a stage of a rollout."""

import numpy as np
import pytest
from onboard_helpers import artifact, model, write
from test_fleet_rollout import OLD, REF, plan, view

from fleet.assignment import ArtifactRef
from fleet.director import Director
from fleet.keys import load_signing_key, make_keys
from fleet.rollout import PLANS, QUICK, RobotView, Stage, advance, start, wanted
from fleet.shadow import Shadow
from robot.experience import Chunk, ChunkHeader
from robot.onboard.artifact import load
from robot.onboard.inference import make_inference


@pytest.fixture
def candidate(tmp_path):
    return load(write(tmp_path / "models/test_policy/v1", artifact(model(seed=0))))


def chunk(candidate, rng, first=0, steps=4, episode="0" * 32):
    contract = candidate.contract
    inference = make_inference(candidate)
    header = ChunkHeader(
        contract_sha256=contract.sha256, policy_sha256="", episode_id=episode, first_step=first, steps=steps,
        observation_size=contract.observation_size, action_size=contract.action_size, reward_names=("r",),
    )  # fmt: skip
    observation = rng.standard_normal((steps, contract.observation_size)).astype(np.float32)
    return Chunk(
        header=header, observation=observation, action=np.stack([inference.act(row)[0] for row in observation]),
        reward=np.zeros((steps, 1), np.float32), log_prob=np.zeros(steps, np.float32), success=np.zeros(steps, np.uint8),
        time_s=np.zeros(steps), last_observation=observation[0],
    )  # fmt: skip


def test_a_candidate_sees_what_the_robot_sees_and_its_actions_are_only_compared(candidate):
    rng, shadow = np.random.default_rng(0), Shadow()
    shadow.watch(candidate)
    shadow.see(chunk(candidate, rng))
    shadow.see(chunk(candidate, rng, first=4))
    assert (shadow.sha256, shadow.steps, shadow.bad) == (candidate.sha256, 8, 0)
    assert shadow.difference == pytest.approx(0.0, abs=1e-6)
    shadow.see(chunk(candidate, rng, first=12))  # a chunk was skipped: it waits for the next episode
    assert shadow.steps == 8
    shadow.watch(None)
    shadow.see(chunk(candidate, rng))
    assert (shadow.sha256, shadow.steps) == ("", 0)


def test_a_candidate_that_fails_while_it_watches_is_counted(candidate):
    rng, shadow = np.random.default_rng(0), Shadow()
    shadow.watch(candidate)
    good = chunk(candidate, rng)
    shadow._inference.act = lambda observation: (np.full(good.action.shape[1], np.nan), None)
    shadow.see(good)
    assert (shadow.steps, shadow.bad) == (4, 4)


STAGES = (Stage(name="shadow", robots=1, shadow_steps=100), *QUICK)


def watching(robots, state, steps, bad=0):
    return {
        r: RobotView(online=True, policy_sha256=OLD, shadow_sha256=REF.sha256, shadow_steps=steps, shadow_bad=bad)
        if r in state.canaries
        else RobotView(online=True, policy_sha256=OLD)
        for r in robots
    }


def test_the_shadow_stage_comes_first_and_lets_nobody_act_with_the_candidate():
    assert PLANS["standard"][0][0].shadow_steps > 0
    assert [stage.name for stage in PLANS["standard"][0]] == ["shadow", "one", "5%", "25%", "all"]
    state = advance(start(plan(STAGES), 0.0), view(dict.fromkeys("abc", OLD)))
    assert state.status == "paused"
    assert sorted(wanted(state, r) for r in "abc") == ["before", "before", "shadow"]
    state = advance(state, view(watching("abc", state, 50)))
    assert (state.status, state.stage_name, state.reason) == ("running", "shadow", "watched 50 of 100 steps")
    state = advance(state, view(watching("abc", state, 100)))
    assert state.stage_name == "one"
    assert [wanted(state, r) for r in "abc"].count("candidate") == 1


def test_a_candidate_that_fails_while_it_watches_never_acts():
    state = advance(start(plan(STAGES), 0.0), view(dict.fromkeys("abc", OLD)))
    state = advance(state, view(watching("abc", state, 50, bad=2)))
    assert (state.status, state.reason) == ("rolled_back", "it failed at 2 steps while it watched")


def test_an_assignment_to_watch_leaves_what_the_robot_runs(tmp_path):
    make_keys(tmp_path / "keys")
    director = Director(tmp_path / "d.json", load_signing_key(tmp_path / "keys", "director"))
    base = ArtifactRef(name="walk", version="v1", sha256="1" * 64)
    director.kept = type(director.kept)(base=base)
    director.deploy(REF, "standard", 0.0, {"a": RobotView(online=True, policy_sha256=OLD)})
    meant = director.kept.assignments["a"]
    assert (meant.artifact, meant.shadow, meant.cohort, meant.stage) == (base, REF, "shadow", "shadow")
