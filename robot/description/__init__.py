"""Descriptions of the robots this project knows. `load("hand22")` is the way in; another robot is one file and one row."""

from collections.abc import Callable
from functools import cache

from robot.description.body28 import body28
from robot.description.hand11 import hand11
from robot.description.hand22 import hand22
from robot.description.hand25 import hand25
from robot.description.humanoid import humanoid
from robot.description.model import DescriptionError, RobotModel
from robot.errors import UnknownNameError

ROBOTS: dict[str, Callable[[], RobotModel]] = {
    "hand11": hand11,
    "hand22": hand22,
    "hand25": hand25,
    "body28": body28,
    "humanoid": humanoid,
}


@cache
def load(name: str) -> RobotModel:
    """The description of a known robot.

    Raises:
        UnknownNameError: No robot of that name; the message lists the known ones.
    """
    if name not in ROBOTS:
        raise UnknownNameError("robot", name, ROBOTS)
    return ROBOTS[name]()


__all__ = ["ROBOTS", "DescriptionError", "RobotModel", "load"]
