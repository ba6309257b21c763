"""What is there besides the robot, where an episode starts, and what is true of the world at one moment. SI units.

Tasks describe a `World`, draw a `Start` from it, and judge a `WorldState`, which no policy sees. Positions are in the world frame:
z up, the ground at z = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robot.description.parts import require, unique
from robot.errors import FlexorError, UnknownNameError
from sim.bodies import Body, Hull, Shape

ROBOT_ITSELF, GROUND, NOTHING = -1, -2, -3  # `Contacts.other` where it is no body of the world
GROUND_FRICTION = 0.9
CELL_M = 0.25  # of uneven ground: a sole is 0.245 m long
CELLS = (
    256  # 64 m: a walk of 60 s at commands of 0.45 m/s on average goes 27 m; each cell takes PyBullet 1.3 kB to make
)
FIELD_M = CELL_M * (CELLS - 1)


class StaleWorldError(FlexorError, RuntimeError):
    """A lazy part of a `WorldState` was asked for after the simulation had gone on."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the robot stands on.

    Attributes:
        kind: "none"; "flat", z = 0 for ever; "uneven", the same with a field on it that is 64 m square and begins at x = 0, its
            heights drawn evenly from 0..amplitude_m on a grid of 0.25 m.
        amplitude_m: Of uneven ground, from the lowest to the highest point [m].
        seed: Of uneven ground; `Start.ground_seed` exchanges it.
        friction: As `Body.friction`.
    """

    kind: Literal["none", "flat", "uneven"] = "none"
    amplitude_m: float = 0.02
    seed: int = 0
    friction: float = GROUND_FRICTION

    def __post_init__(self) -> None:
        if self.kind not in ("none", "flat", "uneven"):
            raise UnknownNameError("kind of ground", self.kind, ("none", "flat", "uneven"))
        require(self.amplitude_m > 0.0, "ground", "amplitude_m must be > 0", self.amplitude_m)
        require(self.friction >= 0.0, "ground", "friction must be >= 0", self.friction)

    def heights_m(self, seed: int) -> np.ndarray:
        """Heights of the uneven field at the corners of its cells, rows along y, columns from x = 0, shape (CELLS, CELLS) [m]."""
        heights = np.random.default_rng(seed).uniform(0.0, self.amplitude_m, (CELLS, CELLS))
        heights[0, :] = heights[-1, :] = heights[:, 0] = heights[:, -1] = 0.0
        return heights


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that is there besides the robot.

    Attributes:
        ground: What the robot stands on.
        bodies: Free and fixed bodies, in the order of all arrays about them.
        creeps: Let MuJoCo soften friction as it does by default, so that a thing held still slides by millimetres a second under its
            weight; False has it stick as in PyBullet, and costs up to twice the time while it is held.
    """

    ground: Ground = field(default_factory=Ground)
    bodies: tuple[Body, ...] = ()
    creeps: bool = True

    def __post_init__(self) -> None:
        unique("bodie", self.bodies)

    def index(self, name: str) -> int:
        """Row of a body.

        Raises:
            UnknownNameError: No body of that name; the message lists them.
        """
        names = [body.name for body in self.bodies]
        if name not in names:
            raise UnknownNameError("body", name, names)
        return names.index(name)

    @property
    def start_poses(self) -> np.ndarray:
        """Where the bodies stand when an episode does not say otherwise, rows x y z, qx qy qz qw, shape (n, 7)."""
        return np.array([(*body.position_m, *body.quat_xyzw) for body in self.bodies]).reshape(-1, 7)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode starts. What is None is as described: the base standing at its place, bodies where the `World` has them, all at rest.

    Attributes:
        q_rad: Joint angles, shape (n_joints,).
        qd_rad_s: Joint speeds, shape (n_joints,).
        target_rad: Joint targets in force until the first command; `q_rad` when None, shape (n_joints,).
        base_position_m, base_quat_xyzw: Pose of the base link of a floating robot in the world, shapes (3,), (4,).
        base_velocity_m_s, base_gyro_rad_s: Velocity of the base link's origin, angular velocity, in the world, shape (3,).
        body_poses: Rows x y z, qx qy qz qw, one per body of the world, shape (n, 7).
        ground_seed: Exchanges the seed of uneven ground.
    """

    q_rad: np.ndarray
    qd_rad_s: np.ndarray | None = None
    target_rad: np.ndarray | None = None
    base_position_m: np.ndarray | None = None
    base_quat_xyzw: np.ndarray | None = None
    base_velocity_m_s: np.ndarray | None = None
    base_gyro_rad_s: np.ndarray | None = None
    body_poses: np.ndarray | None = None
    ground_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How this day's things differ from their descriptions; takes effect at the next reset. None changes nothing.

    Attributes:
        link_mass_factor: On mass and inertia of each link, shape (n_links,), in the order of `RobotModel.links`.
        robot_friction: Friction coefficient of the robot's skin and soles.
        ground_friction: Of the ground.
        body_mass_factor, body_friction, body_scale: Of each body of the world, shape (n_bodies,). A factor on mass is one on inertia
            too. `body_scale` works on bodies of primitives.
    """

    link_mass_factor: np.ndarray | None = None
    robot_friction: float | None = None
    ground_friction: float | None = None
    body_mass_factor: np.ndarray | None = None
    body_friction: np.ndarray | None = None
    body_scale: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Push:
    """A force that acts on one thing throughout one control step.

    Attributes:
        on: Name of a link, or of a body of the world.
        force_n: In the world, shape (3,) [N].
        torque_nm: In the world, about the centre of mass, shape (3,) [N m].
        at_m: Where the force acts, in the world, shape (3,); the centre of mass when None.
    """

    on: str
    force_n: np.ndarray = field(default_factory=lambda: np.zeros(3))
    torque_nm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    at_m: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contacts:
    """Where the robot is touched. One row per point; between two links of the robot one row for each of them.

    Attributes:
        link: Row of the touched link in `RobotModel.links`, shape (k,).
        other: What touches it: row of a body of the world, `ROBOT_ITSELF` or `GROUND`, shape (k,).
        other_link: Row of the other link where `other` is `ROBOT_ITSELF`, else `NOTHING`, shape (k,).
        point_m: In the world, shape (k, 3).
        normal: Unit vector into the touched link, shape (k, 3).
        force_n: On the touched link, normal and friction together, in the world, shape (k, 3).
        normal_force_n: Along the normal, >= 0, shape (k,).
    """

    link: np.ndarray
    other: np.ndarray
    other_link: np.ndarray
    point_m: np.ndarray
    normal: np.ndarray
    force_n: np.ndarray
    normal_force_n: np.ndarray

    @staticmethod
    def of(rows: list[tuple[int, int, int]], numbers: np.ndarray) -> "Contacts":
        """From (link, other, other link) and point, normal, force, normal force, shape (k, 10)."""
        names = np.array(rows, dtype=np.intp).reshape(-1, 3)
        numbers = np.asarray(numbers, dtype=np.float64).reshape(-1, 10)
        return Contacts(
            link=names[:, 0],
            other=names[:, 1],
            other_link=names[:, 2],
            point_m=numbers[:, 0:3],
            normal=numbers[:, 3:6],
            force_n=numbers[:, 6:9],
            normal_force_n=numbers[:, 9],
        )

    def __len__(self) -> int:
        return len(self.link)

    @property
    def arrows(self) -> np.ndarray:
        """Points and forces side by side, shape (k, 6) [m, N]."""
        return np.hstack([self.point_m, self.force_n])


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a `WorldState` asks for its lazy parts."""

    contacts: Callable[[], Contacts]
    links: Callable[[], tuple[np.ndarray, np.ndarray]]
    moment: Callable[[], int]


class WorldState:
    """The truth at the end of a control step, for tasks, critics and pictures; a policy never sees it.

    Attributes:
        time_s: Since the reset.
        base_position_m, base_quat_xyzw: Pose of the base link in the world, shapes (3,), (4,).
        base_velocity_m_s: Of the base link's origin, in the world, shape (3,).
        base_gyro_rad_s: Angular velocity of the base in the world, shape (3,).
        body_pose: Rows x y z, qx qy qz qw of every body of the world, shape (n, 7).
        body_twist: Rows velocity of the frame's origin and angular velocity, in the world, shape (n, 6) [m/s, rad/s].
        tip_force_n: True normal force on every tip of the robot, feet included, shape (n_tips,) [N].
        electrical_w: Power that all motors took, mean of the step [W]; below zero when they fed back.
    """

    __slots__ = (
        "_contacts",
        "_links",
        "_moment",
        "_source",
        "base_gyro_rad_s",
        "base_position_m",
        "base_quat_xyzw",
        "base_velocity_m_s",
        "body_pose",
        "body_twist",
        "electrical_w",
        "time_s",
        "tip_force_n",
    )

    def __init__(
        self,
        *,
        time_s: float,
        base_position_m: np.ndarray,
        base_quat_xyzw: np.ndarray,
        base_velocity_m_s: np.ndarray,
        base_gyro_rad_s: np.ndarray,
        body_pose: np.ndarray,
        body_twist: np.ndarray,
        tip_force_n: np.ndarray,
        electrical_w: float,
        source: Source,
    ) -> None:
        self.time_s = time_s
        self.base_position_m, self.base_quat_xyzw = base_position_m, base_quat_xyzw
        self.base_velocity_m_s, self.base_gyro_rad_s = base_velocity_m_s, base_gyro_rad_s
        self.body_pose, self.body_twist = body_pose, body_twist
        self.tip_force_n, self.electrical_w = tip_force_n, electrical_w
        self._source, self._moment = source, source.moment()
        self._contacts: Contacts | None = None
        self._links: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def contacts(self) -> Contacts:
        """Where the robot is touched; worked out when first asked for.

        Raises:
            StaleWorldError: First asked for after the next step.
        """
        if self._contacts is None:
            self._check("contacts")
            self._contacts = self._source.contacts()
        return self._contacts

    @property
    def links(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (n_links, 3, 3) and origin (n_links, 3) [m] of every link's frame in the world, in the order of `RobotModel.links`.

        Raises:
            StaleWorldError: First asked for after the next step.
        """
        if self._links is None:
            self._check("links")
            self._links = self._source.links()
        return self._links

    def _check(self, what: str) -> None:
        if self._source.moment() != self._moment:
            raise StaleWorldError(
                f"{what} of t = {self.time_s:.3f} s: the simulation has gone on; ask before the next step"
            )


