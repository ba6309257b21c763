"""What a simulation worker does: step its environments under a policy and hand back what was lived through.

The policy acts inside the worker, so nothing crosses a process border between two steps and the learner is free to learn meanwhile.
Local processes and Ray actors run this same class (`policies.sampler`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import gymnasium
import numpy as np
import torch

from policies.arrays import Arrays
from policies.networks import Actor
from robot.contract import Contract
from sim.tasks import Task
from sim.tasks.task import Credit

Mode = Literal["explore", "even", "mean"]


@dataclass(frozen=True, kw_only=True)
class EnvFacts:
    """What a learner must know of an environment.

    Attributes:
        contract: Interface of its policies.
        reward_names, metric_names, credit: As the task has them.
        privileged_names: What only a critic may see, by element.
        dt_s: One control step.
        max_steps: Control steps until truncation.
        levels: Of the task, from easy to hard; none where there is only one.
    """

    contract: Contract
    reward_names: tuple[str, ...]
    metric_names: tuple[str, ...]
    credit: tuple[Credit, ...]
    privileged_names: tuple[str, ...]
    dt_s: float
    max_steps: int
    levels: tuple[str, ...] = ()

    @staticmethod
    def of(env_id: str, settings: dict[str, Any]) -> "EnvFacts":
        """Look at one environment.

        Raises:
            UnknownNameError: Unknown environment, engine or hand.
        """
        import sim  # noqa: F401 - registers the environments

        env = gymnasium.make(env_id, **settings)
        try:
            inner: Any = env.unwrapped
            task: Task = inner.task
            return EnvFacts(
                contract=inner.contract,
                reward_names=task.reward_names,
                metric_names=task.metric_names,
                credit=task.credit(),
                privileged_names=tuple(getattr(inner, "privileged_names", ())),
                dt_s=inner.dt,
                max_steps=task.max_steps,
                levels=task.levels,
            )
        finally:
            env.close()


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Some steps of some environments. `t` steps, `n` environments, `e` episodes that ended.

    Attributes:
        observation, privileged: Before each action, shapes (t, n, ...), float32.
        action, mean: As sampled, before clipping, and the policy's mean, shape (t, n, n_act), float32.
        log_std: Of the behaviour policy, shape (n_act,).
        terms: Reward terms, shape (t, n, n_terms).
        terminated, truncated: How the step left the episode, shape (t, n), bool.
        fresh: Whether the step was an episode's first, shape (t, n), bool.
        memory: The policy's state before the first step, shape (n, memory), float32.
        last_observation, last_privileged: After the last step, of the episode then running, shape (n, ...).
        end_step, end_env: Where episodes ended, shape (e,).
        end_observation, end_privileged: What was seen there, before the reset, shape (e, ...).
        end_return, end_length, end_success, end_metrics: What those episodes came to, shapes (e,), (e,), (e,), (e, n_metrics).
    """

    observation: np.ndarray
    privileged: np.ndarray
    action: np.ndarray
    mean: np.ndarray
    log_std: np.ndarray
    terms: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    fresh: np.ndarray
    memory: np.ndarray
    last_observation: np.ndarray
    last_privileged: np.ndarray
    end_step: np.ndarray
    end_env: np.ndarray
    end_observation: np.ndarray
    end_privileged: np.ndarray
    end_return: np.ndarray
    end_length: np.ndarray
    end_success: np.ndarray
    end_metrics: np.ndarray

    @property
    def steps(self) -> int:
        """Control steps in it, of all environments together."""
        return self.terminated.size

    @property
    def ended(self) -> np.ndarray:
        """Whether the episode ended with the step, shape (t, n), bool."""
        return self.terminated | self.truncated

    @staticmethod
    def join(parts: Sequence["Trajectory"]) -> "Trajectory":
        """Trajectories of different environments over the same number of steps, side by side."""
        if len(parts) == 1:
            return parts[0]
        joined: Arrays = {}
        offset = np.cumsum([0, *(part.terminated.shape[1] for part in parts)])
        for name in (item.name for item in fields(Trajectory)):
            arrays = [getattr(part, name) for part in parts]
            if name == "log_std":
                joined[name] = arrays[0]
            elif name == "end_env":
                joined[name] = np.concatenate([array + shift for array, shift in zip(arrays, offset)])
            else:
                per_env = name.startswith(("end_", "last_")) or name == "memory"
                joined[name] = np.concatenate(arrays, axis=0 if per_env else 1)
        return Trajectory(**joined)


