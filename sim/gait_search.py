"""Search for a finger gait that turns the cube (`sim.gait`): CMA-ES over the sines of all fingers, on randomised robots in both engines.

    python -m sim.gait_search --hand hand22 --seconds 3600

goes on from the gait that is on disk, or with --afresh from fingers that sweep in turn, on MuJoCo first. What ships came from 25 minutes
in MuJoCo alone (one core, loaded machine) and turns the cube there; in PyBullet it does not yet.
"""

import argparse
import sys
import time

import gymnasium
import numpy as np

from robot.description import load
from sim.gait import Gait, load_gait, save_gait
from sim.scripted_hands import turning
from sim.tasks.hand_rotate_cube import HandRotateCube

ENV = "flexor/HandRotateCube-v0"
STEPS = 200  # of an episode, 10 s
POPULATION, SIGMA_RAD = 20, 0.15
SWEEP_RAD = 0.2  # of the start: sideways, and of the knuckle a quarter of a turn later
STEEPNESS = 0.01  # what a squared radian costs
WORST = 0.3  # weight of the worse engine, beyond the mean of both


def groups_of(joints: tuple[str, ...]) -> list[list[int]]:
    """Joints that move alike: the two outer ones of a finger; all others by themselves."""
    made: dict[str, list[int]] = {}
    for i, name in enumerate(joints):
        made.setdefault(name.replace("_dip", "_pip"), []).append(i)
    return list(made.values())


class Coding:
    """A gait as the numbers that the search draws: mean, sine and cosine of each group [rad]."""

    def __init__(self, task: HandRotateCube, generator: str) -> None:
        self.task, self.generator = task, generator
        self.groups = groups_of(task.moved)
        self.size = 3 * len(self.groups)

    def gait(self, x: np.ndarray) -> Gait:
        n, spread = len(self.task.moved), np.zeros((3, len(self.task.moved)))
        for group, values in zip(self.groups, x.reshape(3, -1).T):
            spread[:, group] = values[:, None]
        mean, sine, cosine = (tuple(np.round(row, 4).tolist()) for row in spread)
        around = self.task.posture_rad
        return Gait(
            robot_sha256=self.task.model.sha256,
            generator=self.generator,
            joints=self.task.moved,
            mean_rad=tuple(round(around[i] + mean[i], 4) for i in range(n)),
            sine_rad=sine,
            cosine_rad=cosine,
        )

    def numbers(self, gait: Gait) -> np.ndarray:
        first = [group[0] for group in self.groups]
        rows = (np.array(gait.mean_rad) - self.task.posture_rad, np.array(gait.sine_rad), np.array(gait.cosine_rad))
        return np.concatenate([row[first] for row in rows])

    def sweep(self) -> np.ndarray:
        """Where a search begins afresh: each finger sweeps sideways and presses a quarter later, the next finger after it."""
        x = np.zeros((3, len(self.groups)))
        names = [self.task.moved[group[0]] for group in self.groups]
        for k, finger in enumerate(("index", "middle", "ring", "little")):
            for name, phase in ((f"{finger}_abduction", k * np.pi / 2), (f"{finger}_mcp", (k + 1) * np.pi / 2)):
                x[1:, names.index(name)] = SWEEP_RAD * np.array([np.cos(phase), np.sin(phase)])
        return x.ravel()


def worth(env: gymnasium.Env, gait: Gait, seed: int) -> tuple[float, float]:
    """Reward per step of an episode under a gait, with a drop worth half a rad/s of what is left, and its mean rate [rad/s]."""
    policy = turning(env.unwrapped, gait)
    observation, info = env.reset(seed=seed)
    total = 0.0
    for step in range(STEPS):
        observation, _, terminated, _, info = env.step(policy(observation, info))
        terms = info["reward_terms"]
        total += sum(terms[name] for name in ("spin", "steady", "centred", "smooth", "power"))
        if terminated:
            total -= 0.5 * (STEPS - step)
            break
    return total / STEPS, info["metrics"]["spin_rad_s"]


def search(hand: str, seconds: float, seed: int, engines: tuple[str, ...], afresh: bool) -> Gait:
    """Search for so long, and write down the middle of the distribution after every few generations."""
    import cma

    coding = Coding(HandRotateCube(load(hand)), f"python -m sim.gait_search --hand {hand}")
    start = coding.sweep() if afresh else coding.numbers(load_gait(hand))
    envs = [gymnasium.make(f"sim:{ENV}", engine=engine, hand=hand) for engine in engines]
    evolution = cma.CMAEvolutionStrategy(start, SIGMA_RAD, {"seed": seed + 1, "popsize": POPULATION, "verbose": -9})
    rng, begun, turn, gait = np.random.default_rng(seed), time.monotonic(), 0, coding.gait(start)
    try:
        while time.monotonic() - begun < seconds:
            drawn, costs = evolution.ask(), []
            seeds = [int(rng.integers(2**31)) for _ in range(2)]
            for x in drawn:
                each = [np.mean([worth(env, coding.gait(x), s)[0] for s in seeds]) for env in envs]
                costs.append(STEEPNESS * float(x @ x) - (1.0 - WORST) * np.mean(each) - WORST * np.min(each))
            evolution.tell(drawn, costs)
            turn, gait = turn + 1, coding.gait(evolution.mean)
            save_gait(hand, gait)
            rates = {engine: [round(worth(env, gait, s)[1], 2) for s in range(3)] for engine, env in zip(engines, envs)}
            print(f"generation {turn}, {time.monotonic() - begun:.0f} s: rad/s {rates}", flush=True)
    finally:
        for env in envs:
            env.close()
    return gait


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hand", default="hand22")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", nargs="*", default=["mujoco", "pybullet"])
    parser.add_argument("--afresh", action="store_true")
    args = parser.parse_args()
    try:
        search(args.hand, args.seconds, args.seed, tuple(args.engines), args.afresh)
    except KeyboardInterrupt:
        print("stopped; the last generation is on disk, the same command goes on", file=sys.stderr)


if __name__ == "__main__":
    main()
