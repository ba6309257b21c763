"""How HandTrace's tool lies in the hand once it is held: a grasp of the benchmark, closed and held for five seconds in PyBullet.

`python -c "from sim.tasks.trace_start import write_start; write_start('hand22')"` makes the file again; do so when the hand's description has changed.
"""

from pathlib import Path

import msgspec
import numpy as np

from robot.description.model import RobotModel
from sim.bodies import Body
from sim.dexterity.grasp import load_grasps

GRASP_TYPE = (
    2  # small diameter: a tool with a thick handle in the whole fist; the thinner ones turn in the hand in PyBullet
)
FOLDER = Path(__file__).parent / "data"


class TraceStart(msgspec.Struct, frozen=True, kw_only=True):
    """A held tool.

    Attributes:
        robot_sha256: Hash of the hand it was made with.
        joint_names: Order of the angles.
        q_rad, target_rad: Joint angles and the targets that squeeze.
        pose: Of the thing's frame in the base frame, x y z, qx qy qz qw.
    """

    robot_sha256: str
    joint_names: tuple[str, ...]
    q_rad: tuple[float, ...]
    target_rad: tuple[float, ...]
    pose: tuple[float, ...]


def load_start(hand: str) -> TraceStart:
    """The shipped start of a hand."""
    return msgspec.json.decode((FOLDER / f"trace_{hand}.json").read_bytes(), type=TraceStart)


def thing(hand: str) -> Body:
    """What the grasp holds."""
    from sim.objects import find

    grasp = load_grasps(hand).find(GRASP_TYPE)
    assert grasp is not None, "the benchmark's grasps hold every type"
    return find(grasp.thing).body


def make_start(model: RobotModel) -> TraceStart:
    """Hold the thing and see where everything comes to rest."""
    from sim.dexterity.taxonomy import find as kind
    from sim.dexterity.trial import Trial

    grasp = load_grasps(model.name).find(GRASP_TYPE)
    assert grasp is not None
    trial = Trial(model, thing(model.name), "pybullet")
    outcome = trial.run(grasp, kind(GRASP_TYPE), margin=False)
    trial.close()
    return TraceStart(
        robot_sha256=model.sha256,
        joint_names=model.joint_names,
        q_rad=tuple(np.round(outcome.q_rad, 5).tolist()),
        target_rad=grasp.target_rad,
        pose=tuple(np.round(outcome.pose, 6).tolist()),
    )


def write_start(hand: str) -> None:
    """Make the file of a hand again."""
    from robot.description import load

    FOLDER.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(make_start(load(hand))))
    (FOLDER / f"trace_{hand}.json").write_bytes(text + b"\n")
