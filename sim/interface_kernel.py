"""A contract's observation and command, compiled: what `robot.contract.Interface` computes, for the environment's own loop.

`Interface` is the definition, and what the robot runs; `tests/test_interface_kernel.py` holds the two together for every term there is.
The observation is one gather out of a vector of everything a term may read, and a few terms that are computed. What a term with a
history held one step ago moves on by one place.
"""

from math import cos, sin

import numpy as np
from numba import njit

from robot.contract import OF_TIPS, TURN, ContractError, Interface, Term
from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics
from sim.readings import Readings

GRAVITY, PHASE, COLUMNS, TO_GOAL = range(4)


@njit(cache=True)
def _two_columns(x, y, z, w, out, at):  # pragma: no cover - compiled
    out[at] = 1.0 - 2.0 * (y * y + z * z)
    out[at + 1] = 2.0 * (x * y + z * w)
    out[at + 2] = 2.0 * (x * z - y * w)
    out[at + 3] = 2.0 * (x * y - z * w)
    out[at + 4] = 1.0 - 2.0 * (x * x + z * z)
    out[at + 5] = 2.0 * (y * z + x * w)


@njit(cache=True)
def _tips(q, joint, moves, fixed, fixed_a, fixed_aa, origin, offset, out):  # pragma: no cover - compiled
    """Eq. 1 of `robot.kinematics` for all tips, written to `out`."""
    depth, tips = joint.shape
    p, turned = np.empty(3), np.empty(3)
    for t in range(tips):
        p[:] = offset[t]
        for d in range(depth - 1, -1, -1):
            angle = q[joint[d, t]] * moves[d, t]
            sine, versin = sin(angle), 1.0 - cos(angle)
            for i in range(3):
                turned[i] = origin[d, t, i]
                for k in range(3):
                    turned[i] += (fixed[d, t, i, k] + sine * fixed_a[d, t, i, k] + versin * fixed_aa[d, t, i, k]) * p[k]
            p[:] = turned
        out[3 * t : 3 * t + 3] = p


@njit(
    "int64(float64[::1], float64[::1], float64[::1], float64[::1], float64, float64[::1], int64[:,::1], float64[:,::1], "
    "int64[:,::1], b1, float32[::1])",
    cache=True,
)
def _observe(
    said, target, goal, action, time_s, z, gather, computed, history, fresh, out
):  # pragma: no cover - compiled
    """Write the observation over the one before; the place of the first number that is not finite, -1 where all are."""
    at = 0
    for part in (said, target, goal, action):
        z[at : at + part.shape[0]] = part
        at += part.shape[0]
    for row in range(history.shape[0]):
        start, n, end = history[row, 0], history[row, 1], history[row, 2]
        for i in range(end - 1, start + n - 1, -1):
            out[i] = out[i - n]
    for i in range(gather.shape[0]):
        if gather[i, 0] >= 0:
            out[i] = z[gather[i, 0]] - (z[gather[i, 1]] if gather[i, 1] >= 0 else 0.0)
    for row in range(computed.shape[0]):
        kind, i, a, b = int(computed[row, 0]), int(computed[row, 1]), int(computed[row, 2]), int(computed[row, 3])
        if kind == GRAVITY:
            x, y, z_, w = z[a], z[a + 1], z[a + 2], z[a + 3]
            out[i] = 2.0 * (w * y - x * z_)
            out[i + 1] = -2.0 * (w * x + y * z_)
            out[i + 2] = 2.0 * (x * x + y * y) - 1.0
        elif kind == PHASE:
            angle = TURN * time_s / computed[row, 4]
            out[i], out[i + 1] = sin(angle), cos(angle)
        elif kind == COLUMNS:
            _two_columns(z[a], z[a + 1], z[a + 2], z[a + 3], out, i)
        elif kind == TO_GOAL:  # goal times the inverse of where the object is
            ox, oy, oz, ow = z[a], z[a + 1], z[a + 2], z[a + 3]
            x, y, z_, w = z[b], z[b + 1], z[b + 2], z[b + 3]
            _two_columns(
                ow * x - w * ox - y * oz + z_ * oy,
                ow * y - w * oy - z_ * ox + x * oz,
                ow * z_ - w * oz - x * oy + y * ox,
                w * ow + x * ox + y * oy + z_ * oz,
                out,
                i,
            )
    if fresh:  # what was before the episode's start is its first value
        for row in range(history.shape[0]):
            start, n, end = history[row, 0], history[row, 1], history[row, 2]
            for i in range(start + n, end):
                out[i] = out[i - n]
    for i in range(out.shape[0]):
        if not np.isfinite(out[i]):
            return i
    return -1


@njit("b1(float64[::1], float64)", cache=True)
def _clipped(action, most):  # pragma: no cover - compiled
    """Clip to -1..1 in place; False where a number is not finite or beyond `most`."""
    fine = True
    for i in range(action.shape[0]):
        fine = fine and abs(action[i]) <= most  # NaN is not
        action[i] = min(max(action[i], -1.0), 1.0)
    return fine


@njit("void(float64[::1], float64[::1], int64[::1], float64[:,::1], b1, float64[::1])", cache=True)
def _command(action, in_force, moved, numbers, relative, target):  # pragma: no cover - compiled
    """Rows of `numbers`: scale, offset, lower, upper."""
    for i in range(action.shape[0]):
        goal = numbers[0, i] * action[i] + (in_force[moved[i]] if relative else numbers[1, i])
        target[moved[i]] = min(max(goal, numbers[2, i]), numbers[3, i])


