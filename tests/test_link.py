"""The link between a robot's process and its controller's: what crosses, what is refused, and what is left behind."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest

from robot import link, link_wire
from robot.description import load
from robot.errors import NotFiniteError, UnknownNameError
from robot.link import LinkBackend, LinkClosedError, LinkError, RobotMismatchError, TaskFeedback
from robot.mock import MockReach
from robot.onboard import simulator
from robot.state import Command, CommandError, RobotState

HAND = load("hand22")
N = len(HAND.joints)
ENV = "flexor/HandReach-v0"


@pytest.fixture
def pair():
    """A mock behind a link, in a thread of this process."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5.0)
    side = MockReach(HAND, 50.0)
    thread = threading.Thread(target=link.converse, args=(side, theirs))
    thread.start()
    backend = LinkBackend(ours)
    yield backend, side
    backend.close()
    thread.join(5.0)
    assert not thread.is_alive()
    theirs.close()


def rng(seed=0):
    return np.random.default_rng(seed)


def states_equal(a: RobotState, b: RobotState) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(RobotState))


def test_a_robot_behind_a_link_is_the_same_robot(pair):
    backend, _ = pair
    twin = MockReach(HAND, 50.0)
    state = backend.reset(None, rng(7))
    seed = int(rng(7).integers(2**62))
    expected, feedback = twin.reset(seed)
    assert states_equal(state, expected)
    for k in range(20):
        command = Command(target_rad=HAND.home_rad + 0.01 * k)
        expected, feedback = twin.step(command)
        assert states_equal(backend.step(command), expected)
        np.testing.assert_array_equal(backend.feedback.goal, feedback.goal)
        np.testing.assert_array_equal(backend.feedback.reward_terms, feedback.reward_terms)
    assert (backend.env_id, backend.control_hz, backend.model) == (ENV, 50.0, HAND)
    assert backend.feedback.reward_names == ("tip_error",)


def test_every_message_survives_the_wire():
    state = MockReach(HAND).reset(3)[0]
    feedback = TaskFeedback(
        goal=np.arange(3.0),
        reward_names=("a", "b"),
        reward_terms=np.array([1.5, -2.5]),
        terminated=True,
        success=True,
        episode_id="0" * 32,
    )
    message = link_wire.state_message(state, feedback)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sent in (link_wire.Hello(robot="x"), link_wire.Reset(rng_seed=5), message, link_wire.Bye()):
            link_wire.send(ours, sent)
            assert link_wire.receive(theirs) == sent
    back, feedback_back = link_wire.from_state_message(message)
    assert states_equal(back, state)
    for f in fields(TaskFeedback):
        np.testing.assert_array_equal(getattr(feedback_back, f.name), getattr(feedback, f.name))


def test_each_episode_gets_an_id_of_its_own_that_lasts(pair):
    backend, _ = pair
    ids = []
    for _ in range(3):
        backend.reset(None, rng())
        ids.append(backend.feedback.episode_id)
        backend.step(Command(target_rad=HAND.home_rad))
        assert backend.feedback.episode_id == ids[-1]
    assert len(set(ids)) == 3 and all(len(bytes.fromhex(i)) == 16 for i in ids)


def test_a_bad_command_is_refused_before_it_is_sent_and_the_link_lives_on(pair):
    backend, _ = pair
    backend.reset(None, rng())
    with pytest.raises(CommandError, match=rf"shape \({N},\), got \(3,\)"):
        backend.step(Command(target_rad=np.zeros(3)))
    bad = HAND.home_rad.copy()
    bad[4] = np.nan
    with pytest.raises(NotFiniteError, match=HAND.joint_names[4]):
        backend.step(Command(target_rad=bad))
    assert backend.step(Command(target_rad=HAND.home_rad)).time_s == pytest.approx(0.02)


