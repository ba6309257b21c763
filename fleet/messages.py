"""Typed messages of FLX1. Fields are never renamed or retyped; new ones carry a default, so old bytes stay readable.

Also what the event stream carries (`EpisodeResult`) and what a declared loss says (`Tombstone`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Sha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
Text = Annotated[str, Meta(max_length=4096)]
Cursors = dict[int, int]  # stream -> sequence number
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0, le=1e15)]  # refuses NaN and infinity too
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]  # a sum of squares of these stays a float
Whole = Annotated[int, Meta(ge=0, le=1_000_000_000)]
MAX_COUNT = (
    1 << 40
)  # of records, bytes, steps of one line: 1000 a second for 30 years; sums of a fleet's stay below 2**64
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
AckLevel = Literal["local", "peer"]  # acknowledged when on one hub's disk, or only when on another hub's too
Skills = Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)]


class Hello(msgspec.Struct, tag="hello", frozen=True, kw_only=True):
    """Robot to hub, first on a connection: who I am, which spool, what is in it.

    Attributes:
        robot: For the log; the authenticated name counts, a difference is refused.
        epoch: Life of the spool.
        first: Per stream, the lowest sequence number still in the spool.
        recorded: Per stream, the highest.
        contracts: Hashes of the contracts the robot's experience follows; the hub asks for unknown ones.
        ack: From when on the robot wants to be told that it may forget a record.
    """

    robot: Text
    epoch: int
    first: Cursors = {}
    recorded: Cursors = {}
    contracts: Annotated[tuple[Sha256, ...], Meta(max_length=256)] = ()
    version: Text = ""
    ack: AckLevel = "local"


class Welcome(msgspec.Struct, tag="welcome", frozen=True, kw_only=True):
    """Hub's answer: what of this epoch is on its disk, and how much may be under way.

    Attributes:
        ack: What `cursors` here and in later answers mean. Where it is "peer", `held` says what is on this hub's disk, which need not be sent again.
        digests: Rolling digests at what is held: a robot whose own differ has other records under those numbers.
        batches: Whether the hub reads PUTS.
        next_hub_key: The key this hub is going to have, while it is being changed.
    """

    hub: Text
    epoch: int
    cursors: Cursors
    digests: dict[int, bytes] = {}
    credit_bytes: int
    heartbeat_s: float
    batches: bool = False
    next_hub_key: Annotated[bytes, Meta(max_length=40)] = b""
    ack: AckLevel = "local"
    held: Cursors = {}
    unknown_contracts: tuple[Sha256, ...] = ()


class Schema(msgspec.Struct, tag="schema", frozen=True, kw_only=True):
    """The contract a hash is of, as canonical JSON."""

    sha256: Sha256
    text: Annotated[str, Meta(max_length=60_000)]


class Put(msgspec.Struct, tag="put", frozen=True, kw_only=True):
    """One record; all it says is in the envelope and the payload."""


class Puts(msgspec.Struct, tag="puts", frozen=True, kw_only=True):
    """Several small records of one stream in one message, numbered from the envelope's `seq` on; their bytes follow one another in the payload.

    Each has a checksum of its own, so the envelope carries none. Only for a hub that said `batches`, and never tombstones.
    """

    sizes: Annotated[tuple[int, ...], Meta(max_length=256)]
    crcs: Annotated[tuple[int, ...], Meta(max_length=256)]
    items: Annotated[tuple[int, ...], Meta(max_length=256)]
    times_ns: Annotated[tuple[int, ...], Meta(max_length=256)]


class Ack(msgspec.Struct, tag="ack", frozen=True, kw_only=True, omit_defaults=True):
    """All up to these cursors is on the hub's disk, or on two hubs' disks where the robot asked for that; then `held` is what is on this one's."""

    epoch: int
    cursors: Cursors
    credit_bytes: int
    held: Cursors = {}


