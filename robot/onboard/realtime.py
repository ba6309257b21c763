"""Time and priority: absolute deadlines, locked memory, a scheduler class, no garbage collector. Says what was refused."""

import ctypes
import ctypes.util
import gc
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn, Protocol

from robot.errors import FlexorError

CLOCK_MONOTONIC, TIMER_ABSTIME = 1, 1  # linux/time.h
MCL_CURRENT, MCL_FUTURE = 1, 2  # bits/mman-linux.h
PR_SET_TIMERSLACK = 29  # linux/prctl.h
FIFO_PRIORITY = 40
MAX_REALTIME_US = (
    500_000  # a real-time loop that spins this long without sleeping is stopped: it would lock a small board
)
LAST_REALTIME_US = 2 * MAX_REALTIME_US  # one that does not even return from native code then is killed
_libc = ctypes.CDLL(None, use_errno=True)


class SpinningError(FlexorError):
    """A loop with real-time priority that does not sleep any more."""


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class Clock(Protocol):
    """Time for the control loop; tests bring their own."""

    def now_ns(self) -> int: ...

    def sleep_until(self, deadline_ns: int) -> None: ...

    def cpu_s(self) -> float:
        """CPU time of this process so far."""
        ...


class MonotonicClock:
    """CLOCK_MONOTONIC and clock_nanosleep to an absolute deadline: no drift, and no arithmetic between reading and sleeping."""

    def __init__(self) -> None:
        self._wake = _Timespec()
        self._at = ctypes.byref(self._wake)
        self._sleep = getattr(_libc, "clock_nanosleep", None)  # not on macOS

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def cpu_s(self) -> float:
        return time.process_time()

    def sleep_until(self, deadline_ns: int) -> None:
        if self._sleep is None:
            time.sleep(max(0.0, (deadline_ns - time.monotonic_ns()) * 1e-9))
            return
        self._wake.sec, self._wake.nsec = divmod(deadline_ns, 1_000_000_000)
        while self._sleep(CLOCK_MONOTONIC, TIMER_ABSTIME, self._at, None) != 0:  # a signal came; the deadline stands
            if time.monotonic_ns() >= deadline_ns:
                return


def _lock_memory() -> str:
    if _libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        return f"locked memory ({os.strerror(ctypes.get_errno())}; ulimit -l is {resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]})"
    return ""


def _fifo() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except OSError as error:
        return f"SCHED_FIFO priority ({error.strerror}; allow rtprio in limits.conf)"
    return ""


def _spinning(_number: int, _frame: object) -> NoReturn:
    raise SpinningError(
        f"the control loop ran for {1e-6 * MAX_REALTIME_US:g} s with real-time priority and did not sleep once"
    )


@contextmanager
def _bounded() -> Iterator[None]:
    """Real-time priority that cannot lock a small board: who spins gets `SpinningError`, which ends the loop as any error does; who
    hangs in native code, or outside the main thread, where signals cannot be caught, is killed by the system. Where raising limits is
    not permitted they stay with this process and its children, and bind only what has real-time priority.
    """
    if not hasattr(resource, "RLIMIT_RTTIME"):  # Linux has it
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    last = LAST_REALTIME_US if hard == resource.RLIM_INFINITY else min(hard, LAST_REALTIME_US)
    resource.setrlimit(resource.RLIMIT_RTTIME, (min(MAX_REALTIME_US, last), last))
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGXCPU, _spinning) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGXCPU, before)
        with suppress(ValueError):  # see above; the next loop of this process sets the same
            resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))


@contextmanager
def realtime(wanted: bool = True) -> Iterator[list[str]]:
    """Prepare this process for a control loop, and undo it afterwards. Warm everything up before entering.

    Args:
        wanted: Whether to ask for locked memory and real-time priority; the garbage collector is off in either case.

    Yields:
        What was refused, one line each.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what lives now is never looked at again
    gc.disable()
    refused: list[str] = []
    scheduler = None
    bounds = ExitStack()
    try:
        if wanted and hasattr(_libc, "mlockall") and hasattr(os, "sched_setscheduler"):
            scheduler = os.sched_getscheduler(0), os.sched_getparam(0)
            bounds.enter_context(_bounded())
            refused = [why for why in (_lock_memory(), _fifo()) if why]
            _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # the kernel may else wake us 50 us late to save power
        elif wanted:
            refused = ["locked memory and real-time priority (not this operating system)"]
        yield refused
    finally:
        if scheduler is not None:
            _libc.munlockall()
            os.sched_setscheduler(0, *scheduler)
            _libc.prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0)
        bounds.close()
        gc.unfreeze()
        if collecting:
            gc.enable()


@contextmanager
def on_request(ask: Callable[[str], None]) -> Iterator[None]:
    """Call `ask("asked")` on SIGUSR1. Outside the main thread, where signals cannot be caught, nothing happens."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: ask("asked"))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def never() -> bool:
    return False


class Came:
    """Whether a signal came that asks for a stop."""

    by_signals_only = True

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self) -> bool:
        return bool(self.numbers)


def by_signals_only(*questions: Callable[[], bool]) -> bool:
    """Whether no answer to any of these changes unless a signal handler of this process has run: they need not be asked before one has."""
    return all(ask is never or getattr(ask, "by_signals_only", False) for ask in questions)


@contextmanager
def woken_by_signals() -> Iterator[int]:
    """A socket that gets a byte as soon as a signal comes that Python has a handler for, so that native code can look for it.

    Yields:
        Its file descriptor; -1 outside the main thread, and where somebody else (asyncio) has the interpreter's only one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield -1
        return
    ours, pythons = socket.socketpair()
    with ours, pythons:
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            if before != -1:
                signal.set_wakeup_fd(before)
            yield ours.fileno() if before == -1 else -1
        finally:
            if before == -1:
                signal.set_wakeup_fd(-1)


class EmergencyStop:
    """The emergency stop of a process: pressed by SIGUSR2, or by a file. Once pressed it stays so.

    Args:
        path: Pressed as soon as this file is there and is not "0", so the `value` of a GPIO does, and `touch`; None for none. A file
            that is there and cannot be read counts as pressed.
    """

    def __init__(self, path: os.PathLike[str] | None = None) -> None:
        self._path, self.pressed = None if path is None else os.fspath(path), False

    by_signals_only = False  # whether SIGUSR2 presses it, and no file does

    def press(self) -> None:
        """From any thread."""
        self.pressed = True
        if self.by_signals_only and threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGUSR2)  # wakes a loop that asks after signals only

    def __call__(self) -> bool:
        """Whether it is pressed; asked once per period."""
        if not self.pressed and self._path is not None:
            try:
                with open(self._path, "rb", buffering=0) as file:
                    self.pressed = file.read(8).strip() != b"0"
            except FileNotFoundError:
                pass
            except OSError:
                self.pressed = True
        return self.pressed


@contextmanager
def emergency_stop(path: os.PathLike[str] | None = None) -> Iterator[EmergencyStop]:
    """An emergency stop that hears SIGUSR2 while the context lasts; outside the main thread only its file."""
    stop = EmergencyStop(path)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR2"):
        yield stop
        return
    before = signal.signal(signal.SIGUSR2, lambda _number, _frame: stop.press())
    stop.by_signals_only = path is None
    try:
        yield stop
    finally:
        stop.by_signals_only = False
        signal.signal(signal.SIGUSR2, before)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag, so that a loop ends between two periods. A second SIGINT interrupts at once.

    Yields:
        Whether one came. Outside the main thread, where signals cannot be caught, it stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    came = Came()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        if came() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.numbers.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
