"""Kapandji's positions of a hand as data: joint targets of each, in a JSON file."""

from pathlib import Path

import msgspec

from robot.errors import FlexorError
from sim.dexterity.grasp import DATA


class PositionFileError(FlexorError, ValueError):
    """A file of thumb positions that is none."""


class PositionFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ten positions of one hand.

    Attributes:
        open_rad: Targets of the posture between two positions, in the model's joint order.
        target_rad: Targets of each position.
        reached: The positions that were reached in both engines when they were found.
    """

    hand: str
    robot_sha256: str
    joint_names: tuple[str, ...]
    generator: str
    open_rad: tuple[float, ...]
    target_rad: tuple[tuple[float, ...], ...]
    reached: tuple[int, ...] = ()


def load_positions(hand: str, folder: Path = DATA) -> PositionFile:
    """The shipped positions of a hand.

    Raises:
        PositionFileError: No such file, or not such a file.
    """
    path = folder / f"{hand}_kapandji.json"
    try:
        file = msgspec.json.decode(path.read_bytes(), type=PositionFile)
    except OSError as error:
        raise PositionFileError(f"{path.name}: no thumb positions for {hand} ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise PositionFileError(f"{path.name}: not a file of thumb positions: {error}") from error
    rows = (file.open_rad, *file.target_rad)
    if len(file.target_rad) != 10 or any(len(row) != len(file.joint_names) for row in rows):
        raise PositionFileError(f"{path.name}: needs ten rows of {len(file.joint_names)} joint angles")
    return file
