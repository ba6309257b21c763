"""The demo's machinery: children that never outlive it, errors that say what failed, and a line per stage."""

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.demo.figures import FigureError, Source, curve, paired
from fleet.demo.guard import kill_group, watch
from fleet.demo.orchestrate import DemoError, perform, prepare
from fleet.demo.progress import Progress
from fleet.demo.report import render, summary
from fleet.demo.robots import free_port
from fleet.demo.runner import Runner, StageError

REPOSITORY = Path(__file__).resolve().parents[1]
DEADLINE_S = 20.0  # far more than anything here takes; only a hang meets it
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
# Prints its own number and its child's, then waits: a stage with a worker, as training has them.
PARENT = (
    "import os, subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(os.getpid(), c.pid, flush=True); time.sleep(600)"
)
DEAF = "import signal, time; signal.signal(2, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def until(condition, what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with Runner(tmp_path / "logs") as one:
        yield one


def said(process, words: int = 1) -> list[str]:
    until(lambda: len(process.log.read_text().split()) >= words, "first words of a child")
    return process.log.read_text().split()


def test_a_stage_that_ends_well_leaves_its_log(runner):
    runner.call("hello", python("print('hello')"))
    runner.call("hello", python("print('again')"))
    logs = list(Path(runner.logs).iterdir())
    assert [log.read_text() for log in logs] == ["hello\nagain\n"]


def test_a_failed_stage_says_its_command_its_last_words_and_its_log(runner):
    with pytest.raises(StageError) as failed:
        runner.call("train", python("print('about to fail'); raise SystemExit(7)"))
    message = str(failed.value)
    assert message.startswith("stage train: exit code 7\n")
    assert "about to fail" in message
    assert "train.log" in message
    assert "SystemExit(7)" in message


def test_a_robot_that_ended_unasked_is_noticed(runner):
    child = runner.start("robot", python("raise SystemExit(3)"))
    until(child.ended, "the end of a child")
    with pytest.raises(StageError, match="exit code 3, expected to run on"):
        runner.require_alive(child)


def test_a_robot_that_runs_on_is_not(runner):
    child = runner.start("robot", python(SLEEPER))
    said(child)
    runner.require_alive(child)


def test_leaving_ends_children_and_their_children(tmp_path):
    with Runner(tmp_path) as runner:
        pids = [int(word) for word in said(runner.start("train", python(PARENT)), 2)]
        assert all(alive(pid) for pid in pids)
    assert len(pids) == 2
    until(lambda: not any(map(alive, pids)), "the end of a child and of its child, who was told at the same moment")


def test_an_interrupt_ends_children_too(tmp_path):
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt), Runner(tmp_path) as runner:
        child = runner.start("train", python(PARENT))
        pids = [int(word) for word in said(child, 2)]

        def interrupt() -> None:
            raise KeyboardInterrupt

        runner.wait(child, interrupt)
    assert len(pids) == 2
    until(lambda: not any(map(alive, pids)), "the end of a child and of its child, who was told at the same moment")


def test_a_child_that_does_not_listen_is_ended_anyway(runner):
    child = runner.start("deaf", python(DEAF))
    said(child)
    assert runner.stop(child, grace_s=0.1) == -signal.SIGKILL


def test_a_child_that_listens_is_given_time(runner):
    program = (
        "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(600)"
    )
    child = runner.start("polite", python(program))
    said(child)
    assert runner.stop(child, grace_s=DEADLINE_S) == 5


def test_a_kill_takes_the_whole_group_at_once(runner):
    child = runner.start("robot", python(PARENT))
    pids = [int(word) for word in said(child, 2)]
    assert runner.kill(child) == -signal.SIGKILL
    until(lambda: not any(alive(pid) for pid in pids), "the end of the group")


def test_children_end_when_the_demo_itself_is_killed(tmp_path):
    program = (
        f"import sys, time; sys.path.insert(0, {str(REPOSITORY)!r});"
        "from pathlib import Path; from fleet.demo.runner import Runner;"
        f"Runner(Path({str(tmp_path)!r})).start('train', [sys.executable, '-c', {PARENT!r}]); time.sleep(600)"
    )
    demo = subprocess.Popen(python(program), cwd=REPOSITORY)
    try:
        log = tmp_path / "train.log"
        until(lambda: log.exists() and len(log.read_text().split()) == 2, "the children's numbers")
        pids = [int(word) for word in log.read_text().split()]
        assert all(alive(pid) for pid in pids)
    finally:
        demo.kill()
        demo.wait()
    until(lambda: not any(alive(pid) for pid in pids), "the end of the children")


