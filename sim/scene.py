"""What a picture of a robot is made of: link poses, meshes of its primitives, the way of its tendons, the ground. Plain geometry, SI units."""

import numpy as np

from robot.description.actuators import Tendon
from robot.description.model import RobotModel
from robot.description.parts import Geom, Joint
from robot.kinematics import rpy_matrix
from sim.bodies import Body, Hull
from sim.world import quat_matrix

SEGMENTS = 20  # around a capsule
NEAR_M = 1e-3
TILE_M, TILES = 0.5, 12  # of the drawn floor
MOTOR_SPREAD_M = 0.028  # the motors stand beside each other in the forearm


class LinkPoses:
    """Forward kinematics of every link of a robot in the world frame."""

    def __init__(self, model: RobotModel) -> None:
        self.names = tuple(link.name for link in model.links)
        self._base = self.names.index(model.base_link)
        self._base_rotation = rpy_matrix(model.base_rpy_rad)
        self._base_origin = np.array([0.0, 0.0, model.base_height_m])
        self._joints = [
            (
                self.names.index(j.parent),
                self.names.index(j.child),
                np.array(j.origin_m),
                rpy_matrix(j.rpy_rad),
                _cross(j),
            )
            for j in model.joints
        ]

    def at(self, q_rad: np.ndarray, base_pose: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (n_links, 3, 3) and origins (n_links, 3) [m] of the links.

        Args:
            q_rad: Joint angles, shape (n_joints,).
            base_pose: x y z, qx qy qz qw of the base link, shape (7,); where it stands by its description when None.
        """
        rotation, origin = np.zeros((len(self.names), 3, 3)), np.zeros((len(self.names), 3))
        rotation[self._base] = self._base_rotation if base_pose is None else quat_matrix(base_pose[3:])
        origin[self._base] = self._base_origin if base_pose is None else base_pose[:3]
        for (parent, child, at, fixed, cross), q in zip(self._joints, q_rad):
            turn = np.eye(3) + np.sin(q) * cross + (1.0 - np.cos(q)) * cross @ cross  # Rodrigues
            origin[child] = origin[parent] + rotation[parent] @ at
            rotation[child] = rotation[parent] @ fixed @ turn
        return rotation, origin


def _cross(joint: Joint) -> np.ndarray:
    x, y, z = joint.axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def mesh(geom: Geom) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) in the link frame [m] and triangles (k, 3) of a primitive."""
    if geom.shape == "box":
        corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        vertices = corners * np.array(geom.size_m)
        quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    else:
        vertices, faces = _turned(_profile(geom))
    return vertices @ rpy_matrix(geom.rpy_rad).T + np.array(geom.origin_m), faces


def body_meshes(body: Body) -> list[tuple[np.ndarray, np.ndarray]]:
    """Vertices in the body's frame and triangles of each of its shapes."""
    return [
        (np.array(shape.vertices_m), np.array(shape.faces)) if isinstance(shape, Hull) else mesh(shape)
        for shape in body.shapes
    ]


def tiles(x_m: float, y_m: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """A chequered floor at z = 0 around a point: vertices and triangles of the dark and of the light squares."""
    places = np.arange(-TILES // 2, TILES // 2) * TILE_M
    cx, cy = (2.0 * TILE_M * round(v / (2.0 * TILE_M)) for v in (x_m, y_m))  # squares stay where they are
    found = []
    for shade in (0, 1):
        corners = [
            (cx + x + i * TILE_M, cy + y + j * TILE_M, 0.0)
            for a, x in enumerate(places)
            for b, y in enumerate(places)
            if (a + b) % 2 == shade
            for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))
        ]
        first = 4 * np.arange(len(corners) // 4)
        found.append((np.array(corners), np.concatenate([first[:, None] + [0, 1, 2], first[:, None] + [0, 2, 3]])))
    return found


def _profile(geom: Geom) -> np.ndarray:
    """Radius and height along y of a body of revolution, shape (n, 2), bottom to top."""
    radius, half = geom.size_m[0], (geom.size_m[1] / 2.0 if len(geom.size_m) > 1 else 0.0)
    if geom.shape == "cylinder":
        return np.array([(0.0, -half), (radius, -half), (radius, half), (0.0, half)])
    angle = np.linspace(-np.pi / 2.0, np.pi / 2.0, 14)
    shift = np.where(angle < 0.0, -half, half)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) + shift], axis=1)


