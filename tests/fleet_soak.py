"""Records by the million through faults by the thousand, and an oracle that reads the whole log: `make soak`, or

    python tests/fleet_soak.py --records 10000000 --faults 1000 --seed 0 --workers 2 --resume

The real spool, session, gateway and store talk without sockets, on disks that lose what was not synced. Work is cut into pieces, each with a seed of its
own, so it can go on after Ctrl-C (`--resume`) and a failure names the one piece that shows it: `--piece N`.

A piece holds when every record that was ever synced in a spool is in the hub's log exactly once with its own content, nothing else is, and the digests
of both sides agree. Records a robot had not synced when its power went may be missing, at most once each there.
"""

import argparse
import json
import multiprocessing
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_fleet_faults import FaultyDisk  # noqa: E402
from test_fleet_protocol import Hub, Robot  # noqa: E402

from fleet.errors import StoreSuspectError  # noqa: E402
from fleet.spool import Spool  # noqa: E402
from fleet.store import audit, read_log  # noqa: E402
from fleet.wire import EVENTS, STEPS, STREAMS  # noqa: E402

PIECE_RECORDS = 200_000
BURST = 400  # records a robot makes between two exchanges
BODY = struct.Struct(">HHQ")  # robot, stream, serial number
FAULTS = (
    "F01 hub killed",
    "F02 hub power loss",
    "F03 robot killed",
    "F03 robot power loss",
    "F04 connection broken",
    "F07 hub disk full",
    "F09 hub sync refused",
    "F11 hub paused",
    "F12 clock jump",
    "F16 flood of old messages",
    "F17 garbage",
)


class Machine:
    """A robot's computer: its disk, its spool, and what it remembers having made."""

    def __init__(self, path, number):
        self.path, self.number, self.name = path, number, "ab"[number]
        self.disk = FaultyDisk()
        self.disk.quick = True
        self.made = dict.fromkeys((EVENTS, STEPS, STREAMS["metrics"]), 0)
        self.synced = dict(self.made)
        self.excused = {stream: [] for stream in self.made}  # serials that were not synced when the power went
        self.clock_ns = 10**18
        self.start(0.0)

    def start(self, now_s):
        self.robot = Robot(self.path, self.name)
        self.robot.spool.close()
        self.robot.spool = self.robot.session._spool = Spool(
            self.path, self.name, limit_bytes=1 << 30, segment_bytes=1 << 20, disk=self.disk
        )
        self.robot.connect(now_s)

    def live(self, rng, count):
        streams = rng.choice(list(self.made), count, p=[0.1, 0.6, 0.3])
        for stream in streams.tolist():
            serial = self.made[stream] = self.made[stream] + 1
            self.robot.spool.append(stream, BODY.pack(self.number, stream, serial), self.clock_ns)
            self.clock_ns += 1000
        if rng.random() < 0.8:
            self.sync()

    def sync(self):
        self.robot.spool.sync()
        self.synced = dict(self.made)

    def crash(self, rng, now_s, power):
        self.robot.spool.close()
        if power:
            for stream, made in self.made.items():
                if made > self.synced[stream]:
                    self.excused[stream].append((self.synced[stream] + 1, made))
            self.disk.lose_power(rng)
        self.start(now_s)
        self.synced = dict(self.made)


