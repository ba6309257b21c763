"""The hub's figures, and how Prometheus reads them. The hub counts in plain numbers; text is made by the process beside it that serves it.

No label names a robot: their number is open, and one robot is a row of the page, not a time series.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BYTES = (1e3, 1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)


class Histogram:
    """Counts per bucket and a sum; no growth."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def plain(self) -> dict[str, Any]:
        """`le`: [bound, cumulative count] pairs, the last bound is "+Inf"."""
        total, pairs = 0, []
        for bound, count in zip((*self._bounds, None), self._counts):
            total += count
            pairs.append(["+Inf" if bound is None else f"{bound:g}", total])
        return {"le": pairs, "sum": self._sum}


class HubMetrics:
    """What the hub's loop measures about itself. One group of records is on its way to the disk at a time, and one fills."""

    def __init__(self) -> None:
        self._ack, self._commit, self._bytes = Histogram(SECONDS), Histogram(SECONDS), Histogram(BYTES)
        self._filling_s: float | None = None
        self._taken_s = self._submitted_s = 0.0

    def filling(self, now_s: float) -> None:
        """There are records that wait for the disk."""
        if self._filling_s is None:
            self._filling_s = now_s

    def submitted(self, size_bytes: int, now_s: float) -> None:
        self._taken_s, self._filling_s = self._filling_s if self._filling_s is not None else now_s, None
        self._submitted_s = now_s
        self._bytes.observe(size_bytes)

    def committed(self, now_s: float) -> None:
        self._commit.observe(now_s - self._submitted_s)
        self._ack.observe(now_s - self._taken_s)

    def plain(self) -> dict[str, Any]:
        return {
            "ack_latency_seconds": self._ack.plain(),
            "commit_seconds": self._commit.plain(),
            "commit_group_bytes": self._bytes.plain(),
        }


HISTOGRAMS = {
    "ack_latency_seconds": "From a group's first record to its acknowledgement",
    "commit_seconds": "Writing and syncing a group",
    "commit_group_bytes": "Size of a group",
}
COUNTERS = {  # of the overview's `counts`
    "duplicates": "Records sent again and not stored again",
    "gaps": "Records refused because one before them was missing",
    "conflicts": "Records that contradicted what is held",
    "damaged": "Records in the log whose bytes are bad",
    "audit_mismatch": "Digests of a robot and the hub that differed: an alarm above 0",
    "unsent": "Answers that could not be sent",
    "holes_given_up": "Declared losses that another hub can no longer fill",
}
LAGS = (0.0, 1.0, 2.0, 5.0, 10.0)  # versions


