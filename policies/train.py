"""The training loop: simulate, learn, write down, save; stops at a time or a step count, on Ctrl-C, or when it diverges.

Iterations come in chapters. A chapter begins with all environments reset from seeds that follow from the run's seed and the chapter's
number, and ends with a checkpoint. A run that goes on from there therefore goes on exactly as it would have: which policy acted in
which step depends on nothing but the numbers, also when simulation and learning overlap. Within a long chapter there are checkpoints
by time, too; from one of those, or after Ctrl-C, a run goes on with a chapter of its own, as engines cannot be put back to the bit.
"""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies import checkpoint as checkpoints
from policies.checkpoint import Checkpoint
from policies.collect import Groups
from policies.curve import Curve, Progress
from policies.imitate import begin_from_script
from policies.interrupt import interruptible
from policies.method import Method
from policies.mirror import mirror_of
from policies.offpolicy import OffPolicy
from policies.onpolicy import OnPolicy
from policies.rollout import EnvFacts, Trajectory
from policies.sampler import LocalSampler, Place, Sampler, places
from policies.settings import TrainConfig, config_from
from policies.tally import Tally
from policies.transplant import begin_with
from robot.description import load
from robot.errors import FlexorError, UnknownNameError
from robot.packs import Pack
from robot.report import version
from sim.tasks import find

REPORT_S = 10.0  # a line about this often
SAVE_S = 120.0  # a kill costs no more than this, however long a chapter is
KEPT_OBSERVATIONS = 256  # travel with the checkpoint, for the export's parity gate

MakeSampler = Callable[[tuple[Place, ...]], Sampler]


class TrainingError(FlexorError, RuntimeError):
    """Training cannot go on; the last good checkpoint is kept."""


