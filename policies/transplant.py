"""Beginning with what another task taught: networks take another run's weights over wherever inputs and outputs mean the same.

An input is the same where term, element and moment have the same names; an output where it moves the same joint about the same posture
by as much. What the other networks did not see begins without influence; what they saw and these do not counts as zero, for which the
first layer's bias is corrected. A body that walks so begins to carry a crate with a walk instead of falling for a million steps.

    flexor train flexor/BodyCarry-v0 --init runs/walk
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from policies.checkpoint import Checkpoint
from policies.networks import Actor, Critic
from policies.normalizer import CLIP_SIGMA
from robot.contract import Contract
from robot.errors import FlexorError


class TransplantError(FlexorError, ValueError):
    """Networks that cannot begin with those of the run: other layers, or nothing in common."""


@torch.no_grad()
def begin_with(
    actor: Actor,
    critic: Critic | None,
    contract: Contract,
    privileged_names: Sequence[str],
    source: Checkpoint,
    source_privileged: Sequence[str],
) -> None:
    """Take over the weights of another run's networks.

    Args:
        actor, critic: The fresh networks.
        contract: Theirs.
        privileged_names: What the critic sees behind the observation.
        source: The other run.
        source_privileged: What its critic saw behind the observation.

    Raises:
        TransplantError: The hidden layers are others, or no input has the same name.
    """
    here, there = inputs_of(contract), inputs_of(source.contract)
    _take(actor.inputs, actor.body, here, source.actor.inputs, source.actor.body, there)
    rows, known = outputs_of(contract), outputs_of(source.contract)
    for i, row in enumerate(rows):
        if row in known:
            j = known.index(row)
            actor.head.weight[i], actor.head.bias[i] = source.actor.head.weight[j], source.actor.head.bias[j]
            actor.log_std[i] = source.actor.log_std[j]
    if critic is None or source.critic is None or critic.head.weight.shape != source.critic.head.weight.shape:
        return
    behind = [("privileged", 0, name) for name in privileged_names]
    behind_there = [("privileged", 0, name) for name in source_privileged]
    other = source.critic
    _take(critic.inputs, critic.body, [*here, *behind], other.inputs, other.body, [*there, *behind_there])
    critic.head.load_state_dict(other.head.state_dict())
    critic.value_mean.copy_(other.value_mean)
    critic.value_std.copy_(other.value_std)


def inputs_of(contract: Contract) -> list[Hashable]:
    """Term, moment and element of each number of the observation."""
    found: list[Hashable] = []
    for term in contract.observation:
        n = term.size // term.history
        found += [(term.name, k, element) for k in range(term.history) for element in term.elements[:n]]
    return found


def outputs_of(contract: Contract) -> list[Hashable]:
    """Joint, scale and posture of each action."""
    action = contract.action
    return list(zip(action.joints, action.scale_rad, action.offset_rad))


def _take(inputs, body: nn.Module, here: list[Hashable], source_inputs, source_body: nn.Module, there: list) -> None:
    """Statistics and layers of one network."""
    mine, theirs = dict(body.named_parameters()), dict(source_body.named_parameters())
    if {k: v.shape[0] for k, v in mine.items()} != {k: v.shape[0] for k, v in theirs.items()}:
        raise TransplantError("the run's networks have other layers; do: the same hidden widths, blocks and memory")
    places = {key: j for j, key in enumerate(there)}
    common = [(i, places[key]) for i, key in enumerate(here) if key in places]
    if not common:
        raise TransplantError("the run's networks saw nothing that these see")
    statistics, known = inputs.normalizer, source_inputs.normalizer
    statistics.count.copy_(known.count)
    for i, key in enumerate(here):
        name, _, element = key  # type: ignore[misc]
        j = places.get(key, places.get((name, 0, element)))  # an earlier moment is spread like the newest
        if j is not None:
            statistics.mean[i], statistics.var[i] = known.mean[j], known.var[j]
    first = next(iter(mine))  # the matrix that the inputs go into
    for name, value in mine.items():
        if name != first:
            value.copy_(theirs[name])
    weight: Tensor = theirs[first]
    mine[first].zero_()
    mine[first][:, [i for i, _ in common]] = weight[:, [j for _, j in common]]
    gone = sorted(set(range(len(there))) - {j for _, j in common})
    at_zero = (-known.shift * known.gain).clamp(-CLIP_SIGMA, CLIP_SIGMA)
    mine[f"{first.rpartition('.')[0]}.bias"] += weight[:, gone] @ at_zero[gone]
