"""The record of a run while it goes: a line per report, in `progress.csv` and for TensorBoard."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot.files import replace_file

CURVE_FILE, TENSORBOARD_FOLDER = "progress.csv", "tensorboard"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log; figures over the episodes that ended since the last.

    Attributes:
        seconds, steps: Of the whole run.
        rate_hz: Control steps per second since this process began.
        left_s: Until the time or step limit; 0 when there is none.
        episodes: How many ended.
        return_mean, success, length_s: Of those; None when there was none.
        reward_hz: Reward per second of simulated time, of all steps.
        metrics: Means at the episodes' ends.
        losses: Of the learner's last iteration, with its learning rate and noise.
        level: Of the task, "" for the task itself.
    """

    seconds: float
    steps: int
    rate_hz: float
    left_s: float
    episodes: int
    return_mean: float | None
    success: float | None
    length_s: float | None
    reward_hz: float
    metrics: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    level: str = ""

    def row(self) -> dict[str, Any]:
        """As a flat row; what was not measured is None."""
        return {
            "time_s": round(self.seconds, 2),
            "steps": self.steps,
            "level": self.level,
            "rate_hz": round(self.rate_hz, 1),
            "episodes": self.episodes,
            "return_mean": self.return_mean,
            "success": self.success,
            "length_s": self.length_s,
            "reward_hz": self.reward_hz,
            **self.metrics,
            **self.losses,
        }

    def text(self) -> str:
        """For a terminal."""
        parts = [f"{self.seconds:7.1f} s  {self.steps:>9,} steps  {self.rate_hz:6.0f} steps/s"]
        if self.level:
            parts.append(f"level {self.level}")
        if self.left_s:
            parts.append(f"{self.left_s:.0f} s left")
        if self.return_mean is None or self.success is None or self.length_s is None:
            parts.append(f"no episode ended  reward {self.reward_hz:.2f}/s")
        else:
            parts.append(
                f"return {self.return_mean:.2f}  success {100.0 * self.success:.1f} %  length {self.length_s:.1f} s"
            )
        parts += [f"{name} {value:.2f}" for name, value in self.metrics.items()]
        return "  ".join(parts)


class Curve:
    """Writes lines. Those behind `steps`, of a stretch that a resumed run goes through again, are taken out first.

    Args:
        run: Folder of the run.
        names: Columns beyond `Progress`'s own: metrics and losses.
        steps: Where the run stands.
        tensorboard: Write event files, too.
    """

    def __init__(self, run: Path, names: tuple[str, ...], steps: int, *, tensorboard: bool) -> None:
        self._path = run / CURVE_FILE
        empty = Progress(
            seconds=0, steps=0, rate_hz=0, left_s=0, episodes=0, return_mean=0, success=0, length_s=0, reward_hz=0
        )
        self._columns = (*empty.row(), *names)
        kept = [row for row in read_curve(run) if int(row["steps"]) <= steps]
        replace_file(self._path, _text(self._columns, kept, header=True))
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=steps)

    def write(self, line: Progress) -> None:
        """Add a line."""
        row = line.row()
        with self._path.open("ab") as file:
            file.write(_text(self._columns, [row], header=False))
        if self._events is not None:
            for name, value in row.items():
                if value is not None and name not in ("time_s", "steps", "level"):
                    self._events.add_scalar(f"train/{name}", value, line.steps)
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def read_curve(run: Path) -> list[dict[str, str]]:
    """The lines of a run so far, columns as text; none when there is no file."""
    path = run / CURVE_FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if (row.get("steps") or "").isdigit()]


def _text(columns: tuple[str, ...], rows: list[dict[str, Any]], *, header: bool) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=columns, restval="", extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
