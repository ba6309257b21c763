"""What every command that measures writes: {"command", "version", "machine", "seed", "results"} as one JSON file."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from robot.files import replace_file


def version() -> str:
    """The installed version of this project, or "0+source" when it runs from a checkout that was never installed."""
    try:
        return metadata.version("flexor")
    except metadata.PackageNotFoundError:
        return "0+source"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or "unknown"


def machine() -> dict[str, Any]:
    """What a figure was measured on; neither host names nor paths are in it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
    }


def _plain(value: object) -> object:
    """numpy values and paths as JSON ones; for `json.dumps(default=)`."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results must hold JSON values, numpy values or paths, got {type(value).__name__}")


def write_json(path: Path | str, *, command: str, seed: int | None, results: dict[str, Any]) -> None:
    """Write a report, whole or not at all.

    Args:
        path: Where to; its folder is made when missing.
        command: The subcommand, as typed after `flexor`.
        seed: Seed the figures depend on, None if they depend on none.
        results: The figures; names carry units.

    Raises:
        TypeError: A value that is neither JSON nor numpy nor a path.
        ValueError: A NaN or an infinity, which JSON cannot hold; write None for "not measured".
    """
    path = Path(path)
    record = {"command": command, "version": version(), "machine": machine(), "seed": seed, "results": results}
    text = json.dumps(record, indent=2, default=_plain, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
