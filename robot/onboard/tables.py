"""What the subcommands print, as text and as data."""

import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from robot.contract import Contract
from robot.description.model import RobotModel
from robot.energy import joules
from robot.onboard.admission import Admission
from robot.onboard.artifact import Artifact
from robot.onboard.foreign import Foreign
from robot.onboard.inference import NumpyInference
from robot.onboard.measures import not_on_a_bus, source_of
from robot.onboard.rehearsal import random_observations
from robot.onboard.start import FORBIDDEN, Run, multiply_adds

Row = tuple[object, ...]
DIFF_SAMPLES = 256


def table(header: Row, rows: Iterable[Row]) -> str:
    """Rows under a header, columns aligned, two spaces between."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def imported_forbidden() -> list[str]:
    """Modules that must never be in a robot's process, and are."""
    return [name for name in FORBIDDEN if name in sys.modules]


def run_figures(run: Run, backend: str) -> dict[str, Any]:
    """A run as `flexor run --json` writes it. NaN never, None where nothing was measured."""
    report = run.report
    return {
        "artifact": run.admission.artifact.label,
        "policy_sha256": run.admission.artifact.sha256,
        "backend": backend,
        "inference": run.inference,
        "in_python": run.in_python,
        "control_hz": run.admission.artifact.contract.control_hz,
        "seconds": report.seconds,
        "steps": report.steps,
        "latency_p50_us": report.latency.p50_us,
        "latency_p99_us": report.latency.p99_us,
        "latency_p999_us": report.latency.p999_us,
        "latency_max_us": report.latency.max_us,
        "inference_p50_us": report.inference.p50_us,
        "inference_p99_us": report.inference.p99_us,
        "inference_p999_us": report.inference.p999_us,
        "lateness_p50_us": report.lateness.p50_us,
        "lateness_p99_us": report.lateness.p99_us,
        "deadlines": report.deadlines,
        "missed": report.missed,
        "missed_by_robot": report.missed_by_robot,
        "missed_by_system": report.missed_by_system,
        "cpu_share": report.cpu_share,
        "energy_per_decision_j": run.decision.as_dict(),
        "motor_copper_j": run.motors.as_dict(),
        "energy": run.ledger.as_dict(),
        "episodes": report.episodes,
        "success": report.successes / report.episodes if report.episodes else None,
        "success_steps": report.success_steps / report.steps if report.steps else None,
        "reward_mean": report.reward_mean,
        "slewed": report.slewed,
        "clamped": report.clamped,
        "slowed": report.slowed,
        "eased": report.eased,
        "braked": report.braked,
        "late_states": report.late_states,
        "strangeness_max": report.strangeness_max,
        "fault": report.fault.value if report.fault else None,
        "refused": list(report.refused),
        "imported_forbidden": imported_forbidden(),
    }


