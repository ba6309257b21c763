"""Dynamixel Protocol 2.0 status packets and the X series' registers: https://emanual.robotis.com/docs/en/dxl/protocol2/.

FF FF FD 00 | id | length u16 | instruction 55 | error | parameters | CRC u16        all little-endian
"""

import struct
from dataclasses import dataclass
from math import pi

from robot.motorbus.bus import BusTimeoutError, ChecksumError, PacketError, WrongIdError

HEADER = b"\xff\xff\xfd\x00"
STATUS = 0x55
# One block of registers is read at once: current i16, velocity i32, position i32, ..., temperature u8, from 126 to 146.
ERROR_ADDRESS, TORQUE_ADDRESS, GOAL_ADDRESS, BLOCK_ADDRESS, BLOCK_BYTES = 70, 64, 116, 126, 21
# Drive mode (EEPROM): bit 2 makes the profile registers times in milliseconds; an acceleration of 0 makes the profile a ramp.
DRIVE_MODE_ADDRESS, TIME_PROFILE = 10, 0x04
PROFILE_ADDRESS, PROFILE = 108, struct.Struct("<ii")  # acceleration, velocity
MAX_PROFILE_MS = 32_737
WATCHDOG_ADDRESS, WATCHDOG_S = 98, 0.02  # one unit of the bus watchdog
MAX_WATCHDOG = 127
MAX_GOAL = 1_048_575  # extended position mode: 256 turns either way
BLOCK = struct.Struct("<hii8xHB")  # current, velocity, position, trajectories, voltage, temperature
RAD_PER_TICK = 2.0 * pi / 4096.0
RAD_S_PER_UNIT = 0.229 * 2.0 * pi / 60.0
AMP_PER_UNIT = 2.69e-3  # XM430; an XL330 has 1 mA
ALERT = 0x80  # of the packet's error byte: the motor has a hardware error
REFUSALS = {1: "result", 2: "instruction", 3: "CRC", 4: "data range", 5: "data length", 6: "data limit", 7: "access"}


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005) & 0xFFFF if value & 0x8000 else value << 1
        table.append(value)
    return table


CRC = _table()


def crc16(data: bytes) -> int:
    """CRC-16/UMTS (0x8005), as the protocol's CRC table."""
    value = 0
    for byte in data:
        value = (value << 8 ^ CRC[value >> 8 ^ byte]) & 0xFFFF
    return value


def status(motor_id: int, parameters: bytes, error: int = 0) -> bytes:
    """What a motor answers. Headers inside the parameters are stuffed with an FD."""
    body = bytes([STATUS, error]) + parameters
    body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    packet = HEADER + struct.pack("<BH", motor_id, len(body) + 2) + body
    return packet + struct.pack("<H", crc16(packet))


def parse_status(data: bytes, motor_id: int) -> tuple[bytes, int]:
    """Parameters and error byte of an answer.

    Raises:
        BusTimeoutError: Nothing, or not all of it, came.
        PacketError: Not a status packet, or the motor refused.
        ChecksumError, WrongIdError: See there.
    """
    if len(data) < 11 or (len(data) >= 7 and len(data) < 7 + struct.unpack_from("<H", data, 5)[0]):
        raise BusTimeoutError(f"motor {motor_id} did not answer in time ({len(data)} bytes came)")
    if data[:4] != HEADER or data[7] != STATUS:
        raise PacketError(f"motor {motor_id}: not a status packet: {data[:8].hex(' ')}")
    end = 7 + struct.unpack_from("<H", data, 5)[0]
    announced = struct.unpack_from("<H", data, end - 2)[0]
    if crc16(data[: end - 2]) != announced:
        raise ChecksumError(
            f"motor {motor_id}: checksum {announced:04x} is not that of the answer; check cable and ids"
        )
    if data[4] != motor_id:
        raise WrongIdError(f"motor {motor_id} was asked, motor {data[4]} answered")
    error = data[8]
    if error & 0x7F:
        raise PacketError(f"motor {motor_id} refused: {REFUSALS.get(error & 0x7F, error & 0x7F)} error")
    return data[9 : end - 2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"), error


@dataclass(frozen=True, kw_only=True)
class Registers:
    """What a motor's block says, in SI units."""

    position_rad: float
    velocity_rad_s: float
    current_a: float
    temperature_c: float

    def pack(self) -> bytes:
        def clip(value: int, low: int, high: int) -> int:
            return min(max(value, low), high)

        return BLOCK.pack(
            clip(round(self.current_a / AMP_PER_UNIT), -32768, 32767),
            clip(round(self.velocity_rad_s / RAD_S_PER_UNIT), -(2**31), 2**31 - 1),
            clip(round(self.position_rad / RAD_PER_TICK), -(2**31), 2**31 - 1),
            120,
            clip(round(self.temperature_c), 0, 255),
        )

    @staticmethod
    def unpack(data: bytes) -> "Registers":
        if len(data) != BLOCK.size:
            raise PacketError(f"a register block has {BLOCK.size} bytes, got {len(data)}")
        current, velocity, position, _, temperature = BLOCK.unpack(data)
        return Registers(
            position_rad=position * RAD_PER_TICK,
            velocity_rad_s=velocity * RAD_S_PER_UNIT,
            current_a=current * AMP_PER_UNIT,
            temperature_c=float(temperature),
        )
