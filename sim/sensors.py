"""Sensors as a robot has them: what they say of a true state is late, rounded, off by a constant, noisy, and sometimes not there.

All readings of a robot are one vector, read by one compiled loop per control step. The reading of element i is

    round((gain x(now - latency) + bias + noise) / resolution) resolution,   or the last one again where it was lost,

with x between two control steps taken as a straight line. Where the element is a quaternion, bias and noise are small turns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil

import numpy as np
from numba import njit

from sim.ranges import Ranges
from sim.readings import Readings


@dataclass(frozen=True, kw_only=True)
class Device:
    """One kind of sensor.

    Attributes:
        name: Of its ranges in `Ranges`: `<name>_bias_<unit>`, `<name>_noise_<unit>`, `<name>_gain`.
        unit: Of its readings.
        reads: Field of `RobotState`.
        first, count: Which elements of that field; all of them when count is 0.
        resolution: Smallest step of a reading; 0 where other errors hide it.
        link: How it is connected, "bus" or "tracker": `<link>_latency_s`, `<link>_dropout`.
        positive: No reading below zero.
        turn: A quaternion, whose bias and noise are small turns [rad].
    """

    name: str
    unit: str
    reads: str
    first: int = 0
    count: int = 0
    resolution: float = 0.0
    link: str = "bus"
    positive: bool = False
    turn: bool = False


TURN = 2.0 * np.pi
DEVICES = (
    Device(name="encoder", unit="rad", reads="q_rad", resolution=TURN / 2**14),  # 14-bit magnetic encoders
    Device(name="velocity", unit="rad_s", reads="qd_rad_s"),  # the drives' estimate
    Device(name="motor_encoder", unit="rad", reads="motor_rad", resolution=TURN / 2**12),  # as in Dynamixel X servos
    Device(name="motor_velocity", unit="rad_s", reads="motor_rad_s"),
    Device(name="current", unit="a", reads="motor_current_a", resolution=1e-3),  # Dynamixel XC330 counts milliamperes
    Device(name="temperature", unit="c", reads="motor_temperature_c", resolution=1.0),  # Dynamixel X counts degrees
    Device(name="touch", unit="n", reads="tip_force_n", resolution=0.01, positive=True),
    Device(name="gyro", unit="rad_s", reads="imu_gyro_rad_s", resolution=2.0 * 8.73 / 2**16),  # 16 bit over +-500 deg/s
    Device(name="tilt", unit="rad", reads="imu_quat_xyzw", turn=True),
    Device(name="tracker", unit="m", reads="object_pose", count=3, link="tracker"),
    Device(name="tracker", unit="rad", reads="object_pose", first=3, count=4, link="tracker", turn=True),
)
BLOCK_STEPS = 32  # chance is drawn for this many steps at once


@njit(
    "void(float64[::1], float64[:,::1], int64, float64[:,::1], int64[::1], float64[::1], float64[::1], float64[::1])",
    cache=True,
)
def _read(true, ring, head, table, turns, noise, chance, last):  # pragma: no cover - compiled
    """Take in what is true now and advance `last` to the readings of now. Rows of `table`: lag in steps, gain, bias, deviation, resolution, dropout, least."""
    depth, n = ring.shape
    ring[head % depth] = true
    late, part, newer, older = -1.0, 0.0, 0, 0
    for i in range(n):
        if chance[i] < table[5, i] or table[1, i] == 0.0:  # lost, or part of a quaternion
            continue
        if table[0, i] != late:  # neighbours are nearly always as late as each other
            late = table[0, i]
            whole = int(late)
            part, newer, older = late - whole, (head - whole) % depth, (head - whole - 1) % depth
        new, old = ring[newer, i], ring[older, i]
        value = (new + part * (old - new)) * table[1, i] + table[2, i] + table[3, i] * noise[i]
        step = table[4, i]
        if step > 0.0:
            value = np.rint(value / step) * step
        last[i] = max(value, table[6, i])
    for s in turns:  # quaternions, whose first element decides for all four
        if chance[s] < table[5, s]:
            continue
        whole = int(table[0, s])
        part = table[0, s] - whole
        new, old = ring[(head - whole) % depth, s : s + 4], ring[(head - whole - 1) % depth, s : s + 4]
        side = 1.0 if new[0] * old[0] + new[1] * old[1] + new[2] * old[2] + new[3] * old[3] >= 0.0 else -1.0
        x, y = new[0] + part * (side * old[0] - new[0]), new[1] + part * (side * old[1] - new[1])
        z, w = new[2] + part * (side * old[2] - new[2]), new[3] + part * (side * old[3] - new[3])
        a = 0.5 * (table[2, s] + table[3, s] * noise[s])
        b = 0.5 * (table[2, s + 1] + table[3, s] * noise[s + 1])
        c = 0.5 * (table[2, s + 2] + table[3, s] * noise[s + 2])
        p, q, r = x + w * a + y * c - z * b, y + w * b + z * a - x * c, z + w * c + x * b - y * a
        t = w - x * a - y * b - z * c
        size = 1.0 / np.sqrt(p * p + q * q + r * r + t * t)
        last[s], last[s + 1], last[s + 2], last[s + 3] = p * size, q * size, r * size, t * size


class Sensors:
    """The sensors of one robot on one day. `reset` at an episode's start, then `read` once per control step.

    Args:
        ranges: What their errors are drawn from.
        sizes: Elements of each sensed field of `RobotState`, see `sim.ranges.sizes_of`.
        dt_s: One control step.
        rng: What they are drawn with.

    Attributes:
        drawn: What was drawn, by the name of its range: a number, or one per element.
        layout: Where each field is in the vectors that go in and come out.
    """

    def __init__(self, ranges: Ranges, sizes: Mapping[str, int], dt_s: float, rng: np.random.Generator) -> None:
        self.drawn: dict[str, float | list[float]] = {}
        self.layout = Readings.of(sizes)
        end = self.layout.size
        self._table = np.zeros((7, end))
        self._table[1], self._table[6] = 1.0, -np.inf
        turns = []
        for device in DEVICES:
            if sizes[device.reads] == 0:
                continue
            start = self.layout.slices[device.reads].start + device.first
            self._draw(device, slice(start, start + (device.count or sizes[device.reads])), ranges, dt_s, rng)
            if device.turn:
                turns.append(start)
        self._turns = np.array(turns, dtype=np.int64)
        self._ring = np.zeros((ceil(self._table[0].max(initial=0.0)) + 2, end))
        self._last = np.zeros(end)

    def _draw(self, device: Device, at: slice, ranges: Ranges, dt_s: float, rng: np.random.Generator) -> None:
        def one(name: str) -> float:
            if name not in self.drawn:
                self.drawn[name] = float(rng.uniform(*getattr(ranges, name)))
            value = self.drawn[name]
            assert isinstance(value, float)
            return value

        def each(name: str) -> np.ndarray:
            values = rng.uniform(*getattr(ranges, name), size=at.stop - at.start)
            self.drawn[name] = values.tolist()
            return values

        table, known = self._table, _RANGES
        table[0, at] = one(f"{device.link}_latency_s") / dt_s
        if f"{device.name}_gain" in known:
            table[1, at] = each(f"{device.name}_gain")
        if f"{device.name}_bias_{device.unit}" in known:
            table[2, at] = each(f"{device.name}_bias_{device.unit}")
        table[3, at] = one(f"{device.name}_noise_{device.unit}")
        table[4, at] = device.resolution
        table[5, at] = one(f"{device.link}_dropout")
        if device.turn:
            table[1, at] = 0.0
        if device.positive:
            table[6, at] = 0.0

    def reset(self, true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The first readings of an episode: the robot has stood like this for a while, and nothing is lost."""
        self._rng, self._step = rng, 0
        self._ring[:] = true
        self._draw_block()
        dropout, self._table[5] = self._table[5].copy(), 0.0
        said = self._readings(true)
        self._table[5] = dropout
        return said

    def read(self, true: np.ndarray) -> np.ndarray:
        """What the sensors say of the truth, one control step after the last, shape (layout.size,); the caller's own."""
        self._step += 1
        if self._step % BLOCK_STEPS == 0:
            self._draw_block()
        return self._readings(true)

    def _draw_block(self) -> None:
        shape = (BLOCK_STEPS, len(self._last))
        self._noise, self._chance = self._rng.standard_normal(shape), self._rng.random(shape)

    def _readings(self, true: np.ndarray) -> np.ndarray:
        row, last = self._step % BLOCK_STEPS, self._last
        _read(true, self._ring, self._step, self._table, self._turns, self._noise[row], self._chance[row], last)
        return last.copy()


_RANGES = frozenset(item.name for item in fields(Ranges))
