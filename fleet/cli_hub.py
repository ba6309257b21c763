"""`flexor bench hub`. Heavy imports are inside."""

from pathlib import Path


def bench(seed: int = 0, json: Path | None = None) -> None:
    """What a hub's side jobs cost here: exports, the overview for the page, the job queue. Takes a minute.

    Example:
        flexor bench hub --json out/bench_hub.json

    Args:
        seed: Of the made-up episodes.
        json: Also write the figures here.
    """
    from fleet.bench_hub import measure

    results = measure(seed, print)
    if json is not None:
        from robot.report import write_json

        write_json(json, command="bench hub", seed=seed, results=results)
