"""The flight recorder's ring: one fixed-size record per period in a mapped file, written by a control loop, read by its watcher."""

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from robot.contract import Interface
from robot.errors import FlexorError
from robot.safety import STAGES, Fault, Mode

MODES, FAULTS = tuple(Mode), tuple(Fault)
NO_FAULT = len(FAULTS)
FAULT_TEXT = 200  # bytes of a fault's text that are kept
SETTLING_S = 1e-3


class FlightError(FlexorError):
    """A ring that is none, or a folder that cannot be written."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a ring, so that whoever finds one can read it."""

    joints: tuple[str, ...]
    motors: tuple[str, ...]
    tips: tuple[str, ...]
    observation: tuple[str, ...]
    action: tuple[str, ...]
    contract_sha256: str
    control_hz: float
    periods: int
    facts: dict[str, str] = {}

    @staticmethod
    def of(interface: Interface, seconds: float, facts: dict[str, str] | None = None) -> "Layout":
        contract, model = interface.contract, interface.model
        return Layout(
            joints=model.joint_names,
            motors=model.motor_names,
            tips=model.tip_names,
            observation=tuple(f"{t.name}.{element}" for t in contract.observation for element in t.elements),
            action=contract.action.joints,
            contract_sha256=contract.sha256,
            control_hz=contract.control_hz,
            periods=max(2, round(seconds * contract.control_hz)),
            facts=facts or {},
        )

    @property
    def dtype(self) -> np.dtype:
        """One period."""
        joints, motors, real = len(self.joints), len(self.motors), np.float64
        return np.dtype(
            [
                ("time_ns", np.int64),
                ("robot_s", real),
                ("mode", np.uint8),
                ("fault", np.uint8),
                ("fault_text", f"S{FAULT_TEXT}"),
                ("latency_us", real),
                ("changed", np.int32, len(STAGES)),
                ("q_rad", real, joints),
                ("qd_rad_s", real, joints),
                ("motor_current_a", real, motors),
                ("motor_temperature_c", real, motors),
                ("tip_force_n", real, len(self.tips)),
                ("observation", np.float32, len(self.observation)),
                ("action", np.float32, len(self.action)),
                ("asked_rad", real, joints),
                ("sent_rad", real, joints),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A mapped ring: an u64 count of the periods noted, and the records."""

    layout: Layout
    count: np.ndarray
    records: np.ndarray

    def last(self, pause: Callable[[float], None] = time.sleep) -> np.ndarray:
        """The periods kept, oldest first; what was overwritten while we copied, or may have been, is left out.

        Args:
            pause: Sleeps. The two processes share memory without a lock, and Python cannot order its stores and loads: on ARM the
                count may be seen before the row it counts. No store is on its way for so long.
        """
        size = self.layout.periods
        before = int(self.count[0])
        pause(SETTLING_S)
        copied = self.records.copy()
        pause(SETTLING_S)
        after = int(self.count[0])
        return copied[[k % size for k in range(max(0, after - size + 1), before)]]


HEAD = struct.Struct("<8sQ")
RING_MAGIC = b"FLXRING1"


def make_ring(path: Path, layout: Layout) -> Ring:
    text = msgspec.json.encode(layout)
    start = (HEAD.size + len(text) + 63) // 64 * 64
    with path.open("wb") as file:
        file.write(HEAD.pack(RING_MAGIC, len(text)) + text)
        file.flush()
        # Memory that is there: a hole in a full /dev/shm would be a SIGBUS in the middle of a motion.
        fill = getattr(os, "posix_fallocate", lambda fd, _, size: os.truncate(fd, size))  # not on macOS
        fill(file.fileno(), 0, start + 64 + layout.periods * layout.dtype.itemsize)
    return open_ring(path)


def open_ring(path: Path) -> Ring:
    """Map a ring that some process made.

    Raises:
        FlightError: Not a ring.
    """
    with path.open("rb") as file:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size or head[:8] != RING_MAGIC:
            raise FlightError(f"{path}: not a flight ring")
        size = HEAD.unpack(head)[1]
        try:
            layout = msgspec.json.decode(file.read(size), type=Layout)
        except msgspec.MsgspecError as error:
            raise FlightError(f"{path}: a flight ring with a broken head: {error}") from error
    start = (HEAD.size + size + 63) // 64 * 64
    memory = np.memmap(path, dtype=np.uint8, mode="r+")
    if len(memory) != start + 64 + layout.periods * layout.dtype.itemsize:
        raise FlightError(f"{path}: a flight ring of {len(memory)} bytes, which is not the size its head says")
    view = np.asarray(memory)
    return Ring(
        layout=layout, count=view[start : start + 8].view(np.uint64), records=view[start + 64 :].view(layout.dtype)
    )
