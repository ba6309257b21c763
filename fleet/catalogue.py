"""The catalogue: which artifacts exist, signed with TUF (The Update Framework). A robot runs nothing that is not in it.

    D/metadata/{N.root,N.targets,N.snapshot,timestamp}.json     D/targets/<name>/<version>/<sha256>.<file>

This is the hub's and the release tool's side; the robot's is `fleet.download`.
"""

# pyright: reportPrivateImportUsage=false
# tuf.api.metadata re-exports its documented classes without saying so in __all__.

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet.assignment import ArtifactRef
from fleet.disk import Disk
from fleet.errors import CatalogueError
from fleet.keys import load_signing_key
from robot.artifacts import CARD_FILE, GOLDEN_FILE, NAME, POLICY_FILE, VERSION

FILES = (POLICY_FILE, GOLDEN_FILE, CARD_FILE)
MAX_FILE_BYTES = 64 << 20
TUF_ROLES = ("root", "targets", "snapshot", "timestamp")
LIFETIME = {
    "root": timedelta(days=3650),
    "targets": timedelta(days=365),
    "snapshot": timedelta(days=30),
    "timestamp": timedelta(days=7),
}
_LOADED = (("targets", Targets), ("snapshot", Snapshot), ("timestamp", Timestamp))
_PATH = re.compile(r"(metadata|targets)(/[A-Za-z0-9][A-Za-z0-9_.-]*){1,4}")


def make_root(keys: Path, now: datetime, *, disk: Disk | None = None) -> bytes:
    """The first root of trust: which key signs which role. Kept in `trust/root.json`; a robot is born with it.

    Raises:
        LooseSecretError, KeyFileError: A signing key is missing or open to others.
    """
    path = keys / "trust/root.json"
    if path.exists():
        return path.read_bytes()
    signers = {role: _signer(keys, role) for role in TUF_ROLES}
    root = Root(expires=_expiry("root", now), consistent_snapshot=True)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    metadata = Metadata(root)
    metadata.sign(signers["root"])
    data = metadata.to_bytes()
    (disk or Disk()).write_file(path, data)
    return data


