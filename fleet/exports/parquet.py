"""A hub's experience as Parquet: one file per episode, one row per step, all that is known. For DuckDB, Spark, pandas, Ray Data.

A file is written under another name and renamed, so an export that was interrupted goes on where it was.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fleet.disk import Disk
from fleet.exports.draft import Progress
from fleet.exports.source import Lived, Source


def write_parquet(source: Source, out: Path) -> dict[str, Any]:
    """Write what is not there yet.

    Returns:
        Episodes written and found, steps, seconds.
    """
    return write_files(source, out, ".parquet", lambda lived, path: pq.write_table(table_of(source, lived), path))


def table_of(source: Source, lived: Lived) -> pa.Table:
    """One episode as a table; what each column means is in the schema's metadata."""
    episode, n = lived.episode, len(lived.reward)
    observation, action = source.names(lived.observation.shape[1], lived.action.shape[1])
    return pa.table(
        {
            "step": pa.array(episode.first_step + np.arange(n)),
            "time_s": pa.array(lived.time_s),
            "observation": _rows(lived.observation),
            "action": _rows(lived.action),
            "reward": pa.array(lived.reward.sum(axis=1, dtype=np.float32)),
            "reward_terms": _rows(lived.reward),
            "log_prob": pa.array(lived.log_prob),
            "success": pa.array(lived.success.astype(bool)),
            "done": pa.array(lived.done),
            "terminated": pa.array(lived.done & (episode.ended == "terminated")),
        },
        metadata={
            "episode_id": episode.id,
            "robot": episode.robot,
            "robot_model": source.robot_model,
            "task": source.task,
            "policy_sha256": episode.policy_sha256,
            "contract_sha256": source.contract_sha256,
            "cohort": episode.cohort,
            "start_time_ns": str(episode.start_time_ns),
            "control_hz": f"{source.control_hz:g}",
            "observation": ",".join(observation),
            "action": ",".join(action),
            "reward_terms": ",".join(source.reward_names),
        },
    )


def write_files(source: Source, out: Path, suffix: str, write: Any) -> dict[str, Any]:
    """One file per episode in `out`, each whole; those that are there already stay."""
    disk, progress = Disk(), Progress(len(source.episodes), "episodes")
    out.mkdir(parents=True, exist_ok=True)
    written = found = 0
    for lived in source.read():
        episode = lived.episode
        path = out / f"{episode.robot}-{episode.id}-{episode.first_step:06d}-{episode.steps:06d}{suffix}"
        progress.step()
        if path.exists():
            found += 1
            continue
        temporary = out / f".{path.name}.tmp"
        write(lived, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        written += 1
    disk.sync_folder(out)
    return {"episodes": written + found, "written": written, "steps": source.steps, "seconds": progress.seconds}


def _rows(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
