"""Nothing runs on a robot that is not in the signed catalogue and assigned by the director. Each attack has a named refusal."""

import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fleet_helpers import wait_for
from onboard_helpers import CONTRACT, model, write
from onboard_helpers import artifact as onboard_artifact
from test_fleet_faults import StubbornDisk
from test_onboard_admission import set_weight, weight

from fleet import slots as slot_file
from fleet.assignment import ArtifactRef, Assignment, accept, sign
from fleet.catalogue import Catalogue, make_root
from fleet.deployer import Deployer, admit_folder
from fleet.director import Director
from fleet.download import download
from fleet.errors import (
    BannedPolicyError,
    CatalogueError,
    ExpiredAssignmentError,
    ForgedAssignmentError,
    HubAwayError,
    MisdirectedAssignmentError,
    ReplayedAssignmentError,
    RolloutError,
)
from fleet.keys import load_signing_key, load_verifier, make_keys
from fleet.messages import EpisodeResult
from fleet.rollout import RobotView
from fleet.signed import Signed
from fleet.slots import Slot, Slots
from robot.description import load as load_robot
from robot.errors import UnknownNameError
from robot.onboard.refusals import AdmissionError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = ArtifactRef(name="hand_reach", version="v2", sha256="2" * 64)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def document(key=KEY, **changes):
    fields = {
        "robot": "a", "generation": 5, "artifact": REF, "rollout": "r", "stage": "one", "cohort": "canary", "expires_s": 1000.0,
    }  # fmt: skip
    return sign(Assignment(**{**fields, **changes}), key)


def judge(doc, *, newest=4, newest_document=b"", now_s=10.0):
    return accept(doc, KEY.public_key(), robot="a", newest=(0, newest), newest_document=newest_document, now_s=now_s)


def test_a_good_assignment_is_accepted_also_twice():
    doc = document()
    assert judge(doc).artifact == REF
    assert judge(doc, newest=5, newest_document=doc).generation == 5


@pytest.mark.parametrize(
    ("doc", "error", "match"),
    [
        (document(key=Ed25519PrivateKey.from_private_bytes(bytes(32))), ForgedAssignmentError, "did not sign"),
        (b"", ForgedAssignmentError, "refused"),
        (document()[:-1] + bytes([document()[-1] ^ 1]), ForgedAssignmentError, "InvalidSignature"),
        (
            msgspec.msgpack.encode(Signed(payload=b"{}", signature=KEY.sign(b"{}"))),
            ForgedAssignmentError,
            "InvalidSignature",  # a signature of the right key, on something else
        ),
        (document(robot="b"), MisdirectedAssignmentError, "for 'b' was sent to 'a'"),
        (document(generation=3), ReplayedAssignmentError, "generation 3: 4 was seen"),
        (document(generation=4), ReplayedAssignmentError, "only grows"),
        (document(expires_s=9.0), ExpiredAssignmentError, "expired 1 s ago"),
        (document(banned=(REF.sha256,)), BannedPolicyError, "bans itself"),
    ],
)
def test_a_bad_assignment_is_refused_by_name(doc, error, match):
    with pytest.raises(error, match=match):
        judge(doc)


# --- catalogue --------------------------------------------------------------------------------------------------------


def artifact(folder, text=b"policy"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("policy.onnx", text), ("golden.npz", b"golden" * 1000), ("card.md", b"# card")):
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def shop(tmp_path):
    """Keys, a catalogue with one artifact, and a transport that counts and can be tampered with."""
    keys = tmp_path / "keys"
    make_keys(keys, ["a"])
    now = datetime.now(UTC)
    make_root(keys, now)
    catalogue = Catalogue(tmp_path / "catalogue", keys)
    ref = catalogue.publish(artifact(tmp_path / "v2"), "hand_reach", "v2", now)

    def ask(path, offset):
        return catalogue.piece(path, offset, 1000)

    return SimpleNamespace(
        keys=keys, catalogue=catalogue, ref=ref, ask=ask, path=tmp_path, trust=keys / "trust/root.json"
    )


def test_an_artifact_arrives_whole_through_the_signed_catalogue(shop):
    path = download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {
        p.name: p.read_bytes() for p in (shop.path / "v2").iterdir()
    }
    assert shop.ref.sha256 == hashlib.sha256(b"policy").hexdigest()
    assert download(shop.ref, shop.path / "robot", shop.trust, shop.ask) == path  # again, from remembered metadata


