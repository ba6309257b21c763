"""What people see of a hub, made without sockets: states by silence, sums over lines, the rollout's groups."""

import pytest
from test_fleet_protocol import Hub, put

from fleet.answers import pack_answer
from fleet.assignment import ArtifactRef
from fleet.evidence import Counts
from fleet.messages import Answer, Bye, Heartbeat, Hello
from fleet.overview import overview
from fleet.rollout import PLANS, Plan, RobotView, View, start
from fleet.roster import BROKEN_AFTER_S, LOST_AFTER_S, MAX_EPOCHS
from fleet.wire import STREAMS, encode

NAMES = frozenset("abcd")


@pytest.fixture
def hub(tmp_path):
    hub = Hub(tmp_path / "hub")
    hub.allowed |= NAMES
    yield hub
    hub.close()


def route(name):
    return b"\x01" + name.encode() * 15


def join(hub, name, now_s=0.0, **beat):
    hub.say(name, encode(Hello(robot=name, epoch=7)), route(name), now_s)
    hub.say(name, encode(Heartbeat(state="running", **beat)), route(name), now_s)


def look(hub, now_s=0.0, rollout=None, view=None):
    seen = overview(hub.gateway, hub.store, rollout, view, NAMES, now_s)
    return seen, {robot["name"]: robot for robot in seen["robots"]}


def test_states_are_the_four_words_and_never(hub):
    join(hub, "a")
    join(hub, "b")
    hub.say("b", encode(Bye()), route("b"))
    join(hub, "c", now_s=BROKEN_AFTER_S)
    seen, robots = look(hub, BROKEN_AFTER_S)
    assert {name: r["state"] for name, r in robots.items()} == {
        "a": "CONNECTIONBROKEN",
        "b": "OFFLINE",
        "c": "ONLINE",
        "d": "NEVER",
    }
    assert robots["a"]["silent_s"] == BROKEN_AFTER_S
    assert seen["states"]["CONNECTIONBROKEN"] == 1
    assert look(hub, LOST_AFTER_S)[1]["a"]["state"] == "LOST"


def test_records_are_held_pending_and_counted_once(hub):
    join(hub, "a", recorded={2: 5, 1: 3})
    for seq in (1, 2):
        hub.say("a", put(seq, payload=b"x" * 10, items=50), route("a"))
    assert look(hub)[1]["a"]["held"] == 0  # accepted is not held
    hub.turn()
    hub.say("a", put(2, payload=b"x" * 10, items=50), route("a"))
    seen, robots = look(hub)
    assert (robots["a"]["held"], robots["a"]["pending"], robots["a"]["steps"]) == (2, 6, 100)
    assert seen["streams"]["steps"] == {"records": 2, "bytes": 20, "items": 100, "lost": 0}
    assert (seen["pending"], seen["counts"]["duplicates"]) == (6, 1)


def test_what_a_robot_says_it_recorded_is_believed_within_reason(hub):
    join(hub, "a", recorded={1: 2**64 - 1, 2: 2**64 - 1, 77: 1, 3: -1, 4: 9}, recorded_items={1: 2**64 - 1, 4: 5})
    member = hub.gateway.roster.members["a"]
    assert (member.recorded, member.recorded_items) == ({(7, 4): 9}, {(7, 4): 5})
    assert pack_answer(Answer(ok=True, body=look(hub)[0]))
    for epoch in range(1000):
        hub.say("a", encode(Hello(robot="a", epoch=epoch, recorded={1: 1})), route("a"))
    assert len(member.recorded) == MAX_EPOCHS * len(STREAMS)
    assert (999, 1) in member.recorded


def test_energy_is_summed_and_power_only_of_those_online(hub):
    join(hub, "a", power_w=10.0, energy_j=100.0, battery=0.4, battery_j=1.0)
    join(hub, "b", power_w=5.0, energy_j=50.0)
    hub.say("b", encode(Bye()), route("b"))
    seen, robots = look(hub)
    assert seen["energy"] == {"power_w": 10.0, "energy_j": 150.0}
    assert (robots["a"]["battery"], robots["b"]["battery"]) == (0.4, None)


def test_a_rollout_shows_its_groups_and_equal_counts_show_equal_numbers(hub):
    for name in "abc":
        join(hub, name)
    stages, rules = PLANS["quick"]
    ref = ArtifactRef(name="hand_reach", version="v2", sha256="f" * 64)
    state = start(Plan(id="1-x", candidate=ref, stages=stages, rules=rules), 0.0)
    state = type(state)(**{f: getattr(state, f) for f in state.__struct_fields__} | {"canaries": ("b",)})
    bad = Counts(episodes=40, successes=2, falls=30, hours=0.1, return_sum=1.0, return_sq_sum=1.0)
    good = Counts(episodes=80, successes=70, falls=1, hours=0.2, return_sum=80.0, return_sq_sum=90.0)
    view = View(now_s=0.0, robots={n: RobotView(online=True) for n in "abc"}, candidate=bad, control=good)
    seen, robots = look(hub, rollout=state, view=view)
    rollout = seen["rollout"]
    assert [robots[n]["group"] for n in "abc"] == ["control", "canary", "control"]
    assert rollout["verdict"] == "rollback"
    assert rollout["groups"]["canary"]["falls_per_hour"] == pytest.approx(300.0)
    assert rollout["groups"]["control"]["success"] == pytest.approx(70 / 80)
    assert look(hub, rollout=state, view=view)[0]["rollout"] == rollout
    assert look(hub)[0]["rollout"] is None
