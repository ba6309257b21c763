"""What the tasks of the body share: how it stands, what it senses and moves, when it has fallen, and what it costs.

Frame of speeds: heading, x where the pelvis points, seen from above, y to the left.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import acos, degrees, exp, hypot

import numpy as np

from robot.contract import ActionTerm, Contract, Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.ranges import Ranges
from sim.tasks.task import Task, term
from sim.world import Push, Start, WorldState, rotated

LEGS = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle_pitch", "ankle_roll")
MOVED = (
    *(f"left_{part}" for part in LEGS),
    *(f"right_{part}" for part in LEGS),
    "waist_yaw",
    "waist_pitch",
    "left_shoulder_pitch",
    "right_shoulder_pitch",
)
# Action of one: of the joints that make steps, of those that make one sideways (whose servos need 0.12 of it to hold the body on one leg),
# of arms that hold something, of the others (docs/simulation.md)
STRIDE_RAD, SIDE_RAD, HOLD_RAD, STEADY_RAD = 0.5, 0.4, 0.2, 0.25
STRIDE = ("hip_pitch", "knee", "ankle_pitch")
SIDE = "hip_roll"
FALLEN_TILT = 0.8  # cosine of the tilt from upright: 37 degrees, from which nothing here has come back
FALLEN_M = 0.6  # pelvis over the ground; it stands at 0.89
TOUCH_N = 20.0  # a foot with more than this on it stands
MASS_KG = 57.0
PUSH_S = 0.1  # how long a push lasts
CYCLE_S = 0.8  # of the gait clock, two steps
MOMENTS = 3  # of the fast readings that are observed: how hard a foot stands, and how fast the body moves, shows in how they change


@dataclass(frozen=True, slots=True, kw_only=True)
class Gait:
    """How the body moves at one moment, in the heading frame.

    Attributes:
        forward_m_s, left_m_s, up_m_s: Velocity of the pelvis.
        yaw_rad_s: Turning, to the left positive.
        roll_rad_s, pitch_rad_s: Angular velocity of the pelvis about its x and y axes.
        down: Where gravity points in the pelvis' frame: (0, 0, -1) when upright.
        heading: Cosine and sine of the way the pelvis points.
        height_m: Of the pelvis over z = 0.
        left_n, right_n: Force on each sole.
    """

    forward_m_s: float
    left_m_s: float
    up_m_s: float
    yaw_rad_s: float
    roll_rad_s: float
    pitch_rad_s: float
    down: tuple[float, float, float]
    heading: tuple[float, float]
    height_m: float
    left_n: float
    right_n: float

    @property
    def fallen(self) -> bool:
        return self.down[2] > -FALLEN_TILT or self.height_m < FALLEN_M


def gait_of(state: RobotState, world: WorldState) -> Gait:
    """The motion of a body whose first two tips are its feet."""
    x, y, z, w = world.base_quat_xyzw.tolist()
    forward = 1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + z * w)  # the pelvis' x axis, seen from above
    length = max(hypot(*forward), 1e-6)
    cos, sin = forward[0] / length, forward[1] / length
    vx, vy, vz = world.base_velocity_m_s.tolist()
    roll, pitch, _ = state.imu_gyro_rad_s.tolist()
    return Gait(
        forward_m_s=cos * vx + sin * vy,
        left_m_s=cos * vy - sin * vx,
        up_m_s=vz,
        yaw_rad_s=float(world.base_gyro_rad_s[2]),
        roll_rad_s=roll,
        pitch_rad_s=pitch,
        down=(2.0 * (w * y - x * z), -2.0 * (w * x + y * z), 2.0 * (x * x + y * y) - 1.0),
        heading=(cos, sin),
        height_m=float(world.base_position_m[2]),
        left_n=float(world.tip_force_n[0]),
        right_n=float(world.tip_force_n[1]),
    )


def near(error: float, width: float) -> float:
    """1 at no error, 0.37 at the width, 0 far away."""
    return exp(-((error / width) ** 2))


def tilt(gait: Gait) -> float:
    """Squared sine of the pelvis' tilt."""
    return gait.down[0] ** 2 + gait.down[1] ** 2


def tilt_deg(gait: Gait) -> float:
    """The pelvis' tilt [deg]."""
    return degrees(acos(max(-1.0, min(1.0, -gait.down[2]))))


def unrest(gait: Gait) -> float:
    """Squared speeds that no gait needs: rolling, pitching [rad^2/s^2], and bouncing, in units that make them alike."""
    return gait.roll_rad_s**2 + gait.pitch_rad_s**2 + 4.0 * gait.up_m_s**2


def jerk(action: np.ndarray, previous_action: np.ndarray) -> float:
    """Mean squared change of the action."""
    change = action - previous_action
    return float(change @ change) / change.size