def test_an_altered_artifact_is_refused_and_nothing_of_it_is_kept(shop):
    for target in shop.catalogue._targets.rglob("*.golden.npz"):
        data = bytearray(target.read_bytes())
        data[3] ^= 1
        target.write_bytes(data)
    with pytest.raises(CatalogueError, match=r"hand_reach/v2: .*refused"):
        download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    assert list((shop.path / "robot/models").rglob("*")) == []


def test_altered_metadata_and_another_signer_are_refused(shop):
    timestamp = shop.catalogue._metadata / "timestamp.json"
    good = timestamp.read_bytes()
    altered = good.replace(b'"version":1', b'"version":9').replace(b'"version": 1', b'"version": 9')
    assert altered != good
    timestamp.write_bytes(altered)
    with pytest.raises(CatalogueError, match="refused"):
        download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    timestamp.write_bytes(good)
    other = shop.path / "other"
    make_keys(other)
    make_root(other, datetime.now(UTC))
    with pytest.raises(CatalogueError, match="refused"):
        download(shop.ref, shop.path / "robot2", other / "trust/root.json", shop.ask)


def test_an_old_catalogue_is_not_taken_back(shop):
    timestamp = shop.catalogue._metadata / "timestamp.json"
    old = timestamp.read_bytes()
    shop.catalogue.publish(artifact(shop.path / "v3", b"newer"), "hand_reach", "v3", datetime.now(UTC))
    download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    timestamp.write_bytes(old)
    with pytest.raises(CatalogueError, match="refused"):
        download(shop.ref, shop.path / "robot", shop.trust, shop.ask)


def test_an_expired_catalogue_is_refused_until_it_is_signed_again(shop):
    long_ago = datetime.now(UTC) - timedelta(days=100)
    shop.catalogue.refresh(long_ago, force=True)
    with pytest.raises(CatalogueError, match="refused"):
        download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    assert shop.catalogue.refresh(datetime.now(UTC))
    assert not shop.catalogue.refresh(datetime.now(UTC))
    download(shop.ref, shop.path / "robot", shop.trust, shop.ask)


def test_both_signatures_must_name_the_same_policy(shop):
    wrong = msgspec.structs.replace(shop.ref, sha256="0" * 64)
    with pytest.raises(CatalogueError, match="both must sign the same one"):
        download(wrong, shop.path / "robot", shop.trust, shop.ask)
    with pytest.raises(CatalogueError, match="not in the signed catalogue"):
        download(msgspec.structs.replace(shop.ref, version="v9"), shop.path / "robot", shop.trust, shop.ask)


def test_an_artifact_is_never_changed(shop):
    with pytest.raises(CatalogueError, match="a version is never changed"):
        shop.catalogue.publish(artifact(shop.path / "x", b"other"), "hand_reach", "v2", datetime.now(UTC))
    with pytest.raises(CatalogueError, match="is called like hand_reach/v2"):
        shop.catalogue.publish(shop.path / "x", "../up", "v2", datetime.now(UTC))
    with pytest.raises(CatalogueError, match=r"an artifact has policy\.onnx"):
        shop.catalogue.publish(shop.path / "none", "hand_reach", "v3", datetime.now(UTC))
    with pytest.raises(CatalogueError, match="Known: hand_reach/v2"):
        shop.catalogue.find("hand_reach", "v3")


@pytest.mark.parametrize(
    "path", ["../keys/sign/root.pem", "/etc/passwd", "metadata/../../keys/hub.key", "metadata", "", "x"]
)
def test_only_files_of_the_catalogue_can_be_asked_for(shop, path):
    assert shop.catalogue.piece(path, 0, 100) == (-1, b"")


# --- the robot's side ---------------------------------------------------------------------------------------------------


def deployer(shop, admit=lambda path, sha256: "admission", ask=None):
    made = Deployer(
        "a",
        shop.path / "robot",
        director=load_verifier(shop.keys, "director"),
        trust=shop.trust,
        ask=ask or shop.ask,
        admit_path=admit,
    )
    if made.slots.active is None:
        made.start_with(Slot(path=str(shop.path / "v1"), label="hand_reach/v1", sha256="1" * 64))
    return made