class Piece:
    """One piece of a soak."""

    def __init__(self, folder, seed, records, faults):
        self.rng, self.folder, self.records = np.random.default_rng(seed), folder, records
        self.disk = FaultyDisk()
        self.disk.quick = True
        self.machines = [Machine(folder / f"robot{i}", i) for i in range(2)]
        self.hub = Hub(folder / "hub", self.disk)
        self.hub.store.segment_bytes = 4 << 20
        self.now_s, self.counts = 0.0, Counter()
        self.paused, self.old = 0, []
        turns = -(-records // (BURST * len(self.machines)))
        self.plan = Counter(self.rng.integers(0, turns, faults).tolist())
        self.turns = turns

    def run(self):
        for turn in range(self.turns):
            for machine in self.machines:
                machine.live(self.rng, BURST)
            for _ in range(self.plan[turn]):
                self.fault(str(self.rng.choice(FAULTS)))
            self.exchange()
        self.disk.space_bytes, self.disk.fail_sync, self.paused = None, False, 0
        for machine in self.machines:
            machine.sync()
        for _ in range(5000):
            if all(machine.robot.session.drained for machine in self.machines):
                break
            self.exchange()
            self.now_s += 0.5
        else:
            raise AssertionError("not drained: " + str([m.robot.session.counters for m in self.machines]))
        self.check()
        for machine in self.machines:
            machine.robot.spool.close()
        self.hub.close()
        return {"records": sum(sum(m.made.values()) for m in self.machines), "faults": dict(self.counts)}

    def exchange(self):
        self.now_s += 0.2
        if self.paused:
            self.paused -= 1
            return
        for machine in self.machines:
            self.turn(machine)
        if self.rng.random() < 0.05:
            route, session = self.machines[0].robot.route, self.machines[0].robot.session
            self.old = [(route, frames) for frames in session.bulk(self.now_s)[:5]]
            for _, frames in self.old:
                session.unsent(frames)

    def turn(self, machine, lose=lambda: False):
        try:
            machine.robot.turn(self.hub, self.now_s, lose)
        except StoreSuspectError:
            self.restart_hub()

    def fault(self, what):
        rng, machine = self.rng, self.machines[int(self.rng.integers(len(self.machines)))]
        self.counts[what] += 1
        if what == "F01 hub killed":
            self.restart_hub(garbage=True)
        elif what == "F02 hub power loss":
            self.restart_hub(power=True)
        elif what.startswith("F03"):
            machine.crash(rng, self.now_s, power="power" in what)
        elif what == "F04 connection broken":
            self.turn(machine, lambda: rng.random() < 0.3)
        elif what == "F07 hub disk full":
            self.disk.space_bytes = int(rng.integers(0, 5000)) if self.disk.space_bytes is None else None
        elif what == "F09 hub sync refused":
            self.disk.fail_sync = True
        elif what == "F11 hub paused":
            self.paused = int(rng.integers(1, 30))
        elif what == "F12 clock jump":
            machine.clock_ns += int(rng.integers(-3600, 3600)) * 10**9
        elif what == "F16 flood of old messages":
            for route, frames in self.old * 20:
                self.hub.gateway.receive(route, "a", frames, self.now_s)
        elif what == "F17 garbage":
            frames = [rng.bytes(int(rng.integers(0, 60))) for _ in range(int(rng.integers(0, 4)))]
            self.hub.gateway.receive(machine.robot.route, machine.name, frames, self.now_s)

    def restart_hub(self, *, power=False, garbage=False):
        self.hub.close()
        self.disk.fail_sync, self.disk.space_bytes = False, None
        if power:
            self.disk.lose_power(self.rng)
        if garbage:
            with sorted((self.folder / "hub/log").glob("*.seg"))[-1].open("ab") as log:
                log.write(self.rng.bytes(int(self.rng.integers(0, 40))))
        self.hub = Hub(self.folder / "hub", self.disk)
        self.hub.store.segment_bytes = 4 << 20

    def check(self):
        """The oracle."""
        seen = {(m.number, s): np.zeros(made + 1, np.uint8) for m in self.machines for s, made in m.made.items()}
        for record, payload in read_log(self.folder / "hub"):
            assert not record.tombstone, f"a loss was declared: {record}"
            number, stream, serial = BODY.unpack(payload)
            assert (record.robot, record.stream) == ("ab"[number], stream), f"misfiled: {record}"
            seen[number, stream][serial] += 1
        for machine in self.machines:
            for stream in machine.made:
                found = seen[machine.number, stream]
                assert found.max(initial=0) <= 1, (
                    f"{machine.name}/{stream}: serial {int(found.argmax())} is there twice"
                )
                missing = np.flatnonzero(found[1:] == 0) + 1
                for first, last in machine.excused[stream]:
                    missing = missing[(missing < first) | (missing > last)]
                assert missing.size == 0, f"{machine.name}/{stream}: {missing.size} lost, the first {int(missing[0])}"
        assert all((x.missing, x.doubled) == (0, 0) for x in audit(self.folder / "hub"))
        assert self.hub.gateway.counters["audit_mismatch"] == 0


def piece(seed, records, faults):
    """Run one piece in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="flexor-soak-"))
    try:
        return Piece(folder, seed, records, faults).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _work(task):
    number, seed, records, faults = task
    try:
        return number, piece([seed, number], records, faults), ""
    except Exception as error:  # handed to the parent, which names the piece
        return number, None, f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--piece", type=int, help="only this one")
    parser.add_argument("--resume", action="store_true", help="go on where a run with the same numbers was cut off")
    parser.add_argument("--state", type=Path, default=Path("runs/soak.json"))
    o = parser.parse_args()
    count = max(1, round(o.records / PIECE_RECORDS))
    share = [o.faults // count + (i < o.faults % count) for i in range(count)]
    size = -(-o.records // count)
    name = f"{o.records}-{o.faults}-{o.seed}"
    done = {}
    if o.resume and o.state.exists() and json.loads(o.state.read_text())["name"] == name:
        done = json.loads(o.state.read_text())["done"]
    tasks = [(i, o.seed, size, share[i]) for i in range(count) if str(i) not in done and o.piece in (None, i)]
    print(
        f"soak: seed {o.seed}, {count} pieces of {size} records, {o.faults} faults; {len(done)} done before", flush=True
    )
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(o.workers) as pool:
        for n, (number, result, error) in enumerate(pool.imap_unordered(_work, tasks), 1):
            if error:
                pool.terminate()
                sys.exit(
                    f"FAILED, seed {o.seed} piece {number}: {error}\n  again: {' '.join(sys.argv)} --piece {number}"
                )
            done[str(number)] = result
            o.state.parent.mkdir(parents=True, exist_ok=True)
            o.state.write_text(json.dumps({"name": name, "done": done}))
            left = (time.monotonic() - started) / n * (len(tasks) - n)
            print(f"{n}/{len(tasks)} pieces, {left:.0f} s left", flush=True)
    faults = sum((Counter(r["faults"]) for r in done.values()), Counter())
    total = sum(r["records"] for r in done.values())
    print(
        f"{total} records, {sum(faults.values())} faults, 0 lost, 0 doubled; seed {o.seed}, {time.monotonic() - started:.0f} s"
    )
    for what, times in sorted(faults.items()):
        print(f"  {what}: {times}")


if __name__ == "__main__":
    main()
