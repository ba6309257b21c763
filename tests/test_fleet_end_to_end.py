"""A hub and robots as real processes over real sockets: killed, restarted, locked out, and counted by an oracle that reads the whole log."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onboard_helpers import artifact, model, write

from fleet import cli
from fleet.errors import AdminError, HubAwayError, PortInUseError
from fleet.gateway import read_result
from fleet.hub import Hub, HubConfig
from fleet.keys import make_keys
from fleet.operator import ask, table
from fleet.packer import pack_log
from fleet.processes import environment
from fleet.segment import roll
from fleet.spool import Spool
from fleet.store import audit, read_log
from fleet.wire import EVENTS, STEPS
from robot.experience import decode as decode_chunk
from robot.onboard.artifact import load
from robot.packs import open_pack

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import json, sys
from pathlib import Path
from fleet import cli
options = {k: Path(v) if k in ("dir", "keys", "out", "json", "estop") else v for k, v in json.loads(sys.argv[2]).items()}
getattr(cli, sys.argv[1])(**options)
"""
UP_S = 60.0  # a loaded machine may take a while to start a process; nothing here is a timing claim


class Place:
    """A folder with keys, artifacts and a port, and the processes started in it."""

    def __init__(self, path):
        self.path, self.processes = path, []
        self.port = free_ports()
        self.hub_address = f"127.0.0.1:{self.port}"
        self.keys = path / "keys"
        make_keys(self.keys, ["a", "b"])
        self.v1 = write(path / "models/test_policy/v1", artifact(model(seed=0)))
        self.v2 = write(path / "models/test_policy/v2", artifact(model(seed=1)))

    def start(self, command, /, **options):
        words = [
            sys.executable,
            "-c",
            RUN,
            command,
            json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in options.items()}),
        ]
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        return process

    def hub(self):
        process = self.start("hub", dir=self.path / "hub", keys=self.keys, port=self.port, reserve_mb=1)
        assert "ready on 127.0.0.1" in process.stdout.readline()
        return process

    def robot(self, name, **options):
        defaults = {
            "hub": self.hub_address,
            "keys": self.keys,
            "name": name,
            "dir": self.path / name,
            "artifact": str(self.v1),
        }
        return self.start("robot", **{**defaults, "rate": "real", **options})

    def status(self, count=False):
        return ask(self.hub_address, self.keys, "status", {"count": count})

    def wait(self, condition, what):
        until_s = time.monotonic() + UP_S
        while time.monotonic() < until_s:
            with contextlib.suppress(HubAwayError):
                status = self.status()
                if condition(status):
                    return status
            time.sleep(0.2)
        seen = table(self.status())
        said = []
        for process in self.processes:
            process.kill()
            said.append(process.communicate()[0][-1500:])
        raise AssertionError(f"not in {UP_S:g} s: {what}; {seen}\n" + "\n---\n".join(said))

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def free_ports():
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            for offset in (1, 2):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            return port


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.close()


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, _ = process.communicate(timeout=UP_S)
    return out


def held(status, name):
    return next(r["held_steps"] for r in status["robots"] if r["name"] == name)


def test_F01_F03_killed_hub_and_killed_robot_lose_nothing_and_double_nothing(place):
    hub = place.hub()
    a, b = place.robot("a", seed=1), place.robot("b", seed=2)
    place.wait(lambda s: held(s, "a") >= 100 and held(s, "b") >= 100, "both robots sent a chunk")
    hub.kill()
    hub.wait()
    b.kill()  # its simulator must go with it
    b.wait()
    b = place.robot("b", seed=3)
    hub = place.hub()
    before = place.status()
    place.wait(lambda s: all(held(s, n) >= held(before, n) + 100 for n in "ab"), "both sent more after the restart")
    words = [stop(robot) for robot in (a, b)]
    assert all("the hub has everything" in text for text in words), words
    status = place.status(count=True)
    assert (status["lost"], status["doubled"], status["pending"], status["audit_mismatches"]) == (0, 0, 0, 0)
    assert status["recorded"] == status["held"] >= 6
    assert status["recorded_steps"] == status["held_steps"]
    assert {r["state"] for r in status["robots"]} == {"OFFLINE"}
    assert stop(hub, signal.SIGINT).rstrip().endswith("everything acknowledged is on the disk")
    assert hub.returncode == 0
    check_with_the_oracle(place, status)


