"""One run of a figure: `python -m fleet.bench.runs KIND SECONDS` prints it as JSON. Hubs and crowds are processes of their own."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zmq

from fleet.bench.load import Crowd, UnsyncedDisk, try_send
from fleet.disk import Disk
from fleet.keys import load_pair, load_public, make_keys
from fleet.processes import environment

ROOT = Path(__file__).resolve().parents[2]
WARM_S = 1.0
GROUP_BYTES = 4 << 20


def free_ports(count: int = 4) -> int:
    """The first of some ports in a row that are free."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for offset in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except (OSError, OverflowError):
                continue
            return port


def cpu_s(pid: int) -> float:
    """Processor time a process has used, all its threads [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class HubProcess:
    """A real hub, as `flexor fleet hub` starts it."""

    def __init__(self, folder: Path, keys: Path, port: int) -> None:
        self.folder, self.keys, self.port = folder, keys, port
        self.start()

    def start(self) -> None:
        code = "import sys; from flexor import main; sys.exit(main())"
        words = ["fleet", "hub", "--dir", str(self.folder), "--keys", str(self.keys), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "ready" not in line:
            raise RuntimeError(f"the hub did not start: {line}")

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def memory_mb(self) -> float:
        return _high_water_mb(self.process.pid)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def fleet(robots: int):  # type: ignore[no-untyped-def]
    """A hub with keys for some robots, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="flexor-bench-", dir=_scratch()) as folder:
        keys, names = Path(folder) / "keys", [f"r{i}" for i in range(robots)]
        make_keys(keys, names, disk=UnsyncedDisk())
        hub = HubProcess(Path(folder) / "hub", keys, free_ports())
        try:
            yield hub, names
        finally:
            hub.stop()


def _scratch() -> str | None:
    """Where logs go: a real disk, not a tmpfs."""
    place = ROOT / "runs/bench"
    place.mkdir(parents=True, exist_ok=True)
    return str(place)


def ingest(seconds: float, size: int, robots: int = 8) -> dict[str, float]:
    """Acknowledged, so durable and encrypted, records of one size: as fast as some robots can."""
    with fleet(robots) as (hub, names):
        crowd = Crowd(hub.keys, names, hub.port, np.random.default_rng(0).bytes(size))
        crowd.run(time.monotonic() + 20.0, done=lambda: crowd.totals.acked > 0)
        crowd.run(time.monotonic() + WARM_S)
        acked, cpu, own, started = crowd.totals.acked, hub.cpu_s(), cpu_s(os.getpid()), time.monotonic()
        crowd.run(started + seconds)
        wall, rate = time.monotonic() - started, crowd.totals.acked - acked
        cpu, own = hub.cpu_s() - cpu, cpu_s(os.getpid()) - own
        waits = crowd.totals.waits_s or [0.0]
        result = {
            "records_per_s": rate / wall,
            "mb_per_s": rate * size / wall / 1e6,
            "ack_p50_ms": 1e3 * median(waits),
            "ack_p99_ms": 1e3 * float(np.quantile(waits, 0.99)),
            "hub_cores": cpu / wall,
            "cpu_s_per_gb": (cpu + own) / max(1, rate * size) * 1e9,
            "hub_memory_mb": hub.memory_mb(),
            "nacked": float(crowd.totals.nacked),
        }
        crowd.close()
        return result


