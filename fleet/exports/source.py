"""Whole episodes out of a hub's log, each step once. The first pass notes where every chunk is; episodes are then read one at a time."""

import json
import math
import mmap
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from fleet.errors import FleetError, KeyFileError, RecordError
from fleet.keys import checked_name
from fleet.segment import data_records
from fleet.wire import STEPS
from robot.contract import Contract, ContractError
from robot.errors import UnknownNameError
from robot.experience import Chunk, ChunkHeader, ExperienceError, decode

MAX_FIRST_STEP = 1 << 40  # 1400 years at 25 Hz; far from where an int64 ends
MAX_TIME_NS = 1 << 62  # year 2116
_EPISODE = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ExportError(FleetError):
    """Something that cannot be exported as it is; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Where one chunk is."""

    segment: Path
    start: int
    size: int
    crc: int
    first_step: int
    steps: int
    ended: str
    start_time_ns: int


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Steps of one episode without a hole. An episode with a hole is two of these.

    Attributes:
        first_step: 0 unless its beginning is not in the log.
        ended: "terminated", "truncated", or "no" where the end is not in the log.
    """

    id: str
    robot: str
    policy_sha256: str
    cohort: str
    pieces: tuple[Piece, ...]

    @property
    def start_time_ns(self) -> int:
        """Robot's UTC clock at the first step that is here."""
        return self.pieces[0].start_time_ns

    @property
    def first_step(self) -> int:
        return self.pieces[0].first_step

    @property
    def steps(self) -> int:
        return sum(piece.steps for piece in self.pieces)

    @property
    def ended(self) -> str:
        return self.pieces[-1].ended


@dataclass(frozen=True, kw_only=True)
class Lived:
    """An episode's arrays, whole.

    Attributes:
        observation, action, reward, log_prob, success, time_s: As in `robot.experience.Chunk`, all steps.
        last_observation: After the last action.
    """

    episode: Episode
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    log_prob: np.ndarray
    success: np.ndarray
    time_s: np.ndarray
    last_observation: np.ndarray

    @property
    def done(self) -> np.ndarray:
        """True at the last step of an episode whose end is known, shape (steps,)."""
        done = np.zeros(len(self.reward), dtype=bool)
        done[-1] = self.episode.ended != "no"
        return done


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What all chunks of one export have in common: their arrays fit together."""

    contract_sha256: str
    observation_size: int
    action_size: int
    reward_names: tuple[str, ...]
    control_hz: float

    @classmethod
    def of(cls, header: ChunkHeader) -> "Kind":
        return cls(**{name: getattr(header, name) for name in cls.__struct_fields__})

    def instead_of(self, usual: "Kind") -> str:
        """How it differs, for people."""
        ours, theirs = (msgspec.structs.asdict(kind) for kind in (self, usual))
        return ", ".join(
            f"{name} {ours[name]} instead of {theirs[name]}" for name in ours if ours[name] != theirs[name]
        )


@dataclass
class _Found:
    """What the first pass knows of one episode."""

    robot: str
    policy_sha256: str
    cohort: str
    pieces: dict[int, Piece] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A hub's log, read once.

    Attributes:
        found: Kind -> (robot, episode id) -> pieces.
        bad_records: Records that are no chunks, whose bytes are bad, or whose header no robot of ours writes.
        left_out: Records of banned policies.
    """

    found: dict[Kind, dict[tuple[str, str], _Found]]
    bad_records: int
    left_out: int

    @property
    def contracts(self) -> set[str]:
        return {kind.contract_sha256 for kind in self.found}


