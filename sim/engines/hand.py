"""What every engine's hand shares: commands, the transmission, sensors, the check for divergence."""

from abc import ABC, abstractmethod

import numpy as np

from robot.description.model import RobotModel
from robot.errors import FlexorError
from robot.state import Command, RobotState, checked_target
from robot.transmission import Parameters, TransmissionState
from sim.transmission_kernel import TransmissionKernel

MAX_SPEED_RAD_S = 90.0  # Bullet clamps joints at 100; no drive here passes 30 unloaded


class DivergedError(FlexorError, RuntimeError):
    """The simulation left the finite; the message says which joint, when, and the last finite state."""


class SimulatedHand(ABC):
    """A fixed-base robot in an engine, as a `robot.backend.Backend`.

    Args:
        model: The robot.
        control_hz: Commands per second.
        substep_s: Physics step; the control period must be a whole number of them.
        parameters: Transmission constants; those of the model when None.
    """

    def __init__(
        self, model: RobotModel, *, control_hz: float, substep_s: float, parameters: Parameters | None = None
    ) -> None:
        substeps = round(1.0 / (control_hz * substep_s))
        if substeps < 1 or abs(substeps * control_hz * substep_s - 1.0) > 1e-9:
            raise ValueError(f"control period {1.0 / control_hz} s must be a whole number of substeps of {substep_s} s")
        self._model, self._control_hz = model, control_hz
        self._substeps, self.substep_s = substeps, substep_s
        self._lower_rad, self._upper_rad = np.array(model.lower_rad), np.array(model.upper_rad)
        self.use(parameters or Parameters.of(model))
        self._target_rad = np.array(model.home_rad)
        self._last_finite_rad = np.array(model.home_rad)
        self._steps = 0

    @property
    def model(self) -> RobotModel:
        return self._model

    @property
    def control_hz(self) -> float:
        return self._control_hz

    @property
    def energy_j(self) -> float:
        """Electrical energy that all motors took since the reset [J]."""
        return float(self._drive["energy_j"][0])

    @property
    def tension_n(self) -> np.ndarray:
        """Tension of every cable at its joint, flexor and extensor of each tendon in turn, shape (2 n_tendons,) [N]."""
        return self._drive["tension_joint_n"].copy()

    def use(self, parameters: Parameters) -> None:
        """Exchange the transmission's constants; takes effect at the next reset."""
        self.kernel = TransmissionKernel(parameters, self.substep_s)
        self._drive = self.kernel.state_views

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """See `Backend.reset`.

        Raises:
            CommandError, NotFiniteError: The posture has another shape, or is not finite.
        """
        posture = self._model.home_rad if state is None else state.q_rad
        q = checked_target(Command(target_rad=posture), self._model.joint_names)
        self._place(q)
        self.kernel.reset(TransmissionState.at_rest(self.kernel.parameters, q))
        self.kernel.q_rad[:], self.kernel.qd_rad_s[:] = q, 0.0
        self._target_rad = self._in_range(q)
        self._last_finite_rad = q.copy()
        self._steps = 0
        return self._sense()

    def step(self, command: Command) -> RobotState:
        """See `Backend.step`.

        Raises:
            DivergedError: A joint passed the speed no drive can reach, or is not finite.
        """
        target = checked_target(command, self._model.joint_names)
        self._target_rad = self._in_range(target)
        kernel = self.kernel
        kernel.target_rad[:] = kernel.parameters.spool_target(self._target_rad, kernel.q_rad)
        self._advance(self._substeps)
        self._steps += 1
        if not np.abs(kernel.qd_rad_s).max(initial=0.0) < MAX_SPEED_RAD_S:  # also NaN
            raise self._diverged()
        self._last_finite_rad[:] = kernel.q_rad
        return self._sense()

    def _diverged(self) -> DivergedError:
        speed = np.nan_to_num(np.abs(self.kernel.qd_rad_s), nan=np.inf)
        worst = int(np.argmax(speed))
        before = dict(zip(self._model.joint_names, np.round(self._last_finite_rad, 3).tolist()))
        return DivergedError(
            f"simulation of {self._model.name} diverged at t = {self._steps / self._control_hz:.3f} s: joint "
            f"{self._model.joint_names[worst]} at {self.kernel.qd_rad_s[worst]:.1f} rad/s, at most {MAX_SPEED_RAD_S:g} "
            f"is believed; joint angles one step before [rad]: {before}; do: reset, and ask for less or take a shorter substep"
        )

    def _in_range(self, q_rad: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(q_rad, self._lower_rad), self._upper_rad)  # np.clip costs four times as much

    def _sense(self) -> RobotState:
        kernel, drive = self.kernel, self._drive
        return RobotState(
            time_s=self._steps / self._control_hz,
            q_rad=kernel.q_rad.copy(),
            qd_rad_s=kernel.qd_rad_s.copy(),
            target_rad=self._target_rad.copy(),
            motor_rad=drive["spool_rad"].copy(),
            motor_rad_s=drive["spool_rad_s"].copy(),
            motor_current_a=drive["current_a"].copy(),
            motor_temperature_c=drive["winding_c"].copy(),
            tip_force_n=self._tip_forces(),
        )

    @abstractmethod
    def _place(self, q_rad: np.ndarray) -> None:
        """Put the joints at rest at these angles."""

    @abstractmethod
    def _advance(self, substeps: int) -> None:
        """Step kernel and engine in turn; leave the joint state in the kernel."""

    @abstractmethod
    def _tip_forces(self) -> np.ndarray:
        """Normal force on each fingertip, shape (n_tips,) [N]."""

    @abstractmethod
    def contacts(self) -> np.ndarray:
        """Where the robot is touched, also by itself: points and forces in the world, shape (k, 6) [m, N]."""

    @abstractmethod
    def close(self) -> None:
        """Release the engine."""
