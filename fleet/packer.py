"""From the hub's log to packs: the records of the steps stream, each once, grouped by contract."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleet.store import read_log
from fleet.wire import STEPS
from robot.errors import UnknownNameError
from robot.experience import Chunk, ExperienceError, decode, read_header
from robot.packs import Meta, open_pack, write_pack


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What `pack_log` made.

    Attributes:
        packs: Folder -> what is in it.
        bad_records: Records of the steps stream that are no chunks; they stay in the log.
    """

    packs: dict[Path, Meta]
    bad_records: int

    @property
    def steps(self) -> int:
        return sum(meta.steps for meta in self.packs.values())


def pack_log(folder: Path, out: Path, *, contract_sha256: str = "", exclude_policies: Collection[str] = ()) -> Packed:
    """Seal what a hub holds into one pack per contract. The same log gives the same pack, which is then not written again.

    Args:
        folder: The hub's folder; the hub may be running.
        out: Where the packs go, as `<contract>-<content>`.
        contract_sha256: Only this contract; "" for all.
        exclude_policies: Experience of these policies is left out (banned ones).

    Raises:
        UnknownNameError: No experience of that contract; the known ones are listed.
    """
    chunks: dict[str, list[Chunk]] = {}
    contents: dict[str, hashlib._Hash] = {}
    robots: dict[str, set[str]] = {}
    seen: set[tuple[tuple[str, int, int], int]] = set()
    bad = 0
    for record, payload in read_log(folder):
        if record.stream != STEPS or record.tombstone or (record.key, record.seq) in seen:
            continue
        seen.add((record.key, record.seq))
        try:
            header, _ = read_header(payload)
            if header.policy_sha256 in exclude_policies or contract_sha256 not in ("", header.contract_sha256):
                continue
            chunk = decode(payload)
        except ExperienceError:
            bad += 1
            continue
        key = header.contract_sha256
        chunks.setdefault(key, []).append(chunk)
        contents.setdefault(key, hashlib.sha256()).update(f"{record.key}{record.seq}{record.crc}".encode())
        robots.setdefault(key, set()).add(record.robot)
    if contract_sha256 and contract_sha256 not in chunks:
        raise UnknownNameError("contract in the log", contract_sha256, sorted(chunks))
    packs: dict[Path, Meta] = {}
    for key, parts in chunks.items():
        path = out / f"{key[:12]}-{contents[key].hexdigest()[:12]}"
        source = {"robots": ",".join(sorted(robots[key])), "records": str(len(parts))}
        packs[path] = _existing(path) or write_pack(path, parts, source=source)
    return Packed(packs=packs, bad_records=bad)


def _existing(path: Path) -> Meta | None:
    return open_pack(path).meta if path.exists() else None
