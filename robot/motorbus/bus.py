"""What a motor bus does, and how it fails. SI units at the motor's output shaft; arrays in the order of the bus's ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot.errors import FlexorError

WATCHDOG_S = 0.5  # drives that hear nothing for so long stop by themselves: this computer is gone


class MotorBusError(FlexorError):
    """The bus or a motor on it failed; nothing can be said of the readings."""


class MissingMotorError(MotorBusError):
    """Motors that should be on the bus do not answer a ping."""


class BusTimeoutError(MotorBusError):
    """A motor did not answer in time: unplugged, without power, or at another baud rate."""


class ChecksumError(MotorBusError):
    """An answer whose checksum is wrong: noise, a bad cable, two motors of one id talking at once."""


class WrongIdError(MotorBusError):
    """An answer from another motor than was asked."""


class PacketError(MotorBusError):
    """An answer that is no packet, or a motor that refused the instruction."""


class MotorFaultError(MotorBusError):
    """A motor reports a hardware error and has switched its torque off."""


# Hardware error status, Dynamixel X series, control table address 70.
HARDWARE_ERRORS = {
    0x01: "input voltage",
    0x04: "overheating",
    0x08: "motor encoder",
    0x10: "electrical shock",
    0x20: "overload",
}


@dataclass(frozen=True, kw_only=True)
class Readings:
    """One sync read, arrays of shape (n_motors,).

    Attributes:
        position_rad: Output shaft, over many turns [rad].
        velocity_rad_s: [rad/s].
        current_a: [A].
        temperature_c: [deg C].
        error: Hardware error bits, see `HARDWARE_ERRORS`.
    """

    position_rad: np.ndarray
    velocity_rad_s: np.ndarray
    current_a: np.ndarray
    temperature_c: np.ndarray
    error: np.ndarray


class MotorBus(Protocol):
    """Motors that are read and commanded together."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    def read(self) -> Readings:
        """Ask all motors.

        Raises:
            MotorBusError: Its class says how the bus failed; hardware errors of motors are in the readings instead.
        """
        ...

    def write_goals(self, position_rad: np.ndarray) -> None:
        """Position goals of all motors, shape (n_motors,) [rad]. Motors do not answer."""
        ...

    def pace(self, period_s: float) -> None:
        """From now on the drives move their targets evenly to each goal over this time, as simulation does [s]. Torque must be off.

        Raises:
            MotorBusError: A motor cannot, or did not confirm.
        """
        ...

    def guard(self, silence_s: float) -> None:
        """From now on the drives stop by themselves once they have heard nothing for so long; 0 for never [s]."""
        ...

    def set_torque(self, on: bool) -> None:
        """Switch all motors' torque. Off is always tried on every motor, whatever fails on the way.

        Raises:
            MotorBusError: A motor did not confirm.
        """
        ...

    def close(self) -> None:
        """Torque off and the port free. Safe to call twice."""
        ...


def hardware_errors(bits: int) -> str:
    """The names of error bits."""
    names = [name for bit, name in HARDWARE_ERRORS.items() if bits & bit]
    unknown = bits & ~sum(HARDWARE_ERRORS)
    return ", ".join(names + ([f"bits 0x{unknown:02x}"] if unknown else []))


def check_faults(readings: Readings, names: Sequence[str]) -> None:
    """Refuse readings in which a motor reports a hardware error.

    Raises:
        MotorFaultError: Every motor and its errors.
    """
    if readings.error.any():
        bad = [
            f"{names[int(i)]} ({hardware_errors(int(readings.error[i]))}, {readings.temperature_c[i]:.0f} deg C)"
            for i in np.flatnonzero(readings.error)
        ]
        raise MotorFaultError(f"hardware error of motor {'; '.join(bad)}; its torque is off until it is rebooted")
