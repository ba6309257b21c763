"""Hand-written controllers for HandGrasp and HandOppose: they go to the shipped targets that the benchmark found."""

from typing import Any

import numpy as np

from sim.dexterity.grasp import load_grasps
from sim.dexterity.positions import load_positions
from sim.dexterity.taxonomy import find

AWAY_S, GO_S = 0.6, 0.6  # to the open posture between two positions, and from there to the next


GAIN = 0.5  # share of the way to the squeeze that a step goes
SQUEEZE = 1.5  # of what the shipped grasp squeezes: with everything drawn at random its own is too little for most
GENTLER = {1.0: (2, 4, 7, 17, 18, 20, 21, 23, 25, 30), 1.3: (16, 29, 32)}  # types that are better off with less
PINCH_RAD = {33: 0.05}  # added at the fingers that touch
SEARCH_RAD, SEARCHED_RAD, FELT_N = (
    0.003,
    0.4,
    0.1,
)  # of a finger that should feel the object and does not: a step, at most, what counts
# Fingers whose tip touches in both engines when all is nominal (i m r l t): only those may be led by their sensor. A type is listed where
# it is held more often with than without.
FEELS = {
    6: "imrlt", 8: "imt", 9: "it", 10: "im", 11: "imr", 12: "imrlt", 13: "imrt", 19: "mt", 24: "it", 26: "imrt", 27: "imt",
    28: "imt", 31: "it",
}  # fmt: skip
FINGERS = ("index", "middle", "ring", "little", "thumb")


def closing(env: Any) -> Any:
    """HandGrasp: to the shipped grasp's targets and on by a type's factor; fingers that should feel the object and do not bend on.

    No step depends on anything but what is observed there.
    """
    contract, model, file = env.contract, env.model, load_grasps(env.model.name)
    joints, at, scale = contract.action.joints, contract.slices, np.array(contract.action.scale_rad)
    rows = [model.index(joint) for joint in joints]
    tip = {finger: i for i, name in enumerate(model.tip_names) for finger in FINGERS if name.startswith(finger)}
    bending = {f: [joints.index(f"{f}_{bone}") for bone in (("mp", "ip") if f == "thumb" else ("mcp", "pip", "dip"))] for f in FINGERS}  # fmt: skip
    factor = {number: share for share, numbers in GENTLER.items() for number in numbers}

    def squeeze(number: int) -> np.ndarray:
        grasp = file.find(number)
        assert grasp is not None
        q, target = np.array(grasp.q_rad)[rows], np.array(grasp.target_rad)[rows]
        wanted = q + factor.get(number, SQUEEZE) * (target - q)
        for touch in find(number).touches:
            if touch.part in bending:
                wanted[bending[touch.part]] += PINCH_RAD.get(number, 0.0)
        return wanted

    wanted = {grasp.number: squeeze(grasp.number) for grasp in file.grasps}

    def policy(observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        seen = observation.astype(float)
        number = int(np.argmax(seen[at["goal"]][:33])) + 1
        way = wanted[number] - seen[at["joint_target"]]
        step = GAIN * way
        for finger, row in tip.items():
            if finger[0] not in FEELS.get(number, ""):
                continue
            searching = SEARCH_RAD if seen[at["tip_force"]][row] < FELT_N else 0.0
            for k in bending[finger]:
                if way[k] <= 0.0:  # it has closed, and stays where its search has led it
                    step[k] = min(searching, max(way[k] + SEARCHED_RAD, 0.0))
        return np.clip(step / scale, -1.0, 1.0)

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
