"""One run of Reverb: `python benchmarks/reverb_peer.py KIND SECONDS`, in the environment of `make bench-reverb`. Prints its figures as JSON.

Server and client are processes of their own on loopback; nothing is encrypted and nothing is written to a disk, as Reverb does it. It imports
nothing of this project: dm-reverb 0.14 needs TensorFlow 2.15 and CPython 3.11 or older.
"""

import json
import multiprocessing
import os
import socket
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import reverb
import tensorflow as tf

BATCH = 256
STEP_FLOATS = 256  # 1 KiB a step
TABLE_ITEMS = {"insert_64k": 2000, "insert_2k": 50_000}


def serve(port, size, ready):
    tables = [
        reverb.Table(
            name="t",
            sampler=reverb.selectors.Uniform(),
            remover=reverb.selectors.Fifo(),
            max_size=size,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        )
    ]
    server = reverb.Server(tables=tables, port=port)
    ready.set()
    server.wait()


def cpu_s():
    """Processor time of this process and of the server, its only child."""
    (server,) = multiprocessing.active_children()
    total = 0
    for pid in (os.getpid(), server.pid):
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def insert(client, seconds, size):
    """Items of one payload each through a writer, as fast as one client can."""
    data = np.frombuffer(np.random.default_rng(0).bytes(size), np.uint8)
    done, cpu = 0, 0.0
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        warm, started = time.monotonic() + 1.0, None
        while True:
            for _ in range(32):
                writer.append({"x": data})
                writer.create_item("t", 1.0, {"x": writer.history["x"][-1:]})
                done += 1
            writer.flush(block_until_num_items=64)
            now = time.monotonic()
            if started is None and now > warm:
                started, done, cpu = now, 0, cpu_s()
            if started is not None and now > started + seconds:
                break
        writer.flush()
        wall, cpu = time.monotonic() - started, cpu_s() - cpu
    return {
        "records_per_s": done / wall,
        "mb_per_s": done * size / wall / 1e6,
        "cpu_s_per_gb": cpu / (done * size) * 1e9,
    }


def filled(client, items=20_000):
    rng = np.random.default_rng(0)
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for i in range(items):
            writer.append({"x": rng.standard_normal(STEP_FLOATS).astype(np.float32)})
            writer.create_item("t", 1.0, {"x": writer.history["x"][-1:]})
            if i % 256 == 0:
                writer.flush()
        writer.flush()


def sample(client, seconds):
    """`client.sample`, the Python generator."""
    filled(client)
    done, started = 0, time.monotonic()
    while (now := time.monotonic()) < started + seconds:
        for _ in client.sample("t", num_samples=BATCH):
            done += 1
    return {"steps_per_s": done / (now - started)}


def dataset(client, seconds, address):
    """The documented fast path: `TrajectoryDataset`, batched by tf.data."""
    filled(client)
    data = reverb.TrajectoryDataset(
        server_address=address,
        table="t",
        dtypes={"x": tf.float32},
        shapes={"x": tf.TensorShape([1, STEP_FLOATS])},
        max_in_flight_samples_per_worker=4 * BATCH,
    )
    batches = iter(data.batch(BATCH).prefetch(4).as_numpy_iterator())
    next(batches)
    done, started = 0, time.monotonic()
    while (now := time.monotonic()) < started + seconds:
        done += len(next(batches).data["x"])
    return {"steps_per_s": done / (now - started)}


def main(kind, seconds):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    server = spawn.Process(target=serve, args=(port, TABLE_ITEMS.get(kind, 100_000), ready), daemon=True)
    server.start()
    ready.wait(60.0)
    address = f"localhost:{port}"
    client = reverb.Client(address)
    runs = {
        "insert_64k": lambda: insert(client, seconds, 64 << 10),
        "insert_2k": lambda: insert(client, seconds, 2 << 10),
        "sample": lambda: sample(client, seconds),
        "dataset": lambda: dataset(client, seconds, address),
    }
    print(json.dumps(runs[kind]()), flush=True)
    server.kill()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
