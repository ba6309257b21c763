"""The hub's second thread: it writes groups of records and waits for the disk, while the first goes on listening."""

import queue
import socket
import threading
from dataclasses import dataclass

from fleet.errors import StoreFullError
from fleet.store import Group, Store


@dataclass(frozen=True)
class Outcome:
    """What became of a group: on the disk when there is no error."""

    group: Group
    error: Exception | None


class Committer:
    """At most one group is under way; the next one fills meanwhile, so groups grow with the load.

    Attributes:
        wake: Readable when something is done; the hub's loop polls it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._todo: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.wake, self._waker = socket.socketpair()
        self.wake.setblocking(False)
        self.busy = False
        self._thread = threading.Thread(target=self._work, name="fleet-commit", daemon=True)
        self._thread.start()

    def submit(self, group: Group) -> None:
        self.busy = True
        self._todo.put(group)

    def outcome(self) -> Outcome | None:
        """What is done, None when nothing is."""
        try:
            outcome = self._done.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        return outcome

    def nudge(self) -> None:
        """Wake the loop; any thread may."""
        self._waker.send(b"x")

    def drain_wake(self) -> None:
        try:
            while self.wake.recv(4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Finish what is under way."""
        self._todo.put(None)
        self._thread.join()
        self.wake.close()
        self._waker.close()

    def _work(self) -> None:
        while (group := self._todo.get()) is not None:
            error: Exception | None = None
            try:
                self._store.commit(group)
            except StoreFullError as full:
                error = full
            except Exception as broken:  # top of a thread: handed to the loop, which stops the hub
                error = broken
            self._done.put(Outcome(group, error))
            self.nudge()