class Source:
    """One contract's episodes in a hub's log; the hub may be running.

    Args:
        folder: The hub's folder.
        contract_sha256: Which experience; "" where the log holds only one kind.
        include_banned: Also that of policies that were rolled back.
        progress: Called with the share of the log that has been read, 0 to 1.
        scan: The log, where it was read already.

    Attributes:
        episodes: In the order they began in the log.
        bad_records: Records of the steps stream that are no chunks, whose bytes are bad, or whose header no robot of ours writes; and chunks
            that do not fit the others of their contract.
        odd: What does not fit the others: how, whose, how many chunks.
        left_out: Records of banned policies.

    Raises:
        UnknownNameError: No experience of that contract; the known ones are listed.
        ExportError: No experience at all, or of several contracts and none was named.
    """

    def __init__(
        self,
        folder: Path,
        contract_sha256: str = "",
        *,
        include_banned: bool = False,
        progress: Callable[[float], None] = lambda _share: None,
        scan: Scan | None = None,
    ) -> None:
        self.folder = folder
        scan = scan or scan_log(folder, include_banned=include_banned, progress=progress)
        self.contract_sha256 = choose(folder, contract_sha256, scan.contracts)
        found = {k: e for k, e in scan.found.items() if k.contract_sha256 == self.contract_sha256}
        contract = self.contract
        self._kind = usual(
            {kind: ({robot for robot, _ in episodes}, len(episodes)) for kind, episodes in found.items()},
            (contract.observation_size, contract.action_size) if contract else None,
        )
        self.odd = [_oddness(kind, self._kind, episodes) for kind, episodes in found.items() if kind != self._kind]
        self.bad_records = scan.bad_records + sum(
            len(e.pieces) for kind, episodes in found.items() if kind != self._kind for e in episodes.values()
        )
        self.left_out = scan.left_out
        self.reward_names = self._kind.reward_names
        self.episodes = [run for (_, id), e in found[self._kind].items() for run in _runs(id, e)]

    @property
    def steps(self) -> int:
        return sum(episode.steps for episode in self.episodes)

    @cached_property
    def contract(self) -> Contract | None:
        """What the columns mean; None where the hub never got it."""
        try:
            return Contract.from_json((self.folder / "contracts" / f"{self.contract_sha256}.json").read_text())
        except (OSError, ContractError):
            return None

    @property
    def control_hz(self) -> float:
        return self.contract.control_hz if self.contract else self._kind.control_hz

    @property
    def robot_model(self) -> str:
        return self.contract.robot if self.contract else "unknown"

    @property
    def task(self) -> str:
        return self.contract.env_id if self.contract else f"contract {self.contract_sha256[:12]}"

    def names(self, observation_size: int, action_size: int) -> tuple[list[str], list[str]]:
        """Of the observation's and the action's columns; numbers where the contract is not known."""
        contract = self.contract
        if contract is None or (contract.observation_size, contract.action_size) != (observation_size, action_size):
            return [f"obs_{i}" for i in range(observation_size)], [f"action_{i}" for i in range(action_size)]
        observation = []
        for term in contract.observation:
            now = len(term.elements) // term.history
            for i, element in enumerate(term.elements):
                past = f".{i // now}_ago" if i >= now else ""
                observation.append(f"{term.name}.{element}{past}")
        return observation, list(contract.action.joints)

    def read(self) -> Iterator[Lived]:
        """All episodes, one at a time."""
        for episode, chunks in self.chunks():
            yield _lived(episode, chunks)

    def chunks(self) -> Iterator[tuple[Episode, list[Chunk]]]:
        """All episodes and what they are made of, one at a time."""
        maps: dict[Path, mmap.mmap] = {}
        try:
            for episode in self.episodes:
                yield episode, [self._chunk(piece, maps) for piece in episode.pieces]
        finally:
            for data in maps.values():
                data.close()

    def _chunk(self, piece: Piece, maps: dict[Path, mmap.mmap]) -> Chunk:
        if piece.segment not in maps:
            with piece.segment.open("rb") as file:
                maps[piece.segment] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return decode(maps[piece.segment][piece.start : piece.start + piece.size])


def scan_log(
    folder: Path, *, include_banned: bool = False, progress: Callable[[float], None] = lambda _share: None
) -> Scan:
    """Note where every chunk is. A number that is in the log twice, and steps that are (from two hubs), count once.

    Args:
        folder, include_banned, progress: As in `Source`.
    """
    banned = frozenset() if include_banned else _banned(folder)
    found: dict[Kind, dict[tuple[str, str], _Found]] = {}
    seen: set[tuple[str, int, int, int]] = set()
    bad_records = left_out = 0
    paths = sorted((folder / "log").glob("*.seg"))
    for done, path in enumerate(paths):
        progress(done / len(paths))
        data = path.read_bytes()
        for record in data_records(data):
            if record.stream != STEPS or record.tombstone or (*record.key, record.seq) in seen:
                continue
            seen.add((*record.key, record.seq))
            try:
                header = checked(record.robot, decode(record.payload(data)))
            except (RecordError, ExperienceError, KeyFileError):
                bad_records += 1
                continue
            if header.policy_sha256 in banned:
                left_out += 1
                continue
            episode = found.setdefault(Kind.of(header), {}).setdefault(
                (record.robot, header.episode_id),
                _Found(robot=record.robot, policy_sha256=header.policy_sha256, cohort=header.cohort),
            )
            episode.pieces.setdefault(
                header.first_step,
                Piece(
                    segment=path,
                    start=record.payload_start,
                    size=record.payload_bytes,
                    crc=record.crc,
                    first_step=header.first_step,
                    steps=header.steps,
                    ended=header.ended,
                    start_time_ns=header.start_time_ns,
                ),
            )
    return Scan(found=found, bad_records=bad_records, left_out=left_out)


