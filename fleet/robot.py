"""One robot of the fleet: the onboard control loop, the uplink, the deployer. Motion never depends on the hub.

The control loop runs in the main thread and drives a robot behind a link (a simulator in another process, or hardware). It hands chunks and
episode results to the uplink's ring and looks between episodes whether another policy is to be taken.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fleet import slots as slot_file
from fleet.body import Body
from fleet.deployer import Change, Deployer, admit_folder
from fleet.errors import FleetError
from fleet.keys import load_verifier
from fleet.messages import AckLevel, EpisodeResult, Heartbeat, Tally
from fleet.slots import Slot
from fleet.sockets import parse_hub
from fleet.uplink import Files, Line, Uplink
from fleet.wire import STEPS
from fleet.worker import Worker
from robot.artifacts import find_artifact
from robot.contract import Contract
from robot.description import load as load_robot
from robot.errors import FlexorError
from robot.experience import Chunk
from robot.onboard.admission import Admission, fits
from robot.onboard.artifact import Artifact, load
from robot.onboard.inference import make_inference
from robot.onboard.loop import ControlLoop, LoopConfig, never
from robot.onboard.loop_report import LoopReport
from robot.onboard.realtime import emergency_stop
from robot.onboard.recorder import Recorder
from robot.onboard.robots import Robot
from robot.onboard.simulator import spawn
from robot.onboard.start import strangeness
from robot.safety import Fault

log = logging.getLogger(__name__)

CHUNK_S = 2.0
MAX_FAULTS = 3  # in a row: then the robot stands still
SAFE_POLL_S = 0.2
FAULT_PAUSE_S = 2.0
FALL_EVERY_S = 10.0  # every fall is counted; the seconds before it are sent at most this often
POLICY_FAULTS = (Fault.ACTION, Fault.STRANGE, Fault.INFERENCE)  # the others are the sensors' or this computer's


class NoPolicyError(FleetError):
    """A robot with nothing to run."""


@dataclass(frozen=True, kw_only=True)
class RobotConfig:
    """How a robot process is started.

    Attributes:
        hubs: HOST:PORT of each hub, comma-separated.
        keys: Folder with its secret key, the hub's public key and `trust/`.
        folder: Its spool, slots and downloads.
        artifact: What to run at first; "" to go on with what ran last.
        backend: Engine behind the link.
        episodes: End after this many, 0 for no end.
        paced: Real time; False for as fast as the engine goes.
        explore: Act with the noise the policy was trained with.
        drain_s: At the end, how long to wait for the hub to have everything.
        battery_wh: Capacity of its battery, 0 for none [W h].
        base_w: What everything but its motors takes [W].
        jobs: Take jobs from the hub.
        ack: When a record may be forgotten: "local", one hub has it on its disk; "peer", two have.
        estop: Emergency stop: pressed once this file is there and is not "0"; None for SIGUSR2 only.
    """

    hubs: str
    keys: Path
    name: str
    folder: Path
    artifact: str = ""
    backend: str = "mock"
    episodes: int = 0
    paced: bool = True
    seed: int = 0
    explore: bool = True
    drain_s: float = 10.0
    spool_bytes: int = 8 << 30
    battery_wh: float = 0.0
    base_w: float = 0.0
    jobs: bool = True
    ack: AckLevel = "local"
    estop: Path | None = None


@dataclass
class _Episode:
    """What the running episode came to so far."""

    reward: float = 0.0
    steps: int = 0
    success: bool = False


@dataclass
class _Totals:
    """With the active policy, since it became active."""

    episodes: int = 0
    successes: int = 0
    falls: int = 0
    return_sum: float = 0.0
    seconds: float = 0.0


@dataclass
class Pilot:
    """Counts episodes as chunks go by, and decides between episodes whether the loop must end. Only the control loop's thread touches it.

    Args:
        emit: Takes a finished episode: (episode id, return, success, terminated, steps).
        must_stop: Stop at once.
        must_change: Stop at the next episode's end.
        limit: Episodes until the end, 0 for none.
    """

    send: Callable[[Chunk], object]
    emit: Callable[[str, float, bool, bool, int], None]
    must_stop: Callable[[], bool]
    must_change: Callable[[], bool]
    limit: int = 0
    finished: int = 0
    _episode: _Episode = field(default_factory=_Episode)
    _at_end: bool = False

    def on_chunk(self, chunk: Chunk) -> None:
        self.send(chunk)
        self._episode.reward += float(chunk.reward.sum(dtype=np.float64))
        self._episode.steps += chunk.header.steps
        self._episode.success = bool(chunk.success[-1])
        if chunk.header.ended != "no":
            done, self._episode = self._episode, _Episode()
            self.finished += 1
            self._at_end = True
            terminated = chunk.header.ended == "terminated"
            self.emit(chunk.header.episode_id, done.reward, done.success, terminated, done.steps)

    def should_stop(self) -> bool:
        at_end, self._at_end = self._at_end, False
        if self.must_stop():
            return True
        return at_end and (self.must_change() or (self.limit > 0 and self.finished >= self.limit))

    def dropped(self) -> int:
        """The loop ended within an episode: forget it; returns its steps so far."""
        steps, self._episode, self._at_end = self._episode.steps, _Episode(), False
        return steps


class FleetRobot:
    """Puts the parts together; `run` until stopped or the episodes are done.

    Raises:
        UnknownNameError, LooseSecretError, KeyFileError, NoPolicyError, AdmissionError, StoreBusyError: It does not start, and says why.
    """

    def __init__(self, config: RobotConfig, estop: Callable[[], bool] = never) -> None:
        self.config, self._estop = config, estop
        self._line = Line(
            hubs=[parse_hub(part) for part in config.hubs.split(",")], robot=config.name, keys=config.keys
        )
        for look in (self._line.pair, self._line.doors):
            look()  # what is wrong with the keys comes to light now
        director = load_verifier(config.keys, "director")
        first = _first_artifact(config)
        self._files = Files(self._line)
        self._totals, self._state = _Totals(), "idle"
        self._cohort = "none"  # under which the running loop records
        self._body: Body | None = None
        self._running: Contract | None = None  # what it was started for
        self._halted = False  # by an emergency stop: until the process is started again
        self._next_fall_s = 0.0
        self.drained = False
        self._model = load_robot(first.contract.robot)
        self.deployer = Deployer(
            config.name,
            config.folder,
            director=director,
            operator=load_verifier(config.keys, "operator") if (config.keys / "trust/operator.pub").exists() else None,
            trust=config.keys / "trust/root.json",
            ask=self._files,
            admit_path=self._admit,
        )
        self._admission = self._choose(first)
        contract = self._running = self._admission.artifact.contract
        self.uplink = Uplink(
            self._line,
            config.folder / "spool",
            heartbeat=self._heartbeat,
            on_assignment=self.deployer.offer,
            on_lease=self.deployer.offer_lease,
            on_job=lambda ticket, lease: self.worker.heard(ticket, lease, time.monotonic()),
            contracts={contract.sha256: contract.to_json()},
            spool_bytes=config.spool_bytes,
            ack=config.ack,
        )
        self.worker = Worker(config.folder / "job.json", tell=self.uplink.tell, utc_ns=time.time_ns)

    def run(self, stopped: Callable[[], bool]) -> int:
        """Drive until stopped; returns the number of whole episodes."""
        config = self.config
        self.deployer.start()
        self.uplink.start()
        contract = self._admission.artifact.contract
        robot = spawn(contract.env_id, contract.robot, config.backend, control_hz=contract.control_hz)
        self._body = body = Body(robot, battery_wh=config.battery_wh, base_w=config.base_w)
        try:
            fits(self._admission.artifact, self._model, robot.control_hz)
            return self._drive(body, stopped)
        finally:
            self._state = "stopping"
            robot.close()
            self.worker.give_up("the robot stops", body.energy_j)
            self.deployer.stop()
            self.drained = self.uplink.finish(config.drain_s)
            self._files.close()

    # --- driving -----------------------------------------------------------------------------------------------------

    def _drive(self, robot: Robot, stopped: Callable[[], bool]) -> int:
        rng = np.random.default_rng(self.config.seed)
        if not self._pressed():
            robot.reset(None, rng)  # to hear what the reward's terms are called
        reward_names = robot.feedback.reward_names or ("reward",)
        pilot = Pilot(
            send=self._record,
            emit=self._emit,
            must_stop=stopped,
            must_change=lambda: self.deployer.changing or self.deployer.slots.cohort != self._cohort,
            limit=self.config.episodes,
        )
        faults = 0
        while not stopped() and not 0 < self.config.episodes <= pilot.finished:
            if not self._pressed():  # making a loop moves the robot to where an episode starts
                before = pilot.finished
                report = self._loop(robot, pilot, reward_names, rng).run()
                steps = pilot.dropped()
                if report.fault is not None:
                    faults = 1 if pilot.finished > before else faults + 1
                    self._faulted(report, steps, faults)
            if self._state != "safe":
                self._switch()
            while self._state == "safe" and not stopped():
                time.sleep(SAFE_POLL_S)
                if not self._pressed() and self._switch():
                    self._state, faults = "running", 0
        return pilot.finished

    def _loop(self, robot: Robot, pilot: Pilot, reward_names: tuple[str, ...], rng: np.random.Generator) -> ControlLoop:
        artifact = self._admission.artifact
        slots = self.deployer.slots
        self._state, self._cohort = "probation" if slots.probation else "running", slots.cohort
        contract = artifact.contract
        return ControlLoop(
            robot,
            self._admission.interface,
            make_inference(artifact),
            rng=rng,
            config=LoopConfig(
                paced=self.config.paced, exploration_std=artifact.exploration_std if self.config.explore else None
            ),
            recorder=Recorder(
                contract=contract,
                policy_sha256=artifact.sha256,
                reward_names=reward_names,
                steps_per_chunk=max(1, round(CHUNK_S * contract.control_hz)),
                cohort=slots.cohort,  # type: ignore[arg-type]
            ),
            on_chunk=pilot.on_chunk,
            strangeness=strangeness(artifact),
            should_stop=pilot.should_stop,
            estop=self._estop,
        )

    def _switch(self) -> bool:
        """Take a policy that was laid out. Here the robot is between two episodes: the safe point."""
        change: Change | None = self.deployer.take_change()
        if change is None:
            return False
        self._admission, self._totals = change.admission, _Totals()
        job, skill = self.worker.ticket, change.slot.label.partition("/")[0]
        if job is not None and job.skill != skill:
            self.worker.give_up(f"it runs {skill} now", self._body.energy_j if self._body else 0.0)
        log.info("switched to %s", change.slot.label)
        return True

    def _faulted(self, report: LoopReport, steps: int, faults: int) -> None:
        """The safety filter stopped the loop. What the policy did is told and, on probation, undone; what the machine did is waited out."""
        why = f"{report.fault}: {report.fault_text}".rstrip(": ")
        log.warning("the loop was stopped: %s", why)
        if report.fault is Fault.ESTOP:
            self._tell(episode_id="", reward=0.0, success=False, falls=1, stops=1, steps=steps)
            self._show_fall("", why)
            self._halt(why)
            return
        if report.fault not in POLICY_FAULTS:
            if faults >= MAX_FAULTS:
                time.sleep(FAULT_PAUSE_S)  # standing still; the robot's sensors or this computer may come back
            return
        self._tell(episode_id="", reward=0.0, success=False, trips=1, steps=steps)
        self._show_fall("", f"stopped by {why}")
        if self.deployer.slots.probation:
            slot = self.deployer.fell_back(f"stopped on probation: {why}"[:1000])
            if slot is not None:
                try:
                    self._admission, self._totals = self._admit(Path(slot.path), slot.sha256), _Totals()
                    return
                except (FlexorError, OSError) as error:
                    log.error("%s, which ran before, cannot run any more: %s", slot.label, error)
                    self.deployer.fell_back(f"stopped on probation: {why}; {slot.label} cannot run: {error}"[:1000])
            self._stand_still(why)
        elif faults >= MAX_FAULTS:
            self._stand_still(why)

    def _admit(self, path: Path, sha256: str) -> Admission:
        return admit_folder(path, sha256, self._model, self._running)

    def _pressed(self) -> bool:
        """Whether the emergency stop is, or was."""
        if not self._halted and self._estop():
            self._halt(str(Fault.ESTOP))
        return self._halted

    def _halt(self, why: str) -> None:
        """No policy that comes, only a person who starts this process again lets it move."""
        self._halted = True
        self._stand_still(why)

    def _stand_still(self, why: str) -> None:
        self._state = "safe"
        self.worker.give_up(f"it stands still: {why}", self._body.energy_j if self._body else 0.0)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _emit(self, episode_id: str, reward: float, success: bool, terminated: bool, steps: int) -> None:
        falls = int(terminated and not success)
        self._tell(episode_id=episode_id, reward=reward, success=success, falls=falls, steps=steps)
        if falls:
            self._show_fall(episode_id, "the task ended the episode")
        if self._body is not None:
            seconds = steps * self._admission.artifact.contract.dt_s
            self.worker.episode(success=success, energy_j=self._body.energy_j, seconds=seconds)
        total = self._totals
        total.episodes += 1
        total.successes += success
        total.falls += falls
        total.return_sum += reward
        total.seconds += steps * self._admission.artifact.contract.dt_s
        self.deployer.proved()

    def _tell(
        self,
        *,
        episode_id: str,
        reward: float,
        success: bool,
        steps: int,
        falls: int = 0,
        trips: int = 0,
        stops: int = 0,
    ) -> None:
        artifact, slots = self._admission.artifact, self.deployer.slots
        self.uplink.tell(
            EpisodeResult(
                episode_id=episode_id,
                policy_sha256=artifact.sha256,
                artifact=artifact.label,
                rollout=slots.rollout,
                stage=slots.stage,
                generation=slots.generation,
                cohort=slots.cohort,  # type: ignore[arg-type]
                explored=self.config.explore and artifact.exploration_std is not None,
                return_=reward,
                success=success,
                steps=steps,
                seconds=steps * artifact.contract.dt_s,
                falls=falls,
                trips=trips,
                stops=stops,
                time_ns=time.time_ns(),
            )
        )

    def _show_fall(self, episode_id: str, reason: str) -> None:
        """The seconds before it, for people to look at."""
        if self._body is None or time.monotonic() < self._next_fall_s:
            return
        self._next_fall_s = time.monotonic() + FALL_EVERY_S
        artifact = self._admission.artifact
        report = self._body.fall(
            reason=reason,
            episode_id=episode_id,
            policy_sha256=artifact.sha256,
            artifact=artifact.label,
            time_ns=time.time_ns(),
        )
        if report is not None:
            self.uplink.tell(report)

    def _record(self, chunk: Chunk) -> None:
        self.uplink.record(chunk)
        self.deployer.shadow.offer(chunk)

    def _heartbeat(self) -> Heartbeat:
        shadow = self.deployer.shadow
        body, job = self._body, self.worker.ticket
        working = self.config.jobs and self._state in ("running", "probation")
        artifact, slots, total = self._admission.artifact, self.deployer.slots, self._totals
        oldest = self.uplink.spool.oldest_t_ns
        return Heartbeat(
            state=self._state,  # type: ignore[arg-type]
            policy_sha256=artifact.sha256,
            artifact=artifact.label,
            slot="active",
            generation=slots.generation,
            term=slots.term,
            lease_term=self.deployer.term,
            shadow_sha256=shadow.sha256,
            shadow_steps=shadow.steps,
            shadow_bad=shadow.bad,
            shadow_difference=min(shadow.difference, 1e15),
            rollout=slots.rollout,
            spool_oldest_s=max(0.0, (time.time_ns() - oldest) * 1e-9) if oldest else 0.0,
            tally=Tally(
                policy_sha256=artifact.sha256,
                artifact=artifact.label,
                episodes=total.episodes,
                successes=total.successes,
                falls=total.falls,
                return_sum=total.return_sum,
                seconds=total.seconds,
            ),
            refused=slots.refused,
            robot_model=self._model.name,
            battery=body.battery if body else None,
            battery_j=body.battery_j if body else 0.0,
            energy_j=body.energy_j if body else 0.0,
            energy_source=body.source if body else "",
            power_w=max(0.0, body.power_w) if body else 0.0,
            skills=(artifact.label.partition("/")[0],),
            wants_job=working and job is None,
            job=job.id if job else "",
            job_lease=job.lease if job else 0,
        )

    def _choose(self, first: Artifact) -> Admission:
        """What to run at the start: what ran last, or what ran before that, or what the operator named."""
        slots = self.deployer.slots
        for slot in (slots.active, slots.previous):
            if slot is None or slot.sha256 in slots.banned:
                continue
            try:
                admission = self._admit(Path(slot.path), slot.sha256)
            except (FlexorError, OSError) as error:
                log.warning("%s cannot run any more: %s", slot.label, error)
                continue
            self.deployer.start_with(slot)
            return admission
        if first.sha256 in slots.banned:
            raise NoPolicyError(
                f"{first.label} is banned, and there is nothing else to run; give --artifact another one"
            )
        if not self.config.artifact:
            raise NoPolicyError("what ran last cannot run any more; do: --artifact ARTIFACT")
        path = find_artifact(self.config.artifact).resolve()
        slot = Slot(path=str(path), label=first.label, sha256=first.sha256)
        admission = self._admit(Path(slot.path), slot.sha256)
        self.deployer.start_with(slot)
        return admission


def serve(config: RobotConfig) -> None:
    """The whole life of a robot process."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with emergency_stop(config.estop) as pressed:
        robot = FleetRobot(config, pressed)
        watch = threading.Thread(target=_watch_line, args=(robot.uplink, config), daemon=True)
        watch.start()
        label = robot.deployer.slots.active.label if robot.deployer.slots.active else "nothing"
        print(f"robot {config.name} ready with {label}, hub {config.hubs}", flush=True)
        episodes = robot.run(stop.is_set)
    recorded = robot.uplink.spool.recorded_items.get(STEPS, 0)
    state = "the hub has everything" if robot.drained else f"not all of it is on the hub yet ({robot.uplink.state})"
    print(f"robot {config.name} stopped after {episodes} episodes, {recorded} steps recorded; {state}", flush=True)


def _watch_line(uplink: Uplink, config: RobotConfig) -> None:
    """Say on the terminal when the line to the hub changes."""
    said = ""
    while True:
        if uplink.state != said:
            said = uplink.state
            words = {
                "joined": f"connected to {config.hubs}",
                "away": f"no hub at {config.hubs} yet; going on, experience is kept in {config.folder}/spool",
            }
            print(f"robot {config.name}: {words.get(said, said)}", flush=True)
        time.sleep(0.2)


def _first_artifact(config: RobotConfig) -> Artifact:
    """What tells us which robot we are: the first that is whole of the operator's artifact, what ran last, what ran before that.

    Raises:
        NoPolicyError: It has run nothing yet, and nobody says what to run.
        FlexorError: Nothing of all that can be read; the first reason.
    """
    slots = slot_file.read(config.folder / "slots.json")
    known = [config.artifact, *(slot.path for slot in (slots.active, slots.previous) if slot is not None)]
    first: FlexorError | OSError | None = None
    for name in filter(None, known):
        try:
            return load(name)
        except (FlexorError, OSError) as error:
            log.warning("%s cannot be read: %s", name, error)
            first = first or error
    raise first or NoPolicyError(f"robot {config.name} has run nothing yet; do: --artifact ARTIFACT")
