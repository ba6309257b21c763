"""The robot's line to its hub: a thread that spools, sends, and hears. The control loop hands things over and never waits for it.

While the hub is away everything goes to the spool; when it comes back the spool drains. Connections are made anew after silence, with
exponential backoff and full jitter, on a new routing id, to the next hub of the list.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import zmq

from fleet.auth import monitored
from fleet.disk import Disk
from fleet.errors import HubAwayError, KeyFileError, RecordTooLargeError, StoreSuspectError, WireError
from fleet.keys import CurvePair, load_hub_public, load_public, load_robot_pair, public_file
from fleet.messages import AckLevel, Bye, Event, Get, Heartbeat, JobTicket, Piece
from fleet.session import LIVENESS_S, Session
from fleet.sockets import BULK_OFFSET, HubAddress, dial
from fleet.spool import Spool
from fleet.wire import EVENTS, STEPS, decode, encode
from robot.errors import FlexorError
from robot.experience import Chunk
from robot.experience import encode as encode_chunk

log = logging.getLogger(__name__)

RING_ITEMS = 256  # chunks and events between the control loop and the spool; minutes at a chunk a second
POLL_MS = 20
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.25, 30.0
FAREWELL_S = 1.0
BROKEN_S = 1.5  # this long after the connection broke without a word from the hub: it is gone, not restarting
JOIN_S = 2.0  # where there are several doors: this long without a WELCOME, and the next is tried


@dataclass(frozen=True, kw_only=True)
class Line:
    """Whom to dial, and as whom.

    Attributes:
        hubs: Tried in turn.
        keys: Key folder, read for every connection, so that a changed key counts from the next one on. A hub with a key that is not in it is
            not spoken to.
        backoff_max_s: Longest wait between attempts.
    """

    hubs: Sequence[HubAddress]
    robot: str
    keys: Path
    backoff_max_s: float = BACKOFF_MAX_S

    def pair(self) -> CurvePair:
        """Our keys, as they are now."""
        return load_robot_pair(self.keys, self.robot)

    def doors(self) -> list[tuple[HubAddress, bytes]]:
        """Every hub under every key it may have: the next one too while its key is being changed."""
        following = self.keys / "hub.next.key"
        doors = []
        for hub in self.hubs:
            doors.append((hub, load_hub_public(self.keys, hub.name)))
            if not hub.name and following.exists():
                doors.append((hub, load_public(following)))
        return doors

    def keep_next_hub_key(self, key: bytes) -> None:
        """The hub announced the key it is going to have."""
        if key not in {public for _, public in self.doors()}:
            Disk().write_file(self.keys / "hub.next.key", public_file(key))

    def use_hub_key(self, key: bytes) -> None:
        """A hub let us in under this key: if it was its next one, the change is done."""
        following = self.keys / "hub.next.key"
        if following.exists() and load_public(following) == key != load_public(self.keys / "hub.key"):
            Disk().rename(following, self.keys / "hub.key")


class Uplink(threading.Thread):
    """Owns the spool. Start it, `record` and `tell` from the control loop, `finish` at the end.

    Args:
        line: Whom to dial.
        spool_folder: Where experience waits; opened here, so that errors come at once.
        heartbeat: What to report now; called once a second.
        on_assignment, on_lease: Called with signed documents, from this thread; must return fast.
        on_job: Called with the job a hub offers, if any, and the lease it holds for us; from this thread.
        contracts: Hash -> JSON.
        spool_bytes: Limit of the spool.
        ack: "peer": forget a record only when two hubs have it.
    """

    def __init__(
        self,
        line: Line,
        spool_folder: Path,
        *,
        heartbeat: Callable[[], Heartbeat],
        on_assignment: Callable[[bytes], None] = lambda _: None,
        on_lease: Callable[[bytes], None] = lambda _: None,
        on_job: Callable[[JobTicket | None, int], None] = lambda _ticket, _lease: None,
        contracts: dict[str, str] | None = None,
        spool_bytes: int = 8 << 30,
        ack: AckLevel = "local",
        random: Random | None = None,
    ) -> None:
        super().__init__(name="fleet-uplink", daemon=True)
        self.spool = Spool(spool_folder, line.robot, limit_bytes=spool_bytes)
        self._line, self._random = line, random or Random()
        self._session = Session(
            line.robot,
            self.spool,
            contracts=contracts or {},
            heartbeat=heartbeat,
            on_assignment=on_assignment,
            on_job=on_job,
            on_next_hub_key=self._next_hub_key,
            on_lease=on_lease,
            ack=ack,
        )
        self._turn = 0  # which of the line's doors is tried
        self._door: tuple[HubAddress, bytes] | None = None
        self._ring: deque[tuple[int, Chunk | Event, int]] = deque()
        self._overflow: deque[tuple[int, int]] = deque()  # stream, items
        self._finishing: float | None = None
        self._attempt, self._patience_s = 0, LIVENESS_S
        self._next_try_s, self._poller = 0.0, zmq.Poller()
        self._broken_s: float | None = None  # when the connection broke, if nothing was heard since
        self._sockets: tuple[zmq.Socket, zmq.Socket, zmq.Socket, zmq.Socket] | None = (
            None  # control, bulk, their monitors
        )
        self.state = "away"
        self.error: BaseException | None = None

    # --- for the control loop: none of these waits -------------------------------------------------------------------

    def record(self, chunk: Chunk) -> bool:
        """Hand over experience. False when the ring is full: then its loss is declared."""
        return self._put(STEPS, chunk, chunk.header.steps)

    def tell(self, event: Event) -> bool:
        """Hand over an episode's result, a fall, what came of a job."""
        return self._put(EVENTS, event, 1)

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._session.counters)

    def finish(self, timeout_s: float) -> bool:
        """Stop: spool what is in the ring, wait for the hub to have everything, say goodbye. True when it has."""
        if self.is_alive():
            self._finishing = time.monotonic() + timeout_s
            self.join(timeout_s + FAREWELL_S + 5.0)
        return self._session.drained

    def _put(self, stream: int, thing: Chunk | Event, items: int) -> bool:
        if self.error is not None:  # the thread is dead, and nobody empties the ring any more
            return False
        if len(self._ring) >= RING_ITEMS:
            self._overflow.append((stream, items))
            return False
        self._ring.append((stream, thing, items))
        return True

    # --- the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        context = zmq.Context()
        try:
            self._work(context)
        except BaseException as error:  # top of a thread: the robot goes on, and says that its line is dead
            self.error, self.state = error, f"failed: {error}"
            log.exception("the uplink stopped")
        finally:
            self._disconnect()
            context.destroy(0)
            self.spool.close()

    def _work(self, context: zmq.Context) -> None:
        while True:
            try:
                self.spool.mend()
                self._spool_ring()
                if self._finishing is not None and (self._session.drained or time.monotonic() > self._finishing):
                    self._farewell()
                    return
                if self._sockets is None and (time.monotonic() < self._next_try_s or not self._connect(context)):
                    time.sleep(POLL_MS / 1000)
                    continue
                self._converse()
            except (
                OSError,
                zmq.ZMQError,
            ) as error:  # this robot's disk, or no more sockets: begin anew, as after a break
                log.error("the line is begun anew: %s", error)
                self._away()
                self.state = f"away: {error}"
                if self._finishing is not None and time.monotonic() > self._finishing:
                    return

    def _converse(self) -> None:
        """Send what may go, hear what came, and look whether anybody is there."""
        self._send(time.monotonic())
        for socket, _ in self._poller.poll(POLL_MS):
            self._hear(socket)
        if self._session.joined:
            if self.state != "joined":
                self._arrived()
            self._attempt, self.state = 0, "joined"
        elif self.state == "joined":
            self.state = "away"
        broken = self._broken_s is not None and time.monotonic() - self._broken_s > BROKEN_S
        if broken or self._session.lost(time.monotonic(), LIVENESS_S if self._session.joined else self._patience_s):
            self._turn += 1
            self._away()

    def _away(self) -> None:
        """Hang up, and say when to dial again."""
        wait_s = self._random.uniform(0.0, min(self._line.backoff_max_s, BACKOFF_FIRST_S * 2**self._attempt))
        self._attempt = min(self._attempt + 1, 16)
        self._next_try_s = time.monotonic() + wait_s
        self._disconnect()

    def _spool_ring(self) -> None:
        took = bool(self._overflow)
        while self._overflow:
            stream, items = self._overflow.popleft()
            self.spool.declare_lost(stream, 1, 0, "the ring before the spool was full", items)
        while self._ring:
            stream, thing, items = self._ring.popleft()
            payload = encode_chunk(thing) if isinstance(thing, Chunk) else msgspec.msgpack.encode(thing)
            try:
                self.spool.append(stream, payload, time.time_ns(), items)
            except RecordTooLargeError as error:
                log.error("%s", error)
                self.spool.declare_lost(stream, 1, len(payload), "record too large", items)
            took = True
        self.spool.settle()
        if took or self.spool.synced != self.spool.recorded:
            try:
                self.spool.sync()
            except StoreSuspectError as error:
                log.error("%s", error)

    def _send(self, now_s: float) -> None:
        assert self._sockets is not None
        control, bulk, *_ = self._sockets
        for frames in self._session.control(now_s):
            if not _try_send(control, frames):
                self._session.control_unsent()
        queue = self._session.bulk(now_s)
        for i, frames in enumerate(queue):
            if not _try_send(bulk, frames):
                for rest in reversed(queue[i:]):
                    self._session.unsent(rest)
                return

    def _hear(self, socket: zmq.Socket) -> None:
        assert self._sockets is not None
        control, _, monitor, bulk_monitor = self._sockets
        if socket is bulk_monitor:
            while bulk_monitor.poll(0):
                monitored(bulk_monitor)
            self._session.broken(time.monotonic())
            return
        if socket is monitor:
            while monitor.poll(0):
                event = monitored(monitor)
                if event == zmq.EVENT_DISCONNECTED and self._broken_s is None:
                    self._broken_s = time.monotonic()
                if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    self.state = "refused: the hub does not know this robot's key"
                elif event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
                    self.state = "refused: the handshake failed; is keys/hub.key the key of this hub?"
            return
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._broken_s = None
            for answer in self._session.receive(frames, time.monotonic()):
                _try_send(control, answer)
            if self._session.refused:
                self.state = f"refused: {self._session.refused}"

    def _connect(self, context: zmq.Context) -> bool:
        """Dial the next door; False where our own keys are not to be had just now."""
        now_s = time.monotonic()
        self._next_try_s = now_s + 1.0
        try:
            doors, pair = self._line.doors(), self._line.pair()
        except (FlexorError, OSError) as error:  # gone, or opened to others: tried again later
            self.state = f"refused: {error}"
            return False
        self._door = doors[self._turn % len(doors)]
        self._patience_s = LIVENESS_S if len(doors) == 1 else JOIN_S
        (host, port), public = (self._door[0].host, self._door[0].port), self._door[1]
        routing_id = bytes([1]) + os.urandom(15)
        made: list[zmq.Socket] = []
        try:
            made.append(control := dial(context, pair, public, f"tcp://{host}:{port}", routing_id))
            made.append(bulk := dial(context, pair, public, f"tcp://{host}:{port + BULK_OFFSET}", routing_id))
            monitor = control.get_monitor_socket(
                zmq.EVENT_DISCONNECTED
                | zmq.EVENT_HANDSHAKE_FAILED_AUTH
                | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            )
            self._sockets = (control, bulk, monitor, bulk.get_monitor_socket(zmq.EVENT_DISCONNECTED))
        except zmq.ZMQError:
            for socket in made:
                socket.close(0)
            raise
        self._poller = zmq.Poller()
        for socket in self._sockets:
            self._poller.register(socket, zmq.POLLIN)
        self._broken_s = None
        self._session.begin(now_s)
        return True

    def _arrived(self) -> None:
        assert self._door is not None
        try:
            self._line.use_hub_key(self._door[1])
        except (OSError, KeyFileError) as error:
            log.warning("the hub's new key was not kept: %s", error)

    def _next_hub_key(self, key: bytes) -> None:
        try:
            self._line.keep_next_hub_key(key)
        except (OSError, KeyFileError) as error:
            log.warning("the hub's next key was not kept: %s", error)

    def _disconnect(self) -> None:
        if self._sockets is None:
            return
        for socket in self._sockets[:2]:
            socket.disable_monitor()
        for socket in reversed(self._sockets):
            socket.close(0)
        self._sockets = None
        if self.state == "joined":
            self.state = "away"

    def _farewell(self) -> None:
        """One last heartbeat, so that the hub compares digests with us, then goodbye."""
        if self._sockets is None or not self._session.joined:
            return
        control = self._sockets[0]
        self._session.beat_now()
        self._send(time.monotonic())
        until_s = time.monotonic() + FAREWELL_S
        quiet_s = 0.15
        while time.monotonic() < until_s and control.poll(int(quiet_s * 1000)):
            self._hear(control)
        control.setsockopt(zmq.LINGER, 500)
        _try_send(control, encode(Bye(reason="finished")))
        _, bulk, *monitors = self._sockets
        for socket in (control, bulk):
            socket.disable_monitor()
        for socket in (*monitors, bulk):
            socket.close(0)
        control.close(500)
        self._sockets = None


