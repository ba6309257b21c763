"""The process that shows a hub: `flexor fleet web`, also started by `flexor fleet hub --web PORT --metrics PORT`. Loopback only."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fleet.errors import PortInUseError
from fleet.processes import follow_parent
from fleet.web.app import make_app
from fleet.web.doors import Doors, page_secret
from fleet.web.line import HubLine
from robot.errors import FlexorError

HOST = "127.0.0.1"
LEAVING_S = 1


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """What to show, and where.

    Attributes:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        ports: To listen on; the page and the figures are on each of them.
        names: Host names of a proxy of yours.
    """

    hub: str
    keys: Path
    ports: tuple[int, ...]
    names: tuple[str, ...] = ()


class _Server(uvicorn.Server):
    """Leaves signals to us: two servers in one process share them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(config: WebConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        PortInUseError: A port is taken.
    """
    line = HubLine(config.hub, config.keys)
    try:
        asyncio.run(_serve(config, line))
    finally:
        line.close()


async def _serve(config: WebConfig, line: HubLine) -> None:
    app = make_app(line, Doors(page_secret(config.keys)), config.names)
    servers = [
        _Server(
            uvicorn.Config(
                app,
                host=HOST,
                port=port,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=LEAVING_S,
                lifespan="off",
                ws="none",
            )
        )
        for port in config.ports
    ]

    def leave() -> None:
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    tasks = [asyncio.create_task(_run(server)) for server in servers]
    while not all(server.started for server in servers) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    if all(server.started for server in servers):
        print(f"page of {config.hub} on " + ", ".join(f"http://{HOST}:{port}/" for port in config.ports), flush=True)
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    leave()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _run(server: uvicorn.Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # what uvicorn says when it cannot bind
        raise PortInUseError(f"port {server.config.port} on {HOST} is in use; choose another one") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fleet.web.serve")
    parser.add_argument("--hub", required=True)
    parser.add_argument("--keys", required=True, type=Path)
    parser.add_argument("--ports", required=True, type=int, nargs="+")
    parser.add_argument("--names", default=[], nargs="*")
    words = parser.parse_args()
    follow_parent()
    try:
        serve(WebConfig(hub=words.hub, keys=words.keys, ports=tuple(words.ports), names=tuple(words.names)))
    except FlexorError as error:
        print(f"the hub's page: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
