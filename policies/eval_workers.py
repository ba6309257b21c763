"""Episodes in several processes. Each episode has its own seed, so it does not matter where it is run."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from policies.artifact import PolicyFile
from policies.evaluate import Episode, Progress, episodes_of
from sim.workers import one_thread

PART = 10  # episodes per task: enough to be worth an environment, few enough to show progress


def episodes_in_workers(
    actor: PolicyFile | str,
    env_id: str,
    settings: Mapping[str, Any],
    seed: int,
    episodes: int,
    workers: int,
    progress: Progress | None,
) -> list[Episode]:
    """Episodes in seed order; `actor` as for `episodes_of`. What goes wrong in a process is raised here."""
    data = actor if isinstance(actor, str) else (actor.data, actor.label)
    parts = [range(first, min(first + PART, seed + episodes)) for first in range(seed, seed + episodes, PART)]
    done: dict[int, list[Episode]] = {}
    with one_thread(), ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = {pool.submit(_part, data, env_id, dict(settings), part): part for part in parts}
        try:
            for task in as_completed(tasks):
                done[tasks[task].start] = task.result()
                if progress is not None:
                    progress(sum(map(len, done.values())), episodes)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [episode for part in parts for episode in done[part.start]]


def _part(actor: str | tuple[bytes, str], env_id: str, settings: dict[str, Any], seeds: range) -> list[Episode]:
    acting = actor if isinstance(actor, str) else PolicyFile.from_bytes(*actor)
    return episodes_of(acting, env_id, settings, seeds, None, None)
