"""The compiled control period is the one in Python: the same commands, faults, counts and recordings, and it allocates nothing."""

import ctypes
import os
import signal
import socket
import threading
import tracemalloc
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from onboard_helpers import HAND, artifact, model

from fleet.body import Body
from robot import link, safety
from robot.contract import OBSERVATION_TERMS, Contract, Term
from robot.description import load
from robot.experience import Chunk
from robot.link import LinkBackend, LinkClosedError, TaskFeedback
from robot.mock import MockBackend
from robot.onboard import loop as loops
from robot.onboard import realtime, tick_io
from robot.onboard import tick as ticks
from robot.onboard.compiled import CompiledInference
from robot.onboard.filter import CompiledFilter
from robot.onboard.flight import FlightRecorder
from robot.onboard.hardware import connect_hardware
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.recorder import Recorder
from robot.onboard.robots import Direct
from robot.onboard.start import strangeness
from robot.onboard.tick import Record, Tick
from robot.onboard.tick_record import TickError, load_library
from robot.reaching import ENV_ID, reach_contract
from robot.safety import Fault, Limits, Strangeness

HZ = 500.0  # tests that wait for deadlines wait little
BODY = load("body28")


def wide(robot, history: int = 3, scale_rad: float = 0.01) -> Contract:
    """A contract with every observation term that the robot can measure, some of them with a history."""
    plain = reach_contract(robot, control_hz=HZ, scale_rad=scale_rad)
    joints, motors, goal = plain.action.joints, robot.motor_names, plain.goal
    n = {
        "joint_position": (joints, "rad", "joint"),
        "joint_velocity": (joints, "rad/s", "joint"),
        "joint_target": (joints, "rad", "joint"),
        "tracking_error": (joints, "rad", "joint"),
        "motor_position": (motors[2:7], "rad", "motor"),
        "motor_current": (motors[:3], "A", "motor"),
        "tip_position": (goal, "m", "palm"),
        "tip_force": (robot.tip_names, "N", "tip"),
        "base_gyro": (("x", "y", "z"), "rad/s", "base"),
        "projected_gravity": (("x", "y", "z"), "1", "base"),
        "gait_phase": (("sin", "cos"), "1", "clock"),
        "goal": (goal, "m", "palm"),
        "goal_position": (goal, "m", "palm"),
        "goal_error": (goal, "m", "palm"),
        "previous_action": (joints, "1", "action"),
    }
    assert set(n) == set(ticks.SOURCES)
    lacks = {"tip_position", "tip_force", "goal", "goal_position", "goal_error"} if robot is BODY else set()
    lacks |= set() if robot.floating else {"base_gyro", "projected_gravity"}
    terms = []
    for name, (elements, unit, frame) in n.items():
        if name in lacks:
            continue
        steps = history if name in ("joint_position", "goal_error", "projected_gravity", "previous_action") else 1
        row = tuple(elements) * steps
        terms.append(
            Term(
                name=name,
                elements=row,
                unit=unit,
                frame=frame,
                low=(-9.0,) * len(row),
                high=(9.0,) * len(row),
                period_s=0.5 if name == "gait_phase" else 0.0,
                history=steps,
            )
        )
    contract = msgspec.structs.replace(plain, observation=tuple(terms))
    contract.validate()
    return contract


class Side:
    """A mock with a goal and a reward, that keeps what it was sent and says what a test wants it to say."""

    env_id, control_hz = ENV_ID, HZ

    def __init__(self, robot, spoil=None, episode_steps=10**9):
        self.model, self._backend, self._episode_steps = robot, MockBackend(robot, HZ), episode_steps
        self.sent, self.spoil, self.on_step, self._k = [], spoil or {}, lambda k: None, 0

    def reset(self, rng_seed):
        self._rng, self._k = np.random.default_rng(rng_seed), 0
        return self._backend.reset(None, self._rng), self._feedback()

    def _feedback(self):
        self._goal = self._rng.normal(0.0, 0.1, 3 * len(self.model.tips))
        return TaskFeedback(
            goal=self._goal,
            reward_names=("a", "b"),
            reward_terms=self._rng.normal(size=2),
            success=bool(self._rng.random() < 0.3),
            truncated=self._k >= self._episode_steps,
        )

    def step(self, command):
        state = self._backend.step(command)
        self._k += 1
        self.sent.append(command.target_rad)
        self.on_step(len(self.sent))
        if self.model.floating:
            angle = 0.1 * self._k
            quat = np.array([np.sin(angle), 0.0, 0.0, np.cos(angle)])
            state = replace(state, imu_gyro_rad_s=np.array([0.1, angle, -angle]), imu_quat_xyzw=quat)
        change = self.spoil.get(len(self.sent))
        return (change(state) if change else state), self._feedback()

    def close(self):
        pass


