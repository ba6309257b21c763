"""Keys on disk: one CURVE pair for the hub, one per robot, one for the operator; ed25519 keys that sign the catalogue and the assignments.

    D/hub.key, hub.key_secret            the hub's door; hub.next.* while it is being changed
    D/hubs/<name>.key, .key_secret       where there are several hubs: one each, which also opens the other hubs' doors
    D/admin.key, admin.key_secret        the operator's; admitted to the admin socket only
    D/robots/<name>.key, .key_secret     one per robot; the robot needs its own secret and nobody else's
    D/allow/<name>.key, <name>.<n>.key   who may come in; `expires = "seconds"` ends a key that was changed, `vouched-by` names the keys
                                         it was let in by: where one of them is revoked it does not count either
    D/revoked/*.rev, tokens/<name>.json  see fleet.revocation, fleet.enrol
    D/sign/<role>.pem                    root, targets, snapshot, timestamp (catalogue), director (assignments), operator
    D/trust/root.json, director.pub, operator.pub      what a robot is born with: whose signatures count

CURVE files are in the format of czmq, so other tools can read them. Secrets are made with mode 600 and refused with a looser one.
"""

import math
import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet.disk import Disk
from fleet.errors import KeyFileError, LooseSecretError
from robot.errors import UnknownNameError

