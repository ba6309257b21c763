"""Errors every package shares. A message says what was expected, what was seen, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class FlexorError(Exception):
    """Root of the errors this project raises on purpose."""


class UnknownNameError(FlexorError, ValueError):
    """A name that is not in a closed list; the message carries the list."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        close = get_close_matches(str(name), self.known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(self.known)}")


class NotFiniteError(FlexorError, ValueError):
    """A NaN or an infinity where a number was expected; the message carries the indices."""

    def __init__(self, what: str, bad: dict[str, float]) -> None:
        super().__init__(f"{what} must be finite, got {bad} (name: value)")
