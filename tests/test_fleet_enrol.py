"""Keys that come and go while the fleet works: tokens, changed keys, revoked keys; each guard shown to fire, over real sockets."""

import contextlib
import stat
import time

import pytest
import zmq
from fleet_helpers import LiveHub, uplink, wait_for
from zmq.utils.monitor import recv_monitor_message

from fleet import cli
from fleet.auth import AllowList, Authenticator
from fleet.disk import Disk
from fleet.enrol import ENROL, OVERLAP_S, admit_key, key_hash, load_tokens, make_token, opens, parse_token
from fleet.errors import ForgedDocumentError, HubAwayError, TokenError
from fleet.keyring import KeyFolder, enrol, rotate
from fleet.keys import (
    bundle,
    load_allowed,
    load_public,
    load_robot_pair,
    load_signing_key,
    make_keys,
    next_hub_key,
    public_file,
    vouchers_in,
)
from fleet.messages import Enrol, EpisodeResult, Err, Hello, Welcome
from fleet.revocation import SETTLE_S, Revocation, keep, load_revoked, revoke, sign
from fleet.sockets import dial
from fleet.wire import decode, encode
from robot.errors import UnknownNameError

RESULT = EpisodeResult(
    episode_id="e", policy_sha256="", artifact="", rollout="", stage="", generation=0, cohort="none",
    explored=False, return_=1.0, success=True, steps=1, seconds=0.1,
)  # fmt: skip


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", ["a", "b"])
    return tmp_path / "keys"


@pytest.fixture
def hub(tmp_path, keys):
    hub = LiveHub(tmp_path / "hub", keys)
    yield hub
    hub.stop()


def test_a_token_gets_one_robot_in_once_and_the_hub_keeps_only_a_hash_of_it(tmp_path, keys, hub):
    token = make_token(keys, "new", time.time())
    (kept,) = (keys / "tokens").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert token.pair.secret not in kept.read_bytes()
    assert token.pair.public not in kept.read_bytes()
    text = str(token)
    assert parse_token(text) == token
    wait_for(lambda: opens(hub.hub._allow._tokens, token.pair.public, time.time()), "the hub saw the token")
    enrol(parse_token(text), hub.address, tmp_path / "robot")
    assert stat.S_IMODE((tmp_path / "robot/robots/new.key_secret").stat().st_mode) == 0o600
    assert load_public(tmp_path / "robot/hub.key") == load_public(keys / "hub.key")
    assert not list((keys / "tokens").iterdir())
    with pytest.raises(HubAwayError, match="used or too old"):
        enrol(parse_token(text), hub.address, tmp_path / "thief", timeout_s=1.0)
    up = uplink(tmp_path / "spool", tmp_path / "robot", "new", hub.port)
    up.tell(RESULT)
    assert up.finish(20.0)


@pytest.mark.parametrize(
    ("text", "match"), [("", "expected a token"), ("flx1.a.abc", "expected a token"), ("x.a." + "A" * 86, "expected a")]
)
def test_what_is_no_token_is_refused_by_name(text, match):
    with pytest.raises(TokenError, match=match):
        parse_token(text)


def test_a_token_is_for_its_robot_and_its_time_only(tmp_path, keys):
    token = make_token(keys, "new", 1000.0, life_s=60.0)
    tokens = load_tokens(keys)
    assert opens(tokens, token.pair.public, 1059.0) == "new"
    assert opens(tokens, token.pair.public, 1060.0) == ""
    assert opens(tokens, zmq.curve_keypair()[0], 1001.0) == ""
    key = zmq.curve_keypair()[0]
    with pytest.raises(TokenError, match="only one's own"):
        admit_key(keys, ENROL + "new", "a", key, 1001.0)
    with pytest.raises(TokenError, match="used or too old"):
        admit_key(keys, ENROL + "new", "new", key, 1060.0)
    with pytest.raises(TokenError, match="40 characters"):
        admit_key(keys, ENROL + "new", "new", b"short", 1001.0)
    with pytest.raises(TokenError, match="40 characters"):
        admit_key(keys, ENROL + "new", "new", b"#" * 40, 1001.0)  # the right length, and more than 32 bytes can say
    with pytest.raises(TokenError, match="another robot's"):
        admit_key(keys, ENROL + "new", "new", load_public(keys / "allow/a.key"), 1001.0)
    admit_key(keys, ENROL + "new", "new", key, 1001.0)
    assert admit_key(keys, ENROL + "new", "new", key, 1001.0)  # the answer was lost: asked again
    with pytest.raises(TokenError, match="used or too old"):
        admit_key(keys, ENROL + "new", "new", zmq.curve_keypair()[0], 1001.0)


