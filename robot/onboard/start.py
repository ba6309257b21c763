"""From a name to a running loop: load, admit, start the robot, drive it. What `flexor run` and the fleet both call."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot import energy, safety
from robot.description import load as load_robot
from robot.errors import FlexorError, UnknownNameError
from robot.onboard import simulator
from robot.onboard.admission import Admission, admit, fits
from robot.onboard.artifact import Artifact
from robot.onboard.inference import Inference, make_inference
from robot.onboard.loop import ControlLoop, LoopConfig, never
from robot.onboard.loop_report import LoopReport

BACKENDS = (*simulator.ENGINES, "hardware")
FORBIDDEN = ("torch", "pybullet", "mujoco", "gymnasium", "sim", "policies", "onnx")  # never in a robot's process


class NoHardwareError(FlexorError):
    """There is no motor bus in this version."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        decision: Energy of one decision of this computer.
        motors: Heat in the motor windings over the run.
    """

    admission: Admission
    inference: str
    report: LoopReport
    decision: energy.Energy
    motors: energy.Energy


def strangeness(artifact: Artifact) -> safety.Strangeness | None:
    """The out-of-distribution score an artifact allows, None where it carries no normaliser."""
    if artifact.normaliser is None:
        return None
    return safety.Strangeness(mean=artifact.normaliser.mean, std=artifact.normaliser.std)


def check_backend(backend: str) -> None:
    """Refuse a backend there is not.

    Raises:
        UnknownNameError: No such backend.
        NoHardwareError: "hardware".
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)
    if backend == "hardware":
        raise NoHardwareError(
            "the hardware backend is not there yet: this version has no motor bus.\n"
            f"  do: choose one of {', '.join(simulator.ENGINES)}"
        )


def connect(artifact: Artifact, backend: str, seed: int) -> simulator.SimulatedRobot:
    """Start the robot an artifact was made for.

    Raises:
        FlexorError: See `check_backend`; or the simulator did not come up (SimulatorError).
    """
    check_backend(backend)
    contract = artifact.contract
    return simulator.spawn(contract.env_id, contract.robot, backend, seed, control_hz=contract.control_hz)


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
) -> Run:
    """Admit an artifact, start its robot, run the loop, and account for it. Nothing outlives this call.

    Args:
        artifact: From `robot.onboard.artifact.load`.
        backend: One of `BACKENDS`.
        config: How long and how.
        seed: Of the episodes and the noise.
        inference: A key of `robot.onboard.inference.BACKENDS`, or "auto".
        should_stop: Asked once per period.

    Raises:
        AdmissionError: The artifact may not drive this robot. Nothing was started.
        FlexorError: See `connect`.
    """
    check_backend(backend)
    model = load_robot(artifact.contract.robot)
    admission = admit(artifact, model, seed=seed)
    policy: Inference = make_inference(artifact, inference)
    robot = connect(artifact, backend, seed)
    try:
        fits(artifact, model, robot.control_hz)
        loop = ControlLoop(
            robot,
            admission.interface,
            policy,
            rng=np.random.default_rng(seed),
            config=config,
            strangeness=strangeness(artifact),
            should_stop=should_stop,
        )
        meter = energy.find_meter(0.0)
        report = loop.run()
        measured_j = meter.sample(report.seconds) if meter is not None else None
    finally:
        robot.close()
    return Run(
        admission=admission,
        inference=policy.name,
        report=report,
        decision=decision_energy(artifact, report, measured_j, meter.source if meter is not None else ""),
        motors=energy.Energy(
            low_j=report.copper_j, high_j=report.copper_j, source="modelled: i^2 R of the currents the robot reports"
        ),
    )


def decision_energy(artifact: Artifact, report: LoopReport, measured_j: float | None, source: str) -> energy.Energy:
    """Energy of one decision: as measured, or else as modelled."""
    decisions = max(report.steps, 1)
    if measured_j is not None and measured_j > 0.0:
        each_j = measured_j / decisions
        return energy.Energy(low_j=each_j, high_j=each_j, source=source)
    return energy.modelled_decision(
        multiply_adds=multiply_adds(artifact),
        weight_bytes=4 * artifact.file.parameters,
        cpu_s=report.cpu_s,
        decisions=decisions,
    )
