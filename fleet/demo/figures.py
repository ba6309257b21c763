"""From the files the stages wrote to the figures of the report. A field that is missing is an error that says where it was looked for."""

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fleet.demo import stages
from fleet.demo.progress import StageTime
from robot.errors import FlexorError

SHOWN_VERSIONS = ("flexor", "torch", "pybullet", "gymnasium", "onnxruntime", "onnx", "numpy", "pyzmq", "tuf")
TIMES = {"network": "inference", "decision": "latency", "wake-up": "lateness"}  # shown as: field of `flexor run`
Z95 = 1.96  # half-width of a 95 % interval in standard errors; n is 100
CURVE_POINTS = 200  # more would not be seen


class FigureError(FlexorError, ValueError):
    """A stage's file does not hold what the report needs."""


class Source:
    """One JSON file of a stage.

    Raises:
        FigureError: The file is missing or is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FigureError(f"{path}: expected the JSON of a stage: {error}") from error

    def get(self, field: str) -> Any:
        """The value under a dotted name.

        Raises:
            FigureError: No such field; the message lists those beside it.
        """
        value: Any = self.data
        for i, part in enumerate(field.split(".")):
            if not isinstance(value, Mapping) or part not in value:
                known = ", ".join(value) if isinstance(value, Mapping) else type(value).__name__
                where = ".".join(field.split(".")[:i]) or "the top"
                raise FigureError(f"{self.path}: no field {field!r}. Known at {where}: {known}")
            value = value[part]
        return value

    def maybe(self, field: str, default: Any = None) -> Any:
        """The value under a dotted name, or a default."""
        try:
            return self.get(field)
        except FigureError:
            return default


def robot() -> dict[str, Any]:
    """What the robot is, from its description."""
    from robot.description import load

    model = load(stages.HAND)
    forearm = [name for name in model.joint_names if name.startswith(("forearm_", "wrist_"))]
    return {
        "name": model.name,
        "joints": len(model.joints),
        "hand_joints": len(model.joints) - len(forearm),
        "forearm_joints": len(forearm),
        "motors": len(model.tendons),
        "mass_kg": sum(link.mass_kg for link in model.links),
        "tips": list(model.tip_names),
        "sha256": model.sha256,
    }


def curve(path: Path) -> list[dict[str, float]]:
    """A learning curve, thinned to what a chart can show; cells that hold no number are left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    every = max(1, -(-len(rows) // CURVE_POINTS))
    kept = rows[::every] + ([rows[-1]] if rows and (len(rows) - 1) % every else [])
    return [_numbers(row) for row in kept if _numbers(row).get("time_s") is not None]


def _numbers(row: Mapping[str, str | None]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            value = float(text or "")
        except ValueError:
            continue
        if value == value:  # a NaN is an episode that has not ended yet
            found[name] = value
    return found


def training(places: stages.Places) -> dict[str, Any]:
    """Figures of the first training run."""
    source, folder = Source(places.json("train")), places.train
    points = curve(folder / "progress.csv")
    last = points[-1] if points else {}
    seconds = source.maybe("results.seconds", last.get("time_s", 0.0))
    steps = source.maybe("results.steps", last.get("steps", 0.0))
    return {
        "steps": int(steps),
        "seconds": float(seconds),
        "steps_per_s": float(source.maybe("results.rate_hz", steps / seconds if seconds else 0.0)),
        "curve": points,
    }


def learning(source: Source, seconds: float) -> dict[str, Any]:
    """Figures of learning from the fleet; `seconds` is how long it took."""
    return {
        "fleet_steps": int(source.get("results.steps")),
        "left_out": int(source.maybe("results.left_out", 0)),
        "seconds": round(seconds, 1),
    }


def _score(source: Source, where: str) -> dict[str, Any]:
    return {
        "success": float(source.get(f"{where}.success")),
        "success_ci95": list(source.get(f"{where}.success_ci95")),
        "return_mean": float(source.get(f"{where}.return_mean")),
        "return_ci95": list(source.get(f"{where}.return_ci95")),
        "tip_error_mm": float(source.get(f"{where}.metrics.tip_error_mm.mean")),
    }


def evaluation(places: stages.Places) -> dict[str, Any]:
    """v1, v2 and the baselines, on the same episodes."""
    first, second = Source(places.json("eval_v1")), Source(places.json("eval_v2"))
    return {
        "episodes": stages.EPISODES,
        "v1": _score(first, "results"),
        "v2": _score(second, "results"),
        "baselines": {name: _score(first, f"results.baselines.{name}") for name in first.get("results.baselines")},
        "margins": {
            **{f"v1 over {name}": _margin(row) for name, row in first.get("results.margins").items()},
            "v2 over v1": paired(second, first),
        },
    }


def _margin(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("success", "success_ci95", "return_mean", "return_ci95")}


def paired(better: Source, worse: Source) -> dict[str, Any]:
    """How much better one policy is than another on the same episodes: mean paired differences with 95 % intervals."""
    found = {}
    for name, mean, interval in (("successes", "success", "success_ci95"), ("returns", "return_mean", "return_ci95")):
        difference = np.subtract(better.get(f"results.{name}"), worse.get(f"results.{name}"), dtype=np.float64)
        half = Z95 * difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
        found |= {mean: float(difference.mean()), interval: [float(difference.mean() + s * half) for s in (-1.0, 1.0)]}
    return found


def onboard(source: Source) -> dict[str, Any]:
    """Figures of the onboard run."""

    def times(name: str) -> dict[str, float | None]:
        most_us = source.maybe(f"results.{name}_max_us", source.maybe(f"results.{name}_p999_us"))
        return {
            "p50": source.get(f"results.{name}_p50_us") / 1e3,
            "p99": source.get(f"results.{name}_p99_us") / 1e3,
            "most": None if most_us is None else most_us / 1e3,
        }

    energy = source.get("results.energy_per_decision_j")
    return {
        **{
            name: source.get(f"results.{name}")
            for name in ("control_hz", "steps", "deadlines", "missed", "missed_by_robot", "cpu_share", "fault")
        },
        "times_ms": {shown: times(name) for shown, name in TIMES.items()},
        "energy": {
            "low_j": energy["low"],
            "high_j": energy["high"],
            "measured": energy["value"] is not None,
            "source": energy["source"],
        },
        "imported_forbidden": source.get("results.imported_forbidden"),
    }


def versions() -> dict[str, str]:
    """Versions of what took part, without importing any of it."""
    found = {"python": platform.python_version()}
    for name in SHOWN_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def timing(times: Sequence[StageTime]) -> list[dict[str, Any]]:
    return [
        {"name": t.name, "start_s": round(t.start_s, 2), "seconds": round(t.seconds, 2), "commands": list(t.commands)}
        for t in times
    ]
