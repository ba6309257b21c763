"""Opens a dataset with the real `lerobot` and compares every frame with what Parquet says. Run by `make lerobot-check` in an environment of its own.

python tests/lerobot_check.py DATASET
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

# torchvision's wheel is built for CUDA; its compiled operators do not load beside the CPU build of torch, and importing it fails at these.
# lerobot wants its transforms only.
operators = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset  # noqa: E402


def main(root: Path) -> None:
    dataset = LeRobotDataset("flexor/check", root=root)
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == CODEBASE_VERSION, CODEBASE_VERSION
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (
        info["total_episodes"],
        info["total_frames"],
        info["fps"],
    )
    rows = pq.ParquetDataset(sorted(root.glob("data/*/*.parquet"))).read().to_pydict()
    for i in range(dataset.num_frames):
        frame = dataset[i]
        for name in info["features"]:
            ours = np.asarray(rows[name][i], dtype=np.float64)
            theirs = np.asarray(frame[name], dtype=np.float64)
            assert np.array_equal(theirs.reshape(ours.shape), ours), (i, name, theirs, ours)
        assert isinstance(frame["task"], str)
    for episode in dataset.meta.episodes:
        first, last = episode["dataset_from_index"], episode["dataset_to_index"]
        assert {rows["episode_index"][i] for i in range(first, last)} == {episode["episode_index"]}
    stacked = LeRobotDataset(
        "flexor/check", root=root, delta_timestamps={"action": [0.0, 1 / info["fps"], 2 / info["fps"]]}
    )
    assert stacked[0]["action"].shape == (3, info["features"]["action"]["shape"][0])
    some = LeRobotDataset("flexor/check", root=root, episodes=[dataset.num_episodes - 1])
    assert some.num_episodes == 1
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)))
    assert batch["observation.state"].shape == (32, info["features"]["observation.state"]["shape"][0])
    mean = np.asarray(rows["observation.state"], dtype=np.float64).mean(axis=0)
    assert np.allclose(np.asarray(dataset.meta.stats["observation.state"]["mean"]), mean, atol=1e-6)
    print(
        f"lerobot reads it: {dataset.num_episodes} episodes, {dataset.num_frames} frames, {len(info['features'])} features, equal frame by frame"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
