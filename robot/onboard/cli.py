"""The subcommands of this package: plain functions; whatever is heavy is imported inside them."""

import sys
from pathlib import Path


def run(
    artifact: str,
    backend: str = "pybullet",
    seconds: float = 10.0,
    seed: int = 0,
    inference: str = "auto",
    explore: bool = False,
    realtime: bool = True,
    json: Path | None = None,
) -> None:
    """Run an exported policy in the onboard loop: absolute deadlines, safety filter, latency and energy.

    The robot, simulated or real, lives in another process; this one imports neither torch nor an engine. The artifact is judged
    before the first command: contract, operators, golden vectors. Ctrl-C ends the run in order.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one (hand_reach, hand_reach/v1).
        backend: Which robot: pybullet, mujoco, mock or hardware.
        seconds: How long.
        seed: Of the episodes and of the exploration noise.
        inference: What runs the network: c (generated, compiled here), onnxruntime, numpy, or auto for the fastest here.
        explore: Add the training's noise to the actions.
        realtime: Ask for locked memory and real-time priority; what is refused is said.
        json: Write the figures to this file, too.

    Example:
        flexor run hand_reach --backend pybullet --seconds 10
    """
    from robot.onboard import artifact as artifacts
    from robot.onboard import tables
    from robot.onboard.loop import LoopConfig
    from robot.onboard.realtime import stop_on_signals
    from robot.onboard.start import drive

    loaded = artifacts.load(artifact)
    config = LoopConfig(seconds=seconds, realtime=realtime, exploration_std=loaded.exploration_std if explore else None)
    with stop_on_signals() as should_stop:
        done = drive(loaded, backend, config=config, seed=seed, inference=inference, should_stop=should_stop)
    figures = tables.run_figures(done, backend)
    print(tables.run_table(done, backend))
    if json is not None:
        from robot.report import write_json

        write_json(json, command="run", seed=seed, results=figures)
    if done.report.fault is not None:
        print(f"the run ended in {done.report.fault}: {done.report.fault_text}", file=sys.stderr)
        raise SystemExit(3)


def inspect(artifact: str, json: Path | None = None) -> None:
    """Print what an artifact expects and gives: every observation with unit and range, every action with joint and scale.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one.
        json: Write the same to this file, too.

    Example:
        flexor inspect hand_reach
    """
    from robot.onboard import artifact as artifacts
    from robot.onboard import tables

    loaded = artifacts.load(artifact)
    print(tables.artifact_table(loaded))
    if json is not None:
        from robot.report import write_json

        write_json(json, command="inspect", seed=None, results=tables.artifact_figures(loaded))


def diff(a: str, b: str) -> None:
    """Print what differs between two artifacts: contract, graph, metadata, and their answers to the same observations.

    Args:
        a: Folder of an artifact, or the name of a shipped one.
        b: The other one.

    Example:
        flexor diff hand_reach/v1 hand_reach/v2
    """
    from robot.onboard import artifact as artifacts
    from robot.onboard import tables

    print(tables.diff_table(artifacts.load(a), artifacts.load(b)))


def check(artifact: str, robot: str) -> None:
    """Judge whether an artifact may drive a robot, by every rule of the runtime; says why not.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one.
        robot: Name of a robot, e.g. hand22.

    Example:
        flexor check hand_reach hand22
    """
    from robot.description import load as load_robot
    from robot.onboard import artifact as artifacts
    from robot.onboard import tables
    from robot.onboard.admission import admit

    model = load_robot(robot)
    loaded = artifacts.load(artifact)
    print(tables.check_table(admit(loaded, model), model))


def bench(
    artifact: str, rate_hz: float = 50.0, seconds: float = 10.0, repeats: int = 3, json: Path | None = None
) -> None:
    """Measure what a decision costs at the control rate with each inference backend, and with onnxruntime's defaults.

    Each backend runs in a process of its own; runs are interleaved and medians reported.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one.
        rate_hz: Decisions per second.
        seconds: Length of each run.
        repeats: Runs of each backend.
        json: Write the figures to this file, too.

    Example:
        flexor bench onboard hand_reach --rate-hz 50
    """
    import msgspec

    from robot.onboard import tables
    from robot.onboard.bench import compare

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    costs = compare(artifact, rate_hz=rate_hz, seconds=seconds, repeats=repeats, progress=progress)
    print(tables.bench_table(costs, rate_hz))
    if json is not None:
        from robot.report import write_json

        results = {"rate_hz": rate_hz, "repeats": repeats, **{cost.mode: msgspec.to_builtins(cost) for cost in costs}}
        write_json(json, command="bench onboard", seed=None, results=results)
