"""`flexor fleet top`: the overview as a screen of text. Pure: an overview and the size of the terminal in, lines out."""

from typing import Any

from fleet.jobs import MIN_BATTERY

STATE = {
    "ONLINE": "online",
    "OFFLINE": "goodbye",
    "CONNECTIONBROKEN": "BROKEN",
    "LOST": "LOST",
    "NEVER": "not seen",
}
COLUMNS = ("robot", "state", "doing", "battery", "power", "runs", "group", "held", "pending", "spool", "falls", "job")


def urgency(robot: dict[str, Any]) -> int:
    """0 for what needs a person."""
    if robot["refused"] or robot["doing"] == "safe" or robot["state"] in ("CONNECTIONBROKEN", "LOST"):
        return 0
    if robot["state"] == "ONLINE" and robot["battery"] is not None and robot["battery"] < MIN_BATTERY:
        return 1
    return {"ONLINE": 2, "OFFLINE": 3}.get(robot["state"], 4)


def screen(overview: dict[str, Any], *, width: int = 0, height: int = 0) -> str:
    """Lines for a terminal.

    Args:
        overview: What `fleet.web.watch.Watch` gives.
        width, height: Of the terminal; 0 for no limit.
    """
    head = _head(overview)
    tail = [*_rollout(overview["rollout"]), _jobs(overview["jobs"]), *_refusals(overview["robots"])]
    robots = sorted(overview["robots"], key=lambda r: (urgency(r), r["name"]))
    room = len(robots) if not height else max(3, height - len(head) - len(tail) - 3)
    rows = [COLUMNS, *(_row(robot) for robot in robots[:room])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    body = ["  ".join(cell.ljust(size) for cell, size in zip(row, widths)).rstrip() for row in rows]
    if room < len(robots):
        body.append(f"... and {len(robots) - room} more")
    lines = [*head, *body, *tail]
    return "\n".join(line[:width] if width else line for line in lines)


def _head(o: dict[str, Any]) -> list[str]:
    states, rates = o["states"], o["rates"]
    lost = sum(robot["lost"] for robot in o["robots"])
    return [
        f"hub {o['hub']}, up {span(o['up_s'])}: {states['ONLINE']} of {len(o['robots'])} robots online, {o['energy']['power_w']:.0f} W",
        f"{rates['bytes_s'] / 1e6:.2f} MB/s, {rates['records_s']:.0f} records/s in; {o['pending']} not held yet, {lost} lost; "
        f"{o['streams']['steps']['items']} steps held, {100 * o['disk_free']:.0f} % of the disk free",
        *(
            f"hub {p['hub']}: {STATE[p['state']]}, {p['only_there']} records only there, {p['only_here']} only here"
            for p in o["hubs"]
        ),
    ]


def _row(robot: dict[str, Any]) -> tuple[str, ...]:
    online = robot["state"] == "ONLINE"
    return (
        robot["name"],
        STATE[robot["state"]] + ("" if robot["allowed"] else " (revoked)"),
        robot["doing"] if online else "",
        "" if robot["battery"] is None else f"{100 * robot['battery']:.0f} %",
        f"{robot['power_w']:.1f} W" if online else "",
        robot["artifact"] or "-",
        robot["group"],
        str(robot["steps"]),
        str(robot["pending"]),
        f"{robot['spool_bytes'] / 1e6:.1f} MB",
        str(robot["falls"]),
        robot["job"],
    )


def _rollout(rollout: dict[str, Any] | None) -> list[str]:
    if rollout is None:
        return []
    groups = ", ".join(
        f"{name} {g['episodes']} episodes {g['falls']} falls" for name, g in sorted(rollout["groups"].items())
    )
    worse = ", ".join(f"{name} {p:.2f}" for name, p in rollout["worse"].items())
    return [
        f"rollout {rollout['id']}: {rollout['status']}, stage {rollout['stage']}, on {', '.join(rollout['canaries'][:8]) or 'nobody'}",
        f"  {groups}; P(worse): {worse}; {rollout['reason']}",
    ]


def _jobs(jobs: dict[str, Any]) -> str:
    each = "-" if jobs["wh_per_task"] is None else f"{jobs['wh_per_task']:.4f}"
    rate = "-" if jobs["tasks_per_hour"] is None else f"{jobs['tasks_per_hour']:.1f}"
    return (
        f"jobs: {jobs['backlog']} wait, {jobs['given']} under way, {jobs['done']} done; {rate} an hour, {each} Wh each"
    )


def _refusals(robots: list[dict[str, Any]]) -> list[str]:
    return [f"{robot['name']}: {robot['refused']}" for robot in robots if robot["refused"]]


def span(seconds: float) -> str:
    """A time for people."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
