"""Motors on a bus: packets, failures by name, the hardware backend by the rules of every backend, calibration."""

import json
from dataclasses import replace

import numpy as np
import pytest
from onboard_helpers import CONTRACT, HAND, artifact

from robot.errors import NotFiniteError, UnknownNameError
from robot.motorbus import packets
from robot.motorbus.backend import HardwareBackend
from robot.motorbus.bus import (
    BusTimeoutError,
    ChecksumError,
    MissingMotorError,
    MotorBusError,
    MotorFaultError,
    PacketError,
    WrongIdError,
    check_faults,
    hardware_errors,
)
from robot.motorbus.calibration import (
    SLACK_RAD,
    Calibration,
    CalibrationError,
    CalibrationStopped,
    calibrate,
    nominal,
)
from robot.motorbus.simulated import SimulatedBus, hanging_hand
from robot.onboard.hardware import HardwareRobot, connect_hardware, simulated
from robot.onboard.inference import make_inference
from robot.onboard.loop import ControlLoop, LoopConfig
from robot.safety import Fault
from robot.state import Command, CommandError, RobotState

N = len(HAND.joints)
HZ = 50.0


def rng():
    return np.random.default_rng(0)


def test_a_packet_is_the_one_in_the_manual():
    """Ping status of the protocol's manual: id 1, model 1030, firmware 38."""
    packet = bytes.fromhex("ff ff fd 00 01 07 00 55 00 06 04 26 65 5d")
    assert packets.status(1, b"\x06\x04\x26") == packet
    assert packets.parse_status(packet, 1) == (b"\x06\x04\x26", 0)


@pytest.mark.parametrize("parameters", [b"", b"\xff\xff\xfd", b"\x01\xff\xff\xfd\x02" * 3])
def test_headers_inside_parameters_come_back(parameters):
    assert packets.parse_status(packets.status(7, parameters), 7)[0] == parameters


def test_every_way_an_answer_can_be_wrong_has_a_name():
    good = packets.status(3, b"abc")
    for bad, error in (
        (b"", BusTimeoutError),
        (good[:-1], BusTimeoutError),
        (good[:9] + b"x" + good[10:], ChecksumError),
        (b"\x00" + good[1:], PacketError),
        (packets.status(3, b"", error=4), PacketError),
        (packets.status(4, b"abc"), WrongIdError),
    ):
        with pytest.raises(error, match="motor 3"):
            packets.parse_status(bad, 3)


def test_registers_survive_the_wire_to_their_resolution():
    block = packets.Registers(position_rad=-20.5, velocity_rad_s=3.0, current_a=0.4, temperature_c=41.0)
    back = packets.Registers.unpack(block.pack())
    assert back.position_rad == pytest.approx(-20.5, abs=0.5 * packets.RAD_PER_TICK + 1e-9)
    assert back.velocity_rad_s == pytest.approx(3.0, abs=0.5 * packets.RAD_S_PER_UNIT)
    assert back.current_a == pytest.approx(0.4, abs=0.5 * packets.AMP_PER_UNIT) and back.temperature_c == 41.0


@pytest.mark.parametrize(
    "fail, error",
    [
        (lambda bus: bus.unplug(5), BusTimeoutError),
        (lambda bus: bus.disturb(5), ChecksumError),
        (lambda bus: bus.readdress(5, 6), WrongIdError),
    ],
)
def test_a_failing_bus_fails_by_name(fail, error):
    bus = SimulatedBus((4, 5, 6))
    bus.read()
    fail(bus)
    with pytest.raises(error, match="motor 5"):
        bus.read()


@pytest.mark.parametrize(
    "fail, says",
    [(lambda bus: bus.overheat(5), "overheating, 8[345]"), (lambda bus: bus.unplug_encoder(5), "motor encoder")],
)
def test_a_motor_with_a_hardware_error_says_so_and_goes_limp(fail, says):
    bus = SimulatedBus((4, 5, 6))
    bus.set_torque(True)
    fail(bus)
    assert bus.torque.tolist() == [True, False, True]
    bus.write_goals(np.ones(3))
    bus.advance(1.0)
    readings = bus.read()
    assert readings.position_rad[0] > 0.9 and readings.position_rad[1] == 0.0
    with pytest.raises(MotorFaultError, match=f"b .{says}"):
        check_faults(readings, "abc")
    bus.set_torque(True)  # switching it on again does not help
    assert not bus.torque[1]
    assert hardware_errors(0x21) == "input voltage, overload" and "0x40" in hardware_errors(0x40)


