"""`flexor demo` as a plain function; see `flexor.py` for how it becomes a command line."""

from pathlib import Path


def demo(*, out: Path = Path("out/demo"), seed: int = 0, minutes: float = 2.0, json: Path | None = None) -> None:
    """The whole job, end to end, on two cores: simulate, train, export, verify, run onboard, share through a hub.

    Writes OUT/report.html, which needs no network, and prints ten lines. OUT is emptied first if an earlier demo made it.

    Example:
        flexor demo --out out/demo --json out/demo.json

    Args:
        out: Folder for the report and for everything the stages make.
        seed: Seed of the first training; the others follow from it.
        minutes: Time for the first training; learning from the fleet takes a third of it.
        json: Where to write the report's figures as data.
    """
    import signal
    import sys
    import time

    from fleet.demo.orchestrate import perform, prepare
    from fleet.demo.progress import Progress
    from fleet.demo.report import render, summary
    from fleet.demo.runner import FLEXOR, Runner
    from robot import report

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)  # a polite kill is an interrupt: children are ended on the way out
    command = f"flexor demo --out {out} --seed {seed} --minutes {minutes:g}"
    places = prepare(out, minutes=minutes)
    progress = Progress(out=sys.stdout, clock_s=time.monotonic, terminal=sys.stdout.isatty())
    progress.say(f"{command}   (report will be {places.report})\n")
    with Runner(places.logs) as runner:
        results, pictures = perform(places, seed=seed, minutes=minutes, progress=progress, runner=runner, flexor=FLEXOR)
    for path in (places.figures, json):
        if path is not None:
            report.write_json(path, command="demo", seed=seed, results=results)
    write_whole(places.report, render(results, pictures, command=command, version=report.version()))
    progress.say("\n" + "\n".join(summary(results, str(places.report))))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either there in full or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
