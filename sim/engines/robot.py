"""What every engine's robot shares: commands, the transmission, sensors, the world's truth, the check for divergence."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from robot.description.model import RobotModel
from robot.description.rotation import rpy_matrix
from robot.errors import FlexorError, NotFiniteError, UnknownNameError
from robot.state import Command, CommandError, RobotState, checked_posture, checked_target
from robot.transmission import Parameters, TransmissionState
from sim.bodies import Hull, as_quat
from sim.engines.truth_kernel import believable, gather, in_range
from sim.ranges import sizes_of
from sim.readings import Readings
from sim.transmission_kernel import TransmissionKernel
from sim.world import Contacts, Push, Source, Start, Variation, World, WorldState

SKIN_FRICTION = 0.9  # rubber skin on smooth plastic; never above 1
MAX_SPEED_RAD_S = 90.0  # Bullet clamps joints at 100; no drive here passes 30 unloaded
MAX_SPEED_M_S = 50.0  # of a base or a body: more than anything here reaches by falling or by a kick
MAX_SPIN_RAD_S = 1000.0  # a marble that rolls off a table at 5 m/s spins this fast
_NONE = np.zeros(0)


class DivergedError(FlexorError, RuntimeError):
    """The simulation left the finite; the message says what, when, and the last finite state."""


class VariationError(FlexorError, ValueError):
    """A variation that cannot be: another shape, not above zero, or the size of a mesh."""


class SimulatedRobot(ABC):
    """A robot in an engine, with what is around it, as a `robot.backend.Backend`.

    Args:
        model: The robot; its base is bolted to the world or free as the model says.
        control_hz: Commands per second.
        substep_s: Physics step; the control period must be a whole number of them.
        parameters: Transmission constants; those of the model when None.
        world: What is there besides the robot; nothing when None.
    """

    def __init__(
        self,
        model: RobotModel,
        *,
        control_hz: float = 25.0,
        substep_s: float = 0.005,
        parameters: Parameters | None = None,
        world: World | None = None,
    ) -> None:
        substeps = round(1.0 / (control_hz * substep_s))
        if substeps < 1 or abs(substeps * control_hz * substep_s - 1.0) > 1e-9:
            raise ValueError(f"control period {1.0 / control_hz} s must be a whole number of substeps of {substep_s} s")
        self._model, self._control_hz = model, control_hz
        self._substeps, self.substep_s = substeps, substep_s
        self.world = world or World()
        self._lower_rad, self._upper_rad = np.array(model.lower_rad), np.array(model.upper_rad)
        self._home_base = (
            np.array([0.0, 0.0, model.base_height_m]),
            as_quat(rpy_matrix(model.base_rpy_rad)),
            np.zeros(3),
            np.zeros(3),
        )
        self.use(parameters or Parameters.of(model))
        self._target_rad = np.array(model.home_rad)
        self._last_finite_rad = np.array(model.home_rad)
        self._variation, self._stale = Variation(), False
        self._pushes: Sequence[Push] = ()
        self._base = self._home_base  # position, quaternion, velocity, angular velocity, all in the world
        self._tips_n = np.zeros(len(model.tips))
        self._gyro = _NONE  # angular velocity in the base's own frame; empty where the base is bolted down
        self._body_pose, self._body_twist = np.zeros((0, 7)), np.zeros((0, 6))
        self.sensed = Readings.of(sizes_of(model, tracked=False))
        self.readings = np.zeros(self.sensed.size)
        self._steps = self._moment = 0
        self._energy_before_j = 0.0
        self._tracked = -1
        self.delay(0.0)
        self._shafts: deque[np.ndarray] = deque()  # goals of the output shafts, the newest last
        self._source = Source(contacts=self.contacts, links=self._links, moment=lambda: self._moment)

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
    def heat_j(self) -> float:
        """What of that energy became heat in the windings [J]."""
        return float(self._drive["energy_j"][1])

    @property
    def tension_n(self) -> np.ndarray:
        """Tension of every cable at its joint, flexor and extensor of each tendon in turn, shape (2 n_tendons,) [N]."""
        return self._drive["tension_joint_n"].copy()

    def use(self, parameters: Parameters) -> None:
        """Exchange the transmission's constants; takes effect at the next reset."""
        self.kernel = TransmissionKernel(parameters, self.substep_s)
        self._drive = self.kernel.state_views

    def vary(self, variation: Variation) -> None:
        """Exchange masses, friction and sizes; takes effect at the next reset. Each call starts from the descriptions.

        Raises:
            VariationError: A shape that does not fit, a factor that is not > 0, or the size of a body with a mesh.
        """
        self._check(variation)
        self._variation, self._stale = variation, True

    def _check(self, variation: Variation) -> None:
        links, bodies = len(self._model.links), len(self.world.bodies)
        sizes = {"link_mass_factor": (links,), "robot_friction": (), "ground_friction": ()}
        for item in fields(Variation):
            value = getattr(variation, item.name)
            if value is None:
                continue
            shape = sizes.get(item.name, (bodies,))
            if np.shape(value) != shape:
                raise VariationError(f"variation {item.name}: expected shape {shape}, got {np.shape(value)}")
            value, least_allowed = np.asarray(value), item.name.endswith("friction")
            if not (np.isfinite(value).all() and ((value >= 0.0) if least_allowed else (value > 0.0)).all()):
                raise VariationError(f"variation {item.name}: must be {'>=' if least_allowed else '>'} 0, got {value}")
        if variation.body_scale is not None:
            for body, scale in zip(self.world.bodies, variation.body_scale):
                if scale != 1.0 and any(isinstance(shape, Hull) for shape in body.shapes):
                    raise VariationError(f"variation body_scale: body {body.name} is a mesh; make a body of that size")

    def delay(self, command_delay_s: float) -> None:
        """How long after a command the drives act on it, rounded to substeps; takes effect at the next reset."""
        self._late_steps, self._late_substeps = divmod(round(command_delay_s / self.substep_s), self._substeps)

    def track(self, body: str) -> None:
        """Which body's pose states carry from now on, none where the name is empty.

        Raises:
            UnknownNameError: No body of that name; the message lists the known ones.
        """
        self._tracked = self.world.index(body) if body else -1
        self.sensed = Readings.of(sizes_of(self._model, tracked=bool(body)))

    def reset(self, state: RobotState | None, rng: np.random.Generator) -> RobotState:
        """See `Backend.reset`: a posture, with everything else as described.

        Raises:
            CommandError, NotFiniteError: The posture has another shape, or is not finite.
        """
        return self.begin(Start(q_rad=self._model.home_rad if state is None else state.q_rad))

    def begin(self, start: Start) -> RobotState:
        """Put everything where an episode starts.

        Raises:
            CommandError, NotFiniteError: Something has another shape, or is not finite. Nothing has changed then.
        """
        names = self._model.joint_names
        q = checked_posture(start.q_rad, names)
        qd = np.zeros_like(q) if start.qd_rad_s is None else checked_posture(start.qd_rad_s, names)
        target = q if start.target_rad is None else checked_posture(start.target_rad, names)
        given = (start.base_position_m, start.base_quat_xyzw, start.base_velocity_m_s, start.base_gyro_rad_s)
        base = tuple(
            default if value is None else _checked(what, value, default.shape)
            for what, value, default in zip(
                ("position_m", "quat_xyzw", "velocity_m_s", "gyro_rad_s"), given, self._home_base
            )
        )
        poses = self.world.start_poses
        if start.body_poses is not None:
            poses = _checked("body_poses", start.body_poses, poses.shape)
        if self._stale:
            self._apply(self._variation)
            self._stale = False
        seed = self.world.ground.seed if start.ground_seed is None else start.ground_seed
        self._place(q, qd, base, poses, seed)
        self.kernel.reset(TransmissionState.at_rest(self.kernel.parameters, q))
        self.kernel.q_rad[:], self.kernel.qd_rad_s[:] = q, qd
        self._target_rad = self._in_range(target)
        kernel = self.kernel
        kernel.target_rad[:], kernel.target_step_rad[:] = kernel.parameters.spool_target(self._target_rad, q), 0.0
        self._shafts = deque(kernel.target_rad.copy() for _ in range(self._late_steps))
        self._last_finite_rad = q.copy()
        self._pushes = ()
        self._steps = 0
        self._moment += 1
        self._energy_before_j = 0.0
        self._read()
        return self._sense()

    def push(self, pushes: Sequence[Push]) -> None:
        """What acts on the robot or on bodies throughout the next control step.

        Raises:
            UnknownNameError: No link or body of that name; the message lists the known ones.
            NotFiniteError: A force is NaN or infinite.
        """
        if not pushes:  # nearly always
            self._pushes = ()
            return
        known = [link.name for link in self._model.links] + [body.name for body in self.world.bodies]
        for push in pushes:
            if push.on not in known:
                raise UnknownNameError("link or body to push", push.on, known)
            numbers = np.concatenate([push.force_n, push.torque_nm, _NONE if push.at_m is None else push.at_m])
            if not np.isfinite(numbers).all():
                raise NotFiniteError(f"push on {push.on}", {str(i): float(x) for i, x in enumerate(numbers)})
        self._pushes = tuple(pushes)

    def step(self, command: Command) -> RobotState:
        """See `Backend.step`.

        Raises:
            DivergedError: A joint passed the speed no drive can reach, the base or a body is faster than anything here gets, or not finite.
        """
        kernel, target = self.kernel, np.array(command.target_rad, dtype=np.float64)
        if target.shape != self._lower_rad.shape or not in_range(target, self._lower_rad, self._upper_rad):
            checked_target(command, self._model.joint_names)  # says what is wrong
        self._target_rad = target
        self._energy_before_j = self.energy_j
        self._shafts.append(kernel.shafts(self._target_rad))
        if self._late_substeps:
            self._advance(self._late_substeps)  # under the command before
        # Interpolated position mode: over a control period the drives move their targets evenly to where they shall be.
        kernel.target_step_rad[:] = (self._shafts.popleft() - kernel.target_rad) / self._substeps
        self._advance(self._substeps - self._late_substeps)
        self._pushes = ()
        self._steps += 1
        self._moment += 1
        self._read()
        _, _, velocity, gyro = self._base
        if not believable(
            kernel.qd_rad_s, MAX_SPEED_RAD_S, velocity, gyro, self._body_twist, MAX_SPEED_M_S, MAX_SPIN_RAD_S
        ):
            raise self._what_diverged()
        self._last_finite_rad[:] = kernel.q_rad
        return self._sense()

    def world_state(self) -> WorldState:
        """The truth as it stands. Its arrays stay as they are when the simulation goes on; change none of them."""
        position, quat, velocity, gyro = self._base
        return WorldState(
            time_s=self._steps / self._control_hz,
            base_position_m=position,
            base_quat_xyzw=quat,
            base_velocity_m_s=velocity,
            base_gyro_rad_s=gyro,
            body_pose=self._body_pose,
            body_twist=self._body_twist,
            tip_force_n=self._tips_n,
            electrical_w=(self.energy_j - self._energy_before_j) * self._control_hz,
            source=self._source,
        )

    def _what_diverged(self) -> DivergedError:
        """The first that is too fast: a joint, the base, or a body."""
        speed = np.nan_to_num(np.abs(self.kernel.qd_rad_s), nan=np.inf)
        if speed.max(initial=0.0) >= MAX_SPEED_RAD_S:
            worst = int(np.argmax(speed))
            return self._diverged(
                f"joint {self._model.joint_names[worst]} at {self.kernel.qd_rad_s[worst]:.1f} rad/s, at most "
                f"{MAX_SPEED_RAD_S:g} is believed"
            )
        _, _, velocity, spin = self._base
        fastest = [np.nan_to_num(np.abs(x), nan=np.inf).max() for x in (velocity, spin)]
        if fastest[0] >= MAX_SPEED_M_S or fastest[1] >= MAX_SPIN_RAD_S:
            return self._thing_diverged("its base", velocity, spin)
        worst = int(np.argmax(np.nan_to_num(np.abs(self._body_twist), nan=np.inf).max(axis=1)))
        pair = self._body_twist[worst]
        return self._thing_diverged(f"body {self.world.bodies[worst].name}", pair[:3], pair[3:])

    def _thing_diverged(self, what: str, velocity: np.ndarray, spin: np.ndarray) -> DivergedError:
        return self._diverged(
            f"{what} at {np.round(velocity, 1).tolist()} m/s and {np.round(spin, 1).tolist()} rad/s, at most "
            f"{MAX_SPEED_M_S:g} m/s and {MAX_SPIN_RAD_S:g} rad/s are believed"
        )

    def _diverged(self, what: str) -> DivergedError:
        before = dict(zip(self._model.joint_names, np.round(self._last_finite_rad, 3).tolist()))
        return DivergedError(
            f"simulation of {self._model.name} diverged at t = {self._steps / self._control_hz:.3f} s: {what}; joint angles "
            f"one step before [rad]: {before}; do: reset, and ask for less or take a shorter substep"
        )

    def _in_range(self, q_rad: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(q_rad, self._lower_rad), self._upper_rad)  # np.clip costs four times as much

    def _sense(self) -> RobotState:
        """The state, and its readings in one vector, `readings`."""
        kernel, (origin, quat, _, _) = self.kernel, self._base
        self.readings = np.empty(self.sensed.size)
        gather(
            kernel.joints,
            kernel.motors,
            self._tips_n,
            self._gyro,
            origin,
            quat,
            self._body_pose,
            self._tracked,
            self._model.floating,
            self.readings,
        )
        return self.sensed.state(self.readings, self._steps / self._control_hz, self._target_rad.copy())

    @abstractmethod
    def _apply(self, variation: Variation) -> None:
        """Give everything the masses, friction and sizes of a variation of the descriptions."""

    @abstractmethod
    def _place(
        self,
        q_rad: np.ndarray,
        qd_rad_s: np.ndarray,
        base: Sequence[np.ndarray],
        body_poses: np.ndarray,
        ground_seed: int,
    ) -> None:
        """Put the joints, the base (position, quaternion, velocity, angular velocity) and the bodies, at rest, where they start."""

    @abstractmethod
    def _advance(self, substeps: int) -> None:
        """Step kernel and engine in turn under `self._pushes`; leave the joint state in the kernel."""

    @abstractmethod
    def _read(self) -> None:
        """Take from the engine: a floating base's `_base` and `_gyro`, the bodies' poses and twists, the normal force on each tip; fresh arrays."""

    @abstractmethod
    def contacts(self) -> Contacts:
        """Where the robot is touched, also by itself."""

    @abstractmethod
    def _links(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (n_links, 3, 3) and origins (n_links, 3) of the links' frames in the world."""

    @abstractmethod
    def close(self) -> None:
        """Release the engine."""


def _checked(what: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise CommandError(f"start {what} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise NotFiniteError(
            f"start {what}", {str(i): float(x) for i, x in enumerate(array.reshape(-1)) if not np.isfinite(x)}
        )
    return array
