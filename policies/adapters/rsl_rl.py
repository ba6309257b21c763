"""Our vector environment under rsl_rl's interface (5.x): observation groups "policy" and, where a task has them, "privileged"."""

from typing import Any

import numpy as np
import torch
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from sim.vec import WorkerVectorEnv


class RslRlVecEnv(VecEnv):
    """A `WorkerVectorEnv` as rsl_rl wants it: tensors, actions clipped, a flag for episodes that time ended, averages for its log.

    rsl_rl bootstraps a time limit from the value of the state before it, so it needs no last observation.
    """

    def __init__(self, envs: WorkerVectorEnv, seed: int = 0) -> None:
        self.envs = envs
        self.num_envs, self.num_actions = envs.num_envs, envs.contract.action_size
        self.max_episode_length = envs.max_steps
        self.episode_length_buf = torch.zeros(envs.num_envs, dtype=torch.long)
        self.device = "cpu"
        self.cfg: dict[str, Any] = {"env_id": envs.contract.env_id, "dt": envs.dt}
        observation, info = envs.reset(seed=seed)
        self._seen = self._groups(observation, info)

    def _groups(self, observation: np.ndarray, info: dict[str, Any]) -> TensorDict:
        groups = {"policy": torch.from_numpy(observation)}
        if "privileged" in info:
            groups["privileged"] = torch.from_numpy(info["privileged"])
        return TensorDict(groups, batch_size=[self.num_envs])

    def get_observations(self) -> TensorDict:
        return self._seen

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.envs.step(
            actions.detach().cpu().clamp(-1.0, 1.0).numpy()
        )
        over = torch.from_numpy(terminated | truncated)
        self.episode_length_buf = torch.where(over, 0, self.episode_length_buf + 1)
        self._seen = self._groups(observation, info)
        extras: dict[str, Any] = {"time_outs": torch.from_numpy(truncated & ~terminated)}
        if over.any():
            rows = over.numpy()
            names = [f"/metrics/{name}" for name in self.envs.metric_names]
            extras["log"] = dict(zip(names, info["metrics"][rows].mean(axis=0).tolist()))
            extras["log"]["/success"] = float(info["success"][rows].mean())
        return self._seen, torch.from_numpy(reward).float(), over.long(), extras

    def close(self) -> None:
        self.envs.close()
