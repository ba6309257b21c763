"""The control loop: deadlines, faults, experience. Time is the test's own; nothing here sleeps."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onboard_helpers import CONTRACT, HAND, STD, artifact, write

from robot import experience
from robot.contract import Memory
from robot.link import LinkClosedError
from robot.mock import MockReach
from robot.onboard import loop as loops
from robot.onboard import realtime
from robot.onboard.explore import ExplorationError, checked_std, log_density, sample
from robot.onboard.inference import make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.realtime import EmergencyStop, emergency_stop
from robot.onboard.recorder import Recorder, RecorderError
from robot.onboard.robots import Direct
from robot.onboard.samples import Ring
from robot.onboard.start import strangeness
from robot.safety import Fault, Filter, Limits, Mode, Strangeness

GOOD = artifact()
INTERFACE = CONTRACT.bind(HAND)
PERIOD_NS = 20_000_000  # 50 Hz


class FakeClock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000
        self.deadlines: list[int] = []
        self.oversleep_ns = 0

    def now_ns(self) -> int:
        return self.ns

    def sleep_until(self, deadline_ns: int) -> None:
        self.deadlines.append(deadline_ns)
        self.ns = max(self.ns, deadline_ns) + self.oversleep_ns

    def cpu_s(self) -> float:
        return 0.0


class Scripted(Direct):
    """A mock whose answers a test may delay or spoil, and that keeps what it was sent."""

    def __init__(self, clock: FakeClock, episode_s: float = 1e6) -> None:
        super().__init__(MockReach(HAND, 50.0, episode_s=episode_s))
        self.clock, self.sent, self.spoil, self.delay_ns = clock, [], {}, {}
        self.states = []

    def send(self, command) -> None:
        super().send(command)
        self.sent.append(command.target_rad.copy())
        self.sent_ns = self.clock.ns

    def receive(self):
        k = len(self.sent)
        self.clock.ns = max(self.clock.ns, self.sent_ns + self.delay_ns.get(k, 0))
        state = super().receive()
        state = self.spoil[k](state) if k in self.spoil else state
        self.states.append(state)
        return state


def loop(robot, clock, *, inference=None, seed=0, seconds=1.0, **more):
    config = more.pop("config", LoopConfig(seconds=seconds))
    policy = inference or make_inference(GOOD)
    return ControlLoop(robot, INTERFACE, policy, rng=np.random.default_rng(seed), config=config, clock=clock, **more)


def test_every_period_gets_one_command_at_its_deadline():
    clock = FakeClock()
    robot = Scripted(clock)
    start = clock.ns
    report = loop(robot, clock).run()
    assert clock.deadlines == [start + k * PERIOD_NS for k in range(1, 51)]
    assert (report.steps, report.deadlines, report.missed, len(robot.sent)) == (50, 50, 0, 50)


def test_waking_up_late_does_not_drift():
    clock = FakeClock()
    clock.oversleep_ns = 3_000_000
    robot = Scripted(clock)
    start = clock.ns
    report = loop(robot, clock).run()
    assert clock.deadlines == [start + k * PERIOD_NS for k in range(1, 51)]
    assert report.lateness.max_us == pytest.approx(3000.0) and report.missed == 0


def test_a_stall_skips_whole_periods_counts_them_and_causes_no_burst():
    clock = FakeClock()
    robot = Scripted(clock)
    robot.delay_ns = {10: 70_000_000}  # the tenth answer takes 3.5 periods
    start = clock.ns
    report = loop(robot, clock).run()
    assert report.missed == report.missed_by_robot == 3
    assert report.steps + report.missed == report.deadlines == 50
    grid = [(d - start) // PERIOD_NS for d in clock.deadlines]
    assert grid == [*range(1, 11), *range(13, 51)]  # at the tenth it waits for the answer
    assert np.diff(clock.deadlines).min() == PERIOD_NS


def test_an_answer_that_is_a_little_late_is_used_at_once():
    clock = FakeClock()
    robot = Scripted(clock)
    robot.delay_ns = {10: PERIOD_NS + PERIOD_NS // 5}
    start = clock.ns
    report = loop(robot, clock).run()
    assert report.missed == 0 and report.steps == 50
    assert [(d - start) / PERIOD_NS for d in clock.deadlines] == list(range(1, 51))


def test_a_late_decision_is_the_controllers_fault_not_the_robots():
    clock = FakeClock()
    robot = Scripted(clock)
    policy = make_inference(GOOD)

    class Slow:
        name, calls = "slow", 0

        def reset(self):
            pass

        def act(self, observation):
            self.calls += 1
            clock.ns += 30_000_000 if self.calls == 105 else 0  # 100 of them are the warm-up
            return policy.act(observation)

    report = loop(robot, clock, inference=Slow()).run()
    assert (report.missed, report.missed_by_robot) == (1, 0)
    assert report.inference.max_us == pytest.approx(30_000.0)


def nan_in_joint(i):
    def spoil(state):
        q = state.q_rad.copy()
        q[i] = np.nan
        return replace(state, q_rad=q)

    return spoil


def test_a_nan_observation_is_named_held_and_damped_and_no_policy_command_follows():
    clock = FakeClock()
    robot = Scripted(clock)
    robot.spoil = {20: nan_in_joint(4)}
    report = loop(robot, clock).run()
    assert report.fault is Fault.OBSERVATION
    assert f"joint_position.{HAND.joint_names[4]}" in report.fault_text
    assert len(robot.sent) == 20 + 1 + 2  # one period of HOLD, two of DAMPING
    np.testing.assert_array_equal(robot.sent[20], robot.sent[19])
    here = np.clip(robot.states[20].q_rad, HAND.lower_rad, HAND.upper_rad)  # an encoder's step may lie past a stop
    np.testing.assert_allclose(robot.sent[21], here)
    assert report.steps == 20 and all(np.isfinite(sent).all() for sent in robot.sent)


def test_a_policy_that_says_nan_moves_nothing():
    clock = FakeClock()
    robot = Scripted(clock)

    class Broken:
        name = "broken"

        def reset(self):
            pass

        def act(self, observation):
            return np.full(CONTRACT.action_size, np.nan, dtype=np.float32), np.zeros(CONTRACT.action_size)

    start = robot.reset(None, np.random.default_rng(0)).target_rad
    report = loop(robot, clock, inference=Broken()).run()
    assert report.fault is Fault.ACTION and report.steps == 0
    np.testing.assert_array_equal(robot.sent[0], start)


def test_a_robot_whose_clock_stands_still_is_a_fault():
    clock = FakeClock()
    robot = Scripted(clock)
    robot.spoil = {k: (lambda state: replace(state, time_s=0.2)) for k in range(11, 1000)}
    report = loop(robot, clock).run()
    assert report.fault is Fault.STALE
    # answers 11, 12 and 13 brought nothing new; then comes one period of HOLD and two of DAMPING
    assert report.steps == 13 and report.late_states == 3
    assert len(robot.sent) == 16


def test_the_emergency_stop_damps_at_once():
    clock = FakeClock()
    robot = Scripted(clock)
    report = loop(robot, clock, estop=lambda: len(robot.sent) >= 5).run()
    assert report.fault is Fault.ESTOP and len(robot.sent) == 5 + 2
    np.testing.assert_allclose(robot.sent[5], robot.states[4].q_rad)


def test_observations_far_from_training_are_a_fault_after_a_while():
    clock = FakeClock()
    score = Strangeness(
        mean=np.full(CONTRACT.observation_size, 9.0), std=np.full(CONTRACT.observation_size, 0.1), ticks=7
    )
    report = loop(Scripted(clock), clock, strangeness=score).run()
    assert report.fault is Fault.STRANGE and report.steps == 6
    ordinary = strangeness(GOOD)
    assert ordinary is not None
    assert loop(Scripted(FakeClock()), FakeClock(), strangeness=ordinary).run().fault is None


def test_a_stop_is_heard_within_a_period():
    clock = FakeClock()
    robot = Scripted(clock)
    report = loop(robot, clock, should_stop=lambda: len(robot.sent) == 7).run()
    assert report.steps == 7 and report.fault is None


def test_the_loop_acts_as_the_contract_says_step_by_step():
    """Parity: a rollout by hand with the interface and the network gives the same commands, bit for bit."""
    clock = FakeClock()
    robot = Scripted(clock)
    loop(robot, clock, seed=3).run()
    side = MockReach(HAND, 50.0, episode_s=1e6)
    state, feedback = side.reset(int(np.random.default_rng(3).integers(2**62)))
    policy, memory = make_inference(GOOD), INTERFACE.memory(feedback.goal)
    last_word = Filter(Limits.of(HAND, 1.0 / 50.0))
    sent = state.target_rad
    for k in range(50):
        action, _ = policy.act(INTERFACE.observe(state, memory))
        command = INTERFACE.command(action, state)
        sent = last_word(command.target_rad, sent, state.q_rad, state.qd_rad_s).target_rad
        np.testing.assert_array_equal(robot.sent[k], sent)
        state, feedback = side.step(replace(command, target_rad=sent))
        memory = Memory(goal=feedback.goal, previous_action=np.clip(action, -1.0, 1.0).astype(np.float64))


def test_an_operator_may_rearm_after_a_fault_and_the_policy_fades_in_from_where_the_joints_are():
    clock = FakeClock()
    robot = Scripted(clock)
    robot.spoil = {10: nan_in_joint(4)}
    config = LoopConfig(seconds=1.0, blend_s=0.2)  # 10 periods
    report = loop(robot, clock, config=config, rearm=lambda: len(robot.sent) >= 15).run()
    # 10 by the policy, one of HOLD, four of DAMPING until somebody asked for the fifteenth, then the policy again
    assert report.fault is None and report.steps == 10 + 50 - 15
    plain = Scripted(FakeClock())
    loop(plain, plain.clock, seconds=0.02).run()
    start = HAND.home_rad
    eleventh = np.abs(robot.sent[0] - start).max() / np.abs(plain.sent[0] - start).max()
    assert eleventh == pytest.approx(1.0 / 11.0)
    assert np.abs(robot.sent[15] - robot.sent[14]).max() < 0.02


def recorded(**config):
    clock, chunks = FakeClock(), []
    recorder = Recorder(
        contract=CONTRACT,
        policy_sha256=GOOD.sha256,
        reward_names=("tip_error",),
        steps_per_chunk=16,
        clock_ns=lambda: 123,
    )
    robot = Scripted(clock, episode_s=0.8)  # 40 steps
    config = LoopConfig(**{"seconds": 2.0, "exploration_std": GOOD.exploration_std, **config})
    report = loop(robot, clock, config=config, recorder=recorder, on_chunk=chunks.append).run()
    return report, chunks, robot


def test_every_step_is_in_exactly_one_chunk_and_chunks_join():
    report, chunks, robot = recorded()
    assert sum(c.header.steps for c in chunks) == report.steps == len(robot.sent)
    episodes = {}
    for chunk in chunks:
        assert experience.decode(experience.encode(chunk)).header == chunk.header
        assert chunk.header.policy_sha256 == GOOD.sha256 and chunk.header.contract_sha256 == CONTRACT.sha256
        episodes.setdefault(chunk.header.episode_id, []).append(chunk)
    lengths = [[c.header.steps for c in each] for each in episodes.values()]
    assert lengths == [[16, 16, 8], [16, 16, 8], [16, 4]]
    for i, each in enumerate(episodes.values()):
        assert [c.header.first_step for c in each] == [0, 16, 32][: len(each)]
        for a, b in pairwise(each):
            np.testing.assert_array_equal(a.last_observation, b.observation[0])
            assert a.header.ended == "no"
        assert each[-1].header.ended == ("truncated" if i < 2 else "no")
        np.testing.assert_allclose(np.diff(np.concatenate([c.time_s for c in each])), 0.02, atol=1e-9)


def test_recorded_log_probabilities_are_those_of_the_recorded_actions():
    _, chunks, _ = recorded()
    policy, checked = make_inference(GOOD), 0
    for chunk in chunks:
        for k in range(chunk.header.steps):
            mean, _ = policy.act(chunk.observation[k])
            expected = log_density(chunk.action[k], mean, np.full(CONTRACT.action_size, STD))
            assert chunk.log_prob[k] == pytest.approx(expected, abs=1e-4)  # stored as float32
            checked += 1
    assert checked == 100


def test_acting_without_noise_is_recorded_as_such():
    _, chunks, _ = recorded(exploration_std=None)
    assert len(chunks) == 8 and all(np.isnan(c.log_prob).all() for c in chunks)


def test_a_run_can_end_after_whole_episodes():
    report, chunks, _ = recorded(seconds=None, episodes=3)
    assert (report.episodes, report.steps) == (3, 120)
    assert [c.header.ended for c in chunks].count("truncated") == 3


def test_equal_seeds_give_equal_experience():
    one, two = recorded()[1], recorded()[1]
    assert len(one) == len(two) == 8
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.observation, b.observation)


def test_a_robot_that_goes_away_costs_no_experience():
    clock, chunks = FakeClock(), []
    robot = Scripted(clock)

    def gone(state):
        raise LinkClosedError("gone")

    robot.spoil = {21: gone}
    recorder = Recorder(contract=CONTRACT, policy_sha256="", reward_names=("tip_error",), steps_per_chunk=16)
    with pytest.raises(LinkClosedError):
        loop(robot, clock, recorder=recorder, on_chunk=chunks.append).run()
    assert [c.header.steps for c in chunks] == [16, 4]


def test_a_step_whose_outcome_no_sensor_could_read_is_dropped():
    clock, chunks = FakeClock(), []
    robot = Scripted(clock)
    robot.spoil = {k: nan_in_joint(0) for k in range(20, 30)}
    recorder = Recorder(contract=CONTRACT, policy_sha256="", reward_names=("tip_error",), steps_per_chunk=16)
    loop(robot, clock, recorder=recorder, on_chunk=chunks.append).run()
    assert [c.header.steps for c in chunks] == [16, 3] and chunks[-1].header.ended == "no"
    assert all(np.isfinite(c.last_observation).all() for c in chunks)


def test_the_recorder_refuses_what_no_chunk_can_hold():
    with pytest.raises(RecorderError, match=r"1\.\.4096, got 0"):
        Recorder(contract=CONTRACT, policy_sha256="", reward_names=("a",), steps_per_chunk=0)
    with pytest.raises(RecorderError, match="at least one"):
        Recorder(contract=CONTRACT, policy_sha256="", reward_names=())


def test_log_density_integrates_to_one_and_sampling_matches_it():
    rng = np.random.default_rng(0)
    grid = np.linspace(-8.0, 8.0, 4001)
    density = [np.exp(log_density(np.array([x]), np.array([0.3]), np.array([0.7]))) for x in grid]
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-6)
    drawn = np.array([sample(np.array([0.3]), np.array([0.7]), rng.standard_normal(1))[0][0] for _ in range(4000)])
    assert drawn.mean() == pytest.approx(0.3, abs=0.05) and drawn.std() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("bad", [[0.1], [0.1, -0.1], [0.1, np.nan], [0.1, 0.0]])
def test_a_std_that_no_gaussian_has_is_refused(bad):
    with pytest.raises(ExplorationError):
        checked_std(np.array(bad), 2)


def test_quantiles_are_of_the_newest_samples_and_memory_does_not_grow():
    ring = Ring(capacity=100)
    for value in [*[10**9] * 50, *range(1000, 101_000, 1000)]:
        ring.add(value)
    quantiles = ring.quantiles()
    assert (len(ring), quantiles.samples, ring.count) == (100, 100, 150)
    assert quantiles.max_us == 100.0 and quantiles.p50_us == pytest.approx(50.5)
    assert Ring().quantiles().p50_us is None


RUN = """
import sys
from robot.onboard import cli
cli.run(sys.argv[1], backend="mock", seconds=0.5, realtime=False, json=sys.argv[2])
forbidden = {"torch", "pybullet", "mujoco", "gymnasium", "sim", "onnx", "policies", "fleet"} & set(sys.modules)
assert not forbidden, forbidden
"""


def test_a_process_that_ran_the_loop_has_imported_no_engine_and_no_trainer(tmp_path):
    folder = write(tmp_path / "models" / "test_policy" / "v1", GOOD)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), str(tmp_path / "run.json")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    assert set(report) == {"command", "version", "machine", "seed", "results"}
    results = report["results"]
    assert results["imported_forbidden"] == []
    assert results["steps"] + results["missed"] == results["deadlines"] >= 20
    assert 0.0 < results["inference_p50_us"] <= results["latency_p50_us"] <= results["latency_p99_us"]
    energy = results["energy_per_decision_j"]
    assert energy["source"] and 0.0 < energy["low"] <= energy["high"]
    assert "latency" in done.stdout and "per decision" in done.stdout


def test_importing_the_runtime_imports_neither_engine_nor_trainer():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import robot.onboard.start"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "msgspec", "robot"} <= names  # the list is a list
    assert not names & {"torch", "pybullet", "mujoco", "gymnasium", "sim", "onnx", "policies", "onnxruntime"}


INTERRUPTED = """
import sys
from robot.onboard import cli, simulator
spawn = simulator.spawn
def told(*args, **more):
    robot = spawn(*args, **more)
    print(robot._process.pid, robot._folder, flush=True)
    return robot