def test_a_motor_that_works_too_hard_overheats_by_itself():
    bus = SimulatedBus((1,), stops_rad=np.array([[-0.1, 0.1]]))
    bus.set_torque(True)
    bus.write_goals(np.array([5.0]))
    for _ in range(100):
        bus.advance(1.0)
    assert bus.read().error[0] == 4 and not bus.torque[0]


# The hardware backend, by the rules of every backend.


@pytest.fixture
def made():
    calibration = nominal(HAND)
    bus = simulated(HAND, calibration)
    backend = HardwareBackend(bus, HAND, calibration, control_hz=HZ, wait=bus.advance)
    yield backend, bus
    backend.close()


def test_reset_goes_to_the_posture_at_rest(made):
    backend, bus = made
    state = backend.reset(None, rng())
    np.testing.assert_allclose(state.q_rad, HAND.home_rad, atol=0.1)
    np.testing.assert_array_equal(state.target_rad, HAND.home_rad)
    assert state.time_s == 0.0 and bus.torque.all()
    posture = HAND.home_rad + 0.4 * (HAND.upper_rad - HAND.home_rad)
    state = backend.reset(RobotState(time_s=0.0, q_rad=posture, qd_rad_s=posture, target_rad=posture), rng())
    np.testing.assert_allclose(state.q_rad, posture, atol=0.06)


def test_joints_come_to_their_targets_through_the_tendons(made):
    backend, _ = made
    backend.reset(None, rng())
    target = HAND.lower_rad + rng().random(N) * (HAND.upper_rad - HAND.lower_rad)
    for _ in range(50):
        state = backend.step(Command(target_rad=target))
    np.testing.assert_allclose(state.q_rad, target, atol=5e-3)
    assert state.time_s == pytest.approx(1.0)
    for field, size in (("motor_rad", N), ("motor_rad_s", N), ("motor_current_a", N), ("motor_temperature_c", N)):
        assert getattr(state, field).shape == (size,)


def test_a_bad_command_is_refused_and_moves_nothing(made):
    backend, bus = made
    backend.reset(None, rng())
    before = bus.position_rad.copy()
    with pytest.raises(CommandError):
        backend.step(Command(target_rad=np.zeros(N + 1)))
    with pytest.raises(NotFiniteError, match=HAND.joint_names[3]):
        backend.step(Command(target_rad=np.where(np.arange(N) == 3, np.nan, 0.0)))
    np.testing.assert_array_equal(bus.position_rad, before)


def test_states_do_not_change_later_and_equal_commands_give_equal_states():
    runs = []
    for _ in range(2):
        robot = connect_hardware(HAND, HZ)
        states = [robot.reset(None, rng())]
        kept = states[0].q_rad.copy()
        for k in range(5):
            robot.send(Command(target_rad=HAND.home_rad + 0.01 * k))
            states.append(robot.receive())
        np.testing.assert_array_equal(states[0].q_rad, kept)
        runs.append(states)
        robot.close()
        robot.close()
    for a, b in zip(*runs):
        np.testing.assert_array_equal(a.q_rad, b.q_rad)


def test_closing_switches_the_torque_off(made):
    backend, bus = made
    backend.reset(None, rng())
    backend.close()
    assert not bus.torque.any()


def test_a_read_that_fails_is_old_data_and_is_counted(made):
    backend, bus = made
    backend.reset(None, rng())
    good = backend.step(Command(target_rad=HAND.home_rad))
    bus.disturb(3)
    assert backend.step(Command(target_rad=HAND.home_rad)).time_s == good.time_s
    bus.disturb(3, noisy=False)
    assert backend.step(Command(target_rad=HAND.home_rad)).time_s > good.time_s
    assert backend.errors == {"ChecksumError": 1} and "motor 3" in backend.complaint


class Clock:
    """Time that passes only when somebody sleeps."""

    ns = 0

    def now_ns(self):
        return self.ns

    def sleep_until(self, deadline_ns):
        self.ns = max(self.ns, deadline_ns)

    def cpu_s(self):
        return 0.0


