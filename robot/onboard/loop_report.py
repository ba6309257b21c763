"""What a run of the control loop was like, as data."""

from dataclasses import dataclass, field
from typing import Any

from robot.onboard.samples import CAPACITY, Quantiles, Ring
from robot.safety import Fault

MAX_KEPT = 1 << 20  # times: 35 minutes at 500 Hz, 8 MB each of three


@dataclass(frozen=True, kw_only=True)
class LoopReport:
    """Figures of one run.

    Attributes:
        seconds: Wall time [s].
        steps: Periods in which the policy commanded.
        periods: Periods in which anything was commanded.
        missed: Periods without a command, because the one before was not over.
        missed_by_robot: Those of them in which the command had been in time and the robot's answer was late.
        missed_by_system: Those in which the operating system woke this process too late. The rest: deciding took too long.
        latency: State in hand to command sent.
        inference: The network alone.
        lateness: How long after its deadline the system woke us.
        cpu_s: CPU time of this process [s].
        episodes, successes: Whole episodes, and those whose goal held at their end.
        success_steps: Steps after which the goal held.
        reward_sum: Over all steps.
        slewed, clamped, slowed, eased, braked: Joint targets that each stage of the filter changed: slew, position,
            velocity, torque, barrier.
        late_states: Periods with sensor data past `safety.LATE_PERIODS`.
        strangeness_max: Largest out-of-distribution score.
        copper_j: Heat in the motor windings over the run [J].
        fault: Why the run ended early, None if it did not; `fault_text` says more.
        refused: What the operating system did not allow.
    """

    seconds: float
    steps: int
    periods: int
    missed: int
    missed_by_robot: int
    missed_by_system: int
    latency: Quantiles
    inference: Quantiles
    lateness: Quantiles
    cpu_s: float
    episodes: int
    successes: int
    success_steps: int
    reward_sum: float
    slewed: int
    clamped: int
    slowed: int
    eased: int
    braked: int
    late_states: int
    strangeness_max: float
    copper_j: float
    fault: Fault | None
    fault_text: str
    refused: tuple[str, ...]

    @property
    def deadlines(self) -> int:
        """Periods that passed, with a command or without."""
        return self.periods + self.missed

    @property
    def cpu_share(self) -> float:
        """CPU time over wall time; 1 is a whole core."""
        return self.cpu_s / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def reward_mean(self) -> float:
        """Per step."""
        return self.reward_sum / self.steps if self.steps else 0.0


@dataclass
class Tally:
    """What the loop counts while it runs; no growth."""

    steps: int = 0
    periods: int = 0
    missed: int = 0
    missed_by_robot: int = 0
    missed_by_system: int = 0
    episodes: int = 0
    successes: int = 0
    success_steps: int = 0
    reward_sum: float = 0.0
    slewed: int = 0
    clamped: int = 0
    slowed: int = 0
    eased: int = 0
    braked: int = 0
    late_states: int = 0
    strangeness_max: float = 0.0
    copper_j: float = 0.0
    latency: Ring = field(default_factory=Ring)
    inference: Ring = field(default_factory=Ring)
    lateness: Ring = field(default_factory=Ring)

    @classmethod
    def of(cls, periods: int) -> "Tally":
        """With room for the times of so many periods, within reason; a run without an end keeps the last ones."""
        capacity = min(max(CAPACITY, periods), MAX_KEPT)
        return cls(latency=Ring(capacity), inference=Ring(capacity), lateness=Ring(capacity))

    def report(
        self, *, seconds: float, cpu_s: float, fault: Fault | None, fault_text: str, refused: list[str]
    ) -> LoopReport:
        values: dict[str, Any] = {name: v.quantiles() if isinstance(v, Ring) else v for name, v in vars(self).items()}
        return LoopReport(
            **values, seconds=seconds, cpu_s=cpu_s, fault=fault, fault_text=fault_text, refused=tuple(refused)
        )