simulator.spawn = told
cli.run(sys.argv[1], backend="mock", seconds=60.0, realtime=False, inference="numpy", json=sys.argv[2])
"""


def test_ctrl_c_ends_a_run_in_order_with_its_report_and_leaves_no_process(tmp_path):
    folder = write(tmp_path / "models" / "test_policy" / "v1", GOOD)
    report = tmp_path / "run.json"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(folder), str(report)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    assert process.stdout is not None
    child, place = process.stdout.readline().split()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and "latency" in out
    assert json.loads(report.read_text())["results"]["seconds"] < 20.0
    assert not Path(place).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "run.json", "state"]
    assert [p.name.split("-")[2] for p in tmp_path.glob("state/flexor/flight/*")] == ["stopped.mcap"]


class Broken:
    """A policy whose native code fails in some call."""

    name = "broken"

    def __init__(self, at: int) -> None:
        self._policy, self._left = make_inference(GOOD, "numpy"), at

    def reset(self) -> None:
        self._policy.reset()

    def act(self, observation):
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("as native code may")
        return self._policy.act(observation)


def test_a_policy_that_cannot_be_run_any_more_is_a_fault_and_ends_in_damping():
    clock = FakeClock()
    robot = Scripted(clock)
    report = ControlLoop(
        robot,
        INTERFACE,
        Broken(loops.WARM_UP_CALLS + 21),
        rng=np.random.default_rng(0),
        config=LoopConfig(seconds=2.0),
        clock=clock,
    ).run()
    assert report.fault is Fault.INFERENCE and report.steps == 20 and "as native code may" in report.fault_text
    np.testing.assert_array_equal(robot.sent[20], robot.sent[19])
    at = np.clip(robot.states[20].q_rad, HAND.lower_rad, HAND.upper_rad)
    np.testing.assert_array_equal(robot.sent[21], at)


def test_whatever_ends_the_loop_leaves_the_joints_damped():
    clock = FakeClock()
    robot = Scripted(clock)

    def full(chunk):
        raise OSError("no space left")

    recorder = Recorder(contract=CONTRACT, policy_sha256="", reward_names=("tip_error",), steps_per_chunk=8)
    with pytest.raises(OSError, match="no space"):
        ControlLoop(
            robot,
            INTERFACE,
            make_inference(GOOD, "numpy"),
            rng=np.random.default_rng(0),
            config=LoopConfig(seconds=2.0),
            recorder=recorder,
            on_chunk=full,
            clock=clock,
        ).run()
    at = np.clip(robot.states[-1].q_rad, HAND.lower_rad, HAND.upper_rad)
    np.testing.assert_array_equal(robot.sent[-1], at)


def test_a_rearm_that_stays_on_does_not_undo_an_emergency_stop_in_its_own_period():
    clock, asked = FakeClock(), []
    robot = Scripted(clock)

    def estop():
        asked.append(1)
        return 10 <= len(robot.sent) < 15

    modes = []
    made = loop(
        robot,
        clock,
        estop=estop,
        rearm=lambda: True,
        should_stop=lambda: modes.append(made.mode) or len(robot.sent) > 30,
    )
    made.run()
    assert modes.count(Mode.DAMPING) == 4  # as long as it was pressed


def test_the_emergency_stop_is_a_file_that_stays_pressed(tmp_path):
    path = tmp_path / "value"
    stop = EmergencyStop(path)
    assert not stop()
    path.write_text("0\n")
    assert not stop()
    path.write_text("1\n")
    assert stop()
    path.unlink()
    assert stop()
    assert EmergencyStop(tmp_path)()  # what cannot be read counts as pressed
    with emergency_stop() as pressed:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert pressed()


SPINS = """
import sys
from robot.onboard import realtime
realtime.MAX_REALTIME_US, realtime.LAST_REALTIME_US = 100_000, 5_000_000
try:
    with realtime.realtime() as refused:
        if any("SCHED_FIFO" in why for why in refused):
            sys.exit("refused")
        for _ in range(10**9):
            pass
