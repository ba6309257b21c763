"""The robot's side of the protocol as a state machine: what to send when, go-back-N, credit. Pure; frames and the time come in, frames go out.

States: away (no answer to HELLO yet) and joined. In joined, records go out while un-acknowledged bytes fit the hub's credit; a NACK, or no
progress for a while, goes back to the hub's cursor. The spool is asked for records and told what the hub has.
"""

from collections import Counter
from collections.abc import Callable

import msgspec

from fleet.entries import Entry
from fleet.errors import RecordError, WireError
from fleet.messages import (
    UNSURE,
    Ack,
    AckLevel,
    Audit,
    Err,
    Heartbeat,
    HeartbeatOk,
    Hello,
    JobTicket,
    Nack,
    Put,
    Puts,
    Schema,
    Tombstone,
    Welcome,
)
from fleet.segment import roll
from fleet.spool import Spool
from fleet.wire import TOMBSTONE, decode, encode

HEARTBEAT_S = 1.0
LIVENESS_S = 5.0  # this long without a word from the hub: begin anew
STALLED_S = 3.0  # this long without progress: send again
NOSPACE_WAIT_S = 2.0
BATCH_RECORDS, BATCH_BYTES = 64, 64 << 10  # small records go together
FIRST_CREDIT_BYTES = 256 << 10

Frames = list[bytes]


