"""Keys on disk and the door: nobody in without a known key, every guard shown to fire."""

import stat

import pytest
import zmq
import zmq.auth
from zmq.utils import z85

from fleet.auth import AllowList, Authenticator, admitted, answer, secure_client, secure_server, self_test
from fleet.enrol import key_hash
from fleet.errors import KeyFileError, LooseSecretError, SelfTestError
from fleet.keys import (
    CurvePair,
    bundle,
    expiry_of,
    load_allowed,
    load_pair,
    load_public,
    load_robot_pair,
    load_signing_key,
    load_verifier,
    make_keys,
    public_file,
)
from robot.errors import UnknownNameError


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, ["a", "b"])
    return folder


def test_secrets_are_for_their_owner_only(keys):
    secrets = [*keys.rglob("*.key_secret"), *keys.rglob("*.pem")]
    assert len(secrets) == 4 + 6  # hub, admin, a, b; six signing roles
    assert {stat.S_IMODE(p.stat().st_mode) for p in secrets} == {0o600}


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    make_keys(tmp_path, ["a"])
    for path, load in (
        (tmp_path / "hub.key_secret", lambda: load_pair(tmp_path / "hub.key_secret")),
        (tmp_path / "robots/a.key_secret", lambda: load_robot_pair(tmp_path, "a")),
        (tmp_path / "sign/director.pem", lambda: load_signing_key(tmp_path, "director")),
    ):
        load()
        path.chmod(0o640)
        with pytest.raises(LooseSecretError, match=rf"mode 640: .*chmod 600 {path}"):
            load()


def test_adding_a_robot_later_leaves_the_others_as_they_are(tmp_path):
    make_keys(tmp_path, ["a"])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    made = make_keys(tmp_path, ["a", "c"])
    assert {p.relative_to(tmp_path).as_posix() for p in made} == {"robots/c.key_secret", "robots/c.key", "allow/c.key"}
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(load_allowed(tmp_path)[0].values()) == ["a", "c"]
    assert make_keys(tmp_path, ["a", "c"]) == []


def test_the_files_are_the_ones_czmq_reads(keys):
    public, secret = zmq.auth.load_certificate(keys / "robots/a.key_secret")
    assert CurvePair(public=public, secret=secret) == load_robot_pair(keys, "a")
    assert zmq.auth.load_certificate(keys / "robots/a.key")[0] == public


def test_what_is_not_a_key_is_refused_by_name(keys, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown robot .*--robots zed.* Known: a, b"):
        load_robot_pair(keys, "zed")
    with pytest.raises(KeyFileError, match=r"robot name '../a'"):
        make_keys(tmp_path, ["../a"])
    with pytest.raises(KeyFileError, match="flexor fleet keys --dir"):
        load_pair(tmp_path / "none.key_secret")
    (tmp_path / "x.key").write_text("nonsense")
    with pytest.raises(KeyFileError, match="no CURVE key in it"):
        load_public(tmp_path / "x.key")
    with pytest.raises(UnknownNameError, match="unknown signing role 'king'"):
        load_signing_key(keys, "king")
    with pytest.raises(KeyFileError, match=r"director.pub"):
        load_verifier(tmp_path, "director")


def test_one_key_under_two_names_lets_neither_in_and_a_broken_file_only_its_own_robot(tmp_path):
    make_keys(tmp_path, ["a", "b", "c", "d"])
    (tmp_path / "allow/b.key").write_bytes((tmp_path / "allow/a.key").read_bytes())
    (tmp_path / "allow/c.key").write_text("")
    allowed, refused = load_allowed(tmp_path)
    assert list(allowed.values()) == ["d"]
    assert sorted(refused) == ["b.key", "c.key"]


def spoil(folder):
    """One bad file of every kind."""
    (folder / "allow/x.key").write_bytes(b"\xff\xfe")
    (folder / "allow/NO.key").write_bytes((folder / "hub.key").read_bytes())
    (folder / "allow/y.key").write_text('metadata\n    expires = "1.2.3"\n' + (folder / "hub.key").read_text())
    (folder / "allow/gone.key").symlink_to(folder / "nowhere")
    (folder / "hubs/z.key").write_bytes(b"\xff")


def test_a_bad_file_locks_nobody_else_out(tmp_path):
    make_keys(tmp_path, ["a", "y"], hubs=["north"])
    spoil(tmp_path)
    allow = AllowList(tmp_path, b"")
    assert allow.names == {"a"}
    assert set(allow.refused) == {"x.key", "NO.key", "y.key", "gone.key", "hubs/z.key"}
    assert allow.decide("hubs", b"CURVE", load_public(tmp_path / "hubs/north.key")).status == 200
    assert expiry_of(tmp_path / "allow/y.key") == expiry_of(tmp_path / "allow/gone.key") == 0.0


@pytest.mark.parametrize("said", ['"soon"', '"1e5x"', "soon", '""', "", '"nan"', '"inf"', '"-"'])
def test_a_key_whose_time_is_no_number_lets_nobody_in_and_is_named(tmp_path, said):
    make_keys(tmp_path, ["a", "b"])
    path = tmp_path / "allow/b.key"
    path.write_text(path.read_text().replace("metadata\n", f"metadata\n    expires = {said}\n"))
    allowed, refused = load_allowed(tmp_path)
    assert list(allowed.values()) == ["a"]
    assert refused["b.key"].startswith(f"expires = {said or 'nothing'}: expected seconds since 1970")
    path.write_bytes(public_file(load_public(tmp_path / "allow/a.key"), 100.0).replace(b'"100"', b"1e2"))
    assert expiry_of(path) == 100.0


def test_a_bundle_has_one_robots_secret_and_no_other(keys, tmp_path):
    bundle(keys, "a", tmp_path)
    assert {p.name for p in tmp_path.rglob("*_secret")} == {"a.key_secret"}
    assert not list(tmp_path.rglob("*.pem"))
    assert load_robot_pair(tmp_path, "a") == load_robot_pair(keys, "a")
    assert load_public(tmp_path / "hub.key") == load_public(keys / "hub.key")


def zap(domain=b"fleet", mechanism=b"CURVE", credentials=(b"\0" * 32,)):
    return [b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, *credentials]


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        (zap(), b"400"),
        (zap(mechanism=b"NULL", credentials=()), b"400"),
        (zap(mechanism=b"PLAIN", credentials=(b"a", b"b")), b"400"),
        (zap(domain=b"elsewhere"), b"400"),
        (zap(domain=b"\xff\xfe"), b"500"),
        (zap(credentials=(b"short",)), b"500"),
        ([b"1.0", b"7"], b"500"),
        ([b"9.9", b"7", *zap()[2:]], b"500"),
        ([], b"500"),
    ],
)
def test_whatever_is_wrong_with_a_request_it_is_refused(keys, frames, status):
    reply = answer(AllowList(keys, b"admin-key"), frames)
    assert reply[2] == status
    assert reply[4] == b""  # no identity


