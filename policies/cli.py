"""The subcommands of this package: plain functions; whatever is heavy is imported inside them."""

import sys
import time
from dataclasses import replace
from pathlib import Path

MATMUL = "highest"
EXTRA_FIGURES = (  # of an evaluation: key, word, unit
    ("energy_j", "energy", " J"),
    ("heat_j", "heat in the windings", " J"),
    ("winding_max_c", "hottest winding", " deg C"),
    ("action_change", "action change", " per step"),
)


def train(
    env: str,
    out: Path | None = None,
    engine: str = "mujoco",
    hand: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    envs: int | None = None,
    workers: int = 2,
    learner: str | None = None,
    memory: int | None = None,
    imitate: int | None = None,
    level: str | None = None,
    ray: str | None = None,
    resume: bool = False,
    tensorboard: bool = True,
    from_packs: Path | None = None,
    init: Path | None = None,
    json: Path | None = None,
) -> None:
    """Train a policy in simulation, or improve one from a fleet's experience packs. Ctrl-C saves and stops.

    Args:
        env: Environment id, e.g. flexor/HandReach-v0.
        out: Folder of the run; runs/<name>-<seed> when left out.
        engine: mujoco (faster) or pybullet.
        hand: Which robot; the task's default when left out.
        minutes: Stop after this long; with `init` there is nothing to stop, it makes its passes over the packs.
        steps: Stop after this many control steps of the run. Without either, train until Ctrl-C.
        seed: Seed of everything drawn.
        envs: Simulated robots; as the task's settings say when left out.
        workers: Processes they are spread over.
        learner: ppo, or sac: off-policy, which can learn from packs, too; as the task's settings say when left out.
        memory: Width of a recurrent cell in the policy, 0 for none (ppo).
        imitate: Control steps of the task's script that a fresh policy imitates first; as the task's settings say when left out.
        level: Stay at this level of the task, an easier form; as the task's settings say when left out.
        ray: Simulate on the Ray cluster at this address ("auto", HOST:PORT, or "local"); --workers counts its actors.
        resume: Go on with the run in `out`, with its own settings.
        tensorboard: Write event files into the run's folder, beside progress.csv.
        from_packs: Learn from the packs below this folder, too (sac); with `init` from nothing else.
        init: A run or an artifact to begin with: another task's networks, as far as they see and move the same. With `from_packs`, the run whose policy
            gathered the packs: it is improved on them, without simulation.
        json: Write the figures to this file.

    Example:
        flexor train flexor/HandReach-v0 --minutes 3 --out runs/reach
    """
    import torch

    from policies import checkpoint
    from policies.settings import settings_of
    from policies.shipped import beginning
    from policies.train import Trainer, TrainingError, config_of, words_for
    from robot.report import write_json
    from sim.tasks import find

    task = find(env)
    run = out or Path("runs") / f"{artifact_name(env)}-{seed}"
    torch.set_num_threads(1)  # a second one spins between updates and takes a core from the simulators
    torch.set_float32_matmul_precision(MATMUL)
    if init is not None and from_packs is not None:
        from policies.fleet_learning import improve

        results = improve(init, from_packs, run, env_id=task.env_id, seed=seed, report=print)
    else:
        saved = checkpoint.load(run) if resume else None
        if saved is None and (run / checkpoint.CHECKPOINT_FILE).exists():
            raise TrainingError(f"{run} holds a run already; do: --resume to go on with it, or another --out")
        begun = beginning(init) if init is not None and saved is None else None
        if from_packs is not None and learner is None:
            learner = "sac"  # the one that can learn from other policies' steps
        config = settings_of(
            env,
            engine=engine,
            hand=hand,
            seed=seed,
            num_envs=envs,
            workers=workers,
            learner=learner,
            memory=memory,
            imitate=imitate,
            level=level,
            began_with=words_for(begun) if begun is not None else None,
        )
        if saved is not None:
            config = replace(config_of(saved.training), env_id=env)
        if from_packs is not None and config.learner != "sac":
            raise TrainingError(
                "only --learner sac draws from packs of any policy; PPO needs --init RUN, the policy that acted"
            )
        packs = packs_below(from_packs, find_contract(env, hand)) if from_packs is not None else []
        trainer = Trainer(
            run,
            config,
            resume_from=saved,
            init=begun,
            make_sampler=sampler_on(ray),
            tensorboard=tensorboard,
            packs=packs,
        )
        try:
            results = trainer.train(
                seconds=None if minutes is None else 60.0 * minutes,
                steps=steps,
                report=lambda line: print(line.text(), flush=True),
                clock=time.monotonic,
            )
        finally:
            trainer.close()
    print(
        f"{run}: {results['steps']} steps{', interrupted' if results.get('interrupted') else ''}; next: flexor export {run}"
    )
    if json is not None:
        write_json(json, command="train", seed=seed, results=results)


