"""card.md: what an artifact is, how it came about, what it can do, and the commands that repeat it."""

from collections.abc import Mapping
from typing import Any

from policies.artifact import PolicyFile
from policies.evaluate import kinds_line
from robot.contract import Contract

NOT_MEASURED = "Not measured yet: `flexor eval {label} --baselines`."
DRAFT = "A draft: `flexor export RUN --release` has not measured it on both engines."
TRAINING_ROWS = ("env", "engine", "seed", "steps", "learner", "commit", "machine", "wall_s", "run")


def _interval(mean: float | None, ci95: Any, percent: bool = False) -> str:
    if mean is None:
        return "-"
    if percent:
        text = f"{100.0 * mean:.1f} %"
        return text if ci95 is None else f"{text} [{100.0 * ci95[0]:.1f}, {100.0 * ci95[1]:.1f}]"
    text = f"{mean:.4g}"
    return text if ci95 is None else f"{text} [{ci95[0]:.4g}, {ci95[1]:.4g}]"


def _cell(figure: Mapping[str, Any] | None) -> str:
    return _interval(figure["mean"], figure["ci95"]) if figure else "-"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, tuple("---" for _ in head), *rows)]


def _contract_lines(contract: Contract) -> list[str]:
    action = contract.action
    rows = [
        (term.name, str(term.size), term.unit, term.frame, f"{min(term.low):.4g} to {max(term.high):.4g}")
        for term in contract.observation
    ]
    scales = sorted({round(scale, 4) for scale in action.scale_rad})
    scale = f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} to {scales[-1]:g}"
    return [
        *_table(("observation", "elements", "unit", "frame", "clipped to"), rows),
        "",
        f"Actions: {action.size} joints, {action.mode}, {scale} rad per unit, {contract.control_hz:g} Hz. "
        f"Goal: {', '.join(contract.goal) or 'none'}{f' [{contract.goal_unit}]' if contract.goal_unit else ''}.",
    ]


def _level(result: Mapping[str, Any]) -> str:
    level = result.get("level")
    return f'; level "{level}", an easier form of the task' if level else ""


def result_rows(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row per result: label, engine, n, success, return, metrics, energy, heat, smoothness."""
    rows = []
    for label, result in results.items():
        metrics = result.get("metrics") or {}
        cells = [f"{name} {_interval(value['mean'], value['ci95'])}" for name, value in sorted(metrics.items())]
        rows.append(
            (
                label,
                str(result.get("engine", "-")),
                str(result.get("episodes", "-")),
                _interval(result.get("success"), result.get("success_ci95"), percent=True),
                _interval(result.get("return_mean"), result.get("return_ci95")),
                "; ".join(cells) or "-",
                *(_cell(result.get(name)) for name in ("energy_j", "heat_j", "action_change")),
            )
        )
    return rows


def render(
    policy: PolicyFile,
    label: str,
    parity: str,
    results: Mapping[str, Mapping[str, Any]] | None,
    machine: str | None = None,
    release: str | None = None,
) -> str:
    """The text of card.md.

    Args:
        policy: The exported file; everything about training is read from its own metadata.
        label: `name/version`.
        parity: One sentence about the export gate.
        results: label -> `EvalResult.as_dict()`, in the order of the rows; None when nothing was measured.
        machine: Where the results were measured.
        release: What the release gate said; None where it has not been asked.
    """
    training, contract = policy.training, policy.contract
    rows = [(key, str(training[key])) for key in TRAINING_ROWS if key in training]
    rows += [
        (key, str(value)) for key, value in sorted(training.items()) if key not in TRAINING_ROWS and key != "command"
    ]
    engine, seed = training.get("engine", "pybullet"), training.get("seed", 0)
    train = training.get("command", f"flexor train {contract.env_id} --engine {engine} --seed {seed}")
    lines = [
        f"# {label}",
        "",
        f"A policy for `{contract.env_id}` on `{contract.robot}`: {contract.observation_size} observations, "
        f"{contract.action_size} actions. Contract `{contract.sha256[:16]}`.",
        "",
        "## How it was trained",
        "",
        *_table(("what", "value"), rows),
        "",
        "## Release",
        "",
        release or DRAFT,
        "",
        "## Results",
        "",
    ]
    if results:
        head = (
            "policy",
            "engine",
            "n",
            "success [95 %]",
            "return [95 %]",
            "at episode end [95 %]",
            "energy [J]",
            "heat [J]",
            "action change",
        )
        first = next(iter(results.values()))
        lines += [
            *_table(head, result_rows(results)),
            "",
            "Mean and 95 % confidence interval over episodes: Wilson for success, Student's t for the rest. The same seeds for "
            f"every row, from {first.get('seed', 0)}; randomisation {'on' if first.get('randomization', True) else 'off'}"
            f"{_level(first)}.",
        ]
        lines += [f"Measured on: {machine}."] if machine else []
        for row, result in results.items():
            if result.get("kinds"):
                lines += ["", f"{row}: {kinds_line(result['kinds'])}."]
    else:
        lines += [NOT_MEASURED.format(label=label)]
    lines += [
        "",
        "## What it expects",
        "",
        *_contract_lines(contract),
        "",
        "## Checked at export",
        "",
        parity,
        "",
        "## Again",
        "",
        "```sh",
        train,
        "flexor export RUN",
        f"flexor eval {label} --engine {engine} --baselines",
        "```",
        "",
    ]
    return "\n".join(lines)
