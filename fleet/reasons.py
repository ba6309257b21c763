"""Texts that robots and people wrote, as the few words a figure may be labelled with. Pure. What is not known is "other": no robot makes new series."""

import re

LOSSES = {
    "spool full": "spool_full",
    "damaged": "damaged",
    "record too large": "too_large",
    "the ring before the spool was full": "ring_full",
    "the hub lost what it had acknowledged": "hub_lost",
}
_ERROR = re.compile(r"(?:^|: )([A-Z][A-Za-z]{2,40}Error)\b")
_FELL_BACK = re.compile(r"stopped on probation: ([a-z_]{2,20})\b")
_ROLLBACKS = (
    ("by the operator", "operator"),
    ("refused it", "refused"),
    ("safety trips", "trips"),
    ("emergency stop", "stopped"),
    ("while it watched", "shadow"),
)
MAX_KINDS = 64  # of refusals that are counted apart


def loss(reason: str) -> str:
    """Why records were declared lost."""
    return "disk" if reason.startswith("disk: ") else LOSSES.get(reason, "other")


def refusal(text: str) -> str:
    """Why a robot does not run what it should: the name of the error, or of the limit that stopped it."""
    error, limit = _ERROR.search(text), _FELL_BACK.search(text)
    return error[1] if error else f"probation_{limit[1]}" if limit else "other"


def rollback(reason: str) -> str:
    """Why a policy was rolled back; where no other reason is named it was the comparison."""
    return next((why for text, why in _ROLLBACKS if text in reason), "verdict")
