"""A finger gait that turns the cube: every joint target a sine of the task's clock. Found by `sim.gait_search`."""

from pathlib import Path

import msgspec
import numpy as np

FOLDER = Path(__file__).parent / "tasks" / "data"


class Gait(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the fingers: targets = mean + sine sin(phase) + cosine cos(phase), within the joints' ranges [rad].

    Attributes:
        robot_sha256: Hash of the hand it was found for.
        generator: The command that found it.
        joints: Order of the numbers.
    """

    robot_sha256: str
    generator: str
    joints: tuple[str, ...]
    mean_rad: tuple[float, ...]
    sine_rad: tuple[float, ...]
    cosine_rad: tuple[float, ...]

    def at(self, sine: float, cosine: float) -> np.ndarray:
        """Targets at a phase, shape (n_joints,) [rad]."""
        return np.array(self.mean_rad) + sine * np.array(self.sine_rad) + cosine * np.array(self.cosine_rad)


def load_gait(hand: str) -> Gait:
    """The shipped gait of a hand."""
    return msgspec.json.decode((FOLDER / f"gait_{hand}.json").read_bytes(), type=Gait)


def save_gait(hand: str, gait: Gait) -> Path:
    """Write the gait of a hand."""
    path = FOLDER / f"gait_{hand}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(gait)) + b"\n")
    return path
