"""Many environments in a few worker processes, as a Gymnasium vector environment with shared memory.

Engines hold the interpreter while they step, so environments are spread over processes, never threads. Observations, actions,
rewards and flags live in one shared block; a pipe per worker carries single bytes that say "go" and "done". An environment that ends
is reset in the same step (`AutoresetMode.SAME_STEP`): the observation is the new episode's first, the old one's last is in
`info["final_obs"]`.
"""

import itertools
import weakref
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from robot.errors import NotFiniteError
from sim.env import ActionError, refuse_outside
from sim.workers import RESET, STEP, Block, WorkerError, Workers


class WorkerVectorEnv(VectorEnv):
    """Environments in worker processes. Made by `make_vec`; see the module.

    `info` of a step holds arrays with one row per environment: `reward_terms` (columns `reward_names`), `metrics` (columns
    `metric_names`), `success`. They are those of the step just made, so for an environment that ended they are its last. Where the
    task has them, `privileged` (columns `privileged_names`) belongs to the observation and `final_privileged` to `final_obs`.

    Attributes:
        contract: The contract all of them share.
        dt: One control step [s].
        max_steps: Control steps until an episode is truncated.
        credit: Which joints answer for which rewards, see `sim.tasks.task.Credit`.
    """

    def __init__(self, env_id: str, num_envs: int, workers: int, settings: dict[str, Any]) -> None:
        import sim  # noqa: F401 - registers the environments

        if not 1 <= workers <= num_envs:
            raise ValueError(f"workers must be 1..num_envs = {num_envs}, got {workers}")
        self._describe(env_id, num_envs, settings)
        sizes = (
            num_envs,
            self.contract.observation_size,
            len(self.privileged_names),
            self.contract.action_size,
            len(self.reward_names),
            len(self.metric_names),
        )
        self._workers = Workers(Block(*sizes))
        # Runs at `close`, when this object is collected, or when the interpreter ends: whichever comes first.
        self._shut_down = weakref.finalize(self, self._workers.close)
        self._pending = False
        try:
            bounds = np.linspace(0, num_envs, workers + 1).astype(int)
            for low, high in itertools.pairwise(bounds.tolist()):
                self._workers.start(env_id, settings, range(low, high), sizes)
            self._workers.wait()
        except BaseException:
            self.close()
            raise

    def _describe(self, env_id: str, num_envs: int, settings: dict[str, Any]) -> None:
        """Learn sizes and names from one environment."""
        probe = gymnasium.make(env_id, **settings)
        try:
            unwrapped: Any = probe.unwrapped
            self.contract, self.dt = unwrapped.contract, unwrapped.dt
            task = unwrapped.task
            self.reward_names, self.metric_names, self.credit = task.reward_names, task.metric_names, task.credit()
            self.privileged_names, self.max_steps = task.privileged_names, task.max_steps
            self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
            self.spec = probe.spec
        finally:
            probe.close()
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset all environments, or those of `options["reset_mask"]`.

        Args:
            seed: One for each environment, or an integer, which gives environment i the seed + i.
            options: `reset_mask`, booleans of shape (num_envs,).

        Raises:
            ValueError: Seeds or mask of another length, or a seed below zero.
            WorkerError: A worker failed.
        """
        seeds = _seeds(seed, self.num_envs)
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask must have shape ({self.num_envs},), got {mask.shape}")
        if self._pending:
            raise gymnasium.error.AlreadyPendingCallError("a step is under way; call step_wait() first", "step")
        block = self._workers.block
        block.seed[:], block.masked[:] = seeds, mask
        self._workers.tell(RESET)
        self._workers.wait()
        return block.observation.copy(), {"privileged": block.privileged.copy()} if self.privileged_names else {}

    def step_async(self, actions: np.ndarray) -> None:
        """Send actions, shape (num_envs, n); the workers step while the caller does something else.

        Raises:
            ActionError: Another shape, or outside -1..1, named by environment and joint. Nothing is sent then.
            NotFiniteError: A NaN or an infinity, named by environment and joint. Nothing is sent then.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ActionError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        if not np.isfinite(actions).all():
            joints = self.contract.action.joints
            bad = {f"{row}.{joints[i]}": float(actions[row, i]) for row, i in np.argwhere(~np.isfinite(actions))[:8]}
            raise NotFiniteError("actions", bad)
        for row in np.flatnonzero(np.abs(actions).max(axis=1, initial=0.0) > 1.0):
            refuse_outside(actions[row], self.contract.action.joints, prefix=f"{row}.")
        if self._pending:
            raise gymnasium.error.AlreadyPendingCallError("a step is under way; call step_wait() first", "step")
        self._workers.block.action[:] = actions
        self._workers.tell(STEP)
        self._pending = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Wait for the step sent last. Arrays are fresh copies.

        Raises:
            WorkerError: A worker failed or died.
        """
        if not self._pending:
            raise gymnasium.error.NoAsyncCallError("call step_async() first", "step")
        self._pending = False
        self._workers.wait()
        block = self._workers.block
        ended = block.terminated | block.truncated
        info: dict[str, Any] = {
            "reward_terms": block.terms.copy(),
            "metrics": block.metrics.copy(),
            "success": block.success.copy(),
        }
        if self.privileged_names:
            info["privileged"] = block.privileged.copy()
        if ended.any():
            final = np.empty(self.num_envs, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = block.final_observation[row].copy()
            info["final_obs"], info["_final_obs"] = final, ended.copy()
            if self.privileged_names:
                info["final_privileged"] = block.final_privileged.copy()
        return block.observation.copy(), block.reward.copy(), block.terminated.copy(), block.truncated.copy(), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """`step_async` and `step_wait` in one."""
        self.step_async(actions)
        return self.step_wait()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""
        return self._workers.pids

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers and give the shared memory back."""
        self._shut_down()


def _seeds(seed: int | list[int | None] | None, num_envs: int) -> list[int]:
    """One seed per environment; -1 where none is given."""
    if seed is None or isinstance(seed, (int, np.integer)):
        given = [None if seed is None else int(seed) + i for i in range(num_envs)]
    else:
        given = list(seed)
    if len(given) != num_envs or any(s is not None and s < 0 for s in given):
        raise ValueError(f"seed must be one integer >= 0, or {num_envs} of them or None, got {seed}")
    return [-1 if s is None else int(s) for s in given]


def make_vec(env_id: str, num_envs: int, workers: int = 1, **settings: Any) -> WorkerVectorEnv:
    """A vector environment of `num_envs` copies in `workers` processes.

    Args:
        env_id: A registered id, e.g. "flexor/HandReach-v0".
        settings: Passed to `gymnasium.make`: engine, hand, randomization.

    Raises:
        ValueError: Fewer environments than workers, or no worker.
        UnknownNameError: Unknown engine or hand; the message lists the known ones.
        WorkerError: A worker failed; its error is in the message.
    """
    return WorkerVectorEnv(env_id, num_envs, workers, settings)


__all__ = ["WorkerError", "WorkerVectorEnv", "make_vec"]