class Nack(msgspec.Struct, tag="nack", frozen=True, kw_only=True):
    """A record was not taken; go back to after the cursor.

    Attributes:
        why: "gap": something before it is missing; "nospace": the hub's disk is full, wait; "conflict": the hub holds another record under
            this number, take a new epoch; "credit": far more is under way than it was told.
    """

    epoch: int
    stream: int
    cursor: int
    why: Literal["gap", "nospace", "conflict", "credit"]
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
    """Robot to hub, once a second.

    Attributes:
        battery, battery_j: Charge, 0 to 1, and what is left of it [J]; None where the robot has no battery or does not know.
        energy_j, power_w: Taken by the robot since its process started [J], and now [W]; `energy_source` says measured or modelled.
        skills: Names of the artifacts it can run now: what jobs it can do.
        wants_job: Whether it would take one.
        job, job_lease: The job it is doing.
        shadow_sha256, shadow_steps, shadow_bad: A candidate that watches: how long, and at how many steps it failed.
        shadow_difference: Mean absolute difference of its actions to those that were taken.
        generation, term: Of the newest assignment accepted.
        lease_term: Of the newest director's lease known.
    """

    state: Literal["running", "idle", "probation", "safe", "stopping"]
    policy_sha256: Sha256 = ""
    artifact: Text = ""
    slot: Literal["active", "previous", "none"] = "none"
    generation: int = 0
    term: int = 0
    lease_term: int = 0
    shadow_sha256: Sha256 = ""
    shadow_steps: int = 0
    shadow_bad: int = 0
    shadow_difference: Amount = 0.0
    rollout: Text = ""
    recorded: Cursors = {}
    recorded_items: Cursors = {}
    spool_bytes: int = 0
    spool_oldest_s: float = 0.0
    dropped_records: int = 0
    tally: Tally | None = None
    refused: Text = ""
    robot_model: Text = ""
    battery: Share | None = None
    battery_j: Amount = 0.0
    energy_j: Amount = 0.0
    energy_source: Text = ""
    power_w: Amount = 0.0
    skills: Skills = ()
    wants_job: bool = False
    job: Text = ""
    job_lease: int = 0


UNSURE = -1  # as a job's lease: this hub cannot say just now whether it stands


class JobTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is given to one robot.

    Attributes:
        hub: Whose queue it is of, "*" for one that hubs share; lease numbers are this queue's.
        lease: Grows with every job given out. A result that carries an older lease than the job's is refused.
        lease_s: Without a heartbeat that names the job for this long, it goes to somebody else; the robot gives up before that.
        skill: Name of the artifact that does it.
        repeats, tries: Episodes that must succeed; episodes that may fail before the job has failed.
        budget_j: Joules it may cost, 0 for no limit.
    """

    id: Text
    hub: Text
    lease: int
    lease_s: float
    task: Text
    place: Text = ""
    skill: Text
    repeats: int = 1
    tries: int = 3
    budget_j: float = 0.0


class HeartbeatOk(msgspec.Struct, tag="hbok", frozen=True, kw_only=True):
    """Hub's answer. `assignment` is a signed document, sent while the robot reports an older generation; `lease` likewise, who directs.

    `job` is sent until the robot names it; `job_lease` is the lease the hub holds for this robot, 0 for none: a job under another one is void.
    `job_term` is the term of the director's lease it knows of: a robot that knows a higher one does not listen to what it says of jobs.

    Cursors, `held` and credit repeat the last ACK, so that one which was lost does no harm.
    """

    generation: int = 0
    lease: Annotated[bytes, Meta(max_length=2048)] = b""
    assignment: Annotated[bytes, Meta(max_length=16_384)] = b""
    cursors: Cursors = {}
    held: Cursors = {}
    credit_bytes: int = 0
    job: JobTicket | None = None
    job_lease: int = 0
    job_term: int = 0


class Get(msgspec.Struct, tag="get", frozen=True, kw_only=True):
    """Ask for a piece of a catalogue file."""

    path: Annotated[str, Meta(max_length=512)]
    offset: Count = 0
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


class Enrol(msgspec.Struct, tag="enrol", frozen=True, kw_only=True):
    """Robot to hub: let this public key in as mine. From a connection with a token, or with the robot's present key."""

    robot: Text
    key: Annotated[bytes, Meta(max_length=64)]


class Enrolled(msgspec.Struct, tag="enrolled", frozen=True, kw_only=True):
    """It is let in (`error` is ""), and these are the files a robot is born with."""

    files: dict[str, bytes] = {}
    error: Text = ""


class Gossip(msgspec.Struct, tag="gossip", frozen=True, kw_only=True):
    """Hub to hub: tell me what changed. `have` is the digest of every section as I last heard it from you.

    Attributes:
        parts: Parts of large sections that are here; None from a hub that takes none.
    """

    have: dict[Text, bytes] = {}
    parts: list[Text] | None = None


