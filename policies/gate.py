"""The release gate: may an artifact be called released? It must do its task, on the engine it was not trained on about as well as on the
other, and its file must still say what it said when it was exported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policies.artifact import PolicyFile
from policies.checkpoint import Checkpoint
from policies.evaluate import EvalResult, Progress, evaluate, file_policy
from policies.export.parity import ACTION_TOLERANCE
from robot.artifacts import ACTIONS, GOLDEN_FILE, JOINT_TARGETS, OBSERVATION, STATE_IN, STATE_OUT
from robot.errors import FlexorError
from sim.engines import ENGINES

LARGEST_DROP = 0.10  # of success, from the engine of the training to the other one
EPISODES = 100
ROLLOUT_STEPS = 200
# In closed loop the same observation goes into both; what differs is the order of float32 sums, as at export.
ROLLOUT_TOLERANCE = ACTION_TOLERANCE
ENV_SEED = 10_000  # beyond the seeds that training and quick looks use


class GateError(FlexorError, RuntimeError):
    """An artifact that may not be called released; the message lists why, and where it lies as a draft."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found.

    Attributes:
        results: Engine -> what the policy came to there.
        trained_on: Engine of the training.
        golden_difference: Largest difference of an answer of the file from golden.npz.
        rollout_difference: Largest difference of an action of the file from the network's, in closed loop; None without a network.
    """

    results: Mapping[str, EvalResult]
    trained_on: str
    golden_difference: float
    rollout_difference: float | None

    @property
    def reasons(self) -> list[str]:
        """Why it may not be released; empty when it may."""
        found = []
        at_home = self.results[self.trained_on].success
        for engine, result in self.results.items():
            if result.success == 0.0:
                found.append(f"it never succeeded on {engine} (n = {len(result.episodes)})")
            elif result.success < at_home - LARGEST_DROP:
                found.append(
                    f"success on {engine}, where it was not trained, is {100 * result.success:.0f} %, on {self.trained_on} "
                    f"{100 * at_home:.0f} %: more than {100 * LARGEST_DROP:.0f} points below (n = {len(result.episodes)})"
                )
        for what, difference in (("golden.npz", self.golden_difference), ("a rollout", self.rollout_difference)):
            if difference is not None and not difference <= ROLLOUT_TOLERANCE:
                found.append(
                    f"the file's answers differ from {what} by {difference:.3g}, allowed {ROLLOUT_TOLERANCE:.0e}"
                )
        return found

    def sentence(self) -> str:
        """What the card says."""
        rates = ", ".join(f"{100 * result.success:.1f} % on {engine}" for engine, result in self.results.items())
        level = self.results[self.trained_on].level
        rates = f'at the level "{level}" {rates}' if level else rates
        if self.reasons:
            return f"**Not released** ({rates}): {'; '.join(self.reasons)}."
        return (
            f"**Released**: {rates} (trained on {self.trained_on}; a drop of more than {100 * LARGEST_DROP:.0f} points refuses); "
            f"golden samples and {ROLLOUT_STEPS} steps in closed loop agree to {ROLLOUT_TOLERANCE:.0e}."
        )


def judge(
    folder: Path,
    saved: Checkpoint | None = None,
    *,
    episodes: int = EPISODES,
    seed: int = ENV_SEED,
    workers: int = 1,
    level: str | None = None,
    make_env: Callable[..., gymnasium.Env] | None = None,
    progress: Callable[[str], Progress | None] = lambda engine: None,
) -> Verdict:
    """Measure an artifact on both engines and hold its file against what it came from.

    Args:
        folder: The artifact.
        saved: The run it was exported from; without it there is no rollout beside the network.
        level: Of the task; the task itself when None.
        progress: Gives what is told of each engine's episodes.

    Raises:
        EvaluationError, ArtifactFileError: As their names say.
    """
    policy = PolicyFile.load(folder)
    trained_on = policy.training.get("engine", ENGINES[0])
    engines = (
        (trained_on, *(engine for engine in ENGINES if engine != trained_on)) if trained_on in ENGINES else ENGINES
    )
    results = {
        engine: evaluate(
            policy,
            engine=engine,
            episodes=episodes,
            seed=seed,
            workers=workers,
            level=level,
            make_env=make_env,
            progress=progress(engine),
        )
        for engine in engines
    }
    difference = None
    if saved is not None:
        difference = rollout_difference(policy, saved, engine=next(iter(results)), seed=seed, make_env=make_env)
    return Verdict(
        results=results,
        trained_on=next(iter(results)),
        golden_difference=golden_difference(policy, folder),
        rollout_difference=difference,
    )


def golden_difference(policy: PolicyFile, folder: Path) -> float:
    """Largest difference between what the file answers now and golden.npz; infinite where there is none to compare."""
    try:
        with np.load(folder / GOLDEN_FILE, allow_pickle=False) as file:
            golden: dict[str, Any] = {name: file[name] for name in file.files}
        observations, expected = golden[OBSERVATION], (golden[ACTIONS], golden[JOINT_TARGETS])
    except (OSError, ValueError, KeyError):
        return float("inf")
    worst, memory = 0.0, policy.initial_memory
    for i, row in enumerate(observations):
        action, target, after = policy.step(row, golden[STATE_IN][i] if STATE_IN in golden else memory)
        answers = [(action, expected[0][i]), (target, expected[1][i])]
        if STATE_OUT in golden:
            answers.append((after, golden[STATE_OUT][i]))
        for got, want in answers:
            worst = float(np.maximum(worst, np.abs(got - want).max(initial=0.0)))  # NaN stays
    return worst if len(observations) else float("inf")


def rollout_difference(
    policy: PolicyFile,
    saved: Checkpoint,
    *,
    engine: str,
    seed: int,
    make_env: Callable[..., gymnasium.Env] | None = None,
) -> float:
    """Largest difference of an action between the file and the network while the file acts."""
    import torch

    contract = policy.contract
    env = (make_env or gymnasium.make)(f"sim:{contract.env_id}", engine=engine, hand=contract.robot, randomization=True)
    try:
        file_policy(policy)(env)  # refuses another contract
        worst, done = 0.0, True
        observation = memory = state = None
        for step in range(ROLLOUT_STEPS):
            if done:
                observation, _ = env.reset(seed=seed + step)
                memory, state = policy.initial_memory, saved.actor.initial_memory(1)
            assert observation is not None and memory is not None and state is not None
            action, _, memory = policy.step(observation, memory)
            with torch.no_grad():
                mean, state = saved.actor.step(torch.from_numpy(np.asarray(observation, np.float32))[None], state)
            worst = float(np.maximum(worst, np.abs(mean.numpy()[0] - action).max()))  # NaN stays
            observation, _, terminated, truncated, _ = env.step(np.clip(action, -1.0, 1.0))
            done = terminated or truncated
        return worst
    finally:
        env.close()
