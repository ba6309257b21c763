"""Motors without a bus, byte by byte: they answer in real status packets, and fail in the ways real ones do."""

from dataclasses import dataclass

import numpy as np

from robot.description.model import RobotModel
from robot.motorbus.bus import BusTimeoutError, MissingMotorError, Readings
from robot.motorbus.calibration import spool_slopes
from robot.motorbus.packets import ALERT, Registers, parse_status, status

LAG_S = 0.05  # first-order lag of a motor behind its goal
AMBIENT_C, HEAT_C_PER_A2S, COOLING_1_S = 25.0, 2.0, 0.02
TRIP_C = 80.0  # the drive's own limit
STIFFNESS_A_RAD = 4.0  # current per radian behind the goal
MAX_A = 1.2
OVERHEATED, NO_ENCODER = 0x04, 0x08


@dataclass(frozen=True, kw_only=True)
class Cables:
    """What ties motors to joints that have stops: motor = zero + direction * (slopes q). Joints in the order of their motors.

    Attributes:
        slopes: Radians of spool per radian of joint, shape (n, n).
        lower_rad, upper_rad: Stops of the joints, shape (n,) [rad].
        zero_rad, direction: Of the motors, shape (n,).
    """

    slopes: np.ndarray
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    zero_rad: np.ndarray
    direction: np.ndarray

    @staticmethod
    def of(model: RobotModel, zero_rad: np.ndarray, direction: np.ndarray) -> "Cables":
        """A hand's."""
        own = [model.index(tendon.joint) for tendon in model.tendons]
        return Cables(
            slopes=spool_slopes(model)[:, own],
            lower_rad=model.lower_rad[own],
            upper_rad=model.upper_rad[own],
            zero_rad=zero_rad,
            direction=direction,
        )

    def allow(self, position_rad: np.ndarray, slack_rad: np.ndarray) -> np.ndarray:
        """Where motors get that want to be at these positions: all give way alike to joints that are at their stops.

        Args:
            position_rad: Of the motors, shape (n,) [rad].
            slack_rad: By how much more than its joint's range each motor can turn, shape (n,) [rad].
        """
        range_rad = self.upper_rad - self.lower_rad
        more = np.maximum(0.5 * slack_rad / np.diag(self.slopes), -0.45 * range_rad)  # something of it is left
        lower, upper = self.lower_rad - more, self.upper_rad + more
        spools = self.direction * (position_rad - self.zero_rad)
        q = np.linalg.solve(self.slopes, spools)
        stuck = np.zeros(len(q), dtype=bool)
        while ((q < lower - 1e-9) | (q > upper + 1e-9)).any():
            stuck |= (q < lower) | (q > upper)
            q[stuck] = np.clip(q[stuck], lower[stuck], upper[stuck])
            left = spools - self.slopes[:, stuck] @ q[stuck]
            q[~stuck] = np.linalg.lstsq(self.slopes[:, ~stuck], left, rcond=None)[0]
        return self.zero_rad + self.direction * (self.slopes @ q) if stuck.any() else position_rad


