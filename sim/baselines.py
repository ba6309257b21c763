"""Policies that learn nothing, with a policy's signature: what a trained one must beat."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics
from sim.scripted_grasps import closing, touring
from sim.scripted_hands import steered_tool, straight_in, turning

Policy = Callable[[np.ndarray, dict[str, Any]], np.ndarray]
DAMPING_M = 0.01  # of the least-squares step: a centimetre, so that joints near a singularity do not fly
ITERATIONS = 200


def zero(env: gymnasium.Env) -> Policy:
    """Ask for nothing: relative targets stay where they are."""
    action = np.zeros(env.action_space.shape or (), np.float32)
    return lambda observation, info: action


def random(env: gymnasium.Env) -> Policy:
    """Uniform over the action space, from the environment's own generator, so that a seed repeats it."""
    unwrapped: Any = env.unwrapped
    shape = env.action_space.shape
    return lambda observation, info: unwrapped.np_random.uniform(-1.0, 1.0, shape)


def scripted(env: gymnasium.Env) -> Policy:
    """The task's hand-written controller, which sees what a policy sees and nothing else.

    Raises:
        UnknownNameError: The task has none.
    """
    return _of_task(env, "scripted", SCRIPTED)


def planner(env: gymnasium.Env) -> Policy:
    """The task solved with the exact model of the robot: no rival of a learner, but what it could reach.

    Raises:
        UnknownNameError: The task has none.
    """
    return _of_task(env, "planner", PLANNED)


def _of_task(env: gymnasium.Env, kind: str, scripts: dict[str, Callable[[Any], Policy]]) -> Policy:
    unwrapped: Any = env.unwrapped
    env_id = unwrapped.task.env_id
    if env_id not in scripts:
        raise UnknownNameError(f"{kind} baseline for", env_id, scripts)
    return scripts[env_id](unwrapped)


TRANSPOSE_GAIN = (
    1600.0  # action per metre; best mean return of 50, 100, ... 1600 over seeds 0-39 on mujoco (26.6; 800: 24.9)
)


def transposed_reach(env: Any) -> Policy:
    """HandReach as one would script it without a solver: push each joint the way that brought its tip nearer in the home posture.

    action = gain J(home)^T error, with the error as observed. It closes the loop, but knows only one posture's directions.
    """
    contract = env.contract
    moved = [env.model.index(joint) for joint in contract.action.joints]
    tips = TipKinematics(env.model)
    n_goal = len(contract.goal)
    transpose = TRANSPOSE_GAIN * tips.jacobian(env.model.home_rad).reshape(n_goal, -1)[:, moved].T
    error = contract.slices["goal_error"]
    return lambda observation, info: np.clip(transpose @ observation[error], -1.0, 1.0)


def planned_reach(env: Any) -> Policy:
    """HandReach as a planner does it: inverse kinematics once, from what the encoders say at the start, then joint targets.

    It knows the exact skeleton and moves every joint at the full speed an action allows. What it does not do is look again: the
    stretch of the tendons, friction and the encoders' error stay in the result.
    """
    interface, contract = env.interface, env.contract
    tips = TipKinematics(env.model)
    moved = np.array([env.model.index(joint) for joint in contract.action.joints])
    slices = contract.slices
    lower, upper = np.array(contract.action.lower_rad), np.array(contract.action.upper_rad)
    scale = np.array(contract.action.scale_rad)
    plan: dict[str, np.ndarray] = {}

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        if "goal" in info:  # the first observation of an episode
            q = np.array(interface.model.home_rad)
            q[moved] = observation[slices["joint_position"]]
            goal = observation[slices["tip_position"]] + observation[slices["goal_error"]]
            plan["target"] = inverse_kinematics(tips, q, goal.reshape(-1, 3).astype(float), moved, lower, upper)[moved]
        return np.clip((plan["target"] - observation[slices["joint_target"]]) / scale, -1.0, 1.0)

    return policy


def inverse_kinematics(
    tips: TipKinematics, q_rad: np.ndarray, goal_m: np.ndarray, moved: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Joint angles that bring the tips near their goals, by damped least squares within the joint ranges.

    Args:
        q_rad: Where to start, shape (n_joints,).
        goal_m: shape (n_tips, 3), in the frame of `tips`.
        moved: Joints that may move, with ranges `lower` and `upper`.
    """
    q = q_rad.copy()
    for _ in range(ITERATIONS):
        error = (goal_m - tips.positions(q)).reshape(-1)
        if np.abs(error).max() < 1e-5:
            break
        jacobian = tips.jacobian(q).reshape(error.size, -1)[:, moved]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING_M**2 * np.eye(error.size), error)
        q[moved] = np.clip(q[moved] + np.clip(step, -0.2, 0.2), lower, upper)
    return q


# Radians of ankle per unit of gravity's share and per rad/s: pitch, its rate, roll, its rate. Best of 100 s of random search for the
# longest time until a fall in BodyStand under pushes of 0.2 m/s (6.1 of 10 s over seeds 0-3 on mujoco; all zero: 1.5 s).
ANKLES = (1.79, 0.20, 1.94, 0.43)


def balance_on_ankles(env: Any) -> Policy:
    """Standing as one would script it: ankles that push against the way the body tips, by what the IMU says. It makes no steps."""
    contract = env.contract
    joints, scale = contract.action.joints, np.array(contract.action.scale_rad)
    gravity, gyro = contract.slices["projected_gravity"], contract.slices["base_gyro"]
    pitch, pitch_rate, roll, roll_rate = ANKLES
    gains = np.zeros((len(joints), 4))  # on gravity's x and y, and the gyro's y and x
    for i, joint in enumerate(joints):
        if joint.endswith("ankle_pitch"):  # flexing lifts the toes
            gains[i] = -pitch, 0.0, -pitch_rate, 0.0
        if joint.endswith("ankle_roll"):  # turns the soles outwards, on both sides
            outwards = 1.0 if joint.startswith("left") else -1.0
            gains[i] = 0.0, -outwards * roll, 0.0, outwards * roll_rate
    gains /= scale[:, None]

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        down, turning = observation[gravity], observation[gyro]
        return np.clip(gains @ [down[0], down[1], turning[1], turning[0]], -1.0, 1.0)

    return policy


SCRIPTED: dict[str, Callable[[Any], Policy]] = {
    "flexor/HandGrasp-v0": closing,
    "flexor/HandOppose-v0": touring,
    **{f"flexor/Body{name}-v0": balance_on_ankles for name in ("Stand", "Walk", "Carry", "Push")},
    "flexor/HandInsert-v0": straight_in,
    "flexor/HandReach-v0": transposed_reach,
    "flexor/HandRotateCube-v0": turning,
    "flexor/HandTrace-v0": steered_tool,
}
PLANNED: dict[str, Callable[[Any], Policy]] = {"flexor/HandReach-v0": planned_reach}

BASELINES: dict[str, Callable[[gymnasium.Env], Policy]] = {
    "zero": zero,
    "random": random,
    "scripted": scripted,
    "planner": planner,
}


def usual(env_id: str) -> str:
    """The baseline to watch where none is asked for: the task's script, or random actions where it has none."""
    return "scripted" if env_id in SCRIPTED else "random"


def make(name: str, env: gymnasium.Env) -> Policy:
    """A baseline for an environment.

    Raises:
        UnknownNameError: No baseline of that name.
    """
    if name not in BASELINES:
        raise UnknownNameError("baseline", name, BASELINES)
    return BASELINES[name](env)
