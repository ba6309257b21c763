"""The subcommands of this package: plain functions; whatever is heavy is imported inside them."""

import sys
from pathlib import Path


def bench(seconds: float = 5.0, repeats: int = 5, peers: bool = False, json: Path | None = None) -> None:
    """Measure the simulation: control steps per second on both engines, what is around the engine, workers, and the peers.

    Every figure is the median of runs in processes of their own, taken in turn. Measure on an idle machine.

    Args:
        seconds: How long each run measures.
        repeats: Runs of each kind.
        peers: Run Gymnasium-Robotics' hands beside ours, in the environment that `make bench-peers` makes.
        json: Write the figures to this file.

    Example:
        flexor bench sim --peers --json sim.json
    """
    from robot.report import write_json
    from sim.bench import measure, table

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    figures = measure(seconds=seconds, repeats=repeats, peers=peers, say=say)
    print(table(figures))
    if json is not None:
        write_json(json, command="bench sim", seed=0, results=figures)


def bench_hand(hand: str = "hand22", engine: str = "pybullet", seed: int = 0, json: Path | None = None) -> None:
    """Measure what a hand can do: fingertip force, speed, repeatability, load in a hook, heat, watts.

    All of it in simulation, through the tendon transmission with its friction, slack, current limits and heat.

    Args:
        hand: hand22, hand25 or hand11.
        engine: pybullet or mujoco.
        seed: Of the postures from which a posture is approached.
        json: Write the figures to this file.

    Example:
        flexor bench hand --hand hand22 --json hand.json
    """
    from robot.report import write_json
    from sim.hand_bench import measure, table

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    figures = measure(hand, engine, seed=seed, say=say)
    print(table(figures))
    if json is not None:
        write_json(json, command="bench hand", seed=seed, results=figures)


def envs() -> None:
    """List the environments: what they are for, their sizes and rates, and the policies that ship for them.

    Example:
        flexor envs
    """
    from robot.artifacts import DEFAULT_MODELS_DIR, known_artifacts
    from robot.description import load
    from sim.tasks import TASKS

    shipped = known_artifacts(DEFAULT_MODELS_DIR)
    for env_id, task in TASKS.items():
        instance = task(load(task.default_robot))
        contract = instance.contract()
        name = "".join(
            f"_{c.lower()}" if c.isupper() else c for c in env_id.partition("/")[2].partition("-v")[0]
        ).lstrip("_")
        summary = (sys.modules[task.__module__].__doc__ or "").splitlines()[0]
        print(env_id)
        print(f"  {summary}")
        print(
            f"  observation {contract.observation_size}, action {contract.action_size}, {task.control_hz:g} Hz, "
            f"{task.max_steps / task.control_hz:g} s; robots {', '.join(task.robots)}"
        )
        print(f"  shipped policies: {', '.join(f'{name}/{v}' for v in shipped.get(name, [])) or 'none'}")
