"""Who is there: sessions, the last heartbeat of every robot, the audits. Pure; time is passed in.

A session is a 16-byte routing id the robot made up, bound to the identity its key gave it. The same robot saying hello on another routing id
replaces the older session.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from fleet import reasons
from fleet.index import Key
from fleet.messages import MAX_COUNT, AckLevel, Heartbeat, Hello
from fleet.wire import STREAMS

BROKEN_AFTER_S = 5.0  # five missed heartbeats
LOST_AFTER_S = 24 * 3600.0
MAX_EPOCHS = 64  # of one robot, whose counts are remembered: the newest

_STREAMS = frozenset(STREAMS.values())

RobotState = Literal["ONLINE", "OFFLINE", "CONNECTIONBROKEN", "LOST", "NEVER"]


@dataclass(slots=True, kw_only=True)
class Session:
    """One live connection of a robot.

    Attributes:
        nacked: Per stream, the cursor a gap was last reported at; one report per place is enough.
        unacked_bytes: Taken from it and not on the disk yet.
        ack: What it wants to be told: "local" or "peer".
        ack_due: Something was committed, or a duplicate came, since the last acknowledgement.
    """

    routing_id: bytes
    robot: str
    epoch: int
    ack: AckLevel = "local"
    nacked: dict[int, int] = field(default_factory=dict)
    ack_due: bool = False
    unacked_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Member:
    """What is known of a robot, whether it is connected or not.

    Attributes:
        recorded, recorded_items: Per epoch and stream, what the robot says it has recorded.
        audited: Per line, the number up to which its digest and ours were compared last, and whether they were equal.
        asked: Per line, what we asked for and what we hold there.
    """

    name: str
    last_seen_s: float | None = None
    left: bool = False
    epoch: int = 0
    heartbeat: Heartbeat | None = None
    recorded: dict[tuple[int, int], int] = field(default_factory=dict)
    recorded_items: dict[tuple[int, int], int] = field(default_factory=dict)
    audited: dict[Key, tuple[int, bool]] = field(default_factory=dict)
    asked: dict[Key, tuple[int, bytes]] = field(default_factory=dict)

    def state(self, now_s: float) -> RobotState:
        """VDA 5050's words: OFFLINE said goodbye, CONNECTIONBROKEN vanished."""
        if self.last_seen_s is None:
            return "NEVER"
        if self.left:
            return "OFFLINE"
        silent_s = now_s - self.last_seen_s
        if silent_s < BROKEN_AFTER_S:
            return "ONLINE"
        return "CONNECTIONBROKEN" if silent_s < LOST_AFTER_S else "LOST"


class Roster:
    """All sessions and members."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.members: dict[str, Member] = {}
        self.refusals: Counter[str] = Counter()  # why -> how often a robot began to refuse what it should run

    def member(self, robot: str) -> Member:
        member = self.members.get(robot)
        if member is None:
            member = self.members[robot] = Member(name=robot)
        return member

    def hello(self, routing_id: bytes, robot: str, hello: Hello, now_s: float) -> tuple[Session, bytes | None]:
        """Open a session; returns it and the routing id it replaces, if any."""
        old = next((s for s in self.sessions.values() if s.robot == robot and s.routing_id != routing_id), None)
        if old is not None:
            del self.sessions[old.routing_id]
        session = Session(routing_id=routing_id, robot=robot, epoch=hello.epoch, ack=hello.ack)
        self.sessions[routing_id] = session
        member = self.member(robot)
        member.epoch, member.last_seen_s, member.left = hello.epoch, now_s, False
        self._note(member, hello.epoch, hello.recorded, {})
        return session, old.routing_id if old else None

    def seen(self, robot: str, now_s: float) -> None:
        """Any message counts as a sign of life."""
        self.member(robot).last_seen_s = now_s

    def heartbeat(self, session: Session, heartbeat: Heartbeat) -> Member:
        member = self.member(session.robot)
        if heartbeat.refused and (member.heartbeat is None or member.heartbeat.refused != heartbeat.refused):
            why = reasons.refusal(heartbeat.refused)
            known = why in self.refusals or len(self.refusals) < reasons.MAX_KINDS
            self.refusals[why if known else "other"] += 1
        member.heartbeat = heartbeat
        self._note(member, session.epoch, heartbeat.recorded, heartbeat.recorded_items)
        return member

    def bye(self, session: Session) -> None:
        self.member(session.robot).left = True
        self.sessions.pop(session.routing_id, None)

    def drop(self, robot: str) -> list[bytes]:
        """Close a robot's sessions (its key was revoked); returns their routing ids."""
        gone = [s.routing_id for s in self.sessions.values() if s.robot == robot]
        for routing_id in gone:
            del self.sessions[routing_id]
        return gone

    @staticmethod
    def _note(member: Member, epoch: int, recorded: dict[int, int], items: dict[int, int]) -> None:
        """What a robot says it has; streams that are none and numbers that cannot be are not believed."""
        for told, kept in ((recorded, member.recorded), (items, member.recorded_items)):
            for stream, count in told.items():
                if stream in _STREAMS and 0 <= count <= MAX_COUNT:
                    kept[epoch, stream] = max(count, kept.get((epoch, stream), 0))
            while len(kept) > MAX_EPOCHS * len(_STREAMS):
                del kept[next(iter(kept))]
