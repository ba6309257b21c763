"""Policies that learn nothing, with a policy's signature: what a trained one must beat."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics

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
    return _of_task(env, "scripted", {"flexor/HandReach-v0": transposed_reach})


def planner(env: gymnasium.Env) -> Policy:
    """The task solved with the exact model of the robot: no rival of a learner, but what it could reach.

    Raises:
        UnknownNameError: The task has none.
    """
    return _of_task(env, "planner", {"flexor/HandReach-v0": planned_reach})


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


BASELINES: dict[str, Callable[[gymnasium.Env], Policy]] = {
    "zero": zero,
    "random": random,
    "scripted": scripted,
    "planner": planner,
}


def make(name: str, env: gymnasium.Env) -> Policy:
    """A baseline for an environment.

    Raises:
        UnknownNameError: No baseline of that name.
    """
    if name not in BASELINES:
        raise UnknownNameError("baseline", name, BASELINES)
    return BASELINES[name](env)
