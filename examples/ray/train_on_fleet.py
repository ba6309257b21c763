"""Learn from a fleet's experience on a Ray cluster: imitate what the robots did, on as many workers as there are.

    flexor fleet export packs out/packs --dir hub
    flexor fleet export manifest out/manifest.json --packs out/packs
    python examples/ray/train_on_fleet.py out/manifest.json --workers 2

Ray Data reads the manifest's parts on all nodes and streams batches to the workers; Ray Train averages their gradients. The network that comes
out is a start for `flexor train`; it is not an artifact yet.
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import ray
import ray.train
import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

from fleet.ray_source import HubDatasource


class Imitator(nn.Module):
    """Observations, normalised by the fleet's own mean and spread, to actions."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, n_actions: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp(min=1e-3))
        widths = (len(mean), 128, 128)
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ELU())]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], n_actions))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.body((observation - self.mean) / self.std)


def learn(config: dict) -> None:
    """What every worker does: its share of every epoch."""
    torch.manual_seed(config["seed"])
    model = prepare_model(Imitator(config["mean"], config["std"], config["n_actions"]))
    optimizer = torch.optim.Adam(model.parameters(), lr=config["rate"])
    shard = ray.train.get_dataset_shard("train")
    for epoch in range(config["epochs"]):
        total, steps = 0.0, 0
        for batch in shard.iter_torch_batches(batch_size=256, local_shuffle_buffer_size=8192, dtypes=torch.float32):
            loss = nn.functional.mse_loss(model(batch["observation"]), batch["action"].clamp(-1.0, 1.0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, steps = total + float(loss) * len(batch["action"]), steps + len(batch["action"])
        figures = {"epoch": epoch, "loss": total / max(steps, 1), "steps": steps}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                bare = getattr(model, "module", model)
                torch.save(bare.state_dict(), Path(folder) / "imitator.pt")
                checkpoint = Checkpoint.from_directory(folder)
            ray.train.report(figures, checkpoint=checkpoint)


def train(manifest: Path, out: Path, *, workers: int = 2, epochs: int = 5, seed: int = 0) -> ray.train.Result:
    """Learn from a manifest's experience; needs a Ray that was initialised."""
    experience = ray.data.read_datasource(HubDatasource(manifest)).select_columns(["observation", "action"])
    sample = experience.take_batch(4096)
    observation = torch.as_tensor(sample["observation"])
    config = {
        "mean": observation.mean(dim=0),
        "std": observation.std(dim=0),
        "n_actions": sample["action"].shape[1],
        "epochs": epochs,
        "rate": 1e-3,
        "seed": seed,
    }
    trainer = TorchTrainer(
        learn,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="imitate", storage_path=str(out.resolve())),
        datasets={"train": experience},
    )
    return trainer.fit()


def main() -> None:
    parser = argparse.ArgumentParser(description="Imitate a fleet on a Ray cluster.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/ray"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--address", help="of a cluster; a local Ray is started where none is given")
    words = parser.parse_args()
    ray.init(address=words.address)
    result = train(words.manifest, words.out, workers=words.workers, epochs=words.epochs)
    print(f"loss {result.metrics['loss']:.4f} after {words.epochs} epochs; {result.checkpoint.path}/imitator.pt")


if __name__ == "__main__":
    main()
