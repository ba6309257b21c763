"""The search for grasps: many postures from `fit`, each tried in simulation, the nearest miss refined by CMA-ES.

Run it as `python -m sim.dexterity.search --hand hand22`. It writes what it finds type by type and goes on where it stopped; a grasp that
counts in both engines is done. Nothing it does is needed to score: that re-simulates the files.
"""

import argparse
import contextlib
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from robot.description import load
from robot.description.model import RobotModel
from sim.bodies import as_quat
from sim.dexterity.fit import Fit, Fitter
from sim.dexterity.geometry import solid
from sim.dexterity.grasp import DATA, Grasp, GraspFile, GraspFileError, load_grasps, save_grasps
from sim.dexterity.pattern import PatternRule
from sim.dexterity.plans import PLANS, Plan
from sim.dexterity.protocol import GRAVITY_M_S2, matrix_of
from sim.dexterity.squeeze import Squeeze
from sim.dexterity.taxonomy import TYPES, GraspType
from sim.dexterity.trial import Outcome, Trial
from sim.objects import find

FORCES = (0.5, 8.0)  # of the squeeze, in weights of the object, drawn evenly in the logarithm
LEAST_WEIGHT_N = 0.6  # light things are squeezed as if they weighed this
COSTLY = 4.0  # fits this much worse than the best are not tried
REFINE_SHARE = 0.3  # of the time, for CMA-ES on the nearest miss
NUDGES, NUDGE_RAD = 8, 0.35  # tries with single fingers of a miss, and how far
STEP = (0.08, 0.05, 0.003, 0.05)  # of the refinement: targets, posture [rad], place [m], turn [rad]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best so far: mean score of both engines, or of MuJoCo alone while it fails there."""

    grasp: Grasp
    score: float
    mujoco: Outcome
    pybullet: Outcome | None = None

    @property
    def counts(self) -> bool:
        return self.mujoco.counts and self.pybullet is not None and self.pybullet.counts


