"""One line per stage: rewritten in place on a terminal, printed when the stage ends (and now and then) elsewhere."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TextIO

from fleet.demo.charts import minutes

LIVE_EVERY_S = 0.5  # on a terminal
PRINT_EVERY_S = 30.0  # in a log
LINE_WIDTH = 110


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """When a stage ran, in seconds since the demo began, and what it typed."""

    name: str
    start_s: float
    seconds: float
    commands: tuple[str, ...]


@dataclass(kw_only=True)
class Progress:
    """The demo's voice and its clock.

    Attributes:
        out: Where lines go.
        clock_s: Monotonic seconds.
        terminal: Whether a line can be rewritten.
    """

    out: TextIO
    clock_s: Callable[[], float]
    terminal: bool
    stages: list[StageTime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began_s = self.clock_s()

    @property
    def now_s(self) -> float:
        """Seconds since the demo began."""
        return self.clock_s() - self._began_s

    def say(self, line: str) -> None:
        print(line, file=self.out, flush=True)

    def stage(self, name: str) -> "Stage":
        """A stage; as a context manager it takes the time and prints the closing line."""
        return Stage(self, name)


class Stage(AbstractContextManager["Stage"]):
    """A running stage. `note` is what stands on its line besides name and time."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self.name = progress, name
        self._commands: list[str] = []
        self._note = ""
        self._start_s = self._shown_s = progress.now_s

    def __enter__(self) -> "Stage":
        self._start_s = self._shown_s = self._progress.now_s
        if self._progress.terminal:
            self._show(end="\r")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._show(end="\n")
            times = StageTime(
                name=self.name, start_s=self._start_s, seconds=self.seconds, commands=tuple(self._commands)
            )
            self._progress.stages.append(times)
        elif self._progress.terminal:
            self._progress.out.write("\n")

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return self._progress.now_s - self._start_s

    def typed(self, command: str) -> None:
        """Remember a command, for the report."""
        self._commands.append(command)

    def note(self, text: str) -> None:
        """What to show on the line from now on."""
        self._note = text

    @property
    def due(self) -> bool:
        """Whether it is time to show the line again."""
        every_s = LIVE_EVERY_S if self._progress.terminal else PRINT_EVERY_S
        return self._progress.now_s - self._shown_s >= every_s

    def tick(self) -> None:
        """Show the line again if it is time."""
        if self.due:
            self._shown_s = self._progress.now_s
            self._show(end="\r" if self._progress.terminal else "\n")

    def _show(self, end: str) -> None:
        line = f"  {self.name:<10} {minutes(self.seconds):>5}  {self._note}"
        width = LINE_WIDTH if self._progress.terminal else 0
        self._progress.out.write(f"{line[:LINE_WIDTH]:<{width}}{end}")
        self._progress.out.flush()
