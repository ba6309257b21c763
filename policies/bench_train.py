"""Time to the same success: this project's learner beside what a user would pick. Same environment, engine, cores and budget.

Each run is a process of its own and leaves one file; a run whose file is there is not made again, so an interrupted benchmark goes on.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from policies.race import Result, Spec
from robot.errors import FlexorError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
SB3_SCRIPT = ROOT / "benchmarks/sb3_train.py"
TASKS = ("flexor/HandReach-v0", "flexor/BodyStand-v0", "flexor/BodyWalk-v0")
TARGET = 0.95  # success that counts as having learned it


class BenchError(FlexorError, RuntimeError):
    """A run of a benchmark failed; the message carries its last words."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who learns.

    Attributes:
        what: In words.
        peer: Run by `benchmarks/sb3_train.py`.
        changes: Settings of ours that differ from the task's own.
        group: "ours", "stock", "same settings", or "ablation": what a ratio is taken against.
    """

    what: str
    peer: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    group: str = "stock"


CONTENDERS: dict[str, Contender] = {
    "ours": Contender(what="flexor train", group="ours"),
    "ours_in_turn": Contender(
        what="flexor train, simulating and learning in turn", changes={"overlap": False}, group="ablation"
    ),
    "ours_sac": Contender(what="flexor train --learner sac", changes={"learner": "sac"}, group="ablation"),
    "sb3_ppo": Contender(what="Stable-Baselines3 PPO, defaults", peer=True),
    "sb3_sac": Contender(what="Stable-Baselines3 SAC, defaults", peer=True),
    "sb3_ppo_zoo": Contender(what="Stable-Baselines3 PPO, rl-zoo's settings for HumanoidBulletEnv", peer=True),
    "sb3_sac_zoo": Contender(what="Stable-Baselines3 SAC, rl-zoo's settings for PyBullet environments", peer=True),
    "sb3_ppo_ours": Contender(what="Stable-Baselines3 PPO, our settings", peer=True, group="same settings"),
}


def specs(
    folder: Path,
    *,
    tasks: Iterable[str],
    contenders: Iterable[str],
    level: str = "",
    seeds: int,
    minutes: float,
    engine: str,
    marks: int,
    episodes: int,
    workers: int,
) -> list[Spec]:
    """All runs, seed by seed, so that an early stop still compares everybody.

    Raises:
        UnknownNameError: No such contender or task, or a task without that level; the message lists the known ones.
    """
    from sim.tasks import TASKS as KNOWN

    for name in contenders:
        if name not in CONTENDERS:
            raise UnknownNameError("contender", name, CONTENDERS)
    for task in tasks:
        if task not in KNOWN:
            raise UnknownNameError("environment", task, KNOWN)
        if level and level not in KNOWN[task].levels:
            raise UnknownNameError(f"level of {task}", level, KNOWN[task].levels)
    found = []
    for seed, task, contender in product(range(seeds), tasks, contenders):
        name = f"{task.rpartition('/')[2].partition('-')[0]}-{f'{level}-' if level else ''}{contender}-{seed}.json"
        found.append(
            Spec(
                contender=contender,
                env_id=task,
                engine=engine,
                seed=seed,
                seconds=60.0 * minutes,
                marks=marks,
                episodes=episodes,
                workers=workers,
                level=level,
                out=str(folder.resolve() / name),
            )
        )
    return found


def run_all(wanted: list[Spec], say: Callable[[str], None]) -> list[Result]:
    """Make the runs that are missing.

    Raises:
        BenchError: One failed.
    """
    missing = [spec for spec in wanted if read(spec) is None]
    say(
        f"{len(wanted) - len(missing)} of {len(wanted)} runs are there; the others take {_left(missing)}, and their marks"
    )
    started = time.monotonic()
    for i, spec in enumerate(missing):
        left = _left(missing[i:]) if not i else f"{(time.monotonic() - started) / i * (len(missing) - i) / 60:.0f} min"
        say(f"{i + 1}/{len(missing)}, {left} left: {spec.contender} on {spec.env_id}, seed {spec.seed}")
        run(spec)
    return [result for spec in wanted if (result := read(spec)) is not None]


def _left(runs: list[Spec]) -> str:
    return f"{sum(spec.seconds for spec in runs) / 60:.0f} min"


def read(spec: Spec) -> Result | None:
    """The result of a run with exactly these settings; None when there is none."""
    try:
        result = msgspec.json.decode(Path(spec.out).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError):
        return None
    return result if result.spec == spec else None


def run(spec: Spec) -> None:
    """One contender's run, in a process of its own."""
    peer = CONTENDERS[spec.contender].peer
    command = [
        sys.executable,
        *([str(SB3_SCRIPT)] if peer else ["-m", "policies.race"]),
        msgspec.json.encode(spec).decode(),
    ]
    Path(spec.out).parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-5:]
        raise BenchError(f"{spec.contender} on {spec.env_id}, seed {spec.seed} failed:\n  " + "\n  ".join(words))


def time_to(result: Result, target: float) -> float | None:
    """Seconds until the success was reached for the first time; None when it was not."""
    return next((mark.seconds for mark in result.curve if mark.success >= target), None)


def figures(results: list[Result], target: float = TARGET) -> dict[str, Any]:
    """By task and contender: times to the target per seed and their median, best success, steps per second; and our ratios.

    A time that was not reached counts as the whole budget in the median, which is then a lower bound.
    """
    table: dict[str, Any] = {}
    for result in results:
        rows = table.setdefault(result.spec.env_id, {})
        row = rows.setdefault(result.spec.contender, {"time_s": [], "best_success": [], "steps_hz": [], "seeds": []})
        row["time_s"].append(time_to(result, target))
        row["best_success"].append(max((mark.success for mark in result.curve), default=0.0))
        row["steps_hz"].append(result.steps / result.seconds)
        row["seeds"].append(result.spec.seed)
        row["budget_s"] = result.spec.seconds
    for rows in table.values():
        for row in rows.values():
            row["reached"] = sum(t is not None for t in row["time_s"])
            row["median_s"] = median(row["budget_s"] if t is None else t for t in row["time_s"])
        rows_of = {name: CONTENDERS[name].group for name in rows}
        if "ours" in rows and rows["ours"]["reached"] == len(rows["ours"]["time_s"]):
            ours = rows["ours"]["median_s"]
            for group in ("stock", "same settings"):
                times = [rows[name]["median_s"] for name, its in rows_of.items() if its == group]
                if times:
                    rows["ours"][f"over_best_{group.replace(' ', '_')}"] = ours / min(times)
    return table


def text(table: Mapping[str, Any], target: float = TARGET) -> str:
    """The figures for a terminal."""
    lines = []
    for task, rows in table.items():
        lines.append(f"{task}: time to {100 * target:.0f} % success")
        for name, row in rows.items():
            times = ", ".join("-" if t is None else f"{t:.0f}" for t in row["time_s"])
            more = "" if row["reached"] == len(row["time_s"]) else ">="
            lines.append(
                f"  {name:<14} median {more}{row['median_s']:.0f} s ({times})  best success "
                f"{100 * max(row['best_success']):.0f} %  {median(row['steps_hz']):.0f} steps/s  {CONTENDERS[name].what}"
            )
            for key in ("over_best_stock", "over_best_same_settings"):
                if key in row:
                    lines.append(f"    {key.replace('_', ' ')}: {row[key]:.2f}")
    return "\n".join(lines)
