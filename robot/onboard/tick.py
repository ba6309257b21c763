"""The control period in C (`tick.c`) for a robot behind a link: what the loop in Python does when all is in order, without it.

Two calls per period: `read` sleeps until the deadline, takes in the robot's answer and accounts for the step; `decide` observes,
runs the compiled network, commands through the compiled filter, and sends. Between them the interpreter asks for stops. Where
anything is out of the ordinary (end of an episode, a fault, a stranger's message) nothing was sent, and the loop in Python takes
the same state from there: it has the words for it. Nothing is allocated in either call.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from robot import safety
from robot.contract import OF_TIPS, Interface, Memory
from robot.errors import FlexorError
from robot.kinematics import TipKinematics
from robot.link import LinkBackend
from robot.link_wire import (
    ARRAYS,
    MAX_MESSAGE_BYTES,
    STATE_HEAD,
    LinkClosedError,
    LinkError,
    Step,
    frame,
    raw,
    state_head,
)
from robot.onboard.compiled import CompiledInference, build
from robot.onboard.filter import STRICT_FLAGS, CompiledFilter
from robot.onboard.flight import MODES, NO_FAULT, FlightRecorder
from robot.onboard.loop_report import Tally

TEXT = Path(__file__).with_name("tick.c")
DONE, CLOSED, SILENT, OTHER = range(4)  # what `read` says; more in tick.c
RINGS = ("latency", "inference", "lateness")
# Where each observation term's numbers are, and what is taken from them: names of RobotState, or of what is computed.
SOURCES: dict[str, tuple[str, str]] = {
    "joint_position": ("q_rad", ""),
    "joint_velocity": ("qd_rad_s", ""),
    "joint_target": ("target_rad", ""),
    "tracking_error": ("target_rad", "q_rad"),
    "motor_position": ("motor_rad", ""),
    "motor_current": ("motor_current_a", ""),
    "tip_position": ("tips", ""),
    "tip_force": ("tip_force_n", ""),
    "base_gyro": ("imu_gyro_rad_s", ""),
    "projected_gravity": ("gravity", ""),
    "gait_phase": ("phase", ""),
    "goal": ("goal", ""),
    "goal_position": ("goal", ""),
    "goal_error": ("goal", "tips"),
    "previous_action": ("action", ""),
}

_i, _d, _p = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Record(ctypes.Structure):
    """`struct tick`, field by field."""

    _fields_ = (
        *_fields(_i, "period_ns late_ns deadline_ns woken_ns ready_ns sent_ns fresh_ns"),
        *_fields(_i, "missed missed_by_robot periods steps success_steps late_states strange_in_a_row"),
        ("changed", _i * 5),
        ("totals", _i * 5),
        *_fields(_d, "reward_sum copper_j strangeness_max before_s time_s late_age_s stale_age_s dt_s"),
        *_fields(
            _i, "fd timeout_ms frame_room frame_size head_size flags_at time_at reward_at rewards out_size out_at"
        ),
        *_fields(_p, "frame out head"),
        *_fields(_i, "numbers joints tips depth elements histories phases started"),
        *_fields(_i, "q_at qd_at target_at current_at currents temperature_at temperatures force_at forces"),
        *_fields(_i, "quat_at gravity_at tips_at phase_at action_at"),
        *_fields(_p, "values wide past plus minus history chain moves fixed fixed_a fixed_aa origin offset"),
        *_fields(_p, "phase_s mean spread ohm"),
        *_fields(_d, "strange_limit strange_cap"),
        *_fields(_i, "strange_ticks"),
        *_fields(_p, "observation act weights io net_observation net_actions net_in net_out"),
        *_fields(_i, "actions recurrent relative"),
        *_fields(_p, "moved scale shift lower upper home filter rows asked bound"),
        *_fields(_d, "share ahead"),
        ("ring_room", _i),
        ("ring_count", _i * 3),
        ("ring", _p * 3),
        *_fields(_p, "flight flight_count"),
        *_fields(_i, "flight_room flight_item"),
        ("flight_at", _i * 16),
        *_fields(ctypes.c_uint8, "flight_mode flight_no_fault"),
    )


class TickError(FlexorError):
    """A contract, or a robot, that the compiled period cannot serve; the loop in Python does."""


class Tick:
    """The compiled period of one run. The loop loads what it knows, calls `read` and `decide`, and unloads.

    Args:
        interface: The contract, bound.
        policy: The compiled network; its buffers are shared.
        limiter: The compiled filter; its buffers are shared.
        robot: The link; its socket is shared.
        tally: The run's; its rings are written in place, counts are added by `unload`.
        strangeness: Out-of-distribution score, None for none.
        flight: Flight recorder, None for none; its ring is written in place.
        winding_ohm: Of the motors [ohm].
        late_answer: Share of a period by which an answer may come late.

    Raises:
        TickError: An observation term without C, or sensors the robot does not have.
        CompilerError: There is no compiler here.
    """

    def __init__(
        self,
        interface: Interface,
        policy: CompiledInference,
        limiter: CompiledFilter,
        robot: LinkBackend,
        tally: Tally,
        *,
        strangeness: safety.Strangeness | None,
        flight: FlightRecorder | None,
        winding_ohm: np.ndarray,
        late_answer: float,
    ) -> None:
        library = ctypes.CDLL(str(build(TEXT.read_text(), flags=STRICT_FLAGS)))
        self._read, self._decide = library.tick_read, library.tick_decide
        for call in (self._read, self._decide):
            call.argtypes, call.restype = (ctypes.c_void_p,), ctypes.c_int64
        library.tick_size.restype = ctypes.c_int64
        if library.tick_size() != ctypes.sizeof(Record):
            raise TickError(f"tick.c's record has {library.tick_size()} bytes, tick.py's {ctypes.sizeof(Record)}")
        self._library, self._tally, self._policy, self._limiter = library, tally, policy, limiter
        self._robot, self._interface = robot, interface
        self._keep: list[np.ndarray] = []
        self.record = t = Record()
        self._at = ctypes.addressof(t)
        contract = interface.contract
        t.period_ns, t.dt_s = round(1e9 / contract.control_hz), contract.dt_s
        t.late_ns = round(late_answer * t.period_ns)
        t.late_age_s = safety.LATE_PERIODS * contract.dt_s
        t.stale_age_s = safety.STALE_PERIODS * contract.dt_s
        self._link(robot)
        self._observe(interface)
        self._command(interface, policy, limiter)
        if strangeness is not None:
            t.mean = self._own(np.asarray(strangeness.mean, dtype=np.float64))
            t.spread = self._own(np.maximum(np.asarray(strangeness.std, dtype=np.float64), safety.LEAST_STD))
            t.strange_limit, t.strange_cap, t.strange_ticks = strangeness.limit, strangeness.cap, strangeness.ticks
        t.ohm = self._own(np.asarray(winding_ohm, dtype=np.float64))
        rings = [getattr(tally, name) for name in RINGS]
        t.ring_room = rings[0].room
        for k, ring in enumerate(rings):
            t.ring[k] = ring.address
        if flight is not None:
            self._fly(flight)

    def _own(self, array: np.ndarray) -> int:
        """The address of an array that lives as long as this object."""
        self._keep.append(np.ascontiguousarray(array))
        return self._keep[-1].ctypes.data

    def _link(self, robot: LinkBackend) -> None:
        t = self.record
        sizes, n = robot.sizes, len(robot.model.joints)
        starts = np.cumsum((0, *sizes)).tolist()
        at = dict(zip((*ARRAYS, "goal", "reward"), starts))
        size = dict(zip((*ARRAYS, "goal", "reward"), sizes))
        head = state_head(0.0, sizes)
        self._frame = np.zeros(MAX_MESSAGE_BYTES, dtype=np.uint8)
        t.frame, t.frame_room = self._own(self._frame), MAX_MESSAGE_BYTES
        t.head, t.head_size = self._own(np.frombuffer(head, dtype=np.uint8)), len(head)
        t.flags_at, t.time_at = 1, STATE_HEAD.size - 8
        t.fd, t.timeout_ms, t.numbers, t.joints = robot.fileno(), round(1e3 * robot.timeout_s), starts[-1], n
        t.reward_at, t.rewards = at["reward"], size["reward"]
        step = frame(Step(target_rad=raw(np.zeros(n))))
        t.out, t.out_size, t.out_at = (
            self._own(np.frombuffer(step, dtype=np.uint8).copy()),
            len(step),
            len(step) - 8 * n,
        )
        t.q_at, t.qd_at, t.target_at = at["q_rad"], at["qd_rad_s"], at["target_rad"]
        t.current_at, t.currents = at["motor_current_a"], size["motor_current_a"]
        t.temperature_at, t.temperatures = at["motor_temperature_c"], size["motor_temperature_c"]
        t.force_at, t.forces = at["tip_force_n"], size["tip_force_n"]
        self._place, self._size = at, size

    def _observe(self, interface: Interface) -> None:
        """Each element of the observation as one number, or the difference of two, of a list: the state's numbers, then what is
        computed from them, then what the policy did last.
        """
        t, contract = self.record, interface.contract
        place, size = dict(self._place), dict(self._size)
        end = int(t.numbers)

        def computed(name: str, count: int) -> int:
            nonlocal end
            place[name], size[name] = end, count
            end += count
            return place[name]

        terms = {term.name: term for term in contract.observation}
        if set(OF_TIPS) & set(terms):
            tables = TipKinematics(interface.model).tables
            t.depth, t.tips = tables.joint.shape
            for name in ("moves", "fixed", "fixed_a", "fixed_aa", "origin", "offset"):
                setattr(t, name, self._own(getattr(tables, name)))
            t.chain = self._own(tables.joint.astype(np.int64))
        t.tips_at = computed("tips", 3 * t.tips)
        t.gravity_at = -1
        if "projected_gravity" in terms:
            if size["imu_quat_xyzw"] != 4:
                raise TickError("observation term projected_gravity: the robot sends no orientation")
            t.quat_at, t.gravity_at = place["imu_quat_xyzw"], computed("gravity", 3)
        if "gait_phase" in terms:
            t.phases, t.phase_s = 1, self._own(np.array([terms["gait_phase"].period_s]))
            t.phase_at = computed("phase", 2)
        t.action_at = computed("action", contract.action_size)
        plus, minus, history = [], [], []
        for term in contract.observation:
            if term.name not in SOURCES:
                raise TickError(f"observation term {term.name} has no C; the loop in Python observes it")
            rows, older = interface.rows(term), term.size - term.size // term.history
            if older:
                history += [len(plus), len(rows), older]
            for name, into in zip(SOURCES[term.name], (plus, minus)):
                if name and rows.size and int(rows.max()) >= size[name]:
                    raise TickError(f"observation term {term.name}: the robot sends {size[name]} numbers of {name}")
                into += (place[name] + rows).tolist() if name else [-1] * len(rows)
                into += [-1] * older
        t.elements, t.histories = contract.observation_size, len(history) // 3
        self._past = np.zeros(sum(history[2::3]))
        self._history = [(term, term.history - 1) for term in contract.observation if term.history > 1]
        for name, numbers in (("plus", plus), ("minus", minus), ("history", history)):
            setattr(t, name, self._own(np.array(numbers, dtype=np.int64)))
        self._values = np.zeros(end)
        self._action = self._values[t.action_at :]
        self._observation = np.zeros(contract.observation_size, dtype=np.float32)
        t.values, t.observation, t.past = self._own(self._values), self._own(self._observation), self._own(self._past)
        t.wide = self._own(np.zeros(contract.observation_size))

    def _command(self, interface: Interface, policy: CompiledInference, limiter: CompiledFilter) -> None:
        t, action, model = self.record, interface.contract.action, interface.model
        t.act, t.weights, t.io = policy.pointers
        t.net_observation, t.net_actions = policy.observation.ctypes.data, policy.actions.ctypes.data
        if policy.state is not None:
            t.net_in, t.net_out = (part.ctypes.data for part in policy.state)
            t.recurrent = policy.state[0].size
        t.actions, t.relative = action.size, action.mode == "relative"
        t.moved = self._own(np.array([model.index(joint) for joint in action.joints], dtype=np.int64))
        for name, values in (
            ("scale", action.scale_rad),
            ("shift", action.offset_rad),
            ("lower", action.lower_rad),
            ("upper", action.upper_rad),
            ("home", interface.contract.home_rad),
        ):
            setattr(t, name, self._own(np.array(values, dtype=np.float64)))
        t.filter, t.rows, t.bound = limiter.pointers
        t.share, t.ahead = limiter.rates
        self._asked = np.zeros(len(model.joints))
        t.asked = self._own(self._asked)

    def _fly(self, flight: FlightRecorder) -> None:
        t, ring = self.record, flight.ring
        fields = ring.layout.dtype.fields
        assert fields is not None
        t.flight, t.flight_count = ring.records.ctypes.data, ring.count.ctypes.data
        t.flight_room, t.flight_item = ring.layout.periods, ring.layout.dtype.itemsize
        for k, (_, at, *_) in enumerate(fields.values()):
            t.flight_at[k] = at
        t.flight_mode, t.flight_no_fault = MODES.index(safety.Mode.POLICY), NO_FAULT

    def load(
        self,
        memory: Memory,
        numbers: np.ndarray,
        *,
        sent_rad: np.ndarray,
        sent_ns: int,
        ready_ns: int,
        fresh_ns: int,
        robot_s: float,
        strange: int,
    ) -> None:
        """Take over from the loop in Python, with a state to answer.

        Args:
            memory: Of the controller.
            numbers: That state's, as on the wire.
            sent_rad, sent_ns: The target sent last, and when.
            ready_ns, fresh_ns: Since when the state is in hand, and fresh.
            robot_s: The state's own time.
            strange: Strange observations in a row before it.
        """
        t = self.record
        self._values[: t.numbers] = numbers
        self._action[:] = memory.previous_action
        t.started, t.time_s = bool(memory.past), memory.time_s
        if memory.past:
            self._past[:] = np.concatenate([memory.past[term.name].reshape(-1) for term, _ in self._history])
        self._limiter.previous[:] = sent_rad
        t.sent_ns, t.ready_ns, t.fresh_ns, t.before_s = sent_ns, ready_ns, fresh_ns, robot_s
        t.strange_in_a_row, t.periods = strange, 0
        for k, name in enumerate(RINGS):
            t.ring_count[k] = getattr(self._tally, name).count

    def read(self, deadline_ns: int) -> int:
        """Wait for the deadline and take in the answer: DONE, or what else there is.

        `record` then says: `deadline_ns`, the deadline that was met, and `ready_ns`, since when the state is there.
        """
        self.record.deadline_ns = deadline_ns
        return self._read(self._at)

    def decide(self) -> bool:
        """Decide and command; False where nothing was sent."""
        return self._decide(self._at) == DONE

    @property
    def decided(self) -> bool:
        """Whether anything was sent since `load`."""
        return self.record.periods > 0

    def message(self, code: int) -> bytes:
        """The message that `read` took in when it said DONE, or that there is something in it that only Python knows.

        Raises:
            LinkClosedError, LinkError: There is none: the other end is gone, silent, or announced an absurd length.
        """
        size = self.record.frame_size
        if code == CLOSED:
            raise LinkClosedError("the other end of the link is gone")
        if code == SILENT:
            raise LinkError(f"the other end of the link did not answer within {self._robot.timeout_s} s")
        if code == OTHER:
            raise LinkError(f"a message must have 1..{MAX_MESSAGE_BYTES} bytes, got a length of {size}")
        return self._frame[:size].tobytes()

    def unload(self, goal: np.ndarray) -> tuple[Memory, np.ndarray]:
        """Give back to the loop in Python: adds to the tally, and gives the memory and the target sent, all fresh."""
        t, tally = self.record, self._tally
        for name in ("missed", "missed_by_robot", "periods", "steps", "success_steps", "late_states"):
            setattr(tally, name, getattr(tally, name) + getattr(t, name))
            setattr(t, name, 0)
        for name in ("reward_sum", "copper_j"):
            setattr(tally, name, getattr(tally, name) + getattr(t, name))
            setattr(t, name, 0.0)
        tally.strangeness_max = max(tally.strangeness_max, t.strangeness_max)
        for k, name in enumerate(("slewed", "clamped", "slowed", "eased", "braked")):
            setattr(tally, name, getattr(tally, name) + t.totals[k])
            t.totals[k] = 0
        for k, name in enumerate(RINGS):
            getattr(tally, name).count = t.ring_count[k]
        past, start = {}, 0
        for term, older in self._history:
            n = term.size // term.history
            past[term.name] = self._past[start : start + n * older].reshape(older, n).copy()
            start += n * older
        memory = Memory(goal=goal, previous_action=self._action.copy(), time_s=t.time_s, past=past)
        return memory, self._limiter.previous.copy()
