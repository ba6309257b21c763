"""The subcommands of this package: plain functions; whatever is heavy is imported inside them."""

import sys
from pathlib import Path

HARDWARE_BLEND_S = 0.5  # a real hand is taken over gently


def run(
    artifact: str,
    backend: str = "pybullet",
    seconds: float = 10.0,
    seed: int = 0,
    inference: str = "auto",
    explore: bool = False,
    realtime: bool = True,
    bus: str = "sim",
    calibration: Path | None = None,
    estop: Path | None = None,
    flight: Path | None = None,
    flight_s: float = 10.0,
    cameras: int = 0,
    json: Path | None = None,
) -> None:
    """Run an exported policy in the onboard loop: absolute deadlines, safety filter, latency and energy.

    The robot, simulated or real, lives in another process; this one imports neither torch nor an engine. The artifact is judged
    before the first command: contract, operators, golden vectors. Ctrl-C ends the run in order. The last seconds are written as
    an MCAP file on a fault, on SIGUSR1, and when the process dies.

    Args:
        artifact: Folder of an artifact, or the name of a shipped one (hand_reach, hand_reach/v1).
        backend: Which robot: pybullet, mujoco, mock or hardware.
        seconds: How long.
        seed: Of the episodes and of the exploration noise.
        inference: What runs the network: c (generated, compiled here), onnxruntime, numpy, or auto for the fastest here.
        explore: Add the training's noise to the actions.
        realtime: Ask for locked memory and real-time priority; what is refused is said.
        bus: Motors of the hardware backend: sim, or a serial port such as /dev/ttyUSB0.
        calibration: Calibration file of the hardware backend (TOML); a simulated bus needs none.
        estop: Emergency stop: pressed once this file is there and is not "0" (a GPIO's value file, or touch); SIGUSR2 always presses it.
        flight: Folder for flight recordings; ~/.local/state/flexor/flight when not given.
        flight_s: Seconds that a recording holds; 0 to keep none.
        cameras: How many cameras run beside the policy; for the energy ledger.
        json: Write the figures to this file, too.

    Example:
        flexor run hand_reach --backend pybullet --seconds 10
        flexor run hand_reach --backend hardware --bus /dev/ttyUSB0 --calibration hand.toml
    """
    from robot.onboard import artifact as artifacts
    from robot.onboard import tables
    from robot.onboard.flight import default_folder
    from robot.onboard.loop import LoopConfig
    from robot.onboard.realtime import emergency_stop, stop_on_signals
    from robot.onboard.start import drive

    loaded = artifacts.load(artifact)
    config = LoopConfig(
        seconds=seconds,
        realtime=realtime,
        exploration_std=loaded.exploration_std if explore else None,
        blend_s=HARDWARE_BLEND_S if backend == "hardware" else 0.0,
    )
    with stop_on_signals() as should_stop, emergency_stop(estop) as pressed:
        done = drive(
            loaded,
            backend,
            config=config,
            seed=seed,
            inference=inference,
            should_stop=should_stop,
            estop=pressed,
            bus=bus,
            calibration=calibration,
            flight=(flight or default_folder()) if flight_s > 0.0 else None,
            flight_s=flight_s,
            cameras=cameras,
        )
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

    A policy of another stack (mjlab, whole_body_tracking) is explained as far as its metadata goes, and what that leaves open is
    listed.

    Args:
        artifact: Folder of an artifact, the name of a shipped one, or an .onnx file of another stack.
        json: Write the same to this file, too.

    Example:
        flexor inspect hand_reach
    """
    from robot.onboard import artifact as artifacts
    from robot.onboard import foreign, tables

    other = foreign.find(artifact)
    if other is not None:
        explained = foreign.explain(other)
        text, figures = tables.foreign_table(explained), foreign.figures(explained)
    else:
        loaded = artifacts.load(artifact)
        text, figures = tables.artifact_table(loaded), tables.artifact_figures(loaded)
    print(text)
    if json is not None:
        from robot.report import write_json

        write_json(json, command="inspect", seed=None, results=figures)


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
    artifact: str | None = None,
    rate_hz: float = 50.0,
    seconds: float = 10.0,
    repeats: int = 3,
    peers: bool = False,
    minutes: float = 0.0,
    fuzz: int = 100_000,
    json: Path | None = None,
) -> None:
    """Measure what the control loop costs at the control rate, and hold it against its targets.

    Every way of running a network is measured in a process of its own, runs are interleaved, medians reported. Two networks of
    fixed sizes stand for a policy: an MLP of 98-512-256-128-29 and a GRU of 128.

    Args:
        artifact: Measure this one instead, at `rate_hz` only: a folder, or the name of a shipped one.
        rate_hz: Decisions per second.
        seconds: Length of each run.
        repeats: Runs of each mode.
        peers: Measure what other stacks do beside it: session.run tuned, InferenceSession(path) with defaults, torch.
        minutes: Length of the runs for the tails at 50 and 500 Hz; four runs. Without: as long as `seconds`.
        fuzz: Random actions for the safety filter.
        json: Write the figures to this file, too.

    Example:
        flexor bench onboard --peers --minutes 10 --fuzz 1000000 --json onboard.json
    """
    from robot.onboard import bench as benches
    from robot.onboard import bench_report

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    if artifact is not None:
        modes = ("c", "onnxruntime", "numpy", *(benches.peers(artifact) if peers else ()))
        costs = benches.compare(
            artifact, rate_hz=rate_hz, seconds=seconds, repeats=repeats, modes=modes, progress=progress
        )
        results = bench_report.costs_figures({"artifact": costs}, rate_hz, repeats)
        print(bench_report.costs_table({"artifact": costs}, rate_hz))
    else:
        measured = bench_report.measure_all(
            rate_hz=rate_hz,
            seconds=seconds,
            repeats=repeats,
            peers=peers,
            tail_s=60.0 * minutes if minutes else seconds,
            fuzz=fuzz,
            progress=progress,
        )
        results = bench_report.figures(measured)
        print(bench_report.text(measured))
    if json is not None:
        from robot.report import write_json

        write_json(json, command="bench onboard", seed=0, results=results)
