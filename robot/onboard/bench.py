"""What a decision costs at the control rate, per inference backend: each in a process of its own, interleaved, medians.

Not in a hot loop: between two decisions of a robot caches go cold and the core idles, which costs several times the decision itself.
"default" is `onnxruntime.InferenceSession(path)` as several robot stacks ship it, for comparison.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from robot.description import load as load_robot
from robot.errors import FlexorError, UnknownNameError
from robot.onboard.artifact import Artifact, load
from robot.onboard.filter import make_filter
from robot.onboard.inference import BACKENDS, make_inference
from robot.onboard.realtime import MonotonicClock
from robot.safety import Filter, Limits

MODES = ("default", *BACKENDS)
WARM_UP_CALLS = 100
FILTER_JOINTS = 29


class BenchError(FlexorError):
    """A measuring process ended without a figure."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one mode, one run.

    Attributes:
        p50_us, p99_us, p999_us: Time of a decision [us].
        cpu_share: CPU time of the process over wall time, the waiting included; 1 is a whole core.
    """

    mode: str
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_share: float


def _actor(artifact: Artifact, mode: str) -> Callable[[np.ndarray], object]:
    if mode != "default":
        return make_inference(artifact, mode).act
    import onnxruntime as ort

    session = ort.InferenceSession(artifact.onnx)
    others = {p.name: np.zeros(p.shape, np.float32) for p in artifact.file.inputs if p.name != "obs"}
    return lambda observation: session.run(None, {"obs": observation[None], **others})


def measure(artifact: Artifact, mode: str, *, rate_hz: float, seconds: float) -> Cost:
    """Decide at a rate for a while, in this process.

    Raises:
        UnknownNameError: No such mode.
    """
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    act, clock = _actor(artifact, mode), MonotonicClock()
    observation = np.zeros(artifact.contract.observation_size, dtype=np.float32)
    for _ in range(WARM_UP_CALLS):
        act(observation)
    count, period_ns = max(1, round(rate_hz * seconds)), round(1e9 / rate_hz)
    took_ns = np.zeros(count, dtype=np.int64)
    start_ns, start_cpu_s = clock.now_ns(), clock.cpu_s()
    for k in range(count):
        clock.sleep_until(start_ns + (k + 1) * period_ns)
        before_ns = time.perf_counter_ns()
        act(observation)
        took_ns[k] = time.perf_counter_ns() - before_ns
    share = (clock.cpu_s() - start_cpu_s) / ((clock.now_ns() - start_ns) * 1e-9)
    p50, p99, p999 = (np.quantile(took_ns, [0.5, 0.99, 0.999]) * 1e-3).tolist()
    return Cost(mode=mode, p50_us=p50, p99_us=p99, p999_us=p999, cpu_share=share)


def filter_cost(calls: int = 2000) -> dict[str, float]:
    """Median time of the safety filter for 29 joints, with nothing to change and with every joint to change [us]."""
    hand = load_robot("hand22")
    limits = Limits.of(hand, 0.02)
    wide = {
        name: np.resize(value, FILTER_JOINTS) for name, value in vars(limits).items() if isinstance(value, np.ndarray)
    }
    limits = replace(limits, joint_names=tuple(f"joint_{i}" for i in range(FILTER_JOINTS)), **wide)
    home, still = np.resize(hand.home_rad, FILTER_JOINTS), np.zeros(FILTER_JOINTS)
    found = {}
    for name, check in (("here", make_filter(limits)), ("numpy", Filter(limits))):
        for case, target in (("unchanged", home + 1e-3), ("changed", home + 5.0)):
            took_ns = np.zeros(calls, dtype=np.int64)
            for k in range(calls):
                before_ns = time.perf_counter_ns()
                check(target, home, home, still)
                took_ns[k] = time.perf_counter_ns() - before_ns
            found[f"filter_{name}_{case}_p50_us"] = float(np.median(took_ns)) * 1e-3
    return found


def compare(
    artifact: str,
    *,
    rate_hz: float,
    seconds: float,
    repeats: int,
    modes: tuple[str, ...] = MODES,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Cost]:
    """Medians over interleaved runs, one process each.

    Raises:
        BenchError: A process ended without a figure; its last words are in the message.
    """
    costs: dict[str, list[Cost]] = {mode: [] for mode in modes}
    for k in range(repeats):
        for mode in modes:
            progress(f"round {k + 1} of {repeats}: {mode}")
            command = [sys.executable, "-m", "robot.onboard.bench", artifact, mode, repr(rate_hz), repr(seconds)]
            done = subprocess.run(command, capture_output=True, timeout=seconds + 120.0, check=False)
            if done.returncode != 0:
                raise BenchError(f"measuring {mode} failed:\n{done.stderr[-1000:].decode(errors='replace')}")
            costs[mode].append(msgspec.json.decode(done.stdout, type=Cost))
    names = ("p50_us", "p99_us", "p999_us", "cpu_share")
    return [
        Cost(mode=mode, **{name: float(np.median([getattr(c, name) for c in found])) for name in names})
        for mode, found in costs.items()
    ]


def main() -> None:
    artifact, mode, rate_hz, seconds = sys.argv[1:]
    cost = measure(load(artifact), mode, rate_hz=float(rate_hz), seconds=float(seconds))
    sys.stdout.buffer.write(msgspec.json.encode(cost))


if __name__ == "__main__":
    main()
