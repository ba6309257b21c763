"""Trying a policy before it may move anything: golden vectors, joint targets, random observations, time.

Runs native code on a file from elsewhere, so it is called in a process of its own (`robot.onboard.judge`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot.artifacts import ACTIONS, GOLDEN_FILE, JOINT_TARGETS, OBSERVATION
from robot.contract import Contract
from robot.onboard.artifact import Arrays, Artifact
from robot.onboard.operators import evaluate
from robot.onboard.ort import available, session
from robot.onboard.refusals import (
    GoldenMismatchError,
    GraphInterfaceError,
    JointTargetsError,
    MissingGoldenError,
    OutputError,
    TooSlowError,
)

GOLDEN_TOLERANCE = 1e-5  # the export gate's own, relative above one; other machines' kernels round differently by less
TARGET_TOLERANCE_RAD = 1e-5  # float32 against float64 at +-3 rad
MIN_GOLDEN = 4  # fewer samples cannot tell a policy from a constant
RANDOM_SAMPLES = 64
WILD = 10.0  # half-range of a random observation whose term has no limits
TIMED_CALLS = 200
MAX_PERIOD_SHARE = 0.5  # of the control period, for the median call


def expected_targets(contract: Contract, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """What the contract makes of mean actions, as `Interface.command` does, shape (n, n_actions) [rad].

    Args:
        observation: shape (n, observation_size).
        action: shape (n, n_actions).

    Raises:
        JointTargetsError: Relative actions, and the target they add to is not observed.
    """
    term = contract.action
    moved = np.asarray(term.scale_rad) * np.clip(action.astype(np.float64), -1.0, 1.0)
    if term.mode == "absolute":
        return np.clip(moved + np.asarray(term.offset_rad), term.lower_rad, term.upper_rad)
    base = next((t for t in contract.observation if t.name == "joint_target"), None)
    if base is None or set(term.joints) - set(base.elements):
        raise JointTargetsError(
            "actions are relative, so the contract must observe joint_target of every joint it moves"
        )
    start = contract.slices[base.name].start
    at = [start + base.elements.index(joint) for joint in term.joints]
    return np.clip(moved + observation[:, at].astype(np.float64), term.lower_rad, term.upper_rad)


def random_observations(contract: Contract, n: int, rng: np.random.Generator) -> np.ndarray:
    """Observations from the ranges the policy was made for, the two extremes first, shape (n, observation_size)."""
    low = np.where(np.isfinite(contract.observation_low), contract.observation_low, -WILD)
    high = np.where(np.isfinite(contract.observation_high), contract.observation_high, WILD)
    drawn = rng.uniform(low, high, (max(n - 2, 0), len(low)))
    return np.concatenate([low[None], high[None], drawn]).astype(np.float32)


def _worst(name: str, seen: np.ndarray, expected: np.ndarray) -> tuple[float, str]:
    """The largest difference, relative to values above one, and where it is."""
    difference = np.abs(seen.astype(np.float64) - expected) / np.maximum(np.abs(expected), 1.0)
    difference[~np.isfinite(difference)] = np.inf
    row, column = np.unravel_index(int(np.argmax(difference)), difference.shape)
    text = f"{name}[{column}] of sample {row}: expected {expected[row, column]:.7g}, got {seen[row, column]:.7g}"
    return float(difference[row, column]), text


def _check_targets(contract: Contract, observation: np.ndarray, out: Arrays) -> float:
    expected = expected_targets(contract, observation, out[ACTIONS])
    worst, text = _worst(JOINT_TARGETS, out[JOINT_TARGETS], expected)
    if not worst <= TARGET_TOLERANCE_RAD:
        joint = contract.action.joints[int(text.partition("[")[2].partition("]")[0])]
        raise JointTargetsError(
            f"the graph's joint targets are not what the contract makes of its actions; joints swapped or another scale.\n"
            f"  joint {joint!r}, {text} rad"
        )
    return worst


Runner = Callable[[Arrays], list[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A reader of the file that may run here: itself, one sample a call, and the inputs and outputs it sees."""

    name: str
    run: Runner
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def readings(artifact: Artifact) -> list[Reading]:
    """Ours, which numpy and the generated C follow, and onnxruntime's where it is installed: each must give the golden answers."""
    file = artifact.file
    inputs, outputs = (tuple(port.name for port in ports) for ports in (file.inputs, file.outputs))

    def by_the_table(rows: Arrays) -> list[np.ndarray]:
        with np.errstate(all="ignore"):  # what comes out is judged
            values = evaluate(file, rows)
        return [values[name] for name in outputs]

    found = [Reading(name="our own reading", run=by_the_table, inputs=inputs, outputs=outputs)]
    if available():
        run = session(artifact.onnx)
        theirs = tuple(port.name for port in run.get_outputs())
        found.append(
            Reading(
                name="onnxruntime",
                run=lambda rows: run.run(theirs, rows),
                inputs=tuple(port.name for port in run.get_inputs()),
                outputs=theirs,
            )
        )
    return found


