"""How many steps learners drew from a folder of packs, so that a hub can show it. One small file per learner beside the packs; a sum is taken over all.

PACKS/.drawn/<process>-<random>.json
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

FOLDER = ".drawn"
WRITE_S = 5.0  # between writes; what a learner drew in its last seconds may be missing
MAX_FILES = 10_000
MAX_FILE_BYTES = 1000


class Count(msgspec.Struct, frozen=True):
    """One learner's file."""

    steps: int


class Drawn:
    """Counts one learner's draws. A folder that cannot be written costs the count, never the learner.

    Args:
        packs: The folder of packs.
        now_s: Monotonic clock.
    """

    def __init__(self, packs: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path = packs / FOLDER / f"{os.getpid()}-{os.urandom(4).hex()}.json"
        self._now_s, self._next_s, self._broken = now_s, 0.0, False
        self.steps = 0

    def add(self, steps: int) -> None:
        self.steps += steps
        if self._now_s() >= self._next_s and not self._broken:
            self._next_s = self._now_s() + WRITE_S
            self.write()

    def write(self) -> None:
        """Put the count on the disk."""
        draft = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(exist_ok=True)
            draft.write_bytes(msgspec.json.encode(Count(self.steps)))
            draft.replace(self._path)
        except OSError as error:
            self._broken = True
            log.info("%s: what is drawn is not counted: %s", self._path.parent, error)


def total(packs: Path) -> int:
    """Steps drawn from a folder's packs by all learners; a file that is none counts for nothing."""
    steps = 0
    for path in sorted((packs / FOLDER).glob("*.json"))[:MAX_FILES]:
        try:
            with path.open("rb") as file:
                steps += max(0, msgspec.json.decode(file.read(MAX_FILE_BYTES), type=Count).steps)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return steps