@pytest.fixture
def patient(monkeypatch):
    """The machine that runs the tests may be busy; data does not grow too old here."""
    monkeypatch.setattr(safety, "STALE_PERIODS", 1e6)
    monkeypatch.setattr(safety, "LATE_PERIODS", 1e6)


def run(contract, robot=HAND, *, compiled=True, seconds=20.0, side=None, folder=None, linked=True, **more):
    """A run of the loop, over a link or not; gives the report, what the robot was sent, and what the flight recorder holds."""
    made = artifact(model(contract), contract)
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    side = side or Side(robot)
    thread = threading.Thread(target=link.converse, args=(side, theirs))
    thread.start()
    behind = LinkBackend(ours)
    backend = behind if linked else Direct(side)
    limiter = CompiledFilter(Limits.of(robot, contract.dt_s))
    interface = contract.bind(robot)
    flight = FlightRecorder(interface, folder, seconds=10.0) if folder is not None else None
    config = more.pop("config", LoopConfig(seconds=seconds))
    more.setdefault("strangeness", strangeness(made))
    loop = ControlLoop(
        backend,
        interface,
        CompiledInference(made),
        rng=np.random.default_rng(3),
        config=config,
        limiter=limiter,
        flight=flight,
        **more,
    )
    assert loop._tick is not None, "there is a compiler here"
    loop._tick = loop._tick if compiled else None
    try:
        report = loop.run()
        rows = flight.ring.last().copy() if flight is not None else None
    finally:
        behind.close()
        if flight is not None:
            flight.close()
        thread.join(20.0)
        theirs.close()
    return report, np.array(side.sent), rows


