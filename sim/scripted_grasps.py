"""Hand-written controllers for HandGrasp and HandOppose: they go to the shipped targets that the benchmark found."""

from typing import Any

import numpy as np

from sim.dexterity.grasp import load_grasps
from sim.dexterity.positions import load_positions
from sim.dexterity.protocol import CLOSE_S

AWAY_S, GO_S = 0.6, 0.6  # to the open posture between two positions, and from there to the next


def closing(env: Any) -> Any:
    """HandGrasp: close to the shipped grasp's targets in `CLOSE_S`, then keep them."""
    contract, file = env.contract, load_grasps(env.model.name)
    rows = [env.model.index(joint) for joint in contract.action.joints]
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    steps, plan = CLOSE_S * contract.control_hz, {"step": 0, "from": np.zeros(0), "to": np.zeros(0)}

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        now = seen[at["joint_target"]]
        if "goal" in info:  # the first observation of an episode
            grasp = file.find(int(np.argmax(seen[at["goal"]][:33])) + 1)
            assert grasp is not None
            plan.update(step=0, to=np.array(grasp.target_rad)[rows])
            plan["from"] = now
        plan["step"] += 1
        share = min(plan["step"] / steps, 1.0)
        return np.clip((plan["from"] + share * (plan["to"] - plan["from"]) - now) / scale, -1.0, 1.0)

    return policy


def touring(env: Any) -> Any:
    """HandOppose: open, then on to the shipped targets of the position that is asked for."""
    contract, file = env.contract, load_positions(env.model.name)
    rows = [env.model.index(joint) for joint in contract.action.joints]
    at, scale = contract.slices, np.array(contract.action.scale_rad)
    away, targets = np.array(file.open_rad)[rows], np.array(file.target_rad)[:, rows]
    plan = {"asked": 0, "step": 0, "from": away}

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        now, asked = seen[at["joint_target"]], int(np.argmax(seen[at["goal"]])) + 1
        if "goal" in info or asked != plan["asked"]:
            plan.update(asked=asked, step=0)
            plan["from"] = now
        plan["step"] += 1
        time_s = plan["step"] / contract.control_hz
        back, on = min(time_s / AWAY_S, 1.0), min(max(time_s - AWAY_S, 0.0) / GO_S, 1.0)
        wanted = plan["from"] + back * (away - plan["from"])
        wanted = wanted + on * (targets[asked - 1] - wanted)
        return np.clip((wanted - now) / scale, -1.0, 1.0)

    return policy
