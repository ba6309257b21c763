"""A hub in a thread of this process, robots' lines to it, and waiting without sleeping for a fixed time."""

import contextlib
import socket
import threading
import time

from fleet.hub import Hub, HubConfig
from fleet.messages import Heartbeat
from fleet.sockets import HubAddress
from fleet.spool import Spool
from fleet.uplink import Line, Uplink

UP_S = 30.0  # a loaded machine may take a while; nothing here is a timing claim


def free_ports(count=4):
    """The first of some ports in a row that are free."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            for offset in range(1, count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            return port


def wait_for(condition, what, timeout_s=UP_S):
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            raise AssertionError(f"not in {timeout_s:g} s: {what}")
        time.sleep(0.01)


class LiveHub:
    """A hub that serves in a thread. `stop` ends it as SIGTERM would."""

    def __init__(self, folder, keys, *, disk=None, port=None, **options):
        self.port = port or free_ports()
        self.address = ("127.0.0.1", self.port)
        self.hub = Hub(
            HubConfig(folder=folder, keys=keys, port=self.port, **{"reserve_bytes": 0, **options}), disk=disk
        )
        self._stop, self.error = threading.Event(), None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.hub.run(self._stop.is_set)
        except Exception as error:
            self.error = error
        finally:
            self.hub.close()

    def stop(self):
        self._stop.set()
        self._thread.join()

    @property
    def gateway(self):
        return self.hub.gateway

    def state(self, robot):
        member = self.gateway.roster.members.get(robot)
        return member.state(time.monotonic()) if member else "NEVER"


def uplink(folder, keys, robot, *hubs, **options):
    """A started uplink; hubs are ports, or (name, port)."""
    addresses = [
        HubAddress(host="127.0.0.1", port=h)
        if isinstance(h, int)
        else HubAddress(host="127.0.0.1", port=h[1], name=h[0])
        for h in hubs
    ]
    line = Line(hubs=addresses, robot=robot, keys=keys, backoff_max_s=0.3)
    up = Uplink(line, folder, heartbeat=lambda: Heartbeat(state="running"), **options)
    up.start()
    return up


__all__ = ["LiveHub", "Spool", "free_ports", "uplink", "wait_for"]
