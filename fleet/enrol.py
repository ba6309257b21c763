"""How a robot gets its first key in, and its next one: by a token that works once, or by its present key.

A token is itself a CURVE secret made for one use: the hub keeps only a hash of its public half (`D/tokens/NAME.json`, mode 600), admits it to the
control port as "!enrol:NAME", takes one message from it, and forgets it. So there is no door without a lock, and nothing on the hub's disk
from which a token could be made. The robot makes its own key pair; its secret never leaves it.

A second key of a robot does not end the first at once: both are good for `OVERLAP_S`, so that a robot that changes its key is never locked out.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from fleet.disk import Disk
from fleet.errors import KeyFileError, TokenError
from fleet.keys import (
    MARK,
    CurvePair,
    allow_files,
    checked_name,
    expiry_of,
    load_hub_public,
    load_public,
    public_file,
    vouchers_in,
)

ENROL = "!enrol:"  # what the identity of a token's connection begins with; no robot can be called that
OVERLAP_S = 24 * 3600.0
MAX_VOUCHERS = 200  # changes by the key before, after which a token is needed: what a key file lists stays small
MAX_KEYS = 3  # of one robot that count at a time: the one in use, the one before it, and one whose change was cut off
TOKEN_S = 3600.0
_PREFIX = "flx1"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """tokens/NAME.json."""

    robot: str
    key_sha256: str
    expires_s: float


@dataclass(frozen=True, kw_only=True)
class Token:
    """What the operator carries to the robot: whom to believe, and a key that opens once."""

    robot: str
    hub_public: bytes
    pair: CurvePair

    def __str__(self) -> str:
        raw = z85.decode(self.hub_public) + z85.decode(self.pair.secret)
        return f"{_PREFIX}.{self.robot}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"

    def __repr__(self) -> str:
        return f"Token(robot={self.robot!r})"


def parse_token(text: str) -> Token:
    """The token in its text.

    Raises:
        TokenError: It is none, or was cut off.
    """
    prefix, _, rest = text.strip().partition(".")
    robot, _, secret = rest.partition(".")
    try:
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    except (ValueError, binascii.Error):
        raw = b""
    if prefix != _PREFIX or len(raw) != 64:
        raise TokenError("expected a token like flx1.NAME.86-characters, as `flexor fleet token NAME` prints it")
    key = z85.encode(raw[32:])
    return Token(
        robot=checked_name(robot),
        hub_public=z85.encode(raw[:32]),
        pair=CurvePair(public=zmq.curve_public(key), secret=key),
    )


def make_token(folder: Path, robot: str, now_s: float, *, life_s: float = TOKEN_S, hub: str = "") -> Token:
    """A new token for a robot; one that was there before is void.

    Args:
        folder: The hub's key folder.
        now_s: UTC [s].
        hub: Name of the hub it is for, "" for the only one.
    """
    public, secret = zmq.curve_keypair()
    token = Token(
        robot=checked_name(robot),
        hub_public=load_hub_public(folder, hub),
        pair=CurvePair(public=public, secret=secret),
    )
    (folder / "tokens").mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = Kept(robot=token.robot, key_sha256=key_hash(public), expires_s=now_s + life_s)
    Disk().write_file(folder / f"tokens/{token.robot}.json", msgspec.json.encode(kept), mode=0o600)
    return token


def load_tokens(folder: Path) -> dict[str, Kept]:
    """Tokens that were not used yet: hash of the key -> token. A file that cannot be read opens nothing."""
    found = {}
    for path in (folder / "tokens").glob("*.json"):
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        except (msgspec.MsgspecError, OSError):
            continue
        if kept.robot == path.stem:
            found[kept.key_sha256] = kept
    return found


def opens(tokens: dict[str, Kept], key: bytes, now_s: float) -> str:
    """The robot a connection's key is a token of, "" when it is none or too old."""
    kept = next((k for h, k in tokens.items() if hmac.compare_digest(h, key_hash(key))), None)
    return kept.robot if kept is not None and now_s < kept.expires_s else ""