@pytest.mark.parametrize(
    "fail, fault, says",
    [
        (lambda bus: None, None, ""),
        (lambda bus: bus.overheat(7), Fault.OBSERVATION, "overheating"),
        (lambda bus: bus.unplug_encoder(7), Fault.OBSERVATION, "motor encoder"),
        (lambda bus: bus.unplug(7), Fault.STALE, "motor 7 did not answer"),
        (lambda bus: bus.disturb(7), Fault.STALE, "checksum"),
        (lambda bus: bus.readdress(7, 8), Fault.STALE, "motor 8 answered"),
    ],
)
def test_the_loop_drives_a_hand_on_a_bus_and_answers_each_of_its_failures(fail, fault, says):
    calibration = nominal(HAND)
    bus = simulated(HAND, calibration)
    ticks = []

    def wait(dt_s):
        ticks.append(dt_s)
        if len(ticks) == 40:
            fail(bus)
        bus.advance(dt_s)

    robot = HardwareRobot(HardwareBackend(bus, HAND, calibration, control_hz=HZ, wait=wait), wait)
    loop = ControlLoop(
        robot,
        CONTRACT.bind(HAND),
        make_inference(artifact()),
        rng=rng(),
        config=LoopConfig(seconds=2.0, blend_s=0.2),
        clock=Clock(),
    )
    report = loop.run()
    robot.close()
    assert report.fault is fault and says in report.fault_text
    assert report.steps == 100 if fault is None else 20 < report.steps < 50


# Calibration.


def two_stops(slack_rad=0.0, motors=N, directions=None):
    """A hand whose motors are mounted anywhere, with joints that have stops and tendons that pass other joints."""
    bus = hanging_hand(tuple(range(11, 11 + N)), HAND, directions, slack_rad=slack_rad, slack_motors=motors)
    return bus, np.linspace(-3.0, 3.0, N)


def run(bus, **more):
    said = []
    callbacks = {
        "progress": lambda text, share: said.append((text, share)),
        "confirm": lambda text: said.append((text, -1.0)) or True,
        "should_stop": lambda: False,
        **more,
    }
    return calibrate(bus, HAND, wait=bus.advance, **callbacks), said


def test_calibration_finds_where_every_motor_is_zero_and_its_file_comes_back(tmp_path):
    bus, offsets = two_stops()
    found, said = run(bus)
    assert [motor.zero_rad for motor in found.motors.values()] == pytest.approx(offsets, abs=0.02)
    shares = [share for _, share in said if share >= 0.0]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert not bus.torque.any()
    found.save(tmp_path / "hand.toml")
    assert Calibration.load(tmp_path / "hand.toml") == found
    found.check(HAND)
    backend = HardwareBackend(bus, HAND, found, control_hz=HZ, wait=bus.advance)
    np.testing.assert_allclose(backend.reset(None, rng()).q_rad, HAND.home_rad, atol=0.1)


def test_calibration_moves_one_joint_at_a_time_though_tendons_pass_others(monkeypatch):
    """Motors that are held while the wrist moves get their cables pulled, and its stop is found too early."""
    directions = tuple(1 if i % 3 else -1 for i in range(N))
    bus, offsets = two_stops(directions=directions)
    cables, now, seen = bus._cables, [""], {}
    assert cables is not None

    def wait(dt_s):
        bus.advance(dt_s)
        q = np.linalg.solve(cables.slopes, cables.direction * (bus.position_rad - cables.zero_rad))
        seen.setdefault(now[0], []).append(q)
        assert bus._guard_s > 0.0  # if this process is killed, no motor goes on pulling

    found = calibrate(
        bus,
        HAND,
        wait=wait,
        progress=lambda text, share: now.__setitem__(0, text.partition(":")[0]),
        confirm=lambda text: True,
        should_stop=lambda: False,
        directions=directions,
    )
    assert [motor.zero_rad for motor in found.motors.values()] == pytest.approx(offsets, abs=0.02)
    for name, rows in seen.items():
        q = np.array(rows)
        moved, own = q.max(axis=0) - q.min(axis=0), HAND.joint_names.index(name)
        assert moved[own] > 0.9 * (HAND.upper_rad - HAND.lower_rad)[own]
        # What the push at a stop, 0.2 rad of spool, takes from others; while the wrist turns, no finger moves by more.
        assert np.delete(moved, own).max() < (0.2 if name == "wrist_flexion" else 0.5), name
    held, _ = two_stops()
    monkeypatch.setattr("robot.motorbus.calibration.following", lambda model, directions: np.eye(N))
    with pytest.raises(CalibrationError, match=r"wrist_flexion turns .* in the way"):
        run(held)
    assert not held.torque.any()


