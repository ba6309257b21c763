"""Figures that are not times at a rate: parity over recurrent steps, the filter, fuzzed actions, seeded faults, fault to DAMPING."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from robot import safety
from robot.artifacts import OBSERVATION, STATE_IN, STATE_OUT
from robot.contract import Contract
from robot.description import load as load_robot
from robot.description.model import RobotModel
from robot.errors import NotFiniteError
from robot.mock import MockIdle
from robot.onboard.artifact import Artifact
from robot.onboard.bench_nets import ENV_ID, JOINTS, bench_net
from robot.onboard.compiled import CompiledInference, CompilerError
from robot.onboard.filter import TargetFilter, make_filter
from robot.onboard.inference import BACKENDS, make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.operators import evaluate
from robot.onboard.robots import Direct
from robot.safety import Fault, Filter, Limits, Mode
from robot.state import Command, RobotState

FILTER_JOINTS = 29
RATE_HZ = 50.0
SPECIALS = (np.nan, np.inf, -np.inf, 5e-324, -5e-324, 1e308, -1e308, 0.0, -0.0)
ROUNDING = 1e-12  # a bound that was computed once here and once there


def parity(artifact: Artifact, steps: int = 1000, seed: int = 0) -> dict[str, float]:
    """Largest difference of each backend from the graph in float64, relative above one, its own state carried through all steps."""
    rng = np.random.default_rng(seed)
    contract = artifact.contract
    low, high = contract.observation_low, contract.observation_high
    rows = (0.5 * rng.uniform(low, high, (steps, contract.observation_size))).astype(np.float32)
    exact = replace(
        artifact.file,
        constants={k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in artifact.file.constants.items()},
    )
    policies = {name: make_inference(artifact, name) for name in BACKENDS}
    state = {p.name: np.zeros(p.shape) for p in artifact.file.inputs if p.name == STATE_IN}
    worst = dict.fromkeys(policies, 0.0)
    for row in rows:
        expected = evaluate(exact, {OBSERVATION: row[None].astype(np.float64), **state})
        state = {name: expected[STATE_OUT] for name in state}
        want = expected["actions"][0]
        for name, policy in policies.items():
            apart = np.abs(policy.act(row)[0] - want) / np.maximum(np.abs(want), 1.0)
            worst[name] = max(worst[name], float(apart.max()))
    return worst


def filter_limits(joints: int = FILTER_JOINTS) -> tuple[Limits, np.ndarray]:
    """Limits of so many joints like those of hand22 at 50 Hz, and their home posture."""
    hand = load_robot("hand22")
    limits = Limits.of(hand, 0.02)
    wide = {name: np.resize(value, joints) for name, value in vars(limits).items() if isinstance(value, np.ndarray)}
    names = tuple(f"joint_{i}" for i in range(joints))
    return replace(limits, joint_names=names, **wide), np.resize(hand.home_rad, joints)


def filter_cost(calls: int = 2000) -> dict[str, float]:
    """Median time of the safety filter for 29 joints, with nothing to change and with every joint to change [us].

    "here" is the one that the loop takes on this machine; "numpy" the one where there is no compiler.
    """
    limits, home = filter_limits()
    still = np.zeros(FILTER_JOINTS)
    found = {}
    for name, check in (("here", make_filter(limits)), ("numpy", Filter(limits))):
        for case, target in (("unchanged", home + 1e-3), ("changed", home + 5.0)):
            took_ns = np.zeros(calls, dtype=np.int64)
            for k in range(calls):
                before_ns = time.perf_counter_ns()
                check(target, home, home, still)
                took_ns[k] = time.perf_counter_ns() - before_ns
            found[f"{name}_{case}_p50_us"] = float(np.median(took_ns)) * 1e-3
    return found


def fuzzed(limits: Limits, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Targets of all magnitudes with NaN, infinities and denormals among them, and joints nearly anywhere: target, last, q, qd."""
    n = len(limits.joint_names)
    target = rng.normal(0.0, 1.0, (rows, n)) * 10.0 ** rng.integers(-3, 4, (rows, 1))
    odd = rng.random((rows, n)) < 2e-3
    target[odd] = rng.choice(SPECIALS, int(odd.sum()))
    previous = rng.uniform(limits.lower_rad, limits.upper_rad, (rows, n))
    return target, previous, previous + rng.normal(0.0, 0.3, (rows, n)), rng.normal(0.0, 8.0, (rows, n))


def violations(limits: Limits, sent: np.ndarray, previous: np.ndarray) -> int:
    """Joint targets that no rule allows whatever the joints do: not finite, or outside the range.

    Targets in range also stay within one step of the last one unless torque or barrier pull them to where the joint is; those
    have tests of their own (tests/test_safety.py).
    """
    wrong = ~np.isfinite(sent)
    wrong |= (sent < limits.lower_rad - ROUNDING) | (sent > limits.upper_rad + ROUNDING)
    return int(wrong.sum())


