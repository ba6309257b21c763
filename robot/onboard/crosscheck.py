"""Every inference backend of this machine against answers from elsewhere: `python -m robot.onboard.crosscheck` < case > report.

The exporter starts it, so that a file is only written when generated C, onnxruntime and numpy all give what the network gave; it
imports nothing of this package and nothing here imports it. A case is u64 length, policy.onnx, and an .npz of `obs`, `actions` and
`joint_targets`, one row a step; a recurrent state is carried from row to row, and starts anew where `fresh` says so.
"""

import struct
import sys

import msgspec
import numpy as np

from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION
from robot.errors import FlexorError
from robot.onboard.artifact import Artifact, from_bytes, read_golden
from robot.onboard.inference import BACKENDS, make_inference

FRESH = "fresh"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen.

    Attributes:
        actions: By backend, the largest difference in an action, relative above one.
        targets_rad: By backend, the largest difference in a joint target [rad].
        absent: By backend, why it is not here: no compiler, not installed.
        error: Why the file was not even read.
    """

    actions: dict[str, float] = {}
    targets_rad: dict[str, float] = {}
    absent: dict[str, str] = {}
    error: str = ""


def crosscheck(artifact: Artifact, trace: dict[str, np.ndarray]) -> Report:
    """Run a trace through every backend that can be had here."""
    actions, targets, absent = {}, {}, {}
    for name in BACKENDS:
        try:
            policy = make_inference(artifact, name)
        except (FlexorError, ModuleNotFoundError) as error:
            absent[name] = f"{type(error).__name__}: {error}"
            continue
        worst_action = worst_target = 0.0
        for k, row in enumerate(trace[OBSERVATION]):
            if trace[FRESH][k]:
                policy.reset()
            action, target = policy.act(row)
            want = trace[ACTIONS][k].astype(np.float64)
            apart = np.abs(action - want) / np.maximum(np.abs(want), 1.0)
            worst_action = float(np.maximum(worst_action, apart.max()))  # NaN stays
            worst_target = float(np.maximum(worst_target, np.abs(target - trace[JOINT_TARGETS][k]).max()))
        actions[name], targets[name] = worst_action, worst_target
    return Report(
        actions={k: v if np.isfinite(v) else np.inf for k, v in actions.items()},
        targets_rad={k: v if np.isfinite(v) else np.inf for k, v in targets.items()},
        absent=absent,
    )


def main() -> None:
    data = sys.stdin.buffer.read()
    (size,) = struct.unpack_from("<Q", data)
    try:
        report = crosscheck(from_bytes(data[8 : 8 + size]), read_golden(data[8 + size :]))
    except FlexorError as error:
        report = Report(error=f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