def check_with_the_oracle(place, status):
    """The log, read record by record, against the robots' own spools; then the chunks against each other; then a pack of them."""
    digests, chunks = {}, []
    for record, payload in read_log(place.path / "hub"):
        digests[record.key] = roll(digests.get(record.key, b""), record.seq, record.crc)
        if record.stream == STEPS:
            chunks.append(decode_chunk(payload))
            assert record.items == chunks[-1].header.steps
    lines = {(x.robot, x.epoch, x.stream): x for x in audit(place.path / "hub")}
    assert {key[0] for key in lines} == {"a", "b"}
    assert (
        STEPS in {key[2] for key in lines} <= {STEPS, EVENTS}
    )  # on a machine that is too busy no episode may have ended
    for name in "ab":
        spool = Spool(place.path / name / "spool", name)
        for stream, recorded in spool.recorded.items():
            line = lines[name, spool.epoch, stream]
            assert (line.held, line.missing, line.declared_lost, line.doubled) == (recorded, 0, 0, 0)
            assert digests[line.robot, line.epoch, line.stream] == spool.digest_at(stream, recorded)
        spool.close()
    steps = [(c.header.episode_id, c.header.first_step + i) for c in chunks for i in range(c.header.steps)]
    assert len(set(steps)) == len(steps) == status["held_steps"]
    packed = pack_log(place.path / "hub", place.path / "packs")
    (path,) = packed.packs
    assert len(open_pack(path)) == len(steps)
    assert pack_log(place.path / "hub", place.path / "packs").packs.keys() == {path}  # the same log, the same pack


def test_a_new_policy_goes_to_one_robot_and_then_to_all(place):
    place.hub()
    robots = [place.robot(name, seed=i, rate="fast") for i, name in enumerate("ab")]
    place.wait(lambda s: all(r["state"] == "ONLINE" for r in s["robots"]), "both are there")
    place.start("deploy", artifact=str(place.v2), hub=place.hub_address, keys=place.keys).wait(UP_S)
    first = place.wait(lambda s: [r["artifact"] for r in s["robots"]].count("test_policy/v2") == 1, "one robot has v2")
    assert first["rollout"]["stage"] == "one"
    running = place.wait(
        lambda s: s["rollout"]["status"] in ("done", "rolled_back") or s["rollout"]["stage"] == "all", "a verdict"
    )
    assert running["rollout"]["reason"]
    ask(place.hub_address, place.keys, "rollback") if running["rollout"]["status"] != "rolled_back" else None
    back = place.wait(
        lambda s: (
            s["rollout"]["status"] == "rolled_back" and {r["artifact"] for r in s["robots"]} == {"test_policy/v1"}
        ),
        "all are back on v1",
    )
    assert back["lost"] == 0
    with pytest.raises(AdminError, match="is banned; publish a new version"):
        ask(place.hub_address, place.keys, "deploy", {"name": "test_policy", "version": "v2"})
    assert all("the hub has everything" in stop(robot) for robot in robots)


def test_a_candidate_watches_first_its_actions_are_compared_and_never_commanded(place):
    """The whole way: catalogue, assignment, download, admission, the shadow beside the loop, heartbeats, the stage's verdict."""
    place.hub()
    robots = [place.robot(name, seed=i, rate="fast") for i, name in enumerate("ab")]
    place.wait(lambda s: all(r["state"] == "ONLINE" for r in s["robots"]), "both are there")
    place.start("deploy", artifact=str(place.v2), hub=place.hub_address, keys=place.keys, plan="standard").wait(UP_S)
    ask(place.hub_address, place.keys, "hold")
    held = place.wait(lambda s: any(r["shadow_steps"] > 3000 for r in s["robots"]), "it watched as long as it must")
    assert (held["rollout"]["status"], held["rollout"]["stage"]) == ("held", "shadow")
    (watched,) = [r for r in held["robots"] if r["shadow_steps"]]
    assert held["rollout"]["canaries"] == [watched["name"]]
    assert watched["shadow_bad"] == 0
    assert watched["shadow_difference"] > 1e-3  # another policy, compared on the same observations
    assert {r["artifact"] for r in held["robots"]} == {"test_policy/v1"}  # and nobody acts with it
    ask(place.hub_address, place.keys, "resume")
    place.wait(lambda s: s["rollout"]["stage"] == "one", "promoted")
    place.wait(
        lambda s: [r["artifact"] for r in s["robots"]].count("test_policy/v2") == 1, "now one robot acts with it"
    )
    place.wait(
        lambda s: any(r["shadow_steps"] == 0 and r["artifact"] == "test_policy/v2" for r in s["robots"]), "alone"
    )
    assert all("the hub has everything" in stop(robot) for robot in robots)
    old, new = (load(path).sha256 for path in (place.v1, place.v2))
    by_cohort = {}
    for _, payload in read_log(place.path / "hub", {STEPS}):
        header = decode_chunk(payload).header
        by_cohort.setdefault(header.cohort, set()).add(header.policy_sha256)
    assert by_cohort["shadow"] == {old}  # what was commanded while it watched
    assert {cohort for cohort, policies in by_cohort.items() if new in policies} <= {"canary"}


