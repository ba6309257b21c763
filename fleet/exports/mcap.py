"""A hub's experience as MCAP, one file per episode, for Foxglove and Rerun: topics /observation, /action, /reward and /episode."""

from pathlib import Path
from typing import Any

import numpy as np

from fleet.exports.parquet import write_files
from fleet.exports.source import Lived, Source
from robot.onboard.mcap import McapWriter

MAX_ELAPSED_S = 1e9  # 32 years: a robot's clock that says more is wrong, and nanoseconds of it would not fit
NUMBER = {"type": ["number", "null"]}


def write_mcap(source: Source, out: Path) -> dict[str, Any]:
    """Write what is not there yet.

    Returns:
        Episodes written and found, steps, seconds.
    """
    return write_files(source, out, ".mcap", lambda lived, path: path.write_bytes(to_mcap(source, lived)))


def to_mcap(source: Source, lived: Lived) -> bytes:
    """One episode. Times are the robot's UTC at the episode's start plus its own clock."""
    episode = lived.episode
    names, joints = source.names(lived.observation.shape[1], lived.action.shape[1])
    out = McapWriter("flexor fleet export")
    observation = out.channel("/observation", "flexor.Observation", _object(names))
    action = out.channel("/action", "flexor.Action", _object(joints))
    reward = out.channel("/reward", "flexor.Reward", _object([*source.reward_names, "sum", "log_prob"]))
    elapsed_s = np.clip(lived.time_s - lived.time_s[0], 0.0, MAX_ELAPSED_S)
    times_ns = episode.start_time_ns + np.round(1e9 * elapsed_s).astype(np.int64)
    sums = lived.reward.sum(axis=1, dtype=np.float32)
    for i, time_ns in enumerate(times_ns.tolist()):
        out.message(observation, time_ns, dict(zip(names, lived.observation[i].tolist())))
        out.message(action, time_ns, dict(zip(joints, lived.action[i].tolist())))
        terms = dict(zip(source.reward_names, lived.reward[i].tolist()))
        out.message(reward, time_ns, {**terms, "sum": float(sums[i]), "log_prob": float(lived.log_prob[i])})
    out.metadata(
        "episode",
        {
            "id": episode.id,
            "robot": episode.robot,
            "robot_model": source.robot_model,
            "task": source.task,
            "policy_sha256": episode.policy_sha256,
            "contract_sha256": source.contract_sha256,
            "cohort": episode.cohort,
            "first_step": str(episode.first_step),
            "ended": episode.ended,
            "success": str(bool(lived.success[-1])).lower(),
        },
    )
    return out.finish()


def _object(names: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(names, NUMBER)}
