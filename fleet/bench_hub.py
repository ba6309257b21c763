"""`flexor bench hub`: what a hub's side jobs cost: the overview the page asks for, a job's way through the queue, episodes per second of the exports.

Robots, records and episodes are made up, in the sizes of hand22 reaching: 25 Hz, 100 steps an episode, 117 observations, 25 actions.
"""

import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.director import Director
from fleet.exports.lerobot import write_lerobot
from fleet.exports.mcap import write_mcap
from fleet.exports.parquet import write_parquet
from fleet.exports.source import Source
from fleet.gateway import Gateway
from fleet.index import Mark
from fleet.jobs_hub import JobQueue
from fleet.messages import Heartbeat, Hello, JobResult
from fleet.overview import overview
from fleet.store import Group, Store
from fleet.wire import STEPS, encode
from robot.experience import Chunk, ChunkHeader
from robot.experience import encode as encode_chunk

EPISODES, STEPS_EACH, N_OBS, N_ACT = 300, 100, 117, 25


class NoFiles:
    """A catalogue with nothing in it."""

    def piece(self, path: str, offset: int, size: int) -> tuple[int, bytes]:
        return -1, b""


def chunk(rng: np.random.Generator, episode: int) -> Chunk:
    f4, n = np.float32, STEPS_EACH
    header = ChunkHeader(
        contract_sha256="c" * 64,
        policy_sha256="a" * 64,
        episode_id=f"{episode:032x}",
        first_step=0,
        steps=n,
        observation_size=N_OBS,
        action_size=N_ACT,
        reward_names=("reward",),
        ended="truncated",
        control_hz=25.0,
    )
    return Chunk(
        header=header,
        observation=rng.normal(size=(n, N_OBS)).astype(f4),
        action=rng.normal(size=(n, N_ACT)).astype(f4),
        reward=rng.normal(size=(n, 1)).astype(f4),
        log_prob=rng.normal(size=n).astype(f4),
        success=np.zeros(n, np.uint8),
        time_s=np.arange(n) / 25.0,
        last_observation=np.zeros(N_OBS, f4),
    )


def exports(folder: Path, seed: int) -> dict[str, float]:
    """Episodes per second of each format, the reading of the log not counted, and of that reading."""
    rng, store = np.random.default_rng(seed), Store(folder / "hub", reserve_bytes=0)
    for seq in range(1, EPISODES + 1):
        payload, key = encode_chunk(chunk(rng, seq)), ("a", 1, STEPS)
        before = store.index.lines[key].accepted if key in store.index.lines else Mark()
        crc = zlib.crc32(payload)
        after = store.index.accept(key, seq, 0, payload, crc, STEPS_EACH)
        group = Group()
        group.add(key, seq, 0, payload, crc, 0, STEPS_EACH, before, after)
        store.commit(group)
    store.close()
    began_s = time.perf_counter()
    source = Source(folder / "hub")
    rates = {"scan": EPISODES / (time.perf_counter() - began_s)}
    writers: dict[str, Callable] = {"lerobot": write_lerobot, "parquet": write_parquet, "mcap": write_mcap}
    for name, write in writers.items():
        seconds = []
        for _ in range(3):
            shutil.rmtree(folder / name, ignore_errors=True)
            seconds.append(write(source, folder / name)["seconds"])
        rates[name] = EPISODES / statistics.median(seconds)
    return rates


def overview_ms(folder: Path, robots: int) -> float:
    """Median time of one overview, which holds the hub's loop."""
    store = Store(folder / f"hub{robots}", reserve_bytes=0)
    director = Director(folder / f"director{robots}.json", Ed25519PrivateKey.generate())
    gateway = Gateway("hub", lambda _: True, store, director, NoFiles())
    names = frozenset(f"r{i:05d}" for i in range(robots))
    for i, name in enumerate(sorted(names)):
        route = b"\x01" + i.to_bytes(15, "big")
        gateway.receive(route, name, encode(Hello(robot=name, epoch=1)), 0.0)
        for stream in (1, 2, 3):
            store.index.accept((name, 1, stream), 1, 0, b"x", 0, 1)
        gateway.receive(route, name, encode(Heartbeat(state="running", recorded={1: 9, 2: 9, 3: 9})), 0.0)
    seconds = []
    for _ in range(9):
        began_s = time.perf_counter()
        overview(gateway, store, None, None, names, 1.0)
        seconds.append(time.perf_counter() - began_s)
    store.close()
    return 1e3 * statistics.median(seconds)


def jobs_per_s(folder: Path, jobs: int = 300, robots: int = 50) -> float:
    """Jobs added, given, and done, per second: three syncs each."""
    book = JobQueue(folder / "jobs.log", hub="hub", utc_s=time.time, now_s=time.monotonic)
    beat = Heartbeat(state="running", skills=("hand_reach",), wants_job=True)
    began_s, done = time.perf_counter(), 0
    for _ in range(jobs):
        book.add({"task": "reach", "skill": "hand_reach"})
    while done < jobs:
        for robot in range(robots):
            ticket, lease = book.heard(f"r{robot}", beat)
            if ticket is not None:
                book.happened(f"r{robot}", JobResult(job=ticket.id, hub="hub", lease=lease, outcome="done"))
                done += 1
    seconds = time.perf_counter() - began_s
    book.close()
    return jobs / seconds


def measure(seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it; `say` gets a line as each part is done."""
    folder = Path(
        tempfile.mkdtemp(dir=Path.cwd(), prefix=".bench-hub-")
    )  # on the disk that is worked on, not in memory
    try:
        rates = exports(folder, seed)
        for name, rate in rates.items():
            say(f"{name:<24}{rate:8.0f} episodes/s")
        overviews = {}
        for robots in (50, 500, 2000):
            overviews[str(robots)] = overview_ms(folder, robots)
            say(f"overview, {robots:>4} robots   {overviews[str(robots)]:8.1f} ms")
        jobs = jobs_per_s(folder)
        say(f"{'jobs':<24}{jobs:8.0f} /s, each added, given and done, every step synced")
    finally:
        shutil.rmtree(folder)
    return {"exports_episodes_per_s": rates, "overview_ms": overviews, "jobs_per_s": jobs}