class Session:
    """One robot's conversation with one hub.

    Args:
        robot: Our name.
        spool: Where records wait.
        contracts: Hash -> JSON of the contracts our experience follows.
        heartbeat: What to report now.
        on_assignment: Called with a signed document the hub offers.
        on_job: Called with every answer to a heartbeat: the job it offers, if any, and the lease it holds for us.
        on_next_hub_key: Called with the key the hub is going to have.
        on_lease: Called with a director's lease the hub offers, before the assignments under it.
        ack: "peer": forget a record only when two hubs have it. Of a hub that does not know that, nothing is forgotten.
    """

    def __init__(
        self,
        robot: str,
        spool: Spool,
        *,
        contracts: dict[str, str],
        heartbeat: Callable[[], Heartbeat],
        on_assignment: Callable[[bytes], None],
        on_job: Callable[[JobTicket | None, int], None] = lambda _ticket, _lease: None,
        on_next_hub_key: Callable[[bytes], None] = lambda _: None,
        on_lease: Callable[[bytes], None] = lambda _: None,
        ack: AckLevel = "local",
    ) -> None:
        self._ack: AckLevel = ack
        self._on_lease = on_lease
        self._on_next_hub_key = on_next_hub_key
        self._robot, self._spool, self._contracts = robot, spool, contracts
        self._heartbeat, self._on_assignment, self._on_job = heartbeat, on_assignment, on_job
        self.joined = False
        self.refused = ""  # the hub's last error, for the log
        self._term = 0  # of the newest director's lease we know
        self.counters: Counter[str] = Counter()
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """A new connection: nothing is known of the hub."""
        self.joined = self._out = False
        self._heard_s = self._hello_s = self._progress_s = now_s
        self._hello_due, self._beat_s, self._wait_until_s = True, 0.0, 0.0
        self._credit, self._batches = FIRST_CREDIT_BYTES, False
        self._cursors: dict[int, int] = {}  # what is on the hub's disk
        self._safe: dict[int, int] = {}  # what may be forgotten: the same, or what another hub has too
        self._level: AckLevel = "local"  # what the hub's cursors mean
        self._sent: dict[int, int] = {}
        self._in_flight: list[tuple[int, int, int]] = []  # stream, seq, bytes
        self._doubt: dict[int, int] = {}  # streams on which the hub may hold other records than ours -> its cursor

    @property
    def drained(self) -> bool:
        """Whether the hub has everything."""
        return (
            self.joined and not self._doubt and all(self._safe.get(s, 0) >= n for s, n in self._spool.recorded.items())
        )

    def lost(self, now_s: float, patience_s: float = LIVENESS_S) -> bool:
        """Whether the connection should be made anew: no word for `patience_s`, or the hub said that we are out."""
        return self._out or now_s - self._heard_s > patience_s

    # --- what to send ------------------------------------------------------------------------------------------------

    def control(self, now_s: float) -> list[Frames]:
        """Frames due on the control socket."""
        if not self.joined:
            if self._hello_due or now_s - self._hello_s > HEARTBEAT_S:
                self._hello_due, self._hello_s = False, now_s
                return [encode(self._hello())]
            return []
        if now_s < self._beat_s:
            return []
        self._beat_s = now_s + HEARTBEAT_S
        beat = msgspec.structs.replace(
            self._heartbeat(),
            recorded=self._spool.recorded,
            recorded_items=self._spool.recorded_items,
            spool_bytes=self._spool.size_bytes,
            dropped_records=sum(self._spool.dropped.values()),
        )
        self._term = beat.lease_term
        return [encode(beat)]

    def bulk(self, now_s: float) -> list[Frames]:
        """Records that may go now: events first, within the credit, at least one at a time."""
        if not self.joined or now_s < self._wait_until_s:
            return []
        if now_s - self._progress_s > STALLED_S:
            if self._doubt:
                self._settle_doubt(now_s)
                return []
            if self._in_flight:
                self.counters["stalled"] += 1
                self._rewind(now_s)
        messages = self._behind(now_s)
        batch: list[tuple[Entry, bytes]] = []
        flying = sum(size for _, _, size in self._in_flight)
        for entry in self._spool.waiting(self._sent):
            if flying and flying + entry.payload_bytes > self._credit:
                break
            try:
                payload = self._spool.read(entry)
            except RecordError:
                self._spool.damaged(entry)
                break  # a tombstone took its place; next time
            if batch and not (self._fits(batch, entry)):
                messages.append(self._message(batch))
                batch = []
            batch.append((entry, payload))
            self._sent[entry.stream] = entry.seq
            if not self._in_flight or self._doubt:
                self._progress_s = now_s
            if not self._doubt:
                self._in_flight.append((entry.stream, entry.seq, entry.payload_bytes))
                flying += entry.payload_bytes
        return [*messages, self._message(batch)] if batch else messages

    def _fits(self, batch: list[tuple[Entry, bytes]], entry: Entry) -> bool:
        """Whether a record may go in one message with those before it."""
        return (
            self._batches
            and len(batch) < BATCH_RECORDS
            and entry.stream == batch[-1][0].stream
            and entry.seq == batch[-1][0].seq + 1
            and not (entry.flags | batch[-1][0].flags) & TOMBSTONE
            and sum(len(payload) for _, payload in batch) + entry.payload_bytes <= BATCH_BYTES
        )

    def _message(self, batch: list[tuple[Entry, bytes]]) -> Frames:
        first, payload = batch[0]
        place = {"stream": first.stream, "epoch": self._spool.epoch, "seq": first.seq}
        if len(batch) == 1:
            return encode(
                Put(), payload=payload, flags=first.flags, t_ns=first.t_ns, items=first.items, crc=first.crc, **place
            )
        entries = [entry for entry, _ in batch]
        puts = Puts(
            sizes=tuple(e.payload_bytes for e in entries),
            crcs=tuple(e.crc for e in entries),
            items=tuple(e.items for e in entries),
            times_ns=tuple(e.t_ns for e in entries),
        )
        return encode(puts, payload=b"".join(payload for _, payload in batch), crc=0, **place)

    def beat_now(self) -> None:
        """Make a heartbeat due."""
        self._beat_s = 0.0

    def broken(self, now_s: float) -> None:
        """The bulk connection broke: what was under way is lost, and is sent again at once."""
        if self._in_flight and not self._doubt:
            self.counters["broken"] += 1
            self._rewind(now_s)

    def control_unsent(self) -> None:
        """The socket did not take what `control` gave: it is due again."""
        self._hello_due, self._beat_s = True, 0.0

    def unsent(self, frames: Frames) -> None:
        """The socket did not take a record: it is offered again."""
        envelope = decode(frames).envelope
        self._sent[envelope.stream] = min(self._sent.get(envelope.stream, 0), envelope.seq - 1)
        self._in_flight = [f for f in self._in_flight if f[0] != envelope.stream or f[1] < envelope.seq]

    # --- what came ---------------------------------------------------------------------------------------------------

    def receive(self, frames: Frames, now_s: float) -> list[Frames]:
        """Take a message of the hub; returns answers for the control socket."""
        try:
            message = decode(frames).message
        except WireError as error:
            self.counters["malformed"] += 1
            self.refused = str(error)
            return []
        self._heard_s = now_s
        if isinstance(message, Welcome):
            return self._welcome(message, now_s)
        if isinstance(message, Err):
            self._error(message, now_s)
            return []
        if not self.joined:
            return []
        if isinstance(message, Ack) and message.epoch == self._spool.epoch:
            self._acknowledged(message, now_s)
        elif isinstance(message, Nack) and message.epoch == self._spool.epoch:
            self._nacked(message, now_s)
        elif isinstance(message, HeartbeatOk):
            self._acknowledged(message, now_s)
            if message.lease:
                self._on_lease(message.lease)
            if message.assignment:
                self._on_assignment(message.assignment)
            if message.job_term >= self._term:
                self._on_job(message.job, message.job_lease)
            else:  # it does not know yet that another hub directs
                self._on_job(None, UNSURE)
        elif isinstance(message, Audit) and message.epoch == self._spool.epoch:
            digest = self._spool.digest_at(message.stream, message.seq) or b""
            recorded = self._spool.recorded.get(message.stream, 0)
            return [encode(msgspec.structs.replace(message, digest=digest, recorded=recorded))]
        return []

    # --- inside ------------------------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        return Hello(
            robot=self._robot,
            epoch=self._spool.epoch,
            first=self._spool.first,
            recorded=self._spool.recorded,
            contracts=tuple(self._contracts),
            ack=self._ack,
        )

    def _welcome(self, welcome: Welcome, now_s: float) -> list[Frames]:
        if welcome.epoch != self._spool.epoch:
            return []
        self.joined, self.refused, self._beat_s = True, "", 0.0
        # Where the hub's digest is not ours, or it has numbers we do not know, our spool lost its end or was copied. Then we send what we
        # have once more: the hub ignores what it knows and reports the first record that is another one.
        self._level = welcome.ack
        held, safe = self._meant(welcome)
        self._doubt = {s: c for s, c in held.items() if self._differs(s, c, welcome.digests.get(s, b""))}
        self.counters["doubted"] += len(self._doubt)
        self._cursors = {s: c for s, c in held.items() if s not in self._doubt}
        self._safe = {s: c for s, c in safe.items() if s not in self._doubt}
        self._sent, self._in_flight = dict(self._cursors), []
        self._credit, self._progress_s, self._batches = welcome.credit_bytes, now_s, welcome.batches
        self._spool.acknowledge(self._safe)
        if welcome.next_hub_key:
            self._on_next_hub_key(welcome.next_hub_key)
        answers = [
            encode(Schema(sha256=h, text=self._contracts[h])) for h in welcome.unknown_contracts if h in self._contracts
        ]
        return answers

    def _meant(self, told: Welcome | Ack | HeartbeatOk) -> tuple[dict[int, int], dict[int, int]]:
        """What is held there, and what may be forgotten."""
        if self._level == "peer":
            return told.held, told.cursors
        return told.cursors, told.cursors if self._ack == "local" else {}

    def _differs(self, stream: int, cursor: int, digest: bytes) -> bool:
        if cursor > self._spool.recorded.get(stream, 0):
            return True
        ours = self._spool.digest_at(stream, cursor)
        return ours is not None and ours != digest

    def _settle_doubt(self, now_s: float) -> None:
        """Nothing was reported: all we have is known to the hub. Numbers it has beyond ours must not be used again."""
        doubt, self._doubt = self._doubt, {}
        if any(cursor > self._spool.recorded.get(s, 0) for s, cursor in doubt.items()):
            self._renew({**self._cursors, **doubt}, now_s)
            return
        self._progress_s = now_s
        self._grown(doubt, doubt if self._ack == "local" else {}, now_s)

    def _renew(self, cursors: dict[int, int], now_s: float) -> None:
        """A new epoch for what the hub does not have; where two must have it, for all they do not both have."""
        self.counters["new_epoch"] += 1
        self._spool.renew(cursors if self._ack == "local" else self._safe)
        self.begin(now_s)

    def _behind(self, now_s: float) -> list[Frames]:
        """Tombstones for what the hub never had or lost: it asks for numbers that are gone here. Under way, and sent again, like records."""
        frames = []
        for stream, first in {**{s: n + 1 for s, n in self._spool.recorded.items()}, **self._spool.first}.items():
            cursor = self._cursors.get(stream, 0)
            if stream in self._doubt or max(cursor, self._sent.get(stream, 0)) >= first - 1:
                continue
            self.counters["hub_behind"] += 1
            stone = Tombstone(
                first=cursor + 1,
                last=first - 1,
                reason="the hub lost what it had acknowledged",
                payload_bytes=0,
                digest_before=self._spool.digest_at(stream, cursor) or b"",
                digest_after=self._spool.digest_at(stream, first - 1) or roll(b"", first - 1, 0),
            )
            frames.append(
                encode(
                    Put(),
                    payload=msgspec.msgpack.encode(stone),
                    flags=TOMBSTONE,
                    stream=stream,
                    epoch=self._spool.epoch,
                    seq=first - 1,
                )
            )
            if not self._in_flight:
                self._progress_s = now_s
            self._sent[stream] = first - 1
            self._in_flight.append((stream, first - 1, 0))
        return frames

    def _acknowledged(self, told: Ack | HeartbeatOk, now_s: float) -> None:
        self._credit = told.credit_bytes or self._credit
        self._grown(*self._meant(told), now_s)

    def _grown(self, held: dict[int, int], safe: dict[int, int], now_s: float) -> None:
        grown = {s: n for s, n in held.items() if n > self._cursors.get(s, 0) and s not in self._doubt}
        if grown:
            self._progress_s = now_s
            self._cursors.update(grown)
            for stream, cursor in grown.items():
                self._sent[stream] = max(self._sent.get(stream, 0), cursor)
            self._in_flight = [(s, n, b) for s, n, b in self._in_flight if n > self._cursors.get(s, 0)]
        forgotten = {s: n for s, n in safe.items() if n > self._safe.get(s, 0) and s not in self._doubt}
        if forgotten:
            self._safe.update(forgotten)
            self._spool.acknowledge(forgotten)

    def _nacked(self, nack: Nack, now_s: float) -> None:
        self.counters[f"nack_{nack.why}"] += 1
        if nack.why == "conflict":
            doubted = {s: c for s, c in self._doubt.items() if s != nack.stream}
            self._renew({**self._cursors, **doubted, nack.stream: max(0, nack.seq - 1)}, now_s)
            return
        if nack.why == "nospace":
            self._wait_until_s = now_s + NOSPACE_WAIT_S
        self._sent[nack.stream] = min(self._sent.get(nack.stream, 0), nack.cursor)
        self._in_flight = [f for f in self._in_flight if f[0] != nack.stream or f[1] <= nack.cursor]

    def _rewind(self, now_s: float) -> None:
        self._sent, self._in_flight, self._progress_s = dict(self._cursors), [], now_s

    def _error(self, error: Err, now_s: float) -> None:
        self.refused = f"{error.code}: {error.detail}"
        self.counters[f"err_{error.code}"] += 1
        if error.code == "session":
            self.joined, self._hello_due = False, True
        self._out = error.code in ("revoked", "replaced")  # dial again: with another key, or after a pause
