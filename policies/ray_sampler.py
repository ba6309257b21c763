"""Simulation workers as Ray actors, on one machine or many: the same `Rollout`, the same orders, lost ones replaced the same way.

Ray moves code and arguments between its processes by pickle and trusts whoever reaches its ports: run a cluster on a network of your own.
"""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from policies.rollout import Rollout
from policies.sampler import Place, Sampler, WorkerLost, obey
from robot.errors import FlexorError
from sim.workers import WorkerError

START_S = 120.0  # for a node that has to load an engine and torch first


REMEDY = "  do: ray start --head on one machine and ray start --address HOST:PORT on the others, or --ray local"
KNOCK_S = 5.0


class RayClusterError(FlexorError, RuntimeError):
    """No Ray cluster at an address."""


def _knock(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto" or "local"
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise RayClusterError(f"no Ray cluster at {address!r}: {error}\n{REMEDY}") from error


class RayWorker:
    """The actor: a `Rollout` that obeys orders."""

    def __init__(self, place: Place) -> None:
        self._rollout: Rollout = place.rollout()

    def obey(self, order: bytes) -> bytes:
        return obey(self._rollout, order)

    def pid(self) -> int:
        return os.getpid()


class RaySampler(Sampler):
    """Workers that are Ray actors, one core each.

    Args:
        where: What each simulates.
        address: Of a running cluster, "HOST:PORT" or "auto"; "local" starts one in this machine.

    Raises:
        RayClusterError: Nobody there.
        WorkerError: A worker could not make its environments.
    """

    def __init__(self, where: Sequence[Place], address: str) -> None:
        super().__init__(where)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        import ray

        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            _knock(address)
            try:
                ray.init(
                    address=address,
                    include_dashboard=False if address == "local" else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RayClusterError(f"no Ray cluster at {address!r}: {error}\n{REMEDY}") from error
        self._kind = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
        self._actors: list[Any] = [None] * len(self._places)
        self._owed: list[Any] = [None] * len(self._places)
        try:
            for i in range(len(self._places)):
                self._start(i)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the actors, each on its own node."""
        return [self._ray.get(actor.pid.remote(), timeout=START_S) for actor in self._actors]

    @property
    def nodes(self) -> int:
        """Nodes of the cluster that are alive."""
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    def _start(self, i: int) -> None:
        self._end(i)
        self._actors[i] = self._kind.options(scheduling_strategy="SPREAD").remote(self._places[i])

    def _send(self, i: int, order: bytes) -> None:
        try:
            self._owed[i] = self._actors[i].obey.remote(order)
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"could not be told anything: {error}") from error

    def _receive(self, i: int) -> bytes:
        errors = self._ray.exceptions
        if self._owed[i] is None:
            raise WorkerLost("was told nothing")
        owed, self._owed[i] = self._owed[i], None
        try:
            return self._ray.get(owed)
        except errors.RayTaskError as error:
            raise WorkerError(f"a simulation worker failed: {error.cause}") from error
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            if "creation task" in str(error) or "__init__" in str(error):
                raise WorkerError(f"a simulation worker could not start: {error}") from error
            raise WorkerLost(f"is gone: {type(error).__name__}") from error

    def _end(self, i: int) -> None:
        if self._actors[i] is not None:
            with suppress(Exception):  # it is gone already, as wanted; Ray has an error of its own for each way
                self._ray.kill(self._actors[i], no_restart=True)
        self._actors[i] = self._owed[i] = None

    def close(self) -> None:
        for i in range(len(self._places)):
            self._end(i)
        if self._ours:
            self._ray.shutdown()
