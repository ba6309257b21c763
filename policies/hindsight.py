"""Hindsight: wherever the hand has been is where it could have been asked to go (Andrychowicz 2017; Ghosh 2021).

Of any two moments a and b of its own experience, the learner knows a goal (where the tips were at b) and joint moves that would have
led there from a. Nothing but its own motion teaches it: no kinematic model, no demonstrations. It applies to contracts that observe
`tip_position`, `goal_error`, `joint_position`, `joint_velocity` and `joint_target`, and act by relative joint targets.

The label is  clip((q_b - q_a - m (target_a - q_a)) / scale, -1, 1)  with  m = |qd_a| / (|qd_a| + v0):  a joint that moves will still
travel to its target, so that way is taken off; one that rests short of its target rests against friction and load, and stays so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.networks import Actor
from robot.contract import Contract

NEEDED_TERMS = ("joint_position", "joint_velocity", "joint_target", "tip_position", "goal_error")
AT_REST_RAD_S = 0.3  # v0: encoder noise of 1 mrad at 25 Hz is a tenth of it, a purposeful move ten times


@dataclass(frozen=True, kw_only=True)
class HindsightConfig:
    """How much is learned in hindsight.

    Attributes:
        steps: Gradient steps per iteration; 0 switches it off.
        batch: Pairs per gradient step.
        memory: Observations kept to draw pairs from.
        near: Share of pairs that lie a few steps apart in one episode, where precision is learned.
        near_steps: At most this many control steps apart.
        learning_rate: Of its own optimiser.
    """

    steps: int = 80
    batch: int = 512
    memory: int = 50_000
    near: float = 0.9
    near_steps: int = 5
    learning_rate: float = 1e-3


def applies(contract: Contract) -> bool:
    """Whether a contract has what hindsight needs."""
    return contract.action.mode == "relative" and set(NEEDED_TERMS) <= set(contract.slices)


class Hindsight:
    """Keeps past observations and teaches an actor on pairs of them.

    Args:
        actor: Its mean is taught; its noise is the other learner's business.
        contract: One that `applies`.
        stride: Rows from one moment to the next of the same robot: the number of environments that are interleaved.
    """

    def __init__(self, actor: Actor, contract: Contract, config: HindsightConfig, stride: int) -> None:
        self._actor, self._config, self._stride = actor, config, stride
        self._slices = contract.slices
        self._scale = torch.tensor(contract.action.scale_rad, dtype=torch.float32)
        self.memory = torch.zeros(0, contract.observation_size)
        body = [*actor.body.parameters(), *actor.head.parameters()]
        self.optimizer = torch.optim.Adam(body, lr=config.learning_rate, foreach=True)

    def remember(self, observation: Tensor) -> None:
        """Add observations in order of (step, robot), shape (steps * stride, n); the oldest beyond the limit are dropped."""
        self.memory = torch.cat([self.memory, observation])[-self._config.memory :]

    def pairs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Observations relabelled with goals from hindsight, and the actions towards them."""
        config, n = self._config, self.memory.shape[0]
        first = torch.randint(n, (config.batch,), generator=generator)
        anywhere = torch.randint(n, (config.batch,), generator=generator)
        ahead = 1 + torch.randint(config.near_steps, (config.batch,), generator=generator)
        nearby = (first + ahead * self._stride).clamp(max=n - 1)
        near = torch.rand(config.batch, generator=generator) < config.near
        return relabelled(
            self.memory[first], self.memory[torch.where(near, nearby, anywhere)], self._slices, self._scale
        )

    def learn(self, generator: torch.Generator) -> float:
        """Some gradient steps on fresh pairs; the mean squared error of the actions."""
        total = 0.0
        for _ in range(self._config.steps):
            observation, action = self.pairs(generator)
            loss = (self._actor.mean(observation) - action).square().mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / max(self._config.steps, 1)


def relabelled(a: Tensor, b: Tensor, slices: dict[str, slice], scale_rad: Tensor) -> tuple[Tensor, Tensor]:
    """The observation at a with the tips of b as its goal, and the action from a towards the joints of b.

    Args:
        a, b: Observations, shape (n, observation_size).
        slices: Where the contract's terms are.
        scale_rad: Radians per unit of action, shape (n_actions,).
    """
    q_a, q_b = a[:, slices["joint_position"]], b[:, slices["joint_position"]]
    speed = a[:, slices["joint_velocity"]].abs()
    travel = (a[:, slices["joint_target"]] - q_a) * speed / (speed + AT_REST_RAD_S)
    action = ((q_b - q_a - travel) / scale_rad).clamp(-1.0, 1.0)
    observation = a.clone()
    observation[:, slices["goal_error"]] = b[:, slices["tip_position"]] - a[:, slices["tip_position"]]
    return observation, action
