"""What the gateway asks of the hub's key folder, and the robot's side of getting or changing a key."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from fleet.auth import AllowList
from fleet.disk import Disk
from fleet.enrol import Token, admit_key, trust_files
from fleet.errors import HubAwayError, KeyFileError, LooseSecretError, TokenError, WireError
from fleet.keys import CurvePair, checked_name, load_pair, load_public, load_robot_pair, secret_file
from fleet.messages import Enrol, Enrolled, Err
from fleet.sockets import dial
from fleet.wire import decode, encode

log = logging.getLogger(__name__)

Endpoint = tuple[str, int]


class KeyFolder:
    """The hub's keys, as far as messages may change them."""

    def __init__(self, folder: Path, allow: AllowList, *, utc_s: Callable[[], float] = time.time) -> None:
        self._folder, self._allow, self._utc_s = folder, allow, utc_s

    def enrol(self, connection: str, enrol: Enrol) -> Enrolled:
        """Let a new key in, or say why not.

        Args:
            connection: Who asks, as the door said: NAME#HASH-OF-KEY. Its key must count now, not only when the folder was last looked at.
        """
        identity = connection.partition("#")[0]
        self._allow.refresh()
        if not self._allow.admits(connection):
            log.warning("a key of %s was not taken: its own is no longer allowed", identity)
            return Enrolled(error="this key is no longer allowed")
        try:
            admit_key(self._folder, connection, enrol.robot, enrol.key, self._utc_s())
        except (TokenError, KeyFileError, OSError) as error:
            log.warning("a key of %s was not taken: %s", identity, error)
            return Enrolled(error=str(error))
        self._allow.refresh()
        log.warning("%s has a new key", enrol.robot)
        return Enrolled(files=trust_files(self._folder))

    def next_hub_key(self) -> bytes:
        path = self._folder / "hub.next.key"
        try:
            return load_public(path) if path.exists() else b""
        except KeyFileError as error:
            log.warning("%s", error)
            return b""


def enrol(token: Token, hub: Endpoint, folder: Path, *, timeout_s: float = 10.0) -> None:
    """Make this robot's own key, have it let in by a token, and keep what the hub answers. Also gives a robot that has a key a new one.

    Args:
        hub: Host and control port.
        folder: The robot's key folder, made if missing.

    Raises:
        HubAwayError: Nobody answered, or the token is used, too old, or another hub's.
        TokenError: The hub refused; the message says why.
    """
    _change(token.robot, token.pair, token.hub_public, hub, folder, timeout_s)


def rotate(name: str, hub: Endpoint, folder: Path, *, timeout_s: float = 10.0) -> None:
    """Change a robot's key while it works: the new one is let in before the old one goes, and both are good for a day.

    Raises:
        HubAwayError, TokenError: As in `enrol`; the present key stays.
        UnknownNameError, LooseSecretError, KeyFileError: There is no present key.
    """
    _change(name, load_robot_pair(folder, name), load_public(folder / "hub.key"), hub, folder, timeout_s)


def _change(name: str, door: CurvePair, hub_public: bytes, hub: Endpoint, folder: Path, timeout_s: float) -> None:
    disk, robots = Disk(), folder / "robots"
    for sub in ("", "robots", "trust", "hubs"):
        (folder / sub).mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = robots / f"{checked_name(name)}.next.key_secret"
    try:
        pair = load_pair(draft)  # a change that was cut off: the hub may have taken this key
    except LooseSecretError:
        raise
    except KeyFileError:
        public, secret = zmq.curve_keypair()
        pair = CurvePair(public=public, secret=secret)
        disk.write_file(draft, secret_file(pair), mode=0o600)
    answer = _ask(name, door, hub_public, hub, pair.public, timeout_s)
    if answer.error:
        raise TokenError(f"hub {hub[0]}:{hub[1]}: {answer.error}")
    for path, data in answer.files.items():
        parts = Path(path).parts
        if not 1 <= len(parts) <= 2 or ".." in parts or parts[0] in ("robots", "/") or Path(path).is_absolute():
            raise TokenError(f"the hub sent a file {path!r}, which is none a robot is born with")
        target = folder / path
        if not target.exists():  # what is here is believed before what a hub says
            disk.write_file(target, data)
    disk.rename(draft, robots / f"{name}.key_secret")


def _ask(name: str, door: CurvePair, hub_public: bytes, hub: Endpoint, key: bytes, timeout_s: float) -> Enrolled:
    context = zmq.Context()
    socket = dial(context, door, hub_public, f"tcp://{hub[0]}:{hub[1]}")
    away = HubAwayError(
        f"hub {hub[0]}:{hub[1]} did not answer in {timeout_s:g} s: not there, not the hub of this token, or the token is used or too old"
    )
    try:
        if not socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            raise away
        socket.send_multipart(encode(Enrol(robot=name, key=key)))
        if not socket.poll(int(timeout_s * 1000)):
            raise away
        try:
            answer = decode(socket.recv_multipart()).message
        except WireError as error:
            raise TokenError(f"the hub's answer could not be read: {error}") from error
        if isinstance(answer, Err):
            raise TokenError(f"hub {hub[0]}:{hub[1]}: {answer.code}: {answer.detail}")
        if not isinstance(answer, Enrolled):
            raise TokenError(f"expected an answer to ENROL, got {type(answer).__name__}")
        return answer
    finally:
        socket.close(0)
        context.destroy(0)
