"""The subcommands of this package: plain functions; whatever is heavy is imported inside them."""

import sys


def envs() -> None:
    """List the environments: what they are for, their sizes and rates, and the policies that ship for them.

    Example:
        flexor envs
    """
    from robot.artifacts import DEFAULT_MODELS_DIR, known_artifacts
    from robot.description import load
    from sim.tasks import TASKS

    shipped = known_artifacts(DEFAULT_MODELS_DIR)
    for env_id, task in TASKS.items():
        instance = task(load(task.default_robot))
        contract = instance.contract()
        name = "".join(
            f"_{c.lower()}" if c.isupper() else c for c in env_id.partition("/")[2].partition("-v")[0]
        ).lstrip("_")
        summary = (sys.modules[task.__module__].__doc__ or "").splitlines()[0]
        print(env_id)
        print(f"  {summary}")
        print(
            f"  observation {contract.observation_size}, action {contract.action_size}, {task.control_hz:g} Hz, "
            f"{task.max_steps / task.control_hz:g} s; robots {', '.join(task.robots)}"
        )
        print(f"  shipped policies: {', '.join(f'{name}/{v}' for v in shipped.get(name, [])) or 'none'}")