def test_a_tokens_connection_can_do_nothing_else(keys, hub):
    token = make_token(keys, "new", time.time())
    wait_for(lambda: hub.hub._allow.admits(ENROL + "new"), "the hub saw the token")
    context = zmq.Context()
    socket = dial(context, token.pair, token.hub_public, f"tcp://127.0.0.1:{hub.port}", b"\1" * 16)
    assert socket.poll(20_000, zmq.POLLOUT)
    socket.send_multipart(encode(Hello(robot="new", epoch=1)))
    assert socket.poll(20_000)
    answer = decode(socket.recv_multipart()).message
    assert (type(answer), answer.code) == (Err, "identity")
    socket.close(0)
    context.destroy(0)


def test_a_robots_key_changes_without_a_gap(tmp_path, keys, hub):
    bundle(keys, "a", tmp_path / "robot")
    up = uplink(tmp_path / "spool", tmp_path / "robot", "a", hub.port)
    wait_for(lambda: up.state == "joined", "joined")
    old = load_robot_pair(tmp_path / "robot", "a")
    rotate("a", hub.address, tmp_path / "robot")
    new = load_robot_pair(tmp_path / "robot", "a")
    assert old != new
    now_s = time.time()
    names = load_allowed(keys, now_s)[0]
    assert (names[old.public], names[new.public]) == ("a", "a")  # both are good for a while
    later = load_allowed(keys, now_s + OVERLAP_S + 60.0)[0]
    assert old.public not in later
    assert later[new.public] == "a"
    up.tell(RESULT)
    assert up.finish(20.0)  # the old connection went on
    assert up.counters.get("err_revoked", 0) == 0


def test_when_the_old_keys_time_is_over_the_robot_comes_back_with_the_new_one(tmp_path, keys):
    clock = [1000.0]
    allow = AllowList(keys, b"", utc_s=lambda: clock[0])
    new = zmq.curve_keypair()[0]
    admit_key(keys, "a", "a", new, clock[0])
    assert allow.refresh()
    assert allow.take_cut() == set()
    clock[0] += OVERLAP_S
    assert allow.refresh()  # nothing on the disk changed: the time did
    assert allow.take_cut() == {"a"}
    assert allow.admits("a")
    assert allow.decide("fleet", b"CURVE", load_public(keys / "robots/a.key")).status == 400
    assert allow.decide("fleet", b"CURVE", new).user_id == f"a#{key_hash(new)}"


def test_a_robot_has_few_keys_at_a_time_and_those_that_ended_are_cleared_away(keys, monkeypatch):
    (keys / "allow/b.broken.key").write_bytes(b"\xff")  # hinders nobody
    mine = [admit_key(keys, "a", "a", zmq.curve_keypair()[0], 1000.0 + n) for n in range(2)]
    with pytest.raises(TokenError, match="has 3 keys that count already"):
        admit_key(keys, "a", "a", zmq.curve_keypair()[0], 1002.0)
    make_token(keys, "a", 1002.0)
    with pytest.raises(TokenError, match="has 3 keys"):
        admit_key(keys, ENROL + "a", "a", zmq.curve_keypair()[0], 1002.0)
    assert list((keys / "tokens").iterdir())  # the token was not spent on it
    disk = Disk()
    written = []
    monkeypatch.setattr(disk, "write_file", lambda path, data, **_: written.append(path))
    later_s = 1001.5 + OVERLAP_S
    third = admit_key(keys, "a", "a", zmq.curve_keypair()[0], later_s, disk=disk)
    assert written == [mine[1], third]  # one ends from now on, one is new; what ended is gone
    assert {p for p in (keys / "allow").glob("a*")} == {mine[1]}


