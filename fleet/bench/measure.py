"""All figures of `flexor bench fleet`: every run in a process of its own, taken in turn, medians kept, ratios of runs that stood side by side."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fleet.bench.runs import KINDS
from robot.errors import FlexorError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-reverb/bin/python"
PEERS_SCRIPT = ROOT / "benchmarks/reverb_peer.py"
PEERS = {f"reverb_{kind}": kind for kind in ("insert_64k", "insert_2k", "sample", "dataset")}


class BenchError(FlexorError, RuntimeError):
    """A run failed; the message carries its last words."""


def measure(
    *, seconds: float, repeats: int, peers: bool, only: Sequence[str], say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """All figures, by name of the run, and the ratios the project promises under "ratios".

    Args:
        seconds: How long each run measures.
        repeats: Runs of each kind; the median is kept.
        peers: Run Reverb in between, in its own environment.
        only: Names of runs; all if empty.
        say: Called with a line of progress per run.

    Raises:
        BenchError: A run failed, or Reverb is not installed.
        UnknownNameError: No such run.
    """
    if peers and not PEERS_PYTHON.exists():
        raise BenchError(f"Reverb is not installed: {PEERS_PYTHON} is missing; do: make bench-reverb")
    commands = {kind: [sys.executable, "-m", "fleet.bench.runs", kind, str(seconds)] for kind in KINDS}
    if peers:
        commands |= {name: [str(PEERS_PYTHON), str(PEERS_SCRIPT), kind, str(seconds)] for name, kind in PEERS.items()}
    for name in only:
        if name not in commands:
            raise UnknownNameError("run", name, commands)
    commands = {name: command for name, command in commands.items() if not only or name in only}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    started, total = time.monotonic(), repeats * len(commands)
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(_run(command))
            done = sum(map(len, runs.values()))
            left = (time.monotonic() - started) / done * (total - done)
            say(f"{done}/{total} runs, {left:.0f} s left: {name}")
    figures = {name: {f: median(run[f] for run in done) for f in done[0]} for name, done in runs.items()}
    figures["ratios"] = ratios(runs)
    return figures


def ratios(runs: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Ours over theirs, round by round, medians: runs of one round stood beside each other on the same machine."""
    found: dict[str, float] = {}

    def add(name: str, ours: tuple[str, str], *theirs: tuple[str, str]) -> None:
        if all(run in runs for run, _ in (ours, *theirs)):
            rounds = zip(runs[ours[0]], *(runs[run] for run, _ in theirs))
            found[name] = median(
                one[ours[1]] / min(other[field] for other, (_, field) in zip(others, theirs)) for one, *others in rounds
            )

    add(
        "ingest_64k_over_least_of_curve_and_disk",
        ("ingest_64k", "mb_per_s"),
        ("curve_64k", "mb_per_s"),
        ("disk", "mb_per_s"),
    )
    add("ingest_64k_over_reverb", ("ingest_64k", "mb_per_s"), ("reverb_insert_64k", "mb_per_s"))
    add("ingest_2k_over_reverb", ("ingest_2k", "records_per_s"), ("reverb_insert_2k", "records_per_s"))
    add("packs_over_reverb_sample", ("packs", "steps_per_s"), ("reverb_sample", "steps_per_s"))
    add("packs_over_reverb_dataset", ("packs", "steps_per_s"), ("reverb_dataset", "steps_per_s"))
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures for a terminal, one row per run."""
    rows = [
        (kind, "  ".join(f"{name} {value:.4g}" for name, value in row.items())) for kind, row in figures.items() if row
    ]
    width = max(len(kind) for kind, _ in rows)
    return "\n".join(f"{kind:<{width}}  {text}" for kind, text in rows)


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(
            f"{' '.join(command[1:])} failed: {(done.stderr.strip() or done.stdout.strip() or 'no words')[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])
