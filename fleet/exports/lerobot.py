"""A hub's experience as a LeRobot dataset of version 3.0, without video: what `lerobot`, Ray Data, TorchRL and Rerun read.

    OUT/meta/info.json, stats.json, tasks.parquet, episodes/chunk-000/file-000.parquet
    OUT/data/chunk-000/file-000.parquet     many episodes a file, one row group each
    OUT/README.md                           the card

Layout and names as in lerobot 0.4.4 (`lerobot/datasets`, codebase_version v3.0). Readers look episodes up by position, so their numbers are
0..N-1 without a hole; a row's timestamp is its index over fps.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fleet.exports import stats
from fleet.exports.draft import Progress, draft
from fleet.exports.source import ExportError, Lived, Source

FILE_MB = 100
CHUNK_FILES = 1000  # files in a folder
EPISODES_A_GROUP = 100  # rows of meta/episodes written together
NAME = "chunk-{chunk:03d}/file-{file:03d}.parquet"
COUNTED = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def write_lerobot(source: Source, out: Path) -> dict[str, Any]:
    """Write a dataset.

    Returns:
        What was written: episodes, frames, seconds.

    Raises:
        ExportError: The folder exists, or the control rate is no whole number.
    """
    fps = round(source.control_hz)
    if fps < 1 or abs(fps - source.control_hz) > 1e-6:
        raise ExportError(
            f"a LeRobot dataset has a whole number of frames a second, and this experience {source.control_hz:g}; do: flexor fleet export parquet"
        )
    progress = Progress(len(source.episodes), "episodes")
    with draft(out) as folder:
        writer = _Writer(folder, source, fps)
        for lived in source.read():
            writer.add(lived)
            progress.step()
        writer.finish()
    return {"episodes": writer.episodes, "frames": writer.frames, "seconds": progress.seconds, "fps": fps}


class _Writer:
    """Episode by episode; nothing grows with the dataset but the table of episodes."""

    def __init__(self, folder: Path, source: Source, fps: int) -> None:
        self._folder, self._source, self._fps = folder, source, fps
        self.episodes = self.frames = 0
        self._file_index = -1
        self._data: pq.ParquetWriter | None = None
        self._meta: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._together: dict[str, stats.Together] = {}
        self._features: dict[str, dict[str, Any]] = {}
        (folder / "meta").mkdir()

    def add(self, lived: Lived) -> None:
        columns = self._columns(lived)
        table = pa.table({name: _array(values) for name, values in columns.items()})
        data = self._data_file(table)
        data.write_table(table, row_group_size=len(table))
        described = {name: stats.of_rows(values) for name, values in columns.items()}
        for name, values in described.items():
            self._together.setdefault(name, stats.Together()).add(values)
        chunk, file = divmod(self._file_index, CHUNK_FILES)
        self._rows.append(
            {
                "episode_index": self.episodes,
                "tasks": [self._source.task],
                "length": len(table),
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self.frames,
                "dataset_to_index": self.frames + len(table),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{f"stats/{n}/{k}": v.tolist() for n, s in described.items() for k, v in s.items()},
                "flexor/episode_id": lived.episode.id,
                "flexor/robot": lived.episode.robot,
                "flexor/policy_sha256": lived.episode.policy_sha256,
                "flexor/cohort": lived.episode.cohort,
                "flexor/first_step": lived.episode.first_step,
                "flexor/ended": lived.episode.ended,
            }
        )
        self.episodes += 1
        self.frames += len(table)
        if len(self._rows) >= EPISODES_A_GROUP:
            self._flush()

    def finish(self) -> None:
        self._flush()
        for writer in (self._data, self._meta):
            if writer is not None:
                writer.close()
        meta = self._folder / "meta"
        _write_tasks(meta / "tasks.parquet", [self._source.task])
        _write_json(meta / "stats.json", {name: together.plain() for name, together in self._together.items()})
        (self._folder / "README.md").write_text(_card(self._source, self.episodes, self.frames, self._fps))
        _write_json(meta / "info.json", self._info())  # last: without it this is no dataset

    def _columns(self, lived: Lived) -> dict[str, np.ndarray]:
        n = len(lived.reward)
        frames = np.arange(n, dtype=np.int64)
        columns = {
            "observation.state": lived.observation,
            "action": lived.action,
            "next.reward": lived.reward.sum(axis=1, dtype=np.float32),
            "next.done": lived.done,
            "next.success": lived.success.astype(bool),
            "log_prob": lived.log_prob,
        }
        if not self._features:
            names: dict[str, list[str]] = dict(
                zip(
                    ("observation.state", "action"),
                    self._source.names(lived.observation.shape[1], lived.action.shape[1]),
                )
            )
            self._features = {name: _feature(values, names.get(name)) for name, values in columns.items()}
        if np.isnan(columns["log_prob"]).any():
            columns["log_prob"] = np.nan_to_num(
                columns["log_prob"], nan=0.0
            )  # acted without noise: a density has no meaning
        return columns | {
            "timestamp": (frames / self._fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(n, self.episodes, dtype=np.int64),
            "index": self.frames + frames,
            "task_index": np.zeros(n, dtype=np.int64),
        }

    def _data_file(self, table: pa.Table) -> pq.ParquetWriter:
        """The file the next episode goes to; a new one where this one would grow past its size."""
        if self._data is not None:
            path = self._folder / "data" / self._name()
            if (path.stat().st_size + table.nbytes) / (1 << 20) < FILE_MB:
                return self._data
            self._data.close()
        self._file_index += 1
        path = self._folder / "data" / self._name()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._data = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True)
        return self._data

    def _name(self) -> str:
        chunk, file = divmod(self._file_index, CHUNK_FILES)
        return NAME.format(chunk=chunk, file=file)

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=self._meta.schema if self._meta else None)
        if self._meta is None:
            path = self._folder / "meta/episodes" / NAME.format(chunk=0, file=0)
            path.parent.mkdir(parents=True)
            self._meta = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True)
        self._meta.write_table(table)
        self._rows = []

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": self._source.robot_model,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": 1,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": FILE_MB,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": None,
            "features": {
                **self._features,
                **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in COUNTED.items()},
            },
        }


def _feature(values: np.ndarray, names: list[str] | None) -> dict[str, Any]:
    return {"dtype": values.dtype.name, "shape": list(values.shape[1:]) or [1], "names": names}


def _array(values: np.ndarray) -> pa.Array:
    """A column; rows of several numbers as lists of fixed size."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def _write_tasks(path: Path, tasks: list[str]) -> None:
    """What pandas writes for a frame indexed by `task`, made without pandas."""
    described = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(described).encode()}), path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4, allow_nan=False) + "\n")


def _card(source: Source, episodes: int, frames: int, fps: int) -> str:
    return f"""---
task_categories:
- robotics
tags:
- LeRobot
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# {source.task} on {source.robot_model}

Lived through by {len({e.robot for e in source.episodes})} robots of a Flexor fleet, {len({e.policy_sha256 for e in source.episodes})} policies:
{episodes} episodes, {frames} frames at {fps} Hz, no video.

- `observation.state` and `action` follow contract `{source.contract_sha256}`; an action is the policy's output, -1 to 1 before clipping.
- `next.reward` is the sum of {", ".join(source.reward_names)}.
- `log_prob` is the density of the action under the policy that acted, 0 where it acted without noise.
- What is no finite number is as the robot sent it; in the statistics it counts as 0.
- An episode with a hole is here in two parts, each an episode of its own; `flexor/first_step` in `meta/episodes` says where it began.
- Left out: {source.left_out} records of policies that were rolled back, {source.bad_records} records that could not be read.
"""
