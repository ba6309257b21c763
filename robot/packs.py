"""Experience packs: sealed folders that a replay buffer reads in place. One contract per pack, one .npy per column, memory-mapped.

    PACK/meta.json               what it is of, and the sha256 of every column
    PACK/observation.npy         (steps, n_obs) float32, before each action
    PACK/action.npy              (steps, n_act) float32, as sampled
    PACK/reward.npy              (steps,) float32, sum of the terms
    PACK/reward_terms.npy        (steps, n_terms) float32
    PACK/log_prob.npy            (steps,) float32, NaN where the policy acted without noise
    PACK/success.npy             (steps,) uint8
    PACK/time_s.npy              (steps,) float64, robot clock
    PACK/policy.npy              (steps,) uint16, index into meta.policies
    PACK/episode.npy             (steps,) uint32, index into meta.episodes
    PACK/ended.npy               (steps,) uint8: 0 goes on in the next row, 1 terminated, 2 truncated, 3 cut (what follows is not here)
    PACK/last_index.npy          (steps,) int32, row of last_observation where `ended` is not 0, else -1
    PACK/last_observation.npy    (ends, n_obs) float32, after the last action

Rows of an episode are contiguous and in order. Value is bootstrapped everywhere except where `ended` is 1. A pack is written to a folder beside
its own, synced and renamed, so it is there whole or not at all.
"""

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from robot.errors import FlexorError, UnknownNameError
from robot.experience import Chunk

SCHEMA = 1
META = "meta.json"
GOES_ON, TERMINATED, TRUNCATED, CUT = 0, 1, 2, 3
MAX_META_BYTES = 256 << 20

COLUMNS: dict[str, np.dtype] = {
    "observation": np.dtype("<f4"),
    "action": np.dtype("<f4"),
    "reward": np.dtype("<f4"),
    "reward_terms": np.dtype("<f4"),
    "log_prob": np.dtype("<f4"),
    "success": np.dtype("u1"),
    "time_s": np.dtype("<f8"),
    "policy": np.dtype("<u2"),
    "episode": np.dtype("<u4"),
    "ended": np.dtype("u1"),
    "last_index": np.dtype("<i4"),
    "last_observation": np.dtype("<f4"),
}


class PackError(FlexorError, ValueError):
    """A pack that cannot be written or read; the message names the pack and the column."""


class EmptyPackError(PackError):
    """No steps."""


class MixedContractError(PackError):
    """Chunks of another contract, or of other reward terms, than the first."""


class DoubledChunkError(PackError):
    """The same steps of the same episode twice."""


class CorruptPackError(PackError):
    """Files that are missing, of another size, or not what was written."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """Shape and hash of one column."""

    shape: tuple[int, ...]
    sha256: str


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode's rows: `steps` of them from `row` on. `first_step` is 0 unless its beginning is not here."""

    id: str
    policy: int
    row: int
    steps: int
    first_step: int
    ended: int
    reward: float
    success: bool
    cohort: str
    start_time_ns: int


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """meta.json."""

    schema: int
    contract_sha256: str
    steps: int
    observation_size: int
    action_size: int
    reward_names: tuple[str, ...]
    control_hz: float
    policies: tuple[str, ...]
    episodes: tuple[Episode, ...]
    columns: dict[str, Column]
    source: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An open pack. Arrays are read-only and memory-mapped; the attributes are the columns listed at the top of this module."""

    path: Path
    meta: Meta
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    reward_terms: np.ndarray
    log_prob: np.ndarray
    success: np.ndarray
    time_s: np.ndarray
    policy: np.ndarray
    episode: np.ndarray
    ended: np.ndarray
    last_index: np.ndarray
    last_observation: np.ndarray

    def __len__(self) -> int:
        return self.meta.steps

    def next_observation(self, rows: np.ndarray) -> np.ndarray:
        """What was observed after these rows' actions, shape (len(rows), n_obs), a fresh array."""
        rows = np.asarray(rows, dtype=np.intp)
        following = self.observation[np.minimum(rows + 1, len(self) - 1)]
        at_end = self.ended[rows] != GOES_ON
        following[at_end] = self.last_observation[self.last_index[rows[at_end]]]
        return following

    def bootstraps(self, rows: np.ndarray) -> np.ndarray:
        """Whether value goes on behind these rows, shape (len(rows),), bool: everywhere but where the task ended the episode."""
        return self.ended[np.asarray(rows, dtype=np.intp)] != TERMINATED


