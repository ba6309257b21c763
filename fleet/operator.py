"""The operator's side: one question to a hub on this machine, one answer."""

import time
from pathlib import Path
from typing import Any

import zmq

from fleet.answers import read_answer
from fleet.errors import AdminError, HubAwayError, WireError
from fleet.keys import load_hub_public, load_pair
from fleet.messages import Ask
from fleet.sockets import ADMIN_OFFSET, dial, parse_hub
from fleet.wire import decode, encode

CONNECT_S = 5.0


def ask(
    hub: str, keys: Path, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = 5.0
) -> dict[str, Any]:
    """Ask a hub.

    Args:
        hub: HOST:PORT of its control port, or NAME@HOST:PORT where hubs have names; the admin port is two above.
        keys: Key folder with admin.key_secret and hub.key.
        command: "status", "overview", "deploy", "hold", "rollback", "job_add"...; the hub lists them when it does not know one.

    Raises:
        HubAwayError: Nobody answered, or the key is not the operator's.
        AdminError: The hub refused; the message is the hub's.
    """
    address = parse_hub(hub)
    host, port = address.host, address.port
    pair, public = load_pair(keys / "admin.key_secret"), load_hub_public(keys, address.name)
    context = zmq.Context()
    socket = dial(context, pair, public, f"tcp://{host}:{port + ADMIN_OFFSET}")
    try:
        until_s = time.monotonic() + timeout_s
        away = HubAwayError(
            f"no hub answered at {hub} (operator port {port + ADMIN_OFFSET}) in time; is it running, and is {keys} its key folder?"
        )
        if not socket.poll(int(min(timeout_s, CONNECT_S) * 1000), zmq.POLLOUT):
            raise away
        socket.send_multipart(encode(Ask(command=command, arguments=arguments or {})))
        if not socket.poll(max(0, int((until_s - time.monotonic()) * 1000)) or 1):
            raise away
        try:
            answer = read_answer(decode(socket.recv_multipart()))
        except WireError as error:
            raise AdminError(f"the hub's answer could not be read: {error}") from error
        if not answer.ok:
            raise AdminError(answer.error)
        return answer.body
    finally:
        socket.close(0)
        context.destroy(0)


def table(body: dict[str, Any]) -> str:
    """A status as text."""
    rows: list[tuple[str, ...]] = [
        ("robot", "state", "runs", "recorded", "held", "pending", "lost", "doubled", "spool", "digest")
    ]
    for robot in body["robots"]:
        rows.append(
            (
                robot["name"],
                robot["state"] + ("" if robot["allowed"] else " (revoked)"),
                robot["artifact"] or "-",
                *(str(robot[f]) for f in ("recorded", "held", "pending", "lost", "doubled")),
                f"{robot['spool_bytes'] / 1e6:.1f} MB",
                "equal" if robot["audit_ok"] else "DIFFERENT",
            )
        )
    rows.append(
        ("together", "", "", *(str(body[f]) for f in ("recorded", "held", "pending", "lost", "doubled")), "", "")
    )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    counted = "counted record by record in the log" if body["counted"] else "by the hub's cursors"
    lines.append(
        f"records, {counted}; steps: {body['recorded_steps']} recorded, {body['held_steps']} held, {body['lost_steps']} lost"
    )
    rollout = body["rollout"]
    if rollout:
        lines.append(
            f"rollout {rollout['id']}: {rollout['status']}, stage {rollout['stage']}, on {', '.join(rollout['canaries']) or 'nobody'}; {rollout['reason']}"
        )
    for hub in body.get("hubs", ()):
        lines.append(
            f"hub {hub['hub']}: {hub['state']}; {hub['only_there']} records only there, {hub['only_here']} only here"
        )
    if body.get("term"):
        lines.append(f"term {body['term']}: this hub {'directs' if body['directs'] else 'does not direct'}")
    refused = [f"{r['name']}: {r['refused']}" for r in body["robots"] if r["refused"]]
    return "\n".join([*lines, *refused])