def run_table(run: Run, backend: str) -> str:
    """A run for people."""
    report, artifact = run.report, run.admission.artifact
    figures = run.admission.figures
    whole = f"{report.successes} of {report.episodes} episodes ended with the goal held"
    rows = [
        ("artifact", f"{artifact.label}, sha256 {artifact.sha256[:12]}"),
        ("admitted", f"{figures['golden_samples']:.0f} golden samples within {figures['golden_max_difference']:.1g}"),
        ("robot", f"{artifact.contract.robot} on {backend}, {artifact.contract.control_hz:g} Hz"),
        ("ran", f"{report.seconds:.1f} s, {report.steps} decisions by {run.inference}"),
        ("period", f"in Python: {run.in_python}" if run.in_python else "compiled"),
        ("latency", f"{report.latency} (state to command)"),
        ("network", str(report.inference)),
        ("woken late by", str(report.lateness)),
        (
            "deadlines",
            f"{report.deadlines}, missed {report.missed} ({report.missed_by_robot} waiting for the robot, {report.missed_by_system} woken late)",
        ),
        ("CPU", f"{100.0 * report.cpu_share:.2f} % of a core"),
        ("energy", f"{run.decision} per decision"),
        ("motors", f"{run.motors} in the windings"),
        ("cameras", str(run.ledger.cameras)),
        ("one task", _task_energy(run)),
        ("task", f"{whole if report.episodes else 'no whole episode'}; mean reward {report.reward_mean:.4g}"),
        (
            "filter",
            f"joint targets changed by slew {report.slewed}, position {report.clamped}, velocity {report.slowed}, "
            f"torque {report.eased}, barrier {report.braked}",
        ),
        ("fault", report.fault or "none"),
        ("refused", "; ".join(report.refused) or "nothing"),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def _task_energy(run: Run) -> str:
    parts = run.ledger.per(run.ledger.tasks)
    if parts is None:
        return "no whole episode"
    return ", ".join(f"{name} {joules(part.low_j)} to {joules(part.high_j)}" for name, part in parts.items())


def _span(low: Iterable[float], high: Iterable[float]) -> str:
    pairs = sorted(set(zip(low, high)))
    return f"{pairs[0][0]:g} .. {pairs[0][1]:g}" if len(pairs) == 1 else "differs"


def _scale(artifact: Artifact, where: slice) -> str:
    """What the graph divides a term by after taking the mean off: its standard deviation in training."""
    if artifact.normaliser is None:
        return "?"
    std = artifact.normaliser.std[where]
    return f"{std.min():.2g}" if np.allclose(std, std[0], rtol=0.05) else f"{std.min():.2g} .. {std.max():.2g}"


def artifact_figures(artifact: Artifact) -> dict[str, Any]:
    return {
        "artifact": artifact.label,
        "policy_sha256": artifact.sha256,
        "bytes": len(artifact.onnx),
        "parameters": artifact.file.parameters,
        "multiply_adds": multiply_adds(artifact),
        "opset": artifact.file.opsets.get(""),
        "metadata_keys": sorted(artifact.file.metadata),
        "golden_samples": len(next(iter(artifact.golden.values()), ())),
        "observation": [
            {
                "name": term.name,
                "slice": [where.start, where.stop],
                "source": source_of(term.name).what,
                "on_a_motor_bus": source_of(term.name).on_a_bus or "the same",
                "unit": term.unit,
                "frame": term.frame,
                "low": list(term.low),
                "high": list(term.high),
                "mean": artifact.normaliser.mean[where].tolist() if artifact.normaliser else None,
                "std": artifact.normaliser.std[where].tolist() if artifact.normaliser else None,
            }
            for term, where in zip(artifact.contract.observation, artifact.contract.slices.values())
        ],
        "contract": msgspec.to_builtins(artifact.contract),
    }


def artifact_table(artifact: Artifact) -> str:
    """Everything a deployer asks of a file."""
    contract, file = artifact.contract, artifact.file
    action = contract.action
    observations = table(
        ("slice", "observation", "source", "unit", "frame", "range", "divided by", "elements"),
        [
            (
                f"{s.start}:{s.stop}",
                t.name if t.history == 1 else f"{t.name} x {t.history} steps",
                source_of(t.name).what,
                t.unit,
                t.frame,
                _span(t.low, t.high),
                _scale(artifact, s),
                _some(t.elements),
            )
            for t, s in zip(contract.observation, contract.slices.values())
        ],
    )
    actions = table(
        ("action", "joint", "rad per unit", "offset [rad]", "limits [rad]"),
        [
            (i, joint, f"{action.scale_rad[i]:g}", f"{action.offset_rad[i]:g}", _limits(contract, i))
            for i, joint in enumerate(action.joints)
        ],
    )
    golden = len(next(iter(artifact.golden.values()), ()))
    head = [
        ("artifact", f"{artifact.label}, {len(artifact.onnx)} bytes, sha256 {artifact.sha256}"),
        ("made for", f"{contract.env_id} with {contract.robot} at {contract.control_hz:g} Hz"),
        ("contract", contract.sha256),
        ("graph", f"opset {file.opsets.get('')}, {len(file.nodes)} nodes, {file.parameters} weights"),
        ("inputs", ", ".join(f"{p.name} {list(p.shape)}" for p in file.inputs)),
        ("outputs", ", ".join(f"{p.name} {list(p.shape)}" for p in file.outputs)),
        ("golden", f"{golden} samples" if golden else "none: the runtime will refuse it"),
        (
            "goal",
            f"{_some(contract.goal)} [{contract.goal_unit}], frame {contract.goal_frame}" if contract.goal else "-",
        ),
        ("delays", f"trained with {contract.delay_range_s[0]:g} .. {contract.delay_range_s[1]:g} s"),
        (
            "actions are",
            f"{action.mode} joint targets; the graph's `joint_targets` are scaled and clamped, `actions` are raw",
        ),
        ("metadata", ", ".join(sorted(file.metadata))),
    ]
    return "\n".join([*(f"{name:<14}{text}" for name, text in head), "", observations, "", actions])


def foreign_table(foreign: Foreign) -> str:
    """A file of another stack: what it says, what contradicts itself, what it leaves open."""
    file = foreign.file
    ports = ", ".join(f"{p.name} {list(p.shape)}" for p in (*file.inputs, *file.outputs))
    return "\n".join(
        [
            f"another stack's policy, by its metadata; flexor explains it and does not run it. Graph: {ports}",
            "",
            table(("observation", "width", "scale", "history"), foreign.terms),
            "",
            table(("joint", "stiffness", "damping", "default [rad]", "action scale"), foreign.joints),
            "",
            *(f"wrong: {line}" for line in foreign.wrong),
            *(f"ambiguous: {line}" for line in foreign.ambiguous),
        ]
    )


def _limits(contract: Contract, i: int) -> str:
    return f"{contract.action.lower_rad[i]:.4g} .. {contract.action.upper_rad[i]:.4g}"


def _some(names: tuple[str, ...], limit: int = 3) -> str:
    rest = f", ... {len(names)} in all" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def differences(a: object, b: object, where: str = "") -> list[tuple[str, str, str]]:
    """Where two pieces of JSON-like data differ: (path, in a, in b)."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{where}.{key}" if where else str(key))]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [(where, _brief(a), _brief(b))]


def _brief(value: object) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def diff_table(a: Artifact, b: Artifact) -> str:
    """What differs, and how far the two policies' answers are apart where both can be asked."""
    rows = differences(msgspec.to_builtins(a.contract), msgspec.to_builtins(b.contract))
    for what, x, y in (
        ("policy.onnx", a.sha256[:12], b.sha256[:12]),
        ("weights", a.file.parameters, b.file.parameters),
        ("operators", " ".join(n.op for n in a.file.nodes), " ".join(n.op for n in b.file.nodes)),
    ):
        rows += differences(x, y, what)
    text = table(("what", a.label, b.label), rows) if rows else f"{a.label} and {b.label} are the same"
    if (a.contract.observation_size, a.contract.action) != (b.contract.observation_size, b.contract.action):
        return f"{text}\n\nanswers: not comparable, the interfaces differ"
    observations = random_observations(a.contract, DIFF_SAMPLES, np.random.default_rng(0))
    first, second = NumpyInference(a), NumpyInference(b)
    apart = np.array([np.abs(first.act(row)[1] - second.act(row)[1]) for row in observations])
    return (
        f"{text}\n\nanswers: joint targets to {DIFF_SAMPLES} random observations are {apart.mean():.3g} rad apart in the mean, "
        f"{apart.max():.3g} at most"
    )


def check_table(admission: Admission, model: RobotModel) -> str:
    """A good verdict, and what it rests on."""
    contract, figures = admission.artifact.contract, admission.figures
    unmoved = [joint for joint in model.joint_names if joint not in contract.action.joints]
    blind = not_on_a_bus(contract)
    rows = [
        ("verdict", f"{admission.artifact.label} may drive {model.name}"),
        ("measured", "every observation can be measured by this robot"),
        (
            "on a bus",
            f"not measured by motors alone: {', '.join(blind)}" if blind else "motors alone can measure it all",
        ),
        (
            "joints",
            f"{contract.action_size} of {len(model.joints)} moved; at home stay: {', '.join(unmoved) or 'none'}",
        ),
        (
            "golden",
            f"{figures['golden_samples']:.0f} samples, largest difference {figures['golden_max_difference']:.2g}",
        ),
        ("targets", f"graph and contract agree to {figures['target_max_difference_rad']:.2g} rad"),
        (
            "time",
            f"{figures['median_call_us']:.0f} us a call, back to back, of a period of {1e6 * contract.dt_s:.0f} us",
        ),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)