@pytest.mark.parametrize(
    "contract, robot",
    [
        (reach_contract(HAND, control_hz=HZ, scale_rad=0.01), HAND),
        (wide(HAND, scale_rad=2.0), HAND),
        (wide(BODY), BODY),
    ],
    ids=["reach", "every term of a hand, every filter", "every term of a body"],
)
def test_the_compiled_period_commands_records_and_counts_what_python_does(contract, robot, tmp_path, patient):
    config = LoopConfig(seconds=60.0, episodes=4)
    lax = Strangeness(mean=np.zeros(contract.observation_size), std=np.ones(contract.observation_size), limit=1e9)
    seen = [
        run(
            contract,
            robot,
            compiled=compiled,
            side=Side(robot, episode_steps=30),
            config=config,
            folder=tmp_path / str(compiled),
            strangeness=lax,
        )
        for compiled in (True, False)
    ]
    (report, sent, rows), (plain, plain_sent, plain_rows) = seen
    assert len(sent) == 120
    np.testing.assert_array_equal(sent, plain_sent)
    assert len(rows) == len(plain_rows) >= 100
    for name in rows.dtype.names:
        if name not in ("time_ns", "latency_us"):
            np.testing.assert_array_equal(rows[name], plain_rows[name], err_msg=name)
    for name in ("steps", "periods", "episodes", "successes", "success_steps", "late_states", "fault"):
        assert getattr(report, name) == getattr(plain, name), name
    changed = [sum(getattr(r, n) for n in ("slewed", "clamped", "slowed", "eased", "braked")) for r in (report, plain)]
    assert changed[0] == changed[1] and (changed[0] > 1000 or contract.action.scale_rad[0] < 1.0)
    for name in ("reward_sum", "copper_j", "strangeness_max"):
        assert getattr(report, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    assert report.latency.samples == report.periods and report.lateness.samples == report.periods
    assert report.inference.samples == report.steps


def lived(contract, *, compiled, linked, explore, folder, spoil=None, **more):
    """A run that records: report, chunks, targets sent, flight recording."""
    chunks: list[Chunk] = []
    std = np.full(contract.action_size, 0.3) if explore else None
    recorder = Recorder(contract=contract, policy_sha256="p", reward_names=("a", "b"), steps_per_chunk=8)
    report, sent, rows = run(
        contract,
        compiled=compiled,
        linked=linked,
        side=Side(HAND, spoil, episode_steps=30),
        config=LoopConfig(seconds=60.0, episodes=3, exploration_std=std),
        folder=folder,
        recorder=recorder,
        on_chunk=chunks.append,
        strangeness=None,
        **more,
    )
    return report, chunks, sent, rows


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("linked", [True, False])
def test_the_compiled_period_gives_the_experience_that_python_gives(linked, explore, tmp_path, patient):
    contract = wide(HAND)
    seen = [
        lived(contract, compiled=compiled, linked=linked, explore=explore, folder=tmp_path / str(compiled))
        for compiled in (True, False)
    ]
    (report, chunks, sent, rows), (plain, plain_chunks, plain_sent, plain_rows) = seen
    np.testing.assert_array_equal(sent, plain_sent)
    assert report.steps == plain.steps == 90 and report.successes == plain.successes
    assert [c.header.steps for c in chunks] == 3 * [8, 8, 8, 6] and [c.header.ended for c in chunks[3::4]] == 3 * [
        "truncated"
    ]
    same_chunks(chunks, plain_chunks)
    assert np.isfinite(chunks[0].log_prob).all() == explore
    for name in ("q_rad", "observation", "action", "asked_rad", "sent_rad", "changed", "robot_s"):
        np.testing.assert_array_equal(rows[name], plain_rows[name], err_msg=name)


def same_chunks(chunks, others):
    assert len(chunks) == len(others)
    ids: dict[str, str] = {}
    for chunk, other in zip(chunks, others):
        assert ids.setdefault(chunk.header.episode_id, other.header.episode_id) == other.header.episode_id
        for name in Chunk.__struct_fields__:
            if name != "header":
                np.testing.assert_array_equal(getattr(chunk, name), getattr(other, name), err_msg=name)
        assert chunk.header.start_time_ns > 10**18
        named = [msgspec.structs.replace(c.header, episode_id="", start_time_ns=0) for c in (chunk, other)]
        assert named[0] == named[1]


@pytest.mark.parametrize("linked", [True, False])
def test_a_fault_amid_an_episode_leaves_the_same_experience(linked, tmp_path, patient):
    contract = reach_contract(HAND, control_hz=HZ)
    seen = [
        lived(contract, compiled=c, linked=linked, explore=True, folder=None, spoil={21: nan_in_joint(4)})
        for c in (True, False)
    ]
    (report, chunks, sent, _), (plain, plain_chunks, plain_sent, _) = seen
    assert report.fault is plain.fault is Fault.OBSERVATION and report.fault_text == plain.fault_text
    assert sum(c.header.steps for c in chunks) == 20  # the step whose outcome nobody could read is dropped
    np.testing.assert_array_equal(sent, plain_sent)
    same_chunks(chunks, plain_chunks)


def test_a_robot_that_breaks_amid_an_episode_leaves_what_was_seen(patient):
    contract = reach_contract(HAND, control_hz=HZ)
    side, chunks = Side(HAND), []

    def leave(k):
        if k == 20:
            raise link.LinkClosedError("as if a cable had come off")

    side.on_step = leave
    recorder = Recorder(contract=contract, policy_sha256="p", reward_names=("a", "b"), steps_per_chunk=8)
    with pytest.raises(LinkClosedError, match="cable"):
        run(contract, side=side, linked=False, seconds=5.0, recorder=recorder, on_chunk=chunks.append)
    assert [c.header.steps for c in chunks] == [
        8,
        8,
        2,
    ]  # of 19 whole steps the last one's outcome becomes the last observation
    whole = np.concatenate([c.observation for c in chunks])
    for chunk, after in zip(chunks, (8, 16)):
        np.testing.assert_array_equal(chunk.last_observation, whole[after])


def nan_in_joint(i):
    def spoil(state):
        q = state.q_rad.copy()
        q[i] = np.nan
        return replace(state, q_rad=q)

    return spoil


def still(state):
    return replace(state, time_s=20 / HZ)


@pytest.mark.parametrize(
    "spoil, more, fault",
    [
        ({20: nan_in_joint(4)}, {}, Fault.OBSERVATION),
        ({20: nan_in_joint(0)}, {}, Fault.OBSERVATION),  # a joint this policy does not look at
        ({k: still for k in range(21, 999)}, {}, Fault.STALE),
        ({}, {"strangeness": Strangeness(mean=np.zeros(1), std=np.ones(1), ticks=7)}, Fault.STRANGE),
    ],
    ids=["nan", "nan unseen", "clock stands still", "strange"],
)
def test_every_fault_is_answered_as_python_answers_it(spoil, more, fault, monkeypatch):
    if fault is not Fault.STALE:
        monkeypatch.setattr(safety, "STALE_PERIODS", 1e6)
    contract = reach_contract(HAND, control_hz=HZ)
    if "strangeness" in more:
        size = contract.observation_size
        more = {"strangeness": Strangeness(mean=np.full(size, 9.0), std=np.full(size, 0.1), ticks=7)}
    seen = [run(contract, compiled=c, side=Side(HAND, dict(spoil)), **more)[:2] for c in (True, False)]
    (report, sent), (plain, plain_sent) = seen
    assert report.fault is plain.fault is fault
    words = [r.fault_text.partition(" ms")[0] if fault is not Fault.STALE else "" for r in (report, plain)]
    assert words[0] == words[1]
    if fault is not Fault.STALE:  # how many old answers make one too old depends on when the machine woke us
        assert report.steps == plain.steps
        np.testing.assert_array_equal(sent, plain_sent)
    assert np.isfinite(sent).all()


def test_a_network_that_says_nan_moves_nothing(patient):
    contract = reach_contract(HAND, control_hz=HZ)

    def break_weights(proto):
        for weight in proto.graph.initializer:
            if weight.name == "b2":
                weight.raw_data = np.full(weight.dims[0], np.nan, dtype=np.float32).tobytes()

    made = artifact(model(contract), contract, edit=break_weights)
    policy = CompiledInference.__new__(CompiledInference)  # as if admission had not refused it
    import robot.onboard.compiled as compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "check_parity", lambda *_: 0.0)
        policy.__init__(made)
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    side = Side(HAND)
    thread = threading.Thread(target=link.converse, args=(side, theirs))
    thread.start()
    backend = LinkBackend(ours)
    loop = ControlLoop(
        backend,
        contract.bind(HAND),
        policy,
        rng=np.random.default_rng(0),
        config=LoopConfig(seconds=1.0),
        limiter=CompiledFilter(Limits.of(HAND, contract.dt_s)),
    )
    report = loop.run()
    backend.close()
    thread.join(20.0)
    theirs.close()
    assert report.fault is Fault.ACTION and report.steps == 0
    np.testing.assert_array_equal(side.sent[0], HAND.home_rad)


