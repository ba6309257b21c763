"""Cut a live connection. ZeroMQ has no call for it: a removed key keeps its connection, and taking over its routing id (ROUTER_HANDOVER) only
orphans the pipe, TCP stays up and answers heartbeats. But every message says which descriptor it came through, and that can be shut down.

A descriptor may have been closed and given to another connection since; then the wrong robot dials again, which costs it nothing. The caller
therefore keeps the descriptor of the newest message, and removes the key first: who is cut off justly meets the door.
"""

import contextlib
import os
import socket
from collections.abc import Collection

import zmq


class Connections:
    """The descriptor each routing id was last heard through, per listening socket."""

    def __init__(self) -> None:
        self._fds: dict[tuple[int, bytes], int] = {}

    def heard(self, listener: int, routing_id: bytes, frame: zmq.Frame) -> None:
        """Note where a message came from.

        Args:
            listener: Which of the hub's sockets it came to.
        """
        self._fds[listener, routing_id] = frame.get(zmq.SRCFD)  # type: ignore[arg-type]

    def keep(self, routing_ids: Collection[bytes]) -> None:
        """Forget all but these (robots take a new routing id each time they dial)."""
        if len(self._fds) > 4 * len(routing_ids) + 1000:
            self._fds = {k: fd for k, fd in self._fds.items() if k[1] in routing_ids}

    def cut(self, routing_id: bytes) -> int:
        """Shut all connections of a routing id; returns how many."""
        mine = [k for k in self._fds if k[1] == routing_id]
        for key in mine:
            shut(self._fds.pop(key))
        return len(mine)


def shut(descriptor: int) -> None:
    """Close a connection in both directions, now. ZeroMQ sees it as broken and cleans up after it."""
    with contextlib.suppress(OSError):  # gone already, or no socket any more
        copy = socket.socket(fileno=os.dup(descriptor))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()
