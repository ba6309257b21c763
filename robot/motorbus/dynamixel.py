"""Dynamixel X motors through the Dynamixel SDK (`pip install flexor[hardware]`), one sync read and one sync write a period.

The SDK is imported when a bus is opened. Set the motors up once: Extended Position mode, Return Delay Time 0, Status Return
Level 1, 3 Mbaud; and the USB adapter's latency timer to 1 ms. Without these a hand of 17 takes 11.8 ms a period instead of 4.5.
"""

import struct
from collections.abc import Callable
from importlib import import_module
from math import ceil
from typing import Any

import numpy as np

from robot.motorbus.bus import (
    BusTimeoutError,
    ChecksumError,
    MissingMotorError,
    MotorBusError,
    PacketError,
    Readings,
    WrongIdError,
)
from robot.motorbus.packets import (
    BLOCK_ADDRESS,
    BLOCK_BYTES,
    DRIVE_MODE_ADDRESS,
    ERROR_ADDRESS,
    GOAL_ADDRESS,
    MAX_GOAL,
    MAX_PROFILE_MS,
    MAX_WATCHDOG,
    PROFILE,
    PROFILE_ADDRESS,
    RAD_PER_TICK,
    TIME_PROFILE,
    TORQUE_ADDRESS,
    WATCHDOG_ADDRESS,
    WATCHDOG_S,
    Registers,
)

BAUD = 3_000_000
ERROR_EVERY = (
    8  # reads between two looks at the hardware error registers; a packet's alert bit does not come with a sync read
)
GOAL_BYTES = 4
MAX_PACKET = 1024  # bytes that the SDK sends at once


class NoSdkError(MotorBusError):
    """The Dynamixel SDK is not installed."""


def _sdk() -> Any:
    try:
        return import_module("dynamixel_sdk")
    except ModuleNotFoundError as error:
        raise NoSdkError(
            'the Dynamixel SDK is not installed here.\n  do: pip install "flexor[hardware]", or try --bus sim'
        ) from error


