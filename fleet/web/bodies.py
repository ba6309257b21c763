"""A robot's shape and its last fall in a form a browser draws: links with primitives, joints in order, states as numbers."""

from typing import Any

import numpy as np

from robot.description import load
from robot.description.rotation import rpy_matrix


def shape(model_name: str) -> dict[str, Any]:
    """What to draw of a robot model.

    Raises:
        UnknownNameError: No such model.
    """
    model = load(model_name)
    return {
        "name": model.name,
        "base": model.base_link,
        "base_turn": _matrix(model.base_rpy_rad),
        "floating": model.floating,
        "tips": [tip.link for tip in model.tips],
        "links": [
            {
                "name": link.name,
                "geoms": [
                    {
                        "shape": geom.shape,
                        "size_m": list(geom.size_m),
                        "origin_m": list(geom.origin_m),
                        "turn": _matrix(geom.rpy_rad),
                    }
                    for geom in link.geoms
                ],
            }
            for link in model.links
        ],
        "joints": [
            {
                "name": joint.name,
                "parent": joint.parent,
                "child": joint.child,
                "origin_m": list(joint.origin_m),
                "turn": _matrix(joint.rpy_rad),
                "axis": list(joint.axis),
            }
            for joint in model.joints
        ],
    }


def states(report: dict[str, Any]) -> dict[str, Any]:
    """The last seconds in a fall report (`fleet.messages.FallReport` as plain values), times counted back from the end.

    Raises:
        ValueError: Arrays whose sizes do not fit the number of states; a robot may send anything.
    """
    n = report["states"]

    def rows(name: str) -> np.ndarray:
        flat = np.frombuffer(report[name], dtype="<f4")
        if n < 1 or flat.size % n:
            raise ValueError(f"{name}: {flat.size} numbers for {n} states")
        return np.nan_to_num(flat.reshape(n, -1), nan=0.0, posinf=0.0, neginf=0.0)

    time_s = rows("time_s")[:, 0]
    return {
        **{k: report[k] for k in ("episode_id", "artifact", "robot_model", "reason", "time_ns", "policy_sha256")},
        "time_s": (time_s - time_s[-1]).round(4).tolist(),
        "q_rad": rows("q_rad").round(4).tolist(),
        "quat_xyzw": rows("imu_quat_xyzw").round(5).tolist() if report["imu_quat_xyzw"] else [],
        "tip_force_n": rows("tip_force_n").round(2).tolist() if report["tip_force_n"] else [],
    }


def _matrix(rpy_rad: tuple[float, float, float]) -> list[float]:
    return rpy_matrix(rpy_rad).ravel().tolist()
