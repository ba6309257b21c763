"""Subcommands for the tests of the dispatcher."""

from pathlib import Path

from robot.errors import UnknownNameError


def greet(artifact: str, *, hub: str, seconds: float = 2.0, json: Path | None = None) -> int:
    """Greet an artifact.

    Example:
        flexor greet models/hand_reach/v1 localhost:7000 --seconds 3

    Args:
        artifact: Folder or name.
        hub: Where the hub is.
        seconds: How long [s].
        json: Where to write what was measured.

    Returns:
        The exit code.
    """
    print(f"{artifact} {hub} {seconds:g} {json}")
    return 3


def refuse() -> None:
    """Refuse.

    Example:
        flexor refuse
    """
    raise UnknownNameError("hand", "hand23", ("hand22", "hand11"))


def lacking() -> None:
    """Need something that is not installed.

    Example:
        flexor lacking
    """
    raise ModuleNotFoundError("No module named 'pybullet'", name="pybullet_utils.bullet_client")


def broken() -> None:
    """Need something nobody ever heard of.

    Example:
        flexor broken
    """
    raise ModuleNotFoundError("No module named 'nobody'", name="nobody")


def interrupted() -> None:
    """Be interrupted.

    Example:
        flexor interrupted
    """
    raise KeyboardInterrupt
