"""`flexor fleet job ...`: thin functions whose signatures are the command line. Heavy imports are inside."""

from pathlib import Path

HUB = "127.0.0.1:5570"


def add(
    task: str,
    skill: str,
    hub: str = HUB,
    keys: Path = Path("keys"),
    place: str = "",
    within_min: float = 0.0,
    budget_j: float = 0.0,
    repeats: int = 1,
    tries: int = 3,
    json: Path | None = None,
) -> None:
    """Give the fleet something to do. A robot that runs the skill and has the charge for it takes the job; it is done once.

    Example:
        flexor fleet job add "reach the lid" hand_reach --place "bench 2" --budget-j 200 --keys keys

    Args:
        task: What, for people.
        skill: Name of the artifact that does it.
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        place: Where, for people.
        within_min: Minutes after which nobody needs to begin any more; 0 for no end.
        budget_j: Joules it may cost; a robot takes it when its battery holds 1.2 times that. 0 for no limit.
        repeats: Episodes that must reach their goal.
        tries: Episodes that may miss it before the job has failed.
        json: Also write the job here.
    """
    import time

    from fleet.operator import ask

    fields = {"task": task, "skill": skill, "place": place, "budget_j": budget_j, "repeats": repeats, "tries": tries}
    fields["deadline_s"] = time.time() + 60.0 * within_min if within_min else 0.0
    job = ask(hub, keys, "job_add", fields)
    print(f"job {job['id']}: {job['task']} with {job['skill']}; waiting")
    _write(json, "fleet job add", job)


def list_(hub: str = HUB, keys: Path = Path("keys"), json: Path | None = None) -> None:
    """Jobs, who has them, what they cost; tasks per hour, backlog and watt-hours per task.

    Example:
        flexor fleet job list --keys keys

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        json: Also write the list here.
    """
    from fleet.operator import ask

    body = ask(hub, keys, "job_list")
    print(table(body))
    _write(json, "fleet job list", body)


def cancel(id: str, hub: str = HUB, keys: Path = Path("keys")) -> None:
    """Call a job off. A robot that has it stops doing it at the end of its episode.

    Example:
        flexor fleet job cancel 3 --keys keys

    Args:
        id: The job's number.
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
    """
    from fleet.operator import ask

    job = ask(hub, keys, "job_cancel", {"id": id})
    print(f"job {job['id']}: {job['state']}")


def table(body: dict) -> str:
    """A list of jobs as text."""
    rows: list[tuple[str, ...]] = [("job", "state", "task", "place", "skill", "robot", "given", "J", "why")]
    for job in body["jobs"]:
        joules = f"{job['energy_j']:.1f}" if job["energy_j"] else "-"
        robot = job["robot"] if job["state"] != "waiting" else ""
        words = (job["id"], job["state"], job["task"], job["place"], job["skill"], robot)
        rows.append((*(word or "-" for word in words), str(job["given"]), joules, job["reason"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, summary(body)])


def summary(body: dict) -> str:
    """The figures of a queue in one line."""
    per_hour = "-" if body["tasks_per_hour"] is None else f"{body['tasks_per_hour']:.1f}"
    each = "-" if body["wh_per_task"] is None else f"{body['wh_per_task']:.4f}"
    return (
        f"backlog {body['backlog']}, under way {body['given']}, done {body['done']}, failed {body['failed']}; "
        f"{per_hour} tasks/hour, {each} Wh per task"
    )


def _write(path: Path | None, command: str, results: dict) -> None:
    if path is not None:
        from robot.report import write_json

        write_json(path, command=command, seed=None, results=results)
