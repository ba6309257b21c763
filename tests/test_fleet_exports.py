"""A hub's experience in other formats: each step once, nothing torn, and readable by those it is for."""

import json
import subprocess
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fleet_places import chunk
from mcap.reader import make_reader
from onboard_helpers import CONTRACT

from fleet import bench_hub, cli, cli_exports, cli_hub
from fleet.exports import stats
from fleet.exports.draft import draft
from fleet.exports.lerobot import write_lerobot
from fleet.exports.manifest import Manifest, place_of, read_manifest, write_manifest
from fleet.exports.mcap import write_mcap
from fleet.exports.parquet import write_parquet
from fleet.exports.source import ExportError, Source
from fleet.index import Mark
from fleet.packer import pack_log
from fleet.store import Group, Store
from fleet.wire import STEPS
from robot.errors import UnknownNameError
from robot.experience import encode

ROOT = Path(__file__).resolve().parents[1]
OTHER, BANNED = "d" * 64, "b" * 64


class Log:
    """A hub's folder, written by its real store."""

    def __init__(self, folder, segment_bytes=30_000):
        self.folder, self._segment_bytes = folder, segment_bytes
        self.rng, self._seqs = np.random.default_rng(0), {}

    def write(self, *records, robot="a"):
        """Records are chunks, or bytes that are none."""
        store = Store(self.folder, segment_bytes=self._segment_bytes, reserve_bytes=0)
        for record in records:
            payload = record if isinstance(record, bytes) else encode(record)
            key, seq = (robot, 1, STEPS), self._seqs.get(robot, 0) + 1
            self._seqs[robot] = seq
            before = store.index.lines[key].accepted if key in store.index.lines else Mark()
            items = 0 if isinstance(record, bytes) else record.header.steps
            after = store.index.accept(key, seq, 0, payload, 0, items)
            group = Group()
            group.add(key, seq, 0, payload, zlib.crc32(payload), 0, items, before, after)
            store.commit(group)
            store.index.commit(group.marks)
        store.close()

    def episode(self, number, lengths=(50, 50, 20), ended="truncated", **header):
        """An episode's chunks."""
        first, parts = 0, []
        for i, steps in enumerate(lengths):
            end = ended if i == len(lengths) - 1 else "no"
            parts.append(chunk(self.rng, f"{number:032x}", first, steps, ended=end, **header))
            first += steps
        return parts


@pytest.fixture
def log(tmp_path):
    """Five robots' episodes, woven into each other, in several segments; a hole, a banned policy, a record that is no chunk."""
    log = Log(tmp_path / "hub")
    one, two = log.episode(1), log.episode(2, ended="terminated")
    for left, right in zip(one, two):
        log.write(left, robot="a")
        log.write(right, robot="b")
    log.write(*log.episode(3, lengths=(30, 30)), robot="c")
    begin, _, rest = log.episode(4, lengths=(50, 50, 50))
    log.write(begin, rest, b"no chunk at all", robot="d")
    log.write(*log.episode(5, policy_sha256=BANNED), robot="e")
    (tmp_path / "hub/director.json").write_text(json.dumps({"banned": [BANNED]}))
    return log


def test_each_step_once_in_order_and_holes_make_two_of_one(log):
    source = Source(log.folder)
    assert [(int(e.id, 16), e.first_step, e.steps, e.ended) for e in source.episodes] == [
        (1, 0, 120, "truncated"),
        (2, 0, 120, "terminated"),
        (3, 0, 60, "truncated"),
        (4, 0, 50, "no"),
        (4, 100, 50, "truncated"),
    ]
    assert (source.bad_records, source.left_out) == (1, 3)
    assert len(list((log.folder / "log").glob("*.seg"))) > 2
    for lived in source.read():
        n = lived.episode.steps
        assert lived.observation.shape == (n, 24)
        assert np.array_equal(lived.time_s, (lived.episode.first_step + np.arange(n)) / 25.0)
        assert lived.done.sum() == (lived.episode.ended != "no")
    assert len(Source(log.folder, include_banned=True).episodes) == 6


def test_steps_that_two_hubs_held_count_once(log):
    log.write(*Log(log.folder).episode(1), robot="a")
    assert [e.steps for e in Source(log.folder).episodes] == [120, 120, 60, 50, 50]


def test_two_robots_may_use_the_same_id(tmp_path):
    log = Log(tmp_path / "hub")
    log.write(*log.episode(1), robot="a")
    log.write(*log.episode(1), robot="b")
    source = Source(log.folder)
    assert [(e.robot, e.steps) for e in source.episodes] == [("a", 120), ("b", 120)]
    assert write_parquet(source, tmp_path / "out")["written"] == 2
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


