"""What the page shows, asked once for all readers: the overview, the rates between two of them, and the last minutes."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

KEPT_POINTS = 180
FRESH_S = 0.8  # an overview this old is asked for again


class Watch:
    """Keeps the last overview; `look` asks for a new one when it is stale. One thread at a time.

    Args:
        ask: Gives an overview, or raises.
        now_s: Monotonic clock.
    """

    def __init__(self, ask: Callable[[], dict[str, Any]], now_s: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._now_s = ask, now_s
        self._last: dict[str, Any] | None = None
        self._asked_s = -1e9
        self._points: deque[list[float]] = deque(maxlen=KEPT_POINTS)
        self._before: tuple[float, int, int] | None = None

    def look(self) -> dict[str, Any]:
        """The overview with `rates` and `history`: [seconds ago, bytes/s, records/s, pending] per point."""
        now_s = self._now_s()
        if self._last is None or now_s - self._asked_s >= FRESH_S:
            self._last = self._ask()
            self._asked_s = now_s
            self._note(now_s, self._last)
        history = [[round(p[0] - now_s, 1), *p[1:]] for p in self._points]
        rates = {"bytes_s": history[-1][1], "records_s": history[-1][2]} if history else {"bytes_s": 0, "records_s": 0}
        return {**self._last, "rates": rates, "history": history}

    def _note(self, now_s: float, overview: dict[str, Any]) -> None:
        streams = overview["streams"].values()
        size, records = sum(s["bytes"] for s in streams), sum(s["records"] for s in streams)
        if self._before is not None and now_s > self._before[0] and records >= self._before[2]:
            dt_s = now_s - self._before[0]
            rate = [(size - self._before[1]) / dt_s, (records - self._before[2]) / dt_s]
            self._points.append([now_s, *(round(value, 1) for value in rate), float(overview["pending"])])
        self._before = (now_s, size, records)