class Catalogue:
    """A signed repository on disk.

    Args:
        folder: Where it is; made if missing.
        keys: Key folder, for publishing and refreshing; reading needs none.
    """

    def __init__(self, folder: Path, keys: Path, *, disk: Disk | None = None) -> None:
        self._folder, self._keys, self._disk = folder, keys, disk or Disk()
        self._metadata, self._targets = folder / "metadata", folder / "targets"
        for sub in (self._metadata, self._targets):
            sub.mkdir(parents=True, exist_ok=True)

    def publish(self, artifact: Path, name: str, version: str, now: datetime) -> ArtifactRef:
        """Add an artifact and sign for it. An artifact is never changed: the same version with other bytes is refused.

        Args:
            artifact: Folder with policy.onnx, golden.npz, card.md.
            name, version: Under which it will be known.
            now: UTC.

        Raises:
            CatalogueError: A file is missing or too large, a name that cannot be one, or a version that is taken.
        """
        if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
            raise CatalogueError(f"{name}/{version}: an artifact is called like hand_reach/v2")
        contents = {file: _read(artifact / file) for file in FILES}
        targets = self._load("targets", Targets)
        added: dict[str, TargetFile] = {}
        for file, data in contents.items():
            path = f"{name}/{version}/{file}"
            target = TargetFile.from_data(path, data, ["sha256"])
            known = targets.signed.targets.get(path) if targets else None
            if known is not None and known.hashes != target.hashes:
                raise CatalogueError(
                    f"{path} is in the catalogue with other content; a version is never changed: take the next"
                )
            added[path] = target
            out = self._targets / name / version / f"{target.hashes['sha256']}.{file}"
            out.parent.mkdir(parents=True, exist_ok=True)
            self._disk.write_file(out, data)
        if targets is None or not set(added) <= set(targets.signed.targets):
            old = targets.signed if targets else None
            new = Targets(
                version=old.version + 1 if old else 1,
                expires=_expiry("targets", now),
                targets={**(old.targets if old else {}), **added},
            )
            self._put("targets", Metadata(new), new.version)
            self.refresh(now, force=True)
        return ArtifactRef(name=name, version=version, sha256=hashlib.sha256(contents[POLICY_FILE]).hexdigest())

    def refresh(self, now: datetime, *, force: bool = False) -> bool:
        """Sign snapshot and timestamp again when they are half over (or the targets changed)."""
        targets = self._load("targets", Targets)
        if targets is None:
            if not force:
                return False
            raise CatalogueError(f"{self._folder}: nothing is published yet")
        root = self._metadata / "1.root.json"
        if not root.exists():
            self._disk.write_file(root, make_root(self._keys, now))
        snapshot, timestamp = self._load("snapshot", Snapshot), self._load("timestamp", Timestamp)
        if not force and timestamp and timestamp.signed.expires - now > LIFETIME["timestamp"] / 2:
            return False
        if force or snapshot is None or snapshot.signed.expires - now < LIFETIME["snapshot"] / 2:
            version = snapshot.signed.version + 1 if snapshot else 1
            new = Snapshot(
                version=version,
                expires=_expiry("snapshot", now),
                meta={"targets.json": MetaFile(version=targets.signed.version)},
            )
            self._put("snapshot", snapshot := Metadata(new), version)
        version = timestamp.signed.version + 1 if timestamp else 1
        fresh = Timestamp(
            version=version,
            expires=_expiry("timestamp", now),
            snapshot_meta=MetaFile(version=snapshot.signed.version),
        )
        self._put("timestamp", Metadata(fresh), version)
        return True

    def find(self, name: str, version: str) -> ArtifactRef:
        """A published artifact.

        Raises:
            CatalogueError: It is not in the catalogue; what is there is listed.
        """
        targets = self._load("targets", Targets)
        known = targets.signed.targets if targets else {}
        target = known.get(f"{name}/{version}/{POLICY_FILE}")
        if target is None:
            labels = sorted({path.rpartition("/")[0] for path in known}) or ["nothing"]
            raise CatalogueError(f"{name}/{version} is not in the catalogue. Known: {', '.join(labels)}")
        return ArtifactRef(name=name, version=version, sha256=target.hashes["sha256"])

    def facts(self, now: datetime) -> tuple[dict[str, list[str]], dict[str, float]]:
        """Versions of every artifact, oldest first, and for how long each role's signature counts [s]."""
        roles = {role: self._load(role, kind) for role, kind in (("root", Root), *_LOADED)}
        left = {role: (m.signed.expires - now).total_seconds() for role, m in roles.items() if m is not None}
        versions: dict[str, set[str]] = {}
        targets = roles["targets"]
        for path in targets.signed.targets if targets else ():
            name, version, _ = path.split("/")
            versions.setdefault(name, set()).add(version)
        return {name: sorted(found, key=_natural) for name, found in versions.items()}, left

    def piece(self, path: str, offset: int, size: int) -> tuple[int, bytes]:
        """A file's size (-1: no such file) and a piece of it. Only files of the catalogue can be asked for."""
        file = self._folder / path
        try:
            if not _PATH.fullmatch(path) or not file.is_file() or file.is_symlink():
                return -1, b""
            with file.open("rb") as handle:
                handle.seek(offset)
                return file.stat().st_size, handle.read(size)
        except OSError:  # a name longer than a file's may be, or it went while we looked
            return -1, b""

    def _load(self, role: str, _type: type) -> Metadata | None:
        if role == "timestamp":
            path = self._metadata / "timestamp.json"
            return Metadata.from_file(str(path)) if path.exists() else None
        found = {int(p.name.partition(".")[0]): p for p in self._metadata.glob(f"*.{role}.json") if p.name[0].isdigit()}
        return Metadata.from_file(str(found[max(found)])) if found else None

    def _put(self, role: str, metadata: Metadata, version: int) -> None:
        metadata.sign(_signer(self._keys, role))
        name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        self._disk.write_file(self._metadata / name, metadata.to_bytes())


def _natural(version: str) -> list[tuple[bool, int, str]]:
    """v2 before v10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", version)]


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}; an artifact has {', '.join(FILES)}") from error
    if len(data) > MAX_FILE_BYTES:
        raise CatalogueError(f"{path} has {len(data)} bytes; at most {MAX_FILE_BYTES}")
    return data


def _signer(keys: Path, role: str) -> CryptoSigner:
    key = load_signing_key(keys, role)
    assert isinstance(key, Ed25519PrivateKey)
    return CryptoSigner(key)


def _expiry(role: str, now: datetime) -> datetime:
    return (now + LIFETIME[role]).astimezone(UTC).replace(microsecond=0)
