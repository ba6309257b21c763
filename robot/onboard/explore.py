"""Exploration on the robot: a diagonal Gaussian around the policy's mean action, and its log density for the learner."""

from math import log, nan, pi

import numpy as np

from robot.errors import FlexorError


class ExplorationError(FlexorError, ValueError):
    """A standard deviation that no Gaussian has."""


def checked_std(std: np.ndarray | tuple[float, ...], size: int) -> np.ndarray:
    """Standard deviations as float64, shape (size,).

    Raises:
        ExplorationError: Another shape, a NaN, a negative one, or some but not all zero.
    """
    std = np.asarray(std, dtype=np.float64)
    if std.shape != (size,):
        raise ExplorationError(f"std needs one number per action, shape ({size},), got {std.shape}")
    if not (np.isfinite(std).all() and (std >= 0.0).all()):
        raise ExplorationError(f"std must be finite and >= 0, got {std.tolist()}")
    if std.any() and not std.all():
        raise ExplorationError(f"std must be > 0 everywhere or 0 everywhere, got {std.tolist()}")
    return std


def sample(mean: np.ndarray, std: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
    """An action and its log density.

    Args:
        mean: Mean action of the policy, shape (n_actions,).
        std: Standard deviations, shape (n_actions,); all zero to act without noise.
        noise: Drawn from N(0, 1) for this action, shape (n_actions,).

    Returns:
        The action as it is recorded, float32, before any clipping; and log N(action; mean, std^2), NaN without noise.
    """
    if not std.any():
        return mean.astype(np.float32), nan
    action = (mean + std * noise).astype(np.float32)
    return action, log_density(action, mean, std)


def log_density(action: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
    """log N(action; mean, diag(std^2)) = -1/2 sum(z^2 + log(2 pi)) - sum(log std), z = (action - mean) / std."""
    z = (np.asarray(action, dtype=np.float64) - mean) / std
    return float(-0.5 * (z @ z) - np.log(std).sum() - 0.5 * len(z) * log(2.0 * pi))
