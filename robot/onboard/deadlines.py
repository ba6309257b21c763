"""Deadlines of the control loop: absolute, whole periods skipped where one is missed, and who missed it counted."""

from robot.onboard.loop_report import Tally
from robot.onboard.realtime import Clock


class Deadlines:
    """Waits for deadlines a period apart.

    Args:
        clock: Time.
        period_ns: Between two deadlines.
        tally: Counts what was missed.

    Attributes:
        woken_ns: When the system woke us last; compiled code that waits by itself says it here.
    """

    def __init__(self, clock: Clock, period_ns: int, tally: Tally) -> None:
        self._clock, self._period_ns, self._tally = clock, period_ns, tally
        self.woken_ns = 0

    def wait(self, deadline_ns: int) -> int:
        """Sleep until the next deadline that can still be met, and say which one that was."""
        now_ns = self._clock.now_ns()
        if now_ns > deadline_ns:  # deciding took too long
            skipped = (now_ns - deadline_ns) // self._period_ns + 1
            self._tally.missed += skipped
            deadline_ns += skipped * self._period_ns
        self._clock.sleep_until(deadline_ns)
        self.woken_ns = self._clock.now_ns()
        self._tally.lateness.add(max(0, self.woken_ns - deadline_ns))
        return deadline_ns

    def skip(self, deadline_ns: int, now_ns: int) -> int:
        """Too late for this period, because we were woken too late or because the answer came too late: on to the next deadline."""
        skipped = (now_ns - deadline_ns) // self._period_ns + 1
        self._tally.missed += skipped
        if self.woken_ns - deadline_ns > now_ns - self.woken_ns:  # who took longer
            self._tally.missed_by_system += skipped
        else:
            self._tally.missed_by_robot += skipped
        self._clock.sleep_until(deadline_ns + skipped * self._period_ns)
        return deadline_ns + skipped * self._period_ns
