"""How fast the simulation is. Each figure is the median of runs in processes of their own, taken in turn so that drift hits all alike.

`python -m sim.bench KIND SECONDS` makes one run and prints its figures as JSON; `measure` makes all of them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from robot.errors import FlexorError
from sim.engines import ENGINES
from sim.world import Start

REACH = "flexor/HandReach-v0"
ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"
PEERS_SCRIPT = ROOT / "benchmarks/peers.py"
HAND_PEER, BODY_PEER = "HandManipulateBlock-v1", "Humanoid-v5"
PEERS = (HAND_PEER, "HandReach-v3", BODY_PEER)
VEC_ENVS = 16
ROUND_STEPS = 100  # of one timing; an episode that ends sooner ends it
RUNS = {"cube": "flexor/HandRotateCube-v0", "reach": REACH, "walk": "flexor/BodyWalk-v0"}
# What is wanted: name, run, figure, peer it is divided by ("" for none), bound, whether the bound is a least (1) or a most (-1).
WANTED = (
    ("hand22 with a cube, PyBullet / peer", "cube_pybullet", "simulated_s_per_s", HAND_PEER, 2.5, 1),
    ("hand22 with a cube, MuJoCo / peer", "cube_mujoco", "simulated_s_per_s", HAND_PEER, 8.0, 1),
    ("body28 walking, PyBullet / peer", "walk_pybullet", "simulated_s_per_s", BODY_PEER, 0.6, 1),
    ("body28 walking, MuJoCo / peer", "walk_mujoco", "simulated_s_per_s", BODY_PEER, 3.0, 1),
    *(
        (f"environment step / bare engine, {run} on {engine}", f"{run}_{engine}", "step_over_bare", "", 1.2, -1)
        for run in RUNS
        for engine in ENGINES
    ),
    *(
        (f"resident MB, {run} on {engine}", f"{run}_{engine}", "resident_mb", "", 300.0, -1)
        for run in RUNS
        for engine in ENGINES
    ),
    ("transmission kernel, us for 25 motors", "transmission", "kernel_us", "", 4.0, -1),
    ("two workers / one", "vector", "two_workers_over_one", "", 1.6, 1),
    ("vector layer over a plain loop", "vector", "overhead", "", 0.10, -1),
)


class BenchError(FlexorError, RuntimeError):
    """A run of a benchmark failed; the message carries its last words."""


def measure(*, seconds: float, repeats: int, peers: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, by name of the run.

    Args:
        seconds: How long each run measures.
        repeats: Runs of each kind; the median is kept.
        peers: Run the peers of `benchmarks/peers.py` in between, in their own environment.
        say: Called with a line of progress per run.

    Raises:
        BenchError: A run failed, or the peers are not installed.
    """
    if peers and not PEERS_PYTHON.exists():
        raise BenchError(f"the peers are not installed: {PEERS_PYTHON} is missing; do: make bench-peers")
    commands = {kind: [sys.executable, "-m", "sim.bench", kind, str(seconds)] for kind in KINDS}
    if peers:
        commands |= {peer: [str(PEERS_PYTHON), str(PEERS_SCRIPT), peer, str(seconds)] for peer in PEERS}
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in commands}
    others, started, total = [], time.monotonic(), repeats * len(commands)
    for _ in range(repeats):
        for kind, command in commands.items():
            runs[kind].append(_run(command))
            others.append(max(os.getloadavg()[0] - 1.0, 0.0))  # beside the run itself
            done = sum(map(len, runs.values()))
            left = (time.monotonic() - started) / done * (total - done)
            say(f"{done}/{total} runs, {left:.0f} s left: {kind}")
    figures = {kind: {name: median(run[name] for run in done) for name in done[0]} for kind, done in runs.items()}
    ratios = {kind: _ratios(runs, kind) for kind in runs}
    return {
        "runs": figures,
        "wanted": wanted(figures, ratios),
        "machine_load": {"cores": os.cpu_count(), "others_running": median(others), "others_running_most": max(others)},
    }


def _ratios(runs: dict[str, list[dict[str, float]]], kind: str) -> dict[str, float]:
    """Simulated seconds per second over each peer's: the median over rounds of runs that were neighbours in time."""
    return {
        peer: median(
            ours["simulated_s_per_s"] / theirs["simulated_s_per_s"] for ours, theirs in zip(runs[kind], runs[peer])
        )
        for peer in PEERS
        if peer in runs and "simulated_s_per_s" in runs[kind][0]
    }


