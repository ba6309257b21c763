"""How good a policy is: the exported file, run by onnxruntime in its environment, episode by episode on fixed seeds.

Episode i has seed `seed + i` whoever acts, so policies and baselines face the same goals and the same robots and can be compared
pair by pair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policies.artifact import FileAct, PolicyFile
from policies.intervals import Interval, mean_interval, wilson
from robot.artifacts import DEFAULT_MODELS_DIR, find_artifact
from robot.errors import FlexorError, UnknownNameError

SUCCESS_KEY = "is_success"  # info at episode end: the task's own verdict, as Stable-Baselines3 calls it
METRICS_KEY = "metrics"  # info at episode end: dict of floats, units in the names
ENERGY_KEY = "energy_j"  # electrical energy of the episode, in info or among the metrics [J]
HEAT_KEY = "heat_j"  # of it, what became heat in the windings [J]
KIND_BAR = 0.9  # a kind of episode counts as mastered from here on
BASELINES = ("zero", "random", "scripted", "planner")

Act = Callable[[np.ndarray, dict[str, Any]], np.ndarray]
MakeAct = Callable[[gymnasium.Env], Act]
Progress = Callable[[int, int], None]


class EvaluationError(FlexorError, ValueError):
    """An environment that does not say what an evaluation needs, or a policy that does not fit it."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What one episode came to.

    Attributes:
        energy_j: Electrical energy of all motors; None where the environment does not tell.
        heat_j: What of it became heat in the windings.
        winding_max_c: The hottest winding at the end, as the drives estimate it.
        kind: Of the task's kinds, what it was about; empty where there is only one.
        action_change: Root mean square change of the action from step to step: 0 is still, 1 is a jump over half its range.
    """

    seed: int
    steps: int
    total_reward: float
    success: bool
    metrics: dict[str, float]
    energy_j: float | None
    heat_j: float | None = None
    winding_max_c: float | None = None
    action_change: float = 0.0
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """A policy's episodes, and what follows from them.

    Attributes:
        policy: Label of who acted.
        env_id, engine, hand, randomization, level: What it acted in; level "" is the task itself.
        seed: Seed of the first episode.
        episodes: In seed order.
    """

    policy: str
    env_id: str
    engine: str
    hand: str
    randomization: bool
    seed: int
    episodes: tuple[Episode, ...]
    level: str = ""

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, shape (n,)."""
        return np.array([episode.total_reward for episode in self.episodes])

    @property
    def success(self) -> float:
        return sum(episode.success for episode in self.episodes) / len(self.episodes)

    @property
    def success_ci95(self) -> Interval:
        return wilson(sum(episode.success for episode in self.episodes), len(self.episodes))

    @property
    def return_mean(self) -> float:
        return float(self.returns.mean())

    def values(self, metric: str) -> np.ndarray:
        """A metric at the end of each episode, shape (n,)."""
        return np.array([episode.metrics[metric] for episode in self.episodes])

    def by_kind(self) -> dict[str, dict[str, Any]]:
        """Success of each kind of episode, in the order of the first of each; empty where there is only one kind."""
        counts: dict[str, list[bool]] = {}
        for episode in self.episodes:
            if episode.kind:
                counts.setdefault(episode.kind, []).append(episode.success)
        return {
            kind: {
                "episodes": len(done),
                "success": sum(done) / len(done),
                "success_ci95": list(wilson(sum(done), len(done))),
            }
            for kind, done in counts.items()
        }

    def _figure_of(self, name: str) -> dict[str, Any] | None:
        """Mean and interval of a figure that every episode has, else None."""
        values = [getattr(episode, name) for episode in self.episodes]
        return None if None in values else _figure(np.array(values))

    def as_dict(self) -> dict[str, Any]:
        """Plain figures for a report: means with 95 % intervals, and the per-episode rows they come from."""
        return_mean, return_ci95 = mean_interval(self.returns)
        return {
            "policy": self.policy,
            "env": self.env_id,
            "engine": self.engine,
            "hand": self.hand,
            "randomization": self.randomization,
            "level": self.level,
            "seed": self.seed,
            "episodes": len(self.episodes),
            "success": self.success,
            "success_ci95": list(self.success_ci95),
            "return_mean": return_mean,
            "return_ci95": _listed(return_ci95),
            "steps_mean": float(np.mean([episode.steps for episode in self.episodes])),
            "metrics": {name: _figure(self.values(name)) for name in sorted(self.episodes[0].metrics)},
            **{name: self._figure_of(name) for name in ("energy_j", "heat_j", "winding_max_c", "action_change")},
            "kinds": self.by_kind(),
            "returns": self.returns.tolist(),
            "successes": [episode.success for episode in self.episodes],
        }


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _figure(values: np.ndarray) -> dict[str, Any]:
    mean, ci95 = mean_interval(values)
    return {"mean": mean, "ci95": _listed(ci95)}