class TypeSearch:
    """The search for one type with one hand."""

    def __init__(
        self, model: RobotModel, kind: GraspType, plan: Plan, rule: PatternRule, rng: np.random.Generator
    ) -> None:
        self._model, self._kind, self._rng = model, kind, rng
        self._hand, self._body = rule.hand, find(kind.thing).body
        self._fitter = Fitter(model, self._hand, solid(self._body), kind, plan)
        self._squeeze = Squeeze(model, self._hand)
        self._home = np.array(model.home_rad)
        self._home[model.index("forearm_pronation")] = np.radians(plan.pronation_deg)
        self._home[model.index("wrist_flexion")] = np.radians(plan.wrist_deg)
        self._trials = {engine: Trial(model, self._body, engine, rule) for engine in ("mujoco", "pybullet")}
        self._weight_n = max(LEAST_WEIGHT_N, self._body.mass_kg * GRAVITY_M_S2)
        self.tried = 0

    def close(self) -> None:
        for trial in self._trials.values():
            trial.close()

    def grasp(self, q_hand: np.ndarray, target: np.ndarray, position_m: np.ndarray, turn: np.ndarray) -> Grasp:
        q, goal = self._home.copy(), self._home.copy()
        q[self._hand.joints], goal[self._hand.joints] = q_hand, target
        return Grasp(
            number=self._kind.number,
            thing=self._kind.thing,
            q_rad=tuple(np.round(q, 5).tolist()),
            target_rad=tuple(np.round(goal, 5).tolist()),
            position_m=tuple(np.round(position_m, 6).tolist()),
            quat_xyzw=tuple(as_quat(turn).tolist()),
        )

    def judge(self, grasp: Grasp) -> Found:
        self.tried += 1
        mujoco = self._run("mujoco", grasp)
        if not mujoco.counts:
            return Found(grasp=grasp, score=0.5 * mujoco.score, mujoco=mujoco)
        pybullet = self._run("pybullet", grasp)
        return Found(grasp=grasp, score=0.5 * (mujoco.score + pybullet.score), mujoco=mujoco, pybullet=pybullet)

    def _run(self, engine: str, grasp: Grasp) -> Outcome:
        """One trial, screened; what counts is run as scoring runs it, which holds 0.8 s less before it pulls."""
        screened = self._trials[engine].run(grasp, self._kind, margin=False, screen=True)
        return self._trials[engine].run(grasp, self._kind, margin=False) if screened.counts else screened

    def draw(self, seconds: float, best: Found | None) -> Found | None:
        """Random postures and forces until one counts or the time is over."""
        if best is not None and best.counts:
            return best
        end, cheapest = time.process_time() + seconds, np.inf
        while time.process_time() < end:
            fit = self._fitter.one(self._rng)
            cheapest = min(cheapest, fit.cost)
            if fit.cost > cheapest + COSTLY:
                continue
            here = max((self.judge(self._of(fit)) for _ in range(2)), key=lambda found: found.score)
            here = self.nudge(here, tries=NUDGES)
            if best is None or here.score > best.score:
                best = here
            if best.counts:
                return best
        return best

    def _of(self, fit: Fit) -> Grasp:
        low, high = np.log(FORCES)
        force = self._weight_n * float(np.exp(self._rng.uniform(low, high)))
        return self.grasp(fit.q_rad, self._squeeze.target(fit, force), fit.position_m, fit.turn)

    def nudge(self, best: Found, tries: int) -> Found:
        """Bend the fingers that should touch and do not a little further, open those that should not, and keep what helps."""
        for _ in range(tries):
            if best.counts:
                break
            outcome = best.pybullet or best.mujoco
            patterns = [p for p in (outcome.pattern, outcome.pattern_after) if p is not None]
            missing = {touch.part for p in patterns for touch in p.missing}
            extra = {part for p in patterns for part in p.extra}
            if not missing | extra:
                break
            target, q = np.array(best.grasp.target_rad), np.array(best.grasp.q_rad)
            for row, name in enumerate(self._model.joint_names):
                part, _, motion = name.partition("_")
                if motion not in ("mcp", "pip", "dip", "ip") or part not in missing | extra:
                    continue
                more = self._rng.uniform(0.0, NUDGE_RAD) * (1.0 if part in missing else -1.0)
                target[row] += more
                q[row] += min(more, 0.0)  # opened from the start; bent only by the motors
            target = np.clip(target, self._model.lower_rad, self._model.upper_rad)
            q = np.clip(q, self._model.lower_rad, self._model.upper_rad)
            changed = msgspec.structs.replace(
                best.grasp, target_rad=tuple(np.round(target, 5).tolist()), q_rad=tuple(np.round(q, 5).tolist())
            )
            found = self.judge(changed)
            if found.score > best.score:
                best = found
        return best

    def refine(self, seconds: float, best: Found) -> Found:
        """CMA-ES on targets, posture and place around the best so far."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cma warns that matplotlib is not there
            import cma
        from sim.dexterity.geometry_kernel import turn_of

        joints, n = self._hand.joints, len(self._hand.joints)
        q0, t0 = np.array(best.grasp.q_rad)[joints], np.array(best.grasp.target_rad)[joints]
        p0, r0 = np.array(best.grasp.position_m), matrix_of(best.grasp.quat_xyzw)
        low, high = self._hand.lower_rad, self._hand.upper_rad

        def of(x: np.ndarray) -> Grasp:
            q = np.clip(q0 + STEP[1] * x[n : 2 * n], low, high)
            target = np.clip(t0 + STEP[1] * x[n : 2 * n] + STEP[0] * x[:n], low, high)
            turn = turn_of(STEP[3] * x[2 * n + 3 :]) @ r0
            return self.grasp(q, target, p0 + STEP[2] * x[2 * n : 2 * n + 3], turn)

        options = {"verbose": -9, "seed": int(self._rng.integers(1, 2**31)), "popsize": 12, "CMA_diagonal": True}
        strategy = cma.CMAEvolutionStrategy(np.zeros(2 * n + 6), 0.4, options)
        end = time.process_time() + seconds
        while time.process_time() < end and not strategy.stop():
            asked = strategy.ask()
            costs = []
            for x in asked:
                found = self.judge(of(np.asarray(x)))
                costs.append(-found.score)
                if found.score > best.score:
                    best = found
                if best.counts:
                    return best
            strategy.tell(asked, costs)
        return best


def carried_over(file: GraspFile, model: RobotModel) -> dict[int, Grasp]:
    """The grasps of another hand as first guesses for this one: joints of the same name take its angles, the others stay at rest."""
    rows = [
        (row, file.joint_names.index(name)) for row, name in enumerate(model.joint_names) if name in file.joint_names
    ]

    def mapped(angles: tuple[float, ...]) -> tuple[float, ...]:
        q = np.array(model.home_rad)
        for mine, theirs in rows:
            q[mine] = angles[theirs]
        return tuple(np.clip(q, model.lower_rad, model.upper_rad).tolist())

    return {
        grasp.number: msgspec.structs.replace(
            grasp, q_rad=mapped(grasp.q_rad), target_rad=mapped(grasp.target_rad), held=False
        )
        for grasp in file.grasps
        if grasp.held
    }


def search(
    hand: str, numbers: list[int], seconds: float, rounds: int, seed: int, folder: Path, like: str | None = None
) -> GraspFile:
    """Look for what is not found yet, `seconds` of processor time per type and round; results are on disk after every type.

    Args:
        like: Another hand whose grasps are first guesses.
    """
    model, command = load(hand), f"python -m sim.dexterity.search --hand {hand} --seed {seed}"
    rule = PatternRule(model)
    file = GraspFile(hand=hand, robot_sha256=model.sha256, joint_names=model.joint_names, generator=command)
    old: dict[int, Grasp] = {}
    with contextlib.suppress(GraspFileError):  # nothing found yet
        old = {grasp.number: grasp for grasp in load_grasps(hand, folder).grasps}
    guesses = carried_over(load_grasps(like, folder), model) if like else {}
    done: set[int] = set()
    begun = time.monotonic()
    for turn in range(rounds):
        for kind in TYPES:
            if kind.number not in numbers or kind.number in done:
                continue
            rng = np.random.default_rng((seed, turn, kind.number))
            one = TypeSearch(model, kind, PLANS[kind.number], rule, rng)
            known = old.get(kind.number)
            best = one.judge(known) if known is not None and known.thing == kind.thing else None
            if (best is None or not best.counts) and turn == 0 and kind.number in guesses:
                guess = one.nudge(one.judge(guesses[kind.number]), tries=3 * NUDGES)
                if not guess.counts:
                    guess = one.refine(seconds * REFINE_SHARE, guess)
                if best is None or guess.score > best.score:
                    best = guess
            if best is None or not best.counts:
                if best is not None:
                    best = one.nudge(best, tries=3 * NUDGES)
                best = one.draw(seconds * (1.0 - REFINE_SHARE), best)
                if best is not None and not best.counts:
                    best = one.refine(seconds * REFINE_SHARE, best)
            one.close()
            if best is not None:
                old[kind.number] = msgspec.structs.replace(best.grasp, held=best.counts)
                if best.counts:
                    done.add(kind.number)
                file = replace_grasps(file, old)
                save_grasps(file, folder)
            why = "" if best is None or best.counts else (best.pybullet or best.mujoco).why()
            print(
                f"{hand} round {turn + 1} type {kind.number:2d} {kind.name:22s} "
                f"{'holds' if best and best.counts else f'{best.score:.2f}' if best else 'none'} tried {one.tried} "
                f"({len(done)} hold, {time.monotonic() - begun:.0f} s) {why}",
                flush=True,
            )
    return file


def replace_grasps(file: GraspFile, grasps: dict[int, Grasp]) -> GraspFile:
    return msgspec.structs.replace(file, grasps=tuple(grasps[number] for number in sorted(grasps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hand", default="hand22")
    parser.add_argument("--types", type=int, nargs="*", default=[kind.number for kind in TYPES])
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time, per type and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=DATA)
    parser.add_argument("--like", help="another hand, whose grasps are first guesses")
    args = parser.parse_args()
    try:
        search(args.hand, args.types, args.seconds, args.rounds, args.seed, args.folder, args.like)
    except KeyboardInterrupt:
        print("stopped; what was found is on disk, the same command goes on", file=sys.stderr)


if __name__ == "__main__":
    main()
