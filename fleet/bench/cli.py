"""`flexor bench fleet`."""

import sys
from pathlib import Path


def bench(
    seconds: float = 60.0, repeats: int = 1, peers: bool = False, only: str = "", json: Path | None = None
) -> None:
    """Measure the fleet layer: durable encrypted ingest, minibatches from packs, many robots on one hub, kills, rollbacks, memory; and Reverb.

    Every run is a process of its own, taken in turn. Measure on an idle machine.

    Args:
        seconds: How long each run measures.
        repeats: Runs of each kind; the median is kept.
        peers: Run Reverb beside ours, in the environment that `make bench-reverb` makes.
        only: Names of runs, comma-separated: curve_64k, disk, ingest_64k, ingest_2k, packs, robots_500, robots_2000, hub_killed, rollback_500,
            uplink, and with --peers reverb_insert_64k, reverb_insert_2k, reverb_sample, reverb_dataset.
        json: Write the figures to this file.

    Example:
        flexor bench fleet --peers --json fleet.json
    """
    from fleet.bench.measure import measure, table
    from robot.report import write_json

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    names = [name.strip() for name in only.split(",") if name.strip()]
    figures = measure(seconds=seconds, repeats=repeats, peers=peers, only=names, say=say)
    print(table(figures))
    if json is not None:
        write_json(json, command="bench fleet", seed=0, results=figures)
