"""What a decision costs. Every figure carries its source: measured by a named sensor, or modelled, and then it is an interval.

Model: the least is arithmetic and weight traffic at 45 nm (Horowitz, ISSCC 2014, "Computing's energy problem"); the most is
CPU time at a stated power per core. Real CPUs lie one to two orders above the least (fetch, decode, leakage).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robot.description.actuators import COPPER_PER_K
from robot.description.model import RobotModel

FP32_ADD_J, FP32_MUL_J = 0.9e-12, 3.7e-12  # Horowitz 2014, 45 nm, 0.9 V
READ_64_BIT_J = ((8 * 1024, 10e-12), (32 * 1024, 20e-12), (1024 * 1024, 100e-12))  # caches, the same table
DRAM_64_BIT_J = 1300e-12  # the lower end of 1.3-2.6 nJ
UPPER_CORE_W = 15.0  # assumed: a desktop core at full clock with its share of the package; an Orin Nano's is nearer 2.5
BOARD_INPUTS = ("VDD_IN", "POM_5V_IN")  # rails that all others of a Jetson are fed from (jetson-stats, on rails)
CAMERA_LOW_W, CAMERA_HIGH_W = 0.1, 2.5  # assumed: a bare sensor module; all that a USB 2.0 port gives (500 mA at 5 V)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Joules with their source.

    Attributes:
        low_j, high_j: Interval; equal where it was measured [J].
        source: "measured:..." or "modelled:...".
    """

    low_j: float
    high_j: float
    source: str

    @property
    def measured(self) -> bool:
        return self.source.startswith("measured:")

    def as_dict(self) -> dict[str, Any]:
        """For reports: a single value only where the interval is one."""
        value = self.low_j if self.low_j == self.high_j else None
        return {"value": value, "low": self.low_j, "high": self.high_j, "source": self.source}

    def __str__(self) -> str:
        if self.low_j == self.high_j:
            return f"{joules(self.low_j)} ({self.source})"
        return f"{joules(self.low_j)} to {joules(self.high_j)} ({self.source})"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a run took, by who took it.

    Attributes:
        computer: All decisions of the run.
        motors: Heat in the windings.
        cameras: Sensors and their links; nothing where the policy sees nothing.
        decisions, tasks: How many decisions, and whole episodes, the run was.
    """

    computer: Energy
    motors: Energy
    cameras: Energy
    decisions: int
    tasks: int

    def per(self, count: int) -> dict[str, Energy] | None:
        """Each part divided by a count, None where there was none."""
        if count < 1:
            return None
        parts = {"computer": self.computer, "motors": self.motors, "cameras": self.cameras}
        return {
            name: Energy(low_j=part.low_j / count, high_j=part.high_j / count, source=part.source)
            for name, part in parts.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """For reports: joules of the run, per decision, and per task where one was whole."""
        found: dict[str, Any] = {"decisions": self.decisions, "tasks": self.tasks}
        for name, parts in (
            ("run", self.per(1)),
            ("decision", self.per(self.decisions)),
            ("task", self.per(self.tasks)),
        ):
            found[f"per_{name}"] = {key: part.as_dict() for key, part in parts.items()} if parts else None
        return found


def camera_energy(cameras: int, seconds: float) -> Energy:
    """Energy of cameras that run all the time, modelled: no camera of ours reports its power.

    Args:
        cameras: How many.
        seconds: How long [s].
    """
    if cameras == 0:
        return Energy(low_j=0.0, high_j=0.0, source="modelled: no camera")
    low, high = (cameras * watt * seconds for watt in (CAMERA_LOW_W, CAMERA_HIGH_W))
    return Energy(low_j=low, high_j=high, source=f"modelled: {CAMERA_LOW_W:g} to {CAMERA_HIGH_W:g} W a camera")


def joules(value: float) -> str:
    """A number of joules for people."""
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} nJ"


def least_decision_j(multiply_adds: int, weight_bytes: int) -> float:
    """Arithmetic, and every weight read once from the smallest memory that holds them all [J]."""
    arithmetic = multiply_adds * (FP32_ADD_J + FP32_MUL_J)
    per_read = next((cost for size, cost in READ_64_BIT_J if weight_bytes <= size), DRAM_64_BIT_J)
    return arithmetic + weight_bytes / 8.0 * per_read


def modelled_decision(
    *, multiply_adds: int, weight_bytes: int, cpu_s: float, decisions: int, core_w: float = UPPER_CORE_W
) -> Energy:
    """Energy of one decision where nothing can be measured.

    Args:
        multiply_adds: Of one pass through the network.
        weight_bytes: Of its weights.
        cpu_s: CPU time of the whole control loop.
        decisions: How many decisions that was for, > 0.
        core_w: Power of one busy core, an assumption that is stated in the source.
    """
    low = least_decision_j(multiply_adds, weight_bytes)
    high = max(low, cpu_s / decisions * core_w)
    return Energy(
        low_j=low, high_j=high, source=f"modelled: 45 nm arithmetic and weights to CPU time at {core_w:g} W/core"
    )


def winding_ohm(model: RobotModel) -> np.ndarray:
    """Winding resistance of every motor at 25 deg C, shape (n_motors,) [ohm]."""
    return np.array([item.motor.resistance_ohm for item in (*model.tendons, *model.drives)])


def copper_w(winding_ohm: np.ndarray, current_a: np.ndarray, temperature_c: np.ndarray | None = None) -> float:
    """Heat in the motor windings, sum of i^2 R(T), R(T) = R_25 (1 + a (T - 25)) [W].

    Args:
        winding_ohm: R_25 of each motor, shape (n_motors,) [ohm].
        current_a: Motor currents, shape (n_motors,); () where the robot has no current sensors [A].
        temperature_c: Winding temperatures, shape (n_motors,); 25 deg C when None or () [deg C].
    """
    if current_a.size == 0:
        return 0.0
    if temperature_c is not None and temperature_c.size:
        winding_ohm = winding_ohm * (1.0 + COPPER_PER_K * (temperature_c - 25.0))
    return float(current_a @ (winding_ohm * current_a))


class Meter(Protocol):
    """Joules of the whole computer since it was made.

    Attributes:
        source: "measured:..." for `Energy`.
        interval_s: Read it at least so often: between readings it knows nothing [s].
    """

    source: str
    interval_s: float

    def sample(self, now_s: float) -> float: ...


class RaplMeter:
    """Intel and AMD package counters. Machine-wide: other processes are in the figure.

    Args:
        zones: Folders with `energy_uj` and `max_energy_range_uj`, one per package.
    """

    source = "measured:rapl, whole package"
    interval_s = 1.0  # the narrowest counters wrap at 65 kJ, in minutes at most; a wrap between two readings is seen, two are not

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._range_uj = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last_uj = self._read()
        self._total_uj = 0

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def sample(self, now_s: float) -> float:
        now_uj = self._read()
        for now, last, wrap in zip(now_uj, self._last_uj, self._range_uj, strict=True):
            self._total_uj += now - last if now >= last else now + wrap - last  # the counter wrapped
        self._last_uj = now_uj
        return self._total_uj * 1e-6


class InaMeter:
    """INA3221 power monitors of a Jetson board: power, integrated between samples.

    Where a rail is the board's input the others are parts of it and are not counted again; else it is the sum of the rails.

    Args:
        chips: hwmon folders of the monitors.
        now_s: Time of the first sample.
    """

    interval_s = 0.1  # what happens between two readings is taken for a straight line

    def __init__(self, chips: list[Path], now_s: float) -> None:
        volts = [path for chip in chips for path in sorted(chip.glob("in[1-3]_input"))]
        inputs = [path for path in volts if self._label(path) in BOARD_INPUTS]
        self._pairs = [(path, path.with_name(path.name.replace("in", "curr", 1))) for path in inputs or volts]
        self.source = "measured:ina3221, " + (
            f"rail {', '.join(map(self._label, inputs))}" if inputs else "sum of rails"
        )
        self._last_s, self._last_w, self._total_j = now_s, self._power_w(), 0.0

    @staticmethod
    def _label(volts: Path) -> str:
        label = volts.with_name(volts.name.replace("input", "label"))
        return label.read_text().strip() if label.is_file() else ""

    def _power_w(self) -> float:
        return sum(int(mv.read_text()) * int(ma.read_text()) * 1e-6 for mv, ma in self._pairs)

    def sample(self, now_s: float) -> float:
        power_w = self._power_w()
        self._total_j += 0.5 * (power_w + self._last_w) * (now_s - self._last_s)
        self._last_s, self._last_w = now_s, power_w
        return self._total_j


def find_meter(now_s: float, sys_class: Path = Path("/sys/class")) -> Meter | None:
    """The best meter that this process may read, None if there is none (virtual machines have none)."""
    try:
        zones = sorted(p for p in sys_class.glob("powercap/intel-rapl:*") if p.name.count(":") == 1)
        if zones:
            return RaplMeter(zones)
        chips = [p.parent for p in sorted(sys_class.glob("hwmon/*/name")) if p.read_text().strip() == "ina3221"]
        if chips:
            return InaMeter(chips, now_s)
    except (OSError, ValueError):  # the counters are root's on many systems
        return None
    return None