def rotated(quat_xyzw: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A vector of the turned frame in the world, shape (3,)."""
    return np.array(turned(*quat_xyzw.tolist(), *vector.tolist()))


def turned(x: float, y: float, z: float, w: float, a: float, b: float, c: float) -> tuple[float, float, float]:
    """`rotated` of plain numbers, for where arrays of three cost more than the sum: the vector a, b, c by the quaternion x, y, z, w."""
    # v + 2 w (u x v) + 2 u x (u x v), u = (x, y, z)
    p, q, r = y * c - z * b, z * a - x * c, x * b - y * a
    return a + 2.0 * (w * p + y * r - z * q), b + 2.0 * (w * q + z * p - x * r), c + 2.0 * (w * r + x * q - y * p)


def quat_times(one_xyzw: np.ndarray, other_xyzw: np.ndarray) -> np.ndarray:
    """The product of two quaternions: first the other turn, then the one, shape (4,)."""
    x, y, z, w = one_xyzw.tolist()
    a, b, c, d = other_xyzw.tolist()
    return np.array(
        [
            w * a + d * x + y * c - z * b,
            w * b + d * y + z * a - x * c,
            w * c + d * z + x * b - y * a,
            w * d - x * a - y * b - z * c,
        ]
    )


def quat_matrix(quat_xyzw: np.ndarray) -> np.ndarray:
    """Rotation matrix of a unit quaternion, shape (3, 3)."""
    x, y, z, w = quat_xyzw.tolist()
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def into_frame(quat_xyzw: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A vector of the world in the turned frame, shape (3,)."""
    x, y, z, w = quat_xyzw.tolist()
    return rotated(np.array([-x, -y, -z, w]), vector)


__all__ = [
    "GROUND",
    "NOTHING",
    "ROBOT_ITSELF",
    "Body",
    "Contacts",
    "Ground",
    "Hull",
    "Push",
    "Shape",
    "StaleWorldError",
    "Start",
    "Variation",
    "World",
    "WorldState",
    "into_frame",
    "quat_matrix",
    "quat_times",
    "rotated",
    "turned",
]
