"""Types subcommands: starts them, remembers them for the report, and shows progress while they run."""

import time
from collections.abc import Callable, Sequence

from fleet.demo import stages
from fleet.demo.progress import Stage
from fleet.demo.runner import POLL_S, Process, Runner


class Typist:
    """The demo's hands on the keyboard.

    Args:
        runner: Starts and ends the processes.
        flexor: How a subcommand is started: program and first arguments.
    """

    def __init__(self, runner: Runner, flexor: Sequence[str]) -> None:
        self.runner, self._flexor = runner, tuple(flexor)

    def start(self, stage: Stage, name: str, words: stages.Words, *, quiet: bool = False) -> Process:
        """Start a subcommand that runs on; `quiet` keeps it out of the report."""
        if not quiet:
            stage.typed(" ".join(("flexor", *words)))
        return self.runner.start(name, (*self._flexor, *words))

    def call(
        self,
        stage: Stage,
        name: str,
        words: stages.Words,
        note: Callable[[], str] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        """Run a subcommand to its end.

        Args:
            stage: Whose line is shown meanwhile.
            name: Of the log file.
            words: The command.
            note: What to show, asked while it runs.
            quiet: Keep it out of the report.
        """
        self.wait(stage, self.start(stage, name, words, quiet=quiet), note)

    def wait(self, stage: Stage, process: Process, note: Callable[[], str] | None = None) -> None:
        """Wait for a subcommand that ends by itself."""

        def tick() -> None:
            if note is not None and stage.due:
                stage.note(note())
            stage.tick()

        self.runner.wait(process, tick)

    def rest(self, seconds: float, stage: Stage) -> None:
        """Wait, and keep the line alive."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            stage.tick()
            time.sleep(POLL_S)
