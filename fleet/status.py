"""What an operator sees: per robot what it recorded, what the hub holds, what is lost or doubled. Built from cursors, audits and the log itself."""

from collections.abc import Iterable
from typing import Any

import msgspec

from fleet.director import Director
from fleet.gateway import Gateway
from fleet.index import Index, Key, Mark
from fleet.jobs_shared import Wish
from fleet.rollout import RobotView
from fleet.roster import Member
from fleet.store import LineAudit
from fleet.wire import STEPS, STREAMS

_NAMES = {number: name for name, number in STREAMS.items()}


def robot_views(gateway: Gateway, names: frozenset[str], now_s: float) -> dict[str, RobotView]:
    """What the director needs to know of every allowed robot."""
    views = {}
    for name in names:
        member = gateway.roster.members.get(name)
        heartbeat = member.heartbeat if member else None
        views[name] = RobotView(
            online=member is not None and member.state(now_s) == "ONLINE" and heartbeat is not None,
            policy_sha256=heartbeat.policy_sha256 if heartbeat else "",
            refused=heartbeat.refused if heartbeat else "",
            rollout=heartbeat.rollout if heartbeat else "",
            shadow_sha256=heartbeat.shadow_sha256 if heartbeat else "",
            shadow_steps=heartbeat.shadow_steps if heartbeat else 0,
            shadow_bad=heartbeat.shadow_bad if heartbeat else 0,
        )
    return views


def wishes(gateway: Gateway, names: frozenset[str], now_s: float) -> dict[str, Wish]:
    """Robots here that want a job or have one, for the hub that directs."""
    found = {}
    for name in names:
        member = gateway.roster.members.get(name)
        beat = member.heartbeat if member else None
        if member is not None and beat is not None and member.state(now_s) == "ONLINE" and (beat.wants_job or beat.job):
            found[name] = Wish.of(beat)
    return found


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """The log, counted record by record.

    Attributes:
        lines: What reading found.
        floor: Cursors the hub had told before reading began: all up to them must have been found.
    """

    lines: dict[Key, LineAudit]
    floor: dict[Key, int]


def lines_of(
    index: Index, keys: Iterable[Key], member: Member | None, name: str, count: Count | None
) -> list[dict[str, Any]]:
    """One row per (epoch, stream) of a robot.

    Args:
        keys: The robot's lines in the index.
        count: None where the log was not read: then the hub's own counts are shown.
    """
    told = {(name, e, s): n for (e, s), n in member.recorded.items()} if member else {}
    rows = []
    for key in sorted({*keys, *told}):
        mark = index.lines[key].committed if key in index.lines else Mark()
        cursor, held, held_items, doubled, lost = mark.seq, mark.records, mark.items, 0, mark.lost
        if count is not None:
            line, floor = count.lines.get(key), count.floor.get(key, 0)
            cursor = max(line.last if line else 0, floor)
            held, held_items, doubled = (line.held, line.held_items, line.doubled) if line else (0, 0, 0)
            lost = cursor - held  # up to the cursor all must be there; what is not is lost, declared or not
        recorded = max(told.get(key, 0), cursor)
        seen = member.audited.get(key) if member else None
        items = member.recorded_items.get(key[1:], 0) if member else 0
        rows.append(
            {
                "epoch": f"{key[1]:016x}",
                "stream": _NAMES[key[2]],
                "recorded": recorded,
                "held": held,
                "pending": recorded - cursor,
                "lost": lost,
                "declared_lost": mark.lost,
                "doubled": doubled,
                "recorded_items": max(items, held_items + mark.lost_items),
                "held_items": held_items,
                "lost_items": mark.lost_items,
                "audit": "not yet" if seen is None else f"{'equal' if seen[1] else 'DIFFERENT'} to {seen[0]}",
            }
        )
    return rows


def status(
    gateway: Gateway,
    index: Index,
    director: Director,
    names: frozenset[str],
    now_s: float,
    count: Count | None,
) -> dict[str, Any]:
    """The whole table, plain values only."""
    robots = []
    keys: dict[str, list[Key]] = {}
    for key in index.lines:
        keys.setdefault(key[0], []).append(key)
    for name in sorted({*names, *gateway.roster.members, *keys}):
        member = gateway.roster.members.get(name)
        lines = lines_of(index, keys.get(name, ()), member, name, count)
        beat = member.heartbeat if member else None
        steps = [r for r in lines if r["stream"] == _NAMES[STEPS]]
        robots.append(
            {
                "name": name,
                "allowed": name in names,
                "state": member.state(now_s) if member else "NEVER",
                "doing": beat.state if beat else "",
                "artifact": beat.artifact if beat else "",
                "policy_sha256": beat.policy_sha256 if beat else "",
                "generation": beat.generation if beat else 0,
                "refused": beat.refused if beat else "",
                "shadow_steps": beat.shadow_steps if beat else 0,
                "shadow_bad": beat.shadow_bad if beat else 0,
                "shadow_difference": beat.shadow_difference if beat else 0.0,
                "spool_bytes": beat.spool_bytes if beat else 0,
                "spool_oldest_s": beat.spool_oldest_s if beat else 0.0,
                "episodes": beat.tally.episodes if beat and beat.tally else 0,
                **{f: sum(r[f] for r in lines) for f in ("recorded", "held", "pending", "lost", "doubled")},
                "recorded_steps": sum(r["recorded_items"] for r in steps),
                "held_steps": sum(r["held_items"] for r in steps),
                "lost_steps": sum(r["lost_items"] for r in steps),
                "audit_ok": all(not r["audit"].startswith("DIFFERENT") for r in lines),
                "lines": lines,
            }
        )
    rollout = director.kept.rollout
    summed = ("recorded", "held", "pending", "lost", "doubled", "recorded_steps", "held_steps", "lost_steps")
    return {
        "robots": robots,
        **{field: sum(r[field] for r in robots) for field in summed},
        "audit_mismatches": gateway.counters["audit_mismatch"],
        "counted": count is not None,
        "duplicates_refused": index.duplicates,
        "conflicts": index.conflicts,
        "damaged": index.damaged,
        "counters": dict(gateway.counters),
        "rollout": None
        if rollout is None
        else {
            "id": rollout.plan.id,
            "artifact": rollout.plan.candidate.label,
            "policy_sha256": rollout.plan.candidate.sha256,
            "status": rollout.status,
            "stage": rollout.stage_name,
            "canaries": list(rollout.canaries),
            "reason": rollout.reason,
        },
    }