def wanted(figures: dict[str, Any], ratios: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The figures that have a bound, as far as they were measured, each with whether it is met; `ratios`: of a run to each peer."""
    rows = []
    for name, run, figure, peer, bound, way in WANTED:
        if run in figures and (not peer or peer in figures):
            value = ratios[run][peer] if peer else figures[run][figure]
            met = way * (value - bound) >= 0.0
            rows.append({"what": name, "value": value, "at_least" if way > 0 else "at_most": bound, "met": met})
    return rows


def table(results: dict[str, Any]) -> str:
    """The figures for a terminal: one row per run, then what is wanted of them."""
    runs = results["runs"]
    width = max(len(kind) for kind in runs)
    lines = [
        f"{kind:<{width}}  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        for kind, row in runs.items()
    ]
    width = max((len(row["what"]) for row in results["wanted"]), default=0)
    load = results["machine_load"]
    lines += [
        "",
        f"beside it ran {load['others_running']:.1f} programs, at most {load['others_running_most']:.1f}, on {load['cores']} cores",
    ]
    for row in results["wanted"]:
        bound = f"at least {row['at_least']:g}" if "at_least" in row else f"at most {row['at_most']:g}"
        lines.append(f"{row['what']:<{width}}  {row['value']:>8.3g}  {bound:<14}  {'met' if row['met'] else 'missed'}")
    return "\n".join(lines)


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command[1:])} failed: {done.stderr.strip() or done.stdout.strip() or 'no words'}")
    return json.loads(done.stdout.splitlines()[-1])


def environment(run: str, engine: str, seconds: float) -> dict[str, float]:
    """Control steps under random actions, resets included, and the same substeps with nothing around them.

    Each episode is lived twice; the second time its torques are written down, and played into the bare engine, which so goes through
    the same contacts. The two are compared in CPU time, which other programs disturb least.
    """
    import gymnasium

    import sim  # noqa: F401 - registers the environments

    env: Any = gymnasium.make(RUNS[run], engine=engine).unwrapped
    _recorded(env, 0)  # warm
    walls_s, cpu_s, bare_s, resets_s, steps = 0.0, 0.0, 0.0, 0.0, 0
    over: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not over:
        seed, started = len(over), time.perf_counter()
        env.reset(seed=seed)
        resets_s += time.perf_counter() - started
        wall_s, spent_s, done = _episode(env, seed)
        bare = _replay(env.backend, *_recorded(env, seed))
        walls_s, cpu_s, bare_s, steps = walls_s + wall_s, cpu_s + spent_s, bare_s + bare, steps + done
        over.append(spent_s / bare)
    per_step = (walls_s + resets_s) / steps
    return {
        "steps_per_s": 1.0 / per_step,
        "simulated_s_per_s": env.dt / per_step,
        "step_us": 1e6 * walls_s / steps,
        "step_cpu_us": 1e6 * cpu_s / steps,
        "reset_us": 1e6 * resets_s / len(over),
        "bare_substeps_cpu_us": 1e6 * bare_s / steps,
        "step_over_bare": median(over),
        "substep_ms": 1e3 * env.backend.substep_s,
        "resident_mb": _highest_resident_mb(),
    }


def _highest_resident_mb() -> float:
    """The most memory this process has held [MB]. `getrusage` would count what the parent held when it forked."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _episode(env: Any, seed: int) -> tuple[float, float, int]:
    """Wall and CPU time of an episode, or of its first steps, under random actions, without its reset [s]; and how many steps it had."""
    actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (ROUND_STEPS, *env.action_space.shape))
    done, started, spent = 0, time.perf_counter(), time.process_time()
    for action in actions:
        *_, terminated, truncated, _ = env.step(action)
        done += 1
        if terminated or truncated:
            break
    return time.perf_counter() - started, time.process_time() - spent, done