def test_the_emergency_stop_and_a_stop_are_heard_between_two_periods(patient):
    contract = reach_contract(HAND, control_hz=HZ)
    side = Side(HAND)
    report, sent, _ = run(
        contract, side=side, estop=lambda: len(side.sent) == 30, seconds=60.0
    )  # a short press is enough
    assert report.fault is Fault.ESTOP and report.steps == 30 and len(sent) == 32
    side = Side(HAND)
    report, sent, _ = run(contract, side=side, should_stop=lambda: len(side.sent) >= 30, seconds=60.0)
    assert report.fault is None and report.steps == 30


@pytest.fixture
def reads(monkeypatch):
    """How often the interpreter came to wait for an answer."""
    came, read = [], tick_io.OverLink.read

    def counted(line):
        came.append(1)
        return read(line)

    monkeypatch.setattr(tick_io.OverLink, "read", counted)
    return came


def test_where_only_signals_stop_a_run_the_interpreter_sleeps_through_it_and_hears_the_emergency_stop_at_once(
    patient, reads
):
    side = Side(HAND)
    side.on_step = lambda k: os.kill(os.getpid(), signal.SIGUSR2) if k == 30 else None
    with realtime.stop_on_signals() as should_stop, realtime.emergency_stop() as estop:
        report, sent, _ = run(
            reach_contract(HAND, control_hz=HZ), side=side, estop=estop, should_stop=should_stop, seconds=60.0
        )
    assert report.fault is Fault.ESTOP and report.steps == 30 and len(sent) == 32
    assert len(reads) == 1
    side, _ = Side(HAND), reads.clear()
    with realtime.emergency_stop() as estop:  # another thread may press it
        side.on_step = lambda k: estop.press() if k == 30 else None
        report, _, _ = run(reach_contract(HAND, control_hz=HZ), side=side, estop=estop, seconds=60.0)
    assert report.fault is Fault.ESTOP and report.steps == 30 and len(reads) == 1
    side, _ = Side(HAND), reads.clear()
    side.on_step = lambda k: os.kill(os.getpid(), signal.SIGTERM) if k == 30 else None
    with realtime.stop_on_signals() as should_stop:
        report, _, _ = run(reach_contract(HAND, control_hz=HZ), side=side, should_stop=should_stop, seconds=60.0)
    assert report.fault is None and report.steps == 30 and len(reads) == 1


