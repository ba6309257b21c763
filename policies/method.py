"""What the training loop asks of a learner, whatever it is."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch

from policies.networks import Actor, Critic
from policies.rollout import Trajectory

Tables = dict[str, dict[str, np.ndarray]]


class Method(ABC):
    """A learner.

    Attributes:
        actor: The policy it improves; workers act with copies of it.
        name: As it is written into the artifact.
        horizon: Control steps per environment and iteration.
        losses: Names of the figures `learn` gives.
    """

    actor: Actor
    name: str
    horizon: int
    losses: tuple[str, ...]

    @abstractmethod
    def learn(self, path: Trajectory, generator: torch.Generator) -> dict[str, float]:
        """Improve the policy with what was just lived through.

        Raises:
            FloatingPointError, ValueError: It diverged.
        """

    def begin(self) -> None:  # noqa: B027 - nothing to do for most
        """All environments start anew."""

    def explores_evenly(self, steps: int) -> bool:
        """Whether actions are drawn evenly after so many steps of the run."""
        return False

    @property
    def critic(self) -> Critic | None:
        """State values, where it has them."""
        return None

    @abstractmethod
    def tables(self) -> Tables:
        """Everything else it needs to go on, as arrays."""

    @abstractmethod
    def counters(self) -> dict[str, float]:
        """The same, single numbers."""

    @abstractmethod
    def restore(self, tables: Tables, counters: dict[str, float]) -> None:
        """Go on from there."""

    def save(self, run: Path) -> None:  # noqa: B027 - nothing to do for most
        """Write what is too large for the tables, before the checkpoint is written."""
