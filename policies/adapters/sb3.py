"""Our vector environment under Stable-Baselines3's own interface, which predates Gymnasium's and differs in how an episode ends."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sim.vec import WorkerVectorEnv


class SB3VecEnv(VecEnv):
    """A `WorkerVectorEnv` as Stable-Baselines3 wants it: `dones`, and a dictionary for each environment."""

    def __init__(self, envs: WorkerVectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        self._reset_seeds()
        return self.envs.reset(seed=seeds)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.envs.step_async(actions)

    def step_wait(self):
        observation, reward, terminated, truncated, info = self.envs.step_wait()
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": bool(truncated[i] and not terminated[i]), "is_success": bool(info["success"][i])}
            for i in range(self.num_envs)
        ]
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = info["final_obs"][i]
        return observation, reward.astype(np.float32), dones, infos

    def close(self) -> None:
        self.envs.close()

    def env_is_wrapped(self, wrapper_class, indices=None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))

    def get_attr(self, attr_name: str, indices=None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices=None) -> None:
        raise AttributeError("environments in other processes are not changed from here")

    def env_method(self, method_name: str, *args, indices=None, **kwargs) -> list[Any]:
        raise AttributeError("environments in other processes are not called from here")
