"""Many environments in a few worker processes, as a Gymnasium vector environment with shared memory.

Engines hold the interpreter while they step, so environments are spread over processes, never threads. Observations, actions,
rewards and flags live in one shared block; a pipe per worker carries single bytes that say "go" and "done". An environment that ends
is reset in the same step (`AutoresetMode.SAME_STEP`): the observation is the new episode's first, the old one's last is in
`info["final_obs"]`.
"""

import itertools
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from robot.errors import FlexorError

STEP, RESET, CLOSE = b"s", b"r", b"c"
DONE, FAILED = b"d", b"f"


class WorkerError(FlexorError, RuntimeError):
    """A worker process failed; the message carries its own."""


class _Block:
    """The shared arrays of all environments, laid out by name."""

    def __init__(
        self, n: int, observation: int, action: int, terms: int, metrics: int, memory: SharedMemory | None = None
    ) -> None:
        layout = {
            "observation": ((n, observation), np.float32),
            "final_observation": ((n, observation), np.float32),
            "action": ((n, action), np.float32),
            "reward": ((n,), np.float64),
            "terms": ((n, terms), np.float64),
            "metrics": ((n, metrics), np.float64),
            "seed": ((n,), np.int64),
            "terminated": ((n,), np.bool_),
            "truncated": ((n,), np.bool_),
            "success": ((n,), np.bool_),
            "masked": ((n,), np.bool_),
        }
        offsets, size = {}, 0
        for name, (shape, dtype) in layout.items():
            offsets[name] = size
            size += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64  # each array on its own cache lines
        self.memory = memory or SharedMemory(create=True, size=max(size, 1))
        self.arrays = {
            name: np.ndarray(shape, dtype, self.memory.buf, offsets[name]) for name, (shape, dtype) in layout.items()
        }

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][name]
        except KeyError:
            raise AttributeError(name) from None


def _worker(
    connection: Connection, env_id: str, settings: dict[str, Any], rows: range, sizes: tuple[int, ...], name: str
) -> None:
    """Own the environments of some rows until told to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    import sim  # noqa: F401 - registers the environments

    memory = SharedMemory(name=name)
    block = _Block(*sizes, memory=memory)
    envs = {}
    try:
        envs = {row: gymnasium.make(env_id, **settings) for row in rows}
        connection.send_bytes(DONE)
        while True:
            order = connection.recv_bytes()
            if order == CLOSE:
                break
            for row, env in envs.items():
                if order == RESET:
                    if block.masked[row]:
                        seed = int(block.seed[row])
                        block.observation[row], _ = env.reset(seed=seed if seed >= 0 else None)
                    continue
                _step(block, row, env)
            connection.send_bytes(DONE)
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
    except Exception as error:  # top of a process: the parent raises it
        connection.send_bytes(FAILED + f"{type(error).__name__}: {error}".encode())
    finally:
        for env in envs.values():
            env.close()
        del block
        memory.close()


def _step(block: _Block, row: int, env: gymnasium.Env) -> None:
    observation, reward, terminated, truncated, info = env.step(block.action[row])
    block.reward[row], block.terminated[row], block.truncated[row] = reward, terminated, truncated
    block.terms[row] = list(info["reward_terms"].values())
    block.metrics[row] = list(info["metrics"].values())
    block.success[row] = info["success"]
    if terminated or truncated:
        block.final_observation[row] = observation
        observation, _ = env.reset()
    block.observation[row] = observation


class WorkerVectorEnv(VectorEnv):
    """See the module. Made by `make_vec`."""

    def __init__(self, env_id: str, num_envs: int, workers: int, settings: dict[str, Any]) -> None:
        import sim  # noqa: F401

        if not 1 <= workers <= num_envs:
            raise ValueError(f"workers must be 1..num_envs = {num_envs}, got {workers}")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        probe = gymnasium.make(env_id, **settings)
        unwrapped: Any = probe.unwrapped
        self.contract, self.dt = unwrapped.contract, unwrapped.dt
        self.reward_names, self.credit = unwrapped.task.reward_names, unwrapped.task.credit()
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        probe.reset(seed=0)
        *_, info = probe.step(np.zeros(probe.action_space.shape))  # type: ignore[arg-type]
        self.metric_names = tuple(info["metrics"])
        probe.close()
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = None
        self.spec = probe.spec
        sizes = (
            num_envs,
            self.contract.observation_size,
            self.contract.action_size,
            len(self.reward_names),
            len(self.metric_names),
        )
        self._block = _Block(*sizes)
        context = multiprocessing.get_context("spawn")
        bounds = np.linspace(0, num_envs, workers + 1).astype(int)
        for low, high in itertools.pairwise(bounds):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_worker,
                args=(theirs, env_id, settings, range(low, high), sizes, self._block.memory.name),
                daemon=True,  # dies with the parent
            )
            with _one_thread():
                process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._wait()

    def _tell(self, order: bytes) -> None:
        for pipe in self._pipes:
            pipe.send_bytes(order)

    def _wait(self) -> None:
        for pipe in self._pipes:
            try:
                answer = pipe.recv_bytes()
            except EOFError:
                raise WorkerError("a simulation worker died without a word; was it killed for memory?") from None
            if answer != DONE:
                raise WorkerError(f"a simulation worker failed: {answer[1:].decode()}")

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset all environments, or those of `options["reset_mask"]`. An integer seed gives environment i the seed + i."""
        block = self._block
        seeds = [None] * self.num_envs if seed is None else seed
        if isinstance(seeds, int):
            seeds = [seeds + i for i in range(self.num_envs)]
        block.seed[:] = [-1 if s is None else s for s in seeds]
        block.masked[:] = True if not options or "reset_mask" not in options else options["reset_mask"]
        self._tell(RESET)
        self._wait()
        return block.observation.copy(), {}

    def step_async(self, actions: np.ndarray) -> None:
        """Send actions, shape (num_envs, n); the workers step while the caller does something else."""
        self._block.action[:] = actions
        self._tell(STEP)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Wait for the step sent last. Arrays are fresh copies."""
        self._wait()
        block = self._block
        ended = block.terminated | block.truncated
        info: dict[str, Any] = {
            "reward_terms": block.terms.copy(),
            "metrics": block.metrics.copy(),
            "success": block.success.copy(),
        }
        if ended.any():
            final = np.empty(self.num_envs, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = block.final_observation[row].copy()
            info["final_obs"], info["_final_obs"] = final, ended.copy()
        return block.observation.copy(), block.reward.copy(), block.terminated.copy(), block.truncated.copy(), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.step_async(actions)
        return self.step_wait()

    def close_extras(self, **kwargs: Any) -> None:
        for pipe in self._pipes:
            try:
                pipe.send_bytes(CLOSE)
            except (BrokenPipeError, OSError):
                continue
        for process in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
        memory = self._block.memory
        self._block.arrays.clear()
        memory.close()
        memory.unlink()


class _one_thread:
    """Children started inside see thread pools of one: a simulation worker uses one core."""

    NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

    def __enter__(self) -> None:
        self._saved = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make_vec(env_id: str, num_envs: int, workers: int = 1, **settings: Any) -> WorkerVectorEnv:
    """A vector environment of `num_envs` copies in `workers` processes.

    Args:
        env_id: A registered id, e.g. "flexor/HandReach-v0".
        settings: Passed to `gymnasium.make`: engine, hand, randomization.

    Raises:
        WorkerError: A worker failed; its error is in the message.
    """
    return WorkerVectorEnv(env_id, num_envs, workers, settings)
