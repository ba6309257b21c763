"""Simulated robots, many in one process: the wire protocol without a spool or a control loop behind it, for measuring a hub.

Each has its own key, its own two connections, sequence numbers, credit and heartbeats; the payload is the same bytes again and again.
"""

import os
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from fleet.disk import Disk
from fleet.errors import WireError
from fleet.keys import CurvePair, load_hub_public, load_robot_pair
from fleet.messages import Ack, Err, Heartbeat, HeartbeatOk, Hello, Nack, Put, Puts, Welcome
from fleet.session import BATCH_BYTES, BATCH_RECORDS, LIVENESS_S
from fleet.sockets import BULK_OFFSET, dial
from fleet.wire import STEPS, decode, encode

HEARTBEAT_S = 1.0


class UnsyncedDisk(Disk):
    """For making two thousand keys in a moment; they need not survive a power cut."""

    def sync(self, file: object) -> None:
        return

    def sync_folder(self, folder: Path) -> None:
        return


@dataclass(kw_only=True)
class Totals:
    """What a crowd saw.

    Attributes:
        waits_s: Time from sending a record to its acknowledgement.
        assigned: Robot -> generation it was told last.
    """

    sent: int = 0
    acked: int = 0
    nacked: int = 0
    errors: int = 0
    waits_s: list[float] = field(default_factory=list)
    assigned: dict[str, int] = field(default_factory=dict)


class LoadRobot:
    """One simulated robot. `turn` it; it never waits."""

    def __init__(
        self,
        context: zmq.Context,
        name: str,
        pair: CurvePair,
        hub_public: bytes,
        port: int,
        payload: bytes,
        totals: Totals,
        *,
        every_s: float = 0.0,
        epoch: int = 1,
    ) -> None:
        self.name, self._payload, self._totals, self._every_s, self._epoch = name, payload, totals, every_s, epoch
        self._crc = zlib.crc32(payload)
        routing_id = bytes([1]) + os.urandom(15)
        self.control = dial(context, pair, hub_public, f"tcp://127.0.0.1:{port}", routing_id)
        self.bulk = dial(context, pair, hub_public, f"tcp://127.0.0.1:{port + BULK_OFFSET}", routing_id)
        self.joined, self._hello_s, self._beat_s, self._due_s = False, 0.0, 0.0, 0.0
        self._seq = self._cursor = 0
        self._credit, self._generation, self._batches = 0, 0, False
        self._sent_s: deque[tuple[int, float]] = deque()
        self._heard_s = time.monotonic()

    def turn(self, now_s: float, *, records: bool = True) -> None:
        """Say what is due."""
        if now_s - self._heard_s > LIVENESS_S:  # the hub was killed: it is there again, or will be
            self.joined, self._heard_s = False, now_s
        if not self.joined:
            if now_s - self._hello_s > HEARTBEAT_S and try_send(
                self.control, encode(Hello(robot=self.name, epoch=self._epoch))
            ):
                self._hello_s = now_s
            return
        if now_s >= self._beat_s:
            self._beat_s = now_s + HEARTBEAT_S
            try_send(self.control, encode(Heartbeat(state="running", generation=self._generation)))
        size = len(self._payload)
        batch = max(1, min(BATCH_RECORDS, BATCH_BYTES // size)) if self._batches and not self._every_s else 1
        while records and now_s >= self._due_s and (self._seq - self._cursor + batch) * size <= max(self._credit, size):
            place = {"stream": STEPS, "epoch": self._epoch, "seq": self._seq + 1}
            if batch == 1:
                frames = encode(Put(), payload=self._payload, items=1, crc=self._crc, **place)
            else:
                puts = Puts(sizes=(size,) * batch, crcs=(self._crc,) * batch, items=(1,) * batch, times_ns=(0,) * batch)
                frames = encode(puts, payload=self._payload * batch, crc=0, **place)
            if not try_send(self.bulk, frames):
                return
            self._seq += batch
            self._totals.sent += batch
            self._sent_s.append((self._seq, now_s))
            if self._every_s:
                self._due_s = max(self._due_s + self._every_s, now_s - 1.0)

    def hear(self, socket: zmq.Socket, now_s: float) -> None:
        """Take what came."""
        while True:
            try:
                message = decode(socket.recv_multipart(zmq.NOBLOCK)).message
            except zmq.Again:
                return
            except WireError:
                self._totals.errors += 1
                continue
            self._heard_s = now_s
            if isinstance(message, Welcome):
                self.joined, self._credit, self._batches = True, message.credit_bytes, message.batches
                self._seq = self._cursor = max(self._cursor, message.cursors.get(STEPS, 0))
                self._due_s = max(self._due_s, now_s)
                self._sent_s.clear()
            elif isinstance(message, Ack | HeartbeatOk):
                self._credit = message.credit_bytes
                self._acknowledged(message.cursors.get(STEPS, 0), now_s)
                if isinstance(message, HeartbeatOk) and message.generation > self._generation:
                    self._generation = self._totals.assigned[self.name] = message.generation
            elif isinstance(message, Nack):
                self._totals.nacked += 1
                self._seq = message.cursor
                self._sent_s.clear()
            elif isinstance(message, Err):
                self._totals.errors += message.code != "session"
                self.joined = False

    def _acknowledged(self, cursor: int, now_s: float) -> None:
        if cursor <= self._cursor:
            return
        self._totals.acked += cursor - self._cursor
        self._cursor = cursor
        while self._sent_s and self._sent_s[0][0] <= cursor:
            seq, sent_s = self._sent_s.popleft()
            if seq % 16 == 0 or self._every_s:
                self._totals.waits_s.append(now_s - sent_s)

    def close(self) -> None:
        self.control.close(0)
        self.bulk.close(0)


class Crowd:
    """Robots of one process, turned by one loop."""

    def __init__(self, keys: Path, names: list[str], port: int, payload: bytes, *, every_s: float = 0.0) -> None:
        self.totals = Totals()
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 4 * len(names) + 64)
        public = load_hub_public(keys)
        self.robots = [
            LoadRobot(
                self._context, name, load_robot_pair(keys, name), public, port, payload, self.totals, every_s=every_s
            )
            for name in names
        ]
        self._owner = {}
        self._poller = zmq.Poller()
        for robot in self.robots:
            for socket in (robot.control, robot.bulk):
                self._owner[socket] = robot
                self._poller.register(socket, zmq.POLLIN)
        if every_s:  # spread over the period, as real ones would be
            for i, robot in enumerate(self.robots):
                robot._due_s = time.monotonic() + every_s * i / len(self.robots)

    def run(self, until: float | None = None, *, done: object = None, records: bool = True) -> None:
        """Go on until a time (monotonic) or until `done()`."""
        pace_ms = 5
        while (until is None or time.monotonic() < until) and not (callable(done) and done()):
            now_s = time.monotonic()
            for robot in self.robots:
                robot.turn(now_s, records=records)
            for socket, _ in self._poller.poll(pace_ms):
                self._owner[socket].hear(socket, time.monotonic())

    @property
    def joined(self) -> int:
        return sum(robot.joined for robot in self.robots)

    def close(self) -> None:
        for robot in self.robots:
            robot.close()
        self._context.destroy(0)


def try_send(socket: zmq.Socket, frames: list[bytes]) -> bool:
    """Send, unless the socket's queue is full."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
