"""Who may come in: the hub's answer to ZeroMQ's authentication requests (ZAP, RFC 27). Fails closed.

One thread answers; it knows three domains, "fleet" (robots on the allow list, and tokens that were not used yet), "hubs" (the other hubs) and
"admin" (the operator's key). No key, an unknown or revoked key, an unknown domain, a malformed request or an exception inside: refused. The
robot's name and the hash of its key become the connection's User-Id, so every message carries an identity that its sender cannot choose. Removing
a key stops new connections at once; live ones are stopped by asking `AllowList.admits` for every message (of the key, not only of the name: a
robot that got a new key does not bring back who holds the old one), and cut by `fleet.kick`.
"""

import logging
import math
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from fleet.enrol import ENROL, Kept, key_hash, load_tokens, opens
from fleet.errors import KeyFileError, SelfTestError
from fleet.keys import MARK, CurvePair, allow_files, expiry_of, load_allowed, load_hubs
from fleet.revocation import load_revoked

log = logging.getLogger(__name__)

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
FLEET, ADMIN, HUBS = "fleet", "admin", "hubs"
_WATCHED = ("allow", "revoked", "tokens", "hubs")
SELF_TEST_S = 5.0
_SELF_TEST_ID = "!self-test"  # no robot can be called that


@dataclass(frozen=True)
class Decision:
    """What the hub says to a connection: 200 and an identity, or 400 and why not."""

    status: int
    text: str
    user_id: str = ""


class AllowList:
    """The keys that may come in, held in memory and read again when the folder changes. Safe to share between threads."""

    def __init__(self, keys_folder: Path, admin_key: bytes, *, utc_s: Callable[[], float] = time.time) -> None:
        self._folder = keys_folder
        self._admin_key = admin_key
        self._utc_s = utc_s
        self._extra: dict[bytes, str] = {}
        self._stamp: object = None
        self._expires_s = math.inf  # when the next key's time is over
        self._robots: dict[bytes, str] = {}
        self._names: frozenset[str] = frozenset()
        self._tokens: dict[str, Kept] = {}
        self._hubs: dict[bytes, str] = {}
        self._users: frozenset[str] = frozenset()  # User-Ids of connections whose key or token counts now
        self._cut: set[str] = set()
        self.revoked: dict[bytes, bytes] = {}  # key -> the operator's document
        self.refused: dict[str, str] = {}
        self.denied = 0
        self.refresh()

    def refresh(self) -> bool:
        """Read the folder again if it changed or a key's time is over. When it cannot be read, nobody is allowed."""
        stamp, now_s = self._fingerprint(), self._utc_s()
        if stamp == self._stamp and stamp is not None and now_s < self._expires_s:
            return False
        self._expires_s = math.inf
        try:
            self.revoked, bad = load_revoked(self._folder)
            robots, refused = load_allowed(self._folder, now_s, {key_hash(key)[:MARK] for key in self.revoked})
            self._hubs, strange = load_hubs(self._folder)
            self._tokens = load_tokens(self._folder)
            ends = [expiry_of(p) for paths in allow_files(self._folder).values() for p in paths]
            self._expires_s = min((e for e in ends if e > now_s), default=math.inf)
            refused |= bad | strange
        except (OSError, KeyFileError, UnicodeDecodeError) as error:
            robots, refused, self._hubs, self._tokens = {}, {"allow": str(error)}, {}, {}
        for name, why in refused.items():
            if self.refused.get(name) != why:
                log.warning("%s lets nobody in: %s", name, why)
        robots = {key: name for key, name in robots.items() if key not in self.revoked}
        self._cut |= {name for key, name in self._robots.items() if key not in robots}
        self._robots, self.refused, self._stamp = robots, refused, stamp
        self._names = frozenset(robots.values())
        self._users = frozenset(
            {_user(name, key) for key, name in robots.items()}
            | {f"{ENROL}{kept.robot}#{kept.key_sha256}" for kept in self._tokens.values()}
        )
        return True

    def take_cut(self) -> set[str]:
        """Robots that lost a key since the last call: their connections are to be cut (one with another key comes back)."""
        cut, self._cut = self._cut, set()
        return cut

    @property
    def keys(self) -> dict[bytes, str]:
        """Public key -> robot, of all that count now."""
        return dict(self._robots)

    def admits(self, robot: str) -> bool:
        """Whether a connection's User-Id is still allowed; asked for every message. A token's is, until the token is used.

        A name without a key: whether any key of it counts.
        """
        if "#" in robot:
            return robot in self._users
        if robot in self._names:
            return True
        name = robot.removeprefix(ENROL)
        return name != robot and any(kept.robot == name for kept in self._tokens.values())

    def admits_hub(self, user_id: str) -> bool:
        """As `admits`, of another hub's connection."""
        return any(_user(name, key) == user_id for key, name in self._hubs.items() if key not in self.revoked)

    @property
    def names(self) -> frozenset[str]:
        return self._names

    def decide(self, domain: str, mechanism: bytes, key: bytes) -> Decision:
        """Judge one handshake."""
        if mechanism != b"CURVE":
            return self._deny(f"mechanism {mechanism!r}: a CURVE key is required")
        if domain == ADMIN:
            return Decision(200, "OK", "admin") if key == self._admin_key else self._deny("not the admin key")
        if domain == FLEET:
            name = self._robots.get(key) or self._extra.get(key)
            if not name and (robot := opens(self._tokens, key, self._utc_s())):
                name = ENROL + robot
            why = "this key was revoked" if key in self.revoked else "this key is not on the allow list"
            return Decision(200, "OK", _user(name, key)) if name else self._deny(why)
        if domain == HUBS:
            name = "" if key in self.revoked else self._hubs.get(key)
            return Decision(200, "OK", _user(name, key)) if name else self._deny("not the key of a hub in hubs/")
        return self._deny(f"unknown domain {domain!r}")

    def with_extra(self, key: bytes, name: str) -> "_Extra":
        """Allow one more key for the length of a `with` block (the self-test's)."""
        return _Extra(self._extra, key, name)

    def _deny(self, why: str) -> Decision:
        self.denied += 1
        return Decision(400, why)

    def _fingerprint(self) -> object:
        try:
            found = [] if (self._folder / "allow").is_dir() else [None]  # without it: read it again, and fail closed
            for folder in (self._folder / sub for sub in _WATCHED):
                if folder.is_dir():
                    found += [(str(p), s.st_mtime_ns, s.st_size) for p in folder.iterdir() for s in [p.stat()]]
            return None if None in found else tuple(sorted(found))  # type: ignore[type-var]
        except OSError:
            return None


