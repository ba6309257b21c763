"""The page's line to its hub: one connection to the operator's socket, one question at a time, from any thread."""

import threading
import time
from pathlib import Path
from typing import Any

import zmq

from fleet.answers import read_answer
from fleet.errors import AdminError, HubAwayError, WireError
from fleet.keys import load_hub_public, load_pair
from fleet.messages import Ask
from fleet.sockets import ADMIN_OFFSET, dial, parse_hub
from fleet.wire import decode, encode


class HubLine:
    """Like `fleet.operator.ask`, on a connection that stays.

    Args:
        hub: HOST:PORT of a hub on this machine, or NAME@HOST:PORT.
        keys: Key folder with the operator's key.
    """

    def __init__(self, hub: str, keys: Path, *, timeout_s: float = 5.0) -> None:
        address = parse_hub(hub)
        self._endpoint = f"tcp://{address.host}:{address.port + ADMIN_OFFSET}"
        self._pair, self._public = load_pair(keys / "admin.key_secret"), load_hub_public(keys, address.name)
        self._timeout_s = timeout_s
        self._context = zmq.Context()
        self._socket: zmq.Socket | None = None
        self._lock = threading.Lock()

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            HubAwayError: No answer in time.
            AdminError: The hub refused; the message is the hub's.
        """
        with self._lock:
            if self._socket is None:
                self._socket = dial(self._context, self._pair, self._public, self._endpoint)
            try:
                answer = self._exchange(self._socket, command, arguments or {})
            except (HubAwayError, WireError, zmq.ZMQError):
                self._socket.close(0)  # a late answer must not be taken for that of the next question
                self._socket = None
                raise
        if not answer.ok:
            raise AdminError(answer.error)
        return answer.body

    def _exchange(self, socket: zmq.Socket, command: str, arguments: dict[str, Any]) -> Any:
        until_s = time.monotonic() + self._timeout_s
        away = HubAwayError(f"no hub answered at {self._endpoint} in {self._timeout_s:g} s")
        if not socket.poll(int(self._timeout_s * 1000), zmq.POLLOUT):
            raise away
        socket.send_multipart(encode(Ask(command=command, arguments=arguments)))
        if not socket.poll(max(1, int((until_s - time.monotonic()) * 1000))):
            raise away
        return read_answer(decode(socket.recv_multipart()))

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close(0)
                self._socket = None
            self._context.destroy(0)