def test_returned_states_do_not_change_afterwards(pair):
    backend, _ = pair
    first = backend.reset(None, rng())
    kept = first.q_rad.copy()
    backend.step(Command(target_rad=HAND.upper_rad.copy()))
    np.testing.assert_array_equal(first.q_rad, kept)


def test_an_episode_that_is_over_wants_a_reset():
    side = MockReach(HAND, 50.0, episode_s=0.02)
    step = link_wire.Step(target_rad=link_wire.raw(HAND.home_rad))
    answer, over = link.answer(side, step, over=True)
    assert isinstance(answer, link_wire.Error) and "send RESET" in answer.text and over
    answer, over = link.answer(side, link_wire.Reset(rng_seed=1), over=True)
    assert isinstance(answer, link_wire.State) and not over
    answer, over = link.answer(side, step, over=False)
    assert isinstance(answer, link_wire.State) and answer.truncated and over


def test_the_robots_end_refuses_a_bad_command_by_name():
    side = MockReach(HAND, 50.0)
    side.reset(0)
    bad = link_wire.Step(target_rad=link_wire.raw(np.full(N, np.inf)))
    answer, over = link.answer(side, bad, over=False)
    assert isinstance(answer, link_wire.Error) and answer.name == "NotFiniteError" and not over
    answer, _ = link.answer(side, link_wire.Step(target_rad=b"123"), over=False)
    assert isinstance(answer, link_wire.Error) and "multiple of 8" in answer.text