@pytest.mark.parametrize(
    "header",
    [
        {"episode_id": "../escaped"},
        {"episode_id": "/" + "e" * 31},
        {"contract_sha256": "../" + "c" * 61},
        {"first_step": -1},
        {"first_step": 1 << 62},
        {"start_time_ns": 1 << 63},
        {"control_hz": float("nan")},
    ],
)
def test_a_robot_does_not_choose_where_an_export_writes(tmp_path, header):
    log = Log(tmp_path / "hub")
    good, bad = log.episode(1, lengths=(50,)), log.episode(2, lengths=(50,))[0]
    bad = msgspec.structs.replace(bad, header=msgspec.structs.replace(bad.header, **header))
    log.write(bad, *good)
    source = Source(log.folder)
    assert (len(source.episodes), source.bad_records) == (1, 1)
    for name, write in (("parquet", write_parquet), ("mcap", write_mcap), ("lerobot", write_lerobot)):
        write(source, tmp_path / "out" / name)
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "out"}
    assert len(list((tmp_path / "out/parquet").iterdir())) == 1


def test_chunks_that_do_not_fit_and_bytes_that_lack_do_not_stop_an_export(tmp_path):
    log = Log(tmp_path / "hub")
    odd = log.episode(8, lengths=(50,))[0]
    narrow = msgspec.structs.replace(
        odd, header=msgspec.structs.replace(odd.header, action_size=5), action=odd.action[:, :5]
    )
    log.write(narrow, encode(odd)[:-8], robot="z")  # the odd one comes first
    for number, robot in enumerate("ab"):
        log.write(*log.episode(number), robot=robot)
    source = Source(log.folder)
    assert ([e.robot for e in source.episodes], source.bad_records) == (["a", "b"], 2)
    assert write_lerobot(source, tmp_path / "out")["frames"] == 240


def test_what_does_not_fit_is_left_out_of_a_pack_and_named(tmp_path, capsys):
    log = Log(tmp_path / "hub")
    odd = log.episode(8, lengths=(50,))[0]
    narrow = msgspec.structs.replace(
        odd, header=msgspec.structs.replace(odd.header, action_size=5), action=odd.action[:, :5]
    )
    log.write(narrow, b"no chunk", robot="z")  # the odd one comes first
    for number, robot in enumerate("ab"):
        log.write(*log.episode(number), robot=robot)
    log.write(*log.episode(0), robot="c")  # as another robot's, under its id
    log.write(log.episode(1)[0], robot="b")  # once more, in a new place
    log.write(*log.episode(5, lengths=(10,), policy_sha256=BANNED), robot="b")
    log.write(*log.episode(6, lengths=(10,), contract_sha256=OTHER), robot="b")
    (tmp_path / "hub/director.json").write_text(json.dumps({"banned": [BANNED]}))
    cli.export(dir=log.folder, out=tmp_path / "packs", json=tmp_path / "made.json")
    made = json.loads((tmp_path / "made.json").read_text())["results"]
    assert (sorted(pack["steps"] for pack in made["packs"]), made["banned_records"]) == ([10, 240], 1)
    short = narrow.header.contract_sha256[:12]
    assert made["odd"] == [
        f"contract {short}: 1 chunk by z: action_size 5 instead of 6",
        f"contract {short}: 120 steps by c: episode {0:032x} is a's",
    ]
    assert "left out, does not fit the others: contract" in capsys.readouterr().out
    packed = pack_log(log.folder, tmp_path / "packs")
    assert {str(path) for path in packed.packs} == {pack["path"] for pack in made["packs"]}  # not written again
    assert pack_log(log.folder, tmp_path / "more", include_banned=True).steps == 260
    with pytest.raises(UnknownNameError, match=OTHER):
        pack_log(log.folder, tmp_path / "packs", contract_sha256="e" * 64)


def test_numbers_that_are_none_do_not_stop_an_export(tmp_path):
    log = Log(tmp_path / "hub")
    (part,) = log.episode(1, lengths=(50,))
    for name, at, value in (("reward", (3, 0), np.nan), ("observation", (4, 1), np.inf), ("time_s", 5, 1e300)):
        getattr(part, name)[at] = value
    late = log.episode(2, lengths=(50,))[0]
    late.time_s[7] = np.nan
    log.write(part, late)
    source = Source(log.folder)
    assert (len(source.episodes), source.bad_records) == (1, 1)
    write_lerobot(source, tmp_path / "dataset")
    kept = json.loads((tmp_path / "dataset/meta/stats.json").read_text())
    assert np.isfinite(kept["next.reward"]["mean"]).all()
    assert np.isfinite(kept["observation.state"]["max"]).all()
    for name, write in (("p", write_parquet), ("m", write_mcap)):
        assert write(source, tmp_path / name)["written"] == 1


