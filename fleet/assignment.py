"""Who runs what: small documents signed by the director's key. Pure.

An assignment names one robot and one artifact by the hash of its policy. Its generation only grows; a robot keeps the highest it has seen and
refuses anything older, so a recorded document cannot bring an old policy back. Rolling back is a newer assignment with the older policy.
Before the generation counts the term of the lease under which it was signed (`fleet.lease`).
Knowing the director's key is not enough to run something on a robot: the artifact must be in the signed catalogue too.
"""

from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from fleet.errors import (
    BannedPolicyError,
    ExpiredAssignmentError,
    ForgedAssignmentError,
    ForgedDocumentError,
    MisdirectedAssignmentError,
    ReplayedAssignmentError,
    StaleTermError,
)
from fleet.signed import seal, unseal

CONTEXT = b"flexor assignment 1\0"  # signed along, so that a signature of this key on anything else is not one on this
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Part = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_.-]{0,63}$")]


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact by name, version and the hash of its policy.onnx."""

    name: Part
    version: Part
    sha256: Sha256

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one robot should run.

    Attributes:
        robot: For whom.
        generation: Grows with every document the director signs.
        artifact: What; None leaves the choice to the robot: what it runs, or what it ran before if that is banned.
        rollout, stage, cohort: Which deployment, how far it is, and which group the robot is in.
        expires_s: UTC [s]; afterwards it is not to be activated.
        fallback: What to go back to when the artifact does not do.
        banned: Hashes of policies that must not run.
        shadow: What to run beside it, on the same observations and without acting; left out where there is none.
        term: Of the director's lease; left out where there is none, so that robots of the version before read it.
    """

    robot: str
    generation: Annotated[int, Meta(ge=1)]
    artifact: ArtifactRef | None
    rollout: str
    stage: str
    cohort: Literal["none", "control", "canary", "shadow"]
    expires_s: float
    fallback: ArtifactRef | None = None
    banned: tuple[Sha256, ...] = ()
    schema: int = 1
    term: Annotated[int, Meta(ge=0)] = 0
    shadow: ArtifactRef | None = None


def sign(assignment: Assignment, key: Ed25519PrivateKey) -> bytes:
    """The signed document."""
    return seal(assignment, key, CONTEXT)


def verify(document: bytes, key: Ed25519PublicKey) -> Assignment:
    """The assignment in a signed document. Nothing in it is read before the signature holds.

    Raises:
        ForgedAssignmentError: Not a document, not signed by the director, or not an assignment.
    """
    try:
        return unseal(document, key, CONTEXT, Assignment)
    except ForgedDocumentError as error:
        raise ForgedAssignmentError(
            f"an assignment that the director did not sign was refused ({error}); is trust/director.pub current?"
        ) from error


def accept(
    document: bytes,
    key: Ed25519PublicKey,
    *,
    robot: str,
    newest: tuple[int, int],
    newest_document: bytes,
    now_s: float,
    term: int = 0,
) -> Assignment:
    """Judge a document a robot was sent.

    Args:
        robot: Who we are.
        key: Of the director whose lease is in force.
        newest, newest_document: The highest (term, generation) accepted so far, and its bytes.
        now_s: UTC [s].
        term: Of the lease in force.

    Raises:
        ForgedAssignmentError, StaleTermError, MisdirectedAssignmentError, ReplayedAssignmentError, ExpiredAssignmentError, BannedPolicyError
    """
    assignment = verify(document, key)
    if assignment.robot != robot:
        raise MisdirectedAssignmentError(f"an assignment for {assignment.robot!r} was sent to {robot!r}; refused")
    if assignment.term != term:
        raise StaleTermError(f"assignment under term {assignment.term}; the lease in force has term {term}; refused")
    place = (assignment.term, assignment.generation)
    if place < newest or (place == newest and document != newest_document):
        raise ReplayedAssignmentError(
            f"assignment of generation {assignment.generation}: {newest[1]} was seen already, and it only grows; refused"
        )
    if now_s >= assignment.expires_s:
        raise ExpiredAssignmentError(
            f"assignment {assignment.generation} expired {now_s - assignment.expires_s:.0f} s ago; keeping what runs"
        )
    if assignment.artifact is not None and assignment.artifact.sha256 in assignment.banned:
        raise BannedPolicyError(
            f"assignment {assignment.generation} names {assignment.artifact.label}, which it bans itself"
        )
    return assignment
