"""The tasks: reset, reward, termination. The whole menu is this table; a new task is one file and one row."""

from robot.errors import UnknownNameError
from sim.tasks.body_carry import BodyCarry
from sim.tasks.body_push import BodyPush
from sim.tasks.body_stand import BodyStand
from sim.tasks.body_walk import BodyWalk
from sim.tasks.hand_grasp import HandGrasp
from sim.tasks.hand_insert import HandInsert
from sim.tasks.hand_oppose import HandOppose
from sim.tasks.hand_reach import HandReach
from sim.tasks.hand_reorient_cube import HandReorientCube
from sim.tasks.hand_rotate_cube import HandRotateCube
from sim.tasks.hand_trace import HandTrace
from sim.tasks.task import Judgement, Task

TASKS: dict[str, type[Task]] = {
    "flexor/BodyCarry-v0": BodyCarry,
    "flexor/BodyPush-v0": BodyPush,
    "flexor/BodyStand-v0": BodyStand,
    "flexor/BodyWalk-v0": BodyWalk,
    "flexor/HandGrasp-v0": HandGrasp,
    "flexor/HandInsert-v0": HandInsert,
    "flexor/HandOppose-v0": HandOppose,
    "flexor/HandReach-v0": HandReach,
    "flexor/HandReorientCube-v0": HandReorientCube,
    "flexor/HandRotateCube-v0": HandRotateCube,
    "flexor/HandTrace-v0": HandTrace,
}


def find(env_id: str) -> type[Task]:
    """The task of an environment id.

    Raises:
        UnknownNameError: No such id; the message lists the known ones.
    """
    if env_id not in TASKS:
        raise UnknownNameError("environment", env_id, TASKS)
    return TASKS[env_id]


__all__ = ["TASKS", "Judgement", "Task", "find"]