def test_hanging_cables_are_tensioned_on_request():
    bus, offsets = two_stops(slack_rad=0.6, motors=2)
    asked = []

    def confirm(text):
        if "Tension" in text:
            asked.append(text.split()[0])
            bus.tighten(bus.ids[HAND.motor_names.index(asked[-1])], 0.75)
        return True

    found, _ = run(bus, confirm=confirm)
    assert asked == list(HAND.motor_names[:2])
    assert all(motor.slack_rad <= SLACK_RAD for motor in found.motors.values())
    assert [motor.zero_rad for motor in found.motors.values()] == pytest.approx(offsets, abs=0.02)


def test_the_subcommand_calibrates_a_simulated_hand_and_writes_what_the_runtime_reads(tmp_path, capsys, monkeypatch):
    from robot.motorbus.cli import calibrate as command

    command(yes=True, out=tmp_path / "hand.toml", json=tmp_path / "found.json", reversed_motors=("index_mcp",))
    said = capsys.readouterr()
    assert said.out.count("Tension them") == 4 and "25 motors" in said.out and "100 %" in said.err
    found = Calibration.load(tmp_path / "hand.toml")
    found.check(HAND)
    assert found.motors["index_mcp"].direction == -1 and max(m.slack_rad for m in found.motors.values()) <= SLACK_RAD
    assert set(json.loads((tmp_path / "found.json").read_text())["results"]["motors"]) == set(HAND.motor_names)
    monkeypatch.setattr("builtins.input", lambda text: "n")
    with pytest.raises(CalibrationStopped, match="nothing was moved"):
        command(out=tmp_path / "other.toml")
    assert not (tmp_path / "other.toml").exists()
    with pytest.raises(UnknownNameError, match="motor 'index_mpc'"):
        command(yes=True, reversed_motors=("index_mpc",))


def test_calibration_stops_when_told_and_leaves_the_torque_off():
    bus, _ = two_stops()
    calls = []
    with pytest.raises(CalibrationStopped):
        run(bus, should_stop=lambda: calls.append(1) or len(calls) > 50)
    assert not bus.torque.any()
    with pytest.raises(CalibrationStopped, match="nothing was moved"):
        run(bus, confirm=lambda text: False)


def test_calibration_names_what_is_wrong_with_a_motor():
    bus, _ = two_stops(slack_rad=0.6)
    with pytest.raises(CalibrationError, match=f"{HAND.motor_names[0]}: 0.6. rad of slack after 4 rounds"):
        run(bus)
    bus, _ = two_stops(slack_rad=-0.5)
    with pytest.raises(CalibrationError, match="in the way"):
        run(bus)
    bus, _ = two_stops()
    bus.unplug(11)
    with pytest.raises(MotorBusError):
        run(bus)


@pytest.mark.parametrize(
    "old, new",
    [
        ('robot = "hand22"', 'robot = "hand11"'),
        ("[motors.", "[motors.x"),
        ("id = 2\n", "id = 1\n"),
        ("direction = 1", "direction = 2"),
        ("zero_rad = 0.0", "zero_rad = nan"),
        ("zero_rad", "zero_deg"),
        ("robot", "robot = "),
    ],
)
def test_a_calibration_that_is_wrong_is_refused(tmp_path, old, new):
    path = tmp_path / "c.toml"
    nominal(HAND).save(path)
    connect_hardware(HAND, HZ, calibration=path).close()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CalibrationError, match="calibration"):
        connect_hardware(HAND, HZ, calibration=path)


def test_hardware_is_refused_without_a_calibration_and_for_another_bus():
    with pytest.raises(CalibrationError, match="--calibration"):
        connect_hardware(HAND, HZ, bus="/dev/ttyUSB0")
    known = nominal(HAND)
    with pytest.raises(CalibrationError, match="motor ids"):
        HardwareBackend(SimulatedBus(tuple(range(2, 2 + N))), HAND, known, control_hz=HZ, wait=lambda s: None)
    with pytest.raises(CalibrationError, match="sha256"):
        replace(known, robot_sha256="0" * 64).check(HAND)


