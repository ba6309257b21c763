"""Sections of gossip that do not fit into one answer: cut into parts, and put together again. Pure.

A section that changes every second would never arrive whole if its parts were of different moments. So it is cut once and stays as it was then for
`KEEP_S`; whoever asks meanwhile gets those parts, and it is at most so old.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass, field

KEEP_S = 10.0
PART_BYTES = 512 << 10
MAX_SECTION_BYTES = 32 << 20  # after decompression
MAX_PARTS = MAX_SECTION_BYTES // PART_BYTES
_NAME = re.compile(r"part (\d{1,3})/(\d{1,3}) ([0-9a-f]{32}) ([a-z0-9 ]+)")


def digest_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def pack(data: bytes) -> bytes:
    return zlib.compress(data, 1)


def unpack(packed: bytes) -> bytes:
    """A section as it was.

    Raises:
        ValueError, zlib.error: It is larger than may be, or broken.
    """
    machine = zlib.decompressobj()
    raw = machine.decompress(packed, MAX_SECTION_BYTES)
    if machine.unconsumed_tail:
        raise ValueError(f"a section of more than {MAX_SECTION_BYTES} bytes")
    return raw


@dataclass(frozen=True)
class Cut:
    """A large section as it was at some moment: what it is known by, and its parts under their names."""

    digest: bytes
    parts: dict[str, bytes]
    made_s: float


class Cutter:
    """The sender's side."""

    def __init__(self) -> None:
        self._cuts: dict[str, Cut] = {}

    def cut(self, section: str, data: bytes, now_s: float) -> Cut | None:
        """The parts of a large section, None where it is larger than anybody takes."""
        cut = self._cuts.get(section)
        if cut is None or now_s - cut.made_s >= KEEP_S:
            packed, digest = pack(data), digest_of(data)
            count = -(-len(packed) // PART_BYTES)
            if count > MAX_PARTS or len(data) > MAX_SECTION_BYTES:
                return None
            parts = {
                f"part {i}/{count} {digest.hex()} {section}": packed[i * PART_BYTES : (i + 1) * PART_BYTES]
                for i in range(count)
            }
            cut = self._cuts[section] = Cut(digest, parts, now_s)
        return cut


@dataclass
class Joiner:
    """The receiver's side: parts of one moment of each section; those of another moment begin anew.

    Args:
        sections: Names of sections that may come in parts.
    """

    sections: frozenset[str]
    _waiting: dict[str, tuple[str, dict[int, bytes]]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the parts that are here."""
        return [f"part {i}/{moment} {section}" for section, (moment, parts) in self._waiting.items() for i in parts]

    def take(self, name: str, data: bytes) -> tuple[str, bytes] | None:
        """Keep a part; returns section and content once all are here.

        Raises:
            ValueError, zlib.error: No part, or together they are not what their name says.
        """
        match = _NAME.fullmatch(name)
        if match is None or match[4] not in self.sections or len(data) > PART_BYTES:
            raise ValueError("no part of a section")
        number, count, section = int(match[1]), int(match[2]), match[4]
        if not 0 <= number < count <= MAX_PARTS:
            raise ValueError(f"part {number} of {count}; at most {MAX_PARTS}")
        moment = f"{count} {match[3]}"
        if section not in self._waiting or self._waiting[section][0] != moment:
            self._waiting[section] = (moment, {})
        parts = self._waiting[section][1]
        parts[number] = data
        if len(parts) < count:
            return None
        del self._waiting[section]
        whole = unpack(b"".join(parts[i] for i in range(count)))
        if digest_of(whole).hex() != match[3]:
            raise ValueError("the parts are not of one section")
        return section, whole
