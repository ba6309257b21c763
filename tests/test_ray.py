"""The same run on Ray: two nodes on this machine, and a worker killed in the middle."""

import os
import signal
import socket

import numpy as np
import pytest

from policies.ppo import PPOConfig
from policies.ray_sampler import RayClusterError, RaySampler
from policies.sampler import LocalSampler
from policies.settings import TrainConfig
from policies.train import Trainer

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::FutureWarning",
        "ignore::DeprecationWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]
CONFIG = TrainConfig(
    env_id="flexor/HandReach-v0", num_envs=4, workers=2, hidden=(16,), ppo=PPOConfig(horizon=8, minibatch=16, epochs=1)
)
CHAPTER_STEPS = 4 * 8 * 2


@pytest.fixture(scope="module")
def address():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def trained(folder, make_sampler, kill: bool = False) -> tuple[dict, Trainer]:
    trainer = Trainer(folder, CONFIG, make_sampler=make_sampler)
    ticks, killed = iter(range(10**6)), []

    def report(line) -> None:
        if kill and not killed:
            sampler = trainer.sampler
            assert isinstance(sampler, RaySampler)
            assert sampler.nodes == 2
            killed.append(sampler.pids[1])
            os.kill(killed[0], signal.SIGKILL)

    try:
        done = trainer.train(
            seconds=None, steps=3 * CHAPTER_STEPS, report=report, clock=lambda: float(next(ticks)), every_s=0.0
        )
    finally:
        trainer.close()
    return done, trainer


@pytest.fixture(autouse=True)
def short_chapters(monkeypatch):
    monkeypatch.setattr(Trainer, "chapter_iterations", 2)


def test_a_run_on_ray_is_the_same_run_as_in_processes(address, tmp_path):
    _, on_ray = trained(tmp_path / "ray", lambda where: RaySampler(where, address))
    _, here = trained(tmp_path / "here", LocalSampler)
    for name, value in here.method.actor.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), on_ray.method.actor.state_dict()[name].numpy(), err_msg=name)


def test_a_worker_killed_in_the_middle_is_replaced_and_no_step_is_missing(address, tmp_path):
    done, _ = trained(tmp_path, lambda where: RaySampler(where, address), kill=True)
    assert done["restarts"] == 1
    assert done["steps"] == 3 * CHAPTER_STEPS


def test_nobody_at_an_address_is_said():
    import ray

    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RayClusterError, match="ray start --head"):
        RaySampler((), f"127.0.0.1:{port}")
