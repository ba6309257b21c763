"""Stands in for `flexor` in the tests of the demo: takes the same words, writes the same files, does none of the work."""

import json
import os
import sys
import time
from pathlib import Path

SCORE = {
    "success": 0.9,
    "success_ci95": [0.83, 0.94],
    "return_mean": 30.0,
    "return_ci95": [28.0, 32.0],
    "metrics": {"tip_error_mm": {"mean": 4.2, "ci95": [4.0, 4.4]}},
    "successes": [True] * 9 + [False],
    "returns": [30.0, 31.0, 29.0, 30.0, 30.0, 31.0, 29.0, 30.0, 28.0, 32.0],
}
ROBOTS = ("r1", "r2", "r3")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def write(path: str, results: dict) -> None:
    Path(path).write_text(json.dumps({"command": "x", "version": "0", "machine": {}, "seed": 0, "results": results}))


def train(words: list[str]) -> None:
    out = Path(option(words, "--out"))
    out.mkdir(parents=True)
    if "--from-packs" in words:
        assert Path(option(words, "--from-packs")).is_dir(), "packs that nobody exported"
        write(option(words, "--json"), {"steps": 5000, "left_out": 0})
        return
    rows = [f"{t},{100 * t},{t / 10},{min(1.0, t / 100)},{max(3.0, 50 - t)}" for t in range(1, 61)]
    (out / "progress.csv").write_text("time_s,steps,return_mean,success,tip_error_mm\n" + "\n".join(rows) + "\n")
    write(option(words, "--json"), {"steps": 6000, "seconds": 60.0})


def export(words: list[str]) -> None:
    name = Path(option(words, "--out")) / option(words, "--name")
    (name / f"v{len(list(name.glob('v*'))) + 1}").mkdir(parents=True)


def evaluate(words: list[str]) -> None:
    assert Path(words[1]).is_dir(), "an artifact that nobody exported"
    results: dict = dict(SCORE)
    if "--baselines" in words:
        nothing = {**SCORE, "success": 0.0, "success_ci95": [0.0, 0.04]}
        results["baselines"] = dict.fromkeys(("zero", "random", "scripted"), nothing)
        margin = {k: SCORE[k] for k in ("success", "success_ci95", "return_mean", "return_ci95")}
        results["margins"] = dict.fromkeys(results["baselines"], margin)
    write(option(words, "--json"), results)


def run(words: list[str]) -> None:
    times = {
        f"{name}_{q}_us": 1000.0 * k
        for name in ("inference", "latency", "lateness")
        for k, q in enumerate(("p50", "p99"), 1)
    }
    energy = {"value": None, "low": 1e-6, "high": 1e-2, "source": "modelled: as a test"}
    counts = {"control_hz": 25.0, "steps": 500, "deadlines": 500, "missed": 0, "missed_by_robot": 0, "fault": None}
    write(
        option(words, "--json"),
        {**times, **counts, "cpu_share": 0.05, "energy_per_decision_j": energy, "imported_forbidden": []},
    )


def sim(words: list[str]) -> None:
    from PIL import Image

    frames = Path(option(words, "--frames"))
    frames.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 48), (80 * i, 90, 200)).save(frames / f"{i}.png")


def keys(words: list[str]) -> None:
    allow = Path(option(words, "--dir")) / "allow"
    allow.mkdir(parents=True, exist_ok=True)
    for name in option(words, "--robots").split(","):
        (allow / f"{name}.key").touch()


def status(words: list[str]) -> None:
    """Every time it is asked, each robot has 700 steps more; a robot that ran v2 when it was deployed runs it."""
    here = Path(option(words, "--json")).parent
    asked = here / "asked"
    times = len(asked.read_text()) + 1 if asked.exists() else 1
    asked.write_text("x" * times)
    deployed, outcome = (here / "deployed").exists(), os.environ.get("FAKE_ROLLOUT", "done")
    robots = [
        {
            "name": name,
            "artifact": "hand_reach/v2" if deployed and outcome == "done" else "hand_reach/v1",
            "policy_sha256": "2" if deployed and outcome == "done" else "1",
            "recorded_steps": 700 * times,
            "held_steps": 700 * times,
            "episodes": times,
            **dict.fromkeys(("pending", "lost", "doubled"), 0),
        }
        for name in ROBOTS
    ]
    rollout = {"status": outcome, "reason": "as the test said", "policy_sha256": "2"} if deployed else None
    write(
        option(words, "--json"),
        {
            "robots": robots,
            "held_steps": 2100 * times,
            "refused_keys": 1,
            "rollout": rollout,
            "duplicates_refused": 0,
            "audit_mismatches": 0,
        },
    )


def stay(words: list[str]) -> None:
    print("ready", flush=True)
    if "--name" in words:
        folder = Path(option(words, "--dir"))
        folder.mkdir(parents=True, exist_ok=True)
    time.sleep(600)


def packs(words: list[str]) -> None:
    Path(option(words, "--out")).mkdir()


def deploy(words: list[str]) -> None:
    here = next(Path(word) for word in words if word.endswith("v2")).parents[2]
    (here / "deployed").touch()


COMMANDS = {
    "train": train, "export": export, "eval": evaluate, "run": run, "sim": sim, "fleet keys": keys, "fleet hub": stay,
    "fleet robot": stay, "fleet status": status, "fleet export": packs, "fleet deploy": deploy,
}  # fmt: skip

if __name__ == "__main__":
    words = sys.argv[1:]
    name = " ".join(words[:2]) if words[0] == "fleet" else words[0]
    if name == os.environ.get("FAKE_FAILS"):
        sys.exit(f"{name} fails, as the test said")
    try:
        COMMANDS[name](words)
    except KeyboardInterrupt:
        sys.exit(0)
