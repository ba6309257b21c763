"""The training loop: collect, learn, write down, save; stops at a time or a step count, on Ctrl-C, or when it diverges.

Iterations come in chapters. A chapter begins with all environments reset from seeds that follow from the run's seed and the chapter's
number, and ends with a checkpoint. A run that is resumed from a checkpoint therefore goes on exactly as it would have.
"""

import csv
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.collect import Collector, Groups
from policies.hindsight import Hindsight, HindsightConfig, applies
from policies.networks import Actor, Critic
from policies.ppo import PPO, PPOConfig
from robot.errors import FlexorError
from robot.report import version
from sim.vec import WorkerVectorEnv, make_vec

CHAPTER_ITERATIONS = 10  # 10 x 32 steps x 32 environments: a line and a checkpoint about every 10 s on two cores
KEPT_OBSERVATIONS = 256  # travel with the checkpoint, for the export's parity gate


class TrainingError(FlexorError, RuntimeError):
    """Training cannot go on; the last good checkpoint is kept."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run is. Saved with it; a resumed run uses the saved one. Hindsight is used where the contract allows it."""

    env_id: str
    engine: str = "mujoco"
    hand: str | None = None
    seed: int = 0
    num_envs: int = 32
    workers: int = 2
    hidden: tuple[int, ...] = (256, 128)
    activation: str = "elu"
    initial_std: float = 0.5
    ppo: PPOConfig = field(default_factory=PPOConfig)
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log; figures over the episodes that ended since the last."""

    seconds: float
    steps: int
    rate_hz: float
    left_s: float
    return_mean: float
    success: float
    metrics: dict[str, float]
    losses: dict[str, float]


class Trainer:
    """One run: its environments, networks and place on disk."""

    def __init__(self, run: Path, config: TrainConfig, resume_from: Checkpoint | None = None) -> None:
        self.run, self.config = run, config
        self.envs: WorkerVectorEnv = make_vec(
            config.env_id, config.num_envs, config.workers, engine=config.engine, hand=config.hand
        )
        self.contract = self.envs.contract
        self.groups = Groups.of(self.envs.credit, self.contract.action.joints, self.envs.reward_names)
        torch.manual_seed(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._chapter, self._steps, self._seconds = 0, 0, 0.0
        if resume_from is None:
            actor, critic = networks(config, self.contract, self.groups)
        else:
            actor, critic = resume_from.actor, resume_from.critic
        self.learner = PPO(actor, critic, config.ppo, self.groups.actions)
        self.hindsight = (
            Hindsight(actor, self.contract, config.hindsight, stride=config.num_envs)
            if config.hindsight.steps and applies(self.contract)
            else None
        )
        if resume_from is not None:
            self._restore(resume_from)
        self.collector = Collector(self.envs, self.groups, config.ppo)
        self._recorded = np.zeros((0, self.contract.observation_size), np.float32)

    def _restore(self, saved: Checkpoint) -> None:
        if saved.contract != self.contract:
            raise TrainingError(
                f"{self.run} was trained under another contract of {self.config.env_id}; start a new run"
            )
        checkpoints.restore_optimizer(self.learner.optimizer, saved.optimizer)
        if self.hindsight is not None:
            checkpoints.restore_optimizer(self.hindsight.optimizer, saved.hindsight_optimizer)
            self.hindsight.memory = torch.from_numpy(np.array(saved.hindsight_memory))
        self._generator.set_state(torch.from_numpy(np.array(saved.generators["torch"])))
        self._chapter, self._steps = int(saved.counters["chapter"]), int(saved.counters["steps"])
        self._seconds = saved.counters["seconds"]
        self.learner.learning_rate = saved.counters["learning_rate"]
        for group in self.learner.optimizer.param_groups:
            group["lr"] = self.learner.learning_rate

    def train(
        self,
        *,
        seconds: float | None,
        steps: int | None,
        report: Callable[[Progress], None],
        clock: Callable[[], float],
    ) -> dict[str, Any]:
        """Train until `seconds` of this call or `steps` of the run are used up, or Ctrl-C.

        Returns:
            The figures of the last line, and whether it was interrupted.

        Raises:
            TrainingError: A loss is not finite. The last checkpoint is from before that.
        """
        start, first_steps, last = clock(), self._steps, None
        self.run.mkdir(parents=True, exist_ok=True)
        with _interruptible() as interrupted, open(self.run / "progress.csv", "a", newline="") as file:
            while not interrupted() and not _done(seconds, steps, clock() - start, self._steps):
                last = self._chapter_of(start, first_steps, seconds, steps, clock, interrupted, report, file) or last
                self._save(self._seconds + clock() - start)
            stopped = interrupted()
        self._seconds += clock() - start
        return {
            "interrupted": stopped,
            "steps": self._steps,
            "seconds": self._seconds,
            **(asdict(last) if last else {}),
        }

    def _chapter_of(
        self,
        start: float,
        first_steps: int,
        seconds: float | None,
        steps: int | None,
        clock: Callable[[], float],
        interrupted: Callable[[], bool],
        report: Callable[[Progress], None],
        file: TextIO,
    ) -> Progress | None:
        self.collector.reset(seed=_chapter_seed(self.config.seed, self._chapter))
        returns, successes, metrics, losses = [], [], [], {}
        for _ in range(CHAPTER_ITERATIONS):
            batch, outcome = self.collector.collect(self.learner.actor, self.learner.critic, self._generator)
            try:
                losses = self.learner.update(batch, self._generator)
                if self.hindsight is not None:
                    self.hindsight.remember(batch.observation)
                    losses["hindsight_loss"] = self.hindsight.learn(self._generator)
            except FloatingPointError as error:
                raise TrainingError(
                    f"training diverged after {self._steps} steps: {error}; {self.run} keeps the last good checkpoint"
                ) from error
            self.learner.actor.update_normalizer(batch.observation)
            self.learner.critic.update_normalizer(batch.observation)
            self._steps += batch.observation.shape[0]
            returns += outcome.returns
            successes += outcome.successes
            metrics += outcome.metrics
            self._recorded = batch.observation[:: max(1, len(batch.observation) // KEPT_OBSERVATIONS)][
                :KEPT_OBSERVATIONS
            ].numpy()
            if interrupted() or _done(seconds, steps, clock() - start, self._steps):
                break
        self._chapter += 1
        if not returns:
            return None
        used = clock() - start
        rate = (self._steps - first_steps) / used
        lefts = [] if seconds is None else [seconds - used]
        lefts += [] if steps is None else [(steps - self._steps) / rate]
        line = Progress(
            seconds=self._seconds + used,
            steps=self._steps,
            rate_hz=rate,
            left_s=max(0.0, min(lefts, default=0.0)),
            return_mean=float(np.mean(returns)),
            success=float(np.mean(successes)),
            metrics=dict(zip(self.envs.metric_names, np.mean(metrics, axis=0).tolist())),
            losses=losses,
        )
        _write_row(file, line, self.learner)
        report(line)
        return line

    def _save(self, seconds: float) -> None:
        checkpoints.save(
            self.run,
            Checkpoint(
                actor=self.learner.actor,
                critic=self.learner.critic,
                contract=self.contract,
                recorded_observations=self._recorded,
                training=training_record(self.config, self._steps, seconds),
                optimizer=checkpoints.optimizer_arrays(self.learner.optimizer),
                hindsight_optimizer=checkpoints.optimizer_arrays(self.hindsight.optimizer) if self.hindsight else {},
                hindsight_memory=self.hindsight.memory.numpy() if self.hindsight else None,
                counters={
                    "chapter": self._chapter,
                    "steps": self._steps,
                    "seconds": seconds,
                    "learning_rate": self.learner.learning_rate,
                },
                generators={"torch": self._generator.get_state().numpy()},
            ),
        )

    def close(self) -> None:
        self.envs.close()


def networks(config: TrainConfig, contract, groups: Groups) -> tuple[Actor, Critic]:
    """Fresh networks for a contract."""
    actor = Actor.for_contract(
        contract, hidden=config.hidden, activation=config.activation, initial_std=config.initial_std
    )
    critic = Critic(
        contract.observation_size,
        hidden=config.hidden,
        activation=config.activation,
        low=contract.observation_low,
        high=contract.observation_high,
        outputs=groups.rewards.shape[1],
    )
    return actor, critic


def training_record(config: TrainConfig, steps: int, seconds: float) -> dict[str, Any]:
    """Where a policy comes from, for the artifact."""
    return {
        "env": config.env_id,
        "engine": config.engine,
        "seed": config.seed,
        "steps": steps,
        "commit": git_commit(),
        "version": version(),
        "learner": "ppo + hindsight" if config.hindsight.steps else "ppo",
        "wall_s": round(seconds, 1),
        "command": f"flexor train {config.env_id} --engine {config.engine} --seed {config.seed} --steps {steps}",
        "config": asdict(config),
    }


def config_of(training: dict[str, Any]) -> TrainConfig:
    """The settings a run was started with, from its training record.

    Raises:
        TrainingError: The record holds none, as that of a policy learned from packs.
    """
    try:
        fields = dict(training["config"])
        fields["hidden"] = tuple(fields["hidden"])
        fields["ppo"], fields["hindsight"] = PPOConfig(**fields["ppo"]), HindsightConfig(**fields["hindsight"])
        return TrainConfig(**fields)
    except (KeyError, TypeError) as error:
        raise TrainingError(f"the run's record has no usable settings ({error!r}); start a new run") from error


def git_commit() -> str:
    """The commit this code is at, "unknown" outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5.0,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _chapter_seed(seed: int, chapter: int) -> int:
    return int(np.random.SeedSequence([seed, chapter]).generate_state(1)[0]) % 2**31


def _done(seconds: float | None, steps: int | None, used_s: float, used_steps: int) -> bool:
    return (seconds is not None and used_s >= seconds) or (steps is not None and used_steps >= steps)


def _write_row(file: TextIO, line: Progress, learner: PPO) -> None:
    row = {
        "time_s": round(line.seconds, 2),
        "steps": line.steps,
        "rate_hz": round(line.rate_hz, 1),
        "return_mean": line.return_mean,
        "success": line.success,
        **line.metrics,
        **line.losses,
        "learning_rate": learner.learning_rate,
        "action_std": float(learner.actor.std.detach().mean()),
    }
    writer = csv.DictWriter(file, fieldnames=list(row))
    if file.tell() == 0:
        writer.writeheader()
    writer.writerow(row)
    file.flush()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM inside the block end the iteration under way instead of the process."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    saved = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def monotonic() -> float:
    """The clock of a training run [s]."""
    return time.monotonic()
