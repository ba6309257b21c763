"""The networks: an actor that gives a Gaussian over actions, and critics. Observations go in as the contract has them, in SI units.

Each network clips to the contract's term ranges and normalises by itself: nothing around it has to be remembered. Gaussians are
written out, because `torch.distributions` costs more per call than a network of this size.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log, pi, sqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from policies.normalizer import Normalizer
from robot.contract import Contract
from robot.errors import UnknownNameError

Squash = Literal["none", "tanh"]
Range = Sequence[float] | np.ndarray | None

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
SQUASHES = ("none", "tanh")

WIDENING = 2  # of a residual block's inside; SimBa has 4, which costs more than it brings on one core
HIDDEN_GAIN = sqrt(2.0)  # orthogonal gain of rectifier-like layers (Saxe et al. 2014; Andrychowicz et al. 2021, C59)
MEAN_GAIN = 0.01  # first actions near zero whatever is observed (Andrychowicz et al. 2021, C57)
STD_MIN = 0.01  # of an action of -1..1: below it log-probability ratios of PPO explode
STD_MAX = 1.0  # above it more than 30 % of the actions are clipped and noise is nearly bang-bang
LOG_STD_MIN, LOG_STD_MAX = log(STD_MIN), log(STD_MAX)
VALUE_STD_MIN = 1e-3  # of a critic's values: rewards that never differ must not be blown up to noise
LOG_SQRT_2PI = 0.5 * log(2.0 * pi)


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with an orthogonal matrix times `gain` and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: str, layer_norm: bool = False) -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1], each followed by [LayerNorm and] the activation.

    Raises:
        UnknownNameError: No activation of that name; the message lists the known ones.
    """
    if activation not in ACTIVATIONS:
        raise UnknownNameError("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers.append(linear(inputs, outputs, HIDDEN_GAIN))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """x + f(LayerNorm(x)), f two linear layers with `WIDENING` times the width between them: a block of SimBa (Lee et al. 2025)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width),
            linear(width, WIDENING * width, HIDDEN_GAIN),
            nn.ReLU(),
            linear(WIDENING * width, width, 1.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def residual_mlp(inputs: int, width: int, blocks: int) -> nn.Sequential:
    """A linear layer, residual blocks, LayerNorm: from `inputs` to `width` features."""
    layers = [linear(inputs, width, 1.0), *(Residual(width) for _ in range(blocks)), nn.LayerNorm(width)]
    return nn.Sequential(*layers)


def elementwise_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of each of several independent Gaussians, shape (..., n)."""
    z = (action - mean) * torch.exp(-log_std)
    return -(0.5 * z.square() + log_std + LOG_SQRT_2PI)


def gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of independent Gaussians, summed over the last axis, shape (...)."""
    return elementwise_log_prob(action, mean, log_std).sum(dim=-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """KL(first || other) of independent Gaussians, summed over the last axis, shape (...)."""
    ratio = torch.exp(2.0 * (log_std - other_log_std))
    z = (mean - other_mean) * torch.exp(-other_log_std)
    return (other_log_std - log_std + 0.5 * (ratio + z.square() - 1.0)).sum(dim=-1)


class Inputs(nn.Module):
    """Clips observations to the ranges they were trained for, then normalises them.

    Args:
        size: Observation elements.
        low, high: Range of each element, in its unit; None means unlimited.
    """

    low: Tensor
    high: Tensor

    def __init__(self, size: int, low: Range = None, high: Range = None) -> None:
        super().__init__()
        for name, values, unlimited in (("low", low, -torch.inf), ("high", high, torch.inf)):
            limit = torch.full((size,), unlimited) if values is None else torch.tensor(np.asarray(values, np.float32))
            if limit.shape != (size,):
                raise ValueError(f"{name} must have shape ({size},), got {tuple(limit.shape)}")
            self.register_buffer(name, limit)
        if not bool((self.low <= self.high).all()):
            raise ValueError(f"low must be <= high, got low {self.low.tolist()}, high {self.high.tolist()}")
        self.normalizer = Normalizer(size)

    def clip(self, observation: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(observation, self.low), self.high)

    def forward(self, observation: Tensor) -> Tensor:
        return self.normalizer(self.clip(observation))

    def update(self, observation: Tensor) -> None:
        """Take observations of shape (n, size) into the normaliser's statistics, clipped as `forward` clips them."""
        self.normalizer.update(self.clip(observation))


class Actor(nn.Module):
    """Gaussian policy: clip, normalise, MLP, linear mean [, tanh]; one standard deviation per action, the same everywhere.

    Actions are meant for -1..1; whoever applies one clips it (the contract does).

    Args:
        observation_size, action_size: Widths.
        hidden: Widths of the hidden layers.
        activation: One of `ACTIVATIONS`.
        low, high: Range of each observation element, shape (observation_size,).
        initial_std: Standard deviation of the actions at the start, STD_MIN..STD_MAX.
        squash: "tanh" bounds the mean to -1..1.
        layer_norm: LayerNorm before each activation.
        memory: Width of a GRU cell behind the hidden layers, 0 for none. Its state is explicit: whoever acts carries it.
        blocks: Residual blocks of the last hidden width instead of the hidden layers, 0 for none.
        state_std: The noise depends on the observation and is added before the tanh, as soft actor-critic has it.

    Raises:
        UnknownNameError: Unknown activation or squash.
        ValueError: initial_std out of range, or low/high of the wrong shape.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = (256, 128),
        activation: str = "elu",
        low: Range = None,
        high: Range = None,
        initial_std: float = 0.5,
        squash: Squash = "none",
        layer_norm: bool = False,
        memory: int = 0,
        blocks: int = 0,
        state_std: bool = False,
    ) -> None:
        super().__init__()
        if squash not in SQUASHES:
            raise UnknownNameError("squash", squash, SQUASHES)
        if not STD_MIN <= initial_std <= STD_MAX:
            raise ValueError(f"initial_std must be {STD_MIN}..{STD_MAX}, got {initial_std}")
        # What `Actor(**config)` needs to build the same network again; low and high are buffers, in the state dict.
        self.config = {
            "observation_size": observation_size,
            "action_size": action_size,
            "hidden": list(hidden),
            "activation": activation,
            "initial_std": initial_std,
            "squash": squash,
            "layer_norm": layer_norm,
            "memory": memory,
            "blocks": blocks,
            "state_std": state_std,
        }
        self.observation_size, self.action_size, self.squash = observation_size, action_size, squash
        self.memory_size = memory
        self.inputs = Inputs(observation_size, low, high)
        width = hidden[-1] if hidden else observation_size
        if blocks:
            self.body = residual_mlp(observation_size, width, blocks)
        else:
            self.body = mlp((observation_size, *hidden), activation, layer_norm)
        if memory:
            self.body.append(nn.GRUCell(width, memory))
        self.head = linear(memory or width, action_size, MEAN_GAIN)
        self.log_std = nn.Parameter(torch.full((action_size,), log(initial_std)))
        self.std_head = linear(memory or width, action_size, MEAN_GAIN) if state_std else None

    @staticmethod
    def for_contract(contract: Contract, **config) -> "Actor":
        """An actor with the widths and ranges of a contract; `config` as for `Actor`."""
        low, high = contract.observation_low, contract.observation_high
        return Actor(contract.observation_size, contract.action_size, low=low, high=high, **config)

    @property
    def normalizer(self) -> Normalizer:
        return self.inputs.normalizer

    def update_normalizer(self, observation: Tensor) -> None:
        """Take observations of shape (n, observation_size) into the normaliser's statistics."""
        self.inputs.update(observation)

    def mean(self, observation: Tensor) -> Tensor:
        """The deterministic action, shape (..., action_size); with a memory, that of an episode's first step."""
        return self._mean(self.body(self.inputs(observation)))

    forward = mean

    def _mean(self, features: Tensor) -> Tensor:
        mean = self.head(features)
        return torch.tanh(mean) if self.squash == "tanh" else mean

    def initial_memory(self, n: int) -> Tensor:
        """The state at an episode's start: zeros, shape (n, memory_size)."""
        return torch.zeros(n, self.memory_size)

    def step(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The deterministic actions, shape (n, action_size), and the states that follow, shape (n, memory_size)."""
        if not self.memory_size:
            return self.mean(observation), memory
        memory = self.body[-1](self.body[:-1](self.inputs(observation)), memory)
        return self._mean(memory), memory

    def explore(self, observation: Tensor, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions with standard normal `noise` made the policy's own, deterministic actions, and the states that follow."""
        if self.std_head is None:
            mean, memory = self.step(observation, memory)
            return mean + torch.exp(self.bounded_log_std) * noise, mean, memory
        raw, log_std = self._raw(observation)
        return torch.tanh(raw + torch.exp(log_std) * noise), torch.tanh(raw), memory

    def _raw(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, shape (n, action_size) each."""
        assert self.std_head is not None
        features = self.body(self.inputs(observation))
        log_std = (self.log_std + self.std_head(features)).clamp(LOG_STD_MIN, LOG_STD_MAX)
        return self.head(features), log_std

    def sample_squashed(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions within -1..1, shape (n, action_size), and their log density, shape (n,); gradients pass through both."""
        raw, log_std = self._raw(observation)
        noise = torch.randn(raw.shape, generator=generator)
        sample = raw + torch.exp(log_std) * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), which keeps its digits where tanh has none left
        squashing = 2.0 * (log(2.0) - sample - nn.functional.softplus(-2.0 * sample))
        log_prob = -(0.5 * noise.square() + log_std + LOG_SQRT_2PI + squashing).sum(dim=-1)
        return torch.tanh(sample), log_prob

    def unroll(self, observation: Tensor, memory: Tensor, fresh: Tensor) -> Tensor:
        """Deterministic actions over a stretch of time, shape (t, n, action_size).

        Args:
            observation: shape (t, n, observation_size).
            memory: State before the first step, shape (n, memory_size).
            fresh: Where an episode begins and the state is zero, shape (t, n), bool.
        """
        if not self.memory_size:
            return self.mean(observation)
        features, cell, states = self.body[:-1](self.inputs(observation)), self.body[-1], []
        kept = (~fresh).float().unsqueeze(-1)
        for t in range(observation.shape[0]):
            memory = cell(features[t], memory * kept[t])
            states.append(memory)
        return self._mean(torch.stack(states))

    @property
    def bounded_log_std(self) -> Tensor:
        """Log standard deviation within LOG_STD_MIN..LOG_STD_MAX, shape (action_size,).

        The gradient passes the bound, so a parameter that has crossed it can come back (a plain clamp would keep it for ever).
        """
        return self.log_std + (self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX) - self.log_std).detach()

    @property
    def std(self) -> Tensor:
        """Standard deviation per action, shape (action_size,)."""
        return torch.exp(self.bounded_log_std)

    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, shape (..., action_size), and log standard deviation, shape (action_size,)."""
        return self.mean(observation), self.bounded_log_std

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log density of unclipped actions, shape (...)."""
        return gaussian_log_prob(action, *self.distribution(observation))

    def entropy(self) -> Tensor:
        """Entropy of the Gaussian [nat], a scalar: it is the same for every observation."""
        return (self.bounded_log_std + 0.5 + LOG_SQRT_2PI).sum()

    @torch.no_grad()
    def act(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample actions: (unclipped actions, shape (..., action_size); their log density, shape (...))."""
        mean, log_std = self.distribution(observation)
        noise = torch.randn(mean.shape, generator=generator)
        log_prob = -(0.5 * noise.square() + log_std + LOG_SQRT_2PI).sum(dim=-1)
        return mean + torch.exp(log_std) * noise, log_prob


class Critic(nn.Module):
    """State values: clip, normalise, MLP, one number per credit group. May be given more than the actor sees; its ranges are its own.

    What the network itself gives has zero mean and unit variance over the values it was shown, whatever the rewards' scale; `rescale`
    keeps the values as they are while that scale follows (van Hasselt et al. 2016, PopArt).
    """

    value_mean: Tensor
    value_std: Tensor

    def __init__(
        self,
        observation_size: int,
        hidden: Sequence[int] = (256, 128),
        activation: str = "elu",
        low: Range = None,
        high: Range = None,
        layer_norm: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        # As `Actor.config`: what `Critic(**config)` needs; low and high are buffers.
        self.config = {
            "observation_size": observation_size,
            "hidden": list(hidden),
            "activation": activation,
            "layer_norm": layer_norm,
            "outputs": outputs,
        }
        self.inputs = Inputs(observation_size, low, high)
        self.body = mlp((observation_size, *hidden), activation, layer_norm)
        self.head = linear(hidden[-1] if hidden else observation_size, outputs, 1.0)
        self.register_buffer("value_mean", torch.zeros(outputs))
        self.register_buffer("value_std", torch.ones(outputs))

    @property
    def normalizer(self) -> Normalizer:
        return self.inputs.normalizer

    def update_normalizer(self, observation: Tensor) -> None:
        """Take observations of shape (n, observation_size) into the normaliser's statistics."""
        self.inputs.update(observation)

    @torch.no_grad()
    def rescale(self, values: Tensor, rate: float) -> None:
        """Move the scale towards that of some values, shape (n, outputs), by `rate` 0..1; what `forward` gives stays the same."""
        mean = self.value_mean + rate * (values.mean(dim=0) - self.value_mean)
        square = self.value_std.square() + self.value_mean.square()
        square = square + rate * (values.square().mean(dim=0) - square)
        std = (square - mean.square()).clamp(min=VALUE_STD_MIN**2).sqrt()
        self.head.weight.mul_((self.value_std / std)[:, None])
        self.head.bias.copy_((self.value_std * self.head.bias + self.value_mean - mean) / std)
        self.value_mean.copy_(mean)
        self.value_std.copy_(std)

    def forward(self, observation: Tensor) -> Tensor:
        """Values, shape (..., outputs)."""
        return self.value_mean + self.value_std * self.head(self.body(self.inputs(observation)))


class QCritic(nn.Module):
    """Action value: clip and normalise what is seen, append the action, network with LayerNorm, one number per credit group.

    LayerNorm bounds what the value can extrapolate to on actions nobody took (Ball et al. 2023), which learning from shared
    experience needs.

    Args:
        blocks: Residual blocks of the last hidden width instead of the hidden layers, 0 for none.
        outputs: Credit groups.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        low: Range = None,
        high: Range = None,
        layer_norm: bool = True,
        blocks: int = 0,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(observation_size, low, high)
        width = observation_size + action_size
        self.body = residual_mlp(width, hidden[-1], blocks) if blocks else mlp((width, *hidden), activation, layer_norm)
        self.head = linear(hidden[-1] if hidden else width, outputs, 1.0)

    @property
    def normalizer(self) -> Normalizer:
        return self.inputs.normalizer

    def update_normalizer(self, observation: Tensor) -> None:
        """Take observations of shape (n, observation_size) into the normaliser's statistics."""
        self.inputs.update(observation)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values, shape (..., outputs)."""
        return self.head(self.body(torch.cat([self.inputs(observation), action], dim=-1)))