def test_what_cannot_be_exported_is_said(log, tmp_path):
    log.write(*log.episode(9, contract_sha256=OTHER))
    with pytest.raises(ExportError, match=r"experience of 2 contracts; say which with --contract: c{64}, d{64}"):
        Source(log.folder)
    assert len(Source(log.folder, "dd").episodes) == 1
    with pytest.raises(UnknownNameError, match="unknown contract in the log 'e'"):
        Source(log.folder, "e")
    with pytest.raises(ExportError, match="no experience in its log"):
        Source(tmp_path / "nothing")
    (log.folder / "director.json").write_text("{")
    with pytest.raises(ExportError, match="with --include-banned"):
        Source(log.folder, "dd")


# --- LeRobot ------------------------------------------------------------------------------------------------------------


def check_lerobot(root, source):
    """The layout of version 3.0, as lerobot 0.4.4 writes and reads it, checked with nothing but pyarrow."""
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert {"robot_type", "chunks_size", "data_files_size_in_mb", "video_files_size_in_mb", "video_path"} <= set(info)
    assert isinstance(info["fps"], int)
    assert info["splits"] == {"train": f"0:{info['total_episodes']}"}
    counted = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    assert counted < set(info["features"])
    episodes = pq.ParquetDataset(sorted(root.glob("meta/episodes/*/*.parquet"))).read().to_pylist()
    assert [e["episode_index"] for e in episodes] == list(range(info["total_episodes"]))
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = 0
    lived = source.read()
    for e in episodes:
        path = root / info["data_path"].format(chunk_index=e["data/chunk_index"], file_index=e["data/file_index"])
        file = pq.ParquetFile(path)
        group = next(  # one row group per episode
            t
            for t in (file.read_row_group(i) for i in range(file.num_row_groups))
            if t["episode_index"][0].as_py() == e["episode_index"]
        )
        assert set(group.column_names) == set(info["features"])
        assert (group.num_rows, e["dataset_from_index"], e["dataset_to_index"]) == (
            e["length"],
            rows,
            rows + e["length"],
        )
        assert group["index"].to_pylist() == list(range(rows, rows + e["length"]))
        assert group["frame_index"].to_pylist() == list(range(e["length"]))
        assert np.allclose(group["timestamp"].to_numpy(), np.arange(e["length"]) / info["fps"], atol=1e-4)
        assert e["tasks"] == [tasks["task"][0].as_py()]
        mine = next(lived)
        assert np.array_equal(np.stack(group["observation.state"].to_numpy()), mine.observation)
        assert np.array_equal(np.stack(group["action"].to_numpy()), mine.action)
        assert group["next.done"].to_pylist() == mine.done.tolist()
        for name, feature in info["features"].items():
            kind = group.schema.field(name).type
            size = feature["shape"][0]
            assert str(kind.value_type if size > 1 else kind).replace("float", "float32").replace(
                "float3232", "float32"
            ) in (
                feature["dtype"],
                feature["dtype"].replace("float32", "float32"),
            )
            if size > 1:
                assert kind.list_size == size
                assert len(feature["names"]) == size
            for stat in ("min", "max", "mean", "std", *stats.QUANTILES):
                assert len(e[f"stats/{name}/{stat}"]) == size
            assert e[f"stats/{name}/count"] == [e["length"]]
        rows += e["length"]
    assert rows == info["total_frames"]
    whole = np.concatenate([x.observation for x in source.read()]).astype(np.float64)
    kept = json.loads((root / "meta/stats.json").read_text())
    assert set(kept) == set(info["features"])
    for name, value in (("mean", whole.mean(0)), ("std", whole.std(0)), ("min", whole.min(0)), ("max", whole.max(0))):
        assert np.allclose(kept["observation.state"][name], value, atol=1e-9)
    return info


