"""The mock task behind a Gymnasium face, and what stands where `gymnasium.make` does."""

from dataclasses import replace

import gymnasium
import numpy as np

from robot.contract import Contract
from robot.description import load
from robot.mock import MockReach, reach_contract

MODEL = load("hand22")
CONTRACT = reach_contract(MODEL)


class SmallReach(gymnasium.Env[np.ndarray, np.ndarray]):
    """The mock task; remembers the seeds and settings it was given."""

    def __init__(self, contract: Contract = CONTRACT, **settings) -> None:
        self.contract, self.settings = contract, settings
        self.side = MockReach(MODEL, episode_s=0.4)
        self.interface = contract.bind(MODEL)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (contract.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (contract.action_size,), np.float32)
        self.seeds: list[int | None] = []
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.state, feedback = self.side.reset(int(self.np_random.integers(2**31)))
        self.memory = self.interface.memory(feedback.goal)
        return self.interface.observe(self.state, self.memory), {"goal": feedback.goal}

    def step(self, action):
        self.state, feedback = self.side.step(self.interface.command(action, self.state))
        self.memory = replace(self.memory, previous_action=np.clip(action, -1.0, 1.0).astype(float))
        error_mm = -1e3 * float(feedback.reward_terms.sum())
        info = {"is_success": error_mm < 45.0, "metrics": {"tip_error_mm": error_mm, "energy_j": 2.0}}
        observation = self.interface.observe(self.state, self.memory)
        return observation, float(feedback.reward_terms.sum()), feedback.terminated, feedback.truncated, info

    def close(self):
        self.closed = True


class Maker:
    """Stands where `gymnasium.make` does, and keeps what it made."""

    def __init__(self, contract: Contract = CONTRACT) -> None:
        self.contract, self.made, self.ids = contract, [], []

    def __call__(self, env_id, **settings):
        self.ids.append(env_id)
        self.made.append(SmallReach(self.contract, **settings))
        return self.made[-1]
