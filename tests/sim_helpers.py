"""A seeded rollout as a hash; light, because another process imports it too."""

import hashlib
from dataclasses import fields

import numpy as np

from robot.state import RobotState


def actions(env, steps, seed=3):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, *env.action_space.shape))


def digest(env, seed: int, steps: int) -> str:
    """A hash over everything a seeded rollout shows, episodes following one another."""
    said = hashlib.sha256()
    observation, info = env.reset(seed=seed)
    said.update(observation.tobytes() + info["goal"].tobytes() + repr(sorted(info["randomization"].items())).encode())
    for action in actions(env, steps):
        observation, reward, terminated, truncated, info = env.step(action)
        said.update(
            observation.tobytes() + repr((reward, terminated, truncated, sorted(info["metrics"].items()))).encode()
        )
        for item in fields(RobotState):
            said.update(np.asarray(getattr(env.unwrapped.state, item.name)).tobytes())
        if terminated or truncated:
            said.update(env.reset()[0].tobytes())
    return said.hexdigest()
