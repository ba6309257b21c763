"""What the file says about itself: our lossless JSON keys, and the CSV keys that mjlab and its relatives read.

The CSV keys follow mjlab's src/mjlab/rl/exporter_utils.py (4af7934), at full precision where that writes three decimals.
`joint_stiffness` and `joint_damping` are what a runtime with joint servos would need to be as stiff as our drives: the diagonal
of R^T K R at the zero posture. They don't describe tendon sag, so `flexor.contract` is what counts.
"""

import json
from collections.abc import Sequence

import numpy as np

from policies.export.errors import ExportError
from policies.networks import Actor
from policies.normalizer import VARIANCE_EPS
from robot import artifacts
from robot.contract import Contract
from robot.description import RobotModel

TRAINING_KEYS = ("env", "engine", "seed", "steps", "commit", "learner")


def to_json(value: object) -> str:
    """Canonical JSON that reads back to the same numbers; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def to_csv(values: Sequence[object]) -> str:
    """Comma-separated; floats as their shortest text that reads back exactly.

    Raises:
        ExportError: A value holds a comma itself.
    """
    texts = [repr(float(v)) if isinstance(v, (int, float)) else str(v) for v in values]
    if any("," in text for text in texts):
        raise ExportError(f"values of a CSV key must not hold a comma, got {[t for t in texts if ',' in t]}")
    return ",".join(texts)


def joint_gains(contract: Contract, model: RobotModel) -> tuple[list[float], list[float]]:
    """Stiffness [N m/rad] and damping [N m s/rad] of the drives' servos as each joint feels them at the zero posture.

    A cable with moment arm a adds a^2 k to its joint; every tendon that passes a joint counts, as those of the fingers at the wrist.
    """
    stiffness, damping = np.zeros(len(model.joints)), np.zeros(len(model.joints))
    servos = zip(model.tendons, contract.servo_stiffness_n_m, contract.servo_damping_n_s_m)
    for tendon, stiffness_n_m, damping_n_s_m in servos:
        for arm in tendon.arms:
            stiffness[model.index(arm.joint)] += arm.flexor_m**2 * stiffness_n_m
            damping[model.index(arm.joint)] += arm.flexor_m**2 * damping_n_s_m
    for drive, at, per_speed in zip(model.drives, contract.drive_stiffness_nm_rad, contract.drive_damping_nm_s_rad):
        stiffness[model.index(drive.joint)] += at
        damping[model.index(drive.joint)] += per_speed
    return stiffness.tolist(), damping.tolist()


def csv_properties(contract: Contract, model: RobotModel, run_path: str) -> dict[str, str]:
    """The keys other stacks read. Scale and clip are neutral because the graph does both itself."""
    terms = [term.name for term in contract.observation]
    history = [
        term.history if term.history > 1 else 0 for term in contract.observation
    ]  # newest first, theirs is oldest first
    stiffness, damping = joint_gains(contract, model)
    return {
        "run_path": run_path,
        "joint_names": to_csv(contract.joint_names),
        "joint_stiffness": to_csv(stiffness),
        "joint_damping": to_csv(damping),
        "default_joint_pos": to_csv(contract.home_rad),
        "command_names": to_csv(contract.goal),
        "observation_names": to_csv(terms),
        "observation_terms_scale": to_csv([1.0] * len(terms)),
        "observation_terms_history_length": to_csv(history),
        "observation_terms_flatten_history_dim": to_csv([1] * len(terms)),
        "observation_terms_clip": to_csv(["None"] * len(terms)),
        "action_scale": to_csv(contract.action.scale_rad),
    }


def properties(actor: Actor, contract: Contract, model: RobotModel, training: dict) -> dict[str, str]:
    """Every metadata property of the file.

    Args:
        training: How the policy came about; must have `TRAINING_KEYS`, may have more.

    Raises:
        ExportError: A training key is missing, or `training` is not JSON.
    """
    missing = [key for key in TRAINING_KEYS if key not in training]
    if missing:
        raise ExportError(f"training must say {', '.join(TRAINING_KEYS)}; missing: {', '.join(missing)}")
    try:
        training_json = to_json(training)
    except (TypeError, ValueError) as error:
        raise ExportError(f"training must be JSON without NaN or infinity: {error}") from error
    normalizer = actor.normalizer
    std = (normalizer.var + VARIANCE_EPS).sqrt()
    return {
        artifacts.CONTRACT_KEY: contract.to_json(),
        artifacts.CONTRACT_SHA256_KEY: contract.sha256,
        artifacts.EXPLORATION_KEY: to_json([float(x) for x in actor.std.tolist()]),
        artifacts.TRAINING_KEY: training_json,
        artifacts.NORMALIZER_KEY: to_json(
            {"mean": normalizer.mean.tolist(), "std": std.tolist(), "count": normalizer.count.item()}
        ),
        **csv_properties(contract, model, str(training.get("run", ""))),
    }