def test_an_emergency_stop_with_a_file_is_asked_after_every_period(patient, reads, tmp_path):
    side = Side(HAND)
    side.on_step = lambda k: (tmp_path / "stop").touch() if k == 30 else None
    with realtime.emergency_stop(tmp_path / "stop") as estop:
        report, _, _ = run(reach_contract(HAND, control_hz=HZ), side=side, estop=estop, seconds=60.0)
    assert report.fault is Fault.ESTOP and report.steps == 30 and len(reads) == 30


def test_nobody_elses_way_to_hear_of_signals_is_taken():
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    assert signal.set_wakeup_fd(theirs.fileno()) == -1
    try:
        with realtime.woken_by_signals() as wake_fd:
            assert wake_fd == -1
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
    finally:
        signal.set_wakeup_fd(-1)
        ours.close()
        theirs.close()
    with realtime.woken_by_signals() as wake_fd:
        assert wake_fd >= 0
    assert signal.set_wakeup_fd(-1) == -1


def test_a_robot_that_goes_away_is_said_so_and_what_was_done_is_counted(patient):
    contract = reach_contract(HAND, control_hz=HZ)
    side = Side(HAND)

    def leave(k):
        if k == 20:
            raise link.LinkClosedError("as if the process had died")

    side.on_step = leave
    made = artifact(model(contract), contract)
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)

    def serve():
        link.converse(side, theirs)
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    backend = LinkBackend(ours)
    loop = ControlLoop(
        backend,
        contract.bind(HAND),
        CompiledInference(made),
        rng=np.random.default_rng(0),
        config=LoopConfig(seconds=5.0),
        limiter=CompiledFilter(Limits.of(HAND, contract.dt_s)),
    )
    with pytest.raises((LinkClosedError, link.LinkError)):
        loop.run()
    assert loop._tally.steps == 19
    backend.close()
    thread.join(20.0)


def test_nothing_is_allocated_in_a_period(patient):
    contract = reach_contract(HAND, control_hz=HZ)
    found, side = [], Side(HAND)
    only = tracemalloc.Filter(True, "*/robot/onboard/*")  # the mock runs in this process, too

    def watch():
        if len(found) < 2 and len(side.sent) >= (100, 200)[len(found)]:
            found.append(tracemalloc.take_snapshot().filter_traces([only]))
        return len(found) == 2

    tracemalloc.start(5)
    try:
        run(contract, side=side, seconds=60.0, should_stop=watch)
    finally:
        tracemalloc.stop()
    assert len(found) == 2
    grown = [d for d in found[1].compare_to(found[0], "lineno") if d.size_diff > 0]
    # Numbers that are kept from one period to the next: some live integers, no array and nothing that grows; one small array a period
    # would be 100 times 100 bytes and more.
    assert sum(d.size_diff for d in grown) < 4096, grown


def test_every_observation_term_has_c_but_those_of_tracked_objects():
    in_python = {"object_position", "object_rotation", "object_turn_to_goal", "object_goal_error"}
    assert set(ticks.SOURCES) == set(OBSERVATION_TERMS) - in_python


def test_the_record_in_c_and_in_python_are_one():
    library = load_library()
    assert library.tick_size() == ctypes.sizeof(Record)


def test_sensors_the_robot_does_not_have_are_left_to_python(monkeypatch):
    contract = wide(HAND)
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    side = Side(HAND)
    bare = side.reset
    side.reset = lambda seed: (lambda s, f: (replace(s, tip_force_n=np.zeros(0)), f))(*bare(seed))
    thread = threading.Thread(target=link.converse, args=(side, theirs))
    thread.start()
    backend = LinkBackend(ours)
    state = backend.reset(None, np.random.default_rng(0))
    made = artifact(model(contract), contract)
    from robot.onboard.loop_report import Tally

    with pytest.raises(TickError, match="tip_force: the robot sends 0 numbers"):
        Tick(
            contract.bind(HAND),
            CompiledInference(made),
            CompiledFilter(Limits.of(HAND, contract.dt_s)),
            backend,
            state,
            Tally(),
            strangeness=None,
            flight=None,
            recorder=None,
            noise=None,
            std=np.zeros(contract.action_size),
            winding_ohm=np.ones(len(HAND.motor_names)),
            late_answer=loops.LATE_ANSWER,
        )
    backend.close()
    thread.join(20.0)
    theirs.close()


