"""Hand-written controllers of the tasks with an object: they see what a policy sees, know the skeleton, and follow a plan."""

from typing import Any

import numpy as np

from sim.gait import Gait, load_gait
from sim.scene import LinkPoses
from sim.tasks.hand import FOREARM
from sim.tasks.trace_start import load_start

INSERT_S = 4.0  # for the way in
BEFORE_M, BEHIND_M = 0.010, 0.010  # of the mouth: where the way in begins, where it aims for
INTEGRAL = 0.1  # of the joint error per step: what the cables' stretch and friction leave over
MOST_RAD = 0.2


def straight_in(env: Any) -> Any:
    """HandInsert: on the hole's axis from before its mouth to behind it, joint angles in closed form, an integrator on the encoders."""
    contract, finger, palm_m = env.contract, env.task.finger, env.task.palm_m
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    steps, plan = INSERT_S * contract.control_hz, {"step": 0, "wanted": np.zeros(0), "added": np.zeros(4)}

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        q = seen[at["joint_position"]]
        if "goal" in info:  # the first observation of an episode
            plan.update(step=0, wanted=q, added=np.zeros(4))
        plan["step"] += 1
        columns = seen[at["object_rotation"]]
        inwards = -np.cross(columns[:3], columns[3:])
        mouth = seen[at["object_position"]] - palm_m
        way = min(plan["step"] / steps, 1.0) * (BEFORE_M + BEHIND_M) - BEFORE_M
        point = mouth + way * inwards
        wanted = finger.angles(point, finger.bend(point, inwards))
        if wanted is not None:
            plan["wanted"] = wanted
        plan["added"] = np.clip(plan["added"] + INTEGRAL * (plan["wanted"] - q), -MOST_RAD, MOST_RAD)
        return np.clip((plan["wanted"] + plan["added"] - seen[at["joint_target"]]) / scale, -1.0, 1.0)

    return policy


def turning(env: Any, gait: Gait | None = None) -> Any:
    """HandRotateCube: a finger gait by the clock, without looking at the cube; the shipped one when None."""
    contract, walk = env.contract, gait or load_gait(env.model.name)
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    lower, upper = np.array(contract.action.lower_rad), np.array(contract.action.upper_rad)

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        wanted = np.clip(walk.at(*seen[at["gait_phase"]]), lower, upper)
        return np.clip((wanted - seen[at["joint_target"]]) / scale, -1.0, 1.0)

    return policy


STEER = 0.15  # share of the tip's error that a step takes back
DAMPING_M = 0.01  # of the least-squares step
TILT_RAD = 1e-4  # for the difference quotient
PRESS = 3.0  # rad of the index finger per metre that the tip is too far out, and step: it tips the tool by some 16 mm per rad
PRESS_RAD = 0.4  # at most, either way
KEEP = 0.3  # share of the way back to the grasp's targets that all other fingers go in a step


def steered_tool(env: Any) -> Any:
    """HandTrace: forearm and wrist take the tool's tip to the next point of the path while the fingers hold on.

    Relative targets add up, so they are the integral of the tip's error as the tracker sees it; the joints follow by least squares. A
    wrist turns about a point and cannot bring a tip back that has moved away from it, as when the tool slowly tips in the fist: the
    index finger presses. No step depends on anything but what is observed there.
    """
    contract, model = env.contract, env.model
    joints, held = contract.action.joints, load_start(model.name)
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    poses, q, hold = LinkPoses(model), np.array(held.q_rad), np.array(held.target_rad)
    palm = poses.names.index("palm")
    moved = [joints.index(name) for name in FOREARM]
    index = [joints.index(f"index_{name}") for name in ("mcp", "pip", "dip")]
    rotation, origin = poses.at(q)
    tip_in_palm_m = rotation[palm].T @ (env.task.tip_m - origin[palm])

    def tip_at(q_rad: np.ndarray) -> np.ndarray:
        rotation, origin = poses.at(q_rad)
        return origin[palm] + rotation[palm] @ tip_in_palm_m

    rows = [model.index(name) for name in FOREARM]
    jacobian = np.array([tip_at(q + TILT_RAD * np.eye(len(q))[row]) - tip_at(q) for row in rows]).T / TILT_RAD
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING_M**2 * np.eye(3))
    outwards = rotation[palm][:, 1]

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        away = hold - seen[at["joint_target"]]
        error = seen[at["object_goal_error"]].reshape(-1, 3)
        step = KEEP * away
        step[moved] = inverse @ ((error[1] - error[0]) / 3.0 + STEER * error[0])  # along the path, and back to it
        press = -PRESS * outwards @ error[0]
        step[index] = np.clip(press, away[index] - PRESS_RAD, away[index] + PRESS_RAD)
        return np.clip(step / scale, -1.0, 1.0)

    return policy