except realtime.SpinningError as error:
    print(error)
"""


def test_a_real_time_loop_that_spins_is_interrupted_by_name():
    done = subprocess.run([sys.executable, "-c", SPINS], capture_output=True, text=True, timeout=60)
    if done.stderr.strip() == "refused":
        pytest.skip("no real-time priority allowed here")
    assert done.returncode == 0 and "did not sleep once" in done.stdout, done.stderr


def test_when_the_system_says_that_it_spins_the_loop_ends_in_damping(monkeypatch):
    monkeypatch.setattr(realtime, "_lock_memory", lambda: "")
    monkeypatch.setattr(realtime, "_fifo", lambda: "")
    clock = FakeClock()
    robot = Scripted(clock)
    send = robot.send

    def told(command):
        send(command)
        if len(robot.sent) == 20:
            assert resource.getrlimit(resource.RLIMIT_RTTIME) == (500_000, 1_000_000)
            os.kill(os.getpid(), signal.SIGXCPU)  # what RLIMIT_RTTIME does

    robot.send = told
    before = signal.getsignal(signal.SIGXCPU)
    with pytest.raises(realtime.SpinningError):
        ControlLoop(
            robot,
            INTERFACE,
            make_inference(GOOD, "numpy"),
            rng=np.random.default_rng(0),
            config=LoopConfig(seconds=2.0, realtime=True),
            clock=clock,
        ).run()
    assert len(robot.sent) == 21
    at = np.clip(robot.states[-1].q_rad, HAND.lower_rad, HAND.upper_rad)
    np.testing.assert_array_equal(robot.sent[-1], at)
    assert signal.getsignal(signal.SIGXCPU) == before


def test_a_spinning_run_leaves_its_recording(tmp_path):
    folder = write(tmp_path / "models" / "test_policy" / "v1", GOOD)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTED.replace("realtime=False", "realtime=True"),
            str(folder),
            str(tmp_path / "x"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(200):  # until its loop runs: before, the signal is the system's to handle
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        if caught >> (signal.SIGXCPU - 1) & 1:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGXCPU)
    process.communicate(timeout=20)
    assert process.returncode in (1, 3)  # an error, or a fault where it hit the network: never the signal itself
    (path,) = tmp_path.glob("state/flexor/flight/*")
    assert path.name.endswith(("-error.mcap", "-fault.mcap"))