def conversation(reply: bytes):
    """A LinkBackend whose other end says `reply`."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.5)
    theirs.sendall(reply)
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs:
        return LinkBackend(ours)


GOOD_HELLO = link_wire.Hello(robot="hand22", robot_sha256=HAND.sha256, control_hz=50.0, env_id=ENV)


@pytest.mark.parametrize(
    "reply, error, text",
    [
        (b"", LinkClosedError, "closed the link"),
        (b"\x05\0\0\0ab", LinkClosedError, "closed the link"),
        (struct.pack("<I", 2**31), LinkError, f"1..{link_wire.MAX_MESSAGE_BYTES} bytes"),
        (struct.pack("<I", 0), LinkError, "got a length of 0"),
        (b"\x03\0\0\0abc", LinkError, "not a message of this link"),
        (link_wire.frame(link_wire.Bye()), LinkError, "expected HELLO, got BYE"),
        (link_wire.frame(link_wire.Error(name="X", text="no")), LinkError, "refused: X: no"),
        (link_wire.frame(link_wire.Hello(protocol=9)), LinkError, "expected 2, got 9"),
    ],
)
def test_an_end_that_is_no_robot_of_ours_is_refused(reply, error, text):
    with pytest.raises(error, match=text):
        conversation(reply)


def test_another_description_behind_the_link_is_refused():
    hello = link_wire.frame(msgspec.structs.replace(GOOD_HELLO, robot_sha256="f" * 64))
    with pytest.raises(RobotMismatchError, match="ffffffffffff"):
        conversation(hello)
    with pytest.raises(UnknownNameError, match="hand22"):
        conversation(link_wire.frame(msgspec.structs.replace(GOOD_HELLO, robot="hand99")))
    assert conversation(link_wire.frame(GOOD_HELLO)).control_hz == 50.0  # and this one passes


def test_a_robot_that_falls_silent_is_given_up_on():
    ours, theirs = socket.socketpair()
    ours.settimeout(0.02)
    with ours, theirs, pytest.raises(LinkError, match=r"did not answer within 0\.02 s"):
        LinkBackend(ours)


def test_damaged_states_are_refused():
    state, feedback = MockReach(HAND).reset(0)
    message = link_wire.state_message(state, feedback)
    change = msgspec.structs.replace
    for sizes, says in (
        (message.sizes[:-1], f"must carry {len(link_wire.ARRAYS)} arrays"),
        ((*message.sizes[:-1], 0), "announces .* numbers and carries"),
    ):
        with pytest.raises(LinkError, match=says):
            link_wire.from_state_message(change(message, sizes=sizes))
    nameless = change(message, reward_names=())
    with pytest.raises(LinkError, match="names 0 reward terms and carries 1"):
        link_wire.from_state_message(nameless)
    body = link_wire.frame(message)[4:]
    assert link_wire.parse(body) == message
    for cut in (1, 8, 20, 100, len(body) - 1):
        with pytest.raises(LinkError, match=r"ends in its head|not a message"):
            link_wire.parse(body[:cut])


def test_a_state_of_another_width_is_refused():
    state, feedback = MockReach(HAND).reset(0)
    narrow = replace(state, q_rad=np.zeros(3))
    ours, theirs = socket.socketpair()
    ours.settimeout(0.5)
    with ours, theirs:
        theirs.sendall(link_wire.frame(GOOD_HELLO) + link_wire.frame(link_wire.state_message(narrow, feedback)))
        backend = LinkBackend(ours)
        with pytest.raises(LinkError, match=f"q_rad needs {N} joints"):
            backend.reset(None, rng())


def test_the_task_places_the_robot(pair):
    backend, side = pair
    with pytest.raises(LinkError, match="reset\\(None, rng\\)"):
        backend.reset(side.reset(0)[0], rng())


def test_receive_without_a_question_is_refused(pair):
    with pytest.raises(LinkError, match="nothing was asked"):
        pair[0].receive()


def test_a_spawned_robot_comes_up_moves_and_leaves_nothing():
    backend = simulator.spawn(ENV, "hand22", "mock", control_hz=100.0)
    folder, process = backend._folder, backend._process
    assert (folder / "robot.sock").is_socket() and (folder.stat().st_mode & 0o077) == 0
    state = backend.reset(None, rng())
    assert backend.step(Command(target_rad=state.q_rad)).time_s == pytest.approx(0.01)
    backend.close()
    backend.close()
    assert process.returncode == 0 and not folder.exists()


def test_a_robot_that_cannot_come_up_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(
        simulator.SimulatorError, match=r"exit code 2:\nUnknownNameError: unknown robot 'hand99'.*hand22"
    ):
        simulator.spawn(ENV, "hand99", "mock")
    with pytest.raises(UnknownNameError, match="pybullet, mujoco, mock"):
        simulator.spawn(ENV, "hand22", "gazebo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_robots_process_and_removes_its_socket(tmp_path, number):
    path = tmp_path / "s"
    process = subprocess.Popen([sys.executable, "-m", "robot.mock", "--socket", str(path)], stderr=subprocess.PIPE)
    try:
        for _ in range(1000):
            if path.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.02)
        process.send_signal(number)
        _, words = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 128 + number and not path.exists() and words == b""


PARENT = """
import os, sys
from robot.onboard.simulator import spawn
robot = spawn("flexor/HandReach-v0", "hand22", "mock")
print(robot._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_robots_process_dies_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    child = int(parent.communicate(timeout=20)[0])
    assert parent.returncode == -signal.SIGKILL
    # pidfd tells the end of a process that is no child of ours, without polling
    try:
        handle = os.pidfd_open(child)
    except ProcessLookupError:
        return  # already gone
    import select

    gone = select.select([handle], [], [], 10.0)[0]
    os.close(handle)
    assert gone, f"process {child} outlived its parent"


def test_an_environment_is_served_by_name_and_unknown_names_are_refused():
    pytest.importorskip("gymnasium")
    from sim import serve

    side = serve.robot_side(ENV, "hand22", "mock")
    assert (side.env_id, side.model.name) == (ENV, "hand22")
    with pytest.raises(UnknownNameError, match="pybullet, mujoco, mock"):
        serve.robot_side(ENV, "hand22", "gazebo")
    with pytest.raises(UnknownNameError, match="flexor/HandReach-v0"):
        serve.robot_side("flexor/HandReech-v0", "hand22", "pybullet")
