"""Simulation in the test's own process: what `LocalSampler` does, without the seconds that a process takes to start."""

from policies.rollout import Rollout
from policies.sampler import Place, Sampler, obey


class InlineSampler(Sampler):
    """Obeys at once, keeps the answer until it is asked for."""

    def __init__(self, where: tuple[Place, ...]) -> None:
        super().__init__(where)
        self._rollouts: dict[int, Rollout] = {}
        self._answers: dict[int, bytes] = {}
        for i in range(len(self._places)):
            self._start(i)

    def _start(self, i: int) -> None:
        self._rollouts[i] = self._places[i].rollout()

    def _send(self, i: int, order: bytes) -> None:
        self._answers[i] = obey(self._rollouts[i], order)

    def _receive(self, i: int) -> bytes:
        return self._answers.pop(i)

    def close(self) -> None:
        for rollout in self._rollouts.values():
            rollout.close()
