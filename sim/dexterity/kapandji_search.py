"""The search for the ten thumb positions: postures by least squares, then targets corrected by what the joints reach in simulation.

Run it as `python -m sim.dexterity.kapandji_search --hand hand22`; it takes a minute and writes the hand's file.
"""

import argparse
from collections.abc import Iterator

import msgspec
import numpy as np

from robot.description import load
from robot.description.model import RobotModel
from sim.dexterity.grasp import DATA
from sim.dexterity.kapandji import FACING_COS, OPPOSED_COS, PAD_COS, Opposition, Tour, Visit
from sim.dexterity.positions import PositionFile

STARTS, ITERATIONS = 40, 60
POLISH = 6000  # steps of a (1+1) evolution strategy behind the least squares, which stick at the stops
AIM_GAP_M = 0.0006  # short of touching, so that nothing is pushed away
CLEAR_M = 0.0005  # between all other parts
PRIOR = 0.1  # residual per radian off the home posture; a millimetre is 1
PASSES = 4  # of correction in simulation
ARCH_ROOM_RAD = 0.085  # left before an arch's stop: that far the fingers' own tendons press it flat, which the target must make up for


def coupling(model: RobotModel, joints: np.ndarray) -> np.ndarray:
    """How freely hanging joints follow their motors: q = home + B u, shape (n, n_motors).

    A pair over several joints holds the sum of their excursions and springs share it out, in proportion to arm over spring.
    """
    row = {int(joint): i for i, joint in enumerate(joints)}
    columns = []
    for tendon in model.tendons:
        driven = [model.index(name) for name in tendon.driven]
        if not all(j in row for j in driven):
            continue
        column = np.zeros(len(joints))
        for j in driven:
            arm = next(arm.flexor_m for arm in tendon.arms if model.index(arm.joint) == j)
            spring = model.joints[j].spring_nm_rad
            column[row[j]] = arm / spring if len(driven) > 1 else 1.0
        columns.append(column / np.abs(column).max())
    return np.array(columns).T


def postures(model: RobotModel, opposition: Opposition, rng: np.random.Generator) -> list[np.ndarray]:
    """The best posture of the hand's joints for every position."""
    hand = opposition.hand
    matrix = coupling(model, hand.joints)
    found = []
    for position in range(1, 11):
        best: tuple[float, np.ndarray] | None = None
        for _ in range(STARTS):
            cost, q = _solve(opposition, matrix, position, rng)
            if best is None or cost < best[0]:
                best = (cost, q)
        assert best is not None
        found.append(_polished(opposition, matrix, position, best[1], rng))
    return found


def _residual(opposition: Opposition, q: np.ndarray, position: int) -> np.ndarray:
    reach = opposition.reach(q, position)
    facing = OPPOSED_COS if 3 <= position <= 6 else FACING_COS
    hints = PRIOR * (q - opposition.hand.home_rad)
    hard = [
        (reach.gap_m - AIM_GAP_M) / 0.3e-3,
        max(0.0, PAD_COS + 0.15 - reach.pad_cos) / 0.05,
        max(0.0, reach.facing_cos - facing + 0.12) / 0.05,
        max(0.0, reach.overlap_m + 0.0) / 0.3e-3,
    ]
    return np.concatenate([hard, hints])


