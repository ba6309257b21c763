"""One finger of four joints in closed form: abduction, then three hinges in the plane it chose. Frame: the palm's. SI units."""

from math import acos, atan2, cos, hypot, sin

import numpy as np

from robot.description.model import RobotModel


class Finger:
    """Where a finger's tip is and where it points, and the joint angles that bring it there.

    Args:
        model: The robot.
        name: Of the finger: index, middle or ring, whose abduction turns about the palm's -z.

    Attributes:
        joints: Names of its joints: abduction, MCP, PIP, DIP.
        rows: Their rows in the model's order.
    """

    def __init__(self, model: RobotModel, name: str) -> None:
        self.joints = tuple(f"{name}_{part}" for part in ("abduction", "mcp", "pip", "dip"))
        self.rows = np.array([model.index(joint) for joint in self.joints])
        described = [model.joints[row] for row in self.rows]
        (tip,) = (tip for tip in model.tips if tip.name == name)
        self.base_m = np.array(described[0].origin_m)
        self._lengths = described[2].origin_m[1], described[3].origin_m[1], tip.offset_m[1]
        self._lower, self._upper = model.lower_rad[self.rows], model.upper_rad[self.rows]

    def tip(self, q_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and direction (3,) of the tip for the four angles."""
        side, mcp, pip, dip = q_rad.tolist()
        bends = (mcp, mcp + pip, mcp + pip + dip)
        out = sum(length * cos(bend) for length, bend in zip(self._lengths, bends))
        up = sum(length * sin(bend) for length, bend in zip(self._lengths, bends))
        position = self.base_m + np.array([sin(side) * out, cos(side) * out, up])
        return position, np.array([sin(side) * cos(bends[2]), cos(side) * cos(bends[2]), sin(bends[2])])

    def bend(self, tip_m: np.ndarray, direction: np.ndarray) -> float:
        """How far the last link is bent in all when the tip is there and points that way [rad]."""
        x, y, _ = (tip_m - self.base_m).tolist()
        return atan2(direction[2], (x * direction[0] + y * direction[1]) / hypot(x, y))

    def angles(self, tip_m: np.ndarray, bend_rad: float) -> np.ndarray | None:
        """The four angles with the tip there and the last link bent by `bend_rad` in all; None where it does not reach."""
        first, second, third = self._lengths
        x, y, z = (tip_m - self.base_m).tolist()
        side = atan2(x, y)
        out, up = hypot(x, y) - third * cos(bend_rad), z - third * sin(bend_rad)
        cosine = (out * out + up * up - first * first - second * second) / (2.0 * first * second)
        if not -1.0 <= cosine <= 1.0:
            return None
        pip = acos(cosine)
        mcp = atan2(up, out) - atan2(second * sin(pip), first + second * cosine)
        q = np.array([side, mcp, pip, bend_rad - mcp - pip])
        return q if ((q >= self._lower) & (q <= self._upper)).all() else None