def _turned(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0.0, 2.0 * np.pi, SEGMENTS, endpoint=False)
    radius, height = profile[:, :1], profile[:, 1:]
    vertices = np.stack(
        [radius * np.sin(angle), np.broadcast_to(height, (len(profile), SEGMENTS)), radius * np.cos(angle)], 2
    )
    ring, place = np.meshgrid(np.arange(len(profile) - 1), np.arange(SEGMENTS), indexing="ij")
    a, b = ring * SEGMENTS + place, ring * SEGMENTS + (place + 1) % SEGMENTS
    faces = np.concatenate([np.stack([a, b, b + SEGMENTS], 2), np.stack([a, b + SEGMENTS, a + SEGMENTS], 2)]).reshape(
        -1, 3
    )
    return vertices.reshape(-1, 3), faces


class TendonPaths:
    """Where the cables run: from their motor past every joint they pass, each at its moment arm, to the link they pull.

    A drawing, not a routing: the simulation knows moment arms, not points.

    Attributes:
        cable_of_segment: Which cable (2 i flexor, 2 i + 1 extensor of tendon i) each segment belongs to, shape (n_segments,).
    """

    def __init__(self, model: RobotModel) -> None:
        names = [link.name for link in model.links]
        depth = {joint.name: i for i, joint in enumerate(model.joints)}
        links, points, cables, starts, poses = [], [], [], [], LinkPoses(model)
        for i, tendon in enumerate(model.tendons):
            passed = sorted((arm.joint for arm in tendon.arms), key=lambda name: depth[name])
            for side in (0, 1):
                path = _path(model, poses, tendon, passed, side, i)
                starts += [len(points) + k for k in range(len(path) - 1)]
                cables += [2 * i + side] * (len(path) - 1)
                links += [names.index(link) for link, _ in path]
                points += [point for _, point in path]
        self._link, self._point = np.array(links, dtype=np.intp), np.array(points).reshape(-1, 3)
        self._start = np.array(starts, dtype=np.intp)
        self.cable_of_segment = np.array(cables, dtype=np.intp)

    def segments(self, rotation: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Both ends of every segment in the world, shape (n_segments, 2, 3) [m], for poses as `LinkPoses.at` gives them."""
        world = np.einsum("nij,nj->ni", rotation[self._link], self._point) + origin[self._link]
        return np.stack([world[self._start], world[self._start + 1]], axis=1)


def _path(
    model: RobotModel, poses: LinkPoses, tendon: Tendon, passed: list[str], side: int, row: int
) -> list[tuple[str, np.ndarray]]:
    """Links and points in their frames, motor first."""
    by_name, by_child = ({getattr(j, key): j for j in model.joints} for key in ("name", "child"))
    arms = {arm.joint: (arm.flexor_m, -arm.extensor_m)[side] for arm in tendon.arms}
    rotation, origin = poses.at(model.home_rad)
    across, up = (row % 5) / 4.0 - 0.5, (row // 5) / 4.0 - 0.5
    below = by_name[passed[0]]
    while np.linalg.norm(below.origin_m) < NEAR_M and below.parent in by_child:  # the axes of one wrist meet in a point
        below = by_child[below.parent]
    motor = 0.35 * np.array(below.origin_m) + np.array([2.0 * across, 0.0, up]) * MOTOR_SPREAD_M
    path = [(below.parent, motor)]
    row = poses.names.index(below.parent)
    come_from = origin[row] + rotation[row] @ motor
    for name in passed:
        joint = by_name[name]
        row = poses.names.index(joint.child)
        back = rotation[row].T @ (come_from - origin[row])
        path.append((joint.child, arms[name] * _lever(joint, back)))
        if np.linalg.norm(back) > NEAR_M:
            come_from = origin[row]
    last = by_name[tendon.joint]
    path.append((last.child, path[-1][1] * 0.6 + 0.8 * np.array(model.link(last.child).geoms[0].origin_m)))
    return path


def _lever(joint: Joint, back: np.ndarray) -> np.ndarray:
    """The way from the joint's axis to a cable that pulls backwards with a positive moment arm; of length 1."""
    across = np.cross(back, joint.axis)
    length = float(np.linalg.norm(across))
    return across / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