class DynamixelBus:
    """A `MotorBus` of Dynamixel X motors on a serial port.

    Args:
        device: The port, /dev/ttyUSB0.
        ids: Of the motors, in the order of the arrays.
        baud: Bits per second.
        port: An open port of the SDK's kind instead of `device`; for tests.

    Raises:
        NoSdkError: See there.
        MotorBusError: The port cannot be opened.
        MissingMotorError: A motor does not answer; all of them are named.
    """

    def __init__(self, device: str, ids: tuple[int, ...], *, baud: int = BAUD, port: Any = None) -> None:
        sdk = _sdk()
        self._sdk, self._ids, self._closed, self._half_sent = sdk, ids, False, False
        self._port = sdk.PortHandler(device) if port is None else port
        self._packets = sdk.PacketHandler(2.0)
        if port is None:
            try:
                opened = self._port.openPort() and self._port.setBaudRate(baud)
            except OSError as error:  # pyserial's SerialException is one
                raise MotorBusError(f"cannot open {device}: {error}") from error
            if not opened:
                raise MotorBusError(f"cannot open {device} at {baud} baud")
        missing = [motor for motor in ids if self._packets.ping(self._port, motor)[1] != sdk.COMM_SUCCESS]
        if missing:
            self._port.closePort()
            raise MissingMotorError(
                f"no answer from motors {missing} on {device} at {baud} baud; check power, cables, ids and baud rate"
            )
        self._block = sdk.GroupSyncRead(self._port, self._packets, BLOCK_ADDRESS, BLOCK_BYTES)
        self._errors = sdk.GroupSyncRead(self._port, self._packets, ERROR_ADDRESS, 1)
        self._goals = sdk.GroupSyncWrite(self._port, self._packets, GOAL_ADDRESS, GOAL_BYTES)
        for motor in ids:
            self._block.addParam(motor)
            self._errors.addParam(motor)
        self._error, self._reads = np.zeros(len(ids), dtype=np.int64), 0

    @property
    def ids(self) -> tuple[int, ...]:
        return self._ids

    def _require(self, result: int, what: str) -> None:
        """Raise for a result of the SDK that is not success."""
        sdk = self._sdk
        if result == sdk.COMM_SUCCESS:
            return
        kinds: dict[int, Callable[[str], MotorBusError]] = {
            sdk.COMM_RX_TIMEOUT: BusTimeoutError,
            sdk.COMM_RX_CORRUPT: ChecksumError,
            sdk.COMM_RX_WAITING: BusTimeoutError,
            sdk.COMM_PORT_BUSY: MotorBusError,
            sdk.COMM_TX_FAIL: MotorBusError,
            sdk.COMM_TX_ERROR: MotorBusError,
        }
        self._half_sent = self._half_sent or result == sdk.COMM_TX_FAIL
        raise kinds.get(result, PacketError)(f"{what}: {self._packets.getTxRxResult(result)}")

    def _realign(self) -> None:
        """After half a packet motors wait for the rest, and would take the next packet for it: they get zeros, which its checksum refuses."""
        if self._half_sent:
            self._port.writePort([0] * MAX_PACKET)
            self._half_sent = False

    def _talk(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call of the SDK; a port that is gone (its adapter unplugged) is pyserial's OSError, which the SDK lets through.

        Raises:
            MotorBusError: The port is gone.
        """
        try:
            self._realign()
            return call(*arguments)
        except OSError as error:
            raise MotorBusError(f"{what}: the port is gone: {error}") from error

    def _all(self, address: int, data: bytes, what: str) -> None:
        """Write the same bytes to all motors."""
        group = self._sdk.GroupSyncWrite(self._port, self._packets, address, len(data))
        for motor in self._ids:
            group.addParam(motor, list(data))
        self._require(self._talk(what, group.txPacket), what)

    def pace(self, period_s: float) -> None:
        wrong = {}
        for motor in self._ids:
            mode, result, _ = self._talk(
                "drive mode", self._packets.read1ByteTxRx, self._port, motor, DRIVE_MODE_ADDRESS
            )
            if result == self._sdk.COMM_SUCCESS and not mode & TIME_PROFILE:  # seldom: it is kept without power
                wanted = mode | TIME_PROFILE
                self._talk("drive mode", self._packets.write1ByteTxRx, self._port, motor, DRIVE_MODE_ADDRESS, wanted)
                mode, result, _ = self._talk(
                    "drive mode", self._packets.read1ByteTxRx, self._port, motor, DRIVE_MODE_ADDRESS
                )
            if result != self._sdk.COMM_SUCCESS or not mode & TIME_PROFILE:
                wrong[motor] = self._packets.getTxRxResult(result) if result else f"drive mode {mode}"
        if wrong:
            raise MotorBusError(
                f"motors {wrong} take no time-based profile; is their firmware recent and their torque off?"
            )
        period_ms = min(max(1, round(1e3 * period_s)), MAX_PROFILE_MS)
        self._all(PROFILE_ADDRESS, PROFILE.pack(0, period_ms), "profile")

    def guard(self, silence_s: float) -> None:
        # Firmware 51 of the 330 sizes is reported to note the silence and to go on turning, in current control
        # (forum.robotis.com/t/4814), so power within reach of a hand stays a must.
        units = min(ceil(silence_s / WATCHDOG_S), MAX_WATCHDOG)
        self._all(WATCHDOG_ADDRESS, bytes([units]), "bus watchdog")

    def _column(self, group: Any, address: int, length: int, what: str) -> list[bytes]:
        self._require(self._talk(what, group.txRxPacket), what)
        silent = [motor for motor in self._ids if not group.isAvailable(motor, address, length)]
        if silent:
            raise WrongIdError(f"{what}: motors {silent} were asked, others answered")
        return [bytes(group.data_dict[motor][:length]) for motor in self._ids]

    def read(self) -> Readings:
        found = self._column(self._block, BLOCK_ADDRESS, BLOCK_BYTES, "sync read")
        blocks = [Registers.unpack(data) for data in found]
        if self._reads % ERROR_EVERY == 0:
            self._error = np.array([b[0] for b in self._column(self._errors, ERROR_ADDRESS, 1, "error registers")])
        self._reads += 1
        return Readings(
            position_rad=np.array([block.position_rad for block in blocks]),
            velocity_rad_s=np.array([block.velocity_rad_s for block in blocks]),
            current_a=np.array([block.current_a for block in blocks]),
            temperature_c=np.array([block.temperature_c for block in blocks]),
            error=self._error.copy(),
        )

    def write_goals(self, position_rad: np.ndarray) -> None:
        self._goals.clearParam()
        for motor, goal in zip(self._ids, position_rad.tolist()):
            ticks = goal / RAD_PER_TICK
            if not abs(ticks) <= MAX_GOAL:  # nor is NaN
                raise MotorBusError(f"motor {motor} cannot go to {goal} rad")
            self._goals.addParam(motor, list(struct.pack("<i", round(ticks))))
        self._require(self._talk("sync write of goals", self._goals.txPacket), "sync write of goals")

    def set_torque(self, on: bool) -> None:
        failed = {}
        for motor in self._ids:
            try:
                self._realign()
                result, _ = self._packets.write1ByteTxRx(self._port, motor, TORQUE_ADDRESS, int(on))
            except OSError as error:  # the others may still hear it
                failed[motor] = str(error)
                continue
            self._half_sent = self._half_sent or result == self._sdk.COMM_TX_FAIL
            if result != self._sdk.COMM_SUCCESS:
                failed[motor] = self._packets.getTxRxResult(result)
        if failed:
            still = "" if on else "; they may still pull: switch their power off"
            raise MissingMotorError(f"torque {'on' if on else 'off'} was not confirmed by motors {failed}{still}")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.set_torque(False)
        finally:
            self._port.closePort()
