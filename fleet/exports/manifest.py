"""A manifest: which files hold which experience, each named by its hash. What a trainer on other machines starts from.

Sealed segments of the log and packs never change, so a manifest says exactly what a run learned from and the run can be repeated. The segment
that is still being written is not in it; a pack made of it is.
"""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from fleet.disk import Disk
from fleet.errors import KeyFileError, RecordError
from fleet.exports.source import ExportError, Kind, checked
from fleet.segment import DATA, Buffer, foot_of, head_of, walk
from fleet.wire import STEPS
from robot.experience import Chunk, ExperienceError, decode
from robot.packs import META, find_packs, open_pack

SCHEMA = 2


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a part holds of one kind."""

    kind: Kind
    steps: int
    robots: tuple[str, ...]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file or folder.

    Attributes:
        path: Relative to the manifest, or absolute.
        sha256: Of a segment up to its foot; of a pack's meta.json, which holds the hashes of its columns.
        bytes: On disk.
        steps: Control steps in it.
        robots: Whose.
        kinds: What kinds of chunks are in it, how many steps of each, and whose.
    """

    kind: Literal["segment", "pack"]
    path: str
    sha256: str
    bytes: int
    steps: int
    robots: tuple[str, ...] = ()
    kinds: tuple[Share, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json."""

    schema: int = SCHEMA
    parts: tuple[Part, ...] = ()

    @property
    def steps(self) -> int:
        return sum(part.steps for part in self.parts)


def write_manifest(hub: Path | None, packs: Path | None, out: Path) -> Manifest:
    """List the sealed segments of a hub's log and the packs in a folder.

    Raises:
        ExportError: There are none.
    """
    parts = [*(_segments(hub, out.parent) if hub else ()), *(_packs(packs, out.parent) if packs else ())]
    if not parts:
        where = " and ".join(str(p) for p in (hub, packs) if p)
        raise ExportError(
            f"{where}: neither a sealed segment nor a pack. A segment is sealed when it is full; "
            "do: flexor fleet export packs, and name its folder with --packs"
        )
    manifest = Manifest(parts=tuple(parts))
    out.parent.mkdir(parents=True, exist_ok=True)
    Disk().write_file(out, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        ExportError: It is none, or of another schema.
    """
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: not a manifest: {error}") from error
    if manifest.schema != SCHEMA:
        raise ExportError(f"{path}: manifest schema {manifest.schema}, this version reads {SCHEMA}")
    return manifest


def place_of(part: Part, manifest: Path) -> Path:
    """Where a part is."""
    return manifest.parent / part.path


def _segments(hub: Path, beside: Path) -> list[Part]:
    parts = []
    for path in sorted((hub / "log").glob("*.seg")):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            foot = foot_of(data)
            if foot is None:
                continue
            sha256 = hashlib.sha256(data[: foot[1]]).hexdigest()
            kinds: dict[Kind, tuple[int, set[str]]] = {}
            for robot, chunk in chunks_in(data):
                steps, robots = kinds.setdefault(Kind.of(chunk.header), (0, set()))
                kinds[Kind.of(chunk.header)] = steps + chunk.header.steps, robots | {robot}
        if kinds:
            part = Part(
                kind="segment",
                path=_relative(path, beside),
                sha256=sha256,
                bytes=path.stat().st_size,
                steps=sum(steps for steps, _ in kinds.values()),
                robots=tuple(sorted({robot for _, robots in kinds.values() for robot in robots})),
                kinds=tuple(Share(kind=k, steps=n, robots=tuple(sorted(r))) for k, (n, r) in kinds.items()),
            )
            parts.append(part)
    return parts


def chunks_in(data: Buffer) -> Iterator[tuple[str, Chunk]]:
    """Robot and chunk of every record of a segment that holds one; the hub counts the others."""
    for record in walk(data, head_of(data)[1], check_payloads=False):
        if record.kind == DATA and record.stream == STEPS and not record.tombstone:
            try:
                chunk = decode(record.payload(data))
                checked(record.robot, chunk)
            except (RecordError, ExperienceError, KeyFileError):
                continue
            yield record.robot, chunk


def _packs(folder: Path, beside: Path) -> list[Part]:
    parts = []
    for path in find_packs(folder):
        meta = open_pack(path, verify=False).meta
        robots = tuple(filter(None, meta.source.get("robots", "").split(",")))
        kind = Kind(**{name: getattr(meta, name) for name in Kind.__struct_fields__})
        part = Part(
            kind="pack",
            path=_relative(path, beside),
            sha256=hashlib.sha256((path / META).read_bytes()).hexdigest(),
            bytes=sum(file.stat().st_size for file in path.iterdir()),
            steps=meta.steps,
            robots=robots,
            kinds=(Share(kind=kind, steps=meta.steps, robots=robots),),
        )
        parts.append(part)
    return parts


def _relative(path: Path, beside: Path) -> str:
    path, beside = path.resolve(), beside.resolve()
    return str(path.relative_to(beside)) if path.is_relative_to(beside) else str(path)
