"""Who may direct the fleet: a lease with a term, signed by the operator.

There is one director at a time, and it is the operator who says which hub's: moving it is a human act, not an election. Every assignment carries
the term under which it was signed. Hubs and robots keep the highest term they have seen and refuse anything below it, so a hub that was cut off and
does not know yet that it lost the lease can do no harm to anybody who does. Without a lease the term is 0 and the only hub directs.
"""

import contextlib
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from fleet.disk import Disk
from fleet.errors import ForgedDocumentError
from fleet.keys import load_signing_key, load_verifier
from fleet.signed import seal, unseal

CONTEXT = b"flexor lease 1\0"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to direct.

    Attributes:
        term: Grows with every lease.
        hub: Name of the hub that holds it.
        director: Public key its assignments are signed with, hex.
        time_s: UTC [s]; for display.
    """

    term: Annotated[int, Meta(ge=1)]
    hub: str
    director: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    time_s: float

    @property
    def key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.director))


def sign(lease: Lease, key: Ed25519PrivateKey) -> bytes:
    """The signed document."""
    return seal(lease, key, CONTEXT)


def verify(document: bytes, key: Ed25519PublicKey) -> Lease:
    """The lease in a signed document.

    Raises:
        ForgedDocumentError: The operator did not sign it.
    """
    return unseal(document, key, CONTEXT, Lease)


class Authority:
    """The highest lease seen so far; `offer` it every one that comes by.

    Args:
        operator: Whose signature counts.
        document: The lease kept from before, b"" for none.
    """

    def __init__(self, operator: Ed25519PublicKey, document: bytes = b"") -> None:
        self._operator = operator
        self.document = b""
        self.lease: Lease | None = None
        self.refused = 0  # documents that were forged or of a lower term
        if document:
            self.offer(document)

    @property
    def term(self) -> int:
        return self.lease.term if self.lease else 0

    def offer(self, document: bytes) -> bool:
        """Take a lease if it is the operator's and of a higher term; returns whether it was."""
        if document == self.document:
            return False
        try:
            lease = verify(document, self._operator)
        except ForgedDocumentError:
            self.refused += 1
            return False
        if lease.term <= self.term:
            self.refused += lease.term < self.term
            return False
        self.document, self.lease = document, lease
        return True


def grant(keys: Path, hub: str, now_s: float) -> Lease:
    """Sign the next lease: `hub` directs from now on. Kept in `keys/lease`, from where a hub on this folder takes it and tells the others.

    Raises:
        LooseSecretError, KeyFileError: The operator's signing key is missing or open to others.
        ForgedDocumentError: The lease that is there is none of this operator's.
    """
    path = keys / "lease"
    before = verify(path.read_bytes(), load_verifier(keys, "operator")).term if path.exists() else 0
    director = load_verifier(keys, "director").public_bytes_raw().hex()
    lease = Lease(term=before + 1, hub=hub, director=director, time_s=now_s)
    Disk().write_file(path, sign(lease, load_signing_key(keys, "operator")))
    return lease


def load_authority(keys: Path, folder: Path) -> Authority | None:
    """The highest lease a hub knows; None in a key folder from before there were leases."""
    if not (keys / "trust/operator.pub").exists():
        return None
    authority = Authority(load_verifier(keys, "operator"))
    for path in (folder / "lease", keys / "lease"):
        with contextlib.suppress(FileNotFoundError):
            authority.offer(path.read_bytes())
    return authority