def _user(name: str, key: bytes) -> str:
    return f"{name}#{key_hash(key)}"


class _Extra:
    def __init__(self, table: dict[bytes, str], key: bytes, name: str) -> None:
        self._table, self._key, self._name = table, key, name

    def __enter__(self) -> None:
        self._table[self._key] = self._name

    def __exit__(self, *_: object) -> None:
        self._table.pop(self._key, None)


class Authenticator:
    """The thread that answers ZAP requests of one context. Start it before any socket is bound."""

    def __init__(self, context: zmq.Context, allow: AllowList) -> None:
        self._allow = allow
        self._stop = threading.Event()
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, name="fleet-zap", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(50):
                self._socket.send_multipart(answer(self._allow, self._socket.recv_multipart()))
        self._socket.close()


def answer(allow: AllowList, frames: list[bytes]) -> list[bytes]:
    """The ZAP reply to a ZAP request. Whatever goes wrong, the reply is a refusal."""
    request_id = frames[1] if len(frames) > 1 else b""
    try:
        if len(frames) < 6 or frames[0] != b"1.0":
            raise ValueError(f"ZAP request of {len(frames)} frames")
        _, _, domain, address, _, mechanism, *credentials = frames
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials) == 1 else b""
        decision = allow.decide(domain.decode(), mechanism, key)
        if decision.status != 200:
            log.info("refused %s: %s", address.decode(errors="replace"), decision.text)
    except Exception as error:  # the top of a thread: fail closed, and say so
        log.exception("authentication request failed")
        decision = Decision(500, f"{type(error).__name__}")
    return [
        b"1.0",
        request_id,
        str(decision.status).encode(),
        decision.text.encode()[:255],
        decision.user_id.encode(),
        b"",
    ]


def secure_server(socket: zmq.Socket, pair: CurvePair, domain: str) -> None:
    """Make a socket a CURVE server of a domain; call it before bind."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def secure_client(socket: zmq.Socket, pair: CurvePair, server_public: bytes) -> None:
    """Make a socket a CURVE client; call it before connect."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)


def admitted(context: zmq.Context, endpoint: str, pair: CurvePair | None, server_public: bytes) -> bool | None:
    """Try the door: whether a handshake with this key succeeds, None when nobody answers."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(SELF_TEST_S * 1000))
    if pair is not None:
        secure_client(socket, pair, server_public)
    monitor = socket.get_monitor_socket()
    try:
        socket.connect(endpoint)
        until_s = time.monotonic() + SELF_TEST_S
        while (left_s := until_s - time.monotonic()) > 0:
            if not monitor.poll(int(left_s * 1000)):
                return None
            event = monitored(monitor)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return True
            if event in (
                zmq.EVENT_HANDSHAKE_FAILED_AUTH,
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
                zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
                zmq.EVENT_DISCONNECTED,
            ):
                return False
        return None
    finally:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)


def monitored(monitor: zmq.Socket) -> int:
    """The next event a socket's monitor tells of, one of `zmq.EVENT_...`. As `zmq.utils.monitor` does it, which loads asyncio to do so."""
    event, _address = monitor.recv_multipart()
    return struct.unpack_from("=H", event)[0]


def self_test(context: zmq.Context, allow: AllowList, endpoint: str, server: zmq.Socket, server_public: bytes) -> None:
    """Try the hub's own door before announcing it: nobody without a key, nobody with an unknown key, somebody with a known one.

    Raises:
        SelfTestError: The door is not a CURVE server, or any of the three went the other way.
    """
    if not server.getsockopt(zmq.CURVE_SERVER):
        raise SelfTestError(f"{endpoint}: the socket is not a CURVE server; it would let anybody in")
    public, secret = zmq.curve_keypair()
    pair = CurvePair(public=public, secret=secret)
    refusals = allow.denied
    for what, key, expected in (("no key", None, False), ("an unknown key", pair, False)):
        if admitted(context, endpoint, key, server_public) is not expected:
            raise SelfTestError(f"{endpoint}: a connection with {what} was not refused; the hub does not start")
    with allow.with_extra(public, _SELF_TEST_ID):
        if admitted(context, endpoint, pair, server_public) is not True:
            raise SelfTestError(f"{endpoint}: a connection with a known key was refused; the hub does not start")
    allow.denied = refusals