def test_the_guard_kills_only_groups_that_did_not_end():
    killed: list[int] = []
    watch(["+11\n", "+12\n", "-11\n", "+13\n"], killed.append)
    assert sorted(killed) == [12, 13]


def test_a_group_that_is_gone_is_no_error():
    child = subprocess.Popen(python("pass"), process_group=0)
    child.wait()
    assert kill_group(child.pid) is False


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("terminal, shown", [(True, 5), (False, 1)])
def test_a_stage_has_one_closing_line(terminal, shown):
    clock, out = Clock(), io.StringIO()
    progress = Progress(out=out, clock_s=clock, terminal=terminal)
    with progress.stage("train") as stage:
        for second in range(3):
            clock.now_s += 1.0
            stage.note(f"{second} steps")
            stage.tick()
            stage.tick()  # not twice at one time
    text = out.getvalue()
    assert text.count("train") == shown  # on a terminal the opening line, three ticks, the closing line
    assert text.count("\n") == 1
    assert text.rstrip().endswith("0:03  2 steps")
    assert [(s.name, s.start_s, s.seconds) for s in progress.stages] == [("train", 0.0, 3.0)]


def test_a_log_hears_of_a_long_stage_every_half_minute():
    clock, out = Clock(), io.StringIO()
    progress = Progress(out=out, clock_s=clock, terminal=False)
    with progress.stage("train") as stage:
        for _ in range(95):
            clock.now_s += 1.0
            stage.tick()
    assert out.getvalue().count("\n") == 4  # at 30, 60, 90 s and at the end


def test_a_stage_that_failed_is_not_in_the_report():
    progress = Progress(out=io.StringIO(), clock_s=Clock(), terminal=False)
    with pytest.raises(StageError), progress.stage("train"):
        raise StageError("no")
    assert progress.stages == []


# --- the whole demo, with somebody at the other end who takes the same words and does none of the work --------------------

FAKE = (sys.executable, str(REPOSITORY / "tests" / "samples" / "fake_flexor.py"))


def whole(out: Path, flexor: tuple[str, ...] = FAKE) -> tuple[dict, str]:
    places = prepare(out, minutes=1.0)
    said_lines = io.StringIO()
    progress = Progress(out=said_lines, clock_s=time.monotonic, terminal=False)
    with Runner(places.logs) as runner:
        results, pictures = perform(places, seed=3, minutes=1.0, progress=progress, runner=runner, flexor=flexor)
    page = render(results, pictures, command="flexor demo", version="0")
    assert summary(results, "x")[0].split() == ["report", "x"]
    assert "data:image/webp" in page
    return results, said_lines.getvalue()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("fleet.demo.robots.STATUS_EVERY_S", 0.0)


def test_the_demo_goes_through_all_stages_and_fills_the_report(tmp_path, impatient):
    results, lines = whole(tmp_path / "demo")
    stages_shown = [line.split()[0] for line in lines.splitlines()]
    assert stages_shown == [
        "robot", "train", "export", "pictures", "eval", "onboard", "fleet", "learn", "deploy", "eval",
    ]  # fmt: skip
    assert (results["fleet"]["lost"], results["fleet"]["doubled"]) == (0, 0)
    assert results["fleet"]["refused"] is True
    assert results["fleet"]["deployment"]["outcome"] == "done"
    assert results["eval"]["margins"]["v2 over v1"]["success"] == 0.0  # the same episodes came out the same
    assert results["learn"]["fleet_steps"] == 5000
    assert results["train"]["steps_per_s"] == 100.0
    assert results["train"]["curve"][-1]["time_s"] == 60.0
    assert results["seeds"] == {"train": 3, "learn": 4, "eval": 1000}
    assert sum(len(stage["commands"]) for stage in results["stages"]) == 18
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize("failing, stage", [("train", "train"), ("fleet hub", "hub"), ("fleet robot", "r[123]")])
def test_a_stage_that_fails_ends_the_demo_and_says_why(tmp_path, impatient, monkeypatch, failing, stage):
    monkeypatch.setenv("FAKE_FAILS", failing)
    with pytest.raises(StageError, match=rf"stage {stage}: exit code 1(?s:.)*{failing} fails, as the test said"):
        whole(tmp_path / "demo")
    assert running(str(tmp_path)) == []


