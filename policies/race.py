"""Who gets to the same success first? One contender's run against the clock, and what its policy could do at each mark.

`python -m policies.race SPEC` trains ours; `benchmarks/sb3_train.py SPEC` does the same with Stable-Baselines3. While the clock runs, a
contender only puts copies of its policy aside; they are measured afterwards, without noise, all on the same seeds.
"""

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from robot.files import replace_file

ActMany = Callable[[np.ndarray], np.ndarray]
ENV_SEED = 50_000  # of the episodes at the marks; no training comes near


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's run.

    Attributes:
        contender: A name of `bench_train.CONTENDERS`.
        env_id, engine: What is learned.
        seed: Of the run.
        seconds: Budget of wall-clock time, environments' start included.
        marks: How many times the policy is put aside, evenly.
        episodes: Measured per mark.
        workers: Simulation processes.
        out: Where the result goes.
        level: Of the task; "" for the task itself, with the levels our settings give it.
    """

    contender: str
    env_id: str
    engine: str
    seed: int
    seconds: float
    marks: int
    episodes: int
    workers: int
    out: str
    level: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `gymnasium.make`."""
        return {"engine": self.engine, **({"level": self.level} if self.level else {})}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy could do after some time."""

    seconds: float
    steps: int
    success: float
    return_mean: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A contender's run."""

    spec: Spec
    curve: tuple[Mark, ...]
    steps: int
    seconds: float


class Marks:
    """Puts policies aside when their time has come."""

    def __init__(self, spec: Spec, clock: Callable[[], float]) -> None:
        self._every, self._clock = spec.seconds / spec.marks, clock
        self.start = clock()
        self.kept: list[tuple[float, int, ActMany]] = []

    @property
    def used_s(self) -> float:
        return self._clock() - self.start

    def offer(self, steps: int, make: Callable[[], ActMany]) -> None:
        """Keep what `make` gives when the next mark has been reached; it must be a copy."""
        if self.used_s >= self._every * (len(self.kept) + 1):
            self.kept.append((self.used_s, steps, make()))


def success_of(act: ActMany, spec: Spec) -> tuple[float, float]:
    """(success rate, mean return) of one episode in each of a run's `episodes` environments, side by side."""
    from sim.vec import make_vec

    episodes = spec.episodes
    envs = make_vec(spec.env_id, episodes, min(spec.workers, episodes), **spec.settings)
    try:
        observation, _ = envs.reset(seed=ENV_SEED)
        success, total = np.zeros(episodes), np.zeros(episodes)
        running = np.ones(episodes, dtype=np.bool_)
        while running.any():
            observation, reward, terminated, truncated, info = envs.step(np.clip(act(observation), -1.0, 1.0))
            total[running] += reward[running]
            over = running & (terminated | truncated)
            success[over] = info["success"][over]
            running &= ~over
        return float(success.mean()), float(total.mean())
    finally:
        envs.close()


def finish(spec: Spec, marks: Marks, steps: int) -> Result:
    """Measure what was put aside and write the result down."""
    used = marks.used_s
    curve = []
    for seconds, at, act in marks.kept:
        success, return_mean = success_of(act, spec)
        curve.append(Mark(seconds=seconds, steps=at, success=success, return_mean=return_mean))
        print(f"{seconds:.0f} s: success {100 * success:.0f} %, return {return_mean:.2f}", file=sys.stderr, flush=True)
    result = Result(spec=spec, curve=tuple(curve), steps=steps, seconds=used)
    replace_file(Path(spec.out), msgspec.json.encode(result))
    return result


def ours(spec: Spec, changes: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> Result:
    """Train with this project's learner and the task's own settings, but for `changes`."""
    import tempfile

    import torch

    from policies.settings import settings_of
    from policies.train import Trainer

    torch.set_num_threads(1)
    marks = Marks(spec, clock)
    how = {"engine": spec.engine, "seed": spec.seed, "workers": spec.workers, "level": spec.level or None}
    config = settings_of(spec.env_id, **{**how, **changes})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), config)

        def put_aside() -> ActMany:
            actor = copy.deepcopy(trainer.method.actor)

            def act(observation: np.ndarray) -> np.ndarray:
                with torch.no_grad():
                    return actor.mean(torch.from_numpy(observation)).numpy()

            return act

        try:
            done = trainer.train(
                seconds=spec.seconds - marks.used_s,
                steps=None,
                report=lambda line: marks.offer(line.steps, put_aside),
                clock=clock,
                every_s=min(10.0, spec.seconds / spec.marks),
            )
        finally:
            trainer.close()
        marks.offer(int(done["steps"]), put_aside)
    return finish(spec, marks, int(done["steps"]))


if __name__ == "__main__":
    from policies.bench_train import CONTENDERS

    asked = msgspec.json.decode(sys.argv[1], type=Spec)
    ours(asked, dict(CONTENDERS[asked.contender].changes))
