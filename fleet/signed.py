"""Small signed documents: an ed25519 signature over a context and canonical JSON. Pure.

The context is signed along, so a signature of a key on one kind of document is none on another kind.
"""

from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet.errors import ForgedDocumentError

T = TypeVar("T", bound=msgspec.Struct)


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A document and its signature."""

    payload: bytes
    signature: bytes


def seal(content: msgspec.Struct, key: Ed25519PrivateKey, context: bytes) -> bytes:
    """The signed document."""
    payload = msgspec.json.encode(content, order="deterministic")
    return msgspec.msgpack.encode(Signed(payload=payload, signature=key.sign(context + payload)))


def unseal(document: bytes, key: Ed25519PublicKey, context: bytes, type: type[T]) -> T:
    """What a signed document says. Nothing in it is read before the signature holds.

    Raises:
        ForgedDocumentError: Not a document, not signed with this key, or not of this kind.
    """
    try:
        signed = msgspec.msgpack.decode(document, type=Signed)
        key.verify(signed.signature, context + signed.payload)
    except (msgspec.MsgspecError, InvalidSignature, ValueError) as error:
        raise ForgedDocumentError(f"a {type.__name__} without a good signature ({error.__class__.__name__})") from error
    try:
        return msgspec.json.decode(signed.payload, type=type)
    except msgspec.MsgspecError as error:
        raise ForgedDocumentError(f"signed, but no {type.__name__} of a schema known here: {error}") from error