def _recorded(env: Any, seed: int) -> tuple[Start, list[np.ndarray]]:
    """Where the episode of a seed starts, and the torques of all its substeps."""
    backend, starts, torques = env.backend, [], []
    begin = backend.begin

    def starting(start: Start) -> Any:
        starts.append(start)
        return begin(start)

    backend.begin = starting
    env.reset(seed=seed)
    del backend.begin
    advance = backend._advance

    def recording(substeps: int) -> None:
        for _ in range(substeps):
            advance(1)
            torques.append(backend.kernel.torque_nm.copy())

    backend._advance = recording
    _episode(env, seed)
    del backend._advance
    return starts[-1], torques


def _replay(backend: Any, start: Start, torques_nm: list[np.ndarray]) -> float:
    """CPU time of the engine alone under given torques [s]."""
    backend.begin(start)
    if hasattr(backend, "mj_model"):
        import mujoco

        mj_step, model, data, dof = mujoco.mj_step, backend.mj_model, backend.data, backend._dof  # type: ignore[attr-defined]
        started = time.process_time()
        for torque in torques_nm:
            data.qfrc_applied[dof] = torque
            mj_step(model, data)
        return time.process_time() - started
    import pybullet

    body, indices, client, mode = backend.body, backend._indices, backend._client, pybullet.TORQUE_CONTROL
    lists = [torque.tolist() for torque in torques_nm]
    started = time.process_time()
    for torque in lists:
        pybullet.setJointMotorControlArray(body, indices, mode, forces=torque, physicsClientId=client)
        pybullet.stepSimulation(physicsClientId=client)
    return time.process_time() - started


def transmission(seconds: float) -> dict[str, float]:
    """One call of the transmission's kernel for all motors of hand22, in motion."""
    from robot.description import load
    from robot.transmission import Parameters
    from sim.transmission_kernel import TransmissionKernel

    model = load("hand22")
    kernel = TransmissionKernel(Parameters.of(model), 0.005)
    rng, calls, batches = np.random.default_rng(0), 200, []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not batches:
        kernel.q_rad[:] = rng.uniform(model.lower_rad, model.upper_rad)
        kernel.qd_rad_s[:] = rng.uniform(-5.0, 5.0, len(model.joints))
        kernel.target_rad[:] = kernel.parameters.spool_target(kernel.q_rad, kernel.q_rad)
        started = time.perf_counter()
        for _ in range(calls):
            kernel.step()
        batches.append((time.perf_counter() - started) / calls)
    return {"kernel_us": 1e6 * median(batches), "motors": float(len(model.tendons))}


def vector(seconds: float) -> dict[str, float]:
    """Control steps per second of the same environments in a plain loop, in one worker and in two, taken in turn."""
    import gymnasium

    import sim

    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (50, VEC_ENVS, 22)).astype(np.float32)
    single = [gymnasium.make(REACH, engine="mujoco") for _ in range(VEC_ENVS)]
    vectors = [sim.make_vec(REACH, VEC_ENVS, workers, engine="mujoco") for workers in (1, 2)]

    def loop() -> None:
        """An episode of each; they all end in its last step."""
        for row in actions:
            for env, action in zip(single, row):
                *_, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

    def vectored(envs: Any) -> None:
        for row in actions:
            envs.step(row)

    ways = [loop, partial(vectored, vectors[0]), partial(vectored, vectors[1])]
    for i, env in enumerate(single):
        env.reset(seed=i)
    for envs in vectors:
        envs.reset(seed=0)
    for way in ways:
        way()  # warm
    walls_s: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not walls_s[-1]:
        for way, walls in zip(ways, walls_s):
            started = time.perf_counter()
            way()
            walls.append(time.perf_counter() - started)
    for env in (*single, *vectors):
        env.close()
    steps = actions.shape[0] * VEC_ENVS
    loops, ones, twos = walls_s
    return {
        "loop_steps_per_s": steps / median(loops),
        "one_worker_steps_per_s": steps / median(ones),
        "two_workers_steps_per_s": steps / median(twos),
        "overhead": median(one / plain for one, plain in zip(ones, loops)) - 1.0,
        "two_workers_over_one": median(one / two for one, two in zip(ones, twos)),
    }


KINDS: dict[str, Callable[[float], dict[str, float]]] = {
    **{f"{run}_{engine}": partial(environment, run, engine) for run in RUNS for engine in ENGINES},
    "transmission": transmission,
    "vector": vector,
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](float(sys.argv[2]))))
