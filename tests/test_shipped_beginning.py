"""Beginning with an exported policy: the network is the file's, and what cannot be one is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from policies.artifact import PolicyFile
from policies.networks import Actor
from policies.shipped import beginning, networks_of
from policies.transplant import TransplantError, begin_with
from robot.artifacts import DEFAULT_MODELS_DIR
from robot.description import load
from robot.errors import UnknownNameError
from sim.tasks import TASKS

WALK = DEFAULT_MODELS_DIR / "body_walk/v2"


def test_the_networks_of_a_shipped_file_act_like_it_and_carry_on_its_statistics():
    policy = PolicyFile.load(WALK)
    with np.load(WALK / "golden.npz") as golden:
        observations = golden["obs"].copy()
    begun = beginning(Path("body_walk/v2"))
    with torch.no_grad():
        for row in observations[:50]:
            mean = begun.actor.mean(torch.from_numpy(row)[None]).numpy()[0]
            np.testing.assert_allclose(mean, policy.run(row)[0], atol=1e-4)
    assert begun.actor.normalizer.count.item() == policy.training["steps"] > 1e5
    assert begun.critic is None and begun.training["env"] == "flexor/BodyWalk-v0"


def test_another_task_begins_with_them():
    task = TASKS["flexor/BodyPush-v0"](load("body28"))
    contract, begun = task.contract(), beginning(WALK)
    actor = Actor.for_contract(contract, hidden=(256, 128))
    begin_with(actor, None, contract, task.privileged_names, begun, ())
    legs = contract.action.joints.index("left_knee")
    there = begun.contract.action.joints.index("left_knee")
    assert torch.equal(actor.head.weight[legs], begun.actor.head.weight[there])


def test_a_file_that_is_no_plain_network_is_refused(monkeypatch):
    policy = PolicyFile.load(WALK)
    monkeypatch.setitem(policy.__dict__, "properties", {**policy.properties, "flexor.training": "{}"})
    with pytest.raises(TransplantError, match=r"cannot be learned on: KeyError: 'config'.*do: begin with the run"):
        networks_of(policy)
    policy = PolicyFile.load(WALK)
    with monkeypatch.context() as patched:
        patched.setattr("policies.shipped.ALIKE", -1.0)
        with pytest.raises(TransplantError, match="answer otherwise by"):
            networks_of(policy)
    with pytest.raises(UnknownNameError, match=r"body_walk/v2"):
        beginning(Path("body_wlk"))
