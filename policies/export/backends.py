"""The gate on the robot's side: generated C, onnxruntime and numpy, as `robot.onboard` has them, against the network.

Training and deployment do not import each other, so the check is a process of its own (`python -m robot.onboard.crosscheck`).
"""

import io
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from policies.export.errors import BackendError
from policies.export.graph import joint_targets
from policies.export.parity import ACTION_TOLERANCE, TARGET_TOLERANCE_RAD, network_actions, random_observations
from policies.networks import Actor
from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION
from robot.contract import Contract

RECURRENT_STEPS = 1000
TIMEOUT_S = 300.0  # a first run compiles; a busy machine is slow


class Report(msgspec.Struct):
    """What the other process says; see `robot.onboard.crosscheck.Report`."""

    actions: dict[str, float | None] = {}
    targets_rad: dict[str, float | None] = {}
    absent: dict[str, str] = {}
    error: str = ""


def trace(
    actor: Actor, contract: Contract, inputs: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The gate's observations and the network's answers, one row a step; and `RECURRENT_STEPS` in a row, a memory carried along."""
    sequences = list(inputs.values())
    if actor.memory_size:
        sequences.append(random_observations(actor, RECURRENT_STEPS, rng))
    rows = np.concatenate(sequences)
    actions = np.concatenate([network_actions(actor, sequence) for sequence in sequences])
    fresh = np.zeros(len(rows), dtype=np.int64)
    fresh[np.cumsum([0, *map(len, sequences)])[:-1]] = 1
    targets = joint_targets(contract, rows, actions).astype(np.float32)
    return {OBSERVATION: rows, ACTIONS: actions, JOINT_TARGETS: targets, "fresh": fresh}


def check_backends(data: bytes, steps: dict[str, np.ndarray]) -> Report:
    """Hold every backend of this machine against the network's answers.

    Args:
        data: The bytes of policy.onnx.
        steps: From `trace`.

    Raises:
        BackendError: A backend differs, none but onnxruntime ran, or the process did not answer.
    """
    packed = io.BytesIO()
    np.savez(packed, **steps)  # type: ignore[arg-type]
    case = struct.pack("<Q", len(data)) + data + packed.getvalue()
    command = [sys.executable, "-m", "robot.onboard.crosscheck"]
    root = Path(__file__).resolve().parents[2]  # not the user's folder, whose files would be imported instead of ours
    try:
        done = subprocess.run(command, input=case, capture_output=True, timeout=TIMEOUT_S, check=False, cwd=root)
        report = msgspec.json.decode(done.stdout, type=Report)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"the robot's backends took more than {TIMEOUT_S:g} s") from error
    except msgspec.MsgspecError as error:
        words = done.stderr[-500:].decode(errors="replace").strip()
        raise BackendError(f"the robot's backends did not answer (exit code {done.returncode}): {words}") from error
    if report.error:
        raise BackendError(f"the robot would not read this file: {report.error}")
    for what, seen, tolerance in (
        ("actions", report.actions, ACTION_TOLERANCE),
        ("joint targets", report.targets_rad, TARGET_TOLERANCE_RAD),
    ):
        wrong = {name: worst for name, worst in seen.items() if worst is None or not worst <= tolerance}
        if wrong:
            raise BackendError(
                f"{what} of the robot's backends and of the network differ by more than {tolerance:g}: {wrong}"
            )
    if "numpy" not in report.actions:
        raise BackendError(f"no backend of the robot ran: {report.absent}")
    return report


def sentence(report: Report, steps: dict[str, np.ndarray]) -> str:
    """What the card says about it."""
    apart = ", ".join(f"{name} {worst:.2g}" for name, worst in report.actions.items())
    absent = f" Not on this machine: {', '.join(report.absent)}." if report.absent else ""
    carried = f", {RECURRENT_STEPS} steps in a row among them" if len(steps[OBSERVATION]) > RECURRENT_STEPS else ""
    return f"The robot's backends against the network over {len(steps[OBSERVATION])} steps{carried}: {apart}.{absent}"