def order(shop, generation=1, **changes):
    fields = {"artifact": shop.ref, "generation": generation, "expires_s": 4e9}
    return document(load_signing_key(shop.keys, "director"), **{**fields, **changes})


def test_a_good_assignment_is_downloaded_admitted_and_laid_out(shop):
    robot = deployer(shop)
    assert not robot.changing
    robot.judge(order(shop))
    assert robot.changing
    assert robot.slots.active.label == "hand_reach/v1"  # until the loop takes it
    change = robot.take_change()
    assert (change.slot.label, change.slot.sha256) == ("hand_reach/v2", shop.ref.sha256)
    assert (robot.slots.active.label, robot.slots.previous.label) == ("hand_reach/v2", "hand_reach/v1")
    assert (robot.slots.probation, robot.slots.cohort) == (1, "canary")
    robot.proved()
    assert slot_file.read(shop.path / "robot/slots.json") == robot.slots
    assert robot.slots.probation == 0


def test_a_replayed_assignment_does_not_bring_the_old_policy_back_even_after_a_restart(shop):
    robot = deployer(shop)
    old, new = order(shop, 1), order(shop, 2, artifact=None)
    robot.judge(old)
    robot.take_change()
    robot.judge(new)
    robot = deployer(shop)
    robot.judge(old)
    assert (robot.slots.generation, robot.ignored, robot.changing) == (2, 1, False)


def test_a_forged_assignment_changes_nothing(shop):
    robot = deployer(shop)
    before = robot.slots
    robot.judge(document(KEY, artifact=shop.ref, expires_s=4e9))
    assert (robot.slots, robot.ignored, robot.changing) == (before, 1, False)


def test_a_policy_the_robot_cannot_admit_is_reported_and_not_run(shop):
    def refuse(path, sha256):
        raise AdmissionError("not for this hand")

    robot = deployer(shop, refuse)
    robot.judge(order(shop))
    assert not robot.changing
    assert robot.slots.refused == "hand_reach/v2: AdmissionError: not for this hand"
    assert robot.slots.active.label == "hand_reach/v1"


def external(proto):
    tensor = weight(proto, "w0")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def not_a_number(proto):
    set_weight(proto, "b1", np.full(32, np.nan))


@pytest.mark.parametrize(
    "edit, error",
    [(external, "ExternalDataError"), (not_a_number, "GoldenMismatchError")],
    ids=["external data", "NaN"],
)
def test_F19_a_policy_with_external_data_or_nan_is_signed_twice_and_still_not_run(shop, edit, error):
    """The signatures are good: the operator published it by mistake. The robot's own admission, in its child process, says no."""
    proto, folder = model(), shop.path / "v3"
    write(folder, onboard_artifact(proto))
    edit(proto)
    (folder / "policy.onnx").write_bytes(proto.SerializeToString())
    ref = shop.catalogue.publish(folder, "hand_reach", "v3", datetime.now(UTC))
    robot = deployer(shop, lambda path, sha256: admit_folder(path, sha256, load_robot(CONTRACT.robot)))
    before = robot.slots.active
    robot.judge(order(shop, artifact=ref))
    assert robot.slots.refused.startswith(f"hand_reach/v3: {error}: ")
    assert (robot.changing, robot.slots.active, robot.slots.probation) == (False, before, 0)
    robot = deployer(shop)
    assert robot.slots.active == before  # also after a restart
    view = RobotView(online=True, policy_sha256=before.sha256, refused=robot.slots.refused)
    director = Director(shop.path / "director.json", load_signing_key(shop.keys, "director"))
    director.deploy(ref, "quick", 0.0, {"a": view})
    assert director.tick(1.0, {"a": view}).status == "rolled_back"
    assert director.kept.banned == (ref.sha256,)