class Trainer:
    """One run: its simulation workers, networks and place on disk.

    Args:
        run: Its folder.
        config: What it is.
        resume_from: Where it goes on.
        init: Another run, whose networks it begins with wherever they see and move the same (`policies.transplant`); only at the start.
        make_sampler: Where workers live: processes of this machine, or `RaySampler`'s actors.
        tensorboard: Write TensorBoard's event files, too.
        settings: Keyword arguments of `gymnasium.make` beyond engine and hand, one set for each environment.
        packs: Experience that an off-policy learner draws from, too.

    Raises:
        TrainingError: The checkpoint is of another environment, contract or learner.
        MixedContractError: A pack is of another contract.
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        resume_from: Checkpoint | None = None,
        *,
        init: Checkpoint | None = None,
        make_sampler: MakeSampler = LocalSampler,
        tensorboard: bool = False,
        settings: tuple[dict[str, Any], ...] | None = None,
        packs: Sequence[Pack] = (),
    ) -> None:
        self.run, self.config = run, config
        base = {"engine": config.engine, "hand": config.hand}
        self.facts = EnvFacts.of(config.env_id, base)
        self.contract = self.facts.contract
        check_levels(config, self.facts.levels)
        if resume_from is not None:
            check_same_task(run, resume_from, self.facts)
        self.groups = Groups.of(self.facts.credit, self.contract.action.joints, self.facts.reward_names)
        torch.manual_seed(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._chapter, self._steps, self._seconds, self._saved_s = 0, 0, 0.0, 0.0
        self._risen = 0  # levels
        mirror = (
            mirror_of(self.contract, load(self.contract.robot), () if packs else self.facts.privileged_names)
            if config.mirror
            else None
        )
        checkpoints.make_folder(run)
        self.method: Method = (
            OnPolicy(config, self.facts, self.groups, mirror, resume_from)
            if config.learner == "ppo"
            else OffPolicy(run, config, self.facts, self.groups, mirror, resume_from, packs)
        )
        if resume_from is not None:
            self._restore(resume_from)
        elif init is not None:
            self._begin_with(init)
        each = settings or ({},) * config.num_envs
        self.sampler = make_sampler(
            places(config.env_id, [{**base, **changes} for changes in each], config.workers, self.method.actor.config)
        )
        self._tensorboard = tensorboard
        self._recorded = np.zeros((0, self.contract.observation_size), np.float32)

    @property
    def chapter_iterations(self) -> int:
        """Iterations between two fresh starts: more than an episode, so that the ends of long ones are seen, too."""
        steps = max(self.config.chapter_s / self.facts.dt_s, self.facts.max_steps + self.method.horizon)
        return ceil(steps / self.method.horizon)

    @property
    def level(self) -> str:
        """The level of the task that the next chapter is played at, "" for the task itself."""
        return self.facts.levels[self._risen] if self.config.level_success else self.config.level

    def _restore(self, saved: Checkpoint) -> None:
        self.method.restore(saved.tables, saved.counters)
        self._generator.set_state(torch.from_numpy(np.array(saved.generators["torch"])))
        self._chapter, self._steps = int(saved.counters["chapter"]), int(saved.counters["steps"])
        self._seconds = saved.counters["seconds"]
        self._risen = int(saved.counters.get("level", 0))

    def _begin_with(self, init: Checkpoint) -> None:
        other = find(init.contract.env_id).privileged_names
        begin_with(self.method.actor, self.method.critic, self.contract, self.facts.privileged_names, init, other)

    def train(
        self,
        *,
        seconds: float | None,
        steps: int | None,
        report: Callable[[Progress], None],
        clock: Callable[[], float],
        every_s: float = REPORT_S,
    ) -> dict[str, Any]:
        """Train until `seconds` of this call or `steps` of the run are used up, or Ctrl-C.

        Args:
            report: Takes a line about every `every_s`, at most one per iteration.
            clock: Seconds, for limits, rates and reports.

        Returns:
            The figures of the last line, and whether it was interrupted.

        Raises:
            TrainingError: A loss is not finite or a value exploded; the last checkpoint is from before that.
            CheckpointError: The disk is full; the last checkpoint is kept.
        """
        names = (*self.facts.metric_names, *self.method.losses, "restarts")
        curve = Curve(self.run, names, self._steps, tensorboard=self._tensorboard)
        tally = Tally(self.facts, clock, self._steps, self._seconds, seconds, steps)
        last: Progress | None = None

        def say(losses: dict[str, float]) -> None:
            nonlocal last
            last = tally.line(self._steps, losses, self.level)
            curve.write(last)
            report(last)

        try:
            with interruptible() as interrupted:

                def over() -> bool:
                    return interrupted() or tally.over(self._steps)

                losses: dict[str, float] = {}
                if self.config.imitate and not self._steps and not self.config.began_with:
                    self._imitate()
                    self.save(self._seconds + tally.used_s)  # with --steps 0 this is all
                while not over():
                    losses = self._chapter_of(over, tally, say, every_s)
                    self.save(self._seconds + tally.used_s)
                if losses and (last is None or last.steps != self._steps):
                    say(losses)
                stopped = interrupted()
        finally:
            curve.close()
        self._seconds += tally.used_s
        return {
            **(asdict(last) if last else {}),
            "interrupted": stopped,
            "steps": self._steps,
            "seconds": self._seconds,
            "restarts": self.sampler.restarts,
        }

    def _imitate(self) -> None:
        config = self.config
        _, seen = begin_from_script(
            self.method.actor,
            config.env_id,
            {"engine": config.engine, "hand": config.hand},
            steps=config.imitate,
            seed=config.seed,
            rounds=config.imitate_rounds,
        )
        self._record(seen)

    def _chapter_of(
        self, over: Callable[[], bool], tally: Tally, say: Callable[[dict[str, float]], None], every_s: float
    ) -> dict[str, float]:
        """One chapter; the learner's figures of its last iteration."""
        iterations = self.chapter_iterations
        self.sampler.reset(_chapter_seed(self.config.seed, self._chapter), self.level)
        self.method.begin()
        self._saved_s = tally.used_s
        losses: dict[str, float] = {}
        successes: list[np.ndarray] = []
        iteration = 0
        for iteration in range(iterations):
            if not self.sampler.pending:
                self._ask()
            path = self.sampler.take()
            if self.config.overlap and iteration + 1 < iterations and not over():
                self._ask()  # simulated while this process learns
            losses = self._learn(path)
            self._steps += path.steps
            tally.add(path)
            successes.append(path.end_success)
            if tally.due(every_s):
                say(losses)
            if tally.used_s - self._saved_s >= SAVE_S:
                self.save(self._seconds + tally.used_s, chapter=self._chapter + 1)
                self._saved_s = tally.used_s
            if over():
                break
        if self.sampler.pending:
            self.sampler.take()
        self._chapter += 1
        if iteration + 1 == iterations:
            self._rise(np.concatenate(successes))
        return losses

    def _rise(self, success: np.ndarray) -> None:
        """Go on to the next level if enough of a whole chapter's episodes succeeded."""
        wanted = self.config.level_success
        if wanted and success.size and success.mean() >= wanted and self._risen + 1 < len(self.facts.levels):
            self._risen += 1

    def _ask(self) -> None:
        weights = {name: value.numpy() for name, value in self.method.actor.state_dict().items()}
        mode = "even" if self.method.explores_evenly(self._steps) else "explore"
        self.sampler.ask(weights, self.method.horizon, mode=mode)

    def _learn(self, path: Trajectory) -> dict[str, float]:
        try:
            losses = self.method.learn(path, self._generator)
        except (FloatingPointError, ValueError) as error:
            raise TrainingError(
                f"training diverged after {self._steps} steps: {error}; {self.run} keeps the last good checkpoint.\n"
                f"  do: --resume goes on from there; a smaller learning rate is in policies/settings.py"
            ) from error
        self._record(path.observation.reshape(-1, path.observation.shape[-1]))
        return {**losses, "restarts": float(self.sampler.restarts)}

    def _record(self, observation: np.ndarray) -> None:
        self._recorded = observation[:: max(1, len(observation) // KEPT_OBSERVATIONS)][:KEPT_OBSERVATIONS].copy()

    def save(self, seconds: float, chapter: int | None = None) -> None:
        """Write a checkpoint.

        Args:
            seconds: How long the run has taken so far.
            chapter: The one that follows when a run goes on from it; the next one when None.
        """
        self.method.save(self.run)
        checkpoints.save(
            self.run,
            Checkpoint(
                actor=self.method.actor,
                critic=self.method.critic,
                contract=self.contract,
                recorded_observations=self._recorded,
                training=training_record(self.config, self._steps, seconds, self.method.name),
                tables=self.method.tables(),
                counters={
                    "chapter": self._chapter if chapter is None else chapter,
                    "steps": self._steps,
                    "seconds": seconds,
                    "level": self._risen,
                    **self.method.counters(),
                },
                generators={"torch": self._generator.get_state().numpy()},
            ),
        )

    def close(self) -> None:
        self.sampler.close()


def check_levels(config: TrainConfig, levels: Sequence[str]) -> None:
    """Refuse a level that a task does not have.

    Raises:
        UnknownNameError: No such level.
        TrainingError: Levels to rise through where there are none, or with one that is fixed.
    """
    if config.level and config.level not in levels:
        raise UnknownNameError(f"level of {config.env_id}", config.level, levels)
    if config.level_success and (config.level or not levels):
        raise TrainingError(
            f"level_success {config.level_success} needs levels to rise through and none that is fixed; "
            f"{config.env_id} has {tuple(levels)}, level is {config.level!r}"
        )


def check_same_task(run: Path, saved: Checkpoint, facts: EnvFacts) -> None:
    """Refuse to go on with a checkpoint of something else.

    Raises:
        TrainingError: Another environment, or another contract of the same one.
    """
    if saved.contract.env_id != facts.contract.env_id:
        raise TrainingError(
            f"{run} was trained for {saved.contract.env_id}, not {facts.contract.env_id}; do: another --out"
        )
    if saved.contract != facts.contract:
        raise TrainingError(f"{run} was trained under another contract of {facts.contract.env_id}; start a new run")
    width = facts.contract.observation_size + len(facts.privileged_names)
    if saved.critic is not None and saved.critic.config["observation_size"] != width:
        raise TrainingError(
            f"{run} has a critic of {saved.critic.config['observation_size']} inputs, {facts.contract.env_id} now gives it "
            f"{width}; start a new run"
        )


def training_record(config: TrainConfig, steps: int, seconds: float, learner: str) -> dict[str, Any]:
    """Where a policy comes from, for the artifact."""
    return {
        "env": config.env_id,
        "engine": config.engine,
        "seed": config.seed,
        "steps": steps,
        "commit": git_commit(),
        "version": version(),
        "learner": learner,
        "wall_s": round(seconds, 1),
        "command": f"flexor train {config.env_id} --engine {config.engine} --seed {config.seed} --steps {steps}",
        "config": asdict(config),
    }


def words_for(saved: Checkpoint) -> str:
    """A run in words: what another one began with."""
    of = saved.training
    return f"{of.get('env')}, seed {of.get('seed')}, {of.get('steps')} steps, commit {of.get('commit')}"


def config_of(training: dict[str, Any]) -> TrainConfig:
    """The settings a run was started with, from its training record.

    Raises:
        TrainingError: The record holds none, as that of a policy learned from packs.
    """
    try:
        return config_from(training["config"])
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
