"""Where an off-policy learner gets its steps: a ring of the run's own, in files that outlive it, and experience packs read in place.

A source is rows of steps. Row -> following row is known to the source, so that returns over several steps are the same code for all.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.rollout import Trajectory
from robot.drawn import Drawn
from robot.errors import FlexorError
from robot.packs import GOES_ON, TERMINATED, TRUNCATED, Pack

REPLAY_FOLDER = "replay"


class ReplayError(FlexorError, OSError):
    """No room for the ring, or files that do not belong to it."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Some drawn steps, each looked ahead over up to n.

    Attributes:
        observation, seen, action: At the step; the action as applied, within -1..1.
        reward: Discounted sum over the steps looked ahead, by credit group, shape (b, g).
        next_observation, next_seen: After them.
        discount: Of the value there; 0 where the task had ended, shape (b,).
    """

    observation: np.ndarray
    seen: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    next_seen: np.ndarray
    discount: np.ndarray


class Source(ABC):
    """Rows of steps. Observations are the contract's; `privileged` follows them for a critic."""

    @abstractmethod
    def __len__(self) -> int:
        """Rows that can be drawn."""

    @abstractmethod
    def row(self, drawn: np.ndarray) -> np.ndarray:
        """Rows from numbers 0..len - 1."""

    @abstractmethod
    def following(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the steps after these."""

    @abstractmethod
    def goes_on(self, rows: np.ndarray) -> np.ndarray:
        """Whether the following row is the next step of the same episode."""

    @abstractmethod
    def bootstraps(self, rows: np.ndarray) -> np.ndarray:
        """Whether value goes on behind these rows: everywhere but where the task itself ended."""

    @abstractmethod
    def before(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observation and privileged values at these rows."""

    @abstractmethod
    def after(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same after these rows' actions."""

    @abstractmethod
    def acted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions as sampled, and reward terms."""

    def draw(self, rng: np.random.Generator, n: int, *, ahead: int, gamma: float, groups: np.ndarray) -> Steps:
        """Steps drawn evenly, with returns over `ahead` steps or to the episode's end.

        Args:
            groups: Reward terms to credit groups, shape (n_terms, g).
        """
        rows = self.row(rng.integers(0, len(self), n))
        last, at = rows.copy(), rows.copy()
        alive, discount = np.ones(n, dtype=np.bool_), np.ones(n)
        reward = np.zeros((n, groups.shape[1]))
        for _ in range(ahead):
            reward[alive] += discount[alive, None] * (self.acted(at[alive])[1] @ groups)
            discount[alive] *= gamma
            last[alive] = at[alive]
            alive &= self.goes_on(at)
            at[alive] = self.following(at[alive])
        (observation, privileged), (following, after) = self.before(rows), self.after(last)
        return Steps(
            observation=observation,
            seen=np.concatenate([observation, privileged], axis=1),
            action=np.clip(self.acted(rows)[0], -1.0, 1.0),
            reward=reward.astype(np.float32),
            next_observation=following,
            next_seen=np.concatenate([following, after], axis=1),
            discount=np.where(self.bootstraps(last), discount, 0.0).astype(np.float32),
        )


class PackSource(Source):
    """An experience pack, read in place; it has no privileged values."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self._drawn = Drawn(pack.path.parent)

    def __len__(self) -> int:
        return len(self.pack)

    def row(self, drawn: np.ndarray) -> np.ndarray:
        return drawn

    def following(self, rows: np.ndarray) -> np.ndarray:
        return rows + 1

    def goes_on(self, rows: np.ndarray) -> np.ndarray:
        return self.pack.ended[rows] == GOES_ON

    def bootstraps(self, rows: np.ndarray) -> np.ndarray:
        return self.pack.bootstraps(rows)

    def before(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.pack.observation[rows], np.zeros((len(rows), 0), np.float32)

    def after(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.pack.next_observation(rows), np.zeros((len(rows), 0), np.float32)

    def acted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.pack.action[rows], self.pack.reward_terms[rows]

    def draw(self, rng: np.random.Generator, n: int, *, ahead: int, gamma: float, groups: np.ndarray) -> Steps:
        self._drawn.add(n)  # a hub that knows the folder shows it
        return super().draw(rng, n, ahead=ahead, gamma=gamma, groups=groups)


class Ring(Source):
    """The run's own steps, one lane per environment, in memory-mapped files: a run that goes on finds them where they were.

    Args:
        folder: Where the files are; made when missing.
        lanes: Environments.
        capacity: Steps of all lanes together.
        widths: Of observation, privileged, action, reward terms.
        written: Steps per lane written so far, of a run that goes on.

    Raises:
        ReplayError: No room on the disk, or files of another size.
    """

    def __init__(
        self, folder: Path, lanes: int, capacity: int, widths: tuple[int, int, int, int], written: int = 0
    ) -> None:
        self.lanes, self.length, self.written = lanes, max(2, capacity // lanes), written
        observation, privileged, action, terms = widths
        columns = {
            "observation": observation,
            "privileged": privileged,
            "next_observation": observation,
            "next_privileged": privileged,
            "action": action,
            "terms": terms,
            "ended": 1,
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._column = {
            name: _mapped(folder / f"{name}.npy", (lanes * self.length, width), fresh=not written)
            for name, width in columns.items()
        }

    def add(self, path: Trajectory) -> None:
        """Append a trajectory of all lanes; the oldest steps give way."""
        following = np.concatenate([path.observation[1:], path.last_observation[None]])
        privileged = np.concatenate([path.privileged[1:], path.last_privileged[None]])
        following[path.end_step, path.end_env] = path.end_observation
        privileged[path.end_step, path.end_env] = path.end_privileged
        ended = np.where(path.terminated, TERMINATED, np.where(path.truncated, TRUNCATED, GOES_ON))
        values = {
            "observation": path.observation,
            "privileged": path.privileged,
            "next_observation": following,
            "next_privileged": privileged,
            "action": path.action,
            "terms": path.terms,
            "ended": ended[..., None],
        }
        steps = path.terminated.shape[0]
        at = (self.written + np.arange(steps)) % self.length
        for name, value in values.items():
            self._column[name].reshape(self.lanes, self.length, -1)[:, at] = np.swapaxes(value, 0, 1)
        self.written += steps

    def cut(self) -> None:
        """Say that the environments start anew: what was written last is not followed by what comes next."""
        if self.written:
            rows = np.arange(self.lanes) * self.length + (self.written - 1) % self.length
            ended = self._column["ended"]
            ended[rows, 0] = np.where(ended[rows, 0] == GOES_ON, TRUNCATED, ended[rows, 0])

    @property
    def _filled(self) -> int:
        return min(self.written, self.length)

    def __len__(self) -> int:
        return self._filled * self.lanes

    def row(self, drawn: np.ndarray) -> np.ndarray:
        lane, step = np.divmod(drawn, self._filled)
        oldest = self.written % self.length if self.written > self.length else 0
        return lane * self.length + (oldest + step) % self.length

    def following(self, rows: np.ndarray) -> np.ndarray:
        lane, step = np.divmod(rows, self.length)
        return lane * self.length + (step + 1) % self.length

    def goes_on(self, rows: np.ndarray) -> np.ndarray:
        newest = rows % self.length == (self.written - 1) % self.length
        return (self._column["ended"][rows, 0] == GOES_ON) & ~newest

    def bootstraps(self, rows: np.ndarray) -> np.ndarray:
        return self._column["ended"][rows, 0] != TERMINATED

    def before(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._column["observation"][rows], self._column["privileged"][rows]

    def after(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._column["next_observation"][rows], self._column["next_privileged"][rows]

    def acted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._column["action"][rows], self._column["terms"][rows]

    def flush(self) -> None:
        """Put what was written on the disk."""
        for column in self._column.values():
            if isinstance(column, np.memmap):
                column.flush()


def _mapped(path: Path, shape: tuple[int, int], *, fresh: bool) -> np.ndarray:
    """A float32 array in a file whose blocks are taken at once: a disk that fills up later cannot kill the process."""
    if 0 in shape:
        return np.zeros(shape, np.float32)
    if not fresh:
        try:
            array = np.load(path, mmap_mode="r+", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ReplayError(f"{path}: the run's replay cannot be read ({error}); start a new run") from error
        if array.shape != shape or array.dtype != np.float32:
            raise ReplayError(f"{path}: expected float32 {shape}, got {array.dtype} {array.shape}; start a new run")
        return array
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, path.stat().st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        size = 4e-6 * shape[0] * shape[1]
        raise ReplayError(
            f"{path}: no room for {size:.0f} MB of replay: {error.strerror}; do: free some, or lower SACConfig.capacity"
        ) from error
    return array


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Several sources, each with a weight.

    Attributes:
        sources: Of one contract.
        weights: Share of each in what is drawn; they need not add up to one.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.weights) or not self.sources:
            raise ValueError(f"one weight per source, got {len(self.sources)} and {len(self.weights)}")
        if not all(weight >= 0.0 for weight in self.weights) or not sum(self.weights) > 0.0:
            raise ValueError(f"weights must be >= 0 and not all 0, got {self.weights}")

    def draw(self, rng: np.random.Generator, n: int, *, ahead: int, gamma: float, groups: np.ndarray) -> Steps:
        """Steps from all sources by their weights; those of an empty one come from the others.

        Raises:
            ValueError: All sources with a weight are empty.
        """
        weights = np.array([w if len(source) else 0.0 for source, w in zip(self.sources, self.weights)])
        if not weights.sum() > 0.0:
            raise ValueError("nothing to draw from: every source with a weight is empty")
        counts = rng.multinomial(n, weights / weights.sum())
        parts: Sequence[Steps] = [
            source.draw(rng, int(count), ahead=ahead, gamma=gamma, groups=groups)
            for source, count in zip(self.sources, counts)
            if count
        ]
        if len(parts) == 1:
            return parts[0]
        return Steps(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Steps.__dataclass_fields__}
        )
