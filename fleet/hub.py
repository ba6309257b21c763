"""The hub: one process that robots dial. It keeps what they send, tells them what to run, and answers its operator.

    P     control: HELLO, heartbeats, assignments, audits          CURVE, domain "fleet"
    P+1   bulk: records and acknowledgements, catalogue files      CURVE, domain "fleet"
    P+3   the other hubs: what is new, records, catalogue          CURVE, domain "hubs", only with peers
    P+2   operator: status, deploy, hold, rollback                 CURVE, domain "admin", loopback always

One loop, one commit thread, one authentication thread. It announces itself only after it has tried its own door. SIGTERM and SIGINT finish the
group under way, acknowledge it, and leave.
"""

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zmq

from fleet import reasons
from fleet.answers import pack_answer
from fleet.auth import ADMIN, FLEET, HUBS, AllowList, Authenticator, self_test
from fleet.catalogue import Catalogue, make_root
from fleet.committer import Committer
from fleet.director import Director
from fleet.disk import Disk
from fleet.errors import FleetError, StoreFullError, StoreSuspectError, WireError
from fleet.federation import Federation
from fleet.gateway import Gateway, Reply, read_result
from fleet.index import Key
from fleet.jobs import LEASE_S
from fleet.jobs_hub import JobQueue
from fleet.keyring import KeyFolder
from fleet.keys import load_hub_pair, load_public, load_signing_key
from fleet.kick import Connections
from fleet.lease import load_authority
from fleet.messages import Answer, Ask
from fleet.metrics import HubMetrics
from fleet.office import Office
from fleet.overview import behind, overview
from fleet.peers import Peers
from fleet.sockets import (
    ADMIN_OFFSET,
    BULK_OFFSET,
    BULK_THREADS,
    CONTROL_THREADS,
    HUBS_OFFSET,
    IO_THREADS,
    HubAddress,
    contents,
    listen,
    receive,
)
from fleet.status import Count, robot_views, status, wishes
from fleet.store import RESERVE_BYTES, Store, audit, read_log
from fleet.web.child import PageProcess
from fleet.wire import EVENTS, decode
from robot import drawn
from robot.errors import FlexorError, UnknownNameError

log = logging.getLogger(__name__)

TICK_S = 0.25
RESIGN_CHECK_S = 600.0  # how often the catalogue's expiry is looked at
FACTS_S = 5.0  # how often the catalogue and the learners' counts are read again for those who look
BURST = 256  # messages taken from one socket before the others get their turn


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """How a hub is started.

    Attributes:
        folder: Its log, catalogue and decisions.
        keys: Key folder, with the hub's, the director's and the online catalogue keys.
        port: Control; the two after it are used too.
        host: Address to listen on. Loopback unless robots are on other machines.
        lease_s: How long a robot that is not heard of keeps its job [s].
        peers: The other hubs, NAME@HOST:PORT of their control ports; then this one has a key `hubs/NAME` and listens for them on port+3.
        web_port, metrics_port: Of the page and of Prometheus' figures, on loopback; None for none.
        web_names: Host names under which a proxy shows the page.
        packs: Folder of packs that learners draw from, to show how much; None where it is not known.
    """

    folder: Path
    keys: Path
    port: int = 5570
    host: str = "127.0.0.1"
    name: str = "hub"
    segment_bytes: int = 128 << 20
    reserve_bytes: int = RESERVE_BYTES
    lease_s: float = LEASE_S
    peers: tuple[HubAddress, ...] = ()
    web_port: int | None = None
    metrics_port: int | None = None
    web_names: tuple[str, ...] = ()
    packs: Path | None = None