def rehearse(artifact: Artifact, *, period_s: float, rng: np.random.Generator) -> dict[str, float]:
    """Run the policy by every reader of the file there is here, and hold it against its golden vectors, its contract and the
    clock: the last one of onnxruntime where it is installed.

    Args:
        artifact: What to try.
        period_s: Control period [s].
        rng: Source of the random observations.

    Returns:
        What was seen: largest differences, samples, median time of a call [us].

    Raises:
        AdmissionError: Its class says what was wrong.
    """
    worst_golden = worst_target = 0.0
    found = readings(artifact)
    for reading in found:
        golden_difference, target_difference = _rehearse(artifact, reading, rng)
        worst_golden, worst_target = max(worst_golden, golden_difference), max(worst_target, target_difference)
    median_s = _median_s(artifact, found[-1].run)
    if median_s > MAX_PERIOD_SHARE * period_s:
        raise TooSlowError(
            f"a decision takes {median_s * 1e3:.1f} ms here; at most {MAX_PERIOD_SHARE:.0%} of the period of {period_s * 1e3:.1f} ms"
        )
    return {
        "golden_samples": len(artifact.golden[OBSERVATION]),
        "golden_max_difference": worst_golden,
        "target_max_difference_rad": worst_target,
        "median_call_us": median_s * 1e6,
    }


def _rehearse(artifact: Artifact, reading: Reading, rng: np.random.Generator) -> tuple[float, float]:
    """The largest differences of one reading from the golden vectors, and of its joint targets from the contract's."""
    run, inputs, outputs = reading.run, reading.inputs, reading.outputs
    missing = sorted({p.name for p in artifact.file.inputs} ^ set(inputs) | {ACTIONS, JOINT_TARGETS} - set(outputs))
    if missing:
        raise GraphInterfaceError(
            f"onnxruntime and our own reading disagree on inputs or outputs: {', '.join(missing)}"
        )

    def call(rows: Arrays) -> Arrays:
        n = len(rows[OBSERVATION])
        results = [run({name: rows[name][i : i + 1] for name in inputs}) for i in range(n)]
        return {name: np.concatenate([np.asarray(result[k]) for result in results]) for k, name in enumerate(outputs)}

    contract, golden = artifact.contract, artifact.golden
    rows = {p.name: _golden_rows(golden, p.name, p.shape[1]) for p in artifact.file.inputs}
    if len({len(array) for array in rows.values()}) != 1 or len(rows[OBSERVATION]) < MIN_GOLDEN:
        raise MissingGoldenError(f"{GOLDEN_FILE} needs at least {MIN_GOLDEN} samples of every input")
    out = call(rows)
    worst_golden = 0.0
    for port in artifact.file.outputs:
        expected = _golden_rows(golden, port.name, port.shape[1])
        if len(expected) != len(rows[OBSERVATION]):
            raise MissingGoldenError(
                f"{GOLDEN_FILE}: {port.name} has {len(expected)} samples, obs {len(rows[OBSERVATION])}"
            )
        worst, text = _worst(port.name, out[port.name], expected)
        if not worst <= GOLDEN_TOLERANCE:
            raise GoldenMismatchError(
                f"by {reading.name} the graph does not give what it gave when it was exported, off by {worst:.3g} (at most {GOLDEN_TOLERANCE:g}).\n"
                f"  {text}"
            )
        worst_golden = max(worst_golden, worst)
    worst_target = _check_targets(contract, rows[OBSERVATION], out)

    wild = {p.name: np.zeros((RANDOM_SAMPLES, p.shape[1]), dtype=np.float32) for p in artifact.file.inputs}
    wild[OBSERVATION] = random_observations(contract, RANDOM_SAMPLES, rng)
    out = call(wild)
    for name in outputs:
        if not np.isfinite(out[name]).all():
            raise OutputError(f"output {name!r} is not finite for an observation within the contract's ranges")
    lower, upper = np.array(contract.action.lower_rad), np.array(contract.action.upper_rad)
    beyond = np.maximum(out[JOINT_TARGETS] - upper, lower - out[JOINT_TARGETS]).max()
    if beyond > TARGET_TOLERANCE_RAD:
        raise OutputError(f"joint targets leave the contract's limits by {beyond:.3g} rad")
    return worst_golden, max(worst_target, _check_targets(contract, wild[OBSERVATION], out))


def _median_s(artifact: Artifact, run: Runner) -> float:
    one = {p.name: _golden_rows(artifact.golden, p.name, p.shape[1])[:1] for p in artifact.file.inputs}
    times_s = np.empty(TIMED_CALLS)
    for i in range(TIMED_CALLS):
        start = time.perf_counter()
        run(one)
        times_s[i] = time.perf_counter() - start
    return float(np.median(times_s))


def _golden_rows(golden: Arrays, name: str, width: int) -> np.ndarray:
    array = golden.get(name)
    if array is None:
        raise MissingGoldenError(f"{GOLDEN_FILE} has no array {name!r}; it has {', '.join(sorted(golden)) or 'none'}")
    if array.dtype != np.float32:
        raise MissingGoldenError(f"{GOLDEN_FILE}: {name!r} must be float32, got {array.dtype}")
    if array.shape != (len(array), width) and array.shape != (len(array), 1, width):
        raise MissingGoldenError(f"{GOLDEN_FILE}: {name!r} must have shape (samples, {width}), got {array.shape}")
    return np.ascontiguousarray(array.reshape(len(array), width))