def test_a_known_key_gets_the_robots_name_and_its_own_hash_as_identity(keys):
    public = load_public(keys / "allow/a.key")
    key = z85.decode(public)
    allow = AllowList(keys, b"admin-key")
    assert answer(allow, zap(credentials=(key,)))[2:5:2] == [b"200", f"a#{key_hash(public)}".encode()]
    assert answer(allow, zap(domain=b"admin", credentials=(key,)))[2] == b"400"


def test_removing_a_key_revokes_and_an_unreadable_folder_lets_nobody_in(tmp_path):
    make_keys(tmp_path, ["a", "b"])
    allow = AllowList(tmp_path, b"")
    assert allow.admits("a")
    assert not allow.refresh()
    (tmp_path / "allow/a.key").unlink()
    assert allow.refresh()
    assert (allow.admits("a"), allow.admits("b")) == (False, True)
    (tmp_path / "allow").rename(tmp_path / "gone")
    allow.refresh()
    assert allow.names == frozenset()


@pytest.fixture
def door(keys):
    """A CURVE server of the domain "fleet" on a random port, with its authenticator."""
    context = zmq.Context()
    hub = load_pair(keys / "hub.key_secret")
    allow = AllowList(keys, load_public(keys / "admin.key"))
    authenticator = Authenticator(context, allow)
    server = context.socket(zmq.ROUTER)
    secure_server(server, hub, "fleet")
    port = server.bind_to_random_port("tcp://127.0.0.1")
    yield context, allow, server, f"tcp://127.0.0.1:{port}", hub.public
    server.close(0)
    authenticator.close()
    context.destroy(0)


def test_the_self_test_passes_on_a_good_door_and_counts_no_denial(door):
    context, allow, server, endpoint, public = door
    self_test(context, allow, endpoint, server, public)
    assert allow.denied == 0


def test_the_self_test_finds_a_door_that_lets_anybody_in(door):
    context, allow, server, endpoint, public = door
    allow.decide = lambda domain, mechanism, key: type("D", (), {"status": 200, "text": "OK", "user_id": "x"})()
    with pytest.raises(SelfTestError, match="an unknown key was not refused"):
        self_test(context, allow, endpoint, server, public)


def test_the_self_test_finds_a_door_that_is_shut_for_everybody(door):
    context, allow, server, endpoint, public = door
    allow.decide = lambda domain, mechanism, key: type("D", (), {"status": 400, "text": "no", "user_id": ""})()
    with pytest.raises(SelfTestError, match="a known key was refused"):
        self_test(context, allow, endpoint, server, public)


def test_the_self_test_finds_a_door_without_a_lock(door):
    context, allow, _, _, public = door
    open_door = context.socket(zmq.ROUTER)
    port = open_door.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(SelfTestError, match="not a CURVE server"):
        self_test(context, allow, f"tcp://127.0.0.1:{port}", open_door, public)
    assert admitted(context, f"tcp://127.0.0.1:{port}", None, public) is True
    open_door.close(0)


def test_messages_carry_an_identity_the_sender_cannot_choose(door, keys):
    context, _, server, endpoint, public = door
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.ROUTING_ID, b"\x01i-am-b")
    secure_client(client, load_robot_pair(keys, "a"), public)
    client.connect(endpoint)
    client.send(b"hi")
    assert server.poll(3000)
    frames = server.recv_multipart(copy=False)
    assert frames[-1].get("User-Id") == f"a#{key_hash(load_public(keys / 'allow/a.key'))}"
    client.close(0)
