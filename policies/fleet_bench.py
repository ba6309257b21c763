"""Together: how much must each robot live through, when several share what they live through, until the shared policy can do its task?

Every robot has a body of its own: one draw of friction, stiffness, motor strength and encoder errors, kept for life. In each round all of
them act with the same policy and its noise; what they lived through is sealed into a pack of chunks, as a hub seals it; the learner opens
the pack and improves the policy. Rounds are of the same size however many robots there are, so the work of the learner is the same and
only the share of each robot differs. After each round the policy is measured without noise on the robots' own bodies and on bodies nobody
trained on.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import torch

from policies.arrays import encode
from policies.checkpoint import Checkpoint
from policies.collect import Groups
from policies.fleet_learning import batch_of, sequences
from policies.hindsight import Hindsight, applies
from policies.networks import elementwise_log_prob
from policies.onpolicy import networks
from policies.ppo import PPO
from policies.rollout import EnvFacts, Trajectory
from policies.sampler import LocalSampler, places
from policies.settings import settings_of
from robot.experience import Chunk, ChunkHeader
from robot.files import replace_file
from robot.packs import open_packs, write_pack
from sim.randomization import Ranges

ENV_ID = "flexor/HandReach-v0"
TARGET = 0.95
ROUND_STEPS = 1024  # of all robots together: as many as an iteration of `flexor train` takes for this task
STRANGERS = 8  # bodies nobody trains on
EPISODES = 40  # measured per round, spread over the bodies: the same number whatever the size of the fleet
STRANGER_SEED = 9_000_000
EVAL_SEED = 7_000_000


class RobotRun(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment.

    Attributes:
        robots, seed, engine: What it was.
        hours: Robot-hours each had lived through after each round.
        success: On the robots' own bodies after each round.
        strangers: On bodies nobody trained on.
        finished: Whether the target was reached before the rounds were used up.
    """

    robots: int
    seed: int
    engine: str
    target: float
    hours: tuple[float, ...]
    success: tuple[float, ...]
    strangers: tuple[float, ...]
    finished: bool


def body_of(seed: int) -> dict[str, Any]:
    """A robot's own body: ranges from which only one value each can be drawn."""
    rng, ranges = np.random.default_rng(seed), asdict(Ranges())
    drawn = {name: float(rng.uniform(*pair)) for name, pair in ranges.items()}
    return {"ranges": {name: (value, value) for name, value in drawn.items()}}


def chunks_of(path: Trajectory, facts: EnvFacts, policy_sha256: str, number: str) -> list[Chunk]:
    """A round of all robots as the chunks they would have sent: one per robot and stretch of an episode."""
    contract = facts.contract
    log_prob = elementwise_log_prob(*(torch.from_numpy(np.array(x)) for x in (path.action, path.mean, path.log_std)))
    log_prob = log_prob.sum(dim=-1).numpy()
    ends = {(int(step), int(env)): i for i, (step, env) in enumerate(zip(path.end_step, path.end_env))}
    found = []
    for env in range(path.terminated.shape[1]):
        low = 0
        for high in [*(step + 1 for step in sorted(step for step, e in ends if e == env)), len(path.terminated)]:
            if high <= low:
                continue
            at = ends.get((high - 1, env))
            last = path.last_observation[env] if at is None else path.end_observation[at]
            how = "no" if at is None else "terminated" if path.terminated[high - 1, env] else "truncated"
            rows = slice(low, high)
            found.append(
                Chunk(
                    header=ChunkHeader(
                        contract_sha256=contract.sha256,
                        policy_sha256=policy_sha256,
                        episode_id=hashlib.md5(f"{number}.{env}.{low}".encode(), usedforsecurity=False).hexdigest(),
                        first_step=0,
                        steps=high - low,
                        observation_size=contract.observation_size,
                        action_size=contract.action_size,
                        reward_names=facts.reward_names,
                        ended=how,
                        control_hz=contract.control_hz,
                    ),
                    observation=path.observation[rows, env],
                    action=path.action[rows, env],
                    reward=path.terms[rows, env].astype(np.float32),
                    log_prob=log_prob[rows, env],
                    success=np.zeros(high - low, np.uint8),
                    time_s=np.arange(low, high) * facts.dt_s,
                    last_observation=np.asarray(last, np.float32),
                )
            )
            low = high
    return found