def admit_key(folder: Path, identity: str, robot: str, key: bytes, now_s: float, *, disk: Disk | None = None) -> Path:
    """Let a key in that a token or the robot's present key vouches for.

    A token is burnt before the key counts: a crash in between costs a token, never lets one be used twice.

    Args:
        folder: The hub's key folder.
        identity: Who is asking, as the door said: "!enrol:NAME" or a robot's name, with #HASH-OF-KEY behind it. The new key's file names that key
            and those it came by itself: where one of them is revoked, also later or on another hub, the new one does not count.
        robot: Whose key it is to be; nobody speaks for somebody else.
        key: New public key, Z85.

    Raises:
        TokenError: For another robot, the token is gone or too old, the robot has `MAX_KEYS` already, or what was sent is no key or somebody's.
    """
    disk = disk or Disk()
    identity, _, voucher = identity.partition("#")
    if robot != identity.removeprefix(ENROL):
        raise TokenError(f"{identity} asked for a key of {robot!r}; only one's own")
    try:
        if len(key) != 40 or len(z85.decode(key)) != 32:
            raise ValueError("length")
    except (ValueError, KeyError, struct.error) as error:
        raise TokenError(f"expected a public key of 40 characters, got {len(key)}") from error
    present: dict[Path, bytes] = {}  # the robot's own keys that count
    for other, paths in allow_files(folder).items():
        for path in paths:
            try:
                held = load_public(path)
            except KeyFileError:
                continue  # it lets nobody in, and keeps nobody out
            if held == key:
                if other == robot:
                    return path  # asked twice: the answer was lost
                raise TokenError("this key is another robot's; make a fresh one")
            if other == robot:
                present[path] = held
    for path in [p for p in present if expiry_of(p) <= now_s]:
        disk.unlink(path)
        del present[path]
    if len(present) >= MAX_KEYS:
        raise TokenError(
            f"{robot!r} has {len(present)} keys that count already; wait until one's time is over ({OVERLAP_S / 3600.0:g} h), or revoke them: "
            f"flexor fleet revoke {robot}"
        )
    if identity.startswith(ENROL):
        path = folder / f"tokens/{robot}.json"
        kept = next((k for k in load_tokens(folder).values() if k.robot == robot), None)
        if kept is None or now_s >= kept.expires_s:
            raise TokenError(f"the token of {robot!r} is used or too old; do: flexor fleet token {robot}")
        disk.unlink(path)
        disk.sync_folder(path.parent)
    vouchers: tuple[str, ...] = ()
    if not identity.startswith(ENROL):
        before = next(
            (vouchers_in(path.read_text()) for path, held in present.items() if key_hash(held) == voucher), ()
        )
        vouchers = (*before, voucher[:MARK]) if voucher else before
        if len(vouchers) > MAX_VOUCHERS:
            raise TokenError(f"the key of {robot!r} was changed {MAX_VOUCHERS} times; do: flexor fleet token {robot}")
    for path, held in present.items():
        if expiry_of(path) > now_s + OVERLAP_S:
            disk.write_file(path, public_file(held, now_s + OVERLAP_S, vouchers_in(path.read_text())))
    target = folder / f"allow/{robot}.{key_hash(key)[:8]}.key"
    disk.write_file(target, public_file(key, vouchers=vouchers))
    return target


def trust_files(folder: Path) -> dict[str, bytes]:
    """What a robot is born with: the hubs' public keys and whose signatures count."""
    paths = [*folder.glob("hub*.key"), *(folder / "hubs").glob("*.key"), *(folder / "trust").iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths) if path.is_file()}


def key_hash(key: bytes) -> str:
    """Under which a key is known where the key itself is not needed."""
    return hashlib.sha256(key).hexdigest()