def curve(seconds: float, size: int = 64 << 10, robots: int = 8) -> dict[str, float]:
    """Raw CURVE in the same places as `ingest`: one process with as many DEALERs as robots, one with a ROUTER, which throws away."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder)
        make_keys(keys, ["r0"], disk=UnsyncedDisk())
        context = zmq.Context(io_threads=2)
        router = context.socket(zmq.ROUTER)
        pair = load_pair(keys / "hub.key_secret")
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        router.setsockopt(zmq.RCVHWM, 64)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        sender = subprocess.Popen(
            [sys.executable, "-m", "fleet.bench.runs", "curve_sender", str(port), folder, str(size), str(robots)],
            cwd=ROOT,
        )
        try:
            got = 0
            router.recv_multipart()
            warm = time.monotonic() + WARM_S
            while time.monotonic() < warm:
                router.recv_multipart(copy=False)
            cpu, started = cpu_s(os.getpid()) + cpu_s(sender.pid), time.monotonic()
            while (now_s := time.monotonic()) < started + seconds:
                for _ in range(16):
                    router.recv_multipart(copy=False)
                    got += 1
            wall = now_s - started
            cpu = cpu_s(os.getpid()) + cpu_s(sender.pid) - cpu
        finally:
            sender.kill()
            sender.wait()
            context.destroy(0)
        return {
            "records_per_s": got / wall,
            "mb_per_s": got * size / wall / 1e6,
            "cpu_s_per_gb": cpu / max(1, got * size) * 1e9,
        }


def curve_sender(port: str, keys: str, size: str, robots: str) -> None:
    context, poller = zmq.Context(), zmq.Poller()
    pair = load_pair(Path(keys) / "robots/r0.key_secret")
    for _ in range(int(robots)):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, load_public(Path(keys) / "hub.key"))
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        dealer.setsockopt(zmq.SNDHWM, 64)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        poller.register(dealer, zmq.POLLOUT)
    frames = [b"e" * 48, b"", os.urandom(int(size))]
    while True:
        for dealer, _ in poller.poll():
            for _ in range(16):
                if not try_send(dealer, frames):
                    break


def disk(seconds: float) -> dict[str, float]:
    """The disk alone: groups of 4 MiB, written as the hub writes them, each synced before the next."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        data, written, number, syncs = [os.urandom(GROUP_BYTES)], 0, 0, []
        file = Disk().open_append(Path(folder) / "0", cached=False)
        started = time.monotonic()
        while (now_s := time.monotonic()) < started + seconds:
            began = time.monotonic()
            file.append(data)
            file.sync()
            syncs.append(time.monotonic() - began)
            written += GROUP_BYTES
            if file.size >= 128 << 20:
                file.close()
                (Path(folder) / str(number)).unlink()
                number += 1
                file = Disk().open_append(Path(folder) / str(number), cached=False)
        file.close()
        return {"mb_per_s": written / (now_s - started) / 1e6, "sync_p99_ms": 1e3 * float(np.quantile(syncs, 0.99))}


