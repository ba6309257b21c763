"""The demo's fleet: a hub, three robots one of which is killed, a stranger who is refused, and a deployment. All of them processes."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.demo import stages
from fleet.demo.figures import Source
from fleet.demo.progress import Progress, Stage
from fleet.demo.runner import POLL_S, Process, StageError, failure
from fleet.demo.typist import Typist

HOST = "127.0.0.1"
PORTS = 3  # control, bulk, operator
SHARED_STEPS = 30_000  # three robots as fast as two cores simulate them: under a minute, the restart included
STATUS_EVERY_S = 3.0  # a status is a process of its own, half a second of a core
READY_S = 30.0
GATHER_S = 150.0
REFUSED_S = 30.0
DEPLOY_S = 150.0
STOP_S = 15.0  # a robot ends its chunk, sends what its spool holds and says goodbye

Status = Mapping[str, Any]


@dataclass(kw_only=True)
class Deployment:
    """What came of offering v2."""

    outcome: str = "not offered"
    reason: str = ""
    first_robot: str = ""
    first_s: float | None = None
    all_s: float | None = None


@dataclass
class Fleet:
    """A hub and its robots, from the keys to the last count.

    Attributes:
        places: Where everything lies.
        typist: Starts subcommands.
        progress: Lines and the clock.
    """

    places: stages.Places
    typist: Typist
    progress: Progress
    port: int = field(default_factory=lambda: free_port())
    refused_keys: int = 0
    deployment: Deployment = field(default_factory=Deployment)
    _running: dict[str, Process] = field(default_factory=dict)
    _last: Status | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def gather(self) -> None:
        """Start everything, lose a robot and get it back, and hand out what all of them lived through."""
        with self.progress.stage("fleet") as stage:
            for name, robots in (("keys", stages.ROBOTS), ("keys_stranger", (stages.STRANGER,))):
                self.typist.call(stage, name, stages.keys(self.places, robots))
            self.places.admission(stages.STRANGER).unlink()  # it has a key of its own, and nobody lets it in
            self._start(stage, "hub", stages.hub(self.places, self.port))
            self._until_ready(stage, self._running["hub"])
            for robot in (*stages.ROBOTS, stages.STRANGER):
                self._start_robot(stage, robot)
            status = self._until(stage, lambda status: status["refused_keys"] > 0, REFUSED_S, "a stranger is refused")
            self.refused_keys = status["refused_keys"]
            self._stop(stages.STRANGER)
            self._until(
                stage,
                lambda status: self._all_held(status) >= SHARED_STEPS // 2,
                GATHER_S,
                f"it holds {SHARED_STEPS // 2:,}",
            )
            self.typist.runner.kill(self._running.pop(stages.KILLED))
            self._start_robot(stage, stages.KILLED)
            status = self._until(
                stage, lambda status: self._all_held(status) >= SHARED_STEPS, GATHER_S, f"it holds {SHARED_STEPS:,}"
            )
            self.typist.call(stage, "packs", stages.packs(self.places))
            stage.note(
                f"{len(stages.ROBOTS)} robots, {status['held_steps']:,} steps on the hub, {stages.KILLED} killed and back, "
                "a stranger refused"
            )

    def _all_held(self, status: Status) -> int:
        """Steps on the hub once every robot has some; 0 before."""
        rows = [robot for robot in status["robots"] if robot["name"] in stages.ROBOTS]
        return status["held_steps"] if len(rows) == len(stages.ROBOTS) and all(r["held_steps"] for r in rows) else 0

    def deploy(self) -> None:
        """Offer v2, watch it reach one robot and then all, or be taken back; then let everybody finish, and count."""
        with self.progress.stage("deploy") as stage:
            self.typist.call(stage, "deploy", stages.deploy(self.places, self.address))
            offered_s, self.deployment = self.progress.now_s, Deployment(outcome="running")
            self._until(stage, lambda status: self._has_settled(status, offered_s), DEPLOY_S, "all robots run v2")
            for robot in stages.ROBOTS:
                self._stop(robot)
            self._last = self._status(stage, count=True)
            self._stop("hub")
            stage.note(
                f"v2 {self.deployment.outcome}" + (f": {self.deployment.reason}" if self.deployment.reason else "")
            )

    def _has_settled(self, status: Status, offered_s: float) -> bool:
        rollout, deployment = status["rollout"] or {}, self.deployment
        runs = [r["name"] for r in status["robots"] if r["policy_sha256"] == rollout.get("policy_sha256")]
        after_s = self.progress.now_s - offered_s
        if runs and deployment.first_s is None:
            deployment.first_robot, deployment.first_s = runs[0], after_s
        if set(runs) >= set(stages.ROBOTS) and deployment.all_s is None:
            deployment.all_s = after_s
        deployment.outcome, deployment.reason = rollout.get("status", "running"), rollout.get("reason", "")
        return deployment.outcome in ("rolled_back", "held") or (
            deployment.outcome == "done" and deployment.all_s is not None
        )

    def figures(self) -> dict[str, Any]:
        """The fleet's part of the report, from the last count."""
        assert self._last is not None
        rows = [robot for robot in self._last["robots"] if robot["name"] in stages.ROBOTS]
        return {
            "robots": [
                {
                    "name": row["name"],
                    "recorded": row["recorded_steps"],
                    "held": row["held_steps"],
                    "pending": row["pending"],
                    "lost": row["lost"],
                    "doubled": row["doubled"],
                    "policy": row["artifact"],
                    "episodes": row["episodes"],
                }
                for row in rows
            ],
            "recorded": sum(row["recorded_steps"] for row in rows),
            "held": sum(row["held_steps"] for row in rows),
            **{name: sum(row[name] for row in rows) for name in ("pending", "lost", "doubled")},
            "killed": stages.KILLED,
            "refused": self.refused_keys > 0,
            "refused_keys": self.refused_keys,
            "duplicates_refused": self._last["duplicates_refused"],
            "audit_mismatches": self._last["audit_mismatches"],
            "deployment": vars(self.deployment),
        }

    def _start(self, stage: Stage, name: str, words: stages.Words) -> None:
        self._running[name] = self.typist.start(stage, name, words)

    def _start_robot(self, stage: Stage, robot: str) -> None:
        self._start(stage, robot, stages.robot(self.places, self.address, robot))

    def _stop(self, name: str) -> None:
        self.typist.runner.stop(self._running.pop(name), grace_s=STOP_S)

    def _status(self, stage: Stage, *, count: bool = False) -> Status:
        path = self.places.json("status")
        path.unlink(missing_ok=True)
        self.typist.call(stage, "status", stages.status(self.places, self.address, count=count), quiet=True)
        return Source(path).get("results")

    def _until_ready(self, stage: Stage, hub: Process) -> None:
        """Wait for the hub's first line: it says it when it has tried its own door."""
        deadline_s = self.progress.now_s + READY_S
        while "ready" not in hub.tail():
            self.typist.runner.require_alive(hub)
            if self.progress.now_s > deadline_s:
                raise failure(hub, f"not ready after {READY_S:.0f} s")
            self.typist.rest(POLL_S, stage)

    def _until(self, stage: Stage, enough: Callable[[Status], bool], limit_s: float, what: str) -> Status:
        """Ask for the status until it is enough.

        Raises:
            StageError: The time is over, or a process that should run has ended.
        """
        deadline_s = self.progress.now_s + limit_s
        while True:
            alive = [process for name, process in self._running.items() if name != stages.STRANGER]
            self.typist.runner.require_alive(*alive)
            status = self._status(stage)
            stage.note(f"{status['held_steps']:,} steps on the hub; waiting until {what}")
            stage.tick()
            if enough(status):
                return status
            if self.progress.now_s > deadline_s:
                logs = ", ".join(str(process.log) for process in self._running.values())
                raise StageError(f"stage fleet: waited {limit_s:.0f} s until {what}, in vain\n  do: look at {logs}")
            self.typist.rest(STATUS_EVERY_S, stage)


def free_port(count: int = PORTS) -> int:
    """A port that is free now, as are those after it."""
    while True:
        with socket.socket() as first:
            first.bind((HOST, 0))
            port = first.getsockname()[1]
        if all(_is_free(port + i) for i in range(count)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind((HOST, port))
        except (OSError, OverflowError):
            return False
        return True
