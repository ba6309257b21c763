"""What hubs tell one another, and what a hub does with it. No sockets, no threads: sections and records come in, sections and records go out.

Each hub asks every other one, again and again: what is new with you? The answer has sections (lease, revocations, keys, decisions, robots, coverage,
catalogue), each sent only when it changed, and the records of its log. Everything merges without asking who was first: a lease by its term,
revocations and records as sets, decisions by (term, generation) from the hub that directs. A hub that hears nobody goes on alone.
"""

import contextlib
import hashlib
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fleet import mirror, revocation, shipping
from fleet.auth import AllowList
from fleet.director import Director, Kept
from fleet.disk import Disk
from fleet.errors import CatalogueError, FleetError, ForgedDocumentError, KeyFileError
from fleet.gateway import Gateway
from fleet.index import Key, Verdict
from fleet.jobs_hub import JobQueue
from fleet.jobs_shared import Ages, Told, Wish
from fleet.keys import allow_files, checked_name, expiry_in, expiry_of, load_verifier
from fleet.lease import Authority
from fleet.messages import Gossip, Gossiped, Piece, Pull, Pulled
from fleet.parts import Cutter, Joiner, digest_of, pack, unpack
from fleet.rollout import RobotView
from fleet.segment import walk
from fleet.shipping import Cover, Place
from fleet.store import Store
from fleet.wire import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

AWAY_AFTER_S = 10.0
MAX_ANSWER_BYTES = MAX_PAYLOAD_BYTES - 4096  # sections of one answer, compressed
NAME_BYTES = 128  # what a section's name takes at most
CONTRACT = "contract "  # each is a section of its own, so that many of them fit: this and its hash
LARGE = frozenset(
    {"revoked", "keys", "director", "robots", "lines", "catalogue", "jobs", "workers"}
)  # sections that may come in parts


class PeerMemory(msgspec.Struct, kw_only=True):
    """D/peers/NAME.json: how far its log was read, and what it said it holds (so that a hub that is lost for good is known by what went with it)."""

    log: str = ""
    reader: str = ""  # our own log, which has what stands before `place`
    place: tuple[int, int] = (0, 0)
    lines: list[Cover] = []


@dataclass(kw_only=True)
class Peer:
    """What is known of another hub."""

    name: str
    memory: PeerMemory = field(default_factory=PeerMemory)
    place: Place  # how far its log was taken; `memory.place`: and committed
    asked: Place | None = None  # the place of the question under way
    cover: dict[Key, Cover] = field(default_factory=dict)
    have: dict[str, bytes] = field(default_factory=dict)
    robots: dict[str, RobotView] = field(default_factory=dict)
    workers: dict[str, Wish] = field(default_factory=dict)
    gossip_s: float = 0.0  # when it was last asked what is new
    parts: Joiner = field(default_factory=lambda: Joiner(LARGE))
    files: dict[str, str] = field(default_factory=dict)
    heard_s: float | None = None

    def state(self, now_s: float) -> str:
        return "ONLINE" if self.heard_s is not None and now_s - self.heard_s < AWAY_AFTER_S else "CONNECTIONBROKEN"


