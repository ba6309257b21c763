"""The contract between a policy and a robot: what goes in, what comes out, in which order, unit, frame and rate.

Written once, in numpy, and used by the environment and by the robot alike, so the two cannot disagree. A `Contract` is data:
it travels as lossless JSON inside the artifact. `Contract.bind(model)` checks it against a robot and gives the `Interface`
that turns a `RobotState` into an observation and an action into a `Command`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, sin
from math import tau as TURN
from typing import Literal, NoReturn

import msgspec
import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError, NotFiniteError, UnknownNameError
from robot.kinematics import TipKinematics
from robot.state import Command, RobotState

SCHEMA = 1
# Slower, a period's limits bound nothing and a stop is heard too late; faster, no loop here keeps up.
MIN_HZ, MAX_HZ = 5.0, 2000.0
MAX_SCALE_RAD = TURN  # of one action; no joint turns further
YOUNG = ("drive_stiffness_nm_rad", "drive_damping_nm_s_rad")


class ContractError(FlexorError, ValueError):
    """Bytes that are not a contract, or a contract that contradicts itself."""


class ContractMismatchError(FlexorError, ValueError):
    """A contract that was written for another robot; the message lists every difference."""


class OtherElementsError(ContractMismatchError):
    """A contract that observes what this robot has not got, or has in another order; the message names the terms."""


class Term(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One slice of the observation. Fields with a default are left out of the JSON, and of the hash, where they have it.

    Attributes:
        name: What it is; one of `OBSERVATION_TERMS`.
        elements: What each number is of: joint or motor names, or tip names with axes. With a history, the newest value first:
            element j of the value k steps ago is `elements[k n + j]`, n = len(elements) / history.
        unit: SI unit of every element.
        frame: Frame the numbers are in, "joint", or "motor".
        low, high: Range the policy was made for; the graph clips to it.
        period_s: Of a clock: one turn [s].
        history: How many steps' values it holds; what was before the episode's start is its first value.
    """

    name: str
    elements: tuple[str, ...]
    unit: str
    frame: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    period_s: float = 0.0
    history: int = 1

    @property
    def size(self) -> int:
        return len(self.elements)