def usual(kinds: Mapping[Kind, tuple[Collection[str], int]], sizes: tuple[int, int] | None = None) -> Kind:
    """Which of several kinds of one contract counts: the one of the contract's own sizes, else the one most robots write, else the one there is
    most of.

    Args:
        kinds: Kind -> whose, and how much.
        sizes: Of observation and action, where the contract is known.
    """

    def weight(kind: Kind) -> tuple[bool, int, int]:
        robots, amount = kinds[kind]
        return (kind.observation_size, kind.action_size) == sizes, len(set(robots)), amount

    return max(kinds, key=weight)


def checked(robot: str, chunk: Chunk) -> ChunkHeader:
    """The header, which a robot wrote as it liked: it becomes file names, and numbers that other formats must hold.

    Raises:
        ExperienceError, KeyFileError: No robot of ours writes that.
    """
    header = chunk.header
    checked_name(robot)
    if not (_EPISODE.fullmatch(header.episode_id) and _SHA256.fullmatch(header.contract_sha256)):
        raise ExperienceError(f"chunk of episode {header.episode_id!r}, contract {header.contract_sha256!r}: not hex")
    if not 0 <= header.first_step <= MAX_FIRST_STEP or not 0 <= header.start_time_ns <= MAX_TIME_NS:
        raise ExperienceError(f"chunk from step {header.first_step} at {header.start_time_ns} ns: out of range")
    if not (math.isfinite(header.control_hz) and np.isfinite(chunk.time_s).all()):
        raise ExperienceError(f"chunk at {header.control_hz} Hz: its rate or times are no numbers")
    return header


def _oddness(kind: Kind, usual: Kind, episodes: dict[tuple[str, str], _Found]) -> str:
    chunks = sum(len(episode.pieces) for episode in episodes.values())
    return f"{chunks} chunk{'s' * (chunks != 1)} by {', '.join(sorted({robot for robot, _ in episodes}))}: {kind.instead_of(usual)}"


def _runs(id: str, found: _Found) -> Iterator[Episode]:
    """Stretches of an episode without a hole; steps that overlap what is there are left out."""
    run: list[Piece] = []
    for _, piece in sorted(found.pieces.items()):
        end = run[-1].first_step + run[-1].steps if run else piece.first_step
        if piece.first_step < end:
            continue
        if piece.first_step > end:
            yield _episode(id, found, run)
            run = []
        run.append(piece)
    yield _episode(id, found, run)


def _episode(id: str, found: _Found, run: list[Piece]) -> Episode:
    return Episode(
        id=id,
        robot=found.robot,
        policy_sha256=found.policy_sha256,
        cohort=found.cohort,
        pieces=tuple(run),
    )


def _lived(episode: Episode, chunks: list[Chunk]) -> Lived:
    columns = ("observation", "action", "reward", "log_prob", "success", "time_s")
    return Lived(
        episode=episode,
        **{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in columns},
        last_observation=chunks[-1].last_observation,
    )


def choose(folder: Path, contract_sha256: str, found: Collection[str]) -> str:
    if not found:
        raise ExportError(f"{folder}: no experience in its log; is that a hub's folder, and has it received any?")
    if not contract_sha256 and len(found) > 1:
        known = ", ".join(sorted(found))
        raise ExportError(f"{folder} holds experience of {len(found)} contracts; say which with --contract: {known}")
    match = [sha256 for sha256 in found if sha256.startswith(contract_sha256)]
    if len(match) != 1:
        raise UnknownNameError("contract in the log", contract_sha256, sorted(found))
    return match[0]


def _banned(folder: Path) -> frozenset[str]:
    """Policies that were rolled back: what they did is suspect, and left out."""
    try:
        return frozenset(json.loads((folder / "director.json").read_text()).get("banned", []))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, AttributeError) as error:
        raise ExportError(f"{folder}/director.json: {error}; with --include-banned it is not needed") from error
