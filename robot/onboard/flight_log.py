"""The flight recorder's periods as an MCAP log, for Foxglove and Rerun."""

from typing import Any

import numpy as np

from robot.onboard.flight_ring import FAULTS, MODES, NO_FAULT, Layout
from robot.onboard.mcap import McapWriter
from robot.safety import STAGES

FAULT_LEVEL = 4  # foxglove.Log's ERROR


def _schema(names: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of an object: names to a type, or to the names of an object's numbers."""
    number = {"type": ["number", "null"]}
    kinds = {
        name: {"type": kind} if isinstance(kind, str) else {"type": "object", "properties": dict.fromkeys(kind, number)}
        for name, kind in names.items()
    }
    return {"type": "object", "properties": kinds}


def to_mcap(layout: Layout, records: np.ndarray, reason: str) -> bytes:
    """The periods as a log: topics /state, /observation, /action, /target, /controller and, where there were any, /faults."""
    out = McapWriter("flexor flight recorder")
    state = {
        "q_rad": layout.joints,
        "qd_rad_s": layout.joints,
        "motor_current_a": layout.motors,
        "motor_temperature_c": layout.motors,
        "tip_force_n": layout.tips,
    }
    target = {"asked_rad": layout.joints, "sent_rad": layout.joints}
    groups = {
        out.channel("/state", "flexor.State", _schema(state)): state,
        out.channel("/observation", "flexor.Observation", _schema({"observation": layout.observation})): {
            "observation": layout.observation
        },
        out.channel("/action", "flexor.Action", _schema({"action": layout.action})): {"action": layout.action},
        out.channel("/target", "flexor.Target", _schema(target)): target,
    }
    plain = {"mode": "string", "fault": "string", "latency_us": "number", "robot_s": "number"}
    controller = out.channel("/controller", "flexor.Controller", _schema({**plain, "changed": STAGES}))
    stamp = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
    log = {"level": "integer", "message": "string", "name": "string", "file": "string", "line": "integer"}
    log_schema = _schema(log)
    log_schema["properties"]["timestamp"] = stamp
    faults = out.channel("/faults", "foxglove.Log", log_schema)
    before = NO_FAULT
    for record in records:
        time_ns, fault = int(record["time_ns"]), int(record["fault"])
        for channel, fields in groups.items():
            value = {
                name: dict(zip(names, record[name].tolist()))
                for name, names in fields.items()
                if not np.isnan(record[name]).all()
            }
            if value:
                out.message(channel, time_ns, value)
        says = {
            "mode": MODES[record["mode"]].value,
            "fault": FAULTS[fault].value if fault != NO_FAULT else "",
            "latency_us": float(record["latency_us"]),
            "robot_s": float(record["robot_s"]),
            "changed": dict(zip(STAGES, record["changed"].tolist())),
        }
        out.message(controller, time_ns, says)
        if fault not in (NO_FAULT, before):
            sec, nsec = divmod(time_ns, 1_000_000_000)
            text = f"{FAULTS[fault].value}: {record['fault_text'].decode(errors='replace')}".rstrip(": ")
            where = {"name": "flexor", "file": "", "line": 0, "timestamp": {"sec": sec, "nsec": nsec}}
            out.message(faults, time_ns, {"level": FAULT_LEVEL, "message": text, **where})
        before = fault
    facts = {"reason": reason, "contract_sha256": layout.contract_sha256, "control_hz": f"{layout.control_hz:g}"}
    out.metadata("flexor", {**facts, **layout.facts})
    return out.finish()