def families(overview: dict[str, Any]) -> Iterator[Metric]:
    """Everything Prometheus is told, from an overview."""
    hub = overview["hub"]
    yield _labelled(GaugeMetricFamily, "fleet_robots", "Robots by state", hub, "state", overview["states"])
    for what in ("records", "bytes"):
        values = {stream: row[what] for stream, row in overview["streams"].items()}
        name = f"fleet_ingest_{what}"
        yield _labelled(CounterMetricFamily, name, f"Held on the disk, {what}", hub, "stream", values)
    lost = {stream: row["lost"] for stream, row in overview["streams"].items()}
    yield _labelled(GaugeMetricFamily, "fleet_lost_records", "Declared lost by robots", hub, "stream", lost)
    yield _labelled(
        CounterMetricFamily, "fleet_tombstoned_records", "Declared lost, by why", hub, "why", overview["tombstoned"]
    )
    for name, text in COUNTERS.items():
        yield _one(CounterMetricFamily, f"fleet_{name}", text, hub, overview["counts"][name])
    refused = {"key": overview["refused_keys"], **{why: overview["counts"][why] for why in ("revoked", "identity")}}
    yield _labelled(CounterMetricFamily, "fleet_auth_denied", "Connections and messages refused", hub, "why", refused)
    yield _one(
        GaugeMetricFamily, "fleet_credit_bytes", "What one robot may have under way", hub, overview["credit_bytes"]
    )
    yield _one(GaugeMetricFamily, "fleet_disk_free_ratio", "Free share of the log's disk", hub, overview["disk_free"])
    yield _one(
        GaugeMetricFamily,
        "fleet_spool_bytes",
        "Largest experience spool of a robot",
        hub,
        overview["spool"]["bytes_max"],
    )
    yield _one(
        GaugeMetricFamily, "fleet_spool_oldest_seconds", "Oldest record in a spool", hub, overview["spool"]["oldest_s"]
    )
    yield _one(GaugeMetricFamily, "fleet_pending_records", "Recorded and not held yet", hub, overview["pending"])
    energy = overview["energy"]
    yield _one(GaugeMetricFamily, "fleet_power_watts", "Taken by all robots that are online", hub, energy["power_w"])
    yield _one(
        GaugeMetricFamily, "fleet_energy_joules", "Taken by the robots since they started", hub, energy["energy_j"]
    )
    jobs = overview["jobs"]
    yield _labelled(
        GaugeMetricFamily, "fleet_jobs", "Open jobs", hub, "state", {"waiting": jobs["backlog"], "given": jobs["given"]}
    )
    ended = {state: jobs[state] for state in ("done", "failed", "cancelled", "expired", "returned")}
    yield _labelled(
        CounterMetricFamily, "fleet_jobs_ended", "Jobs by how they ended, or were handed back", hub, "how", ended
    )
    if jobs["wh_per_task"] is not None:
        yield _one(GaugeMetricFamily, "fleet_job_watt_hours", "Per job done", hub, jobs["wh_per_task"])
    refusing = sum(bool(robot["refused"]) for robot in overview["robots"])
    yield _one(GaugeMetricFamily, "fleet_robots_refusing", "Robots that refuse what they should run", hub, refusing)
    yield _one(GaugeMetricFamily, "fleet_segments", "Segments of the log", hub, overview["segments"])
    yield _one(GaugeMetricFamily, "fleet_quarantine_files", "Records kept apart", hub, overview["quarantined"])
    apart = {"robot": overview["counts"]["nack_conflict"], "hub": overview["counts"]["merged_conflict"]}
    yield _labelled(
        CounterMetricFamily,
        "fleet_quarantined",
        "Records that contradicted the log, by who sent them",
        hub,
        "why",
        apart,
    )
    yield _labelled(
        CounterMetricFamily,
        "fleet_admission_reject",
        "Policies robots refused or undid",
        hub,
        "why",
        overview["refusals"],
    )
    yield _one(
        GaugeMetricFamily,
        "fleet_recovery_seconds",
        "The last start, from reading the log to ready",
        hub,
        overview["recovery_s"],
    )
    there = {peer["hub"]: float(peer["state"] == "ONLINE") for peer in overview["hubs"]}
    yield _labelled(GaugeMetricFamily, "fleet_peer_up", "Other hubs: 1 while they answer", hub, "peer", there)
    behind = {peer["hub"]: peer["only_there"] for peer in overview["hubs"]}
    yield _labelled(
        GaugeMetricFamily, "fleet_sync_lag_records", "Records only the other hub holds", hub, "peer", behind
    )
    rollout = overview["rollout"]
    if rollout is not None:
        yield _one(
            GaugeMetricFamily, "fleet_rollout_stage", "Stage of the last rollout, from 0", hub, rollout["stage_number"]
        )
        groups = rollout["groups"]
        rates = {group: row["falls_per_hour"] for group, row in groups.items() if row["falls_per_hour"] is not None}
        yield _labelled(GaugeMetricFamily, "fleet_rollout_fall_rate", "Falls per robot-hour", hub, "cohort", rates)
        minutes = {group: 60.0 * row["hours"] for group, row in groups.items()}
        yield _labelled(GaugeMetricFamily, "fleet_rollout_exposure_minutes", "Robot-minutes", hub, "cohort", minutes)
    yield _labelled(
        CounterMetricFamily, "fleet_rollback", "Policies that were rolled back", hub, "why", overview["rollbacks"]
    )
    yield _labelled(
        GaugeMetricFamily, "fleet_tuf_expiry_seconds", "Left of each signature", hub, "role", overview["expiry_s"]
    )
    yield _lags(hub, [robot["behind"] for robot in overview["robots"] if robot["behind"] is not None])
    if overview["drawn"] is not None:
        held = overview["streams"]["steps"]["items"]
        yield _one(
            CounterMetricFamily, "fleet_sample_steps", "Drawn by learners from the packs", hub, overview["drawn"]
        )
        ratio = overview["drawn"] / held if held else 0.0
        yield _one(GaugeMetricFamily, "fleet_sample_insert_ratio", "Steps drawn per step held", hub, ratio)
    for name, text in HISTOGRAMS.items():
        data = overview["metrics"][name]
        family = HistogramMetricFamily(f"fleet_{name}", text, labels=["hub"])
        family.add_metric([hub], buckets=[(le, n) for le, n in data["le"]], sum_value=data["sum"])
        yield family


def _lags(hub: str, behind: list[int]) -> Metric:
    """How many published versions of what they run robots that are here lack."""
    family = GaugeHistogramMetricFamily(
        "fleet_policy_lag_versions", "Published versions newer than what a robot runs", labels=["hub"]
    )
    buckets = [(f"{bound:g}", float(sum(n <= bound for n in behind))) for bound in LAGS]
    family.add_metric([hub], buckets=[*buckets, ("+Inf", float(len(behind)))], gsum_value=float(sum(behind)))
    return family


def _one(kind: Any, name: str, text: str, hub: str, value: float) -> Metric:
    family = kind(name, text, labels=["hub"])
    family.add_metric([hub], value)
    return family


def _labelled(kind: Any, name: str, text: str, hub: str, label: str, values: dict[str, float]) -> Metric:
    family = kind(name, text, labels=["hub", label])
    for key, value in values.items():
        family.add_metric([hub, key], value)
    return family
