"""What the page and the metrics show: one pass over robots and lines, plain values, cheap enough for once a second with thousands of robots."""

import shutil
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from fleet.evidence import Counts, judge
from fleet.gateway import Gateway
from fleet.rollout import State, View
from fleet.roster import Member
from fleet.store import Store
from fleet.wire import STREAMS

STATES = ("ONLINE", "OFFLINE", "CONNECTIONBROKEN", "LOST", "NEVER")
_NAMES = {number: name for name, number in STREAMS.items()}
COUNTED = (
    "revoked",
    "identity",
    "unsent",
    "audit_mismatch",
    "malformed",
    "nospace",
    "replaced",
    "nack_conflict",
    "merged_conflict",
)


def overview(
    gateway: Gateway,
    store: Store,
    rollout: State | None,
    view: View | None,
    names: frozenset[str],
    now_s: float,
) -> dict[str, Any]:
    """Everything, as it is now.

    Args:
        rollout, view: The last rollout and what its verdict rests on; None where there was none.
        names: Robots that are allowed.
    """
    index, members = store.index, gateway.roster.members
    streams = {name: {"records": 0, "bytes": 0, "items": 0, "lost": 0} for name in STREAMS}
    held: dict[str, Counter[str]] = {}
    for (robot, epoch, stream), line in index.lines.items():
        mark = line.committed
        row = streams[_NAMES[stream]]
        row["records"] += mark.records
        row["bytes"] += mark.payload_bytes
        row["items"] += mark.items
        row["lost"] += mark.lost
        counts = held.setdefault(robot, Counter())
        counts["held"] += mark.records
        counts["lost"] += mark.lost
        told = members[robot].recorded.get((epoch, stream), 0) if robot in members else 0
        counts["pending"] += max(0, told - mark.seq)
        if _NAMES[stream] == "steps":
            counts["steps"] += mark.items
    for member in members.values():  # lines of which nothing is held yet
        for (epoch, stream), told in member.recorded.items():
            if (member.name, epoch, stream) not in index.lines:
                held.setdefault(member.name, Counter())["pending"] += told
    robots = [
        _robot(name, members.get(name), held.get(name, Counter()), name in names, rollout, now_s)
        for name in sorted({*names, *members, *held})
    ]
    online = [r for r in robots if r["state"] == "ONLINE"]
    usage = shutil.disk_usage(store.folder)
    return {
        "robots": robots,
        "states": {state: sum(r["state"] == state for r in robots) for state in STATES},
        "streams": streams,
        "pending": sum(r["pending"] for r in robots),
        "spool": {
            "bytes_max": max((r["spool_bytes"] for r in robots), default=0),
            "oldest_s": max((r["spool_oldest_s"] for r in online), default=0.0),
        },
        "energy": {
            "power_w": sum(r["power_w"] for r in online),
            "energy_j": sum(r["energy_j"] for r in robots),
        },
        "counts": {
            **{name: gateway.counters[name] for name in COUNTED},
            **{name: getattr(index, name) for name in ("duplicates", "gaps", "conflicts", "damaged", "holes_given_up")},
        },
        "credit_bytes": gateway.credit_bytes,
        "disk_free": usage.free / usage.total,
        "tombstoned": dict(index.tombstoned),
        "refusals": dict(gateway.roster.refusals),
        "segments": sum(1 for _ in (store.folder / "log").glob("*.seg")),
        "quarantined": sum(1 for _ in (store.folder / "quarantine").glob("*.rec")),
        "rollout": _rollout(rollout, view),
    }


def behind(versions: dict[str, list[str]], label: str) -> int | None:
    """How many published versions of what it runs are newer, None for what was never published.

    Args:
        versions: Of every artifact, oldest first.
    """
    name, _, version = label.partition("/")
    known = versions.get(name, [])
    return len(known) - 1 - known.index(version) if version in known else None


def _robot(
    name: str, member: Member | None, held: Counter[str], allowed: bool, rollout: State | None, now_s: float
) -> dict[str, Any]:
    beat = member.heartbeat if member else None
    tally = beat.tally if beat else None
    group = "" if rollout is None or rollout.over else ("canary" if name in rollout.canaries else "control")
    return {
        "name": name,
        "allowed": allowed,
        "state": member.state(now_s) if member else "NEVER",
        "silent_s": None if member is None or member.last_seen_s is None else now_s - member.last_seen_s,
        "doing": beat.state if beat else "",
        "model": beat.robot_model if beat else "",
        "artifact": beat.artifact if beat else "",
        "policy_sha256": beat.policy_sha256 if beat else "",
        "refused": beat.refused if beat else "",
        "shadow_steps": beat.shadow_steps if beat else 0,
        "shadow_bad": beat.shadow_bad if beat else 0,
        "shadow_difference": beat.shadow_difference if beat else 0.0,
        "battery": beat.battery if beat else None,
        "energy_j": beat.energy_j if beat else 0.0,
        "energy_source": beat.energy_source if beat else "",
        "power_w": beat.power_w if beat else 0.0,
        "spool_bytes": beat.spool_bytes if beat else 0,
        "spool_oldest_s": beat.spool_oldest_s if beat else 0.0,
        "job": beat.job if beat else "",
        "group": group,
        "episodes": tally.episodes if tally else 0,
        "successes": tally.successes if tally else 0,
        "falls": tally.falls if tally else 0,
        "held": held["held"],
        "pending": held["pending"],
        "lost": held["lost"],
        "steps": held["steps"],
        "fall": None,
    }


def _rollout(state: State | None, view: View | None) -> dict[str, Any] | None:
    if state is None or view is None:
        return None
    rng = np.random.default_rng(state.plan.seed)  # equal counts show equal numbers
    judged = judge(view.candidate, view.control, state.plan.rules, rng)
    return {
        "id": state.plan.id,
        "artifact": state.plan.candidate.label,
        "policy_sha256": state.plan.candidate.sha256,
        "status": state.status,
        "stage": state.stage_name,
        "stage_number": state.stage,
        "stages": [stage.name for stage in state.plan.stages],
        "min_episodes": state.plan.stages[state.stage].min_episodes,
        "canaries": list(state.canaries),
        "reason": state.reason,
        "groups": {"canary": _group(view.candidate), "control": _group(view.control)},
        "verdict": judged.verdict,
        "worse": judged.worse,
        "rules": {
            "rollback_above": state.plan.rules.rollback_above,
            "promote_below": state.plan.rules.promote_below,
        },
    }


def _group(counts: Counts) -> dict[str, Any]:
    episodes, hours = counts.episodes, counts.hours
    return {
        **msgspec.to_builtins(counts),
        "falls_per_hour": counts.falls / hours if hours > 0.0 else None,
        "success": counts.successes / episodes if episodes else None,
        "return_mean": counts.return_sum / episodes if episodes else None,
    }


__all__ = ["STATES", "behind", "overview"]
