"""What the hub does for people besides rollouts: jobs, the last fall of each robot, and one-time links to the page."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from fleet.errors import FleetError
from fleet.index import Key
from fleet.jobs_hub import JobQueue
from fleet.messages import FallReport, JobResult
from robot.errors import UnknownNameError

FALLS_BYTES = 32 << 20  # kept in memory; all of them are in the log
LINK_S = 120.0
MAX_LINKS = 16


class LinkError(FleetError):
    """A one-time link that was used, has expired, or never was."""


class Office:
    """Kept beside the gateway; one thread.

    Args:
        hub: Its name.
        jobs: The job queue.
        page: Address of the page, "" where the hub shows none.
    """

    def __init__(self, hub: str, jobs: JobQueue, page: str = "") -> None:
        self._hub, self._jobs, self._page = hub, jobs, page
        self._falls: OrderedDict[str, FallReport] = OrderedDict()
        self._falls_bytes = 0
        self._links: dict[str, float] = {}  # sha256 of the token -> monotonic end

    def happened(self, key: Key, seq: int, payload: bytes, *, again: bool = False) -> None:
        """An event that is no episode's result is on the disk; `again` when the log is read at a start. Unknown ones stay in the log."""
        try:
            event = msgspec.msgpack.decode(payload, type=FallReport | JobResult)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if isinstance(event, JobResult):
            self._jobs.happened(key[0], event, again=again)
            return
        old = self._falls.pop(key[0], None)
        self._falls[key[0]] = event
        self._falls_bytes += _size(event) - (_size(old) if old else 0)
        while self._falls_bytes > FALLS_BYTES and len(self._falls) > 1:
            self._falls_bytes -= _size(self._falls.popitem(last=False)[1])

    def commands(
        self, arguments: dict[str, Any], overview: Callable[[], dict[str, Any]]
    ) -> dict[str, Callable[[], dict[str, Any]]]:
        """What an operator may ask."""
        return {
            "overview": lambda: self._complete(overview()),
            "fall": lambda: self._fall(str(arguments["robot"])),
            "job_add": lambda: self._jobs.add(arguments),
            "job_list": self._jobs.list,
            "job_cancel": lambda: self._jobs.cancel(str(arguments["id"])),
            "link_make": self._make_link,
            "link_use": lambda: self._use_link(str(arguments["token"])),
        }

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        for robot in body["robots"]:
            report = self._falls.get(robot["name"])
            robot["fall"] = None if report is None else {"time_ns": report.time_ns, "reason": report.reason}
        return {"hub": self._hub, **body, "jobs": self._jobs.list()}

    def _fall(self, robot: str) -> dict[str, Any]:
        if robot not in self._falls:
            raise UnknownNameError("robot with a recorded fall", robot, list(self._falls) or ["none yet"])
        return msgspec.to_builtins(self._falls[robot], builtin_types=(bytes,))

    def _make_link(self) -> dict[str, Any]:
        now_s = time.monotonic()
        self._links = {k: end_s for k, end_s in self._links.items() if end_s > now_s}
        while len(self._links) >= MAX_LINKS:
            del self._links[min(self._links, key=self._links.__getitem__)]
        token = secrets.token_urlsafe(32)
        self._links[_digest(token)] = now_s + LINK_S
        return {"token": token, "seconds": LINK_S, "page": self._page}

    def _use_link(self, token: str) -> dict[str, Any]:
        end_s = self._links.pop(_digest(token), 0.0)
        if time.monotonic() >= end_s:
            raise LinkError("this link was used before, or is older than two minutes; do: flexor fleet login")
        return {"ok": True}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _size(report: FallReport) -> int:
    return len(report.q_rad) + len(report.time_s) + len(report.imu_quat_xyzw) + len(report.tip_force_n) + 1000
