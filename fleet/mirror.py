"""A copy of another hub's catalogue. Everything in it is checked before it is kept: files of artifacts by the hash in their name, metadata by
signature and version. The timestamp comes last, so that what it leads to is there before a robot can ask for it.
"""

# pyright: reportPrivateImportUsage=false
# tuf.api.metadata re-exports its documented classes without saying so in __all__.

import hashlib
import re
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Timestamp

from fleet.disk import Disk
from fleet.errors import CatalogueError

TIMESTAMP = "metadata/timestamp.json"
_TARGET = re.compile(r"targets/[a-z0-9_.-]+/[a-z0-9_.-]+/([0-9a-f]{64})\.[a-z0-9_.-]+")
_METADATA = re.compile(r"metadata/(\d+)\.(root|targets|snapshot)\.json")


def listing(folder: Path) -> dict[str, str]:
    """Files of a catalogue: path -> "" for those that never change under their name, the hash for the timestamp."""
    found = {}
    for path in sorted(folder.glob("metadata/*.json")) + sorted(folder.glob("targets/*/*/*")):
        name = path.relative_to(folder).as_posix()
        if name == TIMESTAMP:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif _TARGET.fullmatch(name) or _METADATA.fullmatch(name):
            found[name] = ""
    return found


def wanted(theirs: dict[str, str], folder: Path) -> list[str]:
    """What to ask for, in order: artifacts, metadata, the timestamp."""
    ours = listing(folder)
    known = [p for p in theirs if _TARGET.fullmatch(p) or _METADATA.fullmatch(p) or p == TIMESTAMP]
    return sorted(
        (p for p in known if ours.get(p) != theirs[p]),
        key=lambda p: (p == TIMESTAMP, p.startswith("metadata/"), p),
    )


def keep(folder: Path, path: str, data: bytes, trust: bytes, *, disk: Disk | None = None) -> bool:
    """Keep one file of another hub's catalogue; returns whether it was newer than ours.

    Args:
        trust: The root this hub was set up with.

    Raises:
        CatalogueError: It is not what its name says, or not signed by those the root names.
    """
    target, metadata = _TARGET.fullmatch(path), _METADATA.fullmatch(path)
    if target:
        if hashlib.sha256(data).hexdigest() != target[1]:
            raise CatalogueError(f"{path}: its content has another hash")
    elif metadata or path == TIMESTAMP:
        role = metadata[2] if metadata else "timestamp"
        try:
            root = Metadata[Root].from_bytes(trust).signed
            signed = Metadata.from_bytes(data)
            if role != "root":
                root.verify_delegate(role, signed.signed_bytes, signed.signatures)
            elif data != trust:
                raise CatalogueError(f"{path}: another root than this hub's; copy trust/root.json by hand")
        except (RepositoryError, ValueError) as error:
            raise CatalogueError(f"{path}: {error}") from error
        if metadata and signed.signed.version != int(metadata[1]):
            raise CatalogueError(f"{path}: holds version {signed.signed.version}")
        ours = folder / TIMESTAMP
        if (
            not metadata
            and ours.exists()
            and Metadata[Timestamp].from_file(str(ours)).signed.version >= signed.signed.version
        ):
            return False
    else:
        raise CatalogueError(f"{path}: no file of a catalogue")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (disk or Disk()).write_file(folder / path, data)
    return True