class Federation:
    """One hub among others.

    Args:
        name: This hub's.
        folder, keys: Its folder and key folder.
        local_views: What it sees of robots itself.
        jobs: The queue, or the copy of it.
        local_wishes: Which of its robots want a job or have one.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        keys: Path,
        peers: list[str],
        *,
        store: Store,
        gateway: Gateway,
        director: Director,
        authority: Authority | None,
        allow: AllowList,
        local_views: Callable[[float], dict[str, RobotView]],
        jobs: JobQueue | None = None,
        local_wishes: Callable[[float], dict[str, Wish]] = lambda _now_s: {},
        disk: Disk | None = None,
    ) -> None:
        self.name, self._folder, self._keys, self._disk = name, folder, keys, disk or Disk()
        self._store, self._gateway, self._director = store, gateway, director
        self._authority, self._allow, self._local_views = authority, allow, local_views
        self._jobs, self._local_wishes = jobs, local_wishes
        self._trust = (keys / "trust/root.json").read_bytes()
        self.peers = {peer: self._remembered(peer) for peer in peers}
        self._pending: dict[str, Place] = {}  # places whose records are in the group being filled
        self._under_way: dict[str, Place] = {}  # ... and in the one that was handed over
        self._cutter = Cutter()

    # --- answering ---------------------------------------------------------------------------------------------------

    def gossiped(self, gossip: Gossip, now_s: float) -> tuple[Gossiped, bytes]:
        """Sections the asker does not have as they are now."""
        new = {n: data for n, data in self._sections(now_s).items() if gossip.have.get(n) != digest_of(data)}
        packed = {section: pack(data) for section, data in new.items()}
        for section in [s for s, data in packed.items() if len(data) + NAME_BYTES > MAX_ANSWER_BYTES]:
            del packed[section]
            cut = self._cutter.cut(section, new[section], now_s) if gossip.parts is not None else None
            if cut is None:  # nobody takes it: to be asked again at once for it would hold up the log
                self._gateway.counters["section_too_large"] += 1
            elif gossip.have.get(section) != cut.digest:
                packed |= {name: part for name, part in cut.parts.items() if name not in (gossip.parts or ())}
        sent: dict[str, bytes] = {}
        room = MAX_ANSWER_BYTES
        for section, data in packed.items():
            if len(data) + NAME_BYTES <= room:
                sent[section] = data
                room -= len(data) + NAME_BYTES
        left = len(packed) - len(sent)
        answer = Gossiped(hub=self.name, log=self._store.log_id, left=left)
        return answer, msgspec.msgpack.encode(sent)

    def pulled(self, peer: str, pull: Pull) -> tuple[Pulled, bytes]:
        """Records of our log that the asker does not hold, as far as it told us."""
        known = self.peers.get(peer)
        cover = known.cover if known and pull.log and pull.log == known.memory.log else {}  # not what a lost disk held
        end = Place(*self._store.end)
        data, place = shipping.ship(
            self._folder / "log",
            Place(pull.segment, pull.offset),
            end,
            lambda record: not record.tombstone and shipping.covers(cover.get(record.key), record.seq),
        )
        return Pulled(log=self._store.log_id, segment=place.segment, offset=place.offset, more=place < end), data

    # --- hearing -----------------------------------------------------------------------------------------------------

    def question(self, peer: str, now_s: float) -> Gossip:
        self.peers[peer].gossip_s = now_s
        return Gossip(have=self.peers[peer].have, parts=self.peers[peer].parts.names)

    def pull(self, peer: str) -> Pull:
        asker = self.peers[peer]
        asker.asked = asker.place
        return Pull(segment=asker.place.segment, offset=asker.place.offset, log=self._store.log_id)

    def hear(self, name: str, answer: Gossiped, payload: bytes, now_s: float) -> None:
        """Take a peer's sections."""
        peer = self.peers[name]
        peer.heard_s = now_s
        if answer.log != peer.memory.log:
            peer.memory.log, peer.place, peer.memory.place, peer.cover = answer.log, Place(), (0, 0), {}
            peer.have.pop("lines", None)
            for places in (self._pending, self._under_way):
                places.pop(name, None)  # they are places of the old log
        try:
            sections = msgspec.msgpack.decode(payload, type=dict[str, bytes])
        except (msgspec.MsgspecError, ValueError) as error:
            self._bad_gossip(name, "gossip", error)
            return
        for section in sorted(sections, key=lambda s: s != "lease"):  # who directs comes before what was decided
            try:  # each on its own: one that cannot be taken does not hold up the ones behind it
                if section.startswith("part "):
                    whole = peer.parts.take(section, sections[section])
                else:
                    whole = section, unpack(sections[section])
                if whole is not None:
                    self._take(peer, *whole)
                    peer.have[whole[0]] = digest_of(whole[1])
            except (msgspec.MsgspecError, zlib.error, FleetError, OSError, ValueError, RecursionError) as error:
                self._bad_gossip(name, section, error)

    def merge(self, name: str, answer: Pulled, payload: bytes, now_s: float) -> None:
        """Take records of a peer's log."""
        peer = self.peers[name]
        peer.heard_s = now_s
        if answer.log != peer.memory.log or peer.place != peer.asked:
            return  # it began a new log since, and the next gossip says so; or what stands before this was not kept
        for record in walk(payload, check_payloads=True):
            verdict = self._gateway.merge(record, record.payload(payload))
            if verdict is Verdict.GAP:
                log.debug("hub %s: a gap before %s/%s", name, record.key, record.seq)
        peer.place = Place(answer.segment, answer.offset)
        self._pending[name] = peer.place

    def file(self, name: str, piece: Piece, data: bytes) -> None:
        """Take a file of a peer's catalogue."""
        try:
            mirror.keep(self._folder / "catalogue", piece.path, data, self._trust, disk=self._disk)
        except (CatalogueError, OSError) as error:
            self._gateway.counters["bad_mirror"] += 1
            log.warning("hub %s: %s", name, error)
            self.peers[name].files.pop(piece.path, None)

    def next_file(self, name: str) -> str:
        """The file to ask a peer for, "" for none."""
        files = self.peers[name].files
        return next(iter(mirror.wanted(files, self._folder / "catalogue")), "")

    def shared(self, key: Key, now_s: float) -> int:
        """Up to which number another hub that is there holds what we hold of a line. What a hub said before this start, or before it lost its disk,
        does not count.
        """
        line = self._store.index.lines.get(key)
        if line is None:
            return 0
        ours = Cover(robot=key[0], epoch=key[1], stream=key[2], seq=line.committed.seq, holes=line.committed.holes)
        there = [p for p in self.peers.values() if p.state(now_s) == "ONLINE" and "lines" in p.have]
        return max((shipping.shared(ours, peer.cover.get(key)) for peer in there), default=0)

    # --- from the disk -----------------------------------------------------------------------------------------------

    def taken(self) -> dict[str, tuple[int, int]]:
        """Places that go with the group that is handed over now."""
        self._under_way, self._pending = self._pending, {}
        return {name: (place.segment, place.offset) for name, place in self._under_way.items()}

    def committed(self, places: dict[str, tuple[int, int]]) -> None:
        """Their records are on the disk."""
        for name, place in places.items():
            if name in self._under_way:
                self.peers[name].memory.place = place

    def aborted(self) -> None:
        """Nothing under way was kept: read those records again."""
        self._pending, self._under_way = {}, {}
        for peer in self.peers.values():
            peer.place, peer.asked = Place(*peer.memory.place), None

    def save(self) -> None:
        """Write down how far peers' logs were read. Losing it costs reading them again."""
        (self._folder / "peers").mkdir(exist_ok=True)
        for peer in self.peers.values():
            peer.memory.lines, peer.memory.reader = list(peer.cover.values()), self._store.log_id
            self._disk.write_file(self._folder / f"peers/{peer.name}.json", msgspec.json.encode(peer.memory))

    # --- what an operator sees ---------------------------------------------------------------------------------------

    def views(self, now_s: float) -> dict[str, RobotView]:
        """Robots as some hub sees them: this one, or else the one that has them online."""
        views = self._local_views(now_s)
        for peer in self.peers.values():
            if peer.state(now_s) == "ONLINE":
                for robot, view in peer.robots.items():
                    if view.online and robot in views and not views[robot].online:
                        views[robot] = view
        return views

    def wishes(self, now_s: float) -> dict[str, Wish]:
        """Robots at other hubs that want a job or have one."""
        found: dict[str, Wish] = {}
        for peer in self.peers.values():
            if peer.state(now_s) == "ONLINE":
                found |= peer.workers
        here = self._local_wishes(now_s)
        return {robot: wish for robot, wish in found.items() if robot not in here}

    def status(self, now_s: float) -> list[dict]:
        """Per peer: is it there, and how many acknowledged records only it holds (as far as it said)."""
        ours = {cover.key: cover for cover in shipping.coverage(self._store.index)}
        return [
            {
                "hub": peer.name,
                "state": peer.state(now_s),
                "only_there": sum(shipping.missing(c, ours.get(c.key)) for c in peer.cover.values()),
                "only_here": sum(shipping.missing(c, peer.cover.get(c.key)) for c in ours.values()),
            }
            for peer in self.peers.values()
        ]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _remembered(self, name: str) -> Peer:
        try:
            memory = msgspec.json.decode((self._folder / f"peers/{name}.json").read_bytes(), type=PeerMemory)
        except (OSError, msgspec.MsgspecError):
            memory = PeerMemory()
        if memory.reader != self._store.log_id:
            memory.place = (0, 0)
        return Peer(name=name, memory=memory, place=Place(*memory.place), cover={c.key: c for c in memory.lines})

    def _sections(self, now_s: float) -> dict[str, bytes]:
        pack = msgspec.msgpack.encode
        kept = msgspec.structs.replace(self._director.kept, assignments={})
        if (rollout := kept.rollout) is not None:  # to the minute, so that a running clock is not news every second
            clocks = {clock: getattr(rollout, clock) // 60.0 * 60.0 for clock in ("updated_s", "ran_s")}
            kept = msgspec.structs.replace(kept, rollout=msgspec.structs.replace(rollout, **clocks))
        keys: dict[str, tuple[str, str]] = {}
        for robot, paths in allow_files(self._keys).items():
            for path in paths:  # one that went meanwhile, or is no key of a robot, is no other hub's business
                with contextlib.suppress(OSError, UnicodeDecodeError, KeyFileError):
                    keys[path.stem] = (checked_name(robot), path.read_text())
        views = {robot: view for robot, view in self._local_views(now_s).items() if view.online}
        contracts = sorted((self._folder / "contracts").glob("*.json"))
        work: dict[str, bytes] = {}
        if self._jobs is not None and (told := self._jobs.told()) is not None:
            work = {"jobs": pack(told), "ages": pack(self._jobs.ages())}
        return {
            "lease": self._director.lease()[1],
            "revoked": pack(sorted(self._allow.revoked.values())),
            "keys": pack(dict(sorted(keys.items()))),
            "director": msgspec.json.encode(kept),
            "robots": pack(dict(sorted(views.items()))),
            "workers": pack(dict(sorted(self._local_wishes(now_s).items()))),
            **work,
            "lines": pack(shipping.coverage(self._store.index)),
            "catalogue": pack(mirror.listing(self._folder / "catalogue")),
            **{f"{CONTRACT}{path.stem}": path.read_bytes() for path in contracts},
        }

    def _take(self, peer: Peer, section: str, data: bytes) -> None:
        unpack = msgspec.msgpack.decode
        if section == "lease":
            if data and self._authority is not None and self._authority.offer(data):
                log.warning("hub %s directs now, term %d", self._authority.lease.hub, self._authority.term)  # type: ignore[union-attr]
                self._disk.write_file(self._folder / "lease", data)
        elif section == "revoked":
            self._revoke(unpack(data, type=list[bytes]))
        elif section == "keys":
            self._admit(peer.name, unpack(data, type=dict[str, tuple[str, str]]))
        elif section == "director":
            self._director.adopt(msgspec.json.decode(data, type=Kept))
        elif section == "robots":
            peer.robots = unpack(data, type=dict[str, RobotView])
        elif section == "workers":
            peer.workers = unpack(data, type=dict[str, Wish])
        elif section == "jobs":
            if self._directed_by(peer, (told := unpack(data, type=Told)).term):
                self._jobs.adopt(told, peer.name)  # type: ignore[union-attr]
        elif section == "ages":
            if self._directed_by(peer, (ages := unpack(data, type=Ages)).term):
                self._jobs.hear(ages, peer.gossip_s)  # type: ignore[union-attr]
        elif section == "lines":
            peer.cover = {cover.key: cover for cover in unpack(data, type=list[Cover])}
            self._gateway.peer_told()
        elif section == "catalogue":
            peer.files = unpack(data, type=dict[str, str])
        elif section.startswith(CONTRACT) and hashlib.sha256(data).hexdigest() not in self._store.contracts():
            self._store.add_contract(data.decode())

    def _directed_by(self, peer: Peer, term: int) -> bool:
        """Whether a hub speaks for the queue under the lease we know."""
        lease = self._authority.lease if self._authority else None
        named = lease is not None and (lease.hub, lease.term) == (peer.name, term)
        return named and self._jobs is not None and not self._director.directs

    def _bad_gossip(self, name: str, what: str, error: Exception) -> None:
        self._gateway.counters["bad_gossip"] += 1
        log.warning("hub %s: %s: %s: %s", name, what, type(error).__name__, error)

    def _revoke(self, documents: list[bytes]) -> None:
        fresh = [d for d in documents if d not in self._allow.revoked.values()]
        if not fresh:
            return
        operator = load_verifier(self._keys, "operator")
        for document in fresh:
            try:
                revocation.keep(self._keys, document, revocation.verify(document, operator), disk=self._disk)
            except ForgedDocumentError as error:
                self._gateway.counters["bad_revocation"] += 1
                log.warning("%s", error)
        self._allow.refresh()

    def _admit(self, peer: str, keys: dict[str, tuple[str, str]]) -> None:
        """Robots that another hub let in. A key that was revoked stays out; one that ends to count ends here too."""
        for stem, (robot, text) in keys.items():
            path = self._keys / f"allow/{stem}.key"
            try:
                if stem.partition(".")[0] != checked_name(robot) or path.name != f"{stem}.key":
                    raise KeyFileError(f"allow/{stem}.key is not of {robot!r}")
                expires_s = expiry_in(text)
            except KeyFileError as error:
                self._bad_gossip(peer, "keys", error)
                continue
            if not path.exists() or expires_s < expiry_of(path):
                self._disk.write_file(path, text.encode())
        self._allow.refresh()
