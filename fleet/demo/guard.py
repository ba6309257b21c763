"""A process that outlives its parent by a moment, to end the process groups the parent could not end itself.

Run as `python -m fleet.demo.guard`. Reads lines "+GROUP" and "-GROUP" on stdin. When stdin ends, because the parent finished or
was killed, every group still listed is killed. It leaves interrupts to the parent.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable


def watch(lines: Iterable[str], kill: Callable[[int], object]) -> None:
    """Keep the list of living groups; kill them when the lines end.

    Args:
        lines: "+GROUP" when a group starts, "-GROUP" when it has ended.
        kill: Ends one group.
    """
    living: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            living.add(group)
        else:
            living.discard(group)
    for group in living:
        kill(group)


def kill_group(group: int, number: int = signal.SIGKILL) -> bool:
    """Signal a process group; False when nobody is left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(sys.stdin, kill_group)