class Gossiped(msgspec.Struct, tag="gossiped", frozen=True, kw_only=True):
    """The sections that are new, compressed, in the payload; `left` others did not fit and come next time.

    Attributes:
        log: Which log this is; another one after a hub lost its disk.
    """

    hub: Text
    log: Text
    left: int = 0


class Pull(msgspec.Struct, tag="pull", frozen=True, kw_only=True):
    """Hub to hub: your log from here on. `log` names the asker's own: only of that one counts what it said it holds."""

    segment: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    log: Text = ""


class Pulled(msgspec.Struct, tag="pulled", frozen=True, kw_only=True):
    """Records of the log, in the payload, and where to go on. Those the asker has already are left out."""

    log: Text
    segment: int
    offset: int
    more: bool


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
    | Puts
    | Ack
    | Nack
    | Heartbeat
    | HeartbeatOk
    | Get
    | Piece
    | Audit
    | Bye
    | Err
    | Enrol
    | Enrolled
    | Gossip
    | Gossiped
    | Pull
    | Pulled
    | Ask
    | Answer
)

# Codes are for ever; a retired one is not used again.
MESSAGE_CODES: dict[type[Message], int] = {
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
    Enrol: 17,
    Enrolled: 18,
    Gossip: 19,
    Gossiped: 20,
    Pull: 21,
    Pulled: 22,
    Puts: 23,
}


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a TOMBSTONE record: these records were dropped on the robot, on purpose and for a reason.

    The record's own number is `last`. The digests let the audit go on behind the hole.
    """

    first: Count
    last: Count
    reason: Text
    payload_bytes: Count
    items: Count = 0
    digest_before: Annotated[bytes, Meta(max_length=16)]
    digest_after: Annotated[bytes, Meta(max_length=16)]


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of an event record: how one episode went. Verdicts on policies are counted from these, each exactly once.

    Attributes:
        falls: Falls, drops, emergency stops: whatever the task calls a failure that hurts.
        trips: Safety limits that fired.
        stops: Emergency stops that were pressed; each is a fall too.
    """

    episode_id: str
    policy_sha256: Sha256
    artifact: Text
    rollout: Text
    stage: Text
    generation: int
    cohort: Literal["none", "control", "canary", "shadow"]
    explored: bool
    return_: Number
    success: bool
    steps: Whole
    seconds: Amount
    falls: Whole = 0
    trips: Whole = 0
    stops: Whole = 0
    time_ns: int = 0


class JobResult(msgspec.Struct, tag="job", frozen=True, kw_only=True):
    """Payload of an event record: what came of a job. It counts only under the lease the hub holds for the job.

    Attributes:
        outcome: "gave_up" hands the job back; "failed" ends it.
        energy_j: What it cost, from the first episode to the last.
    """

    job: Text
    hub: Text
    lease: int
    outcome: Literal["done", "failed", "gave_up"]
    reason: Text = ""
    energy_j: Amount = 0.0
    seconds: Amount = 0.0
    episodes: int = 0
    time_ns: int = 0


MAX_FALL_BYTES = 512 * 1024


class FallReport(msgspec.Struct, tag="fall", frozen=True, kw_only=True):
    """Payload of an event record: the last seconds before a fall or a stop, to be looked at. Arrays are little-endian float32, row by row.

    Attributes:
        robot_model: Which description the joints are of.
        time_s: Robot clock of each state, shape (n,) [s].
        q_rad: Joint angles, shape (n, n_joints), in the model's joint order [rad].
        imu_quat_xyzw: Orientation of the base, shape (n, 4); b"" for a fixed base.
        tip_force_n: Force on each fingertip, shape (n, n_tips); b"" where it is not sensed [N].
    """

    episode_id: str
    policy_sha256: Sha256
    artifact: Text
    robot_model: Text
    reason: Text
    states: Annotated[int, Meta(ge=1, le=100_000)]
    time_s: Annotated[bytes, Meta(max_length=MAX_FALL_BYTES)]
    q_rad: Annotated[bytes, Meta(max_length=MAX_FALL_BYTES)]
    imu_quat_xyzw: Annotated[bytes, Meta(max_length=MAX_FALL_BYTES)] = b""
    tip_force_n: Annotated[bytes, Meta(max_length=MAX_FALL_BYTES)] = b""
    time_ns: int = 0


Event = EpisodeResult | FallReport | JobResult
