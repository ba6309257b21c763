"""The control period in C (`tick.c`): what the loop in Python does when all is in order, without it.

`decide` observes, runs the compiled network, commands through the compiled filter, and sends; `read` sleeps until the deadline,
takes in the robot's answer and accounts for the step. Between them the interpreter asks for stops. Where only signals can stop the
run, `read` goes on by itself, period after period, until a signal comes: waking the interpreter costs more than all the rest. Where
anything is out of the ordinary (end of an episode, a fault, a stranger's message) nothing was sent, and the loop in Python takes
the same state from there: it has the words for it. Behind a link nothing is allocated in either call; a robot that only Python can
talk to (`robot.onboard.tick_io`) allocates what its own state does.
"""

import numpy as np

from robot import safety
from robot.contract import OF_TIPS, Interface, Memory
from robot.experience import Chunk
from robot.kinematics import TipKinematics
from robot.link import LinkBackend
from robot.link_wire import ARRAYS
from robot.onboard.compiled import CompiledInference
from robot.onboard.explore import log_density
from robot.onboard.filter import CompiledFilter
from robot.onboard.flight import FlightRecorder
from robot.onboard.flight_ring import MODES, NO_FAULT
from robot.onboard.loop_report import Tally
from robot.onboard.recorder import Recorder
from robot.onboard.robots import Robot
from robot.onboard.tick_io import Line, OverLink, ThroughPython
from robot.onboard.tick_record import DONE, Keeper, Record, TickError, load_library
from robot.state import RobotState, wrong_sizes

FOR_EVER_NS = 2**63 - 1
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


