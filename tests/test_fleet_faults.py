"""A disk that fails on demand, for the other fleet tests, and the proof that it does."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from fleet.disk import DONTCACHE, DONTCACHE_FROM_BYTES, AppendFile, Disk


class FaultyDisk(Disk):
    """The real disk, until told otherwise.

    Attributes:
        fail_sync: Every sync of a log file raises EIO while set.
        space_bytes: What appends may still take; None is no limit.
    """

    def __init__(self) -> None:
        self.fail_sync = False
        self.space_bytes: int | None = None
        self.synced: dict[tuple[Path, int], int] = {}  # (file, inode) -> bytes that are really on the disk
        self.unlinked: dict[Path, bytes] = {}
        self.syncs = 0
        self.quick = False  # power loss is simulated, so the real disk need not be waited for

    def sync(self, file) -> None:
        if not self.quick:
            super().sync(file)

    def sync_folder(self, folder: Path) -> None:
        if not self.quick:
            super().sync_folder(folder)

    def open_append(self, path: Path, *, cached: bool = True) -> AppendFile:
        return FaultyFile(path, self, cached)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.unlinked[path] = path.read_bytes()
        super().unlink(path)

    def free_bytes(self, folder: Path) -> int:
        return 1 << 40 if self.space_bytes is None else self.space_bytes

    def lose_power(self, rng: np.random.Generator) -> None:
        """Of the bytes that were not synced keep a random prefix, perhaps with a torn block at its end; deletions may come undone."""
        for (path, inode), synced in self.synced.items():
            if not path.exists() or path.stat().st_ino != inode:
                continue
            size = path.stat().st_size
            kept = int(rng.integers(synced, size + 1)) if size > synced else size
            os.truncate(path, kept)
            if kept > synced and rng.random() < 0.5:
                torn = int(rng.integers(synced, kept))
                with path.open("r+b") as raw:
                    raw.seek(torn)
                    raw.write(rng.bytes(kept - torn))
        for path, data in self.unlinked.items():
            if not path.exists() and rng.random() < 0.5:
                path.write_bytes(data)
        self.synced, self.unlinked = {}, {}


class FaultyFile(AppendFile):
    def __init__(self, path: Path, disk: FaultyDisk, cached: bool) -> None:
        super().__init__(path, cached=cached)
        self._disk = disk
        self._key = (path, path.stat().st_ino)
        disk.synced.setdefault(self._key, self.size)  # `write_file` syncs before the file is opened for appending

    def append(self, parts) -> None:
        size = sum(len(p) for p in parts)
        if self._disk.space_bytes is not None:
            if size > self._disk.space_bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._disk.space_bytes -= size
        super().append(parts)

    def sync(self) -> None:
        self._disk.syncs += 1
        if self._disk.fail_sync:
            raise OSError(errno.EIO, "Input/output error")
        if not self._disk.quick:
            super().sync()
        self._disk.synced[self._key] = self.size

    def cut(self, size: int) -> None:
        super().cut(size)
        self._disk.synced[self._key] = min(self._disk.synced[self._key], size)


class StubbornDisk(FaultyDisk):
    """Refuses to write or rename whole files.

    Attributes:
        left: How many it still takes.
    """

    left = 1 << 30

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write_file(self, path, data, *, mode=0o644):
        self._count()
        super().write_file(path, data, mode=mode)

    def rename(self, source, target):
        self._count()
        super().rename(source, target)


def test_power_loss_keeps_what_was_synced_and_may_lose_the_rest(tmp_path):
    lengths = set()
    for seed in range(20):
        disk = FaultyDisk()
        path = tmp_path / f"{seed}"
        file = disk.open_append(path)
        file.append([b"a" * 100])
        file.sync()
        file.append([b"b" * 100])
        file.close()
        disk.lose_power(np.random.default_rng(seed))
        data = path.read_bytes()
        assert data[:100] == b"a" * 100
        lengths.add(len(data))
    assert len(lengths) > 10


def test_a_full_disk_and_a_refused_sync_raise(tmp_path):
    disk = FaultyDisk()
    file = disk.open_append(tmp_path / "f")
    disk.space_bytes = 5
    with pytest.raises(OSError, match="No space left"):
        file.append([b"123456"])
    assert (tmp_path / "f").read_bytes() == b""
    disk.fail_sync = True
    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    file.close()


def test_a_replaced_file_is_whole(tmp_path):
    disk = Disk()
    disk.write_file(tmp_path / "f", b"old")
    disk.write_file(tmp_path / "f", b"new", mode=0o600)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    file = disk.open_append(tmp_path / "f")
    file.append([b"er"])
    file.sync()
    file.cut(4)
    file.close()
    file.close()
    assert (tmp_path / "f").read_bytes() == b"newe"
    assert disk.free_bytes(tmp_path) > 0


@pytest.mark.parametrize("refusal", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_large_append_past_the_cache_is_whole_also_where_the_kernel_cannot(tmp_path, monkeypatch, refusal):
    write, asked = os.pwritev, []

    def pwritev(fd, parts, offset, flags=0):
        asked.append(flags)
        if flags and refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        return write(fd, parts, offset)  # without the flag: whether this kernel has it must not decide the test

    monkeypatch.setattr(os, "pwritev", pwritev)
    rng = np.random.default_rng(0)
    large = [rng.bytes(100_000), memoryview(rng.bytes(200_000))]
    file = Disk().open_append(tmp_path / "f", cached=False)
    for parts in ([b"head"], large, large):
        file.append(parts)
    file.close()
    assert (tmp_path / "f").read_bytes() == b"head" + 2 * b"".join(large)
    assert asked == ([0, DONTCACHE, DONTCACHE] if refusal is None else [0, DONTCACHE, 0, 0])


def test_a_full_disk_is_no_reason_to_write_through_the_cache(tmp_path, monkeypatch):
    def pwritev(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = Disk().open_append(tmp_path / "f", cached=False)
    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(OSError, match="No space left"):
        file.append([bytes(DONTCACHE_FROM_BYTES)])
    assert file.size == 0
    file.close()
