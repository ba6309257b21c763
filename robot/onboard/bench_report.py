"""Everything `flexor bench onboard` measures, as one record, as data, and as a table that says which targets are met."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from robot.onboard import bench
from robot.onboard.bench import OURS, SLEEP, Cost, compare, with_sleeper
from robot.onboard.bench_checks import filter_cost, fuzz_here, parity, periods_to_damping
from robot.onboard.bench_faults import EXPECTED, seeded_faults
from robot.onboard.bench_nets import NETS, bench_net
from robot.onboard.tables import table

TAIL_RATES_HZ = (50.0, 500.0)
CPU_SHARE, CPU_RATIO, P50_RATIO, TAIL_RATIO = 0.01, 50.0, 3.0, 5.0  # issue 5
PARITY, FILTER_US, DAMPING_PERIODS = 1e-5, 10.0, 2
Costs = dict[str, dict[str, Cost]]  # by network, by mode


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One whole run of the benchmark.

    Attributes:
        costs: At `rate_hz`.
        tails: The loop, long, by network and rate.
        sleepers: What a process that only sleeps until each deadline saw at the same time: the machine's own lateness.
        parity: By network and backend.
        faults: By seeded fault, the refusal it met, "" where it was admitted; "no fault" is the control.
    """

    rate_hz: float
    repeats: int
    costs: Costs
    tails: dict[tuple[str, float], Cost]
    sleepers: dict[tuple[str, float], Cost]
    parity: dict[str, dict[str, float]]
    filter_us: dict[str, float]
    fuzz: dict[str, int]
    faults: dict[str, str]
    damping: dict[str, dict[str, int]]


def measure_all(
    *,
    rate_hz: float,
    seconds: float,
    repeats: int,
    peers: bool,
    tail_s: float,
    fuzz: int,
    progress: Callable[[str], None],
) -> Measured:
    """All of it. `tail_s` is the length of each of the four long runs [s]."""
    costs = {
        net: compare(
            net,
            rate_hz=rate_hz,
            seconds=seconds,
            repeats=repeats,
            modes=(*OURS, SLEEP, *(bench.peers(net) if peers else ())),
            progress=progress,
        )
        for net in NETS
    }
    tails, sleepers = {}, {}
    for k, (net, rate) in enumerate((net, rate) for rate in TAIL_RATES_HZ for net in NETS):
        left_s = (len(NETS) * len(TAIL_RATES_HZ) - k) * tail_s
        progress(f"tail of {net} at {rate:g} Hz, {tail_s:.0f} s; {left_s:.0f} s left")
        tail, sleepers[net, rate] = with_sleeper(net, rate, tail_s)
        tails[net, rate] = tail
        progress(
            f"  p50 {tail.p50_us:.0f}, p99.9 {tail.p999_us:.0f} us, missed {tail.missed} of {tail.deadlines}{_ended(tail)}"
        )
    progress("parity over 1000 recurrent steps, safety filter, seeded faults")
    return Measured(
        rate_hz=rate_hz,
        repeats=repeats,
        costs=costs,
        tails=tails,
        sleepers=sleepers,
        parity={net: parity(bench_net(net)) for net in NETS},
        filter_us=filter_cost(),
        fuzz=fuzz_here(fuzz),
        faults={name: type(error).__name__ if (error := ask()) else "" for name, ask in seeded_faults().items()},
        damping=periods_to_damping(),
    )


def _ended(cost: Cost) -> str:
    return f"; ended there: {cost.fault}" if cost.fault else ""


