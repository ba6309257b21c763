"""HandGrasp and HandOppose: what they hand over, pull and ask for, and that hands which do nothing get nowhere."""

import gymnasium
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from policies.evaluate import evaluate
from robot.errors import UnknownNameError
from sim import baselines
from sim.dexterity.protocol import GRAVITY_M_S2, HAND_OVER_S, WAYS
from sim.dexterity.taxonomy import find
from sim.env import KEPT_WORLDS
from sim.objects import find as find_thing
from sim.tasks.hand_grasp import mostly
from sim.tasks.hand_oppose import NEAR


def episode(env, policy, seed: int) -> tuple[dict, int, list[dict]]:
    """The last info, how many steps, and what acted on the object at each step."""
    observation, info = env.reset(seed=seed)
    acted, steps, over = [], 0, False
    while not over:
        acted.append(dict.fromkeys([p.on for p in env.unwrapped.backend._pushes], 0))
        observation, _, terminated, truncated, info = env.step(policy(observation, info))
        steps, over = steps + 1, terminated or truncated
    return info, steps, acted


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_closing_to_the_shipped_targets_holds_most_and_doing_nothing_drops_them(engine):
    env = gymnasium.make("flexor/HandGrasp-v0", engine=engine, randomization=False)
    scripted = baselines.make("scripted", env)
    ends = [episode(env, scripted, seed)[0] for seed in range(5)]
    assert len({end["metrics"]["type"] for end in ends}) > 1
    held = sum(end["success"] for end in ends)
    assert held >= 3
    idle = [episode(env, baselines.make("zero", env), seed) for seed in range(5)]
    env.close()
    assert sum(end["success"] for end, _, _ in idle) < held  # some objects lie caged in fingers that do nothing
    assert min(steps for _, steps, _ in idle) < 60 and any(end["reward_terms"]["drop"] < 0 for end, _, _ in idle)


def test_the_goal_names_the_type_and_the_object_and_everybody_is_pulled_six_times():
    env = gymnasium.make("flexor/HandGrasp-v0", engine="mujoco", randomization=False)
    unwrapped = env.unwrapped
    _, info = env.reset(seed=3)
    number = int(np.argmax(info["goal"][:33])) + 1
    body = find_thing(find(number).thing).body
    assert info["goal"][36] == body.mass_kg and info["goal"][:33].sum() == 1.0
    assert np.linalg.norm(unwrapped.backend._pushes[0].force_n) == pytest.approx(body.mass_kg * GRAVITY_M_S2)
    pulled: dict[str, int] = {}
    for k in range(unwrapped.task.max_steps):
        way = unwrapped.task._way(k / 25.0)
        if way:
            pulled[way] = pulled.get(way, 0) + 1
            assert k / 25.0 > HAND_OVER_S
    env.close()
    assert set(pulled) == set(WAYS) and len(set(pulled.values())) == 1


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_the_thumb_visits_what_the_hand_can_reach_and_stays_away_when_idle(engine):
    env = gymnasium.make("flexor/HandOppose-v0", engine=engine, randomization=False)
    visited = episode(env, baselines.make("scripted", env), 0)[0]
    idle = episode(env, baselines.make("zero", env), 0)[0]
    env.close()
    assert visited["metrics"]["visited"] >= 7 and idle["metrics"]["visited"] == 0 and not idle["success"]


def test_an_episode_can_be_asked_for_by_its_kind_and_unknown_ones_are_refused():
    env = gymnasium.make("flexor/HandGrasp-v0", engine="mujoco")
    task = env.unwrapped.task
    assert len(task.kinds) == 32 and "22" not in task.kinds  # the one that the hand does not hold
    for kind in ("20", "7"):
        _, info = env.reset(seed=0, options={"kind": kind})
        assert np.argmax(info["goal"][:33]) + 1 == int(kind)
    env.reset(seed=1)
    assert task.kind == ""  # asked for once, not for ever
    with pytest.raises(UnknownNameError, match=r"unknown kind of flexor/HandGrasp-v0 '22'.*Known: 1,"):
        env.reset(options={"kind": "22"})
    with pytest.raises(UnknownNameError, match=r"unknown option of reset 'typ'.*Known: kind"):
        env.reset(options={"typ": "7"})
    env.close()


def test_worlds_that_were_put_away_come_back_as_they_were():
    def rollout(env: gymnasium.Env) -> np.ndarray:
        observation, _ = env.reset(seed=5, options={"kind": "1"})
        seen = [observation]
        for _ in range(20):
            seen.append(env.step(np.full(env.action_space.shape or (), 0.1))[0])
        return np.array(seen)

    env, fresh = (gymnasium.make("flexor/HandGrasp-v0", engine="pybullet") for _ in range(2))
    rollout(env)
    first = env.unwrapped.backend
    for kind in ("2", "7", "20", "33"):
        env.reset(seed=1, options={"kind": kind})
    assert len(env.unwrapped._backends) == KEPT_WORLDS["pybullet"]
    again, never_away = rollout(env), rollout(fresh)
    assert env.unwrapped.backend is not first
    np.testing.assert_array_equal(again, never_away)
    env.close()
    fresh.close()


def test_an_evaluation_goes_through_the_kinds_and_reports_each():
    found = evaluate("zero", "flexor/HandGrasp-v0", "mujoco", "hand22", episodes=3, seed=31)
    assert [episode.kind for episode in found.episodes] == ["33", "1", "2"]  # the 32nd of them, then from the first
    assert [int(episode.metrics["type"]) for episode in found.episodes] == [33, 1, 2]
    kinds = found.as_dict()["kinds"]
    assert list(kinds) == ["33", "1", "2"] and all(kind["episodes"] == 1 for kind in kinds.values())


def test_what_touches_half_of_the_time_touches():
    moments = [{("index", "pad")}, {("index", "pad"), ("thumb", "pad")}, {("palm", "any"), ("thumb", "pad")}, set()]
    assert mostly(moments) == {("index", "pad"), ("thumb", "pad")}
    assert mostly([]) == set()


def test_finishing_the_tour_early_pays_at_least_what_any_waiting_would():
    env = gymnasium.make("flexor/HandOppose-v0", engine="mujoco", randomization=False)
    task, policy = env.unwrapped.task, baselines.make("scripted", env)
    observation, info = env.reset(seed=0)
    steps, over, done = 0, False, []
    while not over:
        observation, _, terminated, truncated, info = env.step(policy(observation, info))
        steps, over = steps + 1, terminated or truncated
        done.append(info["reward_terms"]["done"])
        assert info["reward_terms"]["near"] <= NEAR
    env.close()
    left = task.max_steps - steps
    assert left > 0 and terminated and done[-1] == NEAR * left and not any(done[:-1])
