"""Starting our own modules as processes: whatever folder the user stands in, its files are not imported instead of ours."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # where the packages are; `python -m` looks into its working directory first


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line of a module; start it with `cwd=ROOT`."""
    return [sys.executable, "-m", module, *arguments]
