"""A Ray cluster of two nodes on this machine reads a fleet's experience and learns from it. A process of its own: Ray leaves traces in its host.

python tests/ray_story.py SEGMENTS_MANIFEST PACKS_MANIFEST OUT
"""

import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples/ray")]

import train_on_fleet  # noqa: E402

from fleet.exports.manifest import read_manifest  # noqa: E402
from fleet.ray_source import HubDatasource  # noqa: E402


def main(segments: Path, packs: Path, out: Path) -> None:
    node = {"num_cpus": 3, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    path = f"{ROOT}:{ROOT / 'examples/ray'}"
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    assert sum(node["Alive"] for node in ray.nodes()) == 2

    def where(batch):
        return {"node": [ray.get_runtime_context().get_node_id()], "steps": [len(batch["reward"])]}

    data = ray.data.read_datasource(HubDatasource(segments))
    rows = data.map_batches(where, batch_size=None, scheduling_strategy="SPREAD").take_all()
    assert sum(row["steps"] for row in rows) == read_manifest(segments).steps
    assert len({row["node"] for row in rows}) == 2, rows
    result = train_on_fleet.train(packs, out, workers=2, epochs=6)
    losses = result.metrics_dataframe["loss"].tolist()
    assert losses[-1] < 0.5 * losses[0], losses
    assert (Path(result.checkpoint.path) / "imitator.pt").exists()
    print(f"two nodes read {read_manifest(segments).steps} steps; loss {losses[0]:.3f} to {losses[-1]:.3f}")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
