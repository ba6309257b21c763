"""Worker processes with a block of shared memory: what `sim.vec` is made of, and what must not outlive it."""

import gc
import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import gymnasium
import numpy as np

from robot.errors import FlexorError
from sim.tasks import Task

STEP, RESET, CLOSE = b"s", b"r", b"c"
DONE, FAILED = b"d", b"f"
PATIENCE_S = 5.0  # for a worker that was told to leave


class WorkerError(FlexorError, RuntimeError):
    """A worker process failed; the message carries its own."""


class Block:
    """The shared arrays of all environments, laid out by name."""

    def __init__(
        self,
        n: int,
        observation: int,
        privileged: int,
        action: int,
        terms: int,
        metrics: int,
        memory: SharedMemory | None = None,
    ) -> None:
        layout = {
            "observation": ((n, observation), np.float32),
            "final_observation": ((n, observation), np.float32),
            "privileged": ((n, privileged), np.float32),
            "final_privileged": ((n, privileged), np.float32),
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

    def close(self, *, unlink: bool) -> None:
        """Let go of the memory; with `unlink` for everybody."""
        self.arrays.clear()  # memory with views on it cannot be closed
        self.memory.close()
        if unlink:
            self.memory.unlink()

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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    import sim  # noqa: F401 - registers the environments

    block = Block(*sizes, memory=SharedMemory(name=name))
    envs: dict[int, gymnasium.Env] = {}
    try:
        for row in rows:
            envs[row] = gymnasium.make(env_id, **settings)
        task: Task = envs[rows[0]].unwrapped.task  # type: ignore[attr-defined]
        gc.freeze()  # what was imported and made stays: no use in looking through it for garbage again and again
        connection.send_bytes(DONE)
        while True:
            order = connection.recv_bytes()
            if order == CLOSE:
                break
            for row, env in envs.items():
                if order == RESET:
                    if block.masked[row]:
                        seed = int(block.seed[row])
                        _reset(block, row, env, seed if seed >= 0 else None)
                    continue
                _step(block, row, env, task)
            connection.send_bytes(DONE)
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
    except Exception as error:  # top of a process: the parent raises it
        with suppress(OSError):
            connection.send_bytes(FAILED + f"{type(error).__name__}: {error}".encode())
    finally:
        for env in envs.values():
            env.close()
        block.close(unlink=False)


def _step(block: Block, row: int, env: gymnasium.Env, task: Task) -> None:
    observation, reward, terminated, truncated, info = env.step(block.action[row])
    block.reward[row], block.terminated[row], block.truncated[row] = reward, terminated, truncated
    block.terms[row] = [info["reward_terms"][name] for name in task.reward_names]
    block.metrics[row] = [info["metrics"][name] for name in task.metric_names]
    block.success[row] = info["success"]
    if terminated or truncated:
        block.final_observation[row] = observation
        block.final_privileged[row] = info.get("privileged", ())
        _reset(block, row, env, None)
        return
    block.observation[row] = observation
    block.privileged[row] = info.get("privileged", ())


def _reset(block: Block, row: int, env: gymnasium.Env, seed: int | None) -> None:
    block.observation[row], info = env.reset(seed=seed)
    block.privileged[row] = info.get("privileged", ())


class Workers:
    """The processes, their pipes and the shared block: what must not outlive the environment."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._owing = False  # an answer that nobody has read

    def start(self, env_id: str, settings: dict[str, Any], rows: range, sizes: tuple[int, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_worker, args=(theirs, env_id, settings, rows, sizes, self.block.memory.name), daemon=True
        )
        self._pipes.append(ours)
        # Blocked, and the child inherits it: a Ctrl-C while it starts would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with one_thread():
                process.start()
            self._processes.append(process)
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pids(self) -> list[int]:
        """Process ids, for whoever must make sure that they end."""
        return [process.pid for process in self._processes]

    def tell(self, order: bytes) -> None:
        """Send an order to all of them."""
        if self._owing:
            raise WorkerError("a step was interrupted or failed; close this environment and make a new one")
        self._owing = True
        for pipe in self._pipes:
            try:
                pipe.send_bytes(order)
            except OSError:
                raise WorkerError("a simulation worker is gone; close this environment and make a new one") from None

    def wait(self) -> None:
        """Wait until all of them have done what they were told; a failure of one is raised when the others are through."""
        failures = []
        for pipe, process in zip(self._pipes, self._processes):
            try:
                answer = pipe.recv_bytes()
            except (EOFError, OSError):
                process.join(timeout=PATIENCE_S)
                failures.append(f"died with exit code {process.exitcode}; -9 is what a lack of memory looks like")
                continue
            if answer != DONE:
                failures.append(f"failed: {answer[1:].decode()}")
        if failures:
            raise WorkerError(f"a simulation worker {'; another '.join(failures)}")
        self._owing = False

    def close(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):  # it is gone already, as wanted
                pipe.send_bytes(CLOSE)
        for process in self._processes:
            process.join(timeout=PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()
        self.block.close(unlink=True)


class one_thread:
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