# The SDK, over a port whose motors are simulated byte by byte.


class SimulatedPort:
    """What the SDK's PortHandler does, with simulated motors at its end."""

    def __init__(self, bus):
        self.bus, self.buffer, self.is_using, self.packet_timeout = bus, b"", False, 0
        self.closed, self.gone, self.learns = False, False, True
        self.modes, self.written = {}, {}
        self.short, self.missing = 0, 0  # bytes that the next write leaves behind; that motors still wait for

    def clearPort(self):
        self.buffer = b""

    def closePort(self):
        self.closed = True

    def setPacketTimeout(self, length):
        pass

    def setPacketTimeoutMillis(self, msec):
        pass

    def isPacketTimeout(self):
        return not self.buffer

    def getBytesAvailable(self):
        return len(self.buffer)

    def readPort(self, length):
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return list(taken)

    def writePort(self, packet):
        if self.gone:
            raise OSError("device disconnected")
        data = bytes(packet)
        if self.short:
            self.missing, self.short = self.short, 0
            return len(data) - self.missing
        if self.missing:  # taken for the rest of that packet; its checksum is then wrong
            self.missing = max(0, self.missing - len(data))
            return len(data)
        motor, instruction, body = data[4], data[7], data[8:-2]
        ids, bus = self.bus.ids, self.bus
        if instruction == 0x01 and motor in ids and motor not in bus._silent:
            self.buffer += packets.status(motor, b"\x06\x04\x26")
        elif instruction == 0x82:  # sync read
            address = int.from_bytes(body[:2], "little")
            for asked in body[4:]:
                i = ids.index(asked)
                self.buffer += (
                    bus.answer(i)
                    if address == packets.BLOCK_ADDRESS
                    else packets.status(asked, bytes([int(bus._error[i])]))
                )
        elif instruction == 0x83 and int.from_bytes(body[:2], "little") != packets.GOAL_ADDRESS:
            self.written[int.from_bytes(body[:2], "little")] = [bytes(body[5:])[: int.from_bytes(body[2:4], "little")]]
        elif instruction == 0x83:  # sync write
            rows = [body[4 + 5 * k : 9 + 5 * k] for k in range(len(ids))]
            goals = [int.from_bytes(row[1:], "little", signed=True) * packets.RAD_PER_TICK for row in rows]
            bus.write_goals(np.array(goals))
        elif instruction == 0x02 and motor not in bus._silent:
            self.buffer += packets.status(motor, bytes([self.modes.get(motor, 0)]))
        elif instruction == 0x03 and body[0] == packets.DRIVE_MODE_ADDRESS:
            if self.learns:
                self.modes[motor] = body[2]
            self.buffer += packets.status(motor, b"")
        elif instruction == 0x03 and motor not in bus._silent:  # write: torque
            bus.torque[ids.index(motor)] = bool(body[2])
            self.buffer += packets.status(motor, b"")
        return len(data)


def test_the_sdk_reads_and_commands_the_same_motors_and_names_the_same_failures():
    pytest.importorskip("dynamixel_sdk")
    from robot.motorbus.dynamixel import DynamixelBus

    motors = SimulatedBus((4, 5, 6), np.array([0.1, -7.0, 2.0]))
    port = SimulatedPort(motors)
    bus = DynamixelBus("", (4, 5, 6), port=port)
    bus.set_torque(True)
    bus.write_goals(np.array([1.0, -6.0, 3.0]))
    motors.advance(10.0)
    readings = bus.read()
    np.testing.assert_allclose(readings.position_rad, [1.0, -6.0, 3.0], atol=packets.RAD_PER_TICK)
    np.testing.assert_array_equal(readings.error, 0)
    motors.disturb(5)
    with pytest.raises(ChecksumError):
        bus.read()
    motors.disturb(5, noisy=False)
    motors.unplug(6)
    with pytest.raises(BusTimeoutError):
        bus.read()
    with pytest.raises(MissingMotorError, match=r"\[6\]"):
        DynamixelBus("", (4, 5, 6), port=SimulatedPort(motors))
    motors.plug_in(6)
    motors.overheat(4)
    for _ in range(8):
        readings = bus.read()
    assert readings.error.tolist() == [4, 0, 0]
    bus.close()
    bus.close()
    assert port.closed and not motors.torque.any()


