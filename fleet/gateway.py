"""The hub's side of the protocol: what to answer to what. No sockets, no threads, no clock: frames and the time come in, frames go out.

Every message is checked against the allow list and against the session its routing id is bound to. Nothing here raises for what a robot sent;
bad input gets an `Err`, a counter, and is forgotten.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from fleet.checksum import crc32
from fleet.errors import VersionError, WireError
from fleet.index import Key, Mark, Verdict
from fleet.messages import (
    Ack,
    Audit,
    Bye,
    Enrol,
    Enrolled,
    EpisodeResult,
    Err,
    Get,
    Heartbeat,
    HeartbeatOk,
    Hello,
    JobTicket,
    Message,
    Nack,
    Piece,
    Put,
    Puts,
    Schema,
    Welcome,
)
from fleet.roster import Roster, Session
from fleet.segment import MAX_RECORD_BYTES, Record
from fleet.store import Group, Store
from fleet.wire import EVENTS, STREAMS, TOMBSTONE, Envelope, Payload, decode, encode

HEARTBEAT_S = 1.0
MIN_CREDIT_BYTES, MAX_CREDIT_BYTES = 256 << 10, 4 << 20
CREDIT_BUDGET_BYTES = 512 << 20  # of all robots together: what may wait in memory for the disk

_STREAMS = frozenset(STREAMS.values())

Reply = tuple[bytes, list[bytes]]  # routing id, frames


class Deployments(Protocol):
    """What the gateway needs of the director."""

    def place(self, robot: str) -> tuple[int, int]:
        """Term and generation of the assignment in force, (0, 0) for none."""
        ...

    def lease(self) -> tuple[int, bytes]:
        """Term of the lease in force and the operator's document, (0, b"") for none."""
        ...

    def document(self, robot: str) -> bytes:
        """The signed assignment, b"" for none."""
        ...

    def note(self, key: Key, seq: int, result: EpisodeResult) -> None:
        """An episode's result is on the disk."""
        ...


class Work(Protocol):
    """What the gateway needs of the job queue."""

    def heard(self, robot: str, heartbeat: Heartbeat) -> tuple[JobTicket | None, int]:
        """A robot reports: the job it should do, if it has not named it yet, and the lease held for it (0: none)."""
        ...


class NoWork:
    """A hub without a job queue."""

    def heard(self, robot: str, heartbeat: Heartbeat) -> tuple[JobTicket | None, int]:
        return None, 0


class Files(Protocol):
    """What the gateway needs of the catalogue."""

    def piece(self, path: str, offset: int, size: int) -> tuple[int, bytes]:
        """Size of a file (-1: no such file) and a piece of it."""
        ...


class Door(Protocol):
    """What the gateway needs of the key folder."""

    def enrol(self, connection: str, enrol: Enrol) -> Enrolled:
        """Let a new key in, or say why not."""
        ...

    def next_hub_key(self) -> bytes:
        """The key the hub is going to have, b"" for none."""
        ...