def test_the_hubs_key_changes_without_a_gap(tmp_path, keys):
    for robot in ("a", "b"):
        bundle(keys, robot, tmp_path / robot)
    hub = LiveHub(tmp_path / "hub", keys)
    following = next_hub_key(keys)
    up = uplink(tmp_path / "spool", tmp_path / "a", "a", hub.port)
    wait_for((tmp_path / "a/hub.next.key").exists, "the robot heard of the next key")
    up.tell(RESULT)
    wait_for(lambda: up._session.drained, "drained")
    hub.stop()
    assert next_hub_key(keys, activate=True) == following
    hub = LiveHub(tmp_path / "hub", keys, port=hub.port)
    wait_for(lambda: not (tmp_path / "a/hub.next.key").exists(), "the robot went over to it")
    assert load_public(tmp_path / "a/hub.key") == following
    up.tell(RESULT)
    assert up.finish(20.0)
    late = uplink(tmp_path / "late", tmp_path / "b", "b", hub.port)  # it was never told
    wait_for(lambda: late.state.startswith("refused: the handshake failed"), "named")
    assert not late.finish(0.1)
    hub.stop()


# --- revocation -----------------------------------------------------------------------------------------------------------


def closed(monitor):
    """Whether a socket's connection was closed from the other side."""
    while monitor.poll(0):
        if recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED:
            return True
    return False


def test_F15_a_revoked_robot_that_ignores_the_protocol_is_cut_off_and_the_others_are_not(tmp_path, keys, hub):
    context = zmq.Context()
    routing_id = b"\1" + b"v" * 15
    pair, public = load_robot_pair(keys, "a"), load_public(keys / "hub.key")
    victims = [dial(context, pair, public, f"tcp://127.0.0.1:{hub.port + offset}", routing_id) for offset in (0, 1)]
    monitors = [v.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED) for v in victims]
    for victim, monitor in zip(victims, monitors):
        assert monitor.poll(20_000)
        recv_monitor_message(monitor)
        assert victim.poll(20_000, zmq.POLLOUT)
    for victim in victims:
        victim.send_multipart(encode(Hello(robot="a", epoch=1)))
        assert victim.poll(20_000)
        assert isinstance(decode(victim.recv_multipart()).message, Welcome)
    other = uplink(tmp_path / "spool", keys, "b", hub.port)
    wait_for(lambda: other.state == "joined", "the other robot is in")
    joined = other.counters
    revoke(keys, "a", "stolen", time.time())
    for monitor in monitors:  # it says nothing and reads nothing: its connections are cut all the same
        wait_for(lambda monitor=monitor: closed(monitor), "the connection was cut")
    assert not hub.gateway.roster.sessions.keys() & {routing_id}
    wait_for(lambda: hub.hub._allow.denied > 0, "its reconnect met the door")
    other.tell(RESULT)
    assert other.finish(20.0)
    assert other.counters.get("err_session", 0) == joined.get("err_session", 0) == 0
    for socket in (*monitors, *victims):
        socket.close(0)
    context.destroy(0)


@contextlib.contextmanager
def silent(hub, pair, hub_public, routing_id=b"\1" + b"s" * 15):
    """A connection that came through the door and has said nothing; gives what asks over it."""
    context = zmq.Context()
    socket = dial(context, pair, hub_public, f"tcp://127.0.0.1:{hub.port}", routing_id)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert monitor.poll(20_000)

    def ask(message):
        socket.send_multipart(encode(message))
        assert socket.poll(20_000)
        return decode(socket.recv_multipart()).message

    yield ask
    for end in (monitor, socket):
        end.close(0)
    context.destroy(0)