def fuzz(actions: int, check: TargetFilter, seed: int = 0, block: int = 10_000) -> dict[str, int]:
    """Filter random actions one by one: how many, how many refused, how many joint targets beyond a limit."""
    rng, limits = np.random.default_rng(seed), check.limits
    refused = broken = done = 0
    sent = np.empty((block, len(limits.joint_names)))
    while done < actions:
        target, previous, q, qd = fuzzed(limits, block, rng)
        for k in range(block):
            try:
                sent[k] = check(target[k], previous[k], q[k], qd[k]).target_rad
            except NotFiniteError:
                sent[k] = previous[k]  # as the loop does: it holds
                refused += 1
        broken += violations(limits, sent, previous)
        done += block
    return {"actions": done, "refused": refused, "violations": broken}


def fuzz_here(actions: int = 1_000_000) -> dict[str, int]:
    """`fuzz` of the filter that the loop takes here."""
    return fuzz(actions, make_filter(filter_limits()[0]))


class _Steps:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def sleep_until(self, deadline_ns: int) -> None:
        self.ns = max(self.ns, deadline_ns)

    def cpu_s(self) -> float:
        return 0.0


class _Faulty(Direct):
    """A robot at rest that fails in a chosen period.

    Args:
        model: Which.
        at: From the answer to so many commands on.
        spoil: What its state says then.
        then: Called with that command.
    """

    def __init__(self, model: RobotModel, at: int, spoil: dict[str, Any], then: Callable[[], None]) -> None:
        super().__init__(MockIdle(model, RATE_HZ, ENV_ID))
        self.at, self.spoil, self.then, self.sent = at, spoil, then, 0

    def send(self, command: Command) -> None:
        super().send(command)
        self.sent += 1
        if self.sent == self.at:
            self.then()

    def receive(self) -> RobotState:
        state = super().receive()
        return replace(state, **self.spoil) if self.sent >= self.at else state


class _Policy:
    """Does nothing until it is spoilt; then it says NaN, or fails."""

    name = "test"

    def __init__(self, actions: int, *, fails: bool) -> None:
        self._actions, self._fails, self._spoilt = np.zeros(actions, dtype=np.float32), fails, False

    def reset(self) -> None: ...

    def spoil(self) -> None:
        self._spoilt = True
        self._actions.fill(np.nan)

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._spoilt and self._fails:
            raise RuntimeError("meant to fail")
        return self._actions.copy(), np.zeros(len(self._actions))


class _Compiled(CompiledInference):
    """Generated C whose weights can be spoilt."""

    def spoil(self) -> None:
        self._weights.fill(np.nan)


def periods_to_damping(at: int = 10) -> dict[str, dict[str, int]]:
    """For each kind of fault, in which period after the one that met it the controller damps; 1 is the next.

    "python" is the loop in Python, on a clock that moves only when somebody sleeps; "compiled" the compiled period, in real time, and
    missing where there is no compiler. A compiled network cannot fail in another way than by what it says.
    """
    artifact = bench_net("mlp", RATE_HZ)
    found = {
        "python": {
            fault.name.lower(): _periods_to_damping(
                fault, at, artifact.contract, _Policy(JOINTS, fails=fault is Fault.INFERENCE), clock=_Steps()
            )
            for fault in Fault
        }
    }
    with suppress(CompilerError):
        found["compiled"] = {
            fault.name.lower(): _periods_to_damping(fault, at, artifact.contract, _Compiled(artifact), clock=None)
            for fault in Fault
            if fault is not Fault.INFERENCE
        }
    return found


def _periods_to_damping(
    fault: Fault, at: int, contract: Contract, policy: "_Policy | _Compiled", clock: _Steps | None
) -> int:
    model = load_robot(contract.robot)
    spoilt = {Fault.OBSERVATION: {"q_rad": np.full(len(model.joints), np.nan)}, Fault.STALE: {"time_s": at / RATE_HZ}}
    by_policy = fault in (Fault.ACTION, Fault.INFERENCE)
    robot = _Faulty(model, at, spoilt.get(fault, {}), policy.spoil if by_policy else lambda: None)
    n = contract.observation_size
    far = safety.Strangeness(mean=np.full(n, 99.0), std=np.ones(n), ticks=at)
    seen: list[tuple[Fault | None, Mode]] = []
    loop = ControlLoop(
        robot,
        contract.bind(model),
        policy,
        rng=np.random.default_rng(0),
        config=LoopConfig(seconds=1.0),
        strangeness=far if fault is Fault.STRANGE else None,
        estop=lambda: fault is Fault.ESTOP and robot.sent >= at,
        should_stop=lambda: seen.append((loop.fault, loop.mode)) is not None,
        clock=clock,
    )
    if loop.compiled is not (clock is None):
        raise CompilerError("the compiled period cannot be had here")
    report = loop.run()
    seen.append((loop.fault, loop.mode))
    if report.fault is not fault:
        raise AssertionError(f"meant {fault}, the loop met {report.fault}")
    met = next(k for k, (said, _) in enumerate(seen) if said is not None)
    return next(k for k, (_, mode) in enumerate(seen) if mode is Mode.DAMPING) - met
