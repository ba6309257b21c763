"""Everything the fleet does to a disk goes through here, so that tests can make the disk lie, fill up, fail or lose power.

`Disk` is the real one. `fleet_faults` in the tests wraps it. Order for a new or replaced file: write, sync the file, rename, sync the folder.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

IOV_MAX = 1024  # parts of one write, the kernel's limit
DONTCACHE = 0x80  # RWF_DONTCACHE, Linux 6.14: the pages of a write are free again as soon as it is on the disk
DONTCACHE_FROM_BYTES = (
    256 << 10
)  # less than this is read back to fill its last block, which costs more than the pages are worth


class Disk:
    """The real disk."""

    def open_append(self, path: Path, *, cached: bool = True) -> "AppendFile":
        """Open a file for appending, making it if needed; see `AppendFile` for `cached`."""
        return AppendFile(path, cached=cached)

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Make or replace a file so that after a power cut it is either the old or the new one, never half of it."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                self.sync(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.rename(temporary, path)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within a folder, and make it last."""
        os.replace(source, target)
        self.sync_folder(target.parent)

    def unlink(self, path: Path) -> None:
        """Remove a file. Not synced: a file that comes back after a power cut is recognised by its numbers."""
        path.unlink(missing_ok=True)

    def sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """Space an ordinary user may still take."""
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize


class AppendFile:
    """A file that only grows. A failed append leaves no part of it behind; a failed sync is for the caller to take seriously.

    Args:
        cached: Whether large appends stay in the page cache. What is written once and read once, if at all, should not: it pushes out what is
            read often, and a page that was not in use costs a virtual machine seven times a page that was (1.7 against 0.2 s of processor per
            GB, groups of 4 MiB). Kernels that cannot do without keep it.
    """

    def __init__(self, path: Path, *, cached: bool = True) -> None:
        self.path = path
        self._flags = 0 if cached else DONTCACHE
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.size = os.fstat(self._fd).st_size

    def append(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write at the end.

        Raises:
            OSError: Nothing of it was kept.
        """
        start, at = self.size, 0
        large = self._flags and sum(map(len, parts)) >= DONTCACHE_FROM_BYTES
        try:
            while at < len(parts):
                some = parts[at : at + IOV_MAX]
                written = self._pwritev(some) if large else os.pwritev(self._fd, some, self.size)
                self.size += written
                at += len(some)
                if written < (
                    wanted := sum(map(len, some))
                ):  # a signal, or nearly no space: the rest, and then the error
                    rest = memoryview(b"".join(some))[written:]
                    while rest:
                        written = os.pwrite(self._fd, rest, self.size)
                        self.size += written
                        rest = rest[written:]
                    assert self.size >= start + wanted
        except OSError:
            self.size = start
            os.ftruncate(self._fd, start)
            raise

    def _pwritev(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write at the end, past the page cache where the kernel and the file system can."""
        try:
            return os.pwritev(self._fd, parts, self.size, self._flags)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL) or not self._flags:
                raise
            self._flags = 0
            return os.pwritev(self._fd, parts, self.size)

    def sync(self) -> None:
        """Wait until the data is on the disk. After an error the file must not be trusted: the kernel may have dropped the pages."""
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Drop everything behind `size`."""
        os.ftruncate(self._fd, size)
        self.size = size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
