"""Policies of other stacks: mjlab, unitree_rl_mjlab, whole_body_tracking. Their metadata is CSV text with three decimals.

Such a file is read and explained, never run: what its metadata leaves open is listed, and each open point is a way to fall.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from robot.artifacts import CONTRACT_KEY, POLICY_FILE
from robot.onboard.onnxfile import MAX_FILE_BYTES, OnnxFile, read

REQUIRED = ("joint_names", "joint_stiffness", "joint_damping", "default_joint_pos", "observation_names", "action_scale")
PER_JOINT = ("joint_stiffness", "joint_damping", "default_joint_pos")
HISTORY_KEYS = ("observation_terms_history_length", "observation_history_lengths")  # mjlab, whole_body_tracking
PER_TERM = ("observation_terms_scale", "observation_terms_flatten_history_dim", *HISTORY_KEYS)
KNOWN = (*REQUIRED, *PER_TERM, "observation_terms_clip", "command_names", "run_path", "anchor_body_name", "body_names")
DECIMALS = 3
# Widths by what these stacks call their terms; "joints" is one number per joint.
WIDTHS: dict[str, int | str] = {
    **dict.fromkeys(("joint_pos", "joint_vel", "joint_pos_rel", "joint_vel_rel", "actions", "last_action"), "joints"),
    **dict.fromkeys(("base_lin_vel", "base_ang_vel", "projected_gravity", "gravity"), 3),
    **dict.fromkeys(("velocity_commands", "twist", "command"), 3),
}
UNMEASURED = ("base_lin_vel", "base_pos", "height_scan", "motion_anchor_pos_b")


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a file says of itself, and what it leaves open.

    Attributes:
        terms: Observation terms: name, width ("?" where the name does not tell), scale, history.
        joints: Name, stiffness, damping, default position, action scale, as text.
        ambiguous: What cannot be known from the file, one line each.
        wrong: What contradicts itself.
    """

    file: OnnxFile
    terms: tuple[tuple[str, str, str, str], ...]
    joints: tuple[tuple[str, ...], ...]
    ambiguous: tuple[str, ...]
    wrong: tuple[str, ...]


def find(path: str | Path) -> OnnxFile | None:
    """The file at a path if it is an .onnx without our contract and with another stack's keys, else None."""
    place = Path(path)
    place = place / POLICY_FILE if place.is_dir() else place
    if not place.is_file() or place.suffix != ".onnx":
        return None
    with place.open("rb") as handle:
        file = read(handle.read(MAX_FILE_BYTES + 1))
    return file if CONTRACT_KEY not in file.metadata and set(KNOWN) & set(file.metadata) else None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _at(values: list[str], i: int) -> str:
    return values[i] if i < len(values) else values[0] if len(values) == 1 else "?"


