"""Hand-written controllers of the tasks with an object: they see what a policy sees, know the skeleton, and follow a plan."""

from typing import Any

import numpy as np

from sim.scene import LinkPoses
from sim.tasks.hand import FOREARM

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


STEER = 0.15  # share of the tip's error that a step takes back
DAMPING_M = 0.01  # of the least-squares step
TILT_RAD = 1e-4  # for the difference quotient


def steered_tool(env: Any) -> Any:
    """HandTrace: forearm and wrist take the tool's tip to the next point of the path while the fingers hold on.

    The way made so far integrates the tip's error as the tracker sees it; the joints follow by least squares.
    """
    contract, model = env.contract, env.model
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    poses = LinkPoses(model)
    palm = poses.names.index("palm")
    moved = [contract.action.joints.index(name) for name in FOREARM]
    plan: dict[str, Any] = {}

    def tip_at(q: np.ndarray, tip_in_palm_m: np.ndarray) -> np.ndarray:
        rotation, origin = poses.at(q)
        return origin[palm] + rotation[palm] @ tip_in_palm_m

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        target = seen[at["joint_target"]]
        if "goal" in info:  # the first observation of an episode
            plan["left"] = env.task.hand_over_steps
        if plan["left"] > 0:  # the fingers are closing
            plan["left"] -= 1
            if plan["left"] == 0:
                q = seen[at["joint_position"]]
                rotation, origin = poses.at(q)
                tip = rotation[palm].T @ (seen[at["object_position"]] - origin[palm])
                tilted = [tip_at(q + TILT_RAD * np.eye(len(q))[row], tip) for row in moved]
                jacobian = (np.array(tilted) - tip_at(q, tip)).T / TILT_RAD
                inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING_M**2 * np.eye(3))
                plan.update(first=target, inverse=inverse, way=np.zeros(3))
            return np.zeros(len(target))
        error = seen[at["object_goal_error"]].reshape(-1, 3)
        plan["way"] += (error[1] - error[0]) / 3.0 + STEER * error[0]  # along the path, and back to it
        wanted = plan["first"].copy()
        wanted[moved] += plan["inverse"] @ plan["way"]
        return np.clip((wanted - target) / scale, -1.0, 1.0)

    return policy
