"""Replacing a file in one step: a reader, a crash or a full disk finds the old one or the new one, never half of it."""

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file beside its place, sync it, and rename it over what is there.

    Args:
        path: Where it goes; the folder must exist.
        data: All of it.
        mode: Permissions of the new file.

    Raises:
        OSError: The disk is full or not writable; what was there before is untouched.
    """
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