def test_without_the_sdk_it_says_what_to_install(monkeypatch):
    import sys

    from robot.motorbus.dynamixel import DynamixelBus, NoSdkError

    monkeypatch.setitem(sys.modules, "dynamixel_sdk", None)
    with pytest.raises(NoSdkError, match=r"flexor\[hardware\]"):
        DynamixelBus("/dev/null", (1,))


def test_the_sdk_sets_the_drives_time_profile_and_their_watchdog():
    pytest.importorskip("dynamixel_sdk")
    from robot.motorbus.dynamixel import DynamixelBus

    port = SimulatedPort(SimulatedBus((4, 5, 6)))
    port.modes = {4: 0x01, 5: 0x05}  # one turns the other way round, and so it stays
    bus = DynamixelBus("", (4, 5, 6), port=port)
    bus.pace(0.04)
    assert port.modes == {4: 0x05, 5: 0x05, 6: 0x04}
    assert port.written[108] == [bytes([0, 0, 0, 0, 40, 0, 0, 0])]  # no acceleration: a ramp of 40 ms
    bus.guard(0.5)
    assert port.written[98] == [bytes([25])]
    bus.guard(0.0)
    assert port.written[98] == [bytes([0])]
    port.modes, port.learns = {}, False
    with pytest.raises(MotorBusError, match="time-based profile"):
        bus.pace(0.04)


def test_a_serial_adapter_that_falls_out_is_a_bus_failure_and_every_motor_is_still_told_to_let_go():
    pytest.importorskip("dynamixel_sdk")
    from robot.motorbus.dynamixel import DynamixelBus

    port = SimulatedPort(SimulatedBus((4, 5, 6)))
    bus = DynamixelBus("", (4, 5, 6), port=port)
    port.gone = True
    for call in (bus.read, lambda: bus.write_goals(np.zeros(3)), lambda: bus.pace(0.02), lambda: bus.guard(0.1)):
        port.is_using = False
        with pytest.raises(MotorBusError, match="the port is gone"):
            call()
    port.is_using = False
    with pytest.raises(MissingMotorError, match=r"4: .*5: .*6: .*switch their power off"):
        bus.set_torque(False)
    with pytest.raises(MotorBusError, match="cannot go to"):
        bus.write_goals(np.array([0.0, 1e9, 0.0]))


def test_after_half_a_packet_the_next_one_is_heard_nevertheless():
    pytest.importorskip("dynamixel_sdk")
    from robot.motorbus.dynamixel import DynamixelBus

    motors = SimulatedBus((4, 5, 6))
    port = SimulatedPort(motors)
    bus = DynamixelBus("", (4, 5, 6), port=port)
    bus.set_torque(True)
    for call in (bus.write_goals, lambda goals: bus._all(packets.GOAL_ADDRESS, b"\0\0\0\0", "goals")):
        port.short = 9
        with pytest.raises(MotorBusError, match="goals") as refused:
            call(np.full(3, 0.5))
        assert not isinstance(refused.value, PacketError)  # no motor said anything
        bus.write_goals(np.full(3, 0.2))
        np.testing.assert_allclose(motors._goal, 0.2, atol=packets.RAD_PER_TICK)
    port.short = 9
    with pytest.raises(MotorBusError):
        bus.write_goals(np.full(3, 0.5))
    bus.set_torque(False)
    assert not motors.torque.any()


def test_drives_move_their_targets_evenly_over_a_control_period():
    bus = SimulatedBus((1,))
    bus.pace(0.04)
    bus.set_torque(True)
    bus.write_goals(np.array([0.4]))
    fine = SimulatedBus((1,))  # the same ramp in a thousand small steps
    fine.set_torque(True)
    bus.advance(0.02)
    assert bus._setpoint[0] == pytest.approx(0.2)
    for k in range(1000):
        fine.write_goals(np.array([0.4 * (k + 0.5) / 1000]))
        fine.advance(0.04 / 1000)
    bus.advance(0.02)
    np.testing.assert_allclose(bus.position_rad, fine.position_rad, atol=1e-6)
    bus.advance(0.06)
    fine.write_goals(np.array([0.4]))
    fine.advance(0.06)
    np.testing.assert_allclose(bus.position_rad, fine.position_rad, atol=1e-6)


