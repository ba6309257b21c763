"""The subcommand of this package. It prints and asks; the routine behind it does neither."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


def calibrate(
    robot: str = "hand22",
    bus: str = "sim",
    out: Path = Path("hand.toml"),
    first_id: int = 1,
    reversed_motors: tuple[str, ...] = (),
    yes: bool = False,
    json: Path | None = None,
) -> None:
    """Calibrate a tendon hand: find every motor's hard stops at a bounded push, have slack cables tensioned, write a TOML file.

    All motors move, one after the other. Torque is off however it ends; Ctrl-C stops between two ticks and writes nothing.

    Args:
        robot: Name of the robot, e.g. hand22.
        bus: A serial port such as /dev/ttyUSB0, or sim for a simulated bus with hanging cables.
        out: The file to write.
        first_id: Motor ids count up from here, in the robot's motor order.
        reversed_motors: Names of motors that are mounted the other way round.
        yes: Answer yes to every question; for a simulated bus.
        json: Write what was found to this file, too.

    Example:
        flexor calibrate --bus sim --yes --out hand.toml
        flexor calibrate --bus /dev/ttyUSB0 --out hand.toml
    """
    from robot.description import load
    from robot.errors import UnknownNameError
    from robot.motorbus import calibration as routine
    from robot.motorbus.bus import MotorBus
    from robot.motorbus.simulated import hanging_hand

    model = load(robot)
    for name in reversed_motors:
        if name not in model.motor_names:
            raise UnknownNameError("motor", name, model.motor_names)
    ids = tuple(range(first_id, first_id + len(model.motor_names)))
    directions = tuple(-1 if name in reversed_motors else 1 for name in model.motor_names)
    if bus == "sim":
        motors: MotorBus
        motors = simulated = hanging_hand(ids, model, directions)
        wait: Callable[[float], None] = simulated.advance
        tighten = dict(zip(model.motor_names, ids))
    else:
        from robot.motorbus.dynamixel import DynamixelBus

        motors, wait, simulated, tighten = DynamixelBus(bus, ids), time.sleep, None, {}

    def confirm(text: str) -> bool:
        if simulated is not None and text.partition(" ")[0] in tighten:
            simulated.tighten(tighten[text.partition(" ")[0]])  # somebody turns its tensioner
        if yes:
            print(f"{text} yes")
            return True
        taken = signal.signal(signal.SIGINT, signal.default_int_handler)  # at a question nothing moves
        try:
            return input(f"{text} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):  # nobody is there to answer, or it was answered with Ctrl-C
            return False
        finally:
            signal.signal(signal.SIGINT, taken)

    stopped: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: stopped.append(number))

    try:
        found = routine.calibrate(
            motors,
            model,
            wait=wait,
            progress=_progress(time.monotonic),
            confirm=confirm,
            should_stop=lambda: bool(stopped),
            directions=directions,
        )
    finally:
        signal.signal(signal.SIGINT, before)
        motors.close()
    found.save(out)
    slack = {name: motor.slack_rad for name, motor in found.motors.items()}
    worst = max(slack, key=slack.__getitem__)
    print(f"{out}: {len(found.motors)} motors; most slack left: {worst}, {slack[worst]:.2f} rad")
    print(f"next: flexor run hand_reach --backend hardware --bus {bus} --calibration {out}")
    if json is not None:
        from robot.report import write_json

        motors_found = {name: vars(motor) for name, motor in found.motors.items()}
        write_json(json, command="calibrate", seed=None, results={"robot": robot, "bus": bus, "motors": motors_found})


def _progress(clock: Callable[[], float]) -> Callable[[str, float], None]:
    """Says what is done, and how long the rest will take."""
    start_s = clock()

    def say(text: str, share: float) -> None:
        left = f", {(clock() - start_s) * (1.0 / share - 1.0):.0f} s left" if 0.0 < share < 1.0 else ""
        print(f"{100.0 * share:3.0f} %  {text}{left}", file=sys.stderr)

    return say