def kinds_line(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """How many kinds of episodes are mastered, and the success of each."""
    good = sum(kind["success"] >= KIND_BAR for kind in kinds.values())
    each = ", ".join(f"{name} {100.0 * kind['success']:.0f} %" for name, kind in kinds.items())
    return f"{good} of {len(kinds)} kinds at {100.0 * KIND_BAR:.0f} % or more: {each}"


def margin(policy: EvalResult, other: EvalResult) -> dict[str, Any]:
    """How much better one is than another on the same episodes: paired differences with 95 % intervals.

    Raises:
        EvaluationError: They were not measured on the same seeds, environment and engine.
    """
    for what in ("env_id", "engine", "hand", "randomization", "level", "seed"):
        ours, theirs = getattr(policy, what), getattr(other, what)
        if ours != theirs:
            raise EvaluationError(f"only runs on the same {what} are paired, got {ours!r} and {theirs!r}")
    if len(policy.episodes) != len(other.episodes):
        raise EvaluationError(
            f"only equally many episodes are paired, got {len(policy.episodes)} and {len(other.episodes)}"
        )
    success = np.array([float(a.success) - float(b.success) for a, b in zip(policy.episodes, other.episodes)])
    success_mean, success_ci95 = mean_interval(success)
    return_mean, return_ci95 = mean_interval(policy.returns - other.returns)
    return {
        "success": success_mean,
        "success_ci95": _listed(success_ci95),
        "return_mean": return_mean,
        "return_ci95": _listed(return_ci95),
    }


def run_episode(env: gymnasium.Env, act: Act, seed: int) -> Episode:
    """One episode from its seed to its end. A task with kinds goes through them as the seeds count up, so that each gets its share.

    Raises:
        EvaluationError: The environment's last info has no verdict.
    """
    kinds = getattr(getattr(env.unwrapped, "task", None), "kinds", ())
    kind = kinds[seed % len(kinds)] if kinds else ""
    observation, info = env.reset(seed=seed, options={"kind": kind} if kind else None)
    if isinstance(act, FileAct):
        act.begin()
    total_reward, steps, done, changes = 0.0, 0, False, 0.0
    previous: np.ndarray | None = None
    while not done:
        action = act(observation, info)
        observation, reward, terminated, truncated, info = env.step(action)
        total_reward += float(reward)
        steps += 1
        if previous is not None:
            changes += float(np.mean((action - previous) ** 2))
        previous = action
        done = terminated or truncated
    if SUCCESS_KEY not in info:
        raise EvaluationError(f"info at the end of an episode must have {SUCCESS_KEY!r}, got {sorted(info)}")
    metrics = {name: float(value) for name, value in info.get(METRICS_KEY, {}).items()}
    energy = info.get(ENERGY_KEY, metrics.pop(ENERGY_KEY, None))
    heat = info.get(HEAT_KEY)
    return Episode(
        seed=seed,
        steps=steps,
        total_reward=total_reward,
        success=bool(info[SUCCESS_KEY]),
        metrics=metrics,
        energy_j=None if energy is None else float(energy),
        heat_j=None if heat is None else float(heat),
        winding_max_c=_hottest(env),
        action_change=(changes / max(steps - 1, 1)) ** 0.5,
        kind=kind,
    )


def _hottest(env: gymnasium.Env) -> float | None:
    """The hottest winding of the robot now [deg C]; None where there is no estimate."""
    temperatures = getattr(getattr(env.unwrapped, "state", None), "motor_temperature_c", None)
    return float(np.max(temperatures)) if temperatures is not None and np.size(temperatures) else None


def file_policy(policy: PolicyFile) -> MakeAct:
    """Acts with an exported file, after checking that the environment has the file's contract."""

    def make(env: gymnasium.Env) -> Act:
        contract = getattr(env.unwrapped, "contract", None)
        if contract is None:
            raise EvaluationError(f"{env.unwrapped} has no contract to hold {policy.label} against")
        if contract.sha256 != policy.contract.sha256:
            differences = [
                f"  {field}: file {getattr(policy.contract, field)!r:.120}, environment {getattr(contract, field)!r:.120}"
                for field in contract.__struct_fields__
                if getattr(policy.contract, field) != getattr(contract, field)
            ]
            raise EvaluationError(
                f"{policy.label} was exported for another interface than the environment has:\n"
                + "\n".join(differences)
                + "\n"
                "  do: evaluate it in the environment and on the hand it names, or train and export it again"
            )
        return FileAct(policy)

    return make


def baseline_policy(name: str) -> MakeAct:
    """Acts as one of `sim.baselines`."""

    def make(env: gymnasium.Env) -> Act:
        from sim import baselines  # with the engines behind it, so only where one is wanted

        return baselines.make(name, env)

    return make


def evaluate(
    policy: PolicyFile | Path | str,
    env_id: str | None = None,
    engine: str = "pybullet",
    hand: str | None = None,
    episodes: int = 100,
    seed: int = 0,
    *,
    randomization: bool = True,
    level: str | None = None,
    models_dir: Path = DEFAULT_MODELS_DIR,
    make_env: Callable[..., gymnasium.Env] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> EvalResult:
    """Measure a policy.

    Args:
        policy: An exported file, an artifact's folder or name, or one of `BASELINES`.
        env_id: Environment; the one the file names when None. A baseline needs it.
        engine: "pybullet" or "mujoco".
        hand: Robot; the one the file names when None.
        episodes: How many; their seeds are seed, seed + 1, ...
        randomization: Whether the robot's numbers vary between episodes.
        level: An easier form of the task, one of its `levels`; the task itself when None.
        models_dir: Where artifact names are looked up.
        make_env: Called as gymnasium.make is, with engine, hand and randomization; gymnasium.make itself when None.
        progress: Called with (episodes done, episodes) after each.
        workers: Processes the episodes are spread over; the result does not depend on it. `make_env` works in this process only.

    Raises:
        UnknownNameError: No artifact, baseline or level of that name.
        EvaluationError: The file does not fit the environment, or the environment gives no verdict.
    """
    if episodes < 1:
        raise EvaluationError(f"episodes must be >= 1, got {episodes}")
    if isinstance(policy, str) and policy in BASELINES:
        label, actor, contract = policy, policy, None
    else:
        actor = policy if isinstance(policy, PolicyFile) else PolicyFile.load(find_artifact(policy, models_dir))
        label, contract = actor.label, actor.contract
    env_id = env_id or (contract.env_id if contract else None)
    hand = hand or (contract.robot if contract else None)
    if env_id is None or hand is None:
        raise EvaluationError(f"baseline {label!r} needs env_id and hand, got {env_id!r} and {hand!r}")
    settings = {"engine": engine, "hand": hand, "randomization": randomization, **({"level": level} if level else {})}
    if level:
        check_level(env_id, level)
    if workers > 1 and episodes > 1:
        from policies.eval_workers import episodes_in_workers

        done = episodes_in_workers(actor, env_id, settings, seed, episodes, workers, progress)
    else:
        done = episodes_of(actor, env_id, settings, range(seed, seed + episodes), make_env, progress)
    return EvalResult(
        policy=label,
        env_id=env_id,
        engine=engine,
        hand=hand,
        randomization=randomization,
        seed=seed,
        episodes=tuple(done),
        level=level or "",
    )


def check_level(env_id: str, level: str) -> None:
    """Refuse a level that a task does not have, before anything is loaded.

    Raises:
        UnknownNameError: No such level, or environment; the message lists the known ones.
    """
    from sim.tasks import find

    levels = find(env_id).levels
    if level not in levels:
        raise UnknownNameError(f"level of {env_id}", level, levels)


def episodes_of(
    actor: PolicyFile | str,
    env_id: str,
    settings: Mapping[str, Any],
    seeds: range,
    make_env: Callable[..., gymnasium.Env] | None,
    progress: Progress | None,
) -> list[Episode]:
    """Episodes on some seeds in one environment; `actor` is a file or the name of a baseline."""
    env = (make_env or gymnasium.make)(f"sim:{env_id}", **settings)
    try:
        act = (baseline_policy(actor) if isinstance(actor, str) else file_policy(actor))(env)
        done = []
        for seed in seeds:
            done.append(run_episode(env, act, seed))
            if progress is not None:
                progress(len(done), len(seeds))
        return done
    finally:
        env.close()


def with_baselines(
    policy: PolicyFile | Path | str, names: tuple[str, ...] = BASELINES, **settings: Any
) -> dict[str, EvalResult]:
    """A policy and baselines on the same episodes, by label; the policy comes first. `settings` as for `evaluate`."""
    first = evaluate(policy, **settings)
    same: Mapping[str, Any] = {**settings, "env_id": first.env_id, "hand": first.hand}
    return {first.policy: first, **{name: evaluate(name, **same) for name in names}}
