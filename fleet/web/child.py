"""The page's process as the hub sees it: started once it listens, started again when it dies, ended with the hub."""

import logging
import subprocess
import sys
from pathlib import Path

from fleet.processes import environment

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0


class PageProcess:
    """`python -m fleet.web.serve` beside the hub. The hub works the same without it.

    Args:
        hub: HOST:PORT, where the page finds the hub.
        keys: Key folder.
        ports: Where the page listens.
        names: More host names.
    """

    def __init__(self, hub: str, keys: Path, ports: tuple[int, ...], names: tuple[str, ...]) -> None:
        self._words = [sys.executable, "-m", "fleet.web.serve", "--hub", hub, "--keys", str(keys)]
        self._words += ["--ports", *map(str, ports), *(["--names", *names] if names else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._next_s, self._wait_s = 0.0, RETRY_FIRST_S

    def tick(self, now_s: float) -> None:
        """Start it when it is not there."""
        if self._process is not None and self._process.poll() is not None:
            log.warning(
                "the page's process ended with %s; trying again in %g s", self._process.returncode, self._wait_s
            )
            self._process = None
            self._next_s, self._wait_s = now_s + self._wait_s, min(2.0 * self._wait_s, RETRY_MAX_S)
        if self._process is None and now_s >= self._next_s:
            root = Path(__file__).resolve().parents[2]
            self._process = subprocess.Popen(self._words, env={**environment(), "PYTHONPATH": str(root)})

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
