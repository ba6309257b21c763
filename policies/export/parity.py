"""The gate: the exported file against the network it came from, on recorded, random and extreme observations."""

from dataclasses import dataclass

import numpy as np
import torch

from policies.artifact import PolicyFile
from policies.export.errors import ParityError
from policies.export.graph import joint_targets
from policies.networks import Actor
from policies.normalizer import CLIP_SIGMA
from robot.artifacts import ACTIONS, JOINT_TARGETS
from robot.contract import Contract

# float32 sums of a few hundred products differ by some 1e-6 with the order of summation; 1e-5 is what the field checks.
ACTION_TOLERANCE = 1e-5
# A target of 3 rad in float32 is exact to 2e-7 rad; 0.01 mrad is 1/150 of a step of a 12-bit encoder.
TARGET_TOLERANCE_RAD = 1e-5

RANDOM_INPUTS = 256
RECORDED_INPUTS = 512  # at most, evenly spread
FAR = 1e6  # an absurd reading in any unit of ours


@dataclass(frozen=True)
class Parity:
    """What the gate saw: the number of inputs, and the largest differences over all of them."""

    inputs: int
    action_difference: float
    target_difference_rad: float


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly spread, first and last included."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def random_observations(actor: Actor, count: int, rng: np.random.Generator) -> np.ndarray:
    """Observations around what training saw: normal, twice as wide, shape (count, n), float32."""
    mean, std = actor.normalizer.mean.numpy(), actor.normalizer.var.sqrt().numpy()
    return (mean + 2.0 * std * rng.standard_normal((count, actor.observation_size))).astype(np.float32)


def extreme_observations(actor: Actor, rng: np.random.Generator) -> np.ndarray:
    """All-zero, all at and beyond the term ranges, at and beyond the normaliser's clip, and corners of mixed sign; float32."""
    n = actor.observation_size
    mean, std = actor.normalizer.mean.numpy(), actor.normalizer.var.sqrt().numpy()
    low = np.maximum(actor.inputs.low.numpy(), -FAR)
    high = np.minimum(actor.inputs.high.numpy(), FAR)
    signs = rng.choice([-1.0, 1.0], size=(16, n))
    rows = [
        np.zeros((1, n)),
        np.stack([low, high, 2.0 * low - 1.0, 2.0 * high + 1.0]),
        np.full((2, n), [[FAR], [-FAR]]),
        mean + np.array([[1.0], [-1.0], [1.5], [-1.5]]) * CLIP_SIGMA * std,
        FAR * signs,
        mean + CLIP_SIGMA * std * signs,
    ]
    return np.concatenate(rows).astype(np.float32)


def gate_inputs(actor: Actor, recorded: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The observations of the gate by where they are from, each of shape (k, n), float32."""
    return {
        "recorded": spread(recorded, RECORDED_INPUTS),
        "random": random_observations(actor, RANDOM_INPUTS, rng),
        "extreme": extreme_observations(actor, rng),
    }


def check_parity(data: bytes, actor: Actor, contract: Contract, inputs: dict[str, np.ndarray]) -> Parity:
    """Run the file and the network on the same observations.

    Actions are compared absolutely within -1..1, which is all that reaches a robot, and relative to their size beyond; joint
    targets absolutely.

    Args:
        data: The bytes of policy.onnx.
        inputs: Observations by where they are from, as from `gate_inputs`.

    Raises:
        ParityError: A difference above the tolerance, or NaN; names the input, the output and both values.
    """
    policy = PolicyFile.from_bytes(data)
    worst = {ACTIONS: 0.0, JOINT_TARGETS: 0.0}
    for source, rows in inputs.items():
        actions = network_actions(actor, rows)
        seen, memory = [], policy.initial_memory
        for row in rows:  # a memory is carried from row to row, as on a robot
            action, target, memory = policy.step(row, memory)
            seen.append((action, target))
        size = np.maximum(
            1.0, np.abs(actions)
        )  # beyond -1..1 an action is clipped, so only its relative error is bounded
        targets = joint_targets(contract, rows, actions)
        for output, tolerance, expected, got, scale in (
            (ACTIONS, ACTION_TOLERANCE, actions.astype(np.float64), np.array([a for a, _ in seen]), size),
            (JOINT_TARGETS, TARGET_TOLERANCE_RAD, targets, np.array([t for _, t in seen]), 1.0),
        ):
            difference = np.abs(expected - got) / scale
            difference = np.where(np.isnan(difference), np.inf, difference)
            worst[output] = max(worst[output], float(difference.max()))
            if worst[output] > tolerance:
                row, element = np.unravel_index(int(difference.argmax()), difference.shape)
                raise ParityError(
                    output=output,
                    element=int(element),
                    source=source,
                    row=int(row),
                    expected=float(expected[row, element]),
                    seen=float(got[row, element]),
                    tolerance=tolerance,
                )
    return Parity(sum(map(len, inputs.values())), worst[ACTIONS], worst[JOINT_TARGETS])


@torch.no_grad()
def network_actions(actor: Actor, rows: np.ndarray) -> np.ndarray:
    """The network's own answers, one after another where it remembers, shape (k, n_act)."""
    observations = torch.tensor(rows)
    if not actor.memory_size:
        return actor.mean(observations).numpy()
    fresh = torch.zeros(len(rows), 1, dtype=torch.bool)
    return actor.unroll(observations[:, None], actor.initial_memory(1), fresh)[:, 0].numpy()