def test_F18_an_oversized_policy_or_piece_is_refused_before_it_is_kept(shop, monkeypatch):
    monkeypatch.setattr("fleet.catalogue.MAX_FILE_BYTES", 5000)
    monkeypatch.setattr("fleet.download.MAX_FILE_BYTES", 5000)
    with pytest.raises(CatalogueError, match=r"golden.npz has 6000 bytes; at most 5000"):
        download(shop.ref, shop.path / "robot", shop.trust, shop.ask)
    with pytest.raises(CatalogueError, match="at most 5000"):
        shop.catalogue.publish(artifact(shop.path / "v4"), "hand_reach", "v4", datetime.now(UTC))
    assert not list((shop.path / "robot").rglob("*.onnx"))

    def endless(path, offset):  # a hub that was taken over: the length is signed, more is not taken
        total, data = shop.ask(path, offset)
        return (total + (1 << 40), data + b"x" * 1000) if path.startswith("targets") else (total, data)

    monkeypatch.undo()
    with pytest.raises(CatalogueError):
        download(shop.ref, shop.path / "other", shop.trust, endless)
    assert not list((shop.path / "other").rglob("policy.onnx"))


def test_a_hub_that_is_away_puts_the_download_off_and_is_not_a_refusal(shop):
    def away(path, offset):
        raise HubAwayError("no hub")

    robot = deployer(shop, ask=away)
    robot.judge(order(shop))
    assert (robot.slots.refused, robot.changing) == ("", False)
    assert robot._retry is not None


def test_F08_a_full_disk_on_the_robot_puts_an_order_off_and_is_not_a_refusal(shop, monkeypatch):
    robot = deployer(shop)
    before, robot._disk = robot.slots, StubbornDisk()
    robot._disk.left = 0
    with pytest.raises(OSError, match="No space left"):
        robot.judge(order(shop))
    assert robot.slots == before  # the hub goes on offering it
    robot.proved()
    robot.start_with(before.active)  # what the robot decides itself needs no disk
    robot._disk.left = 1 << 30

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("fleet.download.Updater", full)
        robot.judge(order(shop))
    assert (robot.slots.generation, robot.slots.refused, robot.changing) == (1, "", False)
    assert robot._retry is not None
    robot._follow(robot._retry[1])
    assert robot.changing


def test_F08_a_full_disk_does_not_end_the_thread_that_follows_orders(shop):
    robot = deployer(shop)
    robot._disk = StubbornDisk()
    robot._disk.left = 0
    robot.start()
    robot.offer(order(shop))
    robot.offer(b"the one above was looked at")
    wait_for(lambda: robot.ignored == 1, "both were looked at")
    robot._disk.left = 1 << 30
    robot.offer(order(shop))
    wait_for(lambda: robot.changing, "it is followed")
    robot.stop()
    robot.join()


def test_a_banned_policy_is_left_without_the_hubs_help(shop):
    robot = deployer(shop)
    robot.judge(order(shop, 1))
    robot.take_change()
    robot.judge(order(shop, 2, artifact=None, banned=(shop.ref.sha256,)))
    assert robot.take_change().slot.label == "hand_reach/v1"


def test_a_policy_that_is_banned_before_the_loop_took_it_is_not_switched_to(shop):
    robot = deployer(shop)
    robot.judge(order(shop, 1))
    assert robot.changing  # laid out; the loop is still in its episode
    robot.judge(order(shop, 2, artifact=None, banned=(shop.ref.sha256,)))
    assert robot.take_change() is None
    assert robot.slots.active.label == "hand_reach/v1"


def test_a_failed_probation_goes_back_at_once_and_two_deaths_count_as_failed(shop):
    robot = deployer(shop)
    robot.judge(order(shop))
    robot.take_change()
    assert robot.fell_back("action not finite").label == "hand_reach/v1"
    assert robot.slots.refused == "action not finite"
    slots = slot_file.switched(
        Slots(active=Slot(path="", label="old", sha256="1" * 64)), Slot(path="", label="new", sha256="2" * 64)
    )
    labels = []
    for _ in range(4):
        slots = slot_file.started(slots)
        labels.append(slots.active.label)
    assert labels == ["new", "new", "old", "old"]


# --- the director -------------------------------------------------------------------------------------------------------


def views(**policies):
    return {name: RobotView(online=True, policy_sha256=sha) for name, sha in policies.items()}


def result(sha, success=True, reward=1.0):
    return EpisodeResult(
        episode_id="e", policy_sha256=sha, artifact="", rollout="", stage="", generation=0, cohort="none",
        explored=False, return_=reward, success=success, steps=100, seconds=4.0,
    )  # fmt: skip


