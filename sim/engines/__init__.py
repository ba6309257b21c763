"""Physics engines behind one `Backend`. Each loads its engine only when it is made."""

from typing import TYPE_CHECKING, Any

from robot.description.model import RobotModel
from robot.errors import UnknownNameError

if TYPE_CHECKING:
    from sim.engines.robot import SimulatedRobot

ENGINES = ("pybullet", "mujoco")


def make(engine: str, model: RobotModel, **settings: Any) -> "SimulatedRobot":
    """A simulated robot; `settings` as for `SimulatedRobot`.

    Raises:
        UnknownNameError: No engine of that name; the message lists the known ones.
    """
    if engine == "pybullet":
        from sim.engines.pybullet_engine import PyBulletRobot

        return PyBulletRobot(model, **settings)
    if engine == "mujoco":
        from sim.engines.mujoco_engine import MuJoCoRobot

        return MuJoCoRobot(model, **settings)
    raise UnknownNameError("engine", engine, ENGINES)