def test_a_lerobot_dataset_has_the_layout_and_the_numbers(log, tmp_path, monkeypatch):
    monkeypatch.setattr("fleet.exports.lerobot.FILE_MB", 0.02)  # so that several files are made
    monkeypatch.setattr("fleet.exports.lerobot.EPISODES_A_GROUP", 2)
    source = Source(log.folder)
    made = write_lerobot(source, tmp_path / "out/dataset")
    assert (made["episodes"], made["frames"]) == (5, 400)
    info = check_lerobot(tmp_path / "out/dataset", source)
    assert len(list((tmp_path / "out/dataset/data").glob("*/*.parquet"))) > 1
    assert info["features"]["observation.state"]["names"][:2] == ["obs_0", "obs_1"]
    assert "Left out: 3 records" in (tmp_path / "out/dataset/README.md").read_text()
    assert not list((tmp_path / "out").glob(".*"))
    with pytest.raises(ExportError, match="exists; an export is written once"):
        write_lerobot(source, tmp_path / "out/dataset")


def test_columns_are_called_as_the_contract_calls_them(tmp_path):
    log = Log(tmp_path / "hub")
    sizes = {"observation_size": CONTRACT.observation_size, "action_size": CONTRACT.action_size}
    plain = log.episode(1, contract_sha256=CONTRACT.sha256, control_hz=50.0)
    wide = [
        msgspec.structs.replace(
            c,
            header=msgspec.structs.replace(c.header, **sizes),
            observation=np.zeros((c.header.steps, CONTRACT.observation_size), np.float32),
            action=np.zeros((c.header.steps, CONTRACT.action_size), np.float32),
            last_observation=np.zeros(CONTRACT.observation_size, np.float32),
        )
        for c in plain
    ]
    log.write(*wide)
    (log.folder / "contracts" / f"{CONTRACT.sha256}.json").write_text(CONTRACT.to_json())
    source = Source(log.folder)
    observation, action = source.names(*sizes.values())
    assert len(set(observation)) == CONTRACT.observation_size
    assert action == list(CONTRACT.action.joints)
    assert (source.robot_model, source.task, source.control_hz) == ("hand22", CONTRACT.env_id, 50.0)
    write_lerobot(source, tmp_path / "dataset")
    assert check_lerobot(tmp_path / "dataset", source)["features"]["action"]["names"] == action


