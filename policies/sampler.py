"""Simulation workers side by side: told what to collect, asked for it later, replaced when they die. Processes of this machine here,
Ray actors in `policies.ray_sampler`; both run `policies.rollout.Rollout`.
"""

import itertools
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import numpy as np

from policies.arrays import Arrays, decode, encode
from policies.rollout import Mode, Rollout, Trajectory
from sim.workers import PATIENCE_S, WorkerError, one_thread

RESTARTS = 3  # of one worker in one run: a machine that kills more often than that has another problem


@dataclass(frozen=True, kw_only=True)
class Place:
    """What one worker simulates: `settings` holds one set of keyword arguments per environment."""

    env_id: str
    settings: tuple[dict[str, Any], ...]
    first_row: int
    actor: dict[str, Any]

    def rollout(self) -> Rollout:
        return Rollout(self.env_id, self.settings, self.first_row, self.actor)


class WorkerLost(Exception):
    """A worker is gone; the message says how. Caught by `Sampler`, which starts another one."""


def places(env_id: str, settings: Sequence[dict[str, Any]], workers: int, actor: dict[str, Any]) -> tuple[Place, ...]:
    """Environments spread over workers.

    Raises:
        ValueError: Fewer environments than workers, or no worker.
    """
    if not 1 <= workers <= len(settings):
        raise ValueError(f"workers must be 1..{len(settings)}, the number of environments, got {workers}")
    bounds = np.linspace(0, len(settings), workers + 1).astype(int).tolist()
    return tuple(
        Place(env_id=env_id, settings=tuple(settings[low:high]), first_row=low, actor=actor)
        for low, high in itertools.pairwise(bounds)
    )


class Sampler(ABC):
    """Workers that collect. `ask` returns at once; `take` waits. What a lost worker owed is collected again by a new one.

    Attributes:
        restarts: Workers that had to be replaced so far.
    """

    def __init__(self, where: Sequence[Place]) -> None:
        self._places = tuple(where)
        self._seed, self._level = 0, ""
        self._asked: bytes | None = None
        self.restarts = 0

    def reset(self, seed: int, level: str = "") -> None:
        """Start all environments anew, at a level of the task where one is named. Environment i gets seed + i.

        Raises:
            WorkerError: A worker failed.
        """
        self._seed, self._level = seed, level
        order = msgspec.msgpack.encode(("reset", seed, b"", 0, "explore", level))
        self._send_all(order)
        for i in range(len(self._places)):
            self._answer(i, order)

    def ask(self, weights: Arrays, steps: int, *, mode: Mode = "explore") -> None:
        """Have every worker collect `steps` per environment under these weights.

        Raises:
            WorkerError: What was asked before has not been taken.
        """
        if self._asked is not None:
            raise WorkerError("take() what was asked before asking again")
        self._asked = msgspec.msgpack.encode(("collect", 0, encode(weights), steps, mode, ""))
        self._send_all(self._asked)

    def take(self) -> Trajectory:
        """What was asked for.

        Raises:
            WorkerError: A worker failed, or died too often.
        """
        if self._asked is None:
            raise WorkerError("ask() first")
        order, self._asked = self._asked, None
        return Trajectory.join([Trajectory(**decode(self._answer(i, order))) for i in range(len(self._places))])

    @property
    def pending(self) -> bool:
        """Whether something was asked for and not taken."""
        return self._asked is not None

    def _send_all(self, order: bytes) -> None:
        for i in range(len(self._places)):
            with suppress(WorkerLost):  # found again when its answer is awaited
                self._send(i, order)

    def _answer(self, i: int, order: bytes) -> bytes:
        while True:
            try:
                return self._receive(i)
            except WorkerLost as lost:
                self._replace(i, order, lost)

    def _replace(self, i: int, order: bytes, lost: WorkerLost) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS * len(self._places):
            raise WorkerError(f"simulation workers died {self.restarts} times; the last one {lost}") from lost
        self._start(i)
        # Other seeds than the lost worker had: whatever killed it may have followed from them.
        again = msgspec.msgpack.encode(
            ("reset", self._seed + 1_000_003 * self.restarts, b"", 0, "explore", self._level)
        )
        try:
            self._send(i, again)
            self._receive(i)
            self._send(i, order)
        except WorkerLost as error:
            self._replace(i, order, error)

    @abstractmethod
    def _start(self, i: int) -> None:
        """Start worker i, or another one in its place."""

    @abstractmethod
    def _send(self, i: int, order: bytes) -> None:
        """Give worker i an order. Raises WorkerLost."""

    @abstractmethod
    def _receive(self, i: int) -> bytes:
        """Worker i's answer. Raises WorkerLost, and WorkerError when it failed at what it was told."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


def obey(rollout: Rollout, order: bytes) -> bytes:
    """Do what an order says; the answer."""
    kind, seed, weights, steps, mode, level = msgspec.msgpack.decode(order, type=tuple[str, int, bytes, int, Mode, str])
    if kind == "reset":
        rollout.reset(seed, level)
        return b""
    return encode(rollout.collect(decode(weights), steps, mode))


class LocalSampler(Sampler):
    """Workers that are processes of this machine, one thread each.

    Raises:
        WorkerError: A worker could not make its environments; its own error is in the message.
    """

    def __init__(self, where: Sequence[Place]) -> None:
        super().__init__(where)
        self._pipes: list[Connection | None] = [None] * len(self._places)
        self._processes: list[Any] = [None] * len(self._places)
        try:
            for i in range(len(self._places)):
                self._start(i)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [process.pid for process in self._processes]

    def _start(self, i: int) -> None:
        self._end(i)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, self._places[i]), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: no traceback on Ctrl-C
        try:
            with one_thread():
                process.start()
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._pipes[i], self._processes[i] = ours, process

    def _send(self, i: int, order: bytes) -> None:
        pipe = self._pipes[i]
        assert pipe is not None
        try:
            pipe.send_bytes(order)
        except OSError as error:
            raise WorkerLost(f"could not be told anything: {error}") from error

    def _receive(self, i: int) -> bytes:
        pipe, process = self._pipes[i], self._processes[i]
        assert pipe is not None
        try:
            answer = pipe.recv_bytes()
        except (EOFError, OSError):
            process.join(timeout=PATIENCE_S)
            raise WorkerLost(
                f"ended with exit code {process.exitcode}; -9 is what a lack of memory looks like"
            ) from None
        if answer[:1] != b"d":
            raise WorkerError(f"a simulation worker failed: {answer[1:].decode(errors='replace')}")
        return answer[1:]

    def _end(self, i: int) -> None:
        pipe, process = self._pipes[i], self._processes[i]
        if pipe is not None:
            with suppress(OSError):
                pipe.send_bytes(b"")
            pipe.close()
        if process is not None:
            process.join(timeout=PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._pipes[i] = self._processes[i] = None

    def close(self) -> None:
        for pipe in self._pipes:
            if pipe is not None:
                with suppress(OSError):
                    pipe.send_bytes(b"")  # all are told before one is awaited
        for i in range(len(self._places)):
            self._end(i)


def _worker(connection: Connection, place: Place) -> None:
    """A worker process: one answer per order, until an empty one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    rollout: Rollout | None = None
    try:
        while order := connection.recv_bytes():
            rollout = rollout or place.rollout()
            connection.send_bytes(b"d" + obey(rollout, order))
    except (EOFError, OSError):
        pass  # the parent is gone
    except Exception as error:  # top of a process: the parent raises it
        with suppress(OSError):
            connection.send_bytes(b"f" + f"{type(error).__name__}: {error}".encode())
    finally:
        if rollout is not None:
            rollout.close()