def write_pack(path: Path, chunks: Iterable[Chunk], *, source: dict[str, str] | None = None) -> Meta:
    """Seal chunks into a pack. They may come in any order and from several robots; episodes keep the order of their first chunk.

    Args:
        path: The pack's folder; it must not exist.
        chunks: Experience of one contract.
        source: Where it came from, kept in meta.json.

    Raises:
        EmptyPackError: No chunks.
        MixedContractError: More than one contract, or other reward terms.
        DoubledChunkError: Overlapping chunks of one episode.
        PackError: The folder exists.
    """
    if path.exists():
        raise PackError(f"{path} exists; a pack is never changed: write to another folder")
    episodes: dict[str, list[Chunk]] = {}
    first: Chunk | None = None
    for chunk in chunks:
        first = first or chunk
        _same_kind(path, first, chunk)
        episodes.setdefault(chunk.header.episode_id, []).append(chunk)
    if first is None:
        raise EmptyPackError(f"{path}: no chunks; there is nothing to pack")
    ordered = [_in_order(path, parts) for parts in episodes.values()]
    columns, table, policies = _columns(ordered)
    head = first.header
    meta = Meta(
        schema=SCHEMA,
        contract_sha256=head.contract_sha256,
        steps=len(columns["reward"]),
        observation_size=head.observation_size,
        action_size=head.action_size,
        reward_names=head.reward_names,
        control_hz=head.control_hz,
        policies=policies,
        episodes=table,
        columns={},
        source=source or {},
    )
    return _write(path, meta, columns)


