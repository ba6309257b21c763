"""What a hand can do, measured in simulation through its transmission: force, speed, repeatability, load, heat, watts.

Friction, slack, current limits, torque-speed lines and heat are on. Encoders are perfect and nothing is drawn, so what repeatability
and backlash show is the transmission's alone. Power is what motors take; electronics are not in the description.
"""

from collections.abc import Callable
from dataclasses import replace
from math import pi, radians
from typing import Any

import numpy as np

from robot.description import load
from robot.description.model import Geom, RobotModel
from robot.description.rotation import quat_xyzw, rpy_matrix
from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics, chain
from robot.state import Command
from robot.transmission import Parameters, TransmissionState
from sim import engines
from sim.bodies import Body
from sim.transmission_kernel import TransmissionKernel
from sim.world import Push, Start, World

HANDS = ("hand22", "hand25", "hand11")
CONTROL_HZ, SUBSTEP_S = 25.0, 0.005
CELL_M = (0.05, 0.05, 0.02)  # load cell: a block that is bolted to the world, its face across the push
GAP_M = 0.0005
PUSH_N_S, PUSH_S = 20.0, 3.0  # how fast the asked force grows, and for how long
BAR_RADIUS_M, BAR_LENGTH_M, BAR_KG = 0.0125, 0.110, 0.5  # of the fixed hook in the GRASP taxonomy
HANG_N_S, HANG_N = 60.0, 900.0
DROPPED_M = 0.060  # more than any finger is long below its hook
CARRIED_KG = 5.0
FIST = 0.8  # share of the flexion range that counts as a fist: fingertips stand before the palm without pressing on it
FIST_S = 2.0  # after which a hand has come to rest
ARRIVED = 0.9  # share of its way after which a fingertip has arrived