class Files:
    """Asks the hub for pieces of catalogue files, on a connection of its own; for `fleet.download`. Blocking."""

    def __init__(self, line: Line, *, timeout_s: float = 5.0, tries: int = 3) -> None:
        self._line, self._timeout_s, self._tries = line, timeout_s, tries
        self._context = zmq.Context()
        self._socket: zmq.Socket | None = None
        self._ticket = 0

    def __call__(self, path: str, offset: int) -> tuple[int, bytes]:
        """Size of a file (-1: none) and a piece of it.

        Raises:
            HubAwayError: No answer.
        """
        for attempt in range(max(self._tries, 2 * len(self._line.hubs))):
            if self._socket is None:
                try:
                    doors, pair = self._line.doors(), self._line.pair()
                except (
                    FlexorError,
                    OSError,
                ) as error:  # gone, or opened to others: nobody can be asked, and no file is at fault
                    raise HubAwayError(f"no hub was asked for {path}: {error}") from error
                hub, public = doors[attempt % len(doors)]
                endpoint = f"tcp://{hub.host}:{hub.port + BULK_OFFSET}"
                self._socket = dial(self._context, pair, public, endpoint)
            answer = self._ask(path, offset)
            if answer is not None:
                return answer
            self._socket.close(0)
            self._socket = None
        raise HubAwayError(f"no hub answered for {path}; tried {self._tries} times")

    def _ask(self, path: str, offset: int) -> tuple[int, bytes] | None:
        assert self._socket is not None
        self._ticket += 1
        until_s = time.monotonic() + self._timeout_s
        if not self._socket.poll(int(self._timeout_s * 1000), zmq.POLLOUT):
            return None
        self._socket.send_multipart(encode(Get(path=path, offset=offset, ticket=self._ticket)))
        while (left_s := until_s - time.monotonic()) > 0 and self._socket.poll(int(left_s * 1000)):
            try:
                received = decode(self._socket.recv_multipart())
            except WireError:
                return None
            message = received.message
            if isinstance(message, Piece) and message.ticket == self._ticket:
                return message.total, bytes(received.payload)
        return None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
        self._context.destroy(0)


def _try_send(socket: zmq.Socket, frames: list[bytes]) -> bool:
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