def live(
    robots: int,
    seed: int,
    *,
    engine: str,
    rounds: int,
    workers: int,
    say: Callable[[str], None],
    target: float = TARGET,
    env_id: str = ENV_ID,
) -> RobotRun:
    """One experiment: rounds until the target is reached on the robots' own bodies, twice in a row, or the rounds are used up."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = settings_of(env_id, engine=engine, seed=seed)
    facts = replace(
        EnvFacts.of(env_id, {"engine": engine}), privileged_names=()
    )  # robots share what they observe, no more
    groups = Groups.of(facts.credit, facts.contract.action.joints, facts.reward_names)
    actor, critic = networks(config, facts, groups)
    learner = PPO(actor, critic, config.ppo, groups.actions)
    hindsight = Hindsight(actor, facts.contract, config.hindsight, stride=1) if applies(facts.contract) else None
    own = [{"engine": engine, **body_of(1000 * seed + i)} for i in range(robots)]
    strangers = [{"engine": engine, **body_of(STRANGER_SEED + i)} for i in range(STRANGERS)]
    # Robots go on living from round to round; what measures their bodies is not them.
    samplers = [
        LocalSampler(places(env_id, who, min(workers, len(who)), actor.config)) for who in (own, own, strangers)
    ]
    robots_alive, on_own, on_strangers = samplers
    robots_alive.reset(seed)
    steps = ROUND_STEPS // robots
    hours, success, others = [], [], []

    def weights() -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in actor.state_dict().items()}

    def measured(sampler: LocalSampler, bodies: int) -> float:
        sampler.reset(EVAL_SEED)
        sampler.ask(weights(), EPISODES // bodies * facts.max_steps, mode="mean")
        return float(sampler.take().end_success.mean())

    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                robots_alive.ask(weights(), steps)
                path = robots_alive.take()
                sha256 = hashlib.sha256(encode(weights())).hexdigest()
                place = Path(folder) / f"round-{number:04d}"
                write_pack(place, chunks_of(path, facts, sha256, f"{seed}.{number}"))
                data = sequences(open_packs([place], facts.contract.sha256))
                saved = Checkpoint(
                    actor=actor,
                    critic=critic,
                    contract=facts.contract,
                    recorded_observations=data.observation,
                    training={},
                    counters={},
                    generators={},
                )
                batch = batch_of(saved, data, groups, config.ppo)
                learner.update(batch, generator)
                if hindsight is not None:
                    hindsight.remember(batch.observation)
                    hindsight.learn(generator)
                actor.update_normalizer(batch.observation)
                critic.update_normalizer(batch.seen)
                hours.append((number + 1) * steps * facts.dt_s / 3600.0)
                success.append(measured(on_own, robots))
                others.append(measured(on_strangers, STRANGERS))
                say(
                    f"{robots} robots, seed {seed}, round {number + 1}: {hours[-1]:.4f} h each, success {100 * success[-1]:.0f} %, "
                    f"on strangers {100 * others[-1]:.0f} %"
                )
                if min(success[-2:]) >= target and len(success) > 1:
                    break
    finally:
        for sampler in samplers:
            sampler.close()
    return RobotRun(
        robots=robots,
        seed=seed,
        engine=engine,
        target=target,
        hours=tuple(hours),
        success=tuple(success),
        strangers=tuple(others),
        finished=min(success[-2:]) >= target,
    )


def run_all(
    folder: Path,
    fleets: tuple[int, ...],
    *,
    seeds: int,
    engine: str,
    rounds: int,
    workers: int,
    say: Callable[[str], None],
    env_id: str = ENV_ID,
) -> list[RobotRun]:
    """All experiments; one whose file is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(seeds):
        for robots in fleets:
            path = folder / f"{robots}-robots-{seed}.json"
            run = _read(path)
            if (
                run is None
                or (run.engine, run.target) != (engine, TARGET)
                or not (run.finished or len(run.hours) >= rounds)
            ):
                run = live(robots, seed, engine=engine, rounds=rounds, workers=workers, say=say, env_id=env_id)
                replace_file(path, msgspec.json.encode(run))
            found.append(run)
    return found


def _read(path: Path) -> RobotRun | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RobotRun)
    except (OSError, msgspec.MsgspecError):
        return None


def figures(runs: list[RobotRun]) -> dict[str, Any]:
    """By number of robots: robot-hours each needed, per seed and median; share of what one needs alone; success on strangers.

    Hours of a run that did not reach the target are a lower bound.
    """
    table: dict[str, Any] = {}
    for run in runs:
        row = table.setdefault(str(run.robots), {"hours_each": [], "reached": 0, "on_own": [], "on_strangers": []})
        row["hours_each"].append(run.hours[-1])
        row["reached"] += run.finished
        row["on_own"].append(run.success[-1])
        row["on_strangers"].append(run.strangers[-1])
    for row in table.values():
        row["hours_each_median"] = median(row["hours_each"])
        row["on_strangers_median"] = median(row["on_strangers"])
        if "1" in table:
            row["share_of_alone"] = row["hours_each_median"] / median(table["1"]["hours_each"])
    return table


def text(table: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = ["robots  hours each (median)  share of one alone  reached  success on strangers (median)"]
    for robots, row in table.items():
        share = f"{row['share_of_alone']:.3f}" if "share_of_alone" in row else "-"
        lines.append(
            f"{robots:>6}  {row['hours_each_median']:>19.4f}  {share:>18}  {row['reached']}/{len(row['hours_each']):<5}  "
            f"{100 * row['on_strangers_median']:.0f} %"
        )
    return "\n".join(lines)