class SimulatedBus:
    """Motors that follow goals with a lag, between hard stops. Time passes only in `advance`.

    Args:
        ids: Of the motors.
        position_rad: Where they start, zeros when None.
        stops_rad: Hard stops, shape (n_motors, 2), none when None [rad].
        slack_rad: How far each motor goes past its stops while cables hang, shape (n_motors,); `tighten` takes it out [rad].
        cables: Joints whose stops act on several motors, none when None.
    """

    def __init__(
        self,
        ids: tuple[int, ...],
        position_rad: np.ndarray | None = None,
        stops_rad: np.ndarray | None = None,
        slack_rad: np.ndarray | None = None,
        cables: Cables | None = None,
    ) -> None:
        n = len(ids)
        self._ids = ids
        self.position_rad = np.zeros(n) if position_rad is None else np.array(position_rad, dtype=np.float64)
        self._stops = np.full((n, 2), [-np.inf, np.inf]) if stops_rad is None else np.asarray(stops_rad)
        self._slack = np.zeros(n) if slack_rad is None else np.array(slack_rad)
        self._cables = cables
        self._velocity, self._current = np.zeros(n), np.zeros(n)
        self.temperature_c = np.full(n, AMBIENT_C)
        self._goal, self.torque = self.position_rad.copy(), np.zeros(n, dtype=bool)
        self._error = np.zeros(n, dtype=np.int64)
        self._silent: set[int] = set()
        self._noisy: set[int] = set()
        self._answers_as: dict[int, int] = {}
        self.reads = 0
        self._setpoint, self._speed, self._period_s = self._goal.copy(), np.zeros(n), 0.0
        self._guard_s = self._silence_s = 0.0
        self.stopped = False  # the watchdog's doing: goals are refused until it is told to let go

    @property
    def ids(self) -> tuple[int, ...]:
        return self._ids

    def advance(self, dt_s: float) -> None:
        """Let time pass."""
        self._silence_s += dt_s
        if 0.0 < self._guard_s < self._silence_s:
            self.stopped, self._goal, self._setpoint = True, self.position_rad.copy(), self.position_rad.copy()
        low, high = self._stops[:, 0] - 0.5 * self._slack, self._stops[:, 1] + 0.5 * self._slack
        ramping_s = np.minimum(dt_s, np.abs(self._goal - self._setpoint) / np.maximum(np.abs(self._speed), 1e-12))
        moved = self._follow(self.position_rad, self._setpoint, self._speed, ramping_s)
        arrived = ramping_s < dt_s
        self._setpoint = np.where(arrived, self._goal, self._setpoint + self._speed * ramping_s)
        moved = self._follow(moved, self._setpoint, np.zeros_like(moved), dt_s - ramping_s)
        moved = np.where(self.torque, np.clip(moved, low, high), self.position_rad)
        if self._cables is not None:
            moved = self._cables.allow(moved, self._slack)
        self._velocity = (moved - self.position_rad) / dt_s
        self.position_rad = moved
        behind = STIFFNESS_A_RAD * (self._setpoint - moved)
        self._current = np.where(self.torque, np.clip(behind, -MAX_A, MAX_A), 0.0)
        cooled = (self.temperature_c - AMBIENT_C) * np.exp(-COOLING_1_S * dt_s)
        self.temperature_c = AMBIENT_C + cooled + HEAT_C_PER_A2S * self._current**2 * dt_s
        self._trip(self.temperature_c > TRIP_C, OVERHEATED)

    @staticmethod
    def _follow(x: np.ndarray, setpoint: np.ndarray, speed: np.ndarray, dt_s: np.ndarray) -> np.ndarray:
        """LAG_S x' = setpoint + speed t - x, solved over dt."""
        return setpoint + speed * (dt_s - LAG_S) + (x - setpoint + speed * LAG_S) * np.exp(-dt_s / LAG_S)

    def _trip(self, which: np.ndarray, bit: int) -> None:
        self._error[which] |= bit
        self.torque &= self._error == 0  # a motor with a hardware error goes limp by itself

    def answer(self, i: int) -> bytes:
        """The bytes that come back when motor number i is asked for its block."""
        motor = self._ids[i]
        if motor in self._silent:
            return b""
        block = Registers(
            position_rad=self.position_rad[i],
            velocity_rad_s=self._velocity[i],
            current_a=self._current[i],
            temperature_c=self.temperature_c[i],
        )
        data = status(self._answers_as.get(motor, motor), block.pack(), ALERT if self._error[i] else 0)
        if motor in self._noisy:  # one bit on the wire
            data = data[:12] + bytes([data[12] ^ 0x10]) + data[13:]
        return data

    def read(self) -> Readings:
        self.reads += 1
        self._silence_s = 0.0
        blocks = [Registers.unpack(parse_status(self.answer(i), motor)[0]) for i, motor in enumerate(self._ids)]
        return Readings(
            position_rad=np.array([block.position_rad for block in blocks]),
            velocity_rad_s=np.array([block.velocity_rad_s for block in blocks]),
            current_a=np.array([block.current_a for block in blocks]),
            temperature_c=np.array([block.temperature_c for block in blocks]),
            error=self._error.copy(),
        )

    def write_goals(self, position_rad: np.ndarray) -> None:
        heard = np.array([motor not in self._silent for motor in self._ids])
        self._silence_s = 0.0
        if self.stopped:
            return  # a sync write is not answered, so nobody is told
        self._goal = np.where(heard, position_rad, self._goal)
        if self._period_s > 0.0:
            self._speed = (self._goal - self._setpoint) / self._period_s
        else:
            self._setpoint = self._goal.copy()

    def pace(self, period_s: float) -> None:
        if self._silent:
            raise BusTimeoutError(f"motors {sorted(self._silent)} did not answer")
        self._period_s = period_s

    def guard(self, silence_s: float) -> None:
        self._guard_s, self._silence_s = silence_s, 0.0
        self.stopped = self.stopped and silence_s > 0.0

    def set_torque(self, on: bool) -> None:
        if on:
            self._goal, self._setpoint = (
                self.position_rad.copy(),
                self.position_rad.copy(),
            )  # as the X series: goal is where it is
        self.torque[:] = on
        self._trip(np.zeros(len(self._ids), dtype=bool), 0)
        if self._silent:
            raise MissingMotorError(f"motors {sorted(self._silent)} did not confirm torque {'on' if on else 'off'}")

    def close(self) -> None:
        self.torque[:] = False

    # What can go wrong.

    def unplug(self, motor: int) -> None:
        """Its connector falls out: it never answers, and goes limp."""
        self._silent.add(motor)
        self.torque[self._ids.index(motor)] = False

    def plug_in(self, motor: int) -> None:
        self._silent.discard(motor)

    def disturb(self, motor: int, noisy: bool = True) -> None:
        """One bit of its answers flips."""
        (self._noisy.add if noisy else self._noisy.discard)(motor)

    def readdress(self, motor: int, other: int) -> None:
        """It answers under another motor's id."""
        self._answers_as[motor] = other

    def overheat(self, motor: int) -> None:
        """Its winding passes the drive's limit."""
        i = self._ids.index(motor)
        self.temperature_c[i] = TRIP_C + 5.0
        self._trip(np.arange(len(self._ids)) == i, OVERHEATED)

    def unplug_encoder(self, motor: int) -> None:
        """Its encoder says nothing more: hardware error, limp, the position register stands still."""
        self._trip(np.array(self._ids) == motor, NO_ENCODER)

    def tighten(self, motor: int, share: float = 0.5) -> None:
        """Somebody takes a share of the slack out of its cables."""
        self._slack[self._ids.index(motor)] *= 1.0 - share


def hanging_hand(
    ids: tuple[int, ...],
    model: RobotModel,
    directions: tuple[int, ...] | None = None,
    *,
    slack_rad: float = 0.6,
    slack_motors: int = 2,
) -> SimulatedBus:
    """A hand as it comes from assembly: motors mounted at any angle, joints with stops, fingers half bent, some cables hanging.

    Args:
        ids: Of the motors.
        model: The hand.
        directions: 1 or -1 per motor; all 1 when None.
        slack_rad: How far a motor with hanging cables goes too far [rad].
        slack_motors: How many of them, the first ones.
    """
    n = len(ids)
    cables = Cables.of(model, np.linspace(-3.0, 3.0, n), np.array(directions or (1,) * n))
    q = 0.5 * (cables.lower_rad + cables.upper_rad)
    slack = np.where(np.arange(n) < slack_motors, slack_rad, 0.0)
    return SimulatedBus(ids, cables.zero_rad + cables.direction * (cables.slopes @ q), slack_rad=slack, cables=cables)
