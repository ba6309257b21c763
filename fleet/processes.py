"""Children that do not outlive their parent: a process started with FLEXOR_PARENT=<pid> in its environment ends when that process does."""

import ctypes
import os
import signal
import threading
import time

PARENT = "FLEXOR_PARENT"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_S = 0.5


def environment() -> dict[str, str]:
    """The environment for a child that is to die with this process."""
    return {**os.environ, PARENT: str(os.getpid())}


def follow_parent() -> None:
    """End with SIGTERM when the process named in FLEXOR_PARENT ends. Without it nothing happens: a daemon may outlive its shell.

    The kernel's death signal comes when the *thread* that started us ends, so it is only a second line; the parent is asked for twice a second.
    """
    text = os.environ.get(PARENT, "")
    if not text.isdigit():
        return
    parent = int(text)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl") and os.getppid() == parent:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
