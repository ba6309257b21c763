"""From a name to a running loop: load, admit, start the robot, drive it. What `flexor run` and the fleet both call."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot import energy, safety
from robot.description import load as load_robot
from robot.errors import UnknownNameError
from robot.onboard import simulator
from robot.onboard.admission import Admission, admit, fits
from robot.onboard.artifact import Artifact
from robot.onboard.filter import make_filter
from robot.onboard.flight import FlightRecorder
from robot.onboard.inference import Inference, make_inference, why_no_c
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.onboard.loop_report import LoopReport
from robot.onboard.meter import Measured, metering
from robot.onboard.realtime import never, on_request
from robot.onboard.robots import Robot

BACKENDS = (*simulator.ENGINES, "hardware")
FORBIDDEN = ("torch", "pybullet", "mujoco", "gymnasium", "sim", "policies", "onnx")  # never in a robot's process


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        decision: Energy of one decision of this computer.
        motors: Heat in the motor windings over the run.
        ledger: All of it, per run, decision and task.
        in_python: Why the control period was Python's, "" where it was compiled.
    """

    admission: Admission
    inference: str
    report: LoopReport
    decision: energy.Energy
    motors: energy.Energy
    ledger: energy.Ledger
    in_python: str


def strangeness(artifact: Artifact) -> safety.Strangeness | None:
    """The out-of-distribution score an artifact allows, None where it carries no normaliser."""
    if artifact.normaliser is None:
        return None
    return safety.Strangeness(mean=artifact.normaliser.mean, std=artifact.normaliser.std)


def check_backend(backend: str) -> None:
    """Refuse a backend there is not.

    Raises:
        UnknownNameError: No such backend.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)


def connect(artifact: Artifact, backend: str, *, bus: str = "sim", calibration: Path | None = None) -> Robot:
    """Start the robot an artifact was made for.

    Raises:
        FlexorError: See `check_backend`; the simulator did not come up (SimulatorError); the bus has not the motors that it
            should, or there is no calibration of them (MotorBusError, CalibrationError).
    """
    check_backend(backend)
    contract = artifact.contract
    if backend == "hardware":
        from robot.onboard.hardware import connect_hardware

        return connect_hardware(load_robot(contract.robot), contract.control_hz, bus=bus, calibration=calibration)
    return simulator.spawn(contract.env_id, contract.robot, backend, control_hz=contract.control_hz)


def multiply_adds(artifact: Artifact) -> int:
    """Multiply-adds of one pass: every element of every weight matrix once."""
    return sum(array.size for array in artifact.file.constants.values() if array.ndim == 2 and min(array.shape) > 1)


def drive(
    artifact: Artifact,
    backend: str,
    *,
    config: LoopConfig,
    seed: int = 0,
    inference: str = "auto",
    should_stop: Callable[[], bool] = never,
    estop: Callable[[], bool] = never,
    bus: str = "sim",
    calibration: Path | None = None,
    flight: Path | None = None,
    flight_s: float = 10.0,
    cameras: int = 0,
) -> Run:
    """Admit an artifact, start its robot, run the loop, and account for it. Nothing outlives this call.

    Args:
        artifact: From `robot.onboard.artifact.load`.
        backend: One of `BACKENDS`.
        config: How long and how.
        seed: Of the episodes and the noise.
        inference: A key of `robot.onboard.inference.BACKENDS`, or "auto".
        should_stop: Asked once per period.
        estop: Asked once per period; wins over everything.
        bus: Of the hardware backend: "sim", or a serial port.
        calibration: Of the hardware backend.
        flight: Where flight recordings go; None for none. SIGUSR1 asks for one.
        flight_s: How much a recording holds [s].
        cameras: How many cameras run beside the policy; for the energy ledger.

    Raises:
        AdmissionError: The artifact may not drive this robot. Nothing was started.
        FlexorError: See `connect`.
    """
    check_backend(backend)
    model = load_robot(artifact.contract.robot)
    admission = admit(artifact, model, seed=seed)
    policy: Inference = make_inference(artifact, inference)
    with ExitStack() as held:
        meter = held.enter_context(metering())
        robot = connect(artifact, backend, bus=bus, calibration=calibration)
        held.callback(robot.close)
        fits(artifact, model, robot.control_hz)
        recorder = None
        if flight is not None:
            facts = {"artifact": artifact.label, "policy_sha256": artifact.sha256, "backend": backend}
            recorder = FlightRecorder(admission.interface, flight, seconds=flight_s, facts=facts)
            held.callback(recorder.close)
            held.enter_context(on_request(recorder.request))
        loop = ControlLoop(
            robot,
            admission.interface,
            policy,
            rng=np.random.default_rng(seed),
            config=config,
            strangeness=strangeness(artifact),
            should_stop=should_stop,
            estop=estop,
            limiter=make_filter(safety.Limits.of(model, artifact.contract.dt_s)),
            flight=recorder,
        )
        meter.begin()
        try:
            report = loop.run()
        except BaseException:
            if recorder is not None:
                recorder.request("error")
            raise
        if recorder is not None and should_stop():
            recorder.request("stopped")  # by a signal
        measured = meter.end()
    decision = decision_energy(artifact, report, measured)
    motors = energy.Energy(
        low_j=report.copper_j, high_j=report.copper_j, source="modelled: i^2 R of the currents the robot reports"
    )
    missed = why_no_c(artifact) if inference == "auto" and policy.name != "c" else ""
    decisions = max(report.steps, 1)
    computer = energy.Energy(
        low_j=decision.low_j * decisions, high_j=decision.high_j * decisions, source=decision.source
    )
    return Run(
        admission=admission,
        inference=policy.name,
        report=report,
        decision=decision,
        motors=motors,
        ledger=energy.Ledger(
            computer=computer,
            motors=motors,
            cameras=energy.camera_energy(cameras, report.seconds),
            decisions=decisions,
            tasks=report.episodes,
        ),
        in_python="; ".join(filter(None, (loop.in_python, missed))),
    )


def decision_energy(artifact: Artifact, report: LoopReport, measured: Measured | None) -> energy.Energy:
    """Energy of one decision: as measured, or else as modelled."""
    decisions = max(report.steps, 1)
    if measured is not None and measured.joules > 0.0:
        return measured.per(decisions)
    return energy.modelled_decision(
        multiply_adds=multiply_adds(artifact),
        weight_bytes=4 * artifact.file.parameters,
        cpu_s=report.cpu_s,
        decisions=decisions,
    )
