"""Physics engines behind one `Backend`. Each loads its engine only when it is made."""

from typing import TYPE_CHECKING, Any

from robot.description.model import RobotModel
from robot.errors import UnknownNameError

if TYPE_CHECKING:
    from sim.engines.hand import SimulatedHand

ENGINES = ("pybullet", "mujoco")


def make(engine: str, model: RobotModel, **settings: Any) -> "SimulatedHand":
    """A simulated robot.

    Raises:
        UnknownNameError: No engine of that name; the message lists the known ones.
    """
    if engine == "pybullet":
        from sim.engines.pybullet_engine import PyBulletHand

        return PyBulletHand(model, **settings)
    if engine == "mujoco":
        from sim.engines.mujoco_engine import MuJoCoHand

        return MuJoCoHand(model, **settings)
    raise UnknownNameError("engine", engine, ENGINES)