def _solve(
    opposition: Opposition, matrix: np.ndarray, position: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    hand = opposition.hand
    low, high = hand.lower_rad, _upper(opposition)
    q = np.clip(hand.home_rad + matrix @ rng.normal(scale=0.5, size=matrix.shape[1]), low, high)
    q = _on_manifold(q, matrix, low, high)
    damping = 1.0
    residual = _residual(opposition, q, position)
    for _ in range(ITERATIONS):
        slope = np.empty((len(residual), matrix.shape[1]))
        for j in range(matrix.shape[1]):
            slope[:, j] = (_residual(opposition, q + 1e-6 * matrix[:, j], position) - residual) / 1e-6
        normal = slope.T @ slope
        step = -np.linalg.solve(normal + damping * np.eye(len(normal)), slope.T @ residual)
        step *= min(1.0, 0.3 / max(float(np.abs(step).max()), 1e-9))
        trial = _on_manifold(np.clip(q + matrix @ step, low, high), matrix, low, high)
        other = _residual(opposition, trial, position)
        if other @ other < residual @ residual:
            small = residual @ residual - other @ other < 1e-4 * (residual @ residual)
            q, residual, damping = trial, other, max(damping * 0.4, 1e-4)
            if small:
                break
        else:
            damping *= 4.0
            if damping > 1e6:
                break
    return _cost(opposition, q, position), q


def _upper(opposition: Opposition) -> np.ndarray:
    arch = np.array([opposition.model.joint_names[row].endswith("arch") for row in opposition.hand.joints])
    return opposition.hand.upper_rad - ARCH_ROOM_RAD * arch


def _cost(opposition: Opposition, q: np.ndarray, position: int) -> float:
    residual = _residual(opposition, q, position)
    return float(residual[:4] @ residual[:4]) + 0.01 * float(residual[4:] @ residual[4:])


def _polished(
    opposition: Opposition, matrix: np.ndarray, position: int, q: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    low, high = opposition.hand.lower_rad, _upper(opposition)
    cost, width = _cost(opposition, q, position), 0.1
    for _ in range(POLISH):
        chosen = rng.random(matrix.shape[1]) < 0.4
        step = width * rng.normal(size=matrix.shape[1]) * chosen
        trial = _on_manifold(np.clip(q + matrix @ step, low, high), matrix, low, high)
        other = _cost(opposition, trial, position)
        if other < cost:
            q, cost, width = trial, other, min(width * 1.5, 0.4)
        else:
            width = max(width * 0.97, 2e-3)
    return q


def _on_manifold(q: np.ndarray, matrix: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The nearest posture that the motors can hold."""
    if matrix.shape[1] == matrix.shape[0]:
        return q
    return np.clip(matrix @ np.linalg.lstsq(matrix, q, rcond=None)[0], low, high)


def find_positions(hand: str, seed: int) -> PositionFile:
    """Postures, then targets that reach them in both engines on average."""
    model = load(hand)
    opposition = Opposition(model)
    rng = np.random.default_rng(seed)
    joints = opposition.hand.joints
    wanted = postures(model, opposition, rng)
    away = np.array(model.home_rad)
    if "thumb_rotation" in model.joint_names:
        away[model.index("thumb_rotation")] = 0.4
    targets = []
    for q in wanted:
        full = np.array(model.home_rad)
        full[joints] = q
        targets.append(full)
    tours = [Tour(model, engine) for engine in ("mujoco", "pybullet")]
    corrected = [target.copy() for target in targets]
    for _ in range(PASSES):
        errors = np.zeros((len(tours), 10, len(away)))
        for i, tour in enumerate(tours):
            tour.begin(away)
            for k in range(10):
                visit = tour.go(k + 1, [away, corrected[k]])
                errors[i, k] = targets[k] - visit.q_rad
        for k in range(10):
            corrected[k] = np.clip(corrected[k] + 0.7 * errors[:, k].mean(axis=0), model.lower_rad, model.upper_rad)
    for tour in tours:
        tour.close()
    return PositionFile(
        hand=hand,
        robot_sha256=model.sha256,
        joint_names=model.joint_names,
        generator=f"python -m sim.dexterity.kapandji_search --hand {hand} --seed {seed}",
        open_rad=tuple(np.round(away, 5).tolist()),
        target_rad=tuple(tuple(np.round(row, 5).tolist()) for row in corrected),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hand", default="hand22")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    file = find_positions(args.hand, args.seed)
    model, reached = load(args.hand), set(range(1, 11))
    for engine in ("pybullet", "mujoco"):
        for visit in visits(model, engine, file):
            reached -= set() if visit.ok else {visit.position}
            print(
                args.hand,
                engine,
                visit.position,
                "ok" if visit.ok else visit.reach.why(),
                f"{1e3 * visit.reach.gap_m:.2f} mm",
            )
    file = msgspec.structs.replace(file, reached=tuple(sorted(reached)))
    path = DATA / f"{args.hand}_kapandji.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=0) + b"\n")


def visits(model: RobotModel, engine: str, file: PositionFile) -> Iterator[Visit]:
    """Play a file: one `Visit` per position, in order."""
    tour = Tour(model, engine)
    away = np.array(file.open_rad)
    tour.begin(away)
    try:
        for k, target in enumerate(file.target_rad):
            yield tour.go(k + 1, [away, np.array(target)])
    finally:
        tour.close()


if __name__ == "__main__":
    main()