def packs(seconds: float, batch: int = 256) -> dict[str, float]:
    """Random minibatches gathered from the memory-mapped columns of a pack: 1 KiB a step, warm."""
    from robot.experience import Chunk, ChunkHeader
    from robot.packs import open_pack, write_pack

    rng = np.random.default_rng(0)
    n_obs, n_act, steps, per_chunk = 200, 48, 100_000, 100
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        chunks = []
        for i in range(steps // per_chunk):
            header = ChunkHeader(
                contract_sha256="c" * 64,
                policy_sha256="b" * 64,
                episode_id=f"{i:032x}",
                first_step=0,
                steps=per_chunk,
                observation_size=n_obs,
                action_size=n_act,
                reward_names=("reward",),
                ended="truncated",
            )
            chunks.append(
                Chunk(
                    header=header,
                    observation=rng.standard_normal((per_chunk, n_obs)).astype(np.float32),
                    action=rng.standard_normal((per_chunk, n_act)).astype(np.float32),
                    reward=np.zeros((per_chunk, 1), np.float32),
                    log_prob=np.zeros(per_chunk, np.float32),
                    success=np.zeros(per_chunk, np.uint8),
                    time_s=np.arange(per_chunk, dtype=np.float64),
                    last_observation=np.zeros(n_obs, np.float32),
                )
            )
        write_pack(Path(folder) / "pack", chunks)
        pack: Any = open_pack(Path(folder) / "pack", verify=False)
        columns = [pack.observation, pack.action, pack.reward, pack.log_prob, pack.ended]
        for column in columns:
            np.asarray(column).sum()  # into the page cache
        done, cpu, started = 0, time.process_time(), time.monotonic()
        while (now_s := time.monotonic()) < started + seconds:
            rows = rng.integers(0, len(pack), batch)
            for column in columns:
                column[rows]
            done += batch
        cpu = time.process_time() - cpu
        return {
            "steps_per_s": done / (now_s - started),
            "steps_per_cpu_s": done / cpu,
            "bytes_per_step": 4.0 * (n_obs + n_act + 2) + 1,
        }


def crowd(seconds: float, robots: int, payload_bytes: int, rate_hz: float) -> dict[str, float]:
    """Many robots on one hub: all send at a rate a robot has, or only heartbeats (rate 0)."""
    with fleet(robots) as (hub, names):
        data = np.random.default_rng(0).bytes(payload_bytes)
        people = Crowd(hub.keys, names, hub.port, data, every_s=1.0 / rate_hz if rate_hz else 0.0)
        joining = time.monotonic()
        people.run(joining + 120.0, done=lambda: people.joined == robots, records=False)
        joined_s = time.monotonic() - joining
        people.run(time.monotonic() + 3.0 * WARM_S, records=rate_hz > 0)
        people.totals.waits_s.clear()
        acked, cpu, started = people.totals.acked, hub.cpu_s(), time.monotonic()
        people.run(started + seconds, records=rate_hz > 0)
        wall, got = time.monotonic() - started, people.totals.acked - acked
        waits = people.totals.waits_s or [0.0]
        result = {
            "joined": float(people.joined),
            "joining_s": joined_s,
            "mb_per_s": got * payload_bytes / wall / 1e6,
            "of_asked": got / max(1.0, robots * rate_hz * wall),
            "ack_p50_ms": 1e3 * median(waits),
            "ack_p99_ms": 1e3 * float(np.quantile(waits, 0.99)),
            "hub_cores": (hub.cpu_s() - cpu) / wall,
            "hub_memory_mb": hub.memory_mb(),
            "errors": float(people.totals.errors),
        }
        people.close()
        return result


def killed(seconds: float, robots: int = 50) -> dict[str, float]:
    """Kill -9 of the hub, and a start at once: until the first new acknowledgement."""
    pauses = []
    with fleet(robots) as (hub, names):
        people = Crowd(hub.keys, names, hub.port, os.urandom(8192), every_s=0.1)
        people.run(time.monotonic() + 30.0, done=lambda: people.totals.acked > 0)
        until = time.monotonic() + seconds
        while time.monotonic() < until or not pauses:
            people.run(time.monotonic() + 1.0)
            hub.kill()
            killed_s = time.monotonic()
            for robot in people.robots:
                robot.joined = False
            acked = people.totals.acked
            hub.start()
            people.run(killed_s + 30.0, done=lambda acked=acked: people.totals.acked > acked)
            pauses.append(time.monotonic() - killed_s)
        people.close()
    return {"first_ack_s": median(pauses), "worst_s": max(pauses), "kills": float(len(pauses))}


def rollback(seconds: float, robots: int = 500) -> dict[str, float]:
    """From the operator's word until 95 % of the robots that are online have their new assignment."""
    from fleet.assignment import ArtifactRef
    from fleet.operator import ask

    spans = []
    with fleet(robots) as (hub, names):
        _publish(hub, ArtifactRef(name="bench", version="v1", sha256="0" * 64))
        people = Crowd(hub.keys, names, hub.port, b"x")
        people.run(time.monotonic() + 120.0, done=lambda: people.joined == robots, records=False)
        people.run(time.monotonic() + 2.0, records=False)
        version, until = 1, time.monotonic() + seconds
        address = f"127.0.0.1:{hub.port}"
        while time.monotonic() < until or not spans:
            ask(
                address,
                hub.keys,
                "deploy",
                {"name": "bench", "version": f"v{version}", "plan": "quick"},
                timeout_s=30.0,
            )
            people.run(time.monotonic() + 3.0, records=False)
            people.totals.assigned.clear()
            started = time.monotonic()
            ask(address, hub.keys, "rollback", timeout_s=30.0)
            people.run(started + 60.0, done=lambda: len(people.totals.assigned) >= 0.95 * robots, records=False)
            spans.append(time.monotonic() - started)
            version += 1
            _publish(hub, ArtifactRef(name="bench", version=f"v{version}", sha256="0" * 64))
        people.close()
    return {"to_95_percent_s": median(spans), "worst_s": max(spans), "rollbacks": float(len(spans))}


def _publish(hub: HubProcess, ref: Any) -> None:
    """Sign an artifact into the hub's catalogue; robots here do not load it."""
    from datetime import UTC, datetime

    from fleet.catalogue import FILES, Catalogue

    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            (Path(folder) / file).write_bytes(ref.version.encode())
        Catalogue(hub.folder / "catalogue", hub.keys).publish(Path(folder), ref.name, ref.version, datetime.now(UTC))


def uplink(seconds: float) -> dict[str, float]:
    """What the uplink adds to a robot's process: memory, processor, and how long the control loop waits for it at 50 Hz."""
    from fleet.messages import EpisodeResult, Heartbeat
    from fleet.sockets import HubAddress
    from fleet.uplink import Line, Uplink

    event = EpisodeResult(
        episode_id="0" * 32,
        policy_sha256="",
        artifact="x" * 1900,
        rollout="",
        stage="",
        generation=0,
        cohort="none",
        explored=False,
        return_=0.0,
        success=True,
        steps=1,
        seconds=0.02,
    )
    with fleet(1) as (hub, names), tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        line = Line(hubs=[HubAddress(host="127.0.0.1", port=hub.port)], robot=names[0], keys=hub.keys)
        up = Uplink(line, Path(folder) / "spool", heartbeat=lambda: Heartbeat(state="running"))
        up.start()
        appends, taken, cpu, started, k = [], [], time.process_time(), time.monotonic(), 0
        while (now_s := time.monotonic()) < started + seconds:
            switches, began = _preemptions(), time.perf_counter()
            up.tell(event)
            appends.append(time.perf_counter() - began)
            taken.append(_preemptions() != switches)
            k += 1
            time.sleep(max(0.0, started + k / 50.0 - now_s))
        busy = (time.process_time() - cpu) / (time.monotonic() - started)
        drained = up.finish(20.0)
        return {
            "process_memory_mb": _high_water_mb(os.getpid()),
            "cores": busy,
            "append_p50_us": 1e6 * median(appends),
            "append_p999_us": 1e6 * float(np.quantile(appends, 0.999)),
            "append_p999_running_us": 1e6 * float(np.quantile(np.array(appends)[~np.array(taken)], 0.999)),
            "preempted": float(sum(taken)),
            "drained": float(drained),
        }


def _preemptions() -> int:
    """How often the kernel has given this thread's processor to somebody else: waiting then is the machine's doing, not the uplink's."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _high_water_mb(pid: int) -> float:
    """The most memory a process has held [MB]."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


KINDS: dict[str, Callable[[float], dict[str, float]]] = {
    "curve_64k": curve,
    "disk": disk,
    "ingest_64k": lambda s: ingest(s, 64 << 10),
    "ingest_2k": lambda s: ingest(s, 2 << 10),
    "packs": packs,
    "robots_500": lambda s: crowd(s, 500, 50_000, 2.0),
    "robots_2000": lambda s: crowd(s, 2000, 1, 0.0),
    "hub_killed": killed,
    "rollback_500": rollback,
    "uplink": uplink,
}

if __name__ == "__main__":
    if sys.argv[1] == "curve_sender":
        curve_sender(*sys.argv[2:])
    print(json.dumps(KINDS[sys.argv[1]](float(sys.argv[2]))))
