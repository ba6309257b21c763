"""Worlds for the robot. `import sim` registers the environments with Gymnasium; engines load when one is made."""

import gymnasium

from sim.tasks import TASKS
from sim.vec import make_vec

for _env_id in TASKS:
    gymnasium.register(
        id=_env_id,
        entry_point="sim.env:RobotEnv",
        kwargs={"env_id": _env_id},
        order_enforce=True,
        disable_env_checker=True,  # the contract test runs it; users should not pay for it at every make
    )

__all__ = ["TASKS", "make_vec"]
