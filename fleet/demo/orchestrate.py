"""The demo from the first stage to the last: start a command, wait, read what it wrote, go on."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet.demo import figures, stages
from fleet.demo.figures import Source
from fleet.demo.pictures import Pictures, animation
from fleet.demo.progress import Progress
from fleet.demo.robots import Fleet
from fleet.demo.runner import Runner
from fleet.demo.typist import Typist
from robot.errors import FlexorError

MARK = ".flexor-demo"  # a folder with this file in it was made by a demo and may be emptied by one


class DemoError(FlexorError, ValueError):
    """The demo cannot start as it was asked to."""


def prepare(out: Path, *, minutes: float) -> stages.Places:
    """An empty folder for a demo.

    Raises:
        DemoError: The folder holds something no demo made, or there is no time to train.
    """
    if not minutes > 0.0:
        raise DemoError(f"--minutes must be > 0, got {minutes}")
    if out.exists() and not out.is_dir():
        raise DemoError(f"--out {out} is a file\n  do: name a folder")
    if out.is_dir():
        if any(out.iterdir()) and not (out / MARK).is_file():
            raise DemoError(f"--out {out} holds files that no demo made\n  do: name another folder, or empty it")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()
    return stages.Places(out)


def learning_note(curve: Path) -> str:
    """What a learning curve says by now."""
    points = figures.curve(curve)
    if not points:
        return "starting"
    last = points[-1]
    steps, time_s = last.get("steps", 0.0), last["time_s"]
    parts = [f"{steps:,.0f} steps, {steps / max(time_s, 1e-9):,.0f} steps/s"]
    if "success" in last:
        parts.append(f"success {100.0 * last['success']:.0f} %")
    if "tip_error_mm" in last:
        parts.append(f"tip error {last['tip_error_mm']:.1f} mm")
    return ", ".join(parts)


def perform(
    places: stages.Places, *, seed: int, minutes: float, progress: Progress, runner: Runner, flexor: Sequence[str]
) -> tuple[dict[str, Any], Pictures | None]:
    """All stages.

    Args:
        places: An empty folder, from `prepare`.
        seed: Of the first training; the second gets the next one.
        minutes: For the first training.
        progress: Where lines go, and the clock.
        runner: Starts and ends the processes.
        flexor: How a subcommand is started: program and first arguments.

    Returns:
        The figures of the report, and its pictures.

    Raises:
        StageError: A stage failed.
        FigureError: A stage's file lacks something.
    """
    typist = Typist(runner, flexor)
    with progress.stage("robot") as stage:
        robot = figures.robot()
        stage.note(
            f"{robot['name']}: {robot['hand_joints']} + {robot['forearm_joints']} joints, {robot['motors']} motors"
        )
    with progress.stage("train") as stage:
        curve = places.train / "progress.csv"
        typist.call(stage, "train", stages.train(places, minutes=minutes, seed=seed), lambda: learning_note(curve))
        stage.note(learning_note(curve))
    with progress.stage("export") as stage:
        typist.call(stage, "export_v1", stages.export(places, "v1"))
        stage.note(str(places.artifact("v1")))
    with progress.stage("eval v1") as stage:  # takes one core; the pictures have the other
        evaluation = typist.start(stage, "eval_v1", stages.evaluate(places, "v1"))
        with progress.stage("pictures") as meanwhile:
            typist.call(meanwhile, "sim", stages.pictures(places))
            pictures = animation(places.frames)
            meanwhile.note(f"{pictures.frames if pictures else 0} frames")
        typist.wait(stage, evaluation)
        stage.note(score_note(Source(places.json("eval_v1"))))
    with progress.stage("onboard") as stage:
        typist.call(stage, "run", stages.onboard(places))
        onboard = figures.onboard(Source(places.json("run")))
        p99_ms = onboard["times_ms"]["decision"]["p99"]
        stage.note(f"p99 {p99_ms:.2f} ms at {onboard['control_hz']:g} Hz, {onboard['missed']} deadlines missed")
    fleet = Fleet(places, typist, progress)
    fleet.gather()
    with progress.stage("learn") as stage:
        typist.call(stage, "learn", stages.learn(places, minutes=minutes * stages.LEARN_SHARE, seed=seed + 1))
        learned = figures.learning(Source(places.json("learn")), stage.seconds)
        typist.call(stage, "export_v2", stages.export(places, "v2"))
        stage.note(f"{places.artifact('v2')}, from {learned['fleet_steps']:,} steps of {len(stages.ROBOTS)} robots")
    with progress.stage("eval v2") as stage:
        evaluation = typist.start(stage, "eval_v2", stages.evaluate(places, "v2"))
        fleet.deploy()
        typist.wait(stage, evaluation)
        stage.note(score_note(Source(places.json("eval_v2"))))
    results = {
        "robot": robot,
        "train": figures.training(places),
        "eval": figures.evaluation(places),
        "onboard": onboard,
        "learn": learned,
        "fleet": fleet.figures(),
        "seconds": round(progress.now_s, 1),
        "stages": figures.timing(progress.stages),
        "versions": figures.versions(),
        "engines": {"train": stages.TRAIN_ENGINE, "test": stages.TEST_ENGINE},
        "seeds": {"train": seed, "learn": seed + 1, "eval": stages.EVAL_SEED},
    }
    return results, pictures


def score_note(source: Source) -> str:
    """What an evaluation came to, on one line."""
    low, high = source.get("results.success_ci95")
    return (
        f"success {100 * source.get('results.success'):.0f} % ({100 * low:.0f} to {100 * high:.0f}), "
        f"tip error {source.get('results.metrics.tip_error_mm.mean'):.1f} mm, {stages.EPISODES} episodes"
    )