def test_a_rate_that_is_no_whole_number_is_refused_with_a_way_out(tmp_path):
    log = Log(tmp_path / "hub")
    log.write(*log.episode(1, control_hz=12.5))
    with pytest.raises(ExportError, match=r"12\.5; do: flexor fleet export parquet"):
        write_lerobot(Source(log.folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_dataset_is_no_dataset_and_the_next_run_begins_anew(log, tmp_path, monkeypatch):
    source, out = Source(log.folder), tmp_path / "out"

    def interrupted(self):
        for i, lived in enumerate(real(self)):
            if i == 2:
                raise KeyboardInterrupt
            yield lived

    real = Source.read
    monkeypatch.setattr(Source, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_lerobot(source, out)
    assert not out.exists()
    monkeypatch.setattr(Source, "read", real)
    write_lerobot(source, out)
    check_lerobot(out, source)


def test_statistics_put_together_are_those_of_all(log):
    rng, together = np.random.default_rng(1), stats.Together()
    parts = [rng.normal(i, 1.0 + i, (n, 3)) for i, n in enumerate((5, 1, 40))]
    for part in parts:
        together.add(stats.of_rows(part))
    whole, kept = np.concatenate(parts), together.plain()
    assert np.allclose(kept["mean"], whole.mean(0))
    assert np.allclose(kept["std"], whole.std(0))
    assert (kept["count"], kept["min"]) == ([46], whole.min(0).tolist())


# --- the others ---------------------------------------------------------------------------------------------------------


def test_parquet_goes_on_where_it_was_interrupted(log, tmp_path):
    source, out = Source(log.folder), tmp_path / "episodes"
    write_parquet(source, out)
    files = sorted(out.glob("*.parquet"))
    assert len(files) == 5
    files[0].unlink()
    (out / ".half.parquet.tmp").write_bytes(b"half")
    assert write_parquet(source, out)["written"] == 1
    table = pq.read_table(sorted(out.glob("*.parquet"))[0])
    lived = next(source.read())
    assert np.array_equal(np.stack(table["reward_terms"].to_numpy()), lived.reward)
    assert table.schema.metadata[b"episode_id"].decode() == lived.episode.id
    assert table["terminated"].to_pylist() == [False] * 120
    assert len({f.name for f in out.iterdir() if not f.name.startswith(".")}) == 5


def test_mcap_is_read_by_mcaps_own_reader(log, tmp_path):
    source = Source(log.folder)
    write_mcap(source, tmp_path / "logs")
    path = sorted((tmp_path / "logs").glob("*.mcap"))[1]
    lived = list(source.read())[1]
    with path.open("rb") as file:
        reader = make_reader(file)
        messages = [(c.topic, m.log_time, json.loads(m.data)) for _, c, m in reader.iter_messages()]
        (facts,) = reader.iter_metadata()
    assert facts.metadata["ended"] == "terminated"
    assert facts.metadata["robot"] == "b"
    actions = [(t, list(m.values())) for topic, t, m in messages if topic == "/action"]
    assert np.allclose([a for _, a in actions], lived.action)
    assert actions[-1][0] - actions[0][0] == round(1e9 * 119 / 25)
    assert sum(topic == "/reward" for topic, _, _ in messages) == 120


def test_the_second_part_of_an_episode_with_a_hole_has_its_own_time(tmp_path):
    log = Log(tmp_path / "hub")
    begin, _, rest = log.episode(1, lengths=(50, 50, 50))
    later = msgspec.structs.replace(rest.header, start_time_ns=begin.header.start_time_ns + 4_000_000_000)
    log.write(begin, msgspec.structs.replace(rest, header=later))
    write_mcap(Source(log.folder), tmp_path / "logs")
    starts = []
    for path in sorted((tmp_path / "logs").glob("*.mcap")):
        with path.open("rb") as file:
            starts.append(next(make_reader(file).iter_messages())[2].log_time)
    assert starts[1] - starts[0] == 4_000_000_000


def test_a_manifest_names_what_never_changes(log, tmp_path):
    (tmp_path / "hub/director.json").unlink()
    cli.export(dir=log.folder, out=tmp_path / "out/packs")
    made = write_manifest(log.folder, tmp_path / "out/packs", tmp_path / "out/manifest.json")
    again = read_manifest(tmp_path / "out/manifest.json")
    assert again == made
    kinds = [part.kind for part in made.parts]
    assert kinds.count("pack") == 1
    assert (
        kinds.count("segment") == len(list((log.folder / "log").glob("*.seg"))) - 1
    )  # the last one is still written to
    assert all(place_of(part, tmp_path / "out/manifest.json").exists() for part in made.parts)
    assert next(p for p in made.parts if p.kind == "pack").path.startswith("packs/")
    with pytest.raises(ExportError, match="neither a sealed segment nor a pack"):
        write_manifest(None, tmp_path / "nothing", tmp_path / "m.json")
    for bad in (b"{", msgspec.json.encode(Manifest(schema=9))):
        (tmp_path / "bad.json").write_bytes(bad)
        with pytest.raises(ExportError, match=r"not a manifest|schema 9"):
            read_manifest(tmp_path / "bad.json")


def test_the_commands_say_what_they_wrote(log, tmp_path, capsys):
    cli_exports.parquet(tmp_path / "p", dir=log.folder, json=tmp_path / "p.json")
    cli_exports.mcap(tmp_path / "m", dir=log.folder)
    cli_exports.lerobot(tmp_path / "l", dir=log.folder)
    cli_exports.packs(tmp_path / "k", dir=log.folder)
    cli_exports.manifest(tmp_path / "manifest.json", packs=tmp_path / "k")
    said = capsys.readouterr().out
    assert said.count("5 episodes, 400 steps") == 3
    assert "left out: 3 records of banned policies, 1 that could not be read" in said
    assert "1 parts," in said
    assert json.loads((tmp_path / "p.json").read_text())["results"]["episodes"] == 5


def test_the_bench_measures_what_it_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_hub, "EPISODES", 4)
    cli_hub.bench(json=tmp_path / "bench.json")
    results = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert set(results["exports_episodes_per_s"]) == {"scan", "lerobot", "parquet", "mcap"}
    assert set(results["overview_ms"]) == {"50", "500", "2000"}
    assert results["jobs_per_s"] > 0.0
    assert "episodes/s" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), draft(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert not (tmp_path / "out").exists()
    with draft(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("")
    assert (tmp_path / "out/whole").exists()


@pytest.mark.slow
def test_the_real_lerobot_reads_it(log, tmp_path):
    python = ROOT / ".venv-lerobot/bin/python"
    if not python.exists():
        pytest.skip("no .venv-lerobot; do: make lerobot-check")
    write_lerobot(Source(log.folder), tmp_path / "dataset")
    words = [python, ROOT / "tests/lerobot_check.py", tmp_path / "dataset"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "lerobot reads it: 5 episodes, 400 frames" in done.stdout