class Gateway:
    """All that a hub says to robots.

    Args:
        hub: Its name.
        admits: Whether a robot's key is still allowed.
        store: Where records go.
        deployments, files: Director and catalogue.
        work: The job queue.
        on_event: Called with every event that is no episode's result, once it is on the disk.
        door: The key folder; without it no key can be changed over the wire.
    """

    def __init__(
        self,
        hub: str,
        admits: Callable[[str], bool],
        store: Store,
        deployments: Deployments,
        files: Files,
        work: Work | None = None,
        on_event: Callable[[Key, int, bytes], None] = lambda _key, _seq, _payload: None,
        door: Door | None = None,
    ) -> None:
        self._door = door
        self._hub, self._admits, self._store = hub, admits, store
        self._deployments, self._files = deployments, files
        self._work, self._on_event = work or NoWork(), on_event
        self.roster = Roster()
        self.to_kick: list[bytes] = []  # routing ids whose connections are to be cut
        self.group = Group()  # fills while the one before it is on its way to the disk
        self.counters: Counter[str] = Counter()
        self._results: list[
            tuple[Key, int, EpisodeResult | bytes]
        ] = []  # of the group being filled; bytes: another event
        self._waiting_results: list[tuple[Key, int, EpisodeResult | bytes]] = []  # of the group under way
        self._index = store.index
        self.shared: Callable[[Key], int] = lambda _key: 0  # up to which number another hub holds a line too

    # --- from robots -------------------------------------------------------------------------------------------------

    def receive(self, routing_id: bytes, user_id: str, frames: Sequence[Payload], now_s: float) -> list[Reply]:
        """Answer one message.

        Args:
            user_id: What the door said of the connection: NAME#HASH-OF-KEY.
        """
        connection, user_id = user_id, user_id.partition("#")[0]
        if not self._admits(connection):
            self.counters["revoked"] += 1
            session = self.roster.sessions.get(routing_id)
            if (
                session is not None and session.robot == user_id
            ):  # only this one: the robot may be here with another key
                del self.roster.sessions[routing_id]
            self.to_kick.append(routing_id)
            return [self._err(routing_id, "revoked", "this key is no longer allowed")]
        try:
            received = decode(frames)
        except VersionError as error:
            self.counters["version"] += 1
            return [self._err(routing_id, "version", str(error))]
        except WireError as error:
            self.counters["malformed"] += 1
            return [self._err(routing_id, "malformed", f"{type(error).__name__}: {error}")]
        message = received.message
        if isinstance(message, Enrol):
            return [self._enrol(routing_id, connection, message)]
        if user_id.startswith("!"):  # a token, which is good for one message only, or a connection of the hub's own
            return [self._err(routing_id, "identity", "this connection is for ENROL only")]
        self.roster.seen(user_id, now_s)
        if isinstance(message, Hello):
            return self._hello(routing_id, user_id, message, now_s)
        if isinstance(message, Get):
            return [self._get(routing_id, message)]
        session = self.roster.sessions.get(routing_id)
        if session is None:
            return [self._err(routing_id, "session", "say HELLO first")]
        if session.robot != user_id:
            self.counters["identity"] += 1
            return [self._err(routing_id, "identity", "this session belongs to another robot")]
        if isinstance(message, Put):
            return self._put(session, received.envelope, received.payload)
        if isinstance(message, Puts):
            return self._puts(session, received.envelope, message, received.payload)
        if isinstance(message, Heartbeat):
            return self._heartbeat(session, message)
        if isinstance(message, Audit):
            self._audited(session, message)
            return []
        if isinstance(message, Schema):
            self._store.add_contract(message.text)
            return []
        if isinstance(message, Bye):
            self.roster.bye(session)
            return []
        self.counters["malformed"] += 1
        return [self._err(routing_id, "malformed", f"a robot does not send {type(message).__name__}")]

    def _hello(self, routing_id: bytes, robot: str, hello: Hello, now_s: float) -> list[Reply]:
        if hello.robot != robot or len(routing_id) != 16 or routing_id[0] == 0:
            self.counters["identity"] += 1
            return [self._err(routing_id, "identity", f"the key is of {robot!r}, the message of {hello.robot!r}")]
        bound = self.roster.sessions.get(routing_id)
        if bound is not None and bound.robot != robot:
            self.counters["identity"] += 1
            return [self._err(routing_id, "identity", "this session belongs to another robot")]
        session, replaced = self.roster.hello(routing_id, robot, hello, now_s)
        held = self._store.contracts() if hello.contracts else set()
        welcome = Welcome(
            hub=self._hub,
            epoch=hello.epoch,
            **self._told(session),
            ack=session.ack,
            digests=self._index.digests(robot, hello.epoch),
            credit_bytes=self.credit_bytes,
            heartbeat_s=HEARTBEAT_S,
            batches=True,
            next_hub_key=self._door.next_hub_key() if self._door else b"",
            unknown_contracts=tuple(c for c in hello.contracts if c not in held),
        )
        replies = [self._to(session.routing_id, welcome)]
        if replaced is not None:
            self.counters["replaced"] += 1
            replies.append(self._err(replaced, "replaced", "the same key said hello from elsewhere"))
        return replies

    def _enrol(self, routing_id: bytes, connection: str, enrol: Enrol) -> Reply:
        answer = self._door.enrol(connection, enrol) if self._door else Enrolled(error="this hub changes no keys")
        self.counters["enrol_refused" if answer.error else "enrolled"] += 1
        return self._to(routing_id, answer)

    def _puts(self, session: Session, envelope: Envelope, puts: Puts, payload: Payload) -> list[Reply]:
        """Take records one by one, up to the first that is not taken."""
        counts = {len(field) for field in (puts.sizes, puts.crcs, puts.items, puts.times_ns)}
        if len(counts) != 1 or any(size < 0 for size in puts.sizes) or sum(puts.sizes) != len(payload):
            self.counters["malformed"] += 1
            return [self._err(session.routing_id, "malformed", "PUTS whose lists or sizes do not fit")]
        start, seq = 0, envelope.seq
        for size, crc, items, t_ns in zip(puts.sizes, puts.crcs, puts.items, puts.times_ns):
            data = payload[start : start + size]
            if crc32(data) != crc or not 0 <= items < 1 << 32 or not 0 <= t_ns < 1 << 64:
                self.counters["malformed"] += 1
                return [
                    self._err(session.routing_id, "malformed", f"record {seq} of PUTS is not what its checksum is of")
                ]
            one = Envelope(
                type=envelope.type,
                stream=envelope.stream,
                epoch=envelope.epoch,
                seq=seq,
                crc=crc,
                items=items,
                t_ns=t_ns,
            )
            replies = self._put(session, one, data)
            if replies:
                return replies
            start, seq = start + size, seq + 1
        return []

    def _put(self, session: Session, envelope: Envelope, payload: Payload) -> list[Reply]:
        if envelope.epoch != session.epoch:
            return [self._err(session.routing_id, "session", "another epoch than in HELLO")]
        if envelope.stream not in _STREAMS or envelope.seq == 0 or len(payload) > MAX_RECORD_BYTES:
            self.counters["malformed"] += 1
            return [
                self._err(
                    session.routing_id,
                    "malformed",
                    f"stream {envelope.stream} seq {envelope.seq}, {len(payload)} bytes",
                )
            ]
        key: Key = (session.robot, session.epoch, envelope.stream)
        if self._store.full:
            self.counters["nospace"] += 1
            return [self._nack(session, key, "nospace", committed=True)]
        verdict = self._index.judge(key, envelope.seq, envelope.flags, payload, envelope.crc)
        if verdict is Verdict.NEW:
            if session.unacked_bytes + len(payload) > 2 * MAX_CREDIT_BYTES:  # it ignores what it was told
                return [self._nack(session, key, "credit", committed=False)]
            session.unacked_bytes += len(payload)
            self._accept(key, envelope.seq, envelope.flags, payload, envelope.crc, envelope.t_ns, envelope.items)
            self.group.sessions[session.routing_id] = self.group.sessions.get(session.routing_id, 0) + len(payload)
            session.nacked.pop(envelope.stream, None)
            return []
        if verdict is Verdict.DUPLICATE:
            session.ack_due = True
            return []
        if verdict is Verdict.CONFLICT:
            self._store.quarantine(key, envelope.seq, payload, envelope.crc, "another record is held under this number")
            return [self._nack(session, key, "conflict", committed=False, seq=envelope.seq)]
        if verdict is Verdict.MALFORMED:
            self.counters["malformed"] += 1
            return [self._err(session.routing_id, "malformed", "a tombstone that contradicts itself")]
        line = self._index.lines.get(key)
        cursor = line.accepted.seq if line else 0
        if session.nacked.get(envelope.stream) == cursor:
            return []
        session.nacked[envelope.stream] = cursor
        return [self._nack(session, key, "gap", committed=False)]

    def _heartbeat(self, session: Session, heartbeat: Heartbeat) -> list[Reply]:
        member = self.roster.heartbeat(session, heartbeat)
        place, (term, charter) = self._deployments.place(session.robot), self._deployments.lease()
        ahead = place > (heartbeat.term, heartbeat.generation)
        document = self._deployments.document(session.robot) if ahead else b""
        ticket, lease = self._work.heard(session.robot, heartbeat)
        replies = [
            self._to(
                session.routing_id,
                HeartbeatOk(
                    generation=place[1],
                    lease=charter if term > heartbeat.lease_term else b"",
                    assignment=document,
                    **self._told(session),
                    credit_bytes=self.credit_bytes,
                    job=ticket,
                    job_lease=lease,
                    job_term=term,
                ),
            )
        ]
        for stream, cursor in self._index.cursors(session.robot, session.epoch).items():
            key = (session.robot, session.epoch, stream)
            if member.audited.get(key, (0, True))[0] < cursor:
                digest = self._index.lines[key].committed.digest
                member.asked[key] = (cursor, digest)
                audit = Audit(stream=stream, epoch=session.epoch, seq=cursor, digest=digest)
                replies.append(self._to(session.routing_id, audit))
        return replies

    def _audited(self, session: Session, audit: Audit) -> None:
        key = (session.robot, session.epoch, audit.stream)
        member = self.roster.member(session.robot)
        asked = member.asked.get(key)
        if asked is None or audit.epoch != session.epoch or audit.seq != asked[0] or not audit.digest:
            return  # an answer to an older question, or the robot cannot know any more
        same = audit.digest == asked[1]
        if not same:
            self.counters["audit_mismatch"] += 1
        member.audited[key] = (audit.seq, same and member.audited.get(key, (0, True))[1])

    def _get(self, routing_id: bytes, get: Get) -> Reply:
        total, data = self._files.piece(get.path, get.offset, get.size)
        piece = Piece(path=get.path, offset=get.offset, total=total, ticket=get.ticket)
        return routing_id, encode(piece, payload=data)

    def cut(self, robot: str) -> None:
        """A robot lost a key: close its sessions and have its connections cut; with another good key it comes back at once."""
        self.to_kick += self.roster.drop(robot)

    # --- from other hubs ---------------------------------------------------------------------------------------------

    def merge(self, record: Record, payload: Payload) -> Verdict:
        """Take a record of another hub's log, if it is news; it is committed with the next group."""
        key = record.key
        known = record.stream in _STREAMS and record.seq > 0
        verdict = self._index.judge(key, record.seq, record.flags, payload, record.crc) if known else Verdict.MALFORMED
        if verdict is Verdict.NEW:
            self._accept(key, record.seq, record.flags, payload, record.crc, record.t_ns, record.items)
        elif verdict is Verdict.CONFLICT:
            self._store.quarantine(key, record.seq, payload, record.crc, "another hub holds another record")
        self.counters[f"merged_{verdict.value}"] += 1
        return verdict

    # --- from the disk -----------------------------------------------------------------------------------------------

    def take_group(self) -> Group | None:
        """Hand over what is to be written, None when there is nothing."""
        if not self.group.parts:
            return None
        group, self.group = self.group, Group()
        self._waiting_results, self._results = self._results, []
        return group

    def committed(self, group: Group) -> None:
        """A group is on the disk: acknowledge it (see `flush`)."""
        self._index.commit(group.marks)
        for key, seq, result in self._waiting_results:
            if isinstance(result, bytes):
                self._on_event(key, seq, result)
            else:
                self._deployments.note(key, seq, result)
        self._waiting_results = []
        for routing_id, size in group.sessions.items():
            if (session := self.roster.sessions.get(routing_id)) is not None:
                session.ack_due = True
                session.unacked_bytes = max(0, session.unacked_bytes - size)

    def aborted(self) -> list[Reply]:
        """The disk was full: forget the group under way and the one being filled; robots go back to what is on the disk."""
        self._index.abort()
        self.group, self._results, self._waiting_results = Group(), [], []
        self.counters["aborted_groups"] += 1
        for session in self.roster.sessions.values():
            session.unacked_bytes = 0
        return [
            self._nack(session, (session.robot, session.epoch, stream), "nospace", committed=True)
            for session in self.roster.sessions.values()
            for stream in self._index.cursors(session.robot, session.epoch)
        ]

    def flush(self) -> list[Reply]:
        """Acknowledgements that are due."""
        replies = []
        for session in self.roster.sessions.values():
            if session.ack_due:
                session.ack_due = False
                ack = Ack(epoch=session.epoch, **self._told(session), credit_bytes=self.credit_bytes)
                replies.append(self._to(session.routing_id, ack))
        return replies

    def peer_told(self) -> None:
        """Another hub said what it holds: robots that wait for two hubs hear of it."""
        for session in self.roster.sessions.values():
            session.ack_due |= session.ack == "peer"

    @property
    def credit_bytes(self) -> int:
        """What one robot may have under way: a fair share of the budget."""
        share = CREDIT_BUDGET_BYTES // max(1, len(self.roster.sessions))
        return min(MAX_CREDIT_BYTES, max(MIN_CREDIT_BYTES, share))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _told(self, session: Session) -> dict[str, dict[int, int]]:
        """What a robot may forget, and what it need not send again."""
        held = self._index.cursors(session.robot, session.epoch)
        if session.ack == "local":
            return {"cursors": held}
        return {"cursors": {s: self.shared((session.robot, session.epoch, s)) for s in held}, "held": held}

    def _accept(self, key: Key, seq: int, flags: int, payload: Payload, crc: int, t_ns: int, items: int) -> None:
        line = self._index.lines.get(key)
        before = line.accepted if line else Mark()
        after = self._index.accept(key, seq, flags, payload, crc, items)
        self.group.add(key, seq, flags, payload, crc, t_ns, items & 0xFFFF, before, after)
        self._keep_result(key, seq, flags, payload)

    def _keep_result(self, key: Key, seq: int, flags: int, payload: Payload) -> None:
        if key[2] == EVENTS and not flags & TOMBSTONE:
            result = read_result(payload)
            self._results.append((key, seq, bytes(payload) if result is None else result))

    def _nack(self, session: Session, key: Key, why: str, *, committed: bool, seq: int = 0) -> Reply:
        line = self._index.lines.get(key)
        cursor = (line.committed if committed else line.accepted).seq if line else 0
        self.counters[f"nack_{why}"] += 1
        return self._to(
            session.routing_id,
            Nack(epoch=session.epoch, stream=key[2], cursor=cursor, why=why, seq=seq),  # type: ignore[arg-type]
        )

    @staticmethod
    def _to(routing_id: bytes, message: Message) -> Reply:
        return routing_id, encode(message)

    def _err(self, routing_id: bytes, code: str, detail: str) -> Reply:
        return routing_id, encode(Err(code=code, detail=detail[:500]))  # type: ignore[arg-type]


def read_result(payload: Payload) -> EpisodeResult | None:
    """The episode result in an event record, None where it is another event, or says what cannot be (it stays in the log and counts for nothing)."""
    try:
        return msgspec.msgpack.decode(payload, type=EpisodeResult)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