def measure(hand: str, engine: str, *, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures of one hand on one engine.

    Args:
        hand: One of `HANDS`.
        engine: One of `sim.engines.ENGINES`.
        seed: Of the postures from which a posture is approached.
        say: Called with a line of progress per part.

    Raises:
        UnknownNameError: No such hand; the message lists the known ones.
    """
    if hand not in HANDS:
        raise UnknownNameError("hand to measure", hand, HANDS)
    model = load(hand)
    parts: dict[str, Callable[[], Any]] = {
        "fingertip_force": lambda: fingertip_forces(model, engine),
        "open_to_fist_s": lambda: open_to_fist_s(model, engine),
        "precision": lambda: precision(model, engine, np.random.default_rng(seed)),
        "hook": lambda: hook(model, engine),
        "heat": lambda: heat(model),
        "watts": lambda: watts(model, engine),
    }
    found: dict[str, Any] = {}
    for i, (name, part) in enumerate(parts.items(), start=1):
        found[name] = part()
        say(f"{i}/{len(parts)} {name}")
    return {"hand": hand, "engine": engine, "substep_ms": 1e3 * SUBSTEP_S, **found}


def for_ever(parameters: Parameters, model: RobotModel) -> Parameters:
    """The same drives with no more current than their windings bear for ever (`Motor.continuous_current_a`)."""
    bearable = np.array([tendon.motor.continuous_current_a for tendon in model.tendons])
    return replace(parameters, peak_current=np.minimum(parameters.peak_current, bearable))


# Fingertip force


def fingertip_forces(model: RobotModel, engine: str) -> dict[str, dict[str, float]]:
    """Of every finger: force on a load cell in the first seconds and for ever [N]."""
    peak = Parameters.of(model)
    return {
        tip: {
            "peak_n": _push(model, engine, tip, peak),
            "continuous_n": _push(model, engine, tip, for_ever(peak, model)),
        }
        for tip in model.tip_names
    }


def _ready(model: RobotModel) -> np.ndarray:
    """The home posture with the thumb's MP joint opened: drives hold angles, so a hard push needs range left to ask for."""
    q = np.array(model.home_rad)
    q[model.index("thumb_mp")] = radians(-10.0)
    return q


def _statics(model: RobotModel, tip: str, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Direction of a finger's push in the base frame, and change of joint targets per newton of it.

    The push is along the way of the tip when the finger's base joint flexes. tau = J^T d F = R^T f; each flexor stretches, with its
    drive, by f over their stiffness in series, and the joint targets have to run ahead by that much cable: R dq = f / k.
    """
    kinematics = TipKinematics(model, model.base_link)
    row, q = model.tip_names.index(tip), _ready(model)
    jacobian = kinematics.jacobian(q)[row]  # (3, m)
    palm_to_tip = chain(model, model.tips[row].link, "palm")
    joints = [model.index(joint.name) for joint in palm_to_tip]
    base = next(joint.name for joint in palm_to_tip if joint.name in (f"{tip}_mcp", f"{tip}_mp"))
    way = jacobian[:, model.index(base)]
    way = way / np.linalg.norm(way)
    motors = [i for i, tendon in enumerate(model.tendons) if model.index(tendon.joint) in joints]
    arms = p.arms(q)[0::2][np.ix_(motors, joints)]
    pull = np.linalg.lstsq(arms.T, (jacobian.T @ way)[joints], rcond=None)[0]  # flexor tension per newton
    servo = np.array([model.tendons[i].servo_stiffness_n_m for i in motors])
    cable = np.array([model.tendons[i].stiffness_n_m for i in motors])
    ahead = np.zeros(len(model.joints))
    ahead[joints] = np.linalg.pinv(arms) @ (pull * (1.0 / servo + 1.0 / cable))
    return way, ahead


def _push(model: RobotModel, engine: str, tip: str, parameters: Parameters) -> float:
    """The most that a fingertip keeps up on a load cell for a fifth of a second while it is asked for ever more [N]."""
    way, ahead = _statics(model, tip, parameters)
    row, q = model.tip_names.index(tip), _ready(model)
    to_world = rpy_matrix(model.base_rpy_rad)
    at = to_world @ TipKinematics(model, model.base_link).positions(q)[row]
    way = to_world @ way
    radius = model.link(model.tips[row].link).geoms[0].size_m[0]
    centre = at + way * (radius + GAP_M + CELL_M[2] / 2.0)
    cell = Body(
        name="cell",
        shapes=(Geom(shape="box", size_m=CELL_M),),
        fixed=True,
        friction=1.0,
        position_m=_vec(centre),
        quat_xyzw=_facing(way),
    )
    robot = engines.make(engine, model, parameters=parameters, world=World(bodies=(cell,)))
    try:
        robot.begin(Start(q_rad=q))
        read = []
        for k in range(round(PUSH_S * CONTROL_HZ)):
            asked_n = PUSH_N_S * (k + 1) / CONTROL_HZ
            read.append(float(robot.step(Command(target_rad=q + asked_n * ahead)).tip_force_n[row]))
        return float(np.lib.stride_tricks.sliding_window_view(read, 5).min(axis=1).max())
    finally:
        robot.close()


def _facing(way: np.ndarray) -> tuple[float, float, float, float]:
    """A rotation that turns z into `way`."""
    side = np.cross(way, [1.0, 0.0, 0.0] if abs(way[0]) < 0.9 else [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    return quat_xyzw(np.stack([side, np.cross(way, side), way], axis=1))


def _vec(v: np.ndarray) -> tuple[float, float, float]:
    return (float(v[0]), float(v[1]), float(v[2]))


# Speed


def _fingers(model: RobotModel, parts: tuple[str, ...]) -> list[int]:
    fingers = [tip for tip in model.tip_names if tip != "thumb"]
    wanted = {f"{finger}_{part}" for finger in fingers for part in parts}
    return [i for i, name in enumerate(model.joint_names) if name in wanted]


def _open_and_fist(model: RobotModel) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Postures: fingers straight, fingers closed with the thumb out of their way; and the joints that close."""
    flexing = _fingers(model, ("mcp", "pip", "dip"))
    straight = np.array(model.home_rad)
    straight[flexing] = 0.0
    fist = straight.copy()
    fist[flexing] = FIST * model.upper_rad[flexing]
    return straight, fist, flexing


def open_to_fist_s(model: RobotModel, engine: str) -> float:
    """From the command until every fingertip is within a tenth of its way of where it comes to rest [s]; the thumb stays out."""
    straight, fist, _ = _open_and_fist(model)
    tips = TipKinematics(model)
    robot = engines.make(engine, model, control_hz=1.0 / SUBSTEP_S)  # a target that jumps, read at every substep
    try:
        robot.begin(Start(q_rad=straight))
        way = [tips.positions(straight)]
        way += [tips.positions(robot.step(Command(target_rad=fist)).q_rad) for _ in range(round(FIST_S / SUBSTEP_S))]
    finally:
        robot.close()
    fingers = [i for i, tip in enumerate(model.tip_names) if tip != "thumb"]
    left = np.linalg.norm(np.array(way) - way[-1], axis=2)[:, fingers]  # (steps, fingers)
    late = (left > (1.0 - ARRIVED) * left[0]).any(axis=1)
    return float(np.flatnonzero(late)[-1] + 1) * SUBSTEP_S


# Precision


def precision(
    model: RobotModel, engine: str, rng: np.random.Generator, parameters: Parameters | None = None
) -> dict[str, dict[str, float]]:
    """Of every fingertip, in the palm: how it comes back to a posture [mm].

    `repeatability_mm` after the way from 20 random postures, mean distance from the mean position and three standard deviations on top
    (the form of ISO 9283); `backlash_mm`: between coming from 15 degrees further open and from 15 degrees further closed.
    """
    tips, home = TipKinematics(model), np.array(model.home_rad)
    middle = (model.lower_rad + model.upper_rad) / 2.0
    still = np.array([name.startswith(("forearm", "wrist")) for name in model.joint_names])
    posture = np.where(still, home, 0.5 * (home + middle))
    robot = engines.make(engine, model, parameters=parameters)

    def arrive(start: np.ndarray) -> np.ndarray:
        """Tips after going there and coming back, each in half a second and with a rest of as long."""
        start = np.clip(np.where(still, home, start), model.lower_rad, model.upper_rad)
        for here, there in ((posture, start), (start, posture)):
            for step in range(1, 26):
                state = robot.step(Command(target_rad=here + min(1.0, step / 12) * (there - here)))
        return tips.positions(state.q_rad)

    try:
        robot.begin(Start(q_rad=posture))
        span = 0.25 * (model.upper_rad - model.lower_rad)
        found = np.array([arrive(posture + span * rng.uniform(-1.0, 1.0, len(home))) for _ in range(20)])
        away = np.linalg.norm(found - found.mean(axis=0), axis=2)  # (20, n_tips)
        repeat = away.mean(axis=0) + 3.0 * away.std(axis=0, ddof=1)
        flex = np.zeros(len(home))
        flex[_flexion(model)] = radians(15.0)
        backlash = np.linalg.norm(arrive(posture + flex) - arrive(posture - flex), axis=1)
    finally:
        robot.close()
    return {
        tip: {"repeatability_mm": 1e3 * float(r), "backlash_mm": 1e3 * float(b)}
        for tip, r, b in zip(model.tip_names, repeat, backlash)
    }


def _flexion(model: RobotModel) -> list[int]:
    parts = ("_mcp", "_pip", "_dip", "_mp", "_ip")
    return [i for i, name in enumerate(model.joint_names) if name.endswith(parts)]


# Load in a hook


def hook(model: RobotModel, engine: str) -> dict[str, float]:
    """Weight that four hooked fingers carry on a bar before it slips by 10 mm, in the first seconds and for ever [N]."""
    peak = Parameters.of(model)
    return {
        "peak_n": _hang(model, engine, peak, HANG_N)[0],
        "continuous_n": _hang(model, engine, for_ever(peak, model), HANG_N)[0],
    }


def _hanging(model: RobotModel) -> tuple[RobotModel, np.ndarray, np.ndarray, World]:
    """The hand with its fingers down, a hooked posture, a command that closes around the bar, and the bar in the hook."""
    model = replace(model, base_rpy_rad=(-pi / 2.0, 0.0, 0.0))
    posture = np.array(model.home_rad)
    for part, angle_deg in (("mcp", 20.0), ("pip", 80.0), ("dip", 50.0)):
        posture[_fingers(model, (part,))] = radians(angle_deg)
    closed, flexing = posture.copy(), _fingers(model, ("mcp", "pip", "dip"))
    closed[flexing] = model.upper_rad[flexing]  # drives hold an angle, so a full pull needs an angle out of reach
    # The bar rests on the middle phalanges, which stand out level.
    fingers = [tip for tip in model.tips if tip.name in ("middle", "ring")]
    bones = [next(j for j in chain(model, tip.link, "palm") if j.name.endswith("_pip")).child for tip in fingers]
    ends = replace(model, tips=tuple(replace(t, link=b, offset_m=model.link(b).com_m) for t, b in zip(fingers, bones)))
    middle = rpy_matrix(model.base_rpy_rad) @ TipKinematics(ends, model.base_link).positions(posture).mean(axis=0)
    above = model.link(bones[0]).geoms[0].size_m[0] + BAR_RADIUS_M + GAP_M
    bar = Body(
        name="bar",
        shapes=(Geom(shape="cylinder", size_m=(BAR_RADIUS_M, BAR_LENGTH_M), rpy_rad=(0.0, 0.0, pi / 2.0)),),
        mass_kg=BAR_KG,
        friction=0.5,
        position_m=_vec(middle + np.array([0.0, 0.0, above])),
    )
    return model, posture, closed, World(bodies=(bar,))


def _hang(
    model: RobotModel, engine: str, parameters: Parameters, most_n: float, grip: float = 1.0
) -> tuple[float, float]:
    """Weight at which the bar slips, or `most_n` when it did not, and watts over the last second.

    `grip`: how far the fingers are told to close, 0 where they touch the bar, 1 to the end of their range.
    """
    hanging, posture, closed, world = _hanging(model)
    closed = posture + grip * (closed - posture)
    robot = engines.make(engine, hanging, parameters=parameters, world=world)
    try:
        robot.begin(Start(q_rad=posture, target_rad=closed))
        for _ in range(25):
            robot.step(Command(target_rad=closed))
        start_m = robot.world_state().body_pose[0, 2]
        weight, carried, power = BAR_KG * 9.81, 0.0, []
        last = round((most_n / HANG_N_S + 1.0) * CONTROL_HZ)
        for k in range(last):
            asked = min(most_n - weight, HANG_N_S * k / CONTROL_HZ)
            robot.push([Push(on="bar", force_n=np.array([0.0, 0.0, -asked]))])
            robot.step(Command(target_rad=closed))
            truth = robot.world_state()
            power.append(truth.electrical_w)
            if start_m - truth.body_pose[0, 2] > DROPPED_M:
                break
            carried = asked + weight
        return carried, float(np.mean(power[-25:]))
    finally:
        robot.close()


# Heat and watts


def heat(model: RobotModel, minutes: float = 10.0) -> dict[str, float]:
    """Windings after ten minutes of every motor holding half its peak load, joints held: the transmission alone, no engine [deg C]."""
    p = Parameters.of(model)
    q = np.array(model.home_rad)
    kernel = TransmissionKernel(p, SUBSTEP_S)
    kernel.reset(TransmissionState.at_rest(p, q))
    kernel.q_rad[:] = q
    kernel.target_rad[:] = p.spool_target(q, q)
    views, half = kernel.state_views, 0.5 * p.peak_current
    per_rad = p.servo_stiffness / (p.torque_per_amp * p.efficiency)
    for _ in range(round(minutes * 60.0 / SUBSTEP_S)):
        kernel.target_rad += 0.02 * (half - views["current_a"]) / per_rad
        kernel.step()
    names = [tendon.motor.name for tendon in model.tendons]
    hottest = {name: float(views["winding_c"][[n == name for n in names]].max()) for name in sorted(set(names))}
    return {f"{name}_winding_c": value for name, value in hottest.items()}


def watts(model: RobotModel, engine: str) -> dict[str, float]:
    """Mean electrical power: still and empty; five kilograms on a bar in a hook, gripped no harder than they need; opening and
    closing once a second [W]."""
    straight, fist, _ = _open_and_fist(model)
    robot = engines.make(engine, model)
    try:
        robot.reset(None, np.random.default_rng(0))
        idle = [_power(robot, np.array(model.home_rad)) for _ in range(100)]
        moving = []
        for k in range(250):
            share = 0.5 - 0.5 * np.cos(2.0 * pi * k / CONTROL_HZ)
            moving.append(_power(robot, straight + share * (fist - straight)))
    finally:
        robot.close()
    weight, holding = CARRIED_KG * 9.81, float("nan")
    for grip in np.linspace(0.1, 1.0, 10):
        carried, power = _hang(model, engine, Parameters.of(model), weight, grip)
        if carried >= weight:
            holding = power
            break
    return {"idle_w": float(np.mean(idle[50:])), "holding_w": holding, "moving_w": float(np.mean(moving[50:]))}


def _power(robot: Any, target_rad: np.ndarray) -> float:
    robot.step(Command(target_rad=target_rad))
    return float(robot.world_state().electrical_w)


def table(figures: dict[str, Any]) -> str:
    """The figures for a terminal."""
    rows = [f"{figures['hand']} on {figures['engine']}, substep {figures['substep_ms']:g} ms", ""]
    rows.append(f"{'tip':<8}{'peak':>9}{'for ever':>10}{'repeatability':>15}{'backlash':>11}")
    for tip, force in figures["fingertip_force"].items():
        exact = figures["precision"][tip]
        rows.append(
            f"{tip:<8}{force['peak_n']:>7.1f} N{force['continuous_n']:>8.1f} N"
            f"{exact['repeatability_mm']:>12.2f} mm{exact['backlash_mm']:>8.2f} mm"
        )
    power = figures["watts"]
    return "\n".join(
        [
            *rows,
            "",
            f"open to fist   {figures['open_to_fist_s']:.2f} s",
            f"hook           {figures['hook']['peak_n']:.0f} N at once, {figures['hook']['continuous_n']:.0f} N for ever",
            "heat           after 10 min at half peak load: "
            + ", ".join(f"{name.removesuffix('_winding_c')} {c:.0f} C" for name, c in figures["heat"].items()),
            f"power          {power['idle_w']:.2f} W idle, {power['holding_w']:.2f} W holding {CARRIED_KG:g} kg in a hook, "
            f"{power['moving_w']:.1f} W opening and closing once a second",
        ]
    )