class CompiledInterface:
    """An `Interface` bound to where its numbers lie in a robot's readings.

    Args:
        interface: What is compiled.
        readings: Layout of the robot's readings.
    """

    def __init__(self, interface: Interface, readings: Readings) -> None:
        self._interface, contract = interface, interface.contract
        joints, goals, actions = len(contract.joint_names), len(contract.goal), contract.action_size
        self._tips = (
            TipKinematics(interface.model).tables if any(t.name in OF_TIPS for t in contract.observation) else None
        )
        places, end = {}, readings.size
        for name, size in (
            ("target", joints),
            ("goal", goals),
            ("action", actions),
            ("tips", 3 * len(interface.model.tips)),
        ):
            places[name], end = end, end + size
        self._z, self._tips_at, self._goal_shape = np.zeros(end), places["tips"], (goals,)
        places |= {name: at.start for name, at in readings.slices.items()}
        self._gather = np.full((contract.observation_size, 2), -1)
        computed, history = [], []
        for term, at in zip(contract.observation, contract.slices.values()):
            n = term.size // term.history
            kind, first, second = _source(term, interface.rows(term), places)
            if kind < 0:
                self._gather[at.start : at.start + n, 0] = first
                self._gather[at.start : at.start + n, 1] = second
            else:
                computed.append((kind, at.start, first, second, term.period_s))
            if term.history > 1:
                history.append((at.start, n, at.stop))
        self._computed = np.array(computed, dtype=np.float64).reshape(-1, 5)
        self._history = np.array(history, dtype=np.int64).reshape(-1, 3)
        action = contract.action
        self._numbers = np.array([action.scale_rad, action.offset_rad, action.lower_rad, action.upper_rad])
        self._moved = np.array([contract.joint_names.index(joint) for joint in action.joints], dtype=np.int64)
        self._home, self._relative = np.array(contract.home_rad), action.mode == "relative"
        self._last = np.zeros(contract.observation_size, dtype=np.float32)

    def observe(
        self,
        said: np.ndarray,
        target_rad: np.ndarray,
        goal: np.ndarray,
        previous_action: np.ndarray,
        time_s: float,
        *,
        first: bool,
    ) -> np.ndarray:
        """`Interface.observe` with the memory of an episode; call it once per step.

        Args:
            said: The robot's readings.
            target_rad: Targets in force.
            goal, previous_action, time_s: As in `robot.contract.Memory`.
            first: Whether an episode begins.

        Raises:
            ContractError: A goal of another shape.
            NotFiniteError: A sensor or the goal is NaN or infinite; the elements are named.
        """
        z, goal = self._z, np.array(goal, dtype=np.float64)
        if goal.shape != self._goal_shape:
            raise ContractError(f"goal must have shape {self._goal_shape}, got {goal.shape}")
        if self._tips is not None:
            _tips(said, *self._tips, z[self._tips_at :])  # joint angles come first in the readings
        wrong = _observe(
            said,
            target_rad,
            goal,
            previous_action,
            time_s,
            z,
            self._gather,
            self._computed,
            self._history,
            first,
            self._last,
        )
        if wrong >= 0:
            self._interface.refuse_not_finite(self._last)
        return self._last.copy()

    def clipped(self, action: np.ndarray, most: float) -> np.ndarray | None:
        """An action clipped to -1..1; None where a number is not finite, or beyond `most`."""
        clipped = np.array(action, dtype=np.float64)
        return clipped if _clipped(clipped, most) else None

    def command(self, action: np.ndarray, in_force_rad: np.ndarray) -> np.ndarray:
        """`Interface.command` of an action that was checked, with the targets in force: joint targets [rad]."""
        target = self._home.copy()
        _command(action, in_force_rad, self._moved, self._numbers, self._relative, target)
        return target


def _source(term: Term, rows: np.ndarray, at: dict[str, int]) -> tuple[int, np.ndarray | int, np.ndarray | int]:
    """How a term's newest values come about: what computes them, or -1 and where they lie, and what is taken from them.

    Raises:
        UnknownNameError: Nothing here knows the term; the message lists those that are known.
    """
    pose, three = at["object_pose"], np.arange(len(rows)) % 3
    ways: dict[str, tuple[int, np.ndarray | int, np.ndarray | int]] = {
        "joint_position": (-1, at["q_rad"] + rows, -1),
        "joint_velocity": (-1, at["qd_rad_s"] + rows, -1),
        "joint_target": (-1, at["target"] + rows, -1),
        "tracking_error": (-1, at["target"] + rows, at["q_rad"] + rows),
        "motor_position": (-1, at["motor_rad"] + rows, -1),
        "motor_current": (-1, at["motor_current_a"] + rows, -1),
        "tip_position": (-1, at["tips"] + rows, -1),
        "tip_force": (-1, at["tip_force_n"] + rows, -1),
        "base_gyro": (-1, at["imu_gyro_rad_s"] + rows, -1),
        "projected_gravity": (GRAVITY, at["imu_quat_xyzw"], 0),
        "gait_phase": (PHASE, 0, 0),
        "goal": (-1, at["goal"] + rows, -1),
        "goal_position": (-1, at["goal"] + rows, -1),
        "goal_error": (-1, at["goal"] + rows, at["tips"] + rows),
        "object_position": (-1, pose + rows, -1),
        "object_rotation": (COLUMNS, pose + 3, 0),
        "object_turn_to_goal": (TO_GOAL, pose + 3, at["goal"]),
        "object_goal_error": (-1, at["goal"] + rows, pose + three),
        "previous_action": (-1, at["action"] + rows, -1),
    }
    if term.name not in ways:
        raise UnknownNameError("compiled observation term", term.name, ways)
    return ways[term.name]


__all__ = ["CompiledInterface"]
