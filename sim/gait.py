"""A finger gait that turns the cube: every joint target a sine of one phase. Found by `sim.gait_search`; the file says how fast."""

from pathlib import Path

import msgspec
import numpy as np

FOLDER = Path(__file__).parent / "tasks" / "data"
PHASES = 64  # that a posture is compared with, to see how far the gait is


class Gait(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the fingers: targets = mean + sine sin(phase) + cosine cos(phase), within the joints' ranges [rad].

    Attributes:
        robot_sha256: Hash of the hand it was found for.
        generator: The command that found it.
        joints: Order of the numbers.
        hz: Turns of the phase per second.
    """

    robot_sha256: str
    generator: str
    joints: tuple[str, ...]
    hz: float
    mean_rad: tuple[float, ...]
    sine_rad: tuple[float, ...]
    cosine_rad: tuple[float, ...]

    def at(self, phase_rad: np.ndarray) -> np.ndarray:
        """Targets at some phases, shape (n,) -> (n, n_joints) [rad]."""
        sine, cosine = np.sin(phase_rad)[:, None], np.cos(phase_rad)[:, None]
        return np.array(self.mean_rad) + sine * self.sine_rad + cosine * self.cosine_rad


def load_gait(hand: str) -> Gait:
    """The shipped gait of a hand."""
    return msgspec.json.decode((FOLDER / f"gait_{hand}.json").read_bytes(), type=Gait)


def save_gait(hand: str, gait: Gait) -> Path:
    """Write the gait of a hand."""
    path = FOLDER / f"gait_{hand}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(gait)) + b"\n")
    return path


class Walker:
    """The gait as a rule without a clock: where the targets are says where the phase is.

    Args:
        lower_rad, upper_rad: Joint ranges, shape (n_joints,).
        dt_s: One step.
    """

    def __init__(self, gait: Gait, lower_rad: np.ndarray, upper_rad: np.ndarray, dt_s: float) -> None:
        self._gait, self._bounds, step_rad = gait, (lower_rad, upper_rad), 2.0 * np.pi * gait.hz * dt_s
        phases = 2.0 * np.pi * np.arange(PHASES) / PHASES
        self._here, self._next = self._clipped(phases), self._clipped(phases + step_rad)
        for again in range(
            2, int(2.0 * np.pi / step_rad) + 1
        ):  # at the stops of all joints a step on looks the same: go further
            still = np.abs(self._next - self._here).max(axis=1) < 1e-9
            self._next[still] = self._clipped(phases[still] + again * step_rad)

    def _clipped(self, phase_rad: np.ndarray) -> np.ndarray:
        return np.clip(self._gait.at(phase_rad), *self._bounds)

    def __call__(self, target_rad: np.ndarray) -> np.ndarray:
        """The targets after those in force, shape (n_joints,)."""
        return self._next[np.argmin(np.square(self._here - target_rad).sum(axis=1))]