def explain(file: OnnxFile) -> Foreign:
    """Read the metadata, and say what it does not say."""
    data = file.metadata
    value = {key: _split(data.get(key, "")) for key in KNOWN}
    joints, terms = value["joint_names"], value["observation_names"]
    history_key = next((key for key in HISTORY_KEYS if key in data), "")
    ambiguous, wrong = [], []
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        ambiguous.append(f"not in the file: {', '.join(missing)}")
    for key in PER_JOINT:
        if key in data and len(value[key]) != len(joints):
            wrong.append(f"{key} has {len(value[key])} values for {len(joints)} joints")
    for key in PER_TERM:
        if key in data and len(value[key]) != len(terms):
            wrong.append(f"{key} has {len(value[key])} values for {len(terms)} observation terms")
    scales = value["action_scale"]
    if "action_scale" in data and len(scales) not in (1, len(joints)):
        wrong.append(f"action_scale has {len(scales)} values for {len(joints)} joints")
    for key in ("joint_stiffness", "joint_damping"):
        zero = [joints[i] for i, text in enumerate(value[key][: len(joints)]) if not (_number(text) or 0.0) > 0.0]
        if zero:
            wrong.append(f"{key} is zero or no number for {', '.join(zero)}")
    ambiguous += _rounding(value)
    clip = data.get("observation_terms_clip", "")
    if clip and len(value["observation_terms_clip"]) != len(terms):
        ambiguous.append(f"observation_terms_clip cannot be split: its ranges hold commas themselves ({clip[:40]!r})")
    if not history_key:
        ambiguous.append("history: the file does not say how many past steps each term holds")
    history = value[history_key] if history_key else []
    ambiguous += _widths(file, terms, history, len(joints))
    unmeasured = [term for term in terms if term in UNMEASURED]
    if unmeasured:
        ambiguous.append(f"few robots can measure {', '.join(unmeasured)}")
    ambiguous += [
        "whether the graph multiplies by action_scale already; most of these exporters do not",
        "whether default_joint_pos is added to the actions, and whether joint positions are observed relative to it",
        "whether joint_names is the robot's order or the policy's; the file keeps one list",
        "control rate, joint limits, torque limits, quaternion order, units and frames: not in this format",
        "no golden vectors: nothing shows that the file computes what it computed when it was exported",
    ]
    unknown = sorted(set(data) - set(KNOWN))
    if unknown:
        ambiguous.append(f"keys of which nothing is known here: {', '.join(unknown)}")
    return Foreign(
        file=file,
        terms=tuple(
            (t, str(_width(t, len(joints)) or "?"), _at(value["observation_terms_scale"], i), _at(history, i))
            for i, t in enumerate(terms)
        ),
        joints=tuple((j, *(_at(value[key], i) for key in PER_JOINT), _at(scales, i)) for i, j in enumerate(joints)),
        ambiguous=tuple(ambiguous),
        wrong=tuple(wrong),
    )


def _rounding(value: dict[str, list[str]]) -> list[str]:
    """Numbers that three decimals have spoilt: how far the true one may be away."""
    found = []
    for key in (*PER_JOINT, "action_scale"):
        texts = [text for text in value[key] if _number(text) is not None]
        if texts and all(len(text.rpartition(".")[2]) <= DECIMALS for text in texts):
            numbers = [abs(_number(text) or 0.0) for text in texts]
            least = min((number for number in numbers if number > 0.0), default=inf)
            error = 0.5 * 10.0**-DECIMALS / least
            if error > 1e-3:
                found.append(
                    f"{key} is rounded to {DECIMALS} decimals: the smallest may be off by {100.0 * error:.2g} %"
                )
    return found


def _width(term: str, joints: int) -> int:
    """Of a term, by its name; 0 where the name does not tell."""
    width = WIDTHS.get(term, 0)
    return width if isinstance(width, int) else joints


def _widths(file: OnnxFile, terms: list[str], history: list[str], joints: int) -> list[str]:
    """Whether the terms add up to the graph's input."""
    if not terms or not file.inputs or not file.inputs[0].shape:
        return []
    size = file.inputs[0].shape[-1]
    unknown = [term for term in terms if not _width(term, joints)]
    steps = [max(1, round(_number(_at(history, i)) or 1.0)) for i in range(len(terms))]
    total = sum(_width(term, joints) * n for term, n in zip(terms, steps))
    if unknown:
        return [f"widths: {', '.join(unknown)} share {size - total} of the {size} inputs, by guessing the others"]
    if total != size:
        return [f"widths: the terms' usual widths add up to {total}, the graph takes {size}"]
    return []


def figures(foreign: Foreign) -> dict[str, Any]:
    """As data."""
    return {
        "foreign": True,
        "inputs": {port.name: list(port.shape) for port in foreign.file.inputs},
        "outputs": {port.name: list(port.shape) for port in foreign.file.outputs},
        "terms": foreign.terms,
        "joints": foreign.joints,
        "wrong": foreign.wrong,
        "ambiguous": foreign.ambiguous,
        "metadata": foreign.file.metadata,
    }
