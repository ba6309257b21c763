"""A robot's own part, without a hub: what it refuses, what it falls back to, and that an emergency stop outlasts every order."""

import itertools
from pathlib import Path

import pytest
from msgspec.structs import replace
from onboard_helpers import CONTRACT, HAND, artifact, model, write

from fleet import slots as slot_file
from fleet.assignment import ArtifactRef, Assignment
from fleet.deployer import Change, admit_folder
from fleet.keys import make_keys
from fleet.messages import EpisodeResult
from fleet.robot import FleetRobot, NoPolicyError, RobotConfig
from fleet.slots import Slot, Slots
from robot.errors import UnknownNameError
from robot.mock import MockReach, reach_contract
from robot.onboard.artifact import load
from robot.onboard.loop_report import LoopReport, Tally
from robot.onboard.refusals import OtherTaskError, RateError, TruncatedFileError
from robot.onboard.robots import Direct
from robot.safety import Fault


class Station:
    """Keys, artifacts v1 and v2, and a robot's folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.robots = path, []
        make_keys(path / "keys", ["a"])
        self.slots = [self.artifact(version, model(seed=i)) for i, version in enumerate(("v1", "v2"))]

    def artifact(self, version, proto, contract=CONTRACT) -> Slot:
        folder = write(self.path / "models/test_policy" / version, artifact(proto, contract))
        return Slot(path=str(folder), label=f"test_policy/{version}", sha256=load(str(folder)).sha256)

    def config(self, **options) -> RobotConfig:
        folder = self.path / "a"
        return RobotConfig(hubs="127.0.0.1:1", keys=self.path / "keys", name="a", folder=folder, paced=False, **options)

    def robot(self, estop=lambda: False, **options) -> FleetRobot:
        made = FleetRobot(self.config(**options), estop)
        self.robots.append(made)
        return made

    def ran(self, **slots) -> None:
        (self.path / "a").mkdir(exist_ok=True)
        slot_file.write(self.path / "a/slots.json", Slots(**slots))


@pytest.fixture
def station(tmp_path, monkeypatch):
    monkeypatch.setattr("fleet.robot.SAFE_POLL_S", 0.0)
    monkeypatch.setattr(
        "robot.onboard.admission.judge", lambda artifact, seed: {}
    )  # a process each; it has its own tests
    made = Station(tmp_path)
    yield made
    for robot in made.robots:
        robot._files.close()
        robot.uplink.spool.close()


def cut(slot: Slot) -> None:
    file = Path(slot.path, "policy.onnx")
    file.write_bytes(file.read_bytes()[:-700])


def lose(slot: Slot) -> None:
    Path(slot.path).rename(f"{slot.path}.gone")


@pytest.mark.parametrize(
    "contract, error, says",
    [
        (reach_contract(HAND, control_hz=10.0), RateError, "10 Hz, the robot runs at 50 Hz"),
        (
            replace(CONTRACT, env_id="flexor/HandTurn-v0"),
            OtherTaskError,
            "task flexor/HandTurn-v0, this robot is at flexor/HandReach-v0",
        ),
    ],
    ids=["rate", "task"],
)
def test_a_policy_of_another_rate_or_task_is_not_for_a_robot_that_runs(station, contract, error, says):
    other = station.artifact("v3", model(contract), contract)
    with pytest.raises(error, match=says):
        admit_folder(Path(other.path), other.sha256, HAND, CONTRACT)
    robot = station.robot(artifact=station.slots[0].path)
    with pytest.raises(error, match=says):  # the way of assignments
        robot.deployer._admit(Path(other.path), other.sha256)


def test_what_goes_wrong_with_one_policy_does_not_end_the_thread_that_follows_the_next(station):
    robot, (old, new) = station.robot(artifact=station.slots[0].path), station.slots

    def broken(path, sha256):
        raise MemoryError("3.55 PiB")

    robot.deployer._admit = broken
    robot.deployer.start_with(old)
    robot.deployer.slots = replace(robot.deployer.slots, previous=new)  # here already: nothing to download
    wanted = ArtifactRef(name="test_policy", version="v2", sha256=new.sha256)
    robot.deployer._follow(
        Assignment(robot="a", generation=1, artifact=wanted, rollout="r", stage="one", cohort="none", expires_s=4e9)
    )
    assert robot.deployer.slots.refused == "test_policy/v2: MemoryError: 3.55 PiB"


@pytest.mark.parametrize("damage", [cut, lose])
def test_a_robot_whose_policy_is_damaged_starts_with_what_it_ran_before(station, damage):
    old, new = station.slots
    station.ran(active=new, previous=old)
    damage(new)
    for artifact_option in ("", new.path):  # what the operator's start script names may be the one that is damaged
        robot = station.robot(artifact=artifact_option)
        assert robot._admission.artifact.sha256 == old.sha256
        assert robot.deployer.slots.active == old
        robot.uplink.spool.close()


def test_a_robot_with_nothing_whole_says_what_is_wrong_with_the_first(station):
    with pytest.raises(NoPolicyError, match="--artifact ARTIFACT"):
        station.robot()
    old, new = station.slots
    station.ran(active=new, previous=old)
    cut(new)
    lose(old)
    with pytest.raises(TruncatedFileError):
        station.robot()
    with pytest.raises(UnknownNameError, match="no_such"):
        station.robot(artifact="no_such")


def fault(kind: Fault) -> LoopReport:
    return Tally.of(0).report(seconds=1.0, cpu_s=0.0, fault=kind, fault_text="", refused=[])


@pytest.mark.parametrize("damage", [None, cut, lose])
def test_a_policy_that_fails_on_probation_is_undone_or_the_robot_stands_still(station, damage):
    old, new = station.slots
    station.ran(active=new, previous=old, probation=1)
    robot = station.robot()
    assert robot._admission.artifact.sha256 == new.sha256
    if damage is not None:
        damage(old)
    robot._state = "probation"
    robot._faulted(fault(Fault.ACTION), 3, 1)
    if damage is None:
        assert robot._admission.artifact.sha256 == old.sha256
        assert (robot._state, robot.deployer.slots.active) == ("probation", old)
    else:
        assert (robot._state, robot.deployer.slots.active) == ("safe", None)  # an order to run it downloads it again
        assert "test_policy/v1 cannot run" in robot.deployer.slots.refused


class Listener(Direct):
    """A robot that counts what it is told."""

    sent = resets = 0

    def send(self, command):
        self.sent += 1
        super().send(command)

    def reset(self, state, rng):
        self.resets += 1
        return super().reset(state, rng)


@pytest.mark.parametrize("pressed_after", [0, 30])
def test_an_emergency_stop_outlasts_every_order_is_told_and_is_not_judged_by_the_robot(station, pressed_after):
    """Also one that lets go again by itself: a person has to start the process again. Why it was pressed the hub's statistics say."""
    old, new = station.slots
    station.ran(active=new, previous=old, probation=1)
    body = Listener(MockReach(HAND, CONTRACT.control_hz))
    presses = iter([False] * pressed_after + [True])
    robot = station.robot(estop=lambda: next(presses, False))
    asked = itertools.count()
    robot.deployer._change = Change(slot=old, admission=robot._admit(Path(old.path), old.sha256))

    def stopped() -> bool:
        return robot._state == "safe" and next(asked) > 20

    assert robot._drive(body, stopped) == 0
    assert robot._halted and robot._heartbeat().state == "safe"
    assert robot.deployer.changing  # laid out, and not taken
    assert robot.deployer.slots.active == new and robot.deployer.slots.refused == ""
    told = [event for _, event, _ in robot.uplink._ring if isinstance(event, EpisodeResult)]
    assert [(event.stops, event.falls, event.trips) for event in told] == ([(1, 1, 0)] if pressed_after else [])
    assert body.resets == (2 if pressed_after else 0)  # never sent home after it
    assert body.sent < pressed_after + 30