class BodyTask(Task):
    """A task of body28 on the ground.

    Observation, as a robot senses it: gyro and gravity of the IMU, the moved joints' encoders, the previous action, and what
    `extra_terms` adds. Action: targets of the moved joints about the home posture; the other joints hold theirs.
    """

    control_hz = 50.0
    robots = ("body28",)
    default_robot = "body28"
    privileged_names = (
        "velocity.x",
        "velocity.y",
        "velocity.z",
        "height",
        "left_foot",
        "right_foot",
        "push.x",
        "push.y",
    )  # heading frame, m/s, m, N

    def __init__(self, model: RobotModel, arms_rad: Mapping[str, float] | None = None) -> None:
        """`arms_rad`: joints of the arms that hold something, and where."""
        super().__init__(model)
        arms_rad = arms_rad or {}
        self.moved = (*MOVED, *(name for name in arms_rad if name not in MOVED))
        self._holding = frozenset(arms_rad)
        self._rows = np.array([model.index(name) for name in self.moved])
        self._home = np.array(model.home_rad)
        for name, angle in arms_rad.items():
            self._home[model.index(name)] = angle
        quiet = [name for name in self.moved if not name.endswith(STRIDE)]
        self._quiet = np.array([model.index(name) for name in quiet])
        self._push_n = np.zeros(3)
        self._push_steps = 0
        self._seen: tuple[WorldState, Gait] | None = None

    def gait(self, state: RobotState, world: WorldState) -> Gait:
        """`gait_of`, worked out once per moment."""
        if self._seen is None or self._seen[0] is not world:
            self._seen = world, gait_of(state, world)
        return self._seen[1]

    @abstractmethod
    def extra_terms(self) -> tuple[Term, ...]:
        """Observation terms beside those every body task has."""

    def contract(self) -> Contract:
        model, moved = self.model, self.moved
        scale = tuple(self._scale_rad(name) for name in moved)
        low, high = tuple(model.lower_rad[self._rows].tolist()), tuple(model.upper_rad[self._rows].tolist())
        return Contract(
            env_id=self.env_id,
            robot=model.name,
            robot_sha256=model.sha256,
            joint_names=model.joint_names,
            home_rad=tuple(model.home_rad.tolist()),
            control_hz=self.control_hz,
            observation=(
                term("base_gyro", ("x", "y", "z"), "rad/s", "base", -6.0, 6.0, MOMENTS),
                term("projected_gravity", ("x", "y", "z"), "1", "base", -1.0, 1.0, MOMENTS),
                Term(
                    name="joint_position",
                    elements=moved,
                    unit="rad",
                    frame="joint",
                    low=tuple(x - 0.2 for x in low),
                    high=tuple(x + 0.2 for x in high),
                ),
                term("joint_velocity", moved, "rad/s", "joint", -15.0, 15.0, MOMENTS),
                term("previous_action", moved, "1", "joint_order", -1.0, 1.0),
                *self.extra_terms(),
            ),
            action=ActionTerm(
                joints=moved,
                mode="absolute",
                scale_rad=scale,
                offset_rad=tuple(self._home[self._rows].tolist()),
                lower_rad=low,
                upper_rad=high,
            ),
            goal=self.goal_names,
            goal_unit="mixed" if self.goal_names else "",
            goal_frame="heading" if self.goal_names else "",
            motor_names=model.motor_names,
            delay_range_s=Ranges.of(self.ranges).command_delay_s,
            drive_stiffness_nm_rad=tuple(drive.servo_stiffness_nm_rad for drive in model.drives),
            drive_damping_nm_s_rad=tuple(drive.servo_damping_nm_s_rad for drive in model.drives),
        )

    def _scale_rad(self, joint: str) -> float:
        if joint in self._holding:
            return HOLD_RAD
        if joint.endswith(SIDE):
            return SIDE_RAD
        return STRIDE_RAD if joint.endswith(STRIDE) else STEADY_RAD

    goal_names: tuple[str, ...] = ()

    @property
    def goal(self) -> np.ndarray:
        return np.zeros(0)

    def standing(self, rng: np.random.Generator, *, x_m: float = 0.0, y_m: float = 0.0, yaw_rad: float = 0.0) -> Start:
        """On its feet somewhere, nearly in the home posture, a little in motion."""
        q = self._home.copy()
        q[self._rows] += rng.uniform(-0.05, 0.05, len(self._rows))
        height = self.model.base_height_m + 0.02  # above what the posture and the ground may take
        return Start(
            q_rad=q,
            base_position_m=np.array([x_m, y_m, height]),
            base_quat_xyzw=np.array([0.0, 0.0, np.sin(yaw_rad / 2.0), np.cos(yaw_rad / 2.0)]),
            base_velocity_m_s=np.append(rng.uniform(-0.1, 0.1, 2), 0.0),
        )

    def with_bodies(self, start: Start, at_m: np.ndarray) -> Start:
        """The same start with the world's one body at a place in the pelvis' frame, turned as the pelvis is."""
        quat, base = start.base_quat_xyzw, start.base_position_m
        assert quat is not None and base is not None
        return replace(start, body_poses=np.concatenate([base + rotated(quat, at_m), quat])[None])

    def shove(self, speed_m_s: float, rng: np.random.Generator) -> None:
        """Begin a push of the trunk in any direction that would give a free body of 57 kg this speed."""
        angle = rng.uniform(-np.pi, np.pi)
        self._push_n = MASS_KG * speed_m_s / PUSH_S * np.array([np.cos(angle), np.sin(angle), 0.0])
        self._push_steps = round(PUSH_S * self.control_hz)

    def pushing(self) -> tuple[Push, ...]:
        """The push under way, for one step."""
        if self._push_steps == 0:
            return ()
        self._push_steps -= 1
        return (Push(on="thorax", force_n=self._push_n),)

    def wander(self, state: RobotState) -> float:
        """Mean squared distance from home of the joints that make no steps [rad^2]."""
        away = state.q_rad[self._quiet] - self._home[self._quiet]
        return float(away @ away) / away.size

    def privileged(self, state: RobotState, world: WorldState) -> np.ndarray:
        gait = self.gait(state, world)
        push_x, push_y, _ = self._push_n.tolist() if self._push_steps else (0.0, 0.0, 0.0)
        cos, sin = gait.heading
        return np.array(
            [
                gait.forward_m_s,
                gait.left_m_s,
                gait.up_m_s,
                gait.height_m,
                gait.left_n,
                gait.right_n,
                cos * push_x + sin * push_y,
                cos * push_y - sin * push_x,
            ]
        )