class Hub:
    """An open hub; `run` serves until told to stop.

    Raises:
        PortInUseError, StoreBusyError, LooseSecretError, KeyFileError, SelfTestError: It does not start, and says why.
    """

    def __init__(self, config: HubConfig, *, disk: Disk | None = None) -> None:
        self.config, self._disk = config, disk or Disk()
        pair = load_hub_pair(config.keys, config.name)
        self._allow = AllowList(config.keys, load_public(config.keys / "admin.key"))
        director_key = load_signing_key(config.keys, "director")
        config.folder.mkdir(parents=True, exist_ok=True)
        self._context = zmq.Context(io_threads=IO_THREADS)
        self._authenticator = Authenticator(self._context, self._allow)
        self._sockets: list[zmq.Socket] = []
        self._next_resign_s, self._next_facts_s, self._began_s = 0.0, 0.0, time.monotonic()
        self._facts: tuple[dict[str, list[str]], dict[str, float], int | None] = {}, {}, None
        self._store: Store | None = None
        self._jobs: JobQueue | None = None
        ports = tuple(dict.fromkeys(p for p in (config.web_port, config.metrics_port) if p is not None))
        own_key = (config.keys / f"hubs/{config.name}.key").exists()
        local = f"{config.name}@127.0.0.1:{config.port}" if own_key else f"127.0.0.1:{config.port}"
        self._page = PageProcess(local, config.keys, ports, config.web_names) if ports else None
        self._committer: Committer | None = None
        self._peers: Peers | None = None
        self._connections = Connections()
        self._counts: list[tuple[bytes, Count | str]] = []  # made by helper threads: the log counted, or why not
        try:
            self._control = self._listen(pair, FLEET, config.host, config.port, "control")
            self._bulk = self._listen(pair, FLEET, config.host, config.port + BULK_OFFSET, "bulk", BULK_THREADS)
            self._admin = self._listen(pair, ADMIN, "127.0.0.1", config.port + ADMIN_OFFSET, "admin")
            self._hubs = None
            if config.peers:
                self._hubs = self._listen(pair, HUBS, config.host, config.port + HUBS_OFFSET, "hubs")
            door = "127.0.0.1" if config.host in ("0.0.0.0", "*") else config.host
            endpoints = [f"tcp://{door}:{port}" for port in (config.port, config.port + BULK_OFFSET)]
            for socket, endpoint in zip((self._control, self._bulk), endpoints):
                self_test(self._context, self._allow, endpoint, socket, pair.public)
            self.store = self._store = Store(
                config.folder,
                hub=config.name,
                disk=disk,
                segment_bytes=config.segment_bytes,
                reserve_bytes=config.reserve_bytes,
            )
            self._authority = load_authority(config.keys, config.folder)
            self.director = Director(
                config.folder / "director.json", director_key, disk=disk, hub=config.name, authority=self._authority
            )
            self.jobs = self._jobs = JobQueue(
                config.folder / "jobs.log",
                hub=config.name,
                utc_s=time.time,
                now_s=time.monotonic,
                lease_s=config.lease_s,
                disk=disk,
                duty=self.director,
            )
            self.metrics = HubMetrics()
            page = f"http://127.0.0.1:{config.web_port}/" if config.web_port is not None else ""
            self.office = Office(config.name, self.jobs, page)
            for record, payload in read_log(config.folder, {EVENTS}):
                result = None if record.tombstone else read_result(payload)
                if result is not None:
                    self.director.note(record.key, record.seq, result)
                elif not record.tombstone:
                    self.office.happened(record.key, record.seq, payload, again=True)
            make_root(config.keys, datetime.now(UTC))
            self.catalogue = Catalogue(config.folder / "catalogue", config.keys)
            self.gateway = Gateway(
                config.name,
                self._allow.admits,
                self.store,
                self.director,
                self.catalogue,
                self.jobs,
                self.office.happened,
                KeyFolder(config.keys, self._allow),
            )
            self.federation = Federation(
                config.name,
                config.folder,
                config.keys,
                [peer.name for peer in config.peers],
                store=self.store,
                gateway=self.gateway,
                director=self.director,
                authority=self._authority,
                allow=self._allow,
                local_views=lambda now_s: robot_views(self.gateway, self._allow.names, now_s),
                jobs=self.jobs,
                local_wishes=lambda now_s: wishes(self.gateway, self._allow.names, now_s),
                disk=disk,
            )
            self.gateway.shared = lambda key: self.federation.shared(key, time.monotonic())
            self._peers = Peers(self._context, config.keys, config.name, config.peers, self.federation)
            self._committer = Committer(self.store)
            self._recovery_s = time.monotonic() - self._began_s
        except BaseException:
            self.close()
            raise

    def run(self, stopped: Callable[[], bool]) -> None:
        """Serve until `stopped()`; what was accepted until then is written and acknowledged.

        Raises:
            StoreSuspectError: The disk refused a sync. Start the hub again.
        """
        assert self._committer is not None
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        poller.register(self._committer.wake, zmq.POLLIN)
        next_tick_s = 0.0
        while not stopped():
            assert self._peers is not None
            ready = dict(poller.poll(2 if self._peers.busy else 100))
            now_s = time.monotonic()
            if self._committer.wake.fileno() in ready or self._committer.wake in ready:
                self._committer.drain_wake()
            self._settle()
            for socket in (self._control, self._bulk):
                if socket in ready:
                    self._serve(socket, now_s)
            if self.gateway.group.parts:
                self.metrics.filling(now_s)
            if self._admin in ready:
                self._serve_admin(now_s)
            if self._hubs is not None:
                self._serve_hubs(self._hubs, now_s)
            while self._counts:
                self._send_count(*self._counts.pop(), now_s)
            self._submit()
            self._send_all(self._bulk, self.gateway.flush())
            if now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self._tick(now_s)
        self._finish()

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        if self._committer is not None:
            self._committer.close()
            self._committer = None
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._jobs is not None:
            self._jobs.close()
            self._jobs = None
        if self._peers is not None:
            self._peers.close()
            self._peers = None
        for socket in self._sockets:
            socket.close(0)
        self._sockets = []
        if not self._context.closed:
            self._authenticator.close()
            self._context.destroy(0)

    # --- the loop's parts --------------------------------------------------------------------------------------------

    def _listen(
        self, pair: Any, domain: str, host: str, port: int, what: str, threads: int = CONTROL_THREADS
    ) -> zmq.Socket:
        socket = listen(self._context, pair, domain, host, port, what, threads)
        self._sockets.append(socket)
        return socket

    def _serve(self, socket: zmq.Socket, now_s: float) -> None:
        for _ in range(BURST):
            try:
                frames = receive(socket)
            except zmq.Again:
                return
            try:
                user_id = str(frames[-1].get("User-Id"))
            except (zmq.ZMQError, UnicodeDecodeError):
                self.gateway.counters["no_identity"] += 1
                continue
            routing_id, rest = frames[0].bytes, contents(frames[1:])
            self._connections.heard(socket.underlying, routing_id, frames[-1])
            try:
                replies = self.gateway.receive(routing_id, user_id, rest, now_s)
            except (StoreSuspectError, StoreFullError, MemoryError):
                raise
            except Exception:  # a mistake of ours that one robot found must not take the others' hub away
                log.exception("a message of %s could not be answered; its connection is cut", user_id)
                self.gateway.counters["failed"] += 1
                self._connections.cut(routing_id)
                continue
            self._send_all(socket, replies)

    def _serve_hubs(self, socket: zmq.Socket, now_s: float) -> None:
        """Answer other hubs, and ask them."""
        for _ in range(len(self.config.peers)):
            try:
                frames = receive(socket)
            except zmq.Again:
                break
            routing_id, *rest = [frame.bytes for frame in frames]
            assert self._peers is not None
            user_id = str(frames[-1].get("User-Id"))
            if not self._allow.admits_hub(user_id):
                self.gateway.counters["revoked"] += 1
                continue
            peer = user_id.partition("#")[0]
            try:
                answer = self._peers.answer(peer, rest, now_s, self.catalogue)
            except (StoreSuspectError, StoreFullError, MemoryError):
                raise
            except Exception:
                log.exception("a question of hub %s could not be answered", peer)
                self.gateway.counters["failed"] += 1
                continue
            if answer is not None:
                self._send(socket, (routing_id, answer))
        assert self._peers is not None
        self._peers.tick(now_s, self.gateway.group.size_bytes)

    def _submit(self) -> None:
        assert self._committer is not None
        if not self._committer.busy:
            group = self.gateway.take_group()
            if group is not None:
                group.places = self.federation.taken()
                self.metrics.submitted(group.size_bytes, time.monotonic())
                self._committer.submit(group)

    def _settle(self) -> None:
        assert self._committer is not None
        outcome = self._committer.outcome()
        if outcome is None:
            return
        if outcome.error is None:
            self.metrics.committed(time.monotonic())
            self.gateway.committed(outcome.group)
            self.federation.committed(outcome.group.places)
        elif isinstance(outcome.error, StoreFullError):
            log.warning("%s", outcome.error)
            self._send_all(self._bulk, self.gateway.aborted())
            self.federation.aborted()
        else:
            raise outcome.error

    def _tick(self, now_s: float) -> None:
        self._allow.refresh()
        for robot in self._allow.take_cut():
            self.gateway.cut(robot)
        while self.gateway.to_kick:
            self._connections.cut(self.gateway.to_kick.pop())
        self._connections.keep(self.gateway.roster.sessions)
        try:
            self._look_for_lease()
            self.director.tick(time.time(), self._views(now_s))
        except (
            OSError
        ) as error:  # the disk is full, mostly: what could not be written down does not count, and is tried again
            self.gateway.counters["undecided"] += 1
            if self.gateway.counters["undecided"] % 240 == 1:  # once a minute
                log.warning("deployments stand still: %s", error)
        self.jobs.tick()
        if self.director.directs:
            for robot, wish in self.federation.wishes(now_s).items():
                self.jobs.heard(robot, wish)  # the hub it is at passes on what it gets
        if self._page is not None:
            self._page.tick(now_s)
        if now_s >= self._next_resign_s:
            self._next_resign_s = now_s + RESIGN_CHECK_S
            try:
                if self.director.directs:  # one hub signs; the others copy
                    self.catalogue.refresh(datetime.now(UTC))
            except (FlexorError, OSError) as error:
                log.warning("the catalogue was not signed again: %s", error)

    def _look_for_lease(self) -> None:
        """The operator may have signed one on this machine."""
        path = self.config.keys / "lease"
        if self._authority is not None and path.exists() and self._authority.offer(document := path.read_bytes()):
            self._disk.write_file(
                self.config.folder / "lease", document
            )  # if it is not: the operator's file is read at a start, too

    def _finish(self) -> None:
        """Write and acknowledge what was accepted."""
        assert self._committer is not None
        for _ in range(2):  # the group under way, and the one that filled meanwhile
            while self._committer.busy:
                self._settle()
                time.sleep(0.001)
            self._submit()
        while self._committer.busy:
            self._settle()
            time.sleep(0.001)
        self._send_all(self._bulk, self.gateway.flush())
        for socket in self._sockets:
            socket.close(200)  # a fifth of a second for the last acknowledgements
        self._sockets = []

    def _send_all(self, socket: zmq.Socket, replies: list[Reply]) -> None:
        for reply in replies:
            self._send(socket, reply)

    def _send(self, socket: zmq.Socket, reply: Reply) -> None:
        try:
            socket.send_multipart([reply[0], *reply[1]], zmq.NOBLOCK)
        except zmq.ZMQError:  # it is gone, or does not read: heartbeats repeat what matters
            self.gateway.counters["unsent"] += 1

    def _views(self, now_s: float) -> dict:
        return self.federation.views(now_s)

    # --- the operator ------------------------------------------------------------------------------------------------

    def _serve_admin(self, now_s: float) -> None:
        try:
            routing_id, *frames = self._admin.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            message = decode(frames).message
        except WireError as error:
            self._send(self._admin, (routing_id, pack_answer(Answer(ok=False, error=str(error)))))
            return
        if not isinstance(message, Ask):
            self._send(self._admin, (routing_id, pack_answer(Answer(ok=False, error="only ASK is spoken here"))))
            return
        if message.command == "status" and message.arguments.get("count"):
            floor = {key: line.committed.seq for key, line in self.store.index.lines.items()}
            threading.Thread(target=self._count, args=(routing_id, floor), daemon=True).start()
            return
        self._send(self._admin, (routing_id, pack_answer(self._answer(message, now_s))))

    def _count(self, routing_id: bytes, floor: dict[Key, int]) -> None:
        """Read the whole log, apart from the loop."""
        try:
            lines = {(x.robot, x.epoch, x.stream): x for x in audit(self.config.folder)}
            self._counts.append((routing_id, Count(lines=lines, floor=floor)))
        except Exception as error:  # top of a thread: the operator is told
            self._counts.append((routing_id, f"{type(error).__name__}: {error}"))
        if self._committer is not None:
            self._committer.nudge()

    def _send_count(self, routing_id: bytes, count: Count | str, now_s: float) -> None:
        failed = isinstance(count, str)
        answer = Answer(ok=False, error=count) if failed else Answer(ok=True, body=self._status(now_s, count))
        self._send(self._admin, (routing_id, pack_answer(answer)))

    def _answer(self, ask: Ask, now_s: float) -> Answer:
        commands: dict[str, Callable[[], dict[str, Any]]] = {
            "status": lambda: self._status(now_s, None),
            "where": lambda: {"catalogue": str((self.config.folder / "catalogue").resolve())},
            "deploy": lambda: self._deploy(ask.arguments, now_s),
            "hold": lambda: _told(self.director.hold(time.time(), self._views(now_s))),
            "resume": lambda: _told(self.director.resume(time.time(), self._views(now_s))),
            "rollback": lambda: _told(self.director.rollback(time.time(), self._views(now_s))),
            **self.office.commands(ask.arguments, lambda: self._overview(now_s)),
        }
        try:
            if ask.command not in commands:
                raise UnknownNameError("command", ask.command, commands)
            return Answer(ok=True, body=commands[ask.command]())
        except (StoreSuspectError, MemoryError):
            raise
        except FlexorError as error:
            return Answer(ok=False, error=str(error)[:4000])
        except Exception as error:  # whatever an operator's tool asks for, robots are served
            log.exception("the operator's %r could not be answered", ask.command)
            return Answer(ok=False, error=f"{ask.command}: {type(error).__name__}: {error}"[:4000])

    def _deploy(self, arguments: dict[str, Any], now_s: float) -> dict[str, Any]:
        ref = self.catalogue.find(str(arguments["name"]), str(arguments["version"]))
        plan = str(arguments.get("plan", "quick"))
        return _told(self.director.deploy(ref, plan, time.time(), self._views(now_s)))

    def _overview(self, now_s: float) -> dict[str, Any]:
        view = None if self.director.kept.rollout is None else self.director.view(time.time(), self._views(now_s))
        body = overview(self.gateway, self.store, self.director.kept.rollout, view, self._allow.names, now_s)
        if now_s >= self._next_facts_s:
            self._next_facts_s = now_s + FACTS_S
            versions, expiry_s = self.catalogue.facts(datetime.now(UTC))
            self._facts = versions, expiry_s, None if self.config.packs is None else drawn.total(self.config.packs)
        versions, expiry_s, steps_drawn = self._facts
        for robot in body["robots"]:
            robot["behind"] = behind(versions, robot["artifact"]) if robot["state"] == "ONLINE" else None
        rolled_back = [
            s.reason for s in (*self.director.kept.past, self.director.kept.rollout) if s and s.status == "rolled_back"
        ]
        figures = {
            "expiry_s": expiry_s,
            "drawn": steps_drawn,
            "rollbacks": dict(Counter(map(reasons.rollback, rolled_back))),
            "refused_keys": self._allow.denied,
            "metrics": self.metrics.plain(),
            "up_s": now_s - self._began_s,
            "recovery_s": self._recovery_s,
            "hubs": self.federation.status(now_s),
        }
        return {**body, **figures, "banned": list(self.director.kept.banned)}

    def _status(self, now_s: float, count: Count | None) -> dict[str, Any]:
        body = status(self.gateway, self.store.index, self.director, self._allow.names, now_s, count)
        directs = {
            "directs": self.director.directs,
            "term": self.director.lease()[0],
            "hubs": self.federation.status(now_s),
        }
        return {"hub": self.config.name, "refused_keys": self._allow.denied, **directs, **body}


def _told(state: Any) -> dict[str, Any]:
    return {"rollout": state.plan.id, "status": state.status, "stage": state.stage_name, "reason": state.reason}


def serve(config: HubConfig) -> None:
    """The whole life of a hub process.

    Raises:
        FleetError: It could not start, or the disk failed.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    hub = Hub(config)
    try:
        lines = len(hub.store.index.lines)
        print(
            f"hub {config.name} ready on {config.host}, ports {config.port} (control), {config.port + BULK_OFFSET} (bulk), "
            f"{config.port + ADMIN_OFFSET} (operator, this machine only); {lines} streams in the log",
            flush=True,
        )
        if config.host in ("0.0.0.0", "*"):
            log.warning("listening on every address; robots need a key, but do you want that?")
        hub.run(stop.is_set)
    finally:
        hub.close()
    print(f"hub {config.name} stopped; everything acknowledged is on the disk", flush=True)


__all__ = ["FleetError", "Hub", "HubConfig", "serve"]
