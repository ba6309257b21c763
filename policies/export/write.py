"""From a trained actor to models/<name>/<version>/: build, gate, golden samples, card; all of it appears at once or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from policies.artifact import PolicyFile
from policies.export import backends, card, golden, graph, metadata
from policies.export.errors import ExportError
from policies.export.int8 import quantized
from policies.export.parity import ACTION_TOLERANCE, Parity, check_parity, gate_inputs
from policies.networks import Actor
from robot.artifacts import CARD_FILE, GOLDEN_FILE, NAME, POLICY_FILE, version_number
from robot.contract import Contract
from robot.description import RobotModel, load
from robot.files import replace_file

SEED = 0  # of the random and extreme observations: an export is repeatable
MIN_RECORDED = 16  # fewer observations, or all alike, would let a broken graph look right


def export(
    actor: Actor,
    contract: Contract,
    out_dir: Path,
    name: str,
    version: str | None = None,
    *,
    recorded_observations: np.ndarray,
    training: dict[str, Any],
    results: Mapping[str, Mapping[str, Any]] | None = None,
    model: RobotModel | None = None,
    cross_check: bool = True,
    int8: bool = False,
) -> Path:
    """Write an artifact.

    Args:
        actor: The trained network; only read.
        contract: What it was trained under.
        out_dir: The models folder.
        name: snake_case name; the artifact goes to out_dir/name/version.
        version: "v1", "v2", ...; the next free one when None. An existing version is never overwritten.
        recorded_observations: Observations from episodes, shape (k, n), k >= MIN_RECORDED.
        training: How the policy came about; needs `metadata.TRAINING_KEYS`.
        results: label -> `EvalResult.as_dict()` for the card. `write_card` can add them later.
        model: The robot; loaded by the contract's name when None.
        cross_check: Hold the robot's own backends against the network, too, in a process of their own; takes seconds.
        int8: Keep the weight matrices in eight bits. The gate is then held against the network with those weights.

    Returns:
        The artifact's folder.

    Raises:
        ExportError: The actor, its name, the observations or the training record are refused; the message says why.
        ParityError, BackendError: The file, or one of the robot's backends, and the network differ; nothing is left behind.
        ContractMismatchError: The contract is not of the robot as it is described now.
    """
    recorded = _checked_observations(recorded_observations, contract)
    model = model or load(contract.robot)
    contract.bind(model)
    final = _place(out_dir, name, version)
    properties = metadata.properties(actor, contract, model, training)
    actor = quantized(actor) if int8 else actor
    data = graph.to_bytes(graph.build(actor, contract, properties, int8=int8))
    rng = np.random.default_rng(SEED)
    inputs = gate_inputs(actor, recorded, rng)
    said = parity_sentence(check_parity(data, actor, contract, inputs))
    if cross_check:
        steps = backends.trace(actor, contract, inputs, np.random.default_rng(SEED))
        said = f"{said} {backends.sentence(backends.check_backends(data, steps), steps)}"
    policy = PolicyFile.from_bytes(data)
    files = {
        POLICY_FILE: data,
        GOLDEN_FILE: golden.to_bytes(golden.golden_samples(policy, actor, recorded, rng)),
        CARD_FILE: card.render(policy, f"{name}/{final.name}", said, results).encode(),
    }
    _publish(files, final)
    return final


def parity_sentence(parity: Parity) -> str:
    """What the card says about the gate."""
    return (
        f"The file (onnxruntime) against the network (torch) over {parity.inputs} recorded, random and extreme observations: "
        f"largest difference {parity.action_difference:.2g} in an action, {parity.target_difference_rad:.2g} rad in a joint target; "
        f"{ACTION_TOLERANCE:.0e} refuses the export."
    )


def write_card(
    folder: Path,
    results: Mapping[str, Mapping[str, Any]],
    machine: str | None = None,
    release: str | None = None,
) -> None:
    """Put results and the gate's verdict into the card of an existing artifact; everything else is kept or read from the file itself."""
    path = folder / CARD_FILE
    old = path.read_text() if path.is_file() else ""
    _, _, rest = old.partition("## Checked at export\n\n")
    parity = rest.partition("\n\n")[0] or "Not recorded."
    text = card.render(
        PolicyFile.load(folder), f"{folder.parent.name}/{folder.name}", parity, results, machine, release
    )
    replace_file(path, text.encode())


def _checked_observations(recorded: np.ndarray, contract: Contract) -> np.ndarray:
    recorded = np.ascontiguousarray(recorded, dtype=np.float32)
    if recorded.ndim != 2 or recorded.shape[1] != contract.observation_size:
        raise ExportError(
            f"recorded_observations must have shape (k, {contract.observation_size}), got {recorded.shape}"
        )
    if not np.isfinite(recorded).all():
        rows = np.flatnonzero(~np.isfinite(recorded).all(axis=1))
        raise ExportError(f"recorded_observations must be finite, got NaN or infinity in rows {rows[:8].tolist()}")
    distinct = len(np.unique(recorded, axis=0))
    if distinct < MIN_RECORDED:
        raise ExportError(f"recorded_observations needs {MIN_RECORDED} different rows or more, got {distinct}")
    return recorded


def _place(out_dir: Path, name: str, version: str | None) -> Path:
    if not NAME.fullmatch(name):
        raise ExportError(f"artifact name must be snake_case, got {name!r}")
    parent = out_dir / name
    taken = sorted(
        (path.name for path in parent.iterdir() if version_number(path.name)) if parent.is_dir() else (),
        key=version_number,
    )
    if version is None:
        return parent / f"v{version_number(taken[-1]) + 1 if taken else 1}"
    if not version_number(version):
        raise ExportError(f"version must be v1, v2, ..., got {version!r}")
    if version in taken:
        raise ExportError(
            f"{parent / version} exists, and a released version never changes. Taken: {', '.join(taken)}.\n"
            f"  do: leave the version out to get v{version_number(taken[-1]) + 1}"
        )
    return parent / version


def _publish(files: dict[str, bytes], final: Path) -> None:
    """All files on disk, then one rename: a reader sees the whole folder or none."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        staging.chmod(0o755)
        for name, data in files.items():
            with open(staging / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(staging)
        try:
            os.rename(staging, final)
        except OSError as error:
            raise ExportError(f"cannot put the artifact at {final}: {error.strerror}") from error
        _sync_folder(final.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
