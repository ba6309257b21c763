"""What the computer takes during a run, read at a steady interval by a process of its own.

A power monitor says what is drawn now, a counter wraps: two readings, before and after, would be off by any factor. The control
loop must not wait for a file of the kernel, nor for another thread of its interpreter, so a child reads and adds up.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from robot.energy import Energy, Meter, find_meter
from robot.onboard.processes import ROOT, python_module

SYS_CLASS = Path("/sys/class")
READY = b"ready\n"
ANSWER_S = 10.0  # for the child to come up, or to read once more; then the figure is given up, not the run


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Energy of the whole computer.

    Attributes:
        joules: Over the run [J].
        source: Of the meter.
        readings: How many.
        longest_s: The longest time between two of them [s].
    """

    joules: float
    source: str
    readings: int
    longest_s: float

    def per(self, count: int) -> Energy:
        """Divided by a count > 0; the source says how often was read."""
        each_j = self.joules / count
        how = f"{self.source}, {self.readings} readings at most {self.longest_s:.2g} s apart"
        return Energy(low_j=each_j, high_j=each_j, source=how)


def integrate(meter: Meter, now_s: Callable[[], float], over: Callable[[float], bool]) -> Measured:
    """Read a fresh meter until it is over, and once more then.

    Args:
        meter: What to read.
        now_s: Time [s].
        over: Waits so many seconds at most, and says whether the run is over.
    """
    last_s, longest_s, readings, ended = now_s(), 0.0, 1, False
    joules = meter.sample(last_s)
    while not ended:
        ended = over(meter.interval_s)
        at_s = now_s()
        joules, readings, longest_s, last_s = meter.sample(at_s), readings + 1, max(longest_s, at_s - last_s), at_s
    return Measured(joules=joules, source=meter.source, readings=readings, longest_s=longest_s)


class Metering:
    """A meter beside a run: `begin`, and `end` when it is over.

    Args:
        child: The process that reads; None where nothing can be measured.
    """

    def __init__(self, child: "subprocess.Popen[bytes] | None") -> None:
        self._child = child

    def begin(self) -> None:
        """Wait for the child to be there, and count from now on."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return
        if select.select([child.stdout], [], [], ANSWER_S)[0] and child.stdout.readline() == READY:
            with suppress(OSError):  # it is gone; `end` will have nothing to say
                child.stdin.write(b"begin\n")

    def end(self) -> Measured | None:
        """What it came to, None where nothing can be measured or the sensor failed."""
        if self._child is None:
            return None
        try:
            said, _ = self._child.communicate(timeout=ANSWER_S)  # the end of its input is the word for it
            return Measured(**json.loads(said))
        except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
            return None


@contextmanager
def metering(sys_class: Path = SYS_CLASS) -> Iterator[Metering]:
    """Start the process that reads the best meter there is, where there is one; it is gone when the context is left."""
    if find_meter(0.0, sys_class) is None:
        yield Metering(None)
        return
    child = subprocess.Popen(
        python_module("robot.onboard.meter", str(sys_class)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is the controller's to hear
        cwd=ROOT,
    )
    try:
        yield Metering(child)
    finally:
        child.kill()
        child.communicate()


def measure(sys_class: Path, words: IO[bytes]) -> Measured | None:
    """The child: from the first word that comes until no more can come. None where there is nothing to measure."""
    if not words.readline():
        return None
    meter = find_meter(time.monotonic(), sys_class)
    if meter is None:
        return None
    return integrate(meter, time.monotonic, lambda seconds: bool(select.select([words], [], [], seconds)[0]))


if __name__ == "__main__":
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    measured = measure(Path(sys.argv[1]), sys.stdin.buffer.raw)  # type: ignore[attr-defined]
    if measured is not None:
        print(json.dumps(asdict(measured)), flush=True)
