"""Folders that appear whole: written under another name, synced file by file, renamed at the end. And how far it is."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.disk import Disk
from fleet.exports.source import ExportError


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it when all went well. What an earlier run left half done is thrown away.

    Raises:
        ExportError: `out` exists.
    """
    if out.exists():
        raise ExportError(f"{out} exists; an export is written once: choose another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder  # on an error it stays, for a look; the next run begins anew
    disk = Disk()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            disk.sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    disk.sync_folder(folder)
    disk.rename(folder, out)


class Progress:
    """One line on a terminal, with rate and time left; nothing elsewhere.

    Args:
        total, what: How many of what there are.
    """

    EVERY_S = 0.5

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what, self._done = total, what, 0
        self._began_s = self._said_s = time.monotonic()
        self._shown = sys.stderr.isatty()

    def step(self) -> None:
        self._done += 1
        now_s = time.monotonic()
        if self._shown and (now_s - self._said_s > self.EVERY_S or self._done == self._total):
            self._said_s = now_s
            rate = self._done / max(now_s - self._began_s, 1e-9)
            left_s = (self._total - self._done) / max(rate, 1e-9)
            end = "\n" if self._done == self._total else ""
            print(
                f"\r{self._done} of {self._total} {self._what}, {rate:.0f}/s, {left_s:.0f} s left \x1b[K",
                end=end,
                file=sys.stderr,
                flush=True,
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s
