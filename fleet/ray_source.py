"""A hub's experience as a Ray Data source: `ray.data.read_datasource(HubDatasource("manifest.json"))`.

One read task per part of the manifest: a sealed segment of the log, or a pack. Each task reads its own file, checks it against the
manifest's hash, and yields a block of rows, one row per control step. The files must be reachable from every node under the same path.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ray.data import Datasource, ReadTask
from ray.data.block import Block, BlockAccessor, BlockMetadata

from fleet.exports.manifest import Part, chunks_in, place_of, read_manifest
from fleet.exports.source import ExportError, Kind, choose, usual
from fleet.segment import foot_of
from robot.experience import Chunk
from robot.packs import META, TERMINATED, open_pack

log = logging.getLogger(__name__)

BLOCK_STEPS = 8192  # rows in a block


class HubDatasource(Datasource):
    """Rows: observation, action, reward, log_prob, success, terminated, next_observation.

    Args:
        manifest: A file written by `flexor fleet export manifest`.
        contract_sha256: Only experience of this contract; "" where there is one kind only.

    Attributes:
        left_out: What of the contract does not fit the rest, and is not read: how many steps, whose, why.

    Raises:
        ExportError: Not a manifest, or several contracts and none was named.
        UnknownNameError: No such contract; the known ones are listed.
    """

    def __init__(self, manifest: str | Path, contract_sha256: str = "") -> None:
        super().__init__()
        self._manifest = Path(manifest).resolve()
        parts = read_manifest(self._manifest).parts
        shares = [share for part in parts for share in part.kinds]
        contract = choose(self._manifest, contract_sha256, {share.kind.contract_sha256 for share in shares})
        kinds: dict[Kind, tuple[set[str], int]] = {}
        for share in shares:
            if share.kind.contract_sha256 == contract:
                robots, steps = kinds.setdefault(share.kind, (set(), 0))
                kinds[share.kind] = robots | set(share.robots), steps + share.steps
        self._kind = usual(kinds)
        self._parts = [(p, n) for p in parts if (n := sum(s.steps for s in p.kinds if s.kind == self._kind))]
        self.left_out = [
            f"{steps} steps by {', '.join(sorted(robots))}: {kind.instead_of(self._kind)}"
            for kind, (robots, steps) in kinds.items()
            if kind != self._kind
        ]
        for what in self.left_out:
            log.warning("%s: left out, does not fit the others: %s", self._manifest, what)

    def estimate_inmemory_data_size(self) -> int:
        return sum(part.bytes for part, _ in self._parts)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One per part; `parallelism` is not asked for more: a part is read in one go."""
        tasks = []
        for part, steps in self._parts:
            path = place_of(part, self._manifest)
            metadata = BlockMetadata(
                num_rows=steps,
                size_bytes=part.bytes,
                exec_stats=None,
                input_files=(str(path),),
            )
            tasks.append(ReadTask(_reader(part, path, self._kind), metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def _reader(part: Part, path: Path, kind: Kind) -> Callable[[], Iterable[Block]]:
    read = _segment_rows if part.kind == "segment" else _pack_rows

    def blocks() -> Iterator[Block]:
        for rows in read(path, part, kind):
            yield BlockAccessor.batch_to_block(rows)

    return blocks


def _pack_rows(path: Path, part: Part, kind: Kind) -> Iterator[dict[str, np.ndarray]]:
    _same(hashlib.sha256((path / META).read_bytes()).hexdigest(), part, path)
    pack = open_pack(path)  # compares every column with the hash in meta.json
    for start in range(0, len(pack), BLOCK_STEPS):
        rows = np.arange(start, min(start + BLOCK_STEPS, len(pack)))
        yield {
            "observation": np.array(pack.observation[rows]),
            "action": np.array(pack.action[rows]),
            "reward": np.array(pack.reward[rows]),
            "log_prob": np.array(pack.log_prob[rows]),
            "success": pack.success[rows].astype(bool),
            "terminated": pack.ended[rows] == TERMINATED,
            "next_observation": pack.next_observation(rows),
        }


def _segment_rows(path: Path, part: Part, kind: Kind) -> Iterator[dict[str, np.ndarray]]:
    data = path.read_bytes()
    foot = foot_of(data)
    if foot is None:
        raise ExportError(f"{path}: the segment has no foot; was it changed since the manifest was written?")
    _same(hashlib.sha256(data[: foot[1]]).hexdigest(), part, path)
    waiting: list[dict[str, np.ndarray]] = []
    steps = 0
    for _, chunk in chunks_in(data):
        if Kind.of(chunk.header) == kind:
            waiting.append(_chunk_rows(chunk))
            steps += chunk.header.steps
        if steps >= BLOCK_STEPS:
            yield _together(waiting)
            waiting, steps = [], 0
    if waiting:
        yield _together(waiting)


def _chunk_rows(chunk: Chunk) -> dict[str, np.ndarray]:
    terminated = np.zeros(chunk.header.steps, dtype=bool)
    terminated[-1] = chunk.header.ended == "terminated"
    return {
        "observation": chunk.observation,
        "action": chunk.action,
        "reward": chunk.reward.sum(axis=1, dtype=np.float32),
        "log_prob": chunk.log_prob,
        "success": chunk.success.astype(bool),
        "terminated": terminated,
        "next_observation": np.concatenate([chunk.observation[1:], chunk.last_observation[None]]),
    }


def _together(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _same(sha256: str, part: Part, path: Path) -> None:
    if sha256 != part.sha256:
        raise ExportError(
            f"{path}: sha256 {sha256[:12]}, the manifest says {part.sha256[:12]}; it is not what was listed"
        )