def sampler_on(ray: str | None):
    """Where simulation workers live: in processes of this machine, or on a Ray cluster."""
    if ray is None:
        from policies.sampler import LocalSampler

        return LocalSampler
    from policies.ray_sampler import RaySampler

    return lambda where: RaySampler(where, ray)


def packs_below(folder: Path, contract) -> list:
    """The packs of a folder, all of one contract.

    Raises:
        PackError: None there, or one that is empty, damaged or of another contract; it is named.
    """
    from robot.packs import EmptyPackError, find_packs, open_packs

    paths = find_packs(folder)
    if not paths:
        raise EmptyPackError(f"no experience pack in {folder}; do: flexor fleet export --dir HUB --out {folder}")
    return open_packs(paths, contract.sha256)


def find_contract(env_id: str, hand: str | None):
    """The contract of an environment on a robot, without an engine."""
    from robot.description import load
    from sim.tasks import find

    task = find(env_id)
    return task(load(hand or task.default_robot)).contract()


def export(
    run: Path,
    name: str | None = None,
    version: str | None = None,
    out: Path = Path("models"),
    release: bool = False,
    int8: bool = False,
    level: str | None = None,
    episodes: int = 100,
    workers: int = 2,
    json: Path | None = None,
) -> Path:
    """Turn a training run into an artifact: policy.onnx, golden.npz, card.md.

    Refuses when the file and the network differ by more than 1e-5, when a weight is not finite, and to overwrite a version. With
    --release it is measured on both engines: where success on the one it was not trained on is more than 10 points below, or the file
    acts otherwise than the network, it stays a draft, and the card says why. With --int8 a version with weights of eight bits follows,
    and only where its success on the same episodes is at least 99 % of the first one's, and its file is smaller or faster.

    Args:
        run: Folder of the run, as `flexor train` prints it.
        name: Name of the artifact, snake_case; from the environment when left out (HandReach-v0 becomes hand_reach).
        version: v1, v2, ...; the next free one when left out.
        out: The models folder.
        release: Ask the release gate, and write what it found into the card.
        int8: Write a second version with int8 weights, if it passes.
        level: Ask the gates at this level of the task, an easier form; the card says so. The task itself when left out.
        episodes: Of each engine, for the gates.
        workers: Processes they are spread over.
        json: Write the gate's figures to this file.

    Example:
        flexor export runs/hand_reach-0 --name hand_reach --release
    """
    from policies import checkpoint
    from policies.export import export as write

    saved = checkpoint.load(run)
    folder = write(
        saved.actor,
        saved.contract,
        out,
        name or artifact_name(saved.contract.env_id),
        version,
        recorded_observations=saved.recorded_observations,
        training=saved.training,
    )
    print(f"{folder}: policy.onnx, golden.npz, card.md")
    if release:
        _release(folder, saved, episodes=episodes, workers=workers, level=level, json=json)
    if int8:
        _int8(folder, saved, out, episodes=episodes, workers=workers, level=level)
    return folder


