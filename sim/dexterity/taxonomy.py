"""The GRASP taxonomy of Feix et al. (2016) as data: 33 types with what must touch, and the object each is tried on.

Opposition, class and thumb as in the paper (IEEE Trans. Human-Machine Systems 46(1)); virtual finger 2 as in the paper where the
public annotation tool differs from it. Objects are this project's choice, of YCB sizes and masses: `sim/objects`.
"""

from dataclasses import dataclass
from typing import Literal

from robot.errors import UnknownNameError

Surface = Literal["pad", "side", "any"]
FINGERS = ("index", "middle", "ring", "little")


@dataclass(frozen=True, kw_only=True)
class Touch:
    """One part of the hand that must touch the object.

    Attributes:
        part: "thumb", a finger, or "palm".
        surface: "pad" is the palmar side of the two outer bones, "side" the side of any bone, "any" whatever is not the back.
    """

    part: str
    surface: Surface


@dataclass(frozen=True, kw_only=True)
class GraspType:
    """One row of the taxonomy.

    Attributes:
        number, name: As in the paper.
        opposition: What the forces go between: finger pads and thumb pad, fingers and palm, or the side of a finger.
        kind: Power, intermediate or precision.
        vf2: Virtual finger 2: the fingers that press together against virtual finger 1.
        thumb: "abducted" in front of the palm, "adducted" beside it.
        touches: What must touch the object.
        thing: The object it is tried on, a key of `sim.objects.CATALOGUE`.
    """

    number: int
    name: str
    opposition: Literal["pad", "palm", "side"]
    kind: Literal["power", "intermediate", "precision"]
    vf2: tuple[str, ...]
    thumb: Literal["abducted", "adducted"]
    touches: tuple[Touch, ...]
    thing: str


def _row(
    number: int, name: str, opposition, kind, vf2: str, thumb: str, thing: str, touches: str | None = None
) -> GraspType:
    """A row from its short form: vf2 "2-5" counts the index as 2; touches like "thumb:pad index:side", by rule when None."""
    first, last = int(vf2[0]), int(vf2[-1])
    fingers = FINGERS[first - 2 : last - 1]
    if touches is None:
        surface = {"pad": "pad", "palm": "any"}[opposition]
        touches = " ".join(f"{finger}:{surface}" for finger in fingers)
        touches += " palm:any" if opposition == "palm" else ""
        touches += " thumb:pad" if opposition == "pad" else " thumb:any" if thumb == "abd" else ""
    pairs = [word.split(":") for word in touches.split()]
    return GraspType(
        number=number,
        name=name,
        opposition=opposition,
        kind=kind,
        vf2=fingers,
        thumb="abducted" if thumb == "abd" else "adducted",
        touches=tuple(Touch(part=part, surface=surface) for part, surface in pairs),  # pyright: ignore[reportArgumentType]
        thing=thing,
    )


TYPES: tuple[GraspType, ...] = (
    _row(1, "Large diameter", "palm", "power", "2-5", "abd", "coffee_can"),
    _row(2, "Small diameter", "palm", "power", "2-5", "abd", "hammer_handle"),
    _row(3, "Medium wrap", "palm", "power", "2-5", "abd", "soup_can"),
    _row(
        4,
        "Adducted thumb",
        "palm",
        "power",
        "2-5",
        "add",
        "screwdriver",
        "index:any middle:any ring:any little:any palm:any thumb:any",
    ),
    _row(
        5,
        "Light tool",
        "palm",
        "power",
        "2-5",
        "add",
        "brush",
        "index:any middle:any ring:any little:any palm:any",
    ),
    _row(6, "Prismatic 4 finger", "pad", "precision", "2-5", "abd", "rod_150"),
    _row(7, "Prismatic 3 finger", "pad", "precision", "2-4", "abd", "rod_120"),
    _row(8, "Prismatic 2 finger", "pad", "precision", "2-3", "abd", "rod_100"),
    _row(9, "Palmar pinch", "pad", "precision", "2-2", "abd", "small_box"),
    _row(10, "Power disk", "palm", "power", "2-5", "abd", "jar_lid"),
    _row(11, "Power sphere", "palm", "power", "2-5", "abd", "baseball"),
    _row(12, "Precision disk", "pad", "precision", "2-5", "abd", "disk"),
    _row(13, "Precision sphere", "pad", "precision", "2-5", "abd", "tennis_ball"),
    _row(14, "Tripod", "pad", "precision", "2-3", "abd", "golf_ball"),
    _row(15, "Fixed hook", "palm", "power", "2-5", "add", "loaded_bar", "index:any middle:any ring:any little:any"),
    _row(16, "Lateral", "side", "intermediate", "2-2", "add", "card", "thumb:pad index:side"),
    _row(
        17,
        "Index finger extension",
        "palm",
        "power",
        "3-5",
        "add",
        "knife",
        "index:pad middle:any ring:any little:any palm:any thumb:any",
    ),
    _row(18, "Extension type", "pad", "power", "2-5", "abd", "book"),
    _row(19, "Distal type", "pad", "power", "2-5", "abd", "scissors", "index:any middle:any thumb:any"),
    _row(20, "Writing tripod", "side", "precision", "2-2", "abd", "pen", "thumb:pad index:pad middle:side"),
    _row(
        21,
        "Tripod variation",
        "side",
        "intermediate",
        "3-4",
        "abd",
        "chopstick",
        "thumb:any middle:any ring:side",
    ),
    _row(22, "Parallel extension", "pad", "precision", "2-5", "add", "flat_box"),
    _row(23, "Adduction grip", "side", "intermediate", "2-3", "abd", "cigarette", "index:side middle:side"),
    _row(24, "Tip pinch", "pad", "precision", "2-2", "abd", "pin"),
    _row(
        25,
        "Lateral tripod",
        "side",
        "intermediate",
        "3-3",
        "add",
        "rod_120_thick",
        "thumb:pad index:pad middle:side",
    ),
    _row(26, "Sphere 4 finger", "pad", "power", "2-4", "abd", "sphere_65"),
    _row(27, "Quadpod", "pad", "precision", "2-4", "abd", "sphere_50"),
    _row(28, "Sphere 3 finger", "pad", "power", "2-3", "abd", "sphere_60"),
    _row(29, "Stick", "side", "intermediate", "2-2", "add", "stick", "thumb:pad index:side"),
    _row(30, "Palmar", "palm", "power", "2-5", "add", "tray_box", "index:any middle:any ring:any little:any palm:any"),
    _row(31, "Ring", "pad", "power", "2-2", "abd", "bottle"),
    _row(32, "Ventral", "side", "intermediate", "2-2", "add", "thin_rod", "thumb:pad index:side"),
    _row(33, "Inferior pincer", "pad", "precision", "2-2", "abd", "sphere_40"),
)


def find(number: int) -> GraspType:
    """The type of a number.

    Raises:
        UnknownNameError: The numbers go from 1 to 33.
    """
    for kind in TYPES:
        if kind.number == number:
            return kind
    raise UnknownNameError("grasp type", str(number), [str(kind.number) for kind in TYPES])