class Rollout:
    """Environments in this process, and a policy that acts in them.

    Args:
        env_id: Which environment.
        settings: Keyword arguments of `gymnasium.make`, one set per environment.
        first_row: Number of the first environment in the whole run; seeds follow from it.
        actor: `Actor.config`.
    """

    def __init__(self, env_id: str, settings: Sequence[dict[str, Any]], first_row: int, actor: dict[str, Any]) -> None:
        import sim  # noqa: F401 - registers the environments

        torch.set_num_threads(1)  # a worker owns one core
        self._envs: list[Any] = [gymnasium.make(env_id, **each) for each in settings]
        inner = self._envs[0].unwrapped
        self._task: Task = inner.task
        self._privileged_size = len(getattr(inner, "privileged_names", ()))
        self._row = first_row
        self._actor = Actor(**actor)
        self._generator = torch.Generator()
        n = len(self._envs)
        self._observation = np.zeros((n, self._actor.observation_size), np.float32)
        self._privileged = np.zeros((n, self._privileged_size), np.float32)
        self._memory = self._actor.initial_memory(n)
        self._fresh = np.ones(n, dtype=np.bool_)
        self._return, self._length = np.zeros(n), np.zeros(n, dtype=np.int64)

    def reset(self, seed: int, level: str = "") -> None:
        """Start all environments anew; the seed of environment i of the run is seed + i. A level exchanges the task's."""
        if level:
            for env in self._envs:
                env.unwrapped.task.level = level
        self._generator.manual_seed(_noise_seed(seed, self._row))
        for i, env in enumerate(self._envs):
            self._observation[i], info = env.reset(seed=seed + self._row + i)
            self._take_privileged(i, info)
        self._memory = self._actor.initial_memory(len(self._envs))
        self._fresh[:] = True
        self._return[:], self._length[:] = 0.0, 0

    def _take_privileged(self, i: int, info: dict[str, Any]) -> None:
        if self._privileged_size:
            self._privileged[i] = info["privileged"]

    @torch.no_grad()
    def collect(self, weights: Arrays, steps: int, mode: Mode = "explore") -> Arrays:
        """Some steps of every environment under the given weights; the arrays of a `Trajectory`.

        Args:
            weights: The actor's state dict.
            steps: Control steps per environment.
            mode: "explore": with the policy's noise; "even": actions drawn evenly from -1..1, as off-policy learners begin; "mean":
                without noise, as an exported file acts.
        """
        self._actor.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        n, actor = len(self._envs), self._actor
        log_std = actor.bounded_log_std.detach()
        out: Arrays = {
            "observation": np.zeros((steps, n, actor.observation_size), np.float32),
            "privileged": np.zeros((steps, n, self._privileged_size), np.float32),
            "action": np.zeros((steps, n, actor.action_size), np.float32),
            "mean": np.zeros((steps, n, actor.action_size), np.float32),
            "terms": np.zeros((steps, n, len(self._task.reward_names))),
            **{name: np.zeros((steps, n), dtype=np.bool_) for name in ("terminated", "truncated", "fresh")},
            "memory": self._memory.numpy().copy(),
            "log_std": log_std.numpy().copy(),
        }
        ends: dict[str, list[Any]] = {
            name: [] for name in ("step", "env", "observation", "privileged", "return", "length", "success", "metrics")
        }
        for t in range(steps):
            out["observation"][t], out["privileged"][t], out["fresh"][t] = (
                self._observation,
                self._privileged,
                self._fresh,
            )
            noise = torch.randn((n, actor.action_size), generator=self._generator)
            action, mean, memory = actor.explore(torch.from_numpy(self._observation), self._memory, noise)
            if mode == "mean":
                action = mean
            elif mode == "even":
                action = torch.erf(noise / 2.0**0.5)  # twice the normal distribution's own function, less one: even
            out["action"][t], out["mean"][t] = action.numpy(), mean.numpy()
            self._memory, self._fresh[:] = memory, False
            clipped = action.clamp(-1.0, 1.0).numpy()
            for i in range(n):
                self._step(t, i, clipped[i], out, ends)
        return {
            **out,
            "last_observation": self._observation.copy(),
            "last_privileged": self._privileged.copy(),
            **_stacked(ends, actor.observation_size, self._privileged_size, len(self._task.metric_names)),
        }

    def _step(self, t: int, i: int, action: np.ndarray, out: Arrays, ends: dict[str, list[Any]]) -> None:
        env = self._envs[i]
        observation, reward, terminated, truncated, info = env.step(action)
        out["terms"][t, i] = [info["reward_terms"][name] for name in self._task.reward_names]
        out["terminated"][t, i], out["truncated"][t, i] = terminated, truncated
        self._return[i] += reward
        self._length[i] += 1
        self._take_privileged(i, info)
        if terminated or truncated:
            found = {
                "step": t,
                "env": i,
                "observation": observation,
                "privileged": self._privileged[i].copy(),
                "return": self._return[i],
                "length": self._length[i],
                "success": info["success"],
                "metrics": [info["metrics"][name] for name in self._task.metric_names],
            }
            for name, value in found.items():
                ends[name].append(value)
            observation, info = env.reset()
            self._take_privileged(i, info)
            self._memory[i] = 0.0
            self._fresh[i] = True
            self._return[i], self._length[i] = 0.0, 0
        self._observation[i] = observation

    def close(self) -> None:
        for env in self._envs:
            env.close()


def _noise_seed(seed: int, row: int) -> int:
    return int(np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0] >> 1)


def _stacked(ends: dict[str, list[Any]], n_obs: int, n_privileged: int, n_metrics: int) -> Arrays:
    """Lists of what ended as arrays that have the right shape when nothing did."""
    e = len(ends["step"])
    return {
        "end_step": np.array(ends["step"], dtype=np.int64),
        "end_env": np.array(ends["env"], dtype=np.int64),
        "end_observation": np.array(ends["observation"], dtype=np.float32).reshape(e, n_obs),
        "end_privileged": np.array(ends["privileged"], dtype=np.float32).reshape(e, n_privileged),
        "end_return": np.array(ends["return"], dtype=np.float64),
        "end_length": np.array(ends["length"], dtype=np.int64),
        "end_success": np.array(ends["success"], dtype=np.bool_),
        "end_metrics": np.array(ends["metrics"], dtype=np.float64).reshape(e, n_metrics),
    }
