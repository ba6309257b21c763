"""An exported policy as networks that can learn on: `flexor train ENV --init body_walk` begins with what ships, without its run.

A file holds the actor's weights and what normalises its inputs, under the names torch gives them. It holds no critic and no noise: values
are learned afresh, and the noise begins as after imitation.
"""

from math import log
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from policies import checkpoint as checkpoints
from policies.artifact import PolicyFile
from policies.checkpoint import Checkpoint
from policies.export.parity import network_actions, random_observations
from policies.imitate import NOISE
from policies.networks import Actor
from policies.normalizer import VARIANCE_EPS
from policies.transplant import TransplantError
from robot.artifacts import find_artifact

PROBES = 32  # observations on which network and file must answer alike
ALIKE = 1e-4  # float32 sums in two orders, and a variance that has been through a square root


def beginning(where: Path) -> Checkpoint:
    """What a run can begin with: another run, or an artifact.

    Args:
        where: The folder of a run, or an artifact's folder or name, as `body_walk` or `body_walk/v2`.

    Raises:
        UnknownNameError: Neither; the message lists the artifacts.
        CheckpointError, ArtifactFileError, TransplantError: As their names say.
    """
    if (where / checkpoints.TRAINING_FILE).is_file():
        return checkpoints.load(where)
    return networks_of(PolicyFile.load(find_artifact(where)))


@torch.no_grad()
def networks_of(policy: PolicyFile) -> Checkpoint:
    """The actor in an exported file, as a checkpoint without a critic.

    Raises:
        TransplantError: The file does not say how it was trained, or its graph is none of plain layers.
    """
    training, contract = policy.training, policy.contract
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(policy.data).graph.initializer}
    try:
        config = training["config"]
        actor = Actor.for_contract(contract, hidden=config["hidden"], activation=config["activation"])
        mine = dict(actor.named_parameters())
        for name in mine.keys() - {"log_std"}:
            mine[name].copy_(torch.from_numpy(weights[name].copy()))
        statistics = actor.normalizer
        statistics.mean.copy_(torch.from_numpy(weights["normalizer.shift"][0].astype(np.float64)))
        variance = weights["normalizer.gain"][0].astype(np.float64) ** -2 - VARIANCE_EPS
        statistics.var.copy_(torch.from_numpy(np.maximum(variance, 0.0)))
        statistics.count.fill_(float(training["steps"]))
    except (KeyError, RuntimeError) as error:
        raise TransplantError(
            f"{policy.label} cannot be learned on: {type(error).__name__}: {error}; expected plain layers in float32 and a record of "
            "its training; do: begin with the run it came from"
        ) from error
    actor.log_std.fill_(log(NOISE))
    probes = random_observations(actor, PROBES, np.random.default_rng(0))
    file_actions = np.array([policy.run(probe)[0] for probe in probes])
    worst = float(np.abs(file_actions - network_actions(actor, probes)).max())
    if not worst <= ALIKE:
        raise TransplantError(
            f"{policy.label} cannot be learned on: its layers as networks answer otherwise by {worst:.2g}, allowed {ALIKE:.0e}"
        )
    return Checkpoint(
        actor=actor,
        contract=contract,
        recorded_observations=probes,
        training=training,
        counters={},
        generators={},
    )
