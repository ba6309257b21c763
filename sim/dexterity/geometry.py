"""A hand and an object as arrays for the compiled geometry: bones as chains of balls, the palm as boxes. Palm frame, SI units."""

from dataclasses import dataclass

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import Geom, RobotModel
from robot.description.rotation import rpy_matrix
from robot.errors import FlexorError
from sim.bodies import Body
from sim.dexterity.geometry_kernel import BOX, CAPSULE, CYLINDER, SPHERE, link_poses

PARTS: tuple[str, ...] = ("thumb", "index", "middle", "ring", "little", "palm")
BALL_STEP = 1.3  # radii between the balls of a bone: the scallop between two is a quarter of a radius at most
KINDS = {"sphere": SPHERE, "capsule": CAPSULE, "cylinder": CYLINDER, "box": BOX}


class GeometryError(FlexorError, ValueError):
    """A shape the search cannot see."""


@dataclass(frozen=True, kw_only=True)
class HandGeometry:
    """What of a hand can touch things. Links are numbered from the palm, which is 0.

    Attributes:
        links: Their names.
        joints: Rows in the model's joint order of the joints beyond the wrist.
        tree, at, turns, joint: As `geometry_kernel.link_poses` takes them.
        ball_link, ball_m, ball_radius_m, ball_bone: Balls along the bones, (s,), (s, 3), (s,), (s,).
        ball_part, ball_level: Row in `PARTS`; 0 at the knuckle, 1, 2 at the tip, (s,).
        ball_pad, ball_side: Directions that the pad and the thumb's side of the bone face, in the link, (s, 3).
        bone_ends: First and last ball of every bone, (b, 2).
        bone_pairs: Bones that can touch, (k, 2).
        box_link, box_turn, box_m, box_size_m: Boxes of palm and metacarpals.
        lower_rad, upper_rad, home_rad: Of `joints`.
    """

    links: tuple[str, ...]
    joints: np.ndarray
    tree: np.ndarray
    at: np.ndarray
    turns: np.ndarray
    joint: np.ndarray
    ball_link: np.ndarray
    ball_m: np.ndarray
    ball_radius_m: np.ndarray
    ball_bone: np.ndarray
    ball_part: np.ndarray
    ball_level: np.ndarray
    ball_pad: np.ndarray
    ball_side: np.ndarray
    bone_ends: np.ndarray
    bone_pairs: np.ndarray
    box_link: np.ndarray
    box_turn: np.ndarray
    box_m: np.ndarray
    box_size_m: np.ndarray
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    home_rad: np.ndarray

    def poses(self, q_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotations and origins of the links in the palm, for angles of `joints`."""
        return link_poses(q_rad, self.tree, self.at, self.turns, self.joint, len(self.links))


def hand_geometry(model: RobotModel) -> HandGeometry:
    """The arrays of a hand."""
    inside, links = [], ["palm"]
    for joint in model.joints:
        if joint.parent in links:
            inside.append(joint)
            links.append(joint.child)
    rows = np.array([model.index(j.name) for j in inside], dtype=np.int64)
    fixed = np.array([rpy_matrix(j.rpy_rad) for j in inside])
    x, y, z = np.array([j.axis for j in inside]).T
    o = np.zeros_like(x)
    cross = np.array([[o, -z, y], [z, o, -x], [-y, x, o]]).transpose(2, 0, 1)
    balls: dict[str, list] = {key: [] for key in ("link", "at", "radius", "bone", "part", "level", "pad", "side")}
    bone_link, ends, boxes, level = [], [], [], dict.fromkeys(PARTS, 0)
    for row, name in enumerate(links):
        for geom in model.link(name).geoms:
            if not geom.collides:
                continue
            turn = rpy_matrix(geom.rpy_rad)
            if geom.shape == "box":
                boxes.append((row, turn, geom.origin_m, geom.size_m))
                continue
            part = name.partition("_")[0]
            pad = -turn[:, 0] if part == "thumb" else turn[:, 2]
            side = turn[:, 2] if part == "thumb" else turn[:, 0]
            radius, length = geom.size_m
            count = max(2, int(np.ceil(length / (BALL_STEP * radius))) + 1)
            first = len(balls["link"])
            for along in np.linspace(-length / 2.0, length / 2.0, count):
                place = np.array(geom.origin_m) + turn[:, 1] * along
                values = (row, place, radius, len(bone_link), PARTS.index(part), level[part], pad, side)
                for key, value in zip(balls, values):
                    balls[key].append(value)
            ends.append((first, first + count - 1))
            bone_link.append(name)
            level[part] += 1
    touching = {frozenset(pair) for pair in colliding_pairs(model)}
    pairs = [
        (i, j) for i, a in enumerate(bone_link) for j, b in enumerate(bone_link[:i]) if frozenset((a, b)) in touching
    ]
    return HandGeometry(
        links=tuple(links),
        joints=rows,
        tree=np.array([(links.index(j.parent), links.index(j.child)) for j in inside], dtype=np.int64),
        at=np.array([j.origin_m for j in inside]),
        turns=np.ascontiguousarray(np.stack([fixed, fixed @ cross, fixed @ cross @ cross], axis=1)),
        joint=np.arange(len(inside), dtype=np.int64),
        ball_link=np.array(balls["link"], dtype=np.int64),
        ball_m=np.array(balls["at"]),
        ball_radius_m=np.array(balls["radius"]),
        ball_bone=np.array(balls["bone"], dtype=np.int64),
        ball_part=np.array(balls["part"], dtype=np.int64),
        ball_level=np.array(balls["level"], dtype=np.int64),
        ball_pad=np.array(balls["pad"]),
        ball_side=np.array(balls["side"]),
        bone_ends=np.array(ends, dtype=np.int64),
        bone_pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        box_link=np.array([b[0] for b in boxes], dtype=np.int64),
        box_turn=np.array([b[1] for b in boxes]),
        box_m=np.array([b[2] for b in boxes]),
        box_size_m=np.array([b[3] for b in boxes]),
        lower_rad=np.array(model.lower_rad)[rows],
        upper_rad=np.array(model.upper_rad)[rows],
        home_rad=np.array(model.home_rad)[rows],
    )


@dataclass(frozen=True, kw_only=True)
class Solid:
    """An object of primitives as arrays, in its own frame.

    Attributes:
        kinds, sizes_m, turns, at_m: Its primitives, (k,), (k, 3), (k, 3, 3), (k, 3).
        points_m: Points on its surface, (p, 3).
        com_m: Centre of mass, (3,).
    """

    kinds: np.ndarray
    sizes_m: np.ndarray
    turns: np.ndarray
    at_m: np.ndarray
    points_m: np.ndarray
    com_m: np.ndarray


def solid(body: Body) -> Solid:
    """The arrays of a body.

    Raises:
        GeometryError: It has pieces that are no primitives.
    """
    geoms = [shape for shape in body.shapes if isinstance(shape, Geom)]
    if len(geoms) != len(body.shapes):
        raise GeometryError(
            f"body {body.name}: the search needs primitives (sphere, capsule, cylinder, box), got hulls"
        )
    sizes = np.zeros((len(geoms), 3))
    for row, geom in zip(sizes, geoms):
        row[: len(geom.size_m)] = geom.size_m
    turns = np.array([rpy_matrix(g.rpy_rad) for g in geoms])
    at = np.array([g.origin_m for g in geoms])
    points = np.concatenate([_surface(g) @ turn.T + origin for g, turn, origin in zip(geoms, turns, at)])
    return Solid(
        kinds=np.array([KINDS[g.shape] for g in geoms], dtype=np.int64),
        sizes_m=sizes,
        turns=turns,
        at_m=at,
        points_m=points,
        com_m=body.inertial[0],
    )


def _surface(geom: Geom) -> np.ndarray:
    """Points on a primitive, dense enough for a palm."""
    if geom.shape == "box":
        steps = [np.linspace(-s / 2.0, s / 2.0, max(2, int(s / 0.016) + 1)) for s in geom.size_m]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        on = (np.abs(np.abs(grid) - np.array(geom.size_m) / 2.0) < 1e-9).any(axis=1)
        return grid[on]
    radius = geom.size_m[0]
    if geom.shape == "sphere":
        k = np.arange(160) + 0.5
        polar, around = np.arccos(1.0 - 2.0 * k / 160), np.pi * (1.0 + np.sqrt(5.0)) * k
        return radius * np.stack(
            [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1
        )
    half = geom.size_m[1] / 2.0
    heights = np.linspace(-half, half, max(2, int(2 * half / 0.016) + 1))
    around = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    ring = np.stack([radius * np.sin(around), 0.0 * around, radius * np.cos(around)], axis=1)
    wall = np.concatenate([ring + np.array([0.0, h, 0.0]) for h in heights])
    if geom.shape == "capsule":
        return np.concatenate([wall, [[0.0, half + radius, 0.0], [0.0, -half - radius, 0.0]]])
    shares = np.linspace(0.0, 1.0, max(2, int(radius / 0.016) + 1), endpoint=False)
    caps = [ring * share + np.array([0.0, h, 0.0]) for share in shares for h in (-half, half)]
    return np.concatenate([wall, *caps])
