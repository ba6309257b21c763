"""golden.npz: observations and what the file answered when it was exported, under the graph's own names.

A robot replays them at start: another CPU, another onnxruntime or generated code must give the same answers.
"""

import io

import numpy as np

from policies.artifact import PolicyFile
from policies.export.parity import random_observations, spread
from policies.networks import Actor
from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION, STATE_IN, STATE_OUT

SAMPLES = 64
RECORDED_SHARE = 0.5


def golden_samples(
    policy: PolicyFile, actor: Actor, recorded: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Inputs and answers, float32, the first axis counts the samples: recorded ones first, random ones after.

    Of a policy with a memory they are one trace: each sample has the state that the one before it left, and the state it leaves.
    """
    kept = spread(recorded, int(SAMPLES * RECORDED_SHARE))
    observations = np.concatenate([kept, random_observations(actor, SAMPLES - len(kept), rng)])
    memory, before, answers = policy.initial_memory, [], []
    for row in observations:
        before.append(memory)
        action, target, memory = policy.step(row, memory)
        answers.append((action, target, memory))
    samples = {
        OBSERVATION: observations,
        ACTIONS: np.array([action for action, _, _ in answers]),
        JOINT_TARGETS: np.array([target for _, target, _ in answers]),
    }
    if policy.memory_size:
        samples |= {STATE_IN: np.array(before), STATE_OUT: np.array([after for *_, after in answers])}
    return samples


def to_bytes(samples: dict[str, np.ndarray]) -> bytes:
    """The bytes of golden.npz; the same samples give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **samples)  # type: ignore[arg-type]
    return buffer.getvalue()
