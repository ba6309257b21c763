"""Artifacts on disk: `models/<name>/<version>/{policy.onnx, golden.npz, card.md}`. Names, keys and the lookup; nothing is opened here.

The training branch writes them and the deployment branch reads them, and neither may import the other: what both must agree on
is in this file.
"""

import re
from pathlib import Path
from typing import Final

from robot.errors import FlexorError, UnknownNameError

POLICY_FILE: Final = "policy.onnx"
GOLDEN_FILE: Final = "golden.npz"
CARD_FILE: Final = "card.md"

# Graph inputs and outputs, the names rsl_rl, Isaac Lab and mjlab use where they have one.
OBSERVATION: Final = "obs"  # [1, n] float32, the contract's observation in SI units
ACTIONS: Final = "actions"  # [1, m] float32, the mean action before clipping to -1..1
JOINT_TARGETS: Final = (
    "joint_targets"  # [1, m] float32 [rad], clipped, scaled and clamped, in the order of `action.joints`
)
STATE_IN: Final = "h_in"  # [1, k] float32, recurrent state; zeros at the start of an episode
STATE_OUT: Final = "h_out"

# metadata_props of policy.onnx. All values of these keys are JSON except the hash.
CONTRACT_KEY: Final = "flexor.contract"
CONTRACT_SHA256_KEY: Final = "flexor.contract_sha256"
EXPLORATION_KEY: Final = "flexor.exploration"  # standard deviation of each action during training
TRAINING_KEY: Final = "flexor.training"  # environment, engine, seed, steps, commit, learner
NORMALIZER_KEY: Final = (
    "flexor.normalizer"  # mean and std of each observation element, for the out-of-distribution score
)

DEFAULT_MODELS_DIR: Final = Path(__file__).resolve().parents[1] / "models"  # the shipped ones
VERSION = re.compile(r"v([1-9][0-9]*)")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class ArtifactNotFoundError(FlexorError, FileNotFoundError):
    """A folder that holds no artifact; the message says what is missing."""


def version_number(version: str) -> int:
    """3 for "v3", 0 for anything else."""
    match = VERSION.fullmatch(version)
    return int(match[1]) if match else 0


def versions(folder: Path) -> list[str]:
    """Versions under `models/<name>`, oldest first; folders without a policy.onnx do not count."""
    found = [path.parent.name for path in folder.glob(f"*/{POLICY_FILE}") if version_number(path.parent.name)]
    return sorted(found, key=version_number)


def known_artifacts(models_dir: Path) -> dict[str, list[str]]:
    """Every artifact below a models folder: name -> versions, oldest first."""
    if not models_dir.is_dir():
        return {}
    found = {folder.name: versions(folder) for folder in sorted(models_dir.iterdir()) if folder.is_dir()}
    return {name: those for name, those in found.items() if those}


def find_artifact(path_or_name: str | Path, models_dir: Path = DEFAULT_MODELS_DIR) -> Path:
    """The folder of an artifact.

    Args:
        path_or_name: A folder with a policy.onnx, that file itself, a name (`hand_reach`, its newest version) or
            a name and a version (`hand_reach/v2`).
        models_dir: Where names are looked up.

    Raises:
        ArtifactNotFoundError: A folder that exists but holds no policy.onnx.
        UnknownNameError: Neither a folder nor a known name; the message lists the known ones.
    """
    path = Path(path_or_name)
    if path.is_file() and path.name == POLICY_FILE:
        return path.parent
    if path.is_dir():
        if (path / POLICY_FILE).is_file():
            return path
        below = versions(path)  # models/hand_reach given as a path
        if below:
            return path / below[-1]
    known = known_artifacts(models_dir)
    name, _, version = str(path_or_name).partition("/")
    if name in known and version in ("", *known[name]):
        return models_dir / name / (version or known[name][-1])
    if path.is_dir():
        raise ArtifactNotFoundError(
            f"{path} holds no {POLICY_FILE}; expected {POLICY_FILE}, {GOLDEN_FILE}, {CARD_FILE}"
        )
    choices = [f"{known_name}/{v}" for known_name, those in known.items() for v in those]
    raise UnknownNameError("artifact", str(path_or_name), [*known, *choices] or [f"(none in {models_dir})"])
