"""Things to take in hand: YCB objects and everyday ones as primitives of published sizes and masses. SI units.

The frame of each stands at its middle, the long axis along y. Inertias are computed from the shapes (`Body.inertial`); the files the
field passes round have 1e-3 kg m2 for all of them, which is a hundred times too much for a ball.
Sizes and masses marked YCB: Calli et al. 2015, "Benchmarking in manipulation research", nominal, or as measured on its meshes.
"""

from dataclasses import dataclass
from math import cos, pi, sin

from robot.description.parts import Geom, Vec3
from robot.errors import UnknownNameError
from sim.bodies import Body

HALF_TURN: Vec3 = (pi / 2.0, 0.0, 0.0)  # an axis along y comes to lie along z


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object of the catalogue.

    Attributes:
        body: What the engines simulate.
        about: What it is, for people.
        source: Where size and mass come from.
    """

    body: Body
    about: str
    source: str


def sphere(diameter_mm: float) -> tuple[Geom, ...]:
    return (Geom(shape="sphere", size_m=(diameter_mm / 2e3,)),)


def cylinder(diameter_mm: float, length_mm: float) -> tuple[Geom, ...]:
    return (Geom(shape="cylinder", size_m=(diameter_mm / 2e3, length_mm / 1e3)),)


def rod(diameter_mm: float, length_mm: float) -> tuple[Geom, ...]:
    """A thin one with round ends; the length is over all."""
    return (Geom(shape="capsule", size_m=(diameter_mm / 2e3, (length_mm - diameter_mm) / 1e3)),)


def box(x_mm: float, y_mm: float, z_mm: float) -> tuple[Geom, ...]:
    return (Geom(shape="box", size_m=(x_mm / 1e3, y_mm / 1e3, z_mm / 1e3)),)


def _bow(centre: tuple[float, float], half: tuple[float, float], thick_m: float, pieces: int) -> list[Geom]:
    """An oval ring of rods in the xy plane."""
    corners = [
        (centre[0] + half[0] * cos(2 * pi * k / pieces), centre[1] + half[1] * sin(2 * pi * k / pieces))
        for k in range(pieces)
    ]
    return [_bar(a, b, thick_m) for a, b in zip(corners, corners[1:] + corners[:1])]


def _bar(a: tuple[float, float], b: tuple[float, float], thick_m: float) -> Geom:
    from math import atan2, hypot

    dx, dy = b[0] - a[0], b[1] - a[1]
    return Geom(
        shape="capsule",
        size_m=(thick_m / 2.0, hypot(dx, dy)),
        origin_m=((a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0, 0.0),
        rpy_rad=(0.0, 0.0, atan2(-dx, dy)),
    )


def _scissors() -> tuple[Geom, ...]:
    """Closed scissors: blades along y, the thumb's bow at +x, the fingers' longer one at -x."""
    bows = _bow((0.019, -0.045), (0.017, 0.022), 0.006, 8) + _bow((-0.019, -0.050), (0.017, 0.030), 0.006, 8)
    blades = Geom(shape="box", size_m=(0.018, 0.115, 0.005), origin_m=(0.0, 0.040, 0.0))
    return (blades, *bows)


def _row(name: str, shapes: tuple[Geom, ...], mass_g: float, about: str, source: str, friction: float = 0.8) -> Thing:
    return Thing(
        body=Body(name=name, shapes=shapes, mass_kg=mass_g / 1e3, friction=friction), about=about, source=source
    )


YCB = "YCB: Calli et al. 2015"
CHOSEN = "chosen for the taxonomy's type, of everyday size and mass"
_THINGS = (
    # what the 33 types are tried on
    _row("coffee_can", cylinder(102, 140), 414, "coffee can", YCB),
    _row("hammer_handle", cylinder(25, 150), 100, "handle of a hammer", CHOSEN),
    _row("soup_can", cylinder(66, 101), 349, "tomato soup can", YCB),
    _row("screwdriver", cylinder(31, 215), 97, "Phillips screwdriver, as thick as its handle", YCB),
    _row("brush", rod(15, 180), 30, "brush or light knife", CHOSEN),
    _row("rod_150", rod(10, 150), 15, "rod", CHOSEN),
    _row("rod_120", rod(10, 120), 12, "rod", CHOSEN),
    _row("rod_100", rod(10, 100), 10, "rod", CHOSEN),
    _row("small_box", box(10, 60, 30), 15, "small flat box", CHOSEN),
    _row("jar_lid", cylinder(90, 20), 120, "lid of a jar", CHOSEN),
    _row("baseball", sphere(75), 148, "baseball", YCB),
    _row("disk", cylinder(80, 15), 60, "disk", CHOSEN),
    _row("tennis_ball", sphere(65), 58, "tennis ball", YCB),
    _row("golf_ball", sphere(42.7), 46, "golf ball", YCB),
    _row("loaded_bar", rod(25, 110), 1000, "handle of a full bag: a bar with one kilogram", CHOSEN),
    _row("card", box(54, 85, 1), 5.2, "credit card", YCB),
    _row("knife", box(14, 215, 20), 31, "table knife, as thick as its handle", YCB),
    _row("book", box(150, 150, 20), 250, "book", CHOSEN),
    _row("scissors", _scissors(), 82, "scissors, closed", "mass YCB; bows of office scissors"),
    _row("pen", rod(10, 140), 10, "pen", CHOSEN),
    _row("chopstick", rod(7, 200), 8, "chopstick", CHOSEN),
    _row("flat_box", box(100, 150, 20), 150, "flat box", CHOSEN),
    _row("cigarette", rod(8, 80), 3, "cigarette", CHOSEN),
    _row("pin", rod(5, 30), 1, "thick pin", CHOSEN),
    _row("bead", sphere(8), 1, "bead", CHOSEN),
    _row("rod_120_thick", rod(12, 120), 15, "rod", CHOSEN),
    _row("sphere_65", sphere(65), 60, "ball", CHOSEN),
    _row("sphere_50", sphere(50), 50, "ball", CHOSEN),
    _row("sphere_60", sphere(60), 60, "ball", CHOSEN),
    _row("stick", rod(15, 150), 20, "stick", CHOSEN),
    _row("tray_box", box(85, 120, 20), 150, "flat box", CHOSEN),
    _row("bottle", cylinder(55, 100), 120, "small bottle", CHOSEN),
    _row("thin_rod", rod(12, 160), 15, "rod", CHOSEN),
    _row("sphere_40", sphere(40), 20, "ball", CHOSEN),
    # more of YCB
    _row("cracker_box", box(72, 164, 214), 411, "cracker box", YCB, 0.5),
    _row("sugar_box", box(38, 175, 89), 514, "sugar box", YCB, 0.5),
    _row("gelatin_box", box(72, 89, 28), 97, "gelatin box; its smallest edge by hand", YCB, 0.3),
    _row("pudding_box", box(35, 110, 89), 187, "pudding box", YCB, 0.5),
    _row("tuna_can", cylinder(85, 33), 171, "tuna can", YCB, 0.5),
    _row("potted_meat_can", box(51, 90, 85), 370, "potted meat can", YCB, 0.6),
    _row("mustard_bottle", box(58, 192, 96), 603, "mustard bottle", YCB, 0.8),
    _row("foam_brick", box(54, 75, 91), 28, "foam brick", YCB, 0.5),
    _row("wood_block", box(85, 200, 85), 729, "wood block", YCB),
    _row("rubiks_cube", box(57, 57, 57), 252, "Rubik's cube", YCB),
    _row("coloured_block", box(26, 26, 26), 10.8, "coloured wood block", YCB),
    _row("dice", box(16, 16, 16), 5.2, "die", YCB),
    _row("softball", sphere(96), 191, "softball", YCB),
    _row("racquetball", sphere(55), 41, "racquetball", YCB),
    _row("apple", sphere(75), 68, "apple (plastic)", YCB),
    _row("orange", sphere(73), 47, "orange (plastic)", YCB),
    _row("peach", sphere(59), 33, "peach (plastic)", YCB),
    _row("plum", sphere(52), 25, "plum (plastic)", YCB),
    _row("lemon", (Geom(shape="capsule", size_m=(0.027, 0.014)),), 29, "lemon (plastic)", YCB),
    _row("marker", cylinder(18, 121), 15.8, "marker pen", YCB),
)

CATALOGUE: dict[str, Thing] = {thing.body.name: thing for thing in _THINGS}


def find(name: str) -> Thing:
    """An object by name.

    Raises:
        UnknownNameError: No such object; the message lists the known ones.
    """
    if name not in CATALOGUE:
        raise UnknownNameError("object", name, CATALOGUE)
    return CATALOGUE[name]