@pytest.mark.parametrize("message", [Hello(robot="a", epoch=1), Enrol(robot="a", key=zmq.curve_keypair()[0])], ids=type)
def test_F15_a_revoked_key_that_kept_silent_does_not_come_back_with_the_robots_new_key(tmp_path, keys, hub, message):
    old = load_robot_pair(keys, "a")
    with silent(hub, old, load_public(keys / "hub.key")) as ask:
        revoke(keys, "a", "stolen", time.time())
        enrol(fresh_token(keys, hub, "a"), hub.address, tmp_path / "robot")
        wait_for(lambda: hub.hub._allow.admits("a"), "the robot is in with its new key")
        up = uplink(tmp_path / "spool", tmp_path / "robot", "a", hub.port)
        wait_for(lambda: up.state == "joined", "it joined")
        files = set((keys / "allow").iterdir())
        answer = ask(message)
        assert (type(answer), answer.code) == (Err, "revoked")
        assert set((keys / "allow").iterdir()) == files
        up.tell(RESULT)
        assert up.finish(20.0)  # the one with the new key was not disturbed
        assert up.counters.get("err_session", 0) == up.counters.get("err_revoked", 0) == 0


def fresh_token(keys, hub, robot):
    token = make_token(keys, robot, time.time())
    wait_for(lambda: opens(hub.hub._allow._tokens, token.pair.public, time.time()), "the hub saw the token")
    return token


def test_a_token_that_was_replaced_does_not_enrol_by_the_one_that_replaced_it(keys, hub):
    first = fresh_token(keys, hub, "new")
    with silent(hub, first.pair, first.hub_public) as ask:
        fresh_token(keys, hub, "new")
        answer = ask(Enrol(robot="new", key=zmq.curve_keypair()[0]))
        assert (type(answer), answer.code) == (Err, "revoked")
    assert not list((keys / "allow").glob("new*"))
    assert list((keys / "tokens").iterdir())


def test_a_key_that_goes_between_two_looks_at_the_folder_lets_no_other_in(keys):
    allow = AllowList(keys, b"")
    me = allow.decide("fleet", b"CURVE", load_public(keys / "allow/a.key")).user_id
    assert allow.admits(me)
    revoke(keys, "a", "stolen", 5.0)
    admit_key(keys, ENROL + "a", "a", _with_token(keys, "a"), 6.0)
    assert allow.admits(me)  # not looked at yet
    answer = KeyFolder(keys, allow).enrol(me, Enrol(robot="a", key=zmq.curve_keypair()[0]))
    assert answer.error == "this key is no longer allowed"
    assert len(list((keys / "allow").glob("a*"))) == 1


def test_revoking_looks_again_for_keys_that_came_in_meanwhile(keys):
    waited = []

    def pause(seconds):
        waited.append(seconds)
        if len(waited) < 3:  # the thief was faster
            (keys / f"allow/a.late{len(waited)}.key").write_bytes(public_file(zmq.curve_keypair()[0]))

    assert len(revoke(keys, "a", "stolen", 5.0, pause=pause)) == 3
    assert waited == [SETTLE_S] * 3
    assert not list((keys / "allow").glob("a*"))
    assert len(load_revoked(keys)[0]) == 3


def test_a_revoked_key_stays_out_even_if_its_file_comes_back(keys):
    saved = (keys / "allow/a.key").read_bytes()
    (done,) = revoke(keys, "a", "lost", 5.0)
    assert done.robot == "a"
    (keys / "allow/a.key").write_bytes(saved)
    allow = AllowList(keys, b"")
    assert not allow.admits("a")
    assert allow.decide("fleet", b"CURVE", load_public(keys / "robots/a.key")).text == "this key was revoked"
    admit_key(keys, ENROL + "a", "a", _with_token(keys, "a"), 6.0)  # a new key of the same robot
    allow.refresh()
    assert allow.admits("a")


