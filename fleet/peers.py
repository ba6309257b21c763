"""A hub's lines to the other hubs: it dials each of them and asks; they dial it and ask too. One question at a time per line.

Questions in turn: what is new (once a second), a file of the catalogue that is missing, more of the log.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from fleet.errors import KeyFileError, WireError
from fleet.federation import Federation
from fleet.keys import load_hub_pair, load_hub_public
from fleet.messages import Get, Gossip, Gossiped, Message, Piece, Pull, Pulled
from fleet.sockets import HUBS_OFFSET, HubAddress, dial
from fleet.wire import Received, decode, encode

log = logging.getLogger(__name__)

GOSSIP_S = 1.0
PULL_S = 0.25  # between looks at a log that had nothing more
ANSWER_S = 5.0  # no answer for so long: dial again
SAVE_S = 5.0
FULL_BYTES = 8 << 20  # waiting for the disk: then peers' logs wait too
PIECE_BYTES = 512 << 10
EMPTY = b"\x80"  # no sections: msgpack of {}


@dataclass(kw_only=True)
class _Line:
    address: HubAddress
    socket: zmq.Socket | None = None
    asked_s: float | None = None
    gossip_s: float = 0.0
    pull_s: float = 0.0
    file: str = ""
    data: bytes = b""


class Peers:
    """All lines. `tick` it and give it what its sockets have to say; it never waits.

    Args:
        waiting_bytes: How much waits for the disk.
    """

    def __init__(
        self, context: zmq.Context, keys: Path, name: str, addresses: Sequence[HubAddress], federation: Federation
    ) -> None:
        self._context, self._keys, self._name, self._federation = context, keys, name, federation
        self._lines = {address.name: _Line(address=address) for address in addresses}
        self._save_s = 0.0

    def tick(self, now_s: float, waiting_bytes: int) -> None:
        """Hear answers, ask the next questions."""
        for name, line in self._lines.items():
            if line.socket is not None:
                self._hear(name, line, now_s)
            if line.asked_s is not None and now_s - line.asked_s > ANSWER_S:
                self._hang_up(line)
            if line.socket is None and not self._dial(line):
                continue
            if line.asked_s is None:
                self._ask(name, line, now_s, waiting_bytes)
        if now_s >= self._save_s:
            self._save_s = now_s + SAVE_S
            self._federation.save()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited that may have much behind it."""
        return any(line.asked_s is not None and (line.file or line.pull_s == 0.0) for line in self._lines.values())

    def close(self) -> None:
        for line in self._lines.values():
            self._hang_up(line)
        if self._lines:
            self._federation.save()

    def answer(self, peer: str, frames: list[bytes], now_s: float, files: object) -> list[bytes] | None:
        """What to say to another hub's question, None for nothing.

        Args:
            peer: Its name, as the door said.
            files: Where pieces of the catalogue come from.
        """
        try:
            message = decode(frames).message
        except WireError as error:
            log.warning("hub %s: %s", peer, error)
            return None
        if isinstance(message, Gossip):
            answer, payload = self._federation.gossiped(message, now_s)
        elif isinstance(message, Pull):
            answer, payload = self._federation.pulled(peer, message)
        elif isinstance(message, Get):
            total, payload = files.piece(message.path, message.offset, min(message.size, PIECE_BYTES))  # type: ignore[attr-defined]
            answer = Piece(path=message.path, offset=message.offset, total=total, ticket=message.ticket)
        else:
            return None
        return encode(answer, payload=payload)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _dial(self, line: _Line) -> bool:
        try:
            pair, public = load_hub_pair(self._keys, self._name), load_hub_public(self._keys, line.address.name)
        except KeyFileError as error:
            log.warning("hub %s: %s", line.address.name, error)
            return False
        endpoint = f"tcp://{line.address.host}:{line.address.port + HUBS_OFFSET}"
        line.socket = dial(self._context, pair, public, endpoint, bytes([1]) + os.urandom(15))
        return True

    def _hang_up(self, line: _Line) -> None:
        if line.socket is not None:
            line.socket.close(0)
        line.socket, line.asked_s, line.file, line.data = None, None, "", b""

    def _ask(self, name: str, line: _Line, now_s: float, waiting_bytes: int) -> None:
        question: Message | None = None
        if now_s >= line.gossip_s:
            question = self._federation.question(name, now_s)
        elif path := (line.file or self._federation.next_file(name)):
            if path != line.file:
                line.file, line.data = path, b""
            question = Get(path=path, offset=len(line.data), size=PIECE_BYTES)
        elif now_s >= line.pull_s and waiting_bytes < FULL_BYTES:
            question = self._federation.pull(name)
        if question is None or line.socket is None:
            return
        try:
            line.socket.send_multipart(encode(question), zmq.NOBLOCK)
        except zmq.Again:  # not there
            return
        line.asked_s = now_s

    def _hear(self, name: str, line: _Line, now_s: float) -> None:
        assert line.socket is not None
        while True:
            try:
                received = decode(line.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            except WireError as error:
                log.warning("hub %s: %s", name, error)
                continue
            line.asked_s = None
            self._take(name, line, received, now_s)

    def _take(self, name: str, line: _Line, received: Received, now_s: float) -> None:
        message = received.message
        if isinstance(message, Gossiped):
            hurry = message.left and received.payload != EMPTY  # nothing came: more of that must not hold up the log
            line.gossip_s = now_s + (0.0 if hurry else GOSSIP_S)
            self._federation.hear(name, message, bytes(received.payload), now_s)
        elif isinstance(message, Pulled):
            line.pull_s = 0.0 if message.more else now_s + PULL_S
            self._federation.merge(name, message, bytes(received.payload), now_s)
        elif isinstance(message, Piece) and message.path == line.file and message.offset == len(line.data):
            line.data += received.payload
            if message.total < 0 or not received.payload:
                self._federation.peers[name].files.pop(line.file, None)
                line.file, line.data = "", b""
            elif len(line.data) >= message.total:
                self._federation.file(name, message, line.data)
                line.file, line.data = "", b""