def test_a_hand_on_a_motor_bus_is_driven_by_the_compiled_period_as_by_python(tmp_path, patient):
    contract = reach_contract(HAND, control_hz=HZ)
    made, seen = artifact(model(contract), contract), []
    for compiled in (True, False):
        robot, chunks = connect_hardware(HAND, HZ), []
        flight = FlightRecorder(contract.bind(HAND), tmp_path, seconds=10.0)
        recorder = Recorder(contract=contract, policy_sha256="p", reward_names=("none",), steps_per_chunk=8)
        loop = ControlLoop(
            Body(robot),  # as the fleet's robots are
            contract.bind(HAND),
            CompiledInference(made),
            rng=np.random.default_rng(3),
            config=LoopConfig(blend_s=0.02),
            flight=flight,
            recorder=recorder,
            on_chunk=chunks.append,
            should_stop=lambda at=flight.ring.count: int(at[0]) >= 40,
        )
        assert loop._tick is not None
        loop._tick = loop._tick if compiled else None
        report = loop.run()
        assert report.steps == 40 and report.fault is None
        seen.append((flight.ring.last().copy(), chunks))
        flight.close()
        robot.close()
    (rows, chunks), (plain_rows, plain_chunks) = seen
    for name in rows.dtype.names:
        if name not in ("time_ns", "latency_us"):
            np.testing.assert_array_equal(rows[name], plain_rows[name], err_msg=name)
    assert [c.header.steps for c in chunks] == [8] * 5
    same_chunks(chunks, plain_chunks)


class Stuck:
    """Makes a robot stop answering at a step, until somebody opens the gate."""

    def __init__(self, side, at=20):
        self.gate, self.stuck = threading.Event(), threading.Event()

        def on_step(k):
            if k == at:
                self.stuck.set()
                self.gate.wait(20.0)

        side.on_step = on_step

    def open(self):
        self.gate.set()
        return False


@pytest.mark.parametrize("compiled", [True, False])
def test_a_robot_that_falls_silent_is_a_fault_and_may_be_rearmed_when_it_is_back(compiled, monkeypatch):
    monkeypatch.setattr(loops, "SILENCE_S", 0.3)
    monkeypatch.setattr(safety, "STALE_PERIODS", 100.0)  # the machine that runs the tests may be busy
    side, asked = Side(HAND), []
    stuck = Stuck(side)

    def rearm():
        asked.append(len(side.sent))
        stuck.open()
        return len(side.sent) >= 22  # it has answered what it was sent while it was silent

    report, sent, _ = run(
        reach_contract(HAND, control_hz=HZ),
        compiled=compiled,
        side=side,
        rearm=rearm,
        should_stop=lambda: len(side.sent) >= 60,
        seconds=60.0,
        strangeness=None,
    )
    assert asked and report.fault is None and report.missed_by_robot > 10
    assert 40 <= report.steps < 60  # the policy went on after it
    np.testing.assert_array_equal(sent[20], sent[19])  # HOLD


@pytest.mark.parametrize("compiled", [True, False])
def test_an_emergency_stop_is_heard_while_the_robot_is_silent(compiled, monkeypatch):
    monkeypatch.setattr(loops, "SILENCE_S", 1e3)
    monkeypatch.setattr(safety, "STALE_PERIODS", 1e6)
    side = Side(HAND)
    stuck, seen = Stuck(side), []

    def note_end():
        seen.append(1)
        stuck.open()
        return False

    report, _, _ = run(
        reach_contract(HAND, control_hz=HZ),
        compiled=compiled,
        side=side,
        estop=stuck.stuck.is_set,
        rearm=note_end,
        should_stop=lambda: len(seen) > 3,
        seconds=60.0,
        strangeness=None,
    )
    assert report.fault is Fault.ESTOP and 18 <= report.steps <= 20


def test_a_robot_with_more_motors_than_it_has_is_not_believed():
    side = Side(HAND)
    bare = side._backend.reset
    side._backend.reset = lambda *a: replace(bare(*a), motor_current_a=np.ones(200))
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    thread = threading.Thread(target=link.converse, args=(side, theirs))
    thread.start()
    backend = LinkBackend(ours)
    with pytest.raises(link.LinkError, match="motor_current_a has 200 numbers, expected 25"):
        backend.reset(None, np.random.default_rng(0))
    backend.close()
    thread.join(20.0)
    theirs.close()
