"""Revoked keys: a set of small documents signed by the operator. It only grows, so hubs that met later merge theirs without asking who was first.

    D/revoked/<first half of the key's sha256>.rev

A revoked key stays out even if a file of it comes back to `allow/` (from a backup, from a hub that had not heard of it). A robot comes back with a
new key: `flexor fleet token NAME`.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet.disk import Disk
from fleet.errors import ForgedDocumentError, KeyFileError
from fleet.keys import allow_files, load_public, load_signing_key, load_verifier
from fleet.signed import seal, unseal
from robot.errors import UnknownNameError

CONTEXT = b"flexor revocation 1\0"
SETTLE_S = 1.0  # a hub takes a key in far less; it looks at the folder first
MAX_LOOKS = 10


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One key that must not come in any more.

    Attributes:
        key: Public CURVE key, Z85.
        time_s: UTC [s]; for display.
    """

    key: str
    robot: str
    why: str
    time_s: float


def sign(revocation: Revocation, key: Ed25519PrivateKey) -> bytes:
    """The signed document."""
    return seal(revocation, key, CONTEXT)


def verify(document: bytes, key: Ed25519PublicKey) -> Revocation:
    """The revocation in a signed document.

    Raises:
        ForgedDocumentError: The operator did not sign it.
    """
    return unseal(document, key, CONTEXT, Revocation)


def keep(folder: Path, document: bytes, revocation: Revocation, *, disk: Disk | None = None) -> Path:
    """Put a verified document where it counts; keeping it twice is keeping it once."""
    path = folder / "revoked" / f"{hashlib.sha256(revocation.key.encode()).hexdigest()[:32]}.rev"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (disk or Disk()).write_file(path, document)
    return path


def load_revoked(folder: Path) -> tuple[dict[bytes, bytes], dict[str, str]]:
    """Revoked keys: key -> its document, and the files that are no revocations: file -> why."""
    found: dict[bytes, bytes] = {}
    bad: dict[str, str] = {}
    paths = sorted((folder / "revoked").glob("*.rev"))
    if not paths:
        return found, bad
    operator = load_verifier(folder, "operator")
    for path in paths:
        try:
            document = path.read_bytes()
            found[verify(document, operator).key.encode()] = document
        except (ForgedDocumentError, OSError) as error:
            bad[path.name] = str(error)
    return found, bad


def revoke(
    folder: Path,
    robot: str,
    why: str,
    now_s: float,
    *,
    disk: Disk | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Revocation]:
    """Revoke every key of a robot. A running hub that reads this folder cuts its connections within a second.

    Who holds a key may be changing it right now: so the folder is looked at again after `SETTLE_S`, until nothing of the robot is in it. A key that
    was let in by one that is revoked must have come before the hub knew, and is found then.

    Args:
        pause: Waits some seconds.

    Raises:
        UnknownNameError: The robot has no key here; those who have are listed.
        LooseSecretError, KeyFileError: The operator's signing key is missing or open to others.
    """
    files = allow_files(folder)
    if robot not in files:
        raise UnknownNameError(f"robot in {folder}/allow", robot, sorted(files))
    signer = load_signing_key(folder, "operator")
    done: list[Revocation] = []
    for _ in range(MAX_LOOKS):
        for path in allow_files(folder).get(robot, []):
            with contextlib.suppress(KeyFileError):  # one that is no key let nobody in
                revocation = Revocation(key=load_public(path).decode(), robot=robot, why=why, time_s=now_s)
                keep(folder, sign(revocation, signer), revocation, disk=disk)
                if all(revocation.key != before.key for before in done):
                    done.append(revocation)
            path.unlink(missing_ok=True)
        pause(SETTLE_S)
        if robot not in allow_files(folder):
            break
    return done
