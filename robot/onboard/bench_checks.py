"""Figures that are not times at a rate: parity over recurrent steps, the filter, fuzzed actions, seeded faults, fault to DAMPING."""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from robot import safety
from robot.artifacts import OBSERVATION, STATE_IN, STATE_OUT
from robot.description import load as load_robot
from robot.errors import NotFiniteError
from robot.mock import MockReach
from robot.onboard.artifact import Artifact
from robot.onboard.filter import TargetFilter, make_filter
from robot.onboard.inference import BACKENDS, make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.operators import evaluate
from robot.onboard.robots import Direct
from robot.reaching import reach_contract
from robot.safety import Filter, Limits, Mode
from robot.state import Command, RobotState

FILTER_JOINTS = 29
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
    """A mock hand that fails in a chosen period."""

    def __init__(self, at: int, spoil: dict[str, Any]) -> None:
        hand = load_robot("hand22")
        super().__init__(MockReach(hand, 50.0, episode_s=1e6))
        self.at, self.spoil, self.sent = at, spoil, 0

    def send(self, command: Command) -> None:
        super().send(command)
        self.sent += 1

    def receive(self) -> RobotState:
        state = super().receive()
        return replace(state, **self.spoil) if self.sent >= self.at else state


class _Policy:
    """Does nothing, and says NaN, or fails, from some call on."""

    name = "test"

    def __init__(self, actions: int, wrong_from: int, *, fails: bool) -> None:
        self._actions, self._wrong_from, self._fails, self.calls = actions, wrong_from, fails, 0

    def reset(self) -> None: ...

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        wrong = self.calls >= self._wrong_from
        if wrong and self._fails:
            raise RuntimeError("meant to fail")
        value = np.nan if wrong else 0.0
        return np.full(self._actions, value, dtype=np.float32), np.zeros(self._actions)


WARM_UP = 100  # calls of the policy before the loop's first period


def periods_to_damping(at: int = 10) -> dict[str, int]:
    """For each kind of fault, in which period after the one that met it the controller damps; 1 is the next."""
    hand = load_robot("hand22")
    contract = reach_contract(hand, control_hz=50.0)
    far = safety.Strangeness(
        mean=np.full(contract.observation_size, 99.0), std=np.ones(contract.observation_size), ticks=at
    )
    spoilt = {
        safety.Fault.OBSERVATION: {"q_rad": np.full(len(hand.joints), np.nan)},
        safety.Fault.STALE: {"time_s": at / 50.0},
    }
    found = {}
    for fault in safety.Fault:
        robot = _Faulty(at, spoilt.get(fault, {}))
        modes: list[Mode] = []
        loop = ControlLoop(
            robot,
            contract.bind(hand),
            _Policy(
                contract.action_size,
                WARM_UP + at if fault in (safety.Fault.ACTION, safety.Fault.INFERENCE) else 10**9,
                fails=fault is safety.Fault.INFERENCE,
            ),
            rng=np.random.default_rng(0),
            config=LoopConfig(seconds=1.0),
            strangeness=far if fault is safety.Fault.STRANGE else None,
            estop=lambda robot=robot, fault=fault: fault is safety.Fault.ESTOP and robot.sent >= at,
            should_stop=lambda: modes.append(loop.mode) is not None,  # noqa: B023
            clock=_Steps(),
        )
        report = loop.run()
        modes.append(loop.mode)
        met = next(k for k, mode in enumerate(modes) if k > 0 and mode is not Mode.POLICY)
        if report.fault is not fault:
            raise AssertionError(f"meant {fault}, the loop met {report.fault}")
        found[fault.name.lower()] = next(k for k, mode in enumerate(modes) if mode is Mode.DAMPING) - met
    return found