class Tick:
    """The compiled period of one run. The loop loads what it knows, calls `read` and `decide`, and unloads.

    Args:
        interface: The contract, bound.
        policy: The compiled network; its buffers are shared.
        limiter: The compiled filter; its buffers are shared.
        robot: What is driven, after a reset.
        state: What it said.
        tally: The run's; its rings are written in place, counts are added by `unload`.
        strangeness: Out-of-distribution score, None for none.
        flight: Flight recorder, None for none; its ring is written in place.
        recorder: Takes the experience, None for none; its chunk is written in place.
        noise, std: What a decision adds to the mean action, std times noise, shape (n_actions,); the loop draws `noise` before each
            decision. None to act without.
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
        robot: Robot,
        state: RobotState,
        tally: Tally,
        *,
        strangeness: safety.Strangeness | None,
        flight: FlightRecorder | None,
        recorder: Recorder | None,
        noise: np.ndarray | None,
        std: np.ndarray,
        winding_ohm: np.ndarray,
        late_answer: float,
    ) -> None:
        library = load_library()
        self._tally, self._policy, self._limiter, self._interface = tally, policy, limiter, interface
        self._recorder, self._std, self._noise = recorder, std, noise
        self._line: Line = (
            OverLink(robot, library)
            if isinstance(robot, LinkBackend)
            else ThroughPython(robot, state, limiter.target, library)
        )
        self._own, self._first = Keeper(), state
        self.record = t = Record()
        contract = interface.contract
        t.period_ns, t.dt_s = round(1e9 / contract.control_hz), contract.dt_s
        t.late_ns = round(late_answer * t.period_ns)
        t.late_age_s = safety.LATE_PERIODS * contract.dt_s
        t.stale_age_s = safety.STALE_PERIODS * contract.dt_s
        self.run_on(-1, None)
        self._place_numbers()
        self._observe(interface)
        self._command(interface, policy, limiter)
        self._line.attach(t, self._own, self._values[: t.numbers])
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
        if recorder is not None:
            self._keep_experience(recorder)

    def _place_numbers(self) -> None:
        """Where each array of a state is in the row of its numbers."""
        if wrong := wrong_sizes(self._first, self._interface.model):
            raise TickError(wrong)
        t, sizes, names = self.record, self._line.sizes, (*ARRAYS, "goal", "reward")
        starts = np.cumsum((0, *sizes)).tolist()
        at, size = dict(zip(names, starts)), dict(zip(names, sizes))
        t.numbers, t.joints = starts[-1], len(self._interface.model.joints)
        t.reward_at, t.rewards = at["reward"], size["reward"]
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
        self.observation = np.zeros(contract.observation_size, dtype=np.float32)
        t.values, t.observation, t.past = self._own(self._values), self._own(self.observation), self._own(self._past)
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
        self.chosen = np.zeros(action.size, dtype=np.float32)
        t.chosen = self._own(self.chosen)
        if self._noise is not None:
            t.noise, t.std = self._own(self._noise), self._own(self._std)
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

    def _keep_experience(self, recorder: Recorder) -> None:
        t, rows = self.record, recorder.rows
        if rows["reward"].shape[1] != t.rewards:
            raise TickError(f"the robot sends {t.rewards} reward terms, the recorder has {rows['reward'].shape[1]}")
        t.row_room = recorder.room
        for name, array in rows.items():
            setattr(t, f"row_{name}", self._own(array))

    def load(
        self,
        memory: Memory,
        state: RobotState,
        *,
        sent_rad: np.ndarray,
        sent_ns: int,
        ready_ns: int,
        fresh_ns: int,
        strange: int,
    ) -> None:
        """Take over from the loop in Python, with a state to answer.

        Args:
            memory: Of the controller.
            state: What the robot said last.
            sent_rad, sent_ns: The target sent last, and when.
            ready_ns, fresh_ns: Since when the state is in hand, and fresh.
            strange: Strange observations in a row before it.
        """
        t = self.record
        self._values[: t.numbers] = self._line.numbers(state)
        self._action[:] = memory.previous_action
        t.started, t.time_s = bool(memory.past), memory.time_s
        if memory.past:
            self._past[:] = np.concatenate([memory.past[term.name].reshape(-1) for term, _ in self._history])
        self._limiter.previous[:] = sent_rad
        t.sent_ns, t.ready_ns, t.fresh_ns, t.before_s = sent_ns, ready_ns, fresh_ns, state.time_s
        t.strange_in_a_row, t.periods = strange, 0
        for k, name in enumerate(RINGS):
            t.ring_count[k] = getattr(self._tally, name).count
        if self._recorder is not None:
            t.row_count, t.row_start_ns = self._recorder.count, self._recorder.start_ns

    def run_on(self, wake_fd: int, end_ns: int | None) -> None:
        """How far `read` goes by itself.

        Args:
            wake_fd: Socket in which a byte says that a signal came; -1 to come back after each period.
            end_ns: Come back with the first state at or after this time, None for no end.
        """
        self.record.wake_fd = wake_fd if self._noise is None else -1  # the interpreter draws the noise
        self.record.end_ns = FOR_EVER_NS if end_ns is None else end_ns

    def read(self, deadline_ns: int) -> int:
        """Wait for the deadline and take in the answer: DONE, or what else there is. After `run_on`, decide and go on until somebody has
        to be asked.

        `record` then says: `deadline_ns`, the deadline that was met, `ready_ns`, since when the state is there, and `unanswered`,
        whether `decide` was tried on it and sent nothing.
        """
        self.record.deadline_ns = deadline_ns
        return self._line.read()

    def decide(self) -> bool:
        """Decide and command; False where nothing was sent. Once it was sent, `observation`, `chosen` and `log_prob` say what."""
        if self._line.decide() != DONE:
            return False
        if self._recorder is not None:
            self.record.log_prob = self.log_prob
        return True

    @property
    def log_prob(self) -> float:
        """Log density of what was chosen, NaN without noise."""
        return np.nan if self._noise is None else log_density(self.chosen, self._policy.actions, self._std)

    def full_chunk(self) -> Chunk | None:
        """The chunk that is full, its last observation the one just acted on; None while there is room."""
        t = self.record
        if self._recorder is None or t.row_count < t.row_room:
            return None
        self._recorder.wrote(t.row_count, t.row_start_ns)
        t.row_count = 0
        return self._recorder.seal_full(self.observation)

    @property
    def decided(self) -> bool:
        """Whether anything was sent since `load`."""
        return self.record.periods > 0

    @property
    def in_step(self) -> bool:
        """Whether the robot has answered everything that was asked; else only the loop in Python can go on."""
        return self._line.in_step

    def state(self, code: int) -> RobotState | None:
        """The state that `read` took in last; after SILENT the one before, None where there was none since `load`.

        Raises:
            FlexorError: There is none: the other end is gone, or announced an absurd length.
        """
        return self._line.state(code)

    def unload(self, goal: np.ndarray) -> tuple[Memory, np.ndarray]:
        """Give back to the loop in Python: adds to the tally, and gives the memory and the target sent, all fresh."""
        t, tally = self.record, self._tally
        for name in (
            "missed",
            "missed_by_robot",
            "missed_by_system",
            "periods",
            "steps",
            "success_steps",
            "late_states",
        ):
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
        if self._recorder is not None:
            self._recorder.wrote(t.row_count, t.row_start_ns)
        past, start = {}, 0
        for term, older in self._history:
            n = term.size // term.history
            past[term.name] = self._past[start : start + n * older].reshape(older, n).copy()
            start += n * older
        memory = Memory(goal=goal, previous_action=self._action.copy(), time_s=t.time_s, past=past)
        return memory, self._limiter.previous.copy()
