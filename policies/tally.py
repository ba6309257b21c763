"""What a run's episodes came to since the last line, and how much of its time and steps is left."""

from collections.abc import Callable

import numpy as np

from policies.curve import Progress
from policies.rollout import EnvFacts, Trajectory


class Tally:
    """Counts.

    Args:
        facts: The environment.
        clock: Seconds.
        first_steps, first_seconds: Where the run stood when this process began.
        seconds, steps: Limits: of this process, and of the run; None for none.
    """

    def __init__(
        self,
        facts: EnvFacts,
        clock: Callable[[], float],
        first_steps: int,
        first_seconds: float,
        seconds: float | None,
        steps: int | None,
    ) -> None:
        self._facts, self._clock = facts, clock
        self._first_steps, self._first_seconds = first_steps, first_seconds
        self._limit_s, self._limit_steps = seconds, steps
        self._start = self._last = clock()
        self._clear()

    def _clear(self) -> None:
        self._ends: list[Trajectory] = []
        self._reward, self._steps = 0.0, 0

    @property
    def used_s(self) -> float:
        """Seconds since this process began to train."""
        return self._clock() - self._start

    @property
    def episodes(self) -> int:
        """Episodes that ended since the last line."""
        return sum(path.end_step.size for path in self._ends)

    def add(self, path: Trajectory) -> None:
        """Take a trajectory's episodes in."""
        self._ends.append(path)
        self._reward += float(path.terms.sum())
        self._steps += path.steps

    def due(self, every_s: float) -> bool:
        """Whether the last line is that long ago."""
        return self._clock() - self._last >= every_s

    def over(self, steps: int) -> bool:
        """Whether the time or the steps of the run are used up."""
        return (self._limit_s is not None and self.used_s >= self._limit_s) or (
            self._limit_steps is not None and steps >= self._limit_steps
        )

    def line(self, steps: int, losses: dict[str, float], level: str = "") -> Progress:
        """The figures since the last line; counting begins anew."""
        used, n, dt_s = self.used_s, self.episodes, self._facts.dt_s
        rate = (steps - self._first_steps) / max(used, 1e-9)
        left = [] if self._limit_s is None else [self._limit_s - used]
        left += [] if self._limit_steps is None or not rate else [(self._limit_steps - steps) / rate]

        def mean(name: str) -> float | None:
            return float(np.concatenate([getattr(path, name) for path in self._ends]).mean()) if n else None

        length = mean("end_length")
        metrics = np.concatenate([path.end_metrics for path in self._ends]).mean(axis=0) if n else []
        line = Progress(
            seconds=self._first_seconds + used,
            steps=steps,
            level=level,
            rate_hz=rate,
            left_s=max(0.0, min(left, default=0.0)),
            episodes=n,
            return_mean=mean("end_return"),
            success=mean("end_success"),
            length_s=None if length is None else length * dt_s,
            reward_hz=self._reward / max(self._steps * dt_s, 1e-9),
            metrics=dict(zip(self._facts.metric_names, np.asarray(metrics).tolist())),
            losses=losses,
        )
        self._last = self._clock()
        self._clear()
        return line
