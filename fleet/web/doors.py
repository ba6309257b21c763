"""Who may do what on the page: sessions, the operator's secret, and a limit on guessing. Pure; time is passed in.

Reading needs no sign-in, the page is on loopback. Acting needs a session and its token in a header that a foreign page cannot set.
"""

import hmac
import os
import secrets
import stat
from pathlib import Path

from fleet.disk import Disk
from fleet.errors import KeyFileError, LooseSecretError

SESSION_S = 8 * 3600.0
MAX_SESSIONS = 64
FREE_TRIES, WAIT_S = 5, 30.0  # wrong secrets in a row, then one try per this long


def page_secret(keys: Path) -> str:
    """The operator's secret for the page, in KEYS/page.secret with mode 600; made when it is missing.

    Raises:
        LooseSecretError: Others may read it.
        KeyFileError: It cannot be read, or is too short.
    """
    path = keys / "page.secret"
    if not path.exists():
        Disk().write_file(path, secrets.token_urlsafe(24).encode() + b"\n", mode=0o600)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 or path.stat().st_uid not in (os.getuid(), 0):
        raise LooseSecretError(f"{path} has mode {mode:o}; others may read it. Do: chmod 600 {path}")
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: {error}") from error
    if len(secret) < 16:
        raise KeyFileError(f"{path}: a secret has at least 16 characters, got {len(secret)}")
    return secret


class Doors:
    """Sessions of signed-in operators.

    Args:
        secret: What they must know.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._sessions: dict[str, tuple[float, str]] = {}  # cookie -> end, token
        self._wrong, self._next_try_s = 0, 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until a secret is looked at again, 0 for now."""
        return max(0.0, self._next_try_s - now_s)

    def knows(self, secret: str, now_s: float) -> bool:
        """Whether that is the secret; call `wait_s` first."""
        right = hmac.compare_digest(secret.encode(), self._secret.encode())
        self._wrong = 0 if right else self._wrong + 1
        self._next_try_s = now_s + WAIT_S if self._wrong >= FREE_TRIES else 0.0
        return right

    def open(self, now_s: float) -> str:
        """A new session; returns its cookie."""
        self._sessions = {c: s for c, s in self._sessions.items() if s[0] > now_s}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda c: self._sessions[c][0])]
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = (now_s + SESSION_S, secrets.token_urlsafe(24))
        return cookie

    def token(self, cookie: str, now_s: float) -> str:
        """The token of a session, "" when there is none."""
        end_s, token = self._sessions.get(cookie, (0.0, ""))
        return token if now_s < end_s else ""

    def admits(self, cookie: str, token: str, now_s: float) -> bool:
        """Whether a request may act."""
        known = self.token(cookie, now_s)
        return bool(known) and hmac.compare_digest(token.encode(), known.encode())

    def shut(self, cookie: str) -> None:
        self._sessions.pop(cookie, None)