def _int8(folder: Path, saved, out: Path, *, episodes: int, workers: int, level: str | None) -> Path:
    """A second version with int8 weights, kept where it earns its place.

    Raises:
        QuantizedError: It does not; nothing is left of it, and the message says what was measured.
    """
    import shutil

    from policies.evaluate import evaluate
    from policies.export import export as write
    from policies.export import write_card
    from policies.export.int8 import QuantizedError, compare
    from policies.gate import ENV_SEED

    small = write(
        saved.actor,
        saved.contract,
        out,
        folder.parent.name,
        recorded_observations=saved.recorded_observations,
        training={**saved.training, "weights": "int8"},
        int8=True,
    )
    try:
        engine = saved.training.get("engine", "pybullet")
        how = {"engine": engine, "episodes": episodes, "seed": ENV_SEED, "workers": workers, "level": level}
        both = [evaluate(each, **how, progress=told(each.name)) for each in (folder, small)]
        verdict = compare((folder, small), (both[0], both[1]), saved.contract.control_hz)
        print(verdict.sentence())
        if verdict.reasons:
            reasons = "".join(f"\n  {reason}" for reason in verdict.reasons)
            raise QuantizedError(f"int8 weights are not worth it here, nothing was kept of them:{reasons}")
        write_card(small, {result.policy: result.as_dict() for result in both}, release=verdict.sentence())
    except BaseException:
        shutil.rmtree(small, ignore_errors=True)
        raise
    print(f"{small}: the same with int8 weights")
    return small


def _release(folder: Path, saved, *, episodes: int, workers: int, level: str | None, json: Path | None) -> None:
    from policies.export import write_card
    from policies.gate import ENV_SEED, GateError, judge
    from robot.report import machine, write_json

    verdict = judge(
        folder, saved, episodes=episodes, workers=workers, level=level, progress=lambda engine: told(engine)
    )
    results = {f"{folder.parent.name} on {engine}": result.as_dict() for engine, result in verdict.results.items()}
    here = machine()
    write_card(folder, results, f"{here['cpu']}, {here['cores']} cores", verdict.sentence())
    print(table(list(results.values())))
    if json is not None:
        figures = {engine: result.as_dict() for engine, result in verdict.results.items()}
        write_json(
            json,
            command="export",
            seed=ENV_SEED,
            results={"released": not verdict.reasons, "reasons": verdict.reasons, "engines": figures},
        )
    if verdict.reasons:
        reasons = "".join(f"\n  {reason}" for reason in verdict.reasons)
        raise GateError(
            f"{folder} stays a draft:{reasons}\n  do: train longer or with wider randomisation; the card says so, too"
        )
    print(f"{folder}: released")


def bench_train(
    peers: bool = False,
    tasks: tuple[str, ...] = (),
    contenders: tuple[str, ...] = (),
    level: str = "",
    seeds: int = 3,
    minutes: float = 10.0,
    engine: str = "mujoco",
    marks: int = 15,
    episodes: int = 20,
    workers: int = 2,
    out: Path = Path("runs/bench-train"),
    json: Path | None = None,
) -> None:
    """Measure how long learning takes: wall-clock time to 95 % success, beside what a user would pick instead.

    While the clock runs, copies of the policy are put aside; afterwards each is measured without noise on the same seeds. All contenders
    get the same environment, engine, processes and budget. Runs already in --out are not made again, so an interrupted benchmark goes on.

    Args:
        peers: Run Stable-Baselines3 PPO and SAC, too: defaults, rl-zoo's settings, and PPO with ours.
        tasks: Environment ids; HandReach, BodyStand and BodyWalk when left out.
        contenders: Names instead of the usual ones; a wrong one lists them.
        level: Learn and measure at this level of the tasks, an easier form; all of them must have it.
        seeds: Runs of each contender and task.
        minutes: Budget of a run.
        engine: pybullet or mujoco.
        marks: How often the policy is put aside.
        episodes: Measured per mark.
        workers: Simulation processes.
        out: Folder of the runs; the curves are drawn into it, too.
        json: Write the figures to this file.

    Example:
        flexor bench train --peers --minutes 10 --json train.json
        flexor bench train --tasks flexor/BodyWalk-v0 --contenders ours --level steady
    """
    from policies.bench_train import CONTENDERS, TASKS, figures, run_all, specs, text
    from policies.curves import write_svg
    from robot.report import write_json

    usual = ("ours", *(name for name, who in CONTENDERS.items() if who.peer)) if peers else ("ours", "ours_in_turn")
    wanted = specs(
        out,
        tasks=tasks or TASKS,
        contenders=contenders or usual,
        level=level,
        seeds=seeds,
        minutes=minutes,
        engine=engine,
        marks=marks,
        episodes=episodes,
        workers=workers,
    )
    results = run_all(wanted, lambda line: print(line, file=sys.stderr, flush=True))
    found = figures(results)
    write_svg(out / "curves.svg", results, {name: who.what for name, who in CONTENDERS.items()})
    print(text(found))
    print(f"curves: {out / 'curves.svg'}")
    if json is not None:
        write_json(json, command="bench train", seed=0, results=found)


