"""A training run on disk: everything needed to go on, or to export. Arrays in .npz, the rest in JSON; nothing is pickled.

A run is a folder: `contract.json`, `training.json`, `checkpoint.npz`, `progress.csv`. A checkpoint is written beside the old one and
renamed over it, so a kill at any moment leaves a whole one.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
import torch

from policies.networks import Actor, Critic
from robot.contract import Contract
from robot.errors import FlexorError
from robot.files import replace_file

CONTRACT_FILE, TRAINING_FILE, CHECKPOINT_FILE = "contract.json", "training.json", "checkpoint.npz"


class CheckpointError(FlexorError, ValueError):
    """A folder that holds no usable checkpoint; the message says what is missing or does not fit."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run as it stood.

    Attributes:
        actor: The policy.
        critic: Its state values; None where the learner keeps values of its own among the tables.
        contract: What they were trained under.
        recorded_observations: Some observations of the last iteration, shape (k, n).
        training: Where the policy comes from: env, engine, seed, steps, commit, learner, and more.
        tables: The learner's own arrays: table -> name -> array. An optimiser's are by parameter index, "<i>.exp_avg",
            "<i>.exp_avg_sq", "<i>.step".
        counters: steps, chapter, seconds, and the learner's own.
        generators: States of torch and numpy generators.
    """

    actor: Actor
    contract: Contract
    recorded_observations: np.ndarray
    training: dict[str, Any]
    counters: dict[str, float]
    generators: dict[str, np.ndarray]
    critic: Critic | None = None
    tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def make_folder(run: Path) -> None:
    """Make the folder of a run.

    Raises:
        CheckpointError: It cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make {run}: {error.strerror}; do: another --out") from error


def save(run: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint over the run's last one.

    Raises:
        CheckpointError: The disk is full or not writable; the last checkpoint is kept.
    """
    make_folder(run)
    arrays: dict[str, np.ndarray] = {"recorded_observations": checkpoint.recorded_observations}
    networks = {"actor": checkpoint.actor} | ({} if checkpoint.critic is None else {"critic": checkpoint.critic})
    for prefix, module in networks.items():
        arrays |= {f"{prefix}/{name}": value.numpy() for name, value in module.state_dict().items()}
    for table, columns in checkpoint.tables.items():
        arrays |= {f"table/{table}/{name}": np.asarray(value) for name, value in columns.items()}
    arrays |= {f"generator/{name}": np.asarray(value) for name, value in checkpoint.generators.items()}
    arrays |= {f"counter/{name}": np.array(value, dtype=np.float64) for name, value in checkpoint.counters.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    training = {**checkpoint.training, **{name: module.config for name, module in networks.items()}}
    try:
        # The large file first: where there is no room for it, the small ones still belong to the old one.
        replace_file(run / CHECKPOINT_FILE, buffer.getvalue())
        replace_file(run / TRAINING_FILE, msgspec.json.format(msgspec.json.encode(training)))
        replace_file(run / CONTRACT_FILE, checkpoint.contract.to_json().encode())
    except OSError as error:
        raise CheckpointError(
            f"cannot save {run}: {error.strerror}; the last checkpoint there is kept.\n"
            f"  do: make room ({len(buffer.getvalue()) / 1e6:.0f} MB are needed), then --resume"
        ) from error


def load(run: Path) -> Checkpoint:
    """The run's last checkpoint.

    Raises:
        CheckpointError: No run there, a damaged file, or arrays that do not fit the networks.
        ContractError: A damaged contract.
    """
    missing = [name for name in (CONTRACT_FILE, TRAINING_FILE, CHECKPOINT_FILE) if not (run / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{run} is no training run: {', '.join(missing)} missing; do: flexor train ENV --out {run}"
        )
    contract = Contract.from_json((run / CONTRACT_FILE).read_bytes())
    try:
        training = msgspec.json.decode((run / TRAINING_FILE).read_bytes(), type=dict[str, Any])
        data = io.BytesIO((run / CHECKPOINT_FILE).read_bytes())  # numpy leaves a file open when it refuses it
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        actor = Actor(**training.pop("actor"))
        critic = Critic(**training.pop("critic")) if "critic" in training else None
        for prefix, module in (("actor", actor), ("critic", critic)):
            if module is None:
                continue
            module.load_state_dict({name: torch.from_numpy(value) for name, value in _under(arrays, prefix).items()})
    except (
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        OSError,
        EOFError,
        BadZipFile,
        msgspec.MsgspecError,
    ) as error:
        raise CheckpointError(f"{run} holds a damaged checkpoint: {type(error).__name__}: {error}") from error
    return Checkpoint(
        actor=actor,
        critic=critic,
        contract=contract,
        recorded_observations=arrays["recorded_observations"],
        training=training,
        tables=_tables(_under(arrays, "table")),
        counters={name: float(value) for name, value in _under(arrays, "counter").items()},
        generators=_under(arrays, "generator"),
    )


def _tables(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    names = dict.fromkeys(name.partition("/")[0] for name in arrays)
    return {table: _under(arrays, table) for table in names}


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Adam's state as named arrays."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value.numpy() for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    """Put Adam's state back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in arrays.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