def test_a_key_that_a_revoked_key_let_in_does_not_count_and_one_by_a_token_does(keys):
    first, second, third = load_public(keys / "allow/a.key"), zmq.curve_keypair()[0], zmq.curve_keypair()[0]
    admit_key(keys, f"a#{key_hash(first)}", "a", second, 1.0)
    path = admit_key(keys, f"a#{key_hash(second)}", "a", third, 2.0)
    assert vouchers_in(path.read_text()) == (key_hash(first)[:16], key_hash(second)[:16])
    allow = AllowList(keys, b"", utc_s=lambda: 3.0)
    assert allow.decide("fleet", b"CURVE", third).status == 200
    revocation = Revocation(
        key=first.decode(), robot="a", why="stolen", time_s=4.0
    )  # of the first, by who knows no more
    keep(keys, sign(revocation, load_signing_key(keys, "operator")), revocation)
    allow.refresh()
    assert [allow.decide("fleet", b"CURVE", key).status for key in (first, second, third)] == [400, 400, 400]
    assert allow.refused[path.name] == "it was let in by a key that is revoked"
    assert allow.take_cut() == {"a"}
    for old in (keys / "allow").glob("a.*"):
        old.unlink()
    fourth = _with_token(keys, "a")
    path = admit_key(keys, ENROL + "a", "a", fourth, 6.0)
    allow.refresh()
    assert (allow.decide("fleet", b"CURVE", fourth).status, vouchers_in(path.read_text())) == (200, ())


def test_a_key_is_not_changed_for_ever_without_a_token(keys, monkeypatch):
    monkeypatch.setattr("fleet.enrol.MAX_VOUCHERS", 1)
    first, second, third = load_public(keys / "allow/a.key"), zmq.curve_keypair()[0], zmq.curve_keypair()[0]
    admit_key(keys, f"a#{key_hash(first)}", "a", second, 1.0)
    with pytest.raises(TokenError, match=r"changed 1 times; do: flexor fleet token a"):
        admit_key(keys, f"a#{key_hash(second)}", "a", third, 2.0)


def _with_token(keys, robot):
    make_token(keys, robot, 5.0)
    return zmq.curve_keypair()[0]


def test_only_the_operator_revokes(keys):
    document = sign(
        Revocation(key=load_public(keys / "allow/a.key").decode(), robot="a", why="", time_s=0.0),
        load_signing_key(keys, "director"),
    )
    keep(keys, document, Revocation(key="k", robot="a", why="", time_s=0.0))
    found, bad = load_revoked(keys)
    assert found == {}
    assert len(bad) == 1
    assert AllowList(keys, b"").admits("a")
    with pytest.raises(UnknownNameError, match=r"Known: a, b"):
        revoke(keys, "c", "", 0.0)
    assert issubclass(ForgedDocumentError, ValueError)


def test_the_door_for_hubs_opens_for_hubs_only(keys):
    make_keys(keys, hubs=["x", "y"])
    allow = AllowList(keys, b"admin-key")
    context = zmq.Context()
    authenticator = Authenticator(context, allow)
    assert allow.decide("hubs", b"CURVE", load_public(keys / "hubs/x.key")).user_id.startswith("x#")
    assert allow.decide("hubs", b"CURVE", load_public(keys / "allow/a.key")).status == 400
    assert allow.decide("fleet", b"CURVE", load_public(keys / "hubs/x.key")).status == 400
    authenticator.close()
    context.destroy(0)


def test_the_commands(tmp_path, keys, hub, capsys):
    cli.token("new", keys=keys, minutes=5.0)
    token = capsys.readouterr().out.strip()
    wait_for(lambda: hub.hub._allow.admits(ENROL + "new"), "the hub saw the token")
    address = f"127.0.0.1:{hub.port}"
    cli.enrol(token, hub=address, keys=tmp_path / "new")
    cli.rotate("new", hub=address, keys=tmp_path / "new")
    assert "robot new has a new key" in capsys.readouterr().out
    cli.revoke("new", keys=keys, why="test")
    assert "2 key(s) revoked" in capsys.readouterr().out
    wait_for(lambda: not hub.hub._allow.admits("new"), "it is out")
    cli.rotate("hub", keys=keys)
    cli.rotate("hub", keys=keys, activate=True)
    assert "start the hub again" in capsys.readouterr().out
    cli.lease("north", keys=keys)
    assert "north directs from term 1 on" in capsys.readouterr().out
