"""ZeroMQ options both sides use, set before bind or connect. Where they come from: the ZeroMQ Guide and measured partitions."""

from collections.abc import Iterable
from dataclasses import dataclass

import zmq

from fleet.auth import secure_client, secure_server
from fleet.errors import FleetError, PortInUseError
from fleet.keys import CurvePair, checked_name
from fleet.wire import Payload

MAX_FRAME_BYTES = 2 << 20
BACKLOG = 4096  # connections that wait to be taken: a fleet that comes back at once; ZeroMQ's own 100 overflows with some hundred robots
VIEW_BYTES = 16 << 10  # from here on a view of a frame is cheaper than a copy
IO_THREADS, CONTROL_THREADS, BULK_THREADS = (
    3,
    0b001,
    0b110,
)  # decryption is done in them: two for the bulk, and none of it delays a heartbeat
BULK_OFFSET, ADMIN_OFFSET, HUBS_OFFSET = (
    1,
    2,
    3,
)  # control is on the port itself; the last one only where there are several hubs


class EndpointError(FleetError, ValueError):
    """An address that is not HOST:PORT."""


def parse_endpoint(text: str) -> tuple[str, int]:
    """HOST and PORT of "HOST:PORT".

    Raises:
        EndpointError: It is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 - HUBS_OFFSET:
        raise EndpointError(f"expected HOST:PORT, for example 127.0.0.1:5570, got {text!r}")
    return host, int(port)


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """Where a hub is, and which: with several hubs each has a key of its own, `hubs/NAME.key`."""

    host: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.host}:{self.port}" if self.name else f"{self.host}:{self.port}"


def parse_hub(text: str) -> HubAddress:
    """A hub's address in HOST:PORT or NAME@HOST:PORT.

    Raises:
        EndpointError: It is something else.
    """
    name, at, rest = text.strip().rpartition("@")
    host, port = parse_endpoint(rest)
    return HubAddress(host=host, port=port, name=checked_name(name) if at else "")


def tune(socket: zmq.Socket) -> None:
    """Timeouts and limits. Heartbeats here only find dead connections; whether the other process lives is asked above."""
    for option, value in (
        (zmq.MAXMSGSIZE, MAX_FRAME_BYTES),
        (zmq.SNDHWM, 64),
        (zmq.RCVHWM, 64),
        (zmq.LINGER, 0),
        (zmq.HEARTBEAT_IVL, 2000),
        (zmq.HEARTBEAT_TIMEOUT, 6000),
        (zmq.HEARTBEAT_TTL, 6000),
        (zmq.HANDSHAKE_IVL, 15000),  # thousands that come at once take more than 5 s: all would be cut, and come again
        (zmq.TCP_MAXRT, 15000),
    ):
        socket.setsockopt(option, value)


def listen(
    context: zmq.Context, pair: CurvePair, domain: str, host: str, port: int, what: str, threads: int = CONTROL_THREADS
) -> zmq.Socket:
    """A bound ROUTER that only lets known keys in.

    Args:
        threads: The context's input-output threads that may serve its connections, as bits. ZeroMQ gives a connection to the one with the fewest:
            were all allowed, robots that open control and bulk in turn would have all their bulk in one.

    Raises:
        PortInUseError: The port is taken; it is named, and so is its purpose.
    """
    socket = context.socket(zmq.ROUTER)
    tune(socket)
    socket.setsockopt(zmq.AFFINITY, threads)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    secure_server(socket, pair, domain)
    try:
        socket.bind(f"tcp://{host}:{port}")
    except zmq.ZMQError as error:
        socket.close(0)
        if error.errno == zmq.EADDRINUSE:
            raise PortInUseError(
                f"port {port} ({what}) on {host} is in use, perhaps by another hub; do: flexor fleet hub --port OTHER "
                f"(it needs OTHER to OTHER+{HUBS_OFFSET})"
            ) from error
        raise PortInUseError(f"cannot listen on {host}:{port} ({what}): {error}") from error
    return socket


def dial(
    context: zmq.Context, pair: CurvePair, hub_public: bytes, endpoint: str, routing_id: bytes = b""
) -> zmq.Socket:
    """A DEALER on its way to a hub. It does not queue to a connection that is not there yet."""
    socket = context.socket(zmq.DEALER)
    tune(socket)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 10000)  # as with the handshake; the uplink gives up sooner and dials anew
    socket.setsockopt(zmq.RECONNECT_IVL, 200)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    if routing_id:
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
    secure_client(socket, pair, hub_public)
    socket.connect(endpoint)
    return socket


def receive(socket: zmq.Socket) -> list[zmq.Frame]:
    """A message's frames without copying them; half the time of `recv_multipart`, which asks the socket after every one whether there are more.

    Raises:
        zmq.Again: There is none.
    """
    frame: zmq.Frame = socket.recv(zmq.NOBLOCK, copy=False)  # type: ignore[assignment]
    frames = [frame]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)  # type: ignore[assignment]
        frames.append(frame)
    return frames


def contents(frames: Iterable[zmq.Frame]) -> list[Payload]:
    """What is in some frames: large ones as views of the memory they came into."""
    return [frame.buffer if len(frame) >= VIEW_BYTES else frame.bytes for frame in frames]