def open_pack(path: Path, *, verify: bool = True) -> Pack:
    """Open a pack.

    Args:
        path: Its folder.
        verify: Read every column once and compare its hash; without it only sizes and types are checked.

    Raises:
        CorruptPackError: A file is missing, of another size or type, or not what was written; the column is named.
        EmptyPackError: It holds no steps.
    """
    try:
        raw = (path / META).read_bytes()
    except OSError as error:
        raise CorruptPackError(f"{path}: not a pack, {META} cannot be read: {error.strerror}") from error
    try:
        meta = msgspec.json.decode(raw[:MAX_META_BYTES], type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptPackError(f"{path}/{META}: {error}") from error
    if meta.schema != SCHEMA:
        raise CorruptPackError(f"{path}: pack schema {meta.schema}, this version reads {SCHEMA}")
    if set(meta.columns) != set(COLUMNS):
        odd = sorted(set(meta.columns) ^ set(COLUMNS))
        raise CorruptPackError(f"{path}: columns {odd} are missing or unknown; a pack has {', '.join(COLUMNS)}")
    if meta.steps <= 0:
        raise EmptyPackError(f"{path} holds no steps")
    expected = _shapes(meta)
    arrays = {name: _open_column(path, name, expected[name], meta.columns[name], verify) for name in COLUMNS}
    return Pack(path=path, meta=meta, **arrays)


def find_packs(folder: Path) -> list[Path]:
    """Packs directly below a folder, by name."""
    return sorted(p.parent for p in folder.glob(f"*/{META}") if not p.parent.name.startswith("."))


def open_packs(paths: Sequence[Path], contract_sha256: str, *, verify: bool = True) -> list[Pack]:
    """Open several packs of one contract.

    Raises:
        MixedContractError: One of them is of another contract.
        UnknownNameError: A path is no pack; the packs beside it are listed.
    """
    packs = []
    for path in paths:
        if not (path / META).is_file():
            raise UnknownNameError("pack", str(path), [p.name for p in find_packs(path.parent)])
        packs.append(pack := open_pack(path, verify=verify))
        if pack.meta.contract_sha256 != contract_sha256:
            raise MixedContractError(
                f"{path} is of contract {pack.meta.contract_sha256[:12]}, expected {contract_sha256[:12]}"
            )
    return packs


def _same_kind(path: Path, first: Chunk, chunk: Chunk) -> None:
    ours, theirs = first.header, chunk.header
    for what in ("contract_sha256", "reward_names", "observation_size", "action_size", "control_hz"):
        if getattr(ours, what) != getattr(theirs, what):
            raise MixedContractError(
                f"{path}: one pack holds one contract; {what} of the first chunk is {getattr(ours, what)!r}, "
                f"of episode {theirs.episode_id} {getattr(theirs, what)!r}"
            )


def _in_order(path: Path, parts: list[Chunk]) -> list[Chunk]:
    parts = sorted(parts, key=lambda c: c.header.first_step)
    for left, right in itertools.pairwise(parts):
        end = left.header.first_step + left.header.steps
        if right.header.first_step < end:
            raise DoubledChunkError(
                f"{path}: episode {left.header.episode_id} has steps {right.header.first_step}..{end - 1} twice"
            )
    return parts


def _columns(episodes: list[list[Chunk]]) -> tuple[dict[str, np.ndarray], tuple[Episode, ...], tuple[str, ...]]:
    chunks = [chunk for parts in episodes for chunk in parts]
    steps = sum(c.header.steps for c in chunks)
    policies = tuple(dict.fromkeys(c.header.policy_sha256 for c in chunks))
    columns = {
        "observation": np.concatenate([c.observation for c in chunks]),
        "action": np.concatenate([c.action for c in chunks]),
        "reward_terms": np.concatenate([c.reward for c in chunks]),
        "log_prob": np.concatenate([c.log_prob for c in chunks]),
        "success": np.concatenate([c.success for c in chunks]),
        "time_s": np.concatenate([c.time_s for c in chunks]),
        "policy": np.repeat([policies.index(c.header.policy_sha256) for c in chunks], [c.header.steps for c in chunks]),
        "episode": np.repeat(np.arange(len(episodes)), [sum(c.header.steps for c in parts) for parts in episodes]),
        "ended": np.zeros(steps),
        "last_index": np.full(steps, -1),
    }
    columns["reward"] = columns["reward_terms"].sum(axis=1, dtype=np.float32)
    table, ends, row = [], [], 0
    for parts in episodes:
        start = row
        for i, chunk in enumerate(parts):
            row += chunk.header.steps
            following = parts[i + 1].header.first_step if i + 1 < len(parts) else None
            if following == chunk.header.first_step + chunk.header.steps:
                continue
            columns["ended"][row - 1] = {"terminated": TERMINATED, "truncated": TRUNCATED, "no": CUT}[
                chunk.header.ended
            ]
            columns["last_index"][row - 1] = len(ends)
            ends.append(chunk.last_observation)
        head = parts[0].header
        table.append(
            Episode(
                id=head.episode_id,
                policy=policies.index(head.policy_sha256),
                row=start,
                steps=row - start,
                first_step=head.first_step,
                ended=int(columns["ended"][row - 1]),
                reward=float(columns["reward"][start:row].sum(dtype=np.float64)),
                success=bool(columns["success"][row - 1]),
                cohort=head.cohort,
                start_time_ns=head.start_time_ns,
            )
        )
    columns["last_observation"] = np.stack(ends)
    typed = {name: np.ascontiguousarray(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()}
    return typed, tuple(table), policies


def _write(path: Path, meta: Meta, columns: dict[str, np.ndarray]) -> Meta:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for name, array in columns.items():
            with (draft / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        hashes = {n: Column(shape=a.shape, sha256=_sha256(draft / f"{n}.npy")) for n, a in columns.items()}
        meta = msgspec.structs.replace(meta, columns=hashes)
        with (draft / META).open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(meta), indent=1))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(draft)
        os.rename(draft, path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return meta


def _shapes(meta: Meta) -> dict[str, tuple[int, ...]]:
    n = meta.steps
    ends = meta.columns["last_observation"].shape[:1]
    return {
        **dict.fromkeys(COLUMNS, (n,)),
        "observation": (n, meta.observation_size),
        "action": (n, meta.action_size),
        "reward_terms": (n, len(meta.reward_names)),
        "last_observation": (*ends, meta.observation_size),
    }


def _open_column(path: Path, name: str, shape: tuple[int, ...], column: Column, verify: bool) -> np.ndarray:
    file = path / f"{name}.npy"
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptPackError(f"{file}: {error}") from error
    if array.dtype != COLUMNS[name] or array.shape != shape or shape != column.shape:
        raise CorruptPackError(
            f"{file}: expected {COLUMNS[name]} {shape} as meta.json says, got {array.dtype} {array.shape}"
        )
    if verify and _sha256(file) != column.sha256:
        raise CorruptPackError(f"{file}: not the bytes that were written (sha256 differs); get the pack again")
    return array


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
