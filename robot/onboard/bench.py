"""What a control loop costs at the control rate: each way of running a network in a process of its own, interleaved, medians.

Not in a hot loop: between two decisions of a robot caches go cold and the core idles, which costs several times the decision itself.

| mode | what it measures |
|---|---|
| loop | the whole loop on generated C: robot behind a link, observation, filter, flight recorder, energy |
| tail | the same on a robot with real-time priority: for the long runs |
| c, onnxruntime, numpy | wait for the deadline, and decide: the network alone |
| sleep | waiting for the deadlines by C, and nothing else |
| tuned | the same by `session.run` with one thread and no spinning: what a careful stack does |
| default | the same by `InferenceSession(path)`, as several robot stacks ship it |
| torch | the same network by torch, where it is installed (`policies.peer_bench`) |
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from robot import safety
from robot.artifacts import OBSERVATION, STATE_IN
from robot.description import load as load_robot
from robot.errors import FlexorError, UnknownNameError
from robot.onboard import simulator
from robot.onboard.artifact import Artifact, load
from robot.onboard.bench_nets import NETS, bench_net
from robot.onboard.filter import make_filter
from robot.onboard.flight import FlightRecorder
from robot.onboard.inference import BACKENDS, make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.loop_report import LoopReport
from robot.onboard.ort import session
from robot.onboard.processes import ROOT, python_module
from robot.onboard.realtime import FIFO_PRIORITY, MonotonicClock, realtime
from robot.onboard.start import strangeness
from robot.onboard.tick_record import load_library

OURS = ("loop", *BACKENDS)
SLEEP = "sleep"  # wait for each deadline, in C, and do nothing: the floor under every loop on this machine
TAIL = "tail"  # the loop, and a robot that always answers in time: whose deadlines are missed is then the loop's matter
PEERS = ("tuned", "default")
MODES = (*OURS, TAIL, SLEEP, *PEERS)
AUTO = "auto"  # the fastest backend here
TORCH = "torch"  # lives in another package: it is started, never imported
WARM_UP_CALLS = 100
START_S = 120.0  # a first start compiles


class BenchError(FlexorError):
    """A measuring process ended without a figure."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one mode, one run.

    Attributes:
        p50_us, p99_us, p999_us, max_us: Time of a decision; of the whole loop from the state in hand to the command sent [us].
        cpu_share: CPU time of the process over wall time, the waiting included; 1 is a whole core.
        missed, missed_by_robot, missed_by_system: Deadlines without a command, and those of them because the robot answered late or
            the system woke us late; of a bare sleep, wake-ups later than a period.
        deadlines: How many there were.
        refused: What the operating system did not allow.
        fault: What ended the run early, "" when nothing did; the figures are then those until there.
    """

    mode: str
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_share: float
    max_us: float = 0.0
    missed: int = 0
    missed_by_robot: int = 0
    missed_by_system: int = 0
    deadlines: int = 0
    refused: tuple[str, ...] = ()
    fault: str = ""


def subject(name: str, rate_hz: float) -> Artifact:
    """What is measured: one of the networks of `bench_nets`, or an artifact by name."""
    return bench_net(name, rate_hz) if name in NETS else load(name)


def actor(artifact: Artifact, mode: str) -> Callable[[np.ndarray], object]:
    """A decision in some mode, the recurrent state carried along."""
    if mode in (*BACKENDS, AUTO):
        return make_inference(artifact, mode).act
    import onnxruntime as ort

    if mode == "tuned":
        run = session(artifact.onnx)
    else:
        run = ort.InferenceSession(artifact.onnx)
    outputs = [port.name for port in artifact.file.outputs]
    state = {p.name: np.zeros(p.shape, np.float32) for p in artifact.file.inputs if p.name == STATE_IN}

    def act(observation: np.ndarray) -> object:
        found: Any = run.run(outputs, {OBSERVATION: observation[None], **state})
        for name in state:
            state[name] = found[2]
        return found

    return act


def measure(artifact: Artifact, mode: str, *, rate_hz: float, seconds: float) -> Cost:
    """Run a mode at a rate for a while, in this process.

    Raises:
        UnknownNameError: No such mode.
    """
    if mode not in (*MODES, AUTO):
        raise UnknownNameError("mode", mode, (*MODES, AUTO))
    if mode == SLEEP:
        return _sleep_cost(rate_hz, seconds)
    return (
        _loop_cost(artifact, seconds, prompt=mode == TAIL)
        if mode in ("loop", TAIL)
        else _decision_cost(artifact, mode, rate_hz, seconds)
    )


def _decision_cost(artifact: Artifact, mode: str, rate_hz: float, seconds: float) -> Cost:
    act, clock = actor(artifact, mode), MonotonicClock()
    observation = np.zeros(artifact.contract.observation_size, dtype=np.float32)
    for _ in range(WARM_UP_CALLS):
        act(observation)
    count, period_ns = max(1, round(rate_hz * seconds)), round(1e9 / rate_hz)
    took_ns = np.zeros(count, dtype=np.int64)
    with realtime(False):
        start_ns, start_cpu_s = clock.now_ns(), clock.cpu_s()
        for k in range(count):
            clock.sleep_until(start_ns + (k + 1) * period_ns)
            before_ns = time.perf_counter_ns()
            act(observation)
            took_ns[k] = time.perf_counter_ns() - before_ns
        share = (clock.cpu_s() - start_cpu_s) / ((clock.now_ns() - start_ns) * 1e-9)
    return _of_times(mode, took_ns, share)


def _of_times(
    mode: str, times_ns: np.ndarray, cpu_share: float, *, late: int = 0, refused: tuple[str, ...] = ()
) -> Cost:
    """The cost of a mode from a time per deadline [ns]; `late` of them passed because the system woke nobody in time."""
    p50, p99, p999, most = (np.quantile(times_ns, [0.5, 0.99, 0.999, 1.0]) * 1e-3).tolist()
    return Cost(
        mode=mode,
        p50_us=p50,
        p99_us=p99,
        p999_us=p999,
        max_us=most,
        cpu_share=cpu_share,
        missed=late,
        missed_by_system=late,
        deadlines=len(times_ns),
        refused=refused,
    )


def _sleep_cost(rate_hz: float, seconds: float) -> Cost:
    """How late a process with the loop's priority is woken."""
    count, period_ns = max(1, round(rate_hz * seconds)), round(1e9 / rate_hz)
    late_ns, clock, library = np.zeros(count, dtype=np.int64), MonotonicClock(), load_library()
    with realtime(True) as refused:
        start_ns, start_cpu_s = clock.now_ns(), clock.cpu_s()
        library.tick_sleep(start_ns, period_ns, count, late_ns.ctypes.data)
        share = (clock.cpu_s() - start_cpu_s) / ((clock.now_ns() - start_ns) * 1e-9)
        refused = tuple(refused)
    late = int((late_ns // period_ns).clip(0).sum())
    return _of_times(SLEEP, late_ns, share, late=late, refused=refused)


def _loop_cost(artifact: Artifact, seconds: float, *, prompt: bool) -> Cost:
    report = whole_loop(artifact, seconds, prompt=prompt)
    fault = "" if report.fault is None else f"{report.fault}: {report.fault_text}"
    if fault and not prompt:
        raise BenchError(f"the loop ended in {fault}")
    latency = report.latency
    return Cost(
        mode="loop",
        p50_us=latency.p50_us or 0.0,
        p99_us=latency.p99_us or 0.0,
        p999_us=latency.p999_us or 0.0,
        max_us=latency.max_us or 0.0,
        cpu_share=report.cpu_share,
        missed=report.missed,
        missed_by_robot=report.missed_by_robot,
        missed_by_system=report.missed_by_system,
        deadlines=report.deadlines,
        refused=report.refused,
        fault=fault,
    )


def whole_loop(artifact: Artifact, seconds: float, *, prompt: bool) -> LoopReport:
    """The loop as `flexor run` runs it, on a mock in a process of its own, with a flight recorder and real-time priority.

    Args:
        artifact: What decides.
        seconds: How long [s].
        prompt: The mock has real-time priority, too: a robot's motors do not wait for this machine's other work. Waking it then costs
            the loop some microseconds more.
    """
    contract = artifact.contract
    model = load_robot(contract.robot)
    robot = simulator.spawn(contract.env_id, contract.robot, "mock", control_hz=contract.control_hz)
    if prompt:
        with suppress(OSError):  # below the loop's own priority
            os.sched_setscheduler(robot.pid, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY - 1))
    try:
        with tempfile.TemporaryDirectory() as folder:
            interface = contract.bind(model)
            flight = FlightRecorder(interface, Path(folder))
            try:
                return ControlLoop(
                    robot,
                    interface,
                    make_inference(artifact, "c"),
                    rng=np.random.default_rng(0),
                    config=LoopConfig(seconds=seconds, realtime=True),
                    strangeness=strangeness(artifact),
                    limiter=make_filter(safety.Limits.of(model, contract.dt_s)),
                    flight=flight,
                ).run()
            finally:
                flight.close()
    finally:
        robot.close()


def in_process(name: str, mode: str, rate_hz: float, seconds: float) -> Cost:
    """One run in a process of its own.

    Raises:
        BenchError: The process ended without a figure; its last words are in the message.
    """
    module = "policies.peer_bench" if mode == TORCH else "robot.onboard.bench"
    where = str(Path(name).resolve()) if Path(name).is_dir() else name
    command = python_module(module, where, mode, repr(rate_hz), repr(seconds))
    done = subprocess.run(command, capture_output=True, timeout=seconds + START_S, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise BenchError(f"measuring {mode} failed:\n{done.stderr[-1000:].decode(errors='replace')}")
    return msgspec.json.decode(done.stdout, type=Cost)


def with_sleeper(name: str, rate_hz: float, seconds: float) -> tuple[Cost, Cost]:
    """The whole loop, and a bare sleep beside it at the same rate and time.

    Raises:
        BenchError: See `in_process`.
    """
    with ThreadPoolExecutor(2) as both:
        loop, sleep = (both.submit(in_process, name, mode, rate_hz, seconds) for mode in (TAIL, SLEEP))
        return loop.result(), sleep.result()


def peers(name: str) -> tuple[str, ...]:
    """What else can run a network here."""
    return (*PEERS, TORCH) if name in NETS and find_spec(TORCH) is not None else PEERS


def compare(
    name: str,
    *,
    rate_hz: float,
    seconds: float,
    repeats: int,
    modes: tuple[str, ...],
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Cost]:
    """Medians over interleaved runs, by mode.

    Raises:
        BenchError: See `in_process`.
    """
    costs: dict[str, list[Cost]] = {mode: [] for mode in modes}
    for k in range(repeats):
        for i, mode in enumerate(modes):
            left_s = (len(modes) * (repeats - k) - i) * (seconds + 1.0)
            progress(f"{name} at {rate_hz:g} Hz, round {k + 1} of {repeats}: {mode}; {left_s:.0f} s left")
            costs[mode].append(in_process(name, mode, rate_hz, seconds))
    figures = ("p50_us", "p99_us", "p999_us", "max_us", "cpu_share")
    return {
        mode: Cost(
            mode=mode,
            fault="",  # a run that one ended is an error here
            **{figure: float(np.median([getattr(c, figure) for c in found])) for figure in figures},
            missed=sum(c.missed for c in found),
            missed_by_robot=sum(c.missed_by_robot for c in found),
            missed_by_system=sum(c.missed_by_system for c in found),
            deadlines=sum(c.deadlines for c in found),
            refused=found[-1].refused,
        )
        for mode, found in costs.items()
    }


def main() -> None:
    name, mode, rate_hz, seconds = sys.argv[1:]
    rate = float(rate_hz)
    cost = measure(subject(name, rate), mode, rate_hz=rate, seconds=float(seconds))
    sys.stdout.buffer.write(msgspec.json.encode(cost))


if __name__ == "__main__":
    main()
