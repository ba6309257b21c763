"""Typed messages of FLX1. Fields are never renamed or retyped; new ones carry a default, so old bytes stay readable.

Also what the event stream carries (`EpisodeResult`) and what a declared loss says (`Tombstone`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Sha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
Text = Annotated[str, Meta(max_length=4096)]
Cursors = dict[int, int]  # stream -> sequence number


class Hello(msgspec.Struct, tag="hello", frozen=True, kw_only=True):
    """Robot to hub, first on a connection: who I am, which spool, what is in it.

    Attributes:
        robot: For the log; the authenticated name counts, a difference is refused.
        epoch: Life of the spool.
        first: Per stream, the lowest sequence number still in the spool.
        recorded: Per stream, the highest.
        contracts: Hashes of the contracts the robot's experience follows; the hub asks for unknown ones.
    """

    robot: Text
    epoch: int
    first: Cursors = {}
    recorded: Cursors = {}
    contracts: tuple[Sha256, ...] = ()
    version: Text = ""


class Welcome(msgspec.Struct, tag="welcome", frozen=True, kw_only=True):
    """Hub's answer: what of this epoch is on its disk, and how much may be under way.

    Attributes:
        digests: Rolling digests at the cursors: a robot whose own differ has other records under those numbers.
    """

    hub: Text
    epoch: int
    cursors: Cursors
    digests: dict[int, bytes] = {}
    credit_bytes: int
    heartbeat_s: float
    unknown_contracts: tuple[Sha256, ...] = ()


class Schema(msgspec.Struct, tag="schema", frozen=True, kw_only=True):
    """The contract a hash is of, as canonical JSON."""

    sha256: Sha256
    text: Annotated[str, Meta(max_length=60_000)]


class Put(msgspec.Struct, tag="put", frozen=True, kw_only=True):
    """One record; all it says is in the envelope and the payload."""


class Ack(msgspec.Struct, tag="ack", frozen=True, kw_only=True):
    """All up to these cursors is on the hub's disk."""

    epoch: int
    cursors: Cursors
    credit_bytes: int


class Nack(msgspec.Struct, tag="nack", frozen=True, kw_only=True):
    """A record was not taken; go back to after the cursor.

    Attributes:
        why: "gap": something before it is missing; "nospace": the hub's disk is full, wait; "conflict": the hub holds another record under
            this number, take a new epoch.
    """

    epoch: int
    stream: int
    cursor: int
    why: Literal["gap", "nospace", "conflict"]
    seq: int = 0
    detail: Text = ""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What a robot lived through with one policy since its process started; for display (the event stream is what counts)."""

    policy_sha256: Sha256
    artifact: Text = ""
    episodes: int = 0
    successes: int = 0
    falls: int = 0
    return_sum: float = 0.0
    seconds: float = 0.0


class Heartbeat(msgspec.Struct, tag="hb", frozen=True, kw_only=True):
    """Robot to hub, once a second."""

    state: Literal["running", "idle", "probation", "safe", "stopping"]
    policy_sha256: Sha256 = ""
    artifact: Text = ""
    slot: Literal["active", "previous", "none"] = "none"
    generation: int = 0
    rollout: Text = ""
    recorded: Cursors = {}
    recorded_items: Cursors = {}
    spool_bytes: int = 0
    spool_oldest_s: float = 0.0
    dropped_records: int = 0
    tally: Tally | None = None
    refused: Text = ""


class HeartbeatOk(msgspec.Struct, tag="hbok", frozen=True, kw_only=True):
    """Hub's answer. `assignment` is a signed document, sent while the robot reports an older generation.

    Cursors and credit repeat the last ACK, so that one which was lost does no harm.
    """

    generation: int = 0
    assignment: Annotated[bytes, Meta(max_length=16_384)] = b""
    cursors: Cursors = {}
    credit_bytes: int = 0


class Get(msgspec.Struct, tag="get", frozen=True, kw_only=True):
    """Ask for a piece of a catalogue file."""

    path: Annotated[str, Meta(max_length=512)]
    offset: Annotated[int, Meta(ge=0)] = 0
    size: Annotated[int, Meta(ge=1, le=1024 * 1024)] = 256 * 1024
    ticket: int = 0


class Piece(msgspec.Struct, tag="chunk", frozen=True, kw_only=True):
    """The piece, in the payload. `total` is the file's size, -1 when there is no such file."""

    path: Annotated[str, Meta(max_length=512)]
    offset: int
    total: int
    ticket: int = 0


class Audit(msgspec.Struct, tag="audit", frozen=True, kw_only=True):
    """Hub asks with its cursor and digest, the robot answers with its own digest at the same number (or its lowest, if that is gone).

    Attributes:
        digest: Rolling BLAKE2b over (seq, crc) of all records up to `seq`, 16 bytes; b"" where it cannot be known any more.
        recorded: The robot's highest number of the stream.
    """

    stream: int
    epoch: int
    seq: int
    digest: Annotated[bytes, Meta(max_length=16)]
    recorded: int = 0


class Bye(msgspec.Struct, tag="bye", frozen=True, kw_only=True):
    """The robot leaves on purpose."""

    reason: Text = ""


class Err(msgspec.Struct, tag="err", frozen=True, kw_only=True):
    """Something is wrong with what was sent.

    Attributes:
        code: "version", "malformed", "identity" (not the authenticated name or session), "session" (say hello first), "revoked",
            "replaced" (the same key said hello from elsewhere).
    """

    code: Literal["version", "malformed", "identity", "session", "revoked", "replaced"]
    detail: Text = ""


class Ask(msgspec.Struct, tag="ask", frozen=True, kw_only=True):
    """Operator to hub, on the admin socket."""

    command: Text
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct, tag="answer", frozen=True, kw_only=True):
    """Hub to operator."""

    ok: bool
    error: Text = ""
    body: dict[str, Any] = {}


Message = (
    Hello
    | Welcome
    | Schema
    | Put
    | Ack
    | Nack
    | Heartbeat
    | HeartbeatOk
    | Get
    | Piece
    | Audit
    | Bye
    | Err
    | Ask
    | Answer
)

# Codes are for ever; a retired one is not used again.
MESSAGE_CODES: dict[type, int] = {
    Hello: 1,
    Welcome: 2,
    Schema: 3,
    Put: 4,
    Ack: 5,
    Nack: 6,
    Heartbeat: 7,
    HeartbeatOk: 8,
    Get: 10,
    Piece: 11,
    Ask: 12,
    Audit: 13,
    Bye: 14,
    Err: 15,
    Answer: 16,
}


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a TOMBSTONE record: these records were dropped on the robot, on purpose and for a reason.

    The record's own number is `last`. The digests let the audit go on behind the hole.
    """

    first: int
    last: int
    reason: Text
    payload_bytes: int
    items: int = 0
    digest_before: Annotated[bytes, Meta(max_length=16)]
    digest_after: Annotated[bytes, Meta(max_length=16)]


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of an event record: how one episode went. Verdicts on policies are counted from these, each exactly once.

    Attributes:
        falls: Falls, drops, emergency stops: whatever the task calls a failure that hurts.
        trips: Safety limits that fired.
    """

    episode_id: str
    policy_sha256: Sha256
    artifact: Text
    rollout: Text
    stage: Text
    generation: int
    cohort: Literal["none", "control", "canary", "shadow"]
    explored: bool
    return_: float
    success: bool
    steps: int
    seconds: float
    falls: int = 0
    trips: int = 0
    time_ns: int = 0