ROLES = ("root", "targets", "snapshot", "timestamp", "director", "operator")
PUBLISHED = ("director", "operator")  # roles whose public key a robot is born with
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_EXPIRES = re.compile(r"^\s*expires\b[^\S\n]*=?(.*)$", re.MULTILINE)
_VOUCHED = re.compile(r'^\s*vouched-by\s*=\s*"([0-9a-f ]*)"\s*$', re.MULTILINE)
MARK = 16  # of the hex digits of a key's sha256: what it is called in `vouched-by`
_LINE = re.compile(r'^\s*(public|secret)-key\s*=\s*"([^"\n]{40})"\s*$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class CurvePair:
    """A CURVE key pair, Z85; `secret` is b"" where only the public half was read."""

    public: bytes
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"CurvePair(public={self.public!r})"


def checked_name(name: str) -> str:
    """A robot's name, which is also a file name and an identity.

    Raises:
        KeyFileError: Not 1-32 of a-z, 0-9, - and _, starting with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"robot name {name!r}: 1 to 32 of a-z, 0-9, '-' and '_', starting with a letter or a digit")
    return name


def make_keys(
    folder: Path, robots: Iterable[str] = (), *, hubs: Iterable[str] = (), disk: Disk | None = None
) -> list[Path]:
    """Make what is missing in a key folder; what is there stays as it is, so a robot can be added later.

    Returns:
        The files that were made.

    Raises:
        KeyFileError: A name that cannot be one.
        LooseSecretError: A secret already there is open to others.
    """
    disk = disk or Disk()
    names, hub_names = [checked_name(name) for name in robots], [checked_name(name) for name in hubs]
    for sub in ("", "robots", "allow", "sign", "trust", "hubs"):
        (folder / sub).mkdir(parents=True, exist_ok=True, mode=0o700)
    made: list[Path] = []
    for stem in ("hub", "admin", *(f"hubs/{name}" for name in hub_names), *(f"robots/{name}" for name in names)):
        made += _make_curve(folder / f"{stem}.key", disk)
    for name in names:
        public = (folder / f"robots/{name}.key").read_bytes()
        allow = folder / f"allow/{name}.key"
        if not allow.exists():
            disk.write_file(allow, public)
            made.append(allow)
    for role in ROLES:
        path = folder / f"sign/{role}.pem"
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            disk.write_file(path, pem, mode=0o600)
            made.append(path)
    for role in PUBLISHED:
        path = folder / f"trust/{role}.pub"
        if not path.exists():
            disk.write_file(path, load_signing_key(folder, role).public_key().public_bytes_raw().hex().encode())
            made.append(path)
    return made


def public_file(key: bytes, expires_s: float = math.inf, vouchers: Iterable[str] = ()) -> bytes:
    """Text of a `.key` file; with a time after which the key does not count, and the marks of the keys that it was let in by."""
    expires = "" if math.isinf(expires_s) else f'    expires = "{expires_s:.0f}"\n'
    vouched = f'    vouched-by = "{marks}"\n' if (marks := " ".join(vouchers)) else ""
    return f'#  public\nmetadata\n{expires}{vouched}curve\n    public-key = "{key.decode()}"\n'.encode()


def secret_file(pair: CurvePair) -> bytes:
    """Text of a `.key_secret` file."""
    lines = f'    public-key = "{pair.public.decode()}"\n    secret-key = "{pair.secret.decode()}"\n'
    return f"#  secret: keep it on its machine\nmetadata\ncurve\n{lines}".encode()


def expiry_in(text: str) -> float:
    """When a public key ends to count, by the text of its file, UTC [s]; infinity when it does not.

    Raises:
        KeyFileError: It says when, and not as a number.
    """
    found = _EXPIRES.search(text)
    if found is None:
        return math.inf
    said = found[1].strip()
    try:
        expires_s = float(said.strip('"'))
    except ValueError:
        expires_s = math.nan
    if not math.isfinite(expires_s):
        raise KeyFileError(f'expires = {said or "nothing"}: expected seconds since 1970 (UTC), like "1767225600"')
    return expires_s


def vouchers_in(text: str) -> tuple[str, ...]:
    """Marks of the keys that a key was let in by, the oldest first, by the text of its file; none for one that came by a token or by hand."""
    found = _VOUCHED.search(text)
    return tuple(found[1].split()) if found else ()


def expiry_of(path: Path) -> float:
    """As `expiry_in`, of a file; 0 when it cannot be read, says no number, or went meanwhile."""
    try:
        return expiry_in(path.read_text())
    except (OSError, UnicodeDecodeError, KeyFileError):
        return 0.0


def allow_files(folder: Path) -> dict[str, list[Path]]:
    """Robot -> its files in `allow/`; a robot that changes its key has two for a while."""
    files: dict[str, list[Path]] = {}
    for path in sorted((folder / "allow").glob("*.key")):
        files.setdefault(path.name.partition(".")[0], []).append(path)
    return files


def load_hub_pair(folder: Path, name: str = "") -> CurvePair:
    """A hub's own pair: `hubs/NAME` where there is one, the only hub's otherwise.

    Raises:
        LooseSecretError, KeyFileError: As in `load_pair`.
    """
    path = folder / f"hubs/{name}.key_secret"
    return load_pair(path if name and path.exists() else folder / "hub.key_secret")


def load_hub_public(folder: Path, name: str = "") -> bytes:
    """A hub's public key, as in `load_hub_pair`."""
    path = folder / f"hubs/{name}.key"
    return load_public(path if name and path.exists() else folder / "hub.key")


def load_hubs(folder: Path) -> tuple[dict[bytes, str], dict[str, str]]:
    """The other hubs' doors: public key -> name of every hub in `hubs/`, and what could not be read: file -> why."""
    found: dict[bytes, str] = {}
    bad: dict[str, str] = {}
    for path in sorted((folder / "hubs").glob("*.key")):
        try:
            found[load_public(path)] = path.stem
        except KeyFileError as error:
            bad[f"hubs/{path.name}"] = str(error)
    return found, bad


def next_hub_key(folder: Path, *, activate: bool = False, disk: Disk | None = None) -> bytes:
    """Change the hub's key without a gap: make the next one, which a running hub announces to its robots; when all have heard, activate it
    and start the hub again. Robots that know both try both.

    Returns:
        The next public key.

    Raises:
        KeyFileError: To activate, there must be a next one.
    """
    disk = disk or Disk()
    path = folder / "hub.next.key"
    if not activate:
        _make_curve(path, disk)
        return load_public(path)
    pair = load_pair(folder / "hub.next.key_secret")
    for suffix in (".key_secret", ".key"):
        disk.rename(folder / f"hub.next{suffix}", folder / f"hub{suffix}")
    return pair.public


def load_pair(path: Path) -> CurvePair:
    """The pair in a `.key_secret` file.

    Raises:
        LooseSecretError: Others may read it.
        KeyFileError: It is missing or not a key file.
    """
    fields = _fields(_read_secret(path), path)
    if set(fields) != {"public", "secret"}:
        raise KeyFileError(f"{path}: expected a public and a secret key, got {sorted(fields)}")
    if zmq.curve_public(fields["secret"]) != fields["public"]:
        raise KeyFileError(f"{path}: the public key does not belong to the secret one")
    return CurvePair(public=fields["public"], secret=fields["secret"])


def load_public(path: Path) -> bytes:
    """The public key in a `.key` file, Z85.

    Raises:
        KeyFileError: It is missing or not a key file.
    """
    try:
        fields = _fields(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: {error}") from error
    if "public" not in fields:
        raise KeyFileError(f"{path}: no public key in it")
    return fields["public"]


def load_robot_pair(folder: Path, name: str) -> CurvePair:
    """A robot's own pair.

    Raises:
        UnknownNameError: There is no such robot in the folder; the known ones are listed.
        LooseSecretError, KeyFileError: As in `load_pair`.
    """
    path = folder / f"robots/{checked_name(name)}.key_secret"
    if not path.exists():
        known = sorted(p.stem for p in (folder / "robots").glob("*.key_secret"))
        raise UnknownNameError(f"robot in {folder} (make its key: flexor fleet keys --robots {name})", name, known)
    return load_pair(path)


def load_allowed(
    folder: Path, now_s: float = 0.0, void: Collection[str] = ()
) -> tuple[dict[bytes, str], dict[str, str]]:
    """Who may come in: public key -> robot, and what could not be read: file -> why.

    A file that cannot be read lets nobody in; two robots with one key let neither in; a key whose time is over at `now_s` does not count, nor does
    one that was let in by a key that is void.

    Args:
        void: Marks of revoked keys.
    """
    allowed: dict[bytes, str] = {}
    refused: dict[str, str] = {}
    for path in sorted((folder / "allow").glob("*.key")):
        try:
            name, key, text = checked_name(path.name.partition(".")[0]), load_public(path), path.read_text()
            if now_s >= expiry_in(text):
                continue
            if not set(void).isdisjoint(vouchers_in(text)):
                raise KeyFileError("it was let in by a key that is revoked")
        except (KeyFileError, OSError) as error:
            refused[path.name] = str(error)
            continue
        if key in allowed and allowed[key] != name:
            refused[path.name] = f"same key as {allowed[key] or 'another robot'}"
            allowed[key] = ""  # neither of the two
            continue
        allowed[key] = name
    return {key: name for key, name in allowed.items() if name}, refused


def load_signing_key(folder: Path, role: str) -> Ed25519PrivateKey:
    """The private key of a role.

    Raises:
        UnknownNameError, LooseSecretError, KeyFileError: No such role; open to others; missing or not a key.
    """
    if role not in ROLES:
        raise UnknownNameError("signing role", role, ROLES)
    path = folder / f"sign/{role}.pem"
    try:
        key = serialization.load_pem_private_key(_read_secret(path).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an ed25519 key, got {type(key).__name__}")
    return key


def load_verifier(folder: Path, role: str) -> Ed25519PublicKey:
    """The public key of a role: director (assignments) or operator (leases, revocations).

    Raises:
        KeyFileError: It is missing or not a key.
    """
    path = folder / f"trust/{role}.pub"
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text().strip()))
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {error}; make it: flexor fleet keys --dir {folder}") from error


def bundle(folder: Path, name: str, out: Path, *, disk: Disk | None = None) -> None:
    """Copy what one robot needs, and nothing else, into a folder to carry to it."""
    disk = disk or Disk()
    load_robot_pair(folder, name)
    for sub in ("robots", "trust", "hubs"):
        (out / sub).mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.write_file(out / f"robots/{name}.key_secret", (folder / f"robots/{name}.key_secret").read_bytes(), mode=0o600)
    for path in (*folder.glob("hub*.key"), *(folder / "hubs").glob("*.key"), *sorted((folder / "trust").iterdir())):
        disk.write_file(out / path.relative_to(folder), path.read_bytes())


def _make_curve(path: Path, disk: Disk) -> list[Path]:
    secret_path = path.with_suffix(".key_secret")
    if secret_path.exists():
        pair = load_pair(secret_path)
        if path.exists():
            return []
    else:
        public, secret = zmq.curve_keypair()
        pair = CurvePair(public=public, secret=secret)
        lines = f'    public-key = "{public.decode()}"\n    secret-key = "{secret.decode()}"\n'
        disk.write_file(
            secret_path, f"#  secret: keep it on its machine\nmetadata\ncurve\n{lines}".encode(), mode=0o600
        )
    disk.write_file(path, public_file(pair.public))
    return [secret_path, path]


def _read_secret(path: Path) -> str:
    try:
        with path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise LooseSecretError(f"{path} has mode {mode:o}: others may read this secret. Do: chmod 600 {path}")
            return file.read()
    except LooseSecretError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: {error}. Make keys: flexor fleet keys --dir {path.parent}") from error


def _fields(text: str, path: Path) -> dict[str, bytes]:
    fields = {kind: value.encode() for kind, value in _LINE.findall(text)}
    if not fields:
        raise KeyFileError(f'{path}: no CURVE key in it (expected lines like public-key = "40 characters")')
    return fields