def test_one_robot_first_then_all_and_every_step_is_on_disk_before_it_is_told(tmp_path):
    path = tmp_path / "director.json"
    director = Director(path, KEY)
    old, new = "1" * 64, REF.sha256
    director.deploy(REF, "quick", 0.0, views(a=old, b=old, c=old))
    given = {r: director.kept.assignments[r].artifact for r in "abc"}
    (canary,) = [r for r, ref in given.items() if ref == REF]
    assert list(given.values()).count(None) == 2
    running = {r: new if r == canary else old for r in "abc"}
    seq = itertools.count(1)
    for _ in range(6):
        for robot, sha in running.items():
            director.note((robot, 1, 1), next(seq), result(sha))
    director = Director(path, KEY)  # a restart: what was decided is there, counts come back from the log
    for _ in range(6):
        for robot, sha in running.items():
            director.note((robot, 1, 1), next(seq), result(sha))
    state = director.tick(1.0, views(**running))
    assert (state.stage_name, set(state.canaries)) == ("all", {"a", "b", "c"})
    state = director.tick(2.0, views(a=new, b=new, c=new))
    assert state.status == "done"
    assert director.kept.base == REF
    generations = [a.generation for a in director.kept.assignments.values()]
    assert len(set(generations)) == 3
    assert max(generations) == director.kept.generation


def test_F07_what_the_disk_does_not_take_is_not_decided(tmp_path):
    disk = StubbornDisk()
    director = Director(tmp_path / "d.json", KEY, disk=disk)
    director.deploy(REF, "quick", 0.0, views(a="", b=""))
    director.note(("a", 1, 1), 1, result(REF.sha256))
    before, disk.left = director.kept, 0
    for change in (director.hold, director.rollback, lambda now_s, seen: director.tick(now_s, seen | views(c=""))):
        with pytest.raises(OSError, match="No space left"):
            change(1.0, views(a="", b=""))
        assert director.kept == before  # no robot is told what a restart would forget
    disk.left = 1 << 30
    assert director.rollback(2.0, views(a="", b="")).status == "rolled_back"
    assert Director(tmp_path / "d.json", KEY).kept == director.kept
    disk.left = 0
    with pytest.raises(OSError, match="No space left"):
        director.deploy(msgspec.structs.replace(REF, version="v3", sha256="3" * 64), "quick", 3.0, views(a=""))
    assert director.view(4.0, views(a="")).candidate.episodes == 1  # what the last one rested on is still known


def test_a_worse_policy_is_rolled_back_and_banned(tmp_path):
    director = Director(tmp_path / "d.json", KEY)
    old, new = "1" * 64, REF.sha256
    state = director.deploy(REF, "quick", 0.0, views(a=old, b=old, c=old))
    running = {r: new if r in state.canaries else old for r in "abc"}
    for seq in range(1, 21):
        for robot, sha in running.items():
            director.note((robot, 1, 1), seq, result(sha, success=sha == old, reward=float(sha == old)))
    state = director.tick(1.0, views(**running))
    assert state.status == "rolled_back"
    for assignment in director.kept.assignments.values():
        assert (assignment.artifact, assignment.banned) == (None, (new,))
    with pytest.raises(RolloutError, match="banned"):
        director.deploy(REF, "quick", 2.0, views(a=old))


def test_the_operator_can_hold_resume_and_roll_back(tmp_path):
    director = Director(tmp_path / "d.json", KEY)
    with pytest.raises(RolloutError, match="nothing was deployed"):
        director.hold(0.0, {})
    with pytest.raises(UnknownNameError, match="Known: quick, standard"):
        director.deploy(REF, "brave", 0.0, views(a=""))
    director.deploy(REF, "quick", 0.0, views(a="", b=""))
    with pytest.raises(RolloutError, match="one at a time"):
        director.deploy(REF, "quick", 0.0, views(a=""))
    assert director.hold(1.0, views(a="", b="")).status == "held"
    assert director.tick(2.0, views(a="", b="")).status == "held"
    assert director.resume(3.0, views(a="", b="")).status == "running"
    assert director.rollback(4.0, views(a="", b="")).status == "rolled_back"
    with pytest.raises(RolloutError, match="rolled back already"):
        director.rollback(5.0, views(a=""))
