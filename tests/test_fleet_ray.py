"""Ray reads a hub's experience and learns from it, on a cluster of two nodes on this machine."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_fleet_exports import Log

from fleet import cli
from fleet.exports.manifest import write_manifest
from fleet.exports.source import ExportError, Source
from robot.errors import UnknownNameError

ray = pytest.importorskip("ray", reason='no Ray here; do: pip install "flexor[scale]"')
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # Ray's about its own settings
STORY = Path(__file__).with_name("ray_story.py")
COLUMNS = {"observation", "action", "reward", "log_prob", "success", "terminated", "next_observation"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Experience in which the action follows from the observation, in several segments, and a pack of it."""
    place = tmp_path_factory.mktemp("ray")
    log = Log(place / "hub", segment_bytes=60_000)
    for number in range(24):
        parts = log.episode(number, lengths=(50, 50), ended="terminated")
        for part in parts:
            part.action[:] = np.tanh(part.observation[:, :6] - 0.5 * part.observation[:, 6:12])
        log.write(*parts, robot="abc"[number % 3])
    cli.export(dir=log.folder, out=place / "packs")
    return place


def rows(tasks):
    """All rows of some read tasks, read here, without a cluster."""
    from ray.data.block import BlockAccessor

    batches = [BlockAccessor.for_block(block).to_numpy() for task in tasks for block in task()]
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def test_a_task_reads_one_part_and_together_they_read_all(place):
    from fleet.ray_source import HubDatasource

    manifest = place / "both.json"
    made = write_manifest(place / "hub", None, manifest)
    tasks = HubDatasource(manifest).get_read_tasks(8)
    assert len(tasks) == len(made.parts) >= 4
    read = rows(tasks)
    assert set(read) == COLUMNS
    assert len(read["reward"]) == made.steps == sum(task.metadata.num_rows for task in tasks)
    packed = rows(HubDatasource(_manifest(place)).get_read_tasks(1))
    whole = [lived for lived in Source(place / "hub").read()]
    assert np.array_equal(packed["observation"], np.concatenate([x.observation for x in whole]))
    assert packed["terminated"].sum() == 24
    last = np.concatenate([x.observation[1:] for x in whole[:1]] + [whole[0].last_observation[None]])
    assert np.array_equal(packed["next_observation"][:100], last)
    assert np.array_equal(read["observation"], packed["observation"][: made.steps])  # all but the open segment


def test_a_file_that_was_changed_is_not_read(place, tmp_path):
    from fleet.ray_source import HubDatasource

    manifest = tmp_path / "m.json"
    write_manifest(place / "hub", None, manifest)
    tasks = HubDatasource(manifest).get_read_tasks(1)
    path = Path(tasks[0].metadata.input_files[0])
    good = path.read_bytes()
    try:
        path.write_bytes(good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
        with pytest.raises(ExportError, match="it is not what was listed"):
            list(tasks[0]())
        path.write_bytes(good[:-1])
        with pytest.raises(ExportError, match="has no foot"):
            list(tasks[0]())
    finally:
        path.write_bytes(good)


def test_chunks_of_other_widths_are_left_out_and_named(tmp_path, caplog):
    from fleet.ray_source import HubDatasource

    log = Log(tmp_path / "hub", segment_bytes=40_000)
    (odd,) = log.episode(90, lengths=(50,))
    narrow = msgspec.structs.replace(
        odd, header=msgspec.structs.replace(odd.header, action_size=5), action=odd.action[:, :5]
    )
    log.write(narrow, robot="z")
    for number in range(4):
        log.write(*log.episode(number), robot="ab"[number % 2])
    manifest = tmp_path / "m.json"
    made = write_manifest(tmp_path / "hub", None, manifest)
    source = HubDatasource(manifest)
    tasks = source.get_read_tasks(4)
    read = rows(tasks)
    assert read["action"].shape == (made.steps - 50, 6)
    assert len(read["action"]) == sum(task.metadata.num_rows for task in tasks)
    assert source.left_out == ["50 steps by z: action_size 5 instead of 6"]
    assert "does not fit the others" in caplog.text
    with pytest.raises(UnknownNameError, match="contract"):
        HubDatasource(manifest, "e" * 64)


def _manifest(place):
    path = place / "manifest.json"
    write_manifest(None, place / "packs", path)
    return path


@pytest.mark.slow
def test_two_nodes_read_and_learn(place, tmp_path):
    write_manifest(place / "hub", None, place / "segments.json")
    words = [sys.executable, STORY, place / "segments.json", _manifest(place), tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "two nodes read" in done.stdout