def bench_fleet_learning(
    robots: tuple[int, ...] = (1, 2, 4, 8),
    seeds: int = 3,
    rounds: int = 120,
    engine: str = "mujoco",
    workers: int = 2,
    out: Path = Path("runs/bench-fleet-learning"),
    json: Path | None = None,
) -> None:
    """Measure what sharing brings: robot-hours each needs until the shared policy succeeds, for fleets of several sizes.

    Every robot has a body of its own. What they live through goes through experience packs; the policy is measured without noise on their
    own bodies and on bodies nobody trained on. Experiments already in --out are not made again.

    Args:
        robots: Sizes of the fleets.
        seeds: Experiments of each size.
        rounds: At most so many rounds of 1024 steps, shared by the robots.
        engine: pybullet or mujoco.
        workers: Simulation processes.
        out: Folder of the experiments.
        json: Write the figures to this file.

    Example:
        flexor bench fleet-learning --json together.json
    """
    import torch

    from policies.fleet_bench import figures, run_all, text
    from robot.report import write_json

    torch.set_num_threads(1)
    runs = run_all(
        out,
        robots,
        seeds=seeds,
        engine=engine,
        rounds=rounds,
        workers=workers,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    found = figures(runs)
    print(text(found))
    if json is not None:
        write_json(json, command="bench fleet-learning", seed=0, results=found)


def artifact_name(env_id: str) -> str:
    """The default name of an environment's policy: "flexor/HandReach-v0" -> "hand_reach"."""
    import re

    words = re.findall(r"[A-Z][a-z0-9]*", env_id.rpartition("/")[2].rpartition("-v")[0])
    return "_".join(words).lower()


def eval_(
    artifact: str,
    engine: str = "pybullet",
    episodes: int = 100,
    seed: int = 0,
    baselines: bool = False,
    randomization: bool = True,
    nominal: bool = False,
    level: str | None = None,
    workers: int = 2,
    json: Path | None = None,
) -> None:
    """Measure an exported policy: success, return and task figures with 95 % intervals, on fixed seeds.

    It is the file that is measured, run by onnxruntime, not the network it came from. Beside the task's own figures: electrical energy
    and motor heat per episode, the hottest winding, and how much the action changes from step to step.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one (hand_reach, hand_reach/v1).
        engine: pybullet, mujoco, or both.
        episodes: How many; at least 100 for a figure worth quoting.
        seed: Seed of the first episode; the others count up from it.
        baselines: Measure the zero, random and scripted policies on the same episodes.
        randomization: Whether the robot's numbers vary between episodes.
        nominal: Measure it without randomisation as well.
        level: Measure it at this level of the task, an easier form; the task itself when left out.
        workers: Processes the episodes are spread over; the figures do not depend on it.
        json: Write the figures to this file.

    Example:
        flexor eval hand_reach --engine both --episodes 100 --nominal --baselines --json eval.json
    """
    from policies.evaluate import BASELINES, evaluate, margin, with_baselines
    from robot.report import write_json
    from sim.engines import ENGINES

    engines = tuple(ENGINES) if engine == "both" else (engine,)
    settings = {"episodes": episodes, "seed": seed, "workers": workers, "level": level}
    rows: dict[str, dict] = {}
    results: dict = {}
    for each in engines:
        varied = (True, False) if nominal and randomization else (randomization,)
        for vary in varied:
            label = f"{each}{'' if vary else ', nominal'}"
            how = {**settings, "engine": each, "randomization": vary, "progress": told(label)}
            measured = with_baselines(artifact, BASELINES, **how) if baselines else {"": evaluate(artifact, **how)}
            policy, *others = measured.values()
            row = policy.as_dict()
            if baselines:
                row["baselines"] = {other.policy: other.as_dict() for other in others}
                row["margins"] = {other.policy: margin(policy, other) for other in others}
            rows[label] = row
            results = results or dict(row)  # the first row is what scripts read
            print(table([result.as_dict() for result in measured.values()]), flush=True)
    if json is not None:
        write_json(json, command="eval", seed=seed, results={**results, "rows": rows} if len(rows) > 1 else results)


def told(what: str):
    """Something that shows how far an evaluation has come, on a terminal only."""
    started, first = time.monotonic(), 0

    def progress(done: int, of: int) -> None:
        nonlocal started, first
        if done < first or not first:  # the rate is that of the policy at hand; each starts anew
            started, first = time.monotonic(), done
        if sys.stderr.isatty() and done > first:
            rate = (done - first) / (time.monotonic() - started)
            left = f"{rate:.1f} episodes/s, {(of - done) / rate:.0f} s left"
            print(
                f"\r{what}: {done}/{of} episodes, {left}   ", end="" if done < of else "\n", file=sys.stderr, flush=True
            )

    return progress


def sim(
    env: str,
    policy: str | None = None,
    engine: str = "pybullet",
    hand: str | None = None,
    level: str | None = None,
    steps: int = 100,
    seed: int = 0,
    frames: Path | None = None,
    video: Path | None = None,
    view: bool = False,
) -> None:
    """Watch an environment under a policy: prints each episode, and writes pictures or a film without a display.

    Args:
        env: Environment id, e.g. flexor/HandReach-v0.
        policy: An artifact's folder or name, or one of zero, random, scripted; when left out scripted, or random where the task has
            no script.
        engine: pybullet or mujoco.
        hand: Which robot; the task's default when left out.
        level: An easier form of the task; the task itself when left out.
        steps: Control steps to run; episodes follow one another.
        seed: Seed of the first episode; the others count up from it.
        frames: Write a PNG per step into this folder.
        video: Write an mp4 to this file.
        view: Open a live 3D page on this machine; it stays open until Ctrl-C.

    Example:
        flexor sim flexor/HandReach-v0 --policy hand_reach --video reach.mp4
    """
    from policies.watch import watch
    from sim.baselines import usual

    watch(
        env,
        policy or usual(env),
        engine=engine,
        hand=hand,
        level=level,
        steps=steps,
        seed=seed,
        frames=frames,
        video=video,
        view=view,
        say=print,
    )


def table(results: list[dict]) -> str:
    """Results as an aligned table for a terminal, one row per policy."""
    from policies.evaluate import kinds_line

    head = ("policy", "engine", "robots", "level", "n", "success", "95 % interval", "return", "95 % interval")
    rows: list[tuple[str, ...]] = [head]
    for result in results:
        low, high = result["success_ci95"]
        spread = result["return_ci95"]
        rows.append(
            (
                result["policy"],
                result["engine"],
                "varied" if result["randomization"] else "nominal",
                result["level"] or "-",
                str(result["episodes"]),
                f"{100.0 * result['success']:.1f} %",
                f"{100.0 * low:.1f} to {100.0 * high:.1f} %",
                f"{result['return_mean']:.4g}",
                "-" if spread is None else f"{spread[0]:.4g} to {spread[1]:.4g}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for result in results:
        figures = [f"{name} {value['mean']:.4g}" for name, value in result["metrics"].items()]
        for name, words, unit in EXTRA_FIGURES:
            if result[name] is not None:
                figures.append(f"{words} {result[name]['mean']:.4g}{unit}")
        if figures:
            lines.append(f"{result['policy']}: {', '.join(figures)}")
        if result["kinds"]:
            lines.append(f"{result['policy']}: {kinds_line(result['kinds'])}")
    return "\n".join(lines)