def test_a_policy_that_is_taken_back_is_reported_as_such(tmp_path, impatient, monkeypatch):
    monkeypatch.setenv("FAKE_ROLLOUT", "rolled_back")
    results, lines = whole(tmp_path / "demo")
    deployment = results["fleet"]["deployment"]
    assert (deployment["outcome"], deployment["all_s"]) == ("rolled_back", None)
    assert "v2 rolled_back: as the test said" in lines


def test_a_demo_that_is_interrupted_leaves_no_process_and_no_report(tmp_path, impatient):
    out = tmp_path / "demo"
    program = (
        "import sys; from fleet.demo import cli, robots, runner; robots.STATUS_EVERY_S = 0.0;"
        f"runner.FLEXOR = {FAKE!r}; robots.SHARED_STEPS = 10**9; from pathlib import Path; cli.demo(out=Path({str(out)!r}))"
    )
    demo = subprocess.Popen(
        python(program), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    until(lambda: (out / "robots" / "r3").exists(), "the third robot")
    demo.send_signal(signal.SIGINT)
    errors = demo.communicate(timeout=DEADLINE_S)[1]
    assert "KeyboardInterrupt" in errors  # the dispatcher makes one line of it
    assert not (out / "report.html").exists()
    assert running(str(out)) == []


def running(word: str) -> list[str]:
    """Command lines of living processes that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word in line:
            found.append(line)
    return found


def test_a_stage_without_its_file_says_which_field_it_missed(tmp_path):
    path = tmp_path / "eval_v1.json"
    path.write_text('{"results": {"success": 1.0}}')
    with pytest.raises(FigureError, match=r"eval_v1.json: no field 'results.success_ci95'. Known at results: success"):
        Source(path).get("results.success_ci95")
    with pytest.raises(FigureError, match="expected the JSON of a stage"):
        Source(tmp_path / "gone.json")


def test_a_folder_that_no_demo_made_is_not_emptied(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DemoError, match="holds files that no demo made"):
        prepare(tmp_path, minutes=1.0)
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_of_an_earlier_demo_is_emptied(tmp_path):
    places = prepare(tmp_path / "demo", minutes=1.0)
    places.report.write_text("old")
    prepare(tmp_path / "demo", minutes=1.0)
    assert not places.report.exists()


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_a_demo_needs_time_to_train(tmp_path, minutes):
    with pytest.raises(DemoError, match="--minutes must be > 0"):
        prepare(tmp_path, minutes=minutes)


def test_what_is_paired_is_the_difference_of_each_episode(tmp_path):
    for name, returns in (("a", [3.0, 5.0, 4.0, 6.0]), ("b", [1.0, 3.0, 2.0, 4.0])):
        (tmp_path / name).write_text(
            json.dumps({"results": {"returns": returns, "successes": [True, False, True, True]}})
        )
    found = paired(Source(tmp_path / "a"), Source(tmp_path / "b"))
    assert (found["return_mean"], found["return_ci95"]) == (2.0, [2.0, 2.0])  # every episode by two: no spread at all
    assert found["success"] == 0.0


def test_a_curve_is_thinned_and_keeps_its_end(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("time_s,success\n" + "".join(f"{i},{'nan' if i == 0 else i / 1000}\n" for i in range(1000)))
    points = curve(path)
    assert 100 <= len(points) <= 201
    assert points[0] == {"time_s": 0.0}  # no episode had ended yet
    assert points[-1] == {"time_s": 999.0, "success": 0.999}


def test_ports_come_in_a_row_and_are_free():
    port = free_port()
    with contextlib.ExitStack() as stack:
        for i in range(3):
            stack.enter_context(socket.socket()).bind(("127.0.0.1", port + i))