class ActionTerm(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy's numbers move: one joint each, an action of -1..1 scaled to radians.

    Attributes:
        joints: One joint per action, in action order.
        mode: "absolute": target = offset + scale * action; "relative": target in force + scale * action.
        scale_rad: Radians per unit of action, one per joint.
        offset_rad: Target at action zero ("absolute" only), one per joint.
        lower_rad, upper_rad: Targets are clamped to these, one per joint.
    """

    joints: tuple[str, ...]
    mode: Literal["absolute", "relative"]
    scale_rad: tuple[float, ...]
    offset_rad: tuple[float, ...]
    lower_rad: tuple[float, ...]
    upper_rad: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.joints)


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a runtime must agree on before it may send a command.

    Attributes:
        env_id: Environment the policy was made for.
        robot: Name of the description, as in `robot.description.load`.
        robot_sha256: Hash of that description: another geometry or another tendon is another robot.
        joint_names: Joint order of the robot; targets of joints the policy does not move stay at home.
        home_rad: Home posture in joint order.
        control_hz: Rate the policy was trained at.
        observation: Terms in order; the observation vector is their concatenation.
        action: What comes out.
        goal: Elements of the goal that somebody else must supply, empty if none.
        goal_unit, goal_frame: Unit and frame of those.
        motor_names: Motors in order, those of tendons first.
        servo_stiffness_n_m, servo_damping_n_s_m: Gains of the tendon motors' position servos the policy was trained with.
        delay_range_s: Command delays seen in training, least and most.
        quaternion_order: Order of any quaternion in the observation.
        schema: Version of this record.
        drive_stiffness_nm_rad, drive_damping_nm_s_rad: Gains of the gear drives' servos, in order.
    """

    env_id: str
    robot: str
    robot_sha256: str
    joint_names: tuple[str, ...]
    home_rad: tuple[float, ...]
    control_hz: float
    observation: tuple[Term, ...]
    action: ActionTerm
    goal: tuple[str, ...] = ()
    goal_unit: str = ""
    goal_frame: str = ""
    motor_names: tuple[str, ...] = ()
    servo_stiffness_n_m: tuple[float, ...] = ()
    servo_damping_n_s_m: tuple[float, ...] = ()
    delay_range_s: tuple[float, float] = (0.0, 0.0)
    quaternion_order: Literal["xyzw"] = "xyzw"
    schema: int = SCHEMA
    drive_stiffness_nm_rad: tuple[float, ...] = ()
    drive_damping_nm_s_rad: tuple[float, ...] = ()

    @property
    def observation_size(self) -> int:
        return sum(term.size for term in self.observation)

    @property
    def action_size(self) -> int:
        return self.action.size

    @property
    def dt_s(self) -> float:
        return 1.0 / self.control_hz

    @property
    def slices(self) -> dict[str, slice]:
        """Where each term sits in the observation vector."""
        ends = np.cumsum([term.size for term in self.observation]).tolist()
        return {term.name: slice(end - term.size, end) for term, end in zip(self.observation, ends)}

    @property
    def observation_low(self) -> np.ndarray:
        return np.array([x for term in self.observation for x in term.low], dtype=np.float32)

    @property
    def observation_high(self) -> np.ndarray:
        return np.array([x for term in self.observation for x in term.high], dtype=np.float32)

    def to_json(self) -> str:
        """Lossless, canonical JSON: equal contracts give equal text. Fields younger than the first policies appear where they are set."""
        data = msgspec.to_builtins(self)
        for name in YOUNG:
            if not data[name]:
                del data[name]
        return msgspec.json.encode(data).decode()  # in the order of the fields

    @staticmethod
    def from_json(text: str | bytes) -> "Contract":
        """The contract in a text.

        Raises:
            ContractError: Not JSON, a field missing, unknown or of another type, another schema, or lengths that disagree.
        """
        try:
            contract = msgspec.json.decode(text, type=Contract)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ContractError(f"not a contract of schema {SCHEMA}: {error}") from error
        contract.validate()
        return contract

    def validate(self) -> None:
        """Raise ContractError where the contract contradicts itself."""
        if self.schema != SCHEMA:
            raise ContractError(f"contract schema: expected {SCHEMA}, got {self.schema}; export the policy again")
        if not MIN_HZ <= self.control_hz <= MAX_HZ:  # nor is NaN
            raise ContractError(f"control_hz must be {MIN_HZ:g} to {MAX_HZ:g}, got {self.control_hz}")
        lengths = {
            "home_rad": (len(self.home_rad), len(self.joint_names)),
            **{
                f"action.{f}": (len(getattr(self.action, f)), self.action.size)
                for f in ("scale_rad", "offset_rad", "lower_rad", "upper_rad")
            },
            **{
                name: (len(getattr(self, name)), len(self.motor_names) - len(self.drive_stiffness_nm_rad))
                for name in ("servo_stiffness_n_m", "servo_damping_n_s_m")
            },
            "drive_damping_nm_s_rad": (len(self.drive_damping_nm_s_rad), len(self.drive_stiffness_nm_rad)),
        }
        for term in self.observation:
            if term.name not in OBSERVATION_TERMS:
                raise UnknownNameError("observation term", term.name, OBSERVATION_TERMS)
            lengths[f"{term.name}.low"] = (len(term.low), term.size)
            lengths[f"{term.name}.high"] = (len(term.high), term.size)
            if term.history < 1 or term.size % term.history:
                raise ContractError(
                    f"{term.name}.history must be >= 1 and divide {term.size} elements, got {term.history}"
                )
            if term.name == "gait_phase" and not term.period_s > 0.0:
                raise ContractError(f"gait_phase.period_s must be > 0, got {term.period_s}")
        wrong = {name: pair for name, pair in lengths.items() if pair[0] != pair[1]}
        if wrong:
            raise ContractError(f"lengths disagree (field: got, expected): {wrong}")
        if len(set(self.action.joints)) != self.action.size:
            raise ContractError(f"action.joints must name every joint once, got {self.action.joints}")
        for joint in self.action.joints:
            if joint not in self.joint_names:
                raise UnknownNameError("action joint", joint, self.joint_names)
        if not all(0.0 < scale <= MAX_SCALE_RAD for scale in self.action.scale_rad):
            raise ContractError(
                f"action.scale_rad must be > 0 and at most {MAX_SCALE_RAD:g}, got {self.action.scale_rad}"
            )
        for lower, upper in zip(self.action.lower_rad, self.action.upper_rad):
            if not lower < upper:
                raise ContractError(f"action.lower_rad must be below upper_rad, got {lower} and {upper}")
        for name in ("servo_stiffness_n_m", "drive_stiffness_nm_rad"):
            if min(getattr(self, name), default=1.0) <= 0.0:
                raise ContractError(f"{name} must be > 0, got {getattr(self, name)}")

    @property
    def sha256(self) -> str:
        """Hash over every field; experience and artifacts carry it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def bind(self, model: RobotModel) -> "Interface":
        """Check the contract against a robot and get the functions that observe and command it.

        Raises:
            ContractMismatchError: Another robot, joint order or servo; every difference is listed.
            OtherElementsError: A term whose elements are not, by name and in this order, what the robot's state holds.
        """
        differences = []
        tendons, drives = model.tendons, model.drives
        for what, ours, theirs in (
            ("robot", self.robot, model.name),
            ("joint_names", self.joint_names, model.joint_names),
            ("home_rad", self.home_rad, tuple(model.home_rad.tolist())),
            ("motor_names", self.motor_names, model.motor_names),
            ("servo_stiffness_n_m", self.servo_stiffness_n_m, tuple(t.servo_stiffness_n_m for t in tendons)),
            ("servo_damping_n_s_m", self.servo_damping_n_s_m, tuple(t.servo_damping_n_s_m for t in tendons)),
            ("drive_stiffness_nm_rad", self.drive_stiffness_nm_rad, tuple(d.servo_stiffness_nm_rad for d in drives)),
            ("drive_damping_nm_s_rad", self.drive_damping_nm_s_rad, tuple(d.servo_damping_nm_s_rad for d in drives)),
            ("robot_sha256", self.robot_sha256, model.sha256),
        ):
            if ours != theirs:
                differences.append(f"  {what}: contract {_short(ours, theirs)}, robot {_short(theirs, ours)}")
        if differences:
            lines = "\n".join(differences)
            raise ContractMismatchError(
                f"the policy for {self.env_id} was made for another robot than {model.name!r}:\n{lines}\n"
                f"  do: run it on {self.robot!r}, or export it again for {model.name!r}"
            )
        self._check_elements(model)
        return Interface(self, model)

    def _check_elements(self, model: RobotModel) -> None:
        differences = []
        for term in self.observation:
            n = term.size // term.history
            now, past = term.elements[:n], term.elements[n:]
            for names in ELEMENTS[term.name](self, model):
                known = names[:n] if term.name == "previous_action" else names
                if now != known:
                    differences.append(f"  {term.name}: contract {_short(now, known)}, robot {_short(known, now)}")
            if past not in (now * (term.history - 1), tuple(f"{e}@-{k}" for k in range(1, term.history) for e in now)):
                differences.append(f"  {term.name}: older values are not of the newest ones' elements in their order")
        if differences:
            lines = "\n".join(differences)
            raise OtherElementsError(
                f"the policy for {self.env_id} observes other elements than {model.name!r} has:\n{lines}\n"
                f"  do: export it again for {model.name!r}"
            )


def tip_axes(model: RobotModel) -> tuple[str, ...]:
    """Elements of what is measured at the fingertips: x, y and z of each."""
    return tuple(f"{tip}.{axis}" for tip in model.tip_names for axis in "xyz")


def _short(value: object, other: object) -> str:
    """A value as text; of two sequences only where they first differ."""
    if isinstance(value, tuple) and isinstance(other, tuple):
        where = next((i for i, (a, b) in enumerate(zip(value, other)) if a != b), min(len(value), len(other)))
        return f"{len(value)} entries, [{where}] = {value[where] if where < len(value) else 'missing'!r}"
    return repr(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the controller itself knows: the goal in force, what it did last, how long it has been at it, and what it saw before.

    Attributes:
        goal: In the contract's goal elements, unit and frame, shape (n_goal,).
        previous_action: Last action after clipping to -1..1, shape (n_actions,).
        time_s: Since the episode began, or the policy took over [s].
        past: Earlier values of the terms with a history, newest first, by the term's name, shape (history - 1, n).
    """

    goal: np.ndarray
    previous_action: np.ndarray
    time_s: float = 0.0
    past: Mapping[str, np.ndarray] = field(default_factory=dict)


class Interface:
    """A contract bound to a robot: `observe`, `command` and `remember`. Holds no state of its own."""

    def __init__(self, contract: Contract, model: RobotModel) -> None:
        contract.validate()
        self.contract, self.model = contract, model
        self._tips = TipKinematics(model) if any(t.name in OF_TIPS for t in contract.observation) else None
        self._parts = [(OBSERVATION_TERMS[t.name], self.rows(t), t) for t in contract.observation]
        self._with_history = [part for part in self._parts if part[2].history > 1]
        action = contract.action
        self._moved = np.array([model.index(joint) for joint in action.joints], dtype=np.intp)
        self._scale, self._offset = np.array(action.scale_rad), np.array(action.offset_rad)
        self._lower, self._upper = np.array(action.lower_rad), np.array(action.upper_rad)
        self._home = np.array(contract.home_rad)
        self._relative = action.mode == "relative"

    def rows(self, term: Term) -> np.ndarray:
        """Which of the state's numbers a term's newest values are, shape (elements / history,)."""
        n = term.size // term.history
        if term.frame == "joint":
            return np.array([self.model.index(joint) for joint in term.elements[:n]], dtype=np.intp)
        if term.frame == "motor":
            return np.array([self.model.motor_names.index(motor) for motor in term.elements[:n]], dtype=np.intp)
        return np.arange(n)

    def memory(self, goal: np.ndarray | None = None) -> Memory:
        """The memory at the start of an episode: nothing done yet."""
        return Memory(goal=self._goal(goal), previous_action=np.zeros(self.contract.action_size))

    def _goal(self, goal: np.ndarray | None) -> np.ndarray:
        goal = np.zeros(len(self.contract.goal)) if goal is None else np.asarray(goal, dtype=np.float64)
        if goal.shape != (len(self.contract.goal),):
            raise ContractError(f"goal must have shape ({len(self.contract.goal)},), got {goal.shape}")
        return goal

    def remember(self, memory: Memory, state: RobotState, action: np.ndarray, goal: np.ndarray | None = None) -> Memory:
        """The memory one step later.

        Args:
            memory: What was known when the step began.
            state: What the sensors said then.
            action: What was done, clipped to -1..1 here, shape (n_actions,).
            goal: The goal in force from now on; as before when None.
        """
        return Memory(
            goal=memory.goal if goal is None else self._goal(goal),
            previous_action=np.minimum(np.maximum(np.asarray(action, dtype=np.float64), -1.0), 1.0),
            time_s=memory.time_s + 1.0 / self.contract.control_hz,
            past=self._past(memory, state) if self._with_history else memory.past,
        )

    def _past(self, memory: Memory, state: RobotState) -> dict[str, np.ndarray]:
        tips = self._tips.positions(state.q_rad).reshape(-1) if self._tips is not None else None
        past = {}
        for read, rows, term in self._with_history:
            now = read(state, memory, tips, rows, term)
            older = memory.past.get(term.name)
            if older is None:
                past[term.name] = np.tile(now, (term.history - 1, 1))
                continue
            past[term.name] = np.concatenate([now[None], older[:-1]])
        return past

    def tip_positions(self, state: RobotState) -> np.ndarray:
        """Fingertips by the joint encoders, in the palm frame, shape (n_tips, 3) [m]."""
        if self._tips is None:
            self._tips = TipKinematics(self.model)
        return self._tips.positions(state.q_rad)

    def observe(self, state: RobotState, memory: Memory) -> np.ndarray:
        """The observation vector, float32, shape (observation_size,), in SI units as the terms say.

        Raises:
            NotFiniteError: A sensor or the goal is NaN or infinite; the elements are named.
        """
        tips = self._tips.positions(state.q_rad).reshape(-1) if self._tips is not None else None
        values = [read(state, memory, tips, rows, term) for read, rows, term in self._parts]
        if self._with_history:
            for i, (_, _, term) in enumerate(self._parts):
                if term.history > 1:
                    older = memory.past.get(term.name)
                    older = np.tile(values[i], term.history - 1) if older is None else older.reshape(-1)
                    values[i] = np.concatenate([values[i], older])
        vector = np.concatenate(values, dtype=np.float32)
        if not np.isfinite(vector).all():
            self.refuse_not_finite(vector)
        return vector

    def refuse_not_finite(self, vector: np.ndarray) -> NoReturn:
        """Refuse an observation that is not finite.

        Raises:
            NotFiniteError: The first eight elements that are NaN or infinite, by name.
        """
        names = [f"{t.name}.{element}" for t in self.contract.observation for element in t.elements]
        bad = {names[i]: float(vector[i]) for i in np.flatnonzero(~np.isfinite(vector))[:8]}
        raise NotFiniteError("observation", bad)

    def command(self, action: np.ndarray, state: RobotState) -> Command:
        """Joint targets for an action; the action is clipped to -1..1 and the targets to the contract's range.

        Raises:
            NotFiniteError: The action holds NaN or infinity; the joints are named.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.contract.action_size,):
            raise ContractError(f"action must have shape ({self.contract.action_size},), got {action.shape}")
        if not np.isfinite(action).all():
            bad = {self.contract.action.joints[i]: float(action[i]) for i in np.flatnonzero(~np.isfinite(action))}
            raise NotFiniteError("action", bad)
        moved = self._scale * np.minimum(np.maximum(action, -1.0), 1.0)  # np.clip costs four times as much
        moved += state.target_rad[self._moved] if self._relative else self._offset
        target = self._home.copy()
        target[self._moved] = np.minimum(np.maximum(moved, self._lower), self._upper)
        return Command(target_rad=target)


Reader = Callable[[RobotState, Memory, np.ndarray | None, np.ndarray, Term], np.ndarray]


def projected_gravity(quat_xyzw: np.ndarray) -> np.ndarray:
    """Which way is down, as a unit vector in the turned frame: (0, 0, -1) when it stands upright, shape (3,)."""
    x, y, z, w = quat_xyzw.tolist()
    return np.array([2.0 * (w * y - x * z), -2.0 * (w * x + y * z), 2.0 * (x * x + y * y) - 1.0])


def _phase(time_s: float, term: Term) -> np.ndarray:
    angle = TURN * time_s / term.period_s
    return np.array([sin(angle), cos(angle)])


def _pose(state: RobotState) -> list[float]:
    """The tracked object's pose.

    Raises:
        ContractError: Nothing is tracked.
    """
    if state.object_pose.shape != (7,):
        raise ContractError(
            f"object_pose must have shape (7,), got {state.object_pose.shape}: this policy needs a pose tracker"
        )
    return state.object_pose.tolist()


def two_columns(quat_xyzw: Sequence[float]) -> np.ndarray:
    """The first two columns of a rotation matrix: an orientation without jumps (Zhou et al. 2019), shape (6,)."""
    x, y, z, w = quat_xyzw
    return np.array(
        [
            1.0 - 2.0 * (y * y + z * z),
            2.0 * (x * y + z * w),
            2.0 * (x * z - y * w),
            2.0 * (x * y - z * w),
            1.0 - 2.0 * (x * x + z * z),
            2.0 * (y * z + x * w),
        ]
    )


def _to_goal(state: RobotState, goal_xyzw: np.ndarray) -> np.ndarray:
    """The turn still to make, in the base frame: goal times the inverse of where the object is."""
    a, b, c, d = _pose(state)[3:]
    x, y, z, w = goal_xyzw.tolist()
    return two_columns(
        (
            d * x - w * a - y * c + z * b,
            d * y - w * b - z * a + x * c,
            d * z - w * c - x * b + y * a,
            w * d + x * a + y * b + z * c,
        )
    )


_XYZ = ("x", "y", "z")
COLUMNS = ("xx", "yx", "zx", "xy", "yy", "zy")  # elements of `two_columns`
Elements = Callable[[Contract, RobotModel], tuple[tuple[str, ...], ...]]

# What the elements of every term must be called, one step's; by each list that its numbers are taken from.
# Of joints and motors any, in any order: they are found by their names.
ELEMENTS: dict[str, Elements] = {
    **dict.fromkeys(
        ("joint_position", "joint_velocity", "joint_target", "tracking_error", "motor_position", "motor_current"),
        lambda c, m: (),
    ),
    "tip_position": lambda c, m: (tip_axes(m),),
    "tip_force": lambda c, m: (m.tip_names,),
    **dict.fromkeys(("base_gyro", "projected_gravity", "object_position"), lambda c, m: (_XYZ,)),
    "gait_phase": lambda c, m: (("sin", "cos"),),
    **dict.fromkeys(("goal", "goal_position", "object_goal_error"), lambda c, m: (c.goal,)),
    "goal_error": lambda c, m: (tip_axes(m), c.goal),
    **dict.fromkeys(("object_rotation", "object_turn_to_goal"), lambda c, m: (COLUMNS,)),
    "previous_action": lambda c, m: (c.action.joints,),
}

OF_TIPS = ("tip_position", "goal_error")

# Every term a contract may name, and how it is read: (state, memory, tip positions, rows, term) -> values.
OBSERVATION_TERMS: dict[str, Reader] = {
    "joint_position": lambda s, m, tips, rows, t: s.q_rad[rows],
    "joint_velocity": lambda s, m, tips, rows, t: s.qd_rad_s[rows],
    "joint_target": lambda s, m, tips, rows, t: s.target_rad[rows],
    "tracking_error": lambda s, m, tips, rows, t: s.target_rad[rows] - s.q_rad[rows],
    "motor_position": lambda s, m, tips, rows, t: s.motor_rad[rows],
    "motor_current": lambda s, m, tips, rows, t: s.motor_current_a[rows],
    "tip_position": lambda s, m, tips, rows, t: tips[rows],  # type: ignore[index]
    "tip_force": lambda s, m, tips, rows, t: s.tip_force_n[rows],
    "base_gyro": lambda s, m, tips, rows, t: s.imu_gyro_rad_s,
    "projected_gravity": lambda s, m, tips, rows, t: projected_gravity(s.imu_quat_xyzw),
    "gait_phase": lambda s, m, tips, rows, t: _phase(m.time_s, t),
    "goal": lambda s, m, tips, rows, t: m.goal[rows],
    "goal_position": lambda s, m, tips, rows, t: m.goal[rows],
    "goal_error": lambda s, m, tips, rows, t: m.goal[rows] - tips[rows],  # type: ignore[index]
    "object_position": lambda s, m, tips, rows, t: np.array(_pose(s)[:3]),
    "object_rotation": lambda s, m, tips, rows, t: two_columns(_pose(s)[3:]),
    "object_turn_to_goal": lambda s, m, tips, rows, t: _to_goal(s, m.goal),
    "object_goal_error": lambda s, m, tips, rows, t: (m.goal.reshape(-1, 3) - _pose(s)[:3]).reshape(-1),
    "previous_action": lambda s, m, tips, rows, t: m.previous_action[rows],
}
