"""Weights of eight bits: a quarter of the bytes, and only where the task does not suffer and something is gained.

Each row of a weight matrix is kept as int8 and one float32 scale, w = q s, q in -127..127; activations stay float32. Generated C
multiplies it out when it is generated and runs exactly as fast as before; onnxruntime multiplies it out in every call. Dynamic
quantisation of activations is not offered: at 50 Hz it took 313 us where float32 took 201 (docs/artifacts.md).
"""

import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from torch import nn

from policies.export.errors import ExportError
from policies.networks import Actor

if TYPE_CHECKING:  # the graph builder needs the levels only, and no environment
    from policies.evaluate import EvalResult

KEPT_SUCCESS = 0.99  # of the float32 policy's, on the same episodes
STEPS = 127
MEASURED_S = 5.0
BENCH_TIMEOUT_S = 120.0


class QuantizedError(ExportError):
    """Eight bits did not earn their place; the message says what was measured."""


def levels(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 levels of a matrix and the float32 scale of each row: w is about q s, off by at most half a scale."""
    weight = np.asarray(weight, dtype=np.float32)
    scale = (np.abs(weight).max(axis=1) / np.float32(STEPS)).astype(np.float32)
    scale[scale == 0.0] = 1.0
    return np.clip(np.rint(weight / scale[:, None]), -STEPS, STEPS).astype(np.int8), scale


def quantized(actor: Actor) -> Actor:
    """The same network with the weights that eight bits leave: what the file with int8 weights computes."""
    rounded = copy.deepcopy(actor)
    with torch.no_grad():
        for module in rounded.modules():
            for name, weight in module.named_parameters(recurse=False):
                if isinstance(module, nn.Linear | nn.GRUCell | nn.LSTMCell) and weight.ndim == 2:
                    q, scale = levels(weight.numpy())
                    getattr(module, name).copy_(torch.tensor(q.astype(np.float32) * scale[:, None]))
    return rounded


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured of both policies.

    Attributes:
        success: Of float32 and of int8, on the same episodes.
        size_bytes: Of the two files.
        latency_us: Median time of a decision at the control rate with the fastest backend here.
    """

    episodes: int
    success: tuple[float, float]
    size_bytes: tuple[int, int]
    latency_us: tuple[float, float]

    @property
    def reasons(self) -> list[str]:
        """Why the int8 policy may not ship; none where it may."""
        found = []
        if not self.success[1] >= KEPT_SUCCESS * self.success[0]:
            found.append(f"success {100 * self.success[1]:.1f} % is below 99 % of {100 * self.success[0]:.1f} %")
        if not (self.size_bytes[1] < self.size_bytes[0] or self.latency_us[1] < self.latency_us[0]):
            found.append("neither the file is smaller nor a decision faster")
        return found

    def sentence(self) -> str:
        """For the card."""
        (s32, s8), (b32, b8), (t32, t8) = self.success, self.size_bytes, self.latency_us
        return (
            f"int8 weights against float32 over the same {self.episodes} episodes: success {100 * s8:.1f} % against {100 * s32:.1f} %, "
            f"{b8} bytes against {b32}, {t8:.0f} us against {t32:.0f} us a decision at the control rate."
        )


def compare(folders: tuple[Path, Path], results: "tuple[EvalResult, EvalResult]", rate_hz: float) -> Comparison:
    """Put the figures of the float32 and the int8 artifact together; measures the latencies."""
    return Comparison(
        episodes=len(results[0].episodes),
        success=(results[0].success, results[1].success),
        size_bytes=tuple((folder / "policy.onnx").stat().st_size for folder in folders),  # type: ignore[arg-type]
        latency_us=(latency_us(folders[0], rate_hz), latency_us(folders[1], rate_hz)),
    )


class _Cost(msgspec.Struct):
    p50_us: float


def latency_us(folder: Path, rate_hz: float) -> float:
    """Median time of a decision by the robot's runtime, in a process of its own [us].

    Raises:
        QuantizedError: It gave no figure.
    """
    command = [sys.executable, "-m", "robot.onboard.bench", str(folder), "auto", repr(rate_hz), repr(MEASURED_S)]
    done = subprocess.run(command, capture_output=True, timeout=BENCH_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise QuantizedError(f"no latency of {folder}: {done.stderr[-500:].decode(errors='replace')}")
    return msgspec.json.decode(done.stdout, type=_Cost).p50_us