def test_a_file_is_a_robots_emergency_stop_and_the_hub_hears_of_it(place):
    place.hub()
    button = place.path / "button"
    button.write_text("0\n")  # a GPIO that is not pressed
    robot = place.robot("a", rate="fast", estop=button)
    place.wait(lambda s: s["robots"][0]["doing"] == "running" and s["held"] > 0, "a runs")
    button.write_text("1\n")
    place.wait(lambda s: s["robots"][0]["doing"] == "safe", "a stands still")
    button.write_text("0\n")  # letting go does not make it move: one stop is told, and no episode after it
    out = stop(robot)
    assert "emergency stop" in out
    events = [payload for record, payload in read_log(place.path / "hub", {EVENTS}) if not record.tombstone]
    told = [result for result in map(read_result, events) if result is not None and result.stops]
    assert [(result.stops, result.falls, result.success) for result in told] == [(1, 1, False)]


def test_a_robot_without_a_hub_goes_on_and_one_with_an_unknown_key_is_refused_and_goes_on_too(place):
    alone = place.robot("a", episodes=1, rate="fast", drain_s=0.1)
    out, _ = alone.communicate(timeout=UP_S)
    assert alone.returncode == 0
    assert "no hub at" in out
    assert "experience is kept in" in out
    assert "stopped after 1 episodes, 200 steps recorded; not all of it is on the hub yet" in out
    place.hub()
    (place.keys / "allow/b.key").unlink()
    stranger = place.robot("b", episodes=1, rate="fast", drain_s=1.0)
    out, _ = stranger.communicate(timeout=UP_S)
    assert "refused: the hub does not know this robot's key" in out
    assert "stopped after 1 episodes, 200 steps recorded" in out
    status = place.status(count=True)
    assert status["refused_keys"] > 0
    assert status["held"] == 0
    again = place.robot("a", episodes=1, rate="fast")
    out, _ = again.communicate(timeout=UP_S)
    assert "400 steps recorded; the hub has everything" in out
    assert place.status(count=True)["held_steps"] == 400


def test_a_port_in_use_is_named(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.port + 1))
        taken.listen()
        with pytest.raises(PortInUseError, match=rf"port {place.port + 1} \(bulk\) on 127.0.0.1 is in use"):
            Hub(HubConfig(folder=place.path / "hub", keys=place.keys, port=place.port))
    Hub(HubConfig(folder=place.path / "hub", keys=place.keys, port=place.port)).close()


def test_only_the_operators_key_may_ask(place, capsys):
    place.hub()
    place.wait(lambda s: s["hub"] == "hub", "an answer")
    cli.status(hub=place.hub_address, keys=place.keys, json=place.path / "status.json")
    written = json.loads((place.path / "status.json").read_text())
    assert written["command"] == "fleet status"
    assert {f: written["results"][f] for f in ("lost", "doubled", "recorded", "held")} == dict.fromkeys(
        ("lost", "doubled", "recorded", "held"), 0
    )
    cli.top(hub=place.hub_address, keys=place.keys, times=1)
    said = capsys.readouterr().out
    assert "together" in said
    assert "0 of 2 robots online" in said
    with pytest.raises(AdminError, match="nothing was deployed yet"):
        cli.hold(hub=place.hub_address, keys=place.keys)
    with pytest.raises(AdminError, match=r"none/v1 is not in the catalogue\. Known: nothing"):
        ask(place.hub_address, place.keys, "deploy", {"name": "none", "version": "v1"})
    with pytest.raises(AdminError, match="unknown command 'reboot'"):
        ask(place.hub_address, place.keys, "reboot")
    other = place.path / "other"
    make_keys(other)
    (other / "hub.key").write_bytes((place.keys / "hub.key").read_bytes())
    with pytest.raises(HubAwayError, match="no hub answered"):
        ask(place.hub_address, other, "status", timeout_s=1.0)


def test_children_end_with_their_parent(place):
    words = [
        sys.executable,
        "-c",
        RUN,
        "hub",
        json.dumps({"dir": str(place.path / "hub"), "keys": str(place.keys), "port": place.port}),
    ]
    script = f"""
import os, subprocess
from fleet.processes import environment
child = subprocess.Popen({words!r}, env=environment(), stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=UP_S)
    pid = int(parent.stdout.split()[0])
    until_s = time.monotonic() + UP_S
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until_s, "the hub outlived its parent"
        time.sleep(0.05)
    assert os.path.exists(place.path / "hub/log")
