"""Serve an environment's robot to a controller in another process: `python -m sim.serve --env ... --socket PATH`.

The process dies with its parent and, on SIGINT or SIGTERM, leaves no socket file.
"""

import argparse

from robot.errors import UnknownNameError
from robot.link import RobotSide, host
from robot.mock import mock_side

ENGINES = ("pybullet", "mujoco", "mock")
MOCK_HZ = 25.0


def robot_side(env_id: str, robot: str, engine: str) -> RobotSide:
    """The robot of an environment, and the task beside it, as `robot.link.serve` wants them.

    Args:
        env_id: Environment, as in `gymnasium.make`.
        robot: Description, as in `robot.description.load`.
        engine: One of `ENGINES`.

    Raises:
        UnknownNameError: Unknown environment, robot or engine.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "mock":
        return mock_side(env_id, robot, MOCK_HZ)
    from sim.env import robot_side as engine_side  # engines load only where one is wanted

    return engine_side(env_id, robot, engine)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.serve", description=__doc__)
    parser.add_argument("--env", default="flexor/HandReach-v0", help="environment id")
    parser.add_argument("--robot", default="hand22", help="robot description")
    parser.add_argument("--engine", default="pybullet", help=", ".join(ENGINES))
    parser.add_argument("--socket", required=True, help="unix socket to make")
    parser.add_argument("--parent", type=int, default=None, help="process id to die with")
    args = parser.parse_args(argv)
    host(lambda: robot_side(args.env, args.robot, args.engine), args.socket, parent_pid=args.parent)


if __name__ == "__main__":
    main()
