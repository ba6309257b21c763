"""From the hub's log to packs: each step once, grouped by contract; what does not fit the others of its contract is left out and named."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet.exports.source import Episode, Source, scan_log
from robot.errors import UnknownNameError
from robot.experience import Chunk
from robot.packs import Meta, open_pack, write_pack


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What `pack_log` made.

    Attributes:
        packs: Folder -> what is in it.
        bad_records: Records of the steps stream that are no chunks; they stay in the log.
        banned_records: Those of policies that were rolled back.
        odd: What was left out because it does not fit: whose, and why.
    """

    packs: dict[Path, Meta]
    bad_records: int
    banned_records: int
    odd: tuple[str, ...]

    @property
    def steps(self) -> int:
        return sum(meta.steps for meta in self.packs.values())


def pack_log(folder: Path, out: Path, *, contract_sha256: str = "", include_banned: bool = False) -> Packed:
    """Seal what a hub holds into one pack per contract. The same log gives the same pack, which is then not written again.

    Args:
        folder: The hub's folder; the hub may be running.
        out: Where the packs go, as `<contract>-<content>`.
        contract_sha256: Only this contract; "" for all.
        include_banned: Also experience of policies that were rolled back.

    Raises:
        UnknownNameError: No experience of that contract; the known ones are listed.
    """
    scan = scan_log(folder, include_banned=include_banned)
    if contract_sha256 and contract_sha256 not in scan.contracts:
        raise UnknownNameError("contract in the log", contract_sha256, sorted(scan.contracts))
    packs: dict[Path, Meta] = {}
    odd: list[str] = []
    for contract in dict.fromkeys(kind.contract_sha256 for kind in scan.found):
        if contract_sha256 not in ("", contract):
            continue
        source = Source(folder, contract, scan=scan)
        source.episodes, strangers = _one_robot_each(source.episodes)
        odd += [f"contract {contract[:12]}: {what}" for what in (*source.odd, *strangers)]
        content = hashlib.sha256()
        for e in source.episodes:
            content.update("".join(f"{e.robot} {e.id} {p.first_step} {p.crc}\n" for p in e.pieces).encode())
        path = out / f"{contract[:12]}-{content.hexdigest()[:12]}"
        robots = ",".join(sorted({e.robot for e in source.episodes}))
        records = str(sum(len(e.pieces) for e in source.episodes))
        packs[path] = _existing(path) or write_pack(
            path, _chunks(source), source={"robots": robots, "records": records}
        )
    return Packed(packs=packs, bad_records=scan.bad_records, banned_records=scan.left_out, odd=tuple(odd))


def _one_robot_each(episodes: list[Episode]) -> tuple[list[Episode], list[str]]:
    """A pack knows an episode by its id alone: of two robots that use one id the first keeps it."""
    owners: dict[str, str] = {}
    kept, strangers = [], []
    for episode in episodes:
        if owners.setdefault(episode.id, episode.robot) == episode.robot:
            kept.append(episode)
        else:
            strangers.append(
                f"{episode.steps} steps by {episode.robot}: episode {episode.id} is {owners[episode.id]}'s"
            )
    return kept, strangers


def _chunks(source: Source) -> Iterator[Chunk]:
    for _, chunks in source.chunks():
        yield from chunks


def _existing(path: Path) -> Meta | None:
    return open_pack(path).meta if path.exists() else None
