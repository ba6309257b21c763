"""A found grasp as data: where the hand is, where the object is, and what the joints are asked for. Files are JSON."""

from pathlib import Path

import msgspec
import numpy as np

from robot.errors import FlexorError

DATA = Path(__file__).parent / "data"


class GraspFileError(FlexorError, ValueError):
    """A file that is no grasp file; the message says what is wrong with it."""


class Grasp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One grasp of one hand.

    Attributes:
        number: Of the grasp type.
        thing: Name of the object in the catalogue.
        q_rad: Joint angles that touch the object, in the model's joint order.
        target_rad: Joint targets that squeeze it.
        position_m, quat_xyzw: Pose of the object's frame in the palm frame.
        held: It counted in both engines when it was found; else it is the nearest miss.
    """

    number: int
    thing: str
    q_rad: tuple[float, ...]
    target_rad: tuple[float, ...]
    position_m: tuple[float, float, float]
    quat_xyzw: tuple[float, float, float, float]
    held: bool = False


class GraspFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All grasps of one hand.

    Attributes:
        hand: Name of the description.
        robot_sha256: Its hash when they were found; another hand may still hold them, and the score says so.
        joint_names: Order of all angles.
        generator: The command that found them.
        grasps: By number.
    """

    hand: str
    robot_sha256: str
    joint_names: tuple[str, ...]
    generator: str
    grasps: tuple[Grasp, ...] = ()

    def find(self, number: int) -> Grasp | None:
        return next((grasp for grasp in self.grasps if grasp.number == number), None)


def load_grasps(hand: str, folder: Path = DATA) -> GraspFile:
    """The shipped grasps of a hand.

    Raises:
        GraspFileError: No such file, or not a grasp file.
    """
    path = folder / f"{hand}_grasps.json"
    try:
        file = msgspec.json.decode(path.read_bytes(), type=GraspFile)
    except OSError as error:
        raise GraspFileError(
            f"{path.name}: no grasps for {hand} ({error.strerror}); find some with sim.dexterity.search"
        ) from error
    except msgspec.MsgspecError as error:
        raise GraspFileError(f"{path.name}: not a grasp file: {error}") from error
    for grasp in file.grasps:
        numbers = (*grasp.q_rad, *grasp.target_rad, *grasp.position_m, *grasp.quat_xyzw)
        if len(grasp.q_rad) != len(file.joint_names) or len(grasp.target_rad) != len(file.joint_names):
            raise GraspFileError(f"{path.name}: grasp {grasp.number} needs {len(file.joint_names)} joint angles")
        if not np.isfinite(numbers).all():
            raise GraspFileError(f"{path.name}: grasp {grasp.number} holds a number that is not finite")
    return file


def save_grasps(file: GraspFile, folder: Path = DATA) -> Path:
    """Write a grasp file whole, under another name first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file.hand}_grasps.json"
    draft = path.with_suffix(".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=0) + b"\n")
    draft.replace(path)
    return path