def rows(m: Measured) -> list[tuple[str, str, str, bool | None]]:
    """Figure, target, what was seen, and whether it is met; None where it cannot be said without peers."""
    found: list[tuple[str, str, str, bool | None]] = []
    for net, costs in m.costs.items():
        loop, c = costs["loop"], costs["c"]
        share = 100.0 * loop.cpu_share
        found.append(
            (
                f"{net}: CPU of the whole loop, {m.rate_hz:g} Hz",
                "1 % of a core",
                f"{share:.2f} %",
                loop.cpu_share <= CPU_SHARE,
            )
        )
        if "default" in costs:
            ratio = costs["default"].cpu_share / loop.cpu_share
            floor = costs["default"].cpu_share / costs[SLEEP].cpu_share
            found.append(
                (
                    f"{net}: CPU against InferenceSession(path)",
                    "50 times less",
                    f"{ratio:.0f} times; waking up alone, by C, {floor:.0f} times",
                    ratio >= CPU_RATIO,
                )
            )
            ratio = costs["tuned"].p50_us / c.p50_us
            found.append(
                (f"{net}: p50 against tuned session.run", "3 times lower", f"{ratio:.1f} times", ratio >= P50_RATIO)
            )
    for (net, rate), tail in m.tails.items():
        ratio = tail.p999_us / tail.p50_us
        own = tail.missed - tail.missed_by_robot - tail.missed_by_system
        bare = m.sleepers[net, rate]
        missed = (
            f"{tail.missed} of {tail.deadlines}: {own} decided too late, {tail.missed_by_robot} answered too late by the robot, "
            f"{tail.missed_by_system} woken too late by the system; a bare sleep misses {bare.missed}{_ended(tail)}"
        )
        found.append(
            (
                f"{net}: p99.9 of the loop, {rate:g} Hz",
                "5 times p50",
                f"{ratio:.1f} times ({tail.p999_us:.0f} us; a bare sleep is {bare.p999_us:.0f} us late)",
                ratio <= TAIL_RATIO,
            )
        )
        found.append((f"{net}: missed deadlines, {rate:g} Hz", "0", missed, tail.missed == 0 and not tail.fault))
    for net, apart in m.parity.items():
        worst = max(apart, key=apart.__getitem__)
        found.append(
            (f"{net}: parity after 1000 steps", "1e-5", f"{apart[worst]:.1g} ({worst})", apart[worst] <= PARITY)
        )
    for name, us in m.filter_us.items():
        target = us <= FILTER_US if name.startswith("here") else None
        found.append(
            (f"filter, 29 joints: {name.replace('_', ' ').removesuffix(' p50 us')}", "10 us", f"{us:.1f} us", target)
        )
    broken = m.fuzz["violations"]
    found.append(("filter: limits broken", "0", f"{broken} in {m.fuzz['actions']:,} actions", broken == 0))
    seeded = {name: refusal for name, refusal in m.faults.items() if name != "no fault"}
    caught = sum(refusal == EXPECTED[name] for name, refusal in seeded.items())
    found.append(
        (
            "seeded faults refused",
            "all",
            f"{caught} of {len(seeded)}",
            caught == len(seeded) and not m.faults["no fault"],
        )
    )
    for loop, periods in m.damping.items():
        slowest = max(periods.values())
        found.append((f"fault to DAMPING, {loop}", "2 periods", f"{slowest} at most", slowest <= DAMPING_PERIODS))
    return found


def costs_table(costs: Costs, rate_hz: float) -> str:
    """Costs of a decision, cheapest first."""
    lines = [
        (net, c.mode, f"{c.p50_us:.0f}", f"{c.p99_us:.0f}", f"{c.p999_us:.0f}", f"{100.0 * c.cpu_share:.2f}")
        for net, modes in costs.items()
        for c in sorted(modes.values(), key=lambda c: c.cpu_share)
    ]
    return table((f"at {rate_hz:g} Hz", "mode", "p50 [us]", "p99 [us]", "p99.9 [us]", "CPU [% of a core]"), lines)


def text(m: Measured) -> str:
    """For people."""
    says = {True: "met", False: "NOT met", None: "-"}
    claims = table(("figure", "target", "seen", ""), [(a, b, c, says[met]) for a, b, c, met in rows(m)])
    refused = sorted({line for tail in m.tails.values() for line in tail.refused})
    faults = table(
        ("seeded fault", "refused as"), [(name, refusal or "admitted") for name, refusal in m.faults.items()]
    )
    parts = [costs_table(m.costs, m.rate_hz), claims, faults]
    if refused:
        parts.append(f"the operating system refused: {'; '.join(refused)}")
    return "\n\n".join(parts)


def costs_figures(costs: Costs, rate_hz: float, repeats: int) -> dict[str, Any]:
    """As data."""
    modes = {net: {mode: msgspec.to_builtins(cost) for mode, cost in found.items()} for net, found in costs.items()}
    return {"rate_hz": rate_hz, "repeats": repeats, **modes}


def figures(m: Measured) -> dict[str, Any]:
    """As data."""
    return {
        **costs_figures(m.costs, m.rate_hz, m.repeats),
        "tails": {f"{net}_{rate:g}_hz": msgspec.to_builtins(cost) for (net, rate), cost in m.tails.items()},
        "sleepers": {f"{net}_{rate:g}_hz": msgspec.to_builtins(cost) for (net, rate), cost in m.sleepers.items()},
        "parity_1000_steps": m.parity,
        "filter_29_joints": m.filter_us,
        "fuzz": m.fuzz,
        "seeded_faults": m.faults,
        "periods_to_damping": m.damping,
        "claims": [{"figure": a, "target": b, "seen": c, "met": met} for a, b, c, met in rows(m)],
    }