def test_a_hand_on_a_bus_is_paced_by_its_control_period_and_stops_when_nobody_speaks(made):
    backend, bus = made
    backend.reset(None, rng())
    assert bus._period_s == pytest.approx(1.0 / HZ)
    backend.step(Command(target_rad=HAND.home_rad + 0.1))
    bus.advance(1.0)
    assert bus.stopped
    stood = bus.position_rad.copy()
    backend.step(Command(target_rad=HAND.home_rad))
    np.testing.assert_allclose(bus.position_rad, stood, atol=1e-3)  # goals are refused now
    backend.reset(None, rng())
    assert not bus.stopped


def test_a_computer_that_dies_on_the_way_to_the_start_posture_leaves_nothing_turning():
    calibration = nominal(HAND)
    bus, waits = simulated(HAND, calibration), []

    def wait(dt_s):
        waits.append(dt_s)
        if len(waits) == 10:
            raise KeyboardInterrupt
        bus.advance(dt_s)

    backend = HardwareBackend(bus, HAND, calibration, control_hz=HZ, wait=wait)
    posture = HAND.home_rad + 0.8 * (HAND.upper_rad - HAND.home_rad)
    with pytest.raises(KeyboardInterrupt):
        backend.reset(RobotState(time_s=0.0, q_rad=posture, qd_rad_s=posture, target_rad=posture), rng())
    bus.advance(0.4)
    assert not bus.stopped
    bus.advance(0.2)
    assert bus.stopped


@pytest.mark.parametrize("turns", [-1, 1, 3])
def test_a_motor_that_forgot_its_turns_is_found_by_what_its_cables_allow(turns):
    calibration = nominal(HAND)
    bus = simulated(HAND, calibration)
    bus.position_rad[[3, 9]] += turns * 2.0 * np.pi  # as after a power cycle
    bus._goal, bus._setpoint = bus.position_rad.copy(), bus.position_rad.copy()
    before, furthest = bus.position_rad.copy(), []

    def wait(dt_s):
        furthest.append(np.abs(bus._goal - before).max())
        bus.advance(dt_s)

    backend = HardwareBackend(bus, HAND, calibration, control_hz=HZ, wait=wait)
    state = backend.reset(None, rng())
    np.testing.assert_allclose(state.q_rad, HAND.home_rad, atol=0.1)
    assert max(furthest) < 0.6
    backend.close()


def test_a_motor_where_its_cables_cannot_be_moves_nothing():
    calibration = nominal(HAND)
    bus = simulated(HAND, calibration)
    backend = HardwareBackend(bus, HAND, calibration, control_hz=HZ, wait=bus.advance)
    bus.position_rad[5] += np.pi  # half a turn off: slipped on its spool
    with pytest.raises(MotorBusError, match=rf"{HAND.motor_names[5]} at .* calibrate this hand again"):
        backend.reset(None, rng())
    assert not bus.torque.any()


def test_commands_that_never_leave_are_old_data(made, monkeypatch):
    backend, bus = made
    backend.reset(None, rng())
    good = backend.step(Command(target_rad=HAND.home_rad))

    def broken(goals):
        raise MotorBusError("the port is gone")

    with monkeypatch.context() as patch:
        patch.setattr(bus, "write_goals", broken)
        for _ in range(3):
            state = backend.step(Command(target_rad=HAND.home_rad + 0.1))
            assert state.time_s == good.time_s and backend.errors["MotorBusError"] > 0
    np.testing.assert_array_equal(state.target_rad, HAND.home_rad)
    assert backend.step(Command(target_rad=HAND.home_rad)).time_s > good.time_s


def test_calibration_gives_up_on_a_motor_that_meets_no_stop_and_gets_nowhere(monkeypatch):
    bus, _ = two_stops()
    monkeypatch.setattr("robot.motorbus.simulated.STIFFNESS_A_RAD", 0.5)  # it never draws what a stop draws
    with pytest.raises(CalibrationError, match="does not move"):
        run(bus)
    assert not bus.torque.any()
    bus, _ = two_stops()
    bus.temperature_c[:] = 70.0
    with pytest.raises(CalibrationError, match="let it cool"):
        run(bus)
