"""`tick.c` from Python: its record, field by field, and its functions. What they do is in `robot.onboard.tick`."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from robot.errors import FlexorError
from robot.onboard.compiled import load
from robot.onboard.filter import STRICT_FLAGS

TEXT = Path(__file__).with_name("tick.c")
DONE, CLOSED, SILENT, OTHER = range(4)  # what `read` says; more in tick.c

_i, _d, _p = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Record(ctypes.Structure):
    """`struct tick`, field by field."""

    _fields_ = (
        *_fields(_i, "period_ns late_ns deadline_ns woken_ns ready_ns sent_ns fresh_ns"),
        *_fields(
            _i, "missed missed_by_robot missed_by_system periods steps success_steps late_states strange_in_a_row"
        ),
        ("changed", _i * 5),
        ("totals", _i * 5),
        *_fields(_d, "reward_sum copper_j strangeness_max before_s time_s late_age_s stale_age_s dt_s"),
        *_fields(
            _i,
            "fd timeout_ms patience_ms frame_room frame_size head_size flags_at time_at reward_at rewards out_size out_at",
        ),
        *_fields(_p, "frame out head"),
        *_fields(_i, "wake_fd end_ns unanswered"),
        *_fields(_i, "numbers joints tips depth elements histories phases started"),
        *_fields(_i, "q_at qd_at target_at current_at currents temperature_at temperatures force_at forces"),
        *_fields(_i, "quat_at gravity_at tips_at phase_at action_at"),
        *_fields(_p, "values wide past plus minus history chain moves fixed fixed_a fixed_aa origin offset"),
        *_fields(_p, "phase_s mean spread ohm"),
        *_fields(_d, "strange_limit strange_cap"),
        *_fields(_i, "strange_ticks"),
        *_fields(_p, "observation act weights io net_observation net_actions net_in net_out"),
        *_fields(_i, "actions recurrent relative"),
        *_fields(_p, "moved scale shift lower upper home filter rows asked bound"),
        *_fields(_d, "share ahead"),
        *_fields(_p, "chosen noise std"),
        *_fields(_d, "score age_s"),
        *_fields(_i, "in_a_row took_ns row_room row_count row_start_ns"),
        *_fields(_p, "row_observation row_action row_reward row_log_prob row_success row_time_s"),
        *_fields(_d, "log_prob"),
        ("ring_room", _i),
        ("ring_count", _i * 3),
        ("ring", _p * 3),
        *_fields(_p, "flight flight_count"),
        *_fields(_i, "flight_room flight_item"),
        ("flight_at", _i * 16),
        *_fields(ctypes.c_uint8, "flight_mode flight_no_fault"),
    )


class TickError(FlexorError):
    """A contract, or a robot, that the compiled period cannot serve; the loop in Python does."""


def load_library() -> ctypes.CDLL:
    """The compiled `tick.c`, its functions typed.

    Raises:
        CompilerError: There is no compiler here.
        TickError: Its record is not ours.
    """
    library = load(TEXT.read_text(), flags=STRICT_FLAGS)
    record = ctypes.c_void_p
    for name, arguments, result in (
        ("tick_size", (), _i),
        ("tick_run", (record,), _i),
        ("tick_decide", (record,), _i),
        ("tick_wait", (record,), None),
        ("tick_sent", (record,), None),
        ("tick_account", (record, _d, _i), None),
        ("tick_sleep", (_i, _i, _i, _p), None),
    ):
        call = getattr(library, name)
        call.argtypes, call.restype = arguments, result
    if library.tick_size() != ctypes.sizeof(Record):
        raise TickError(f"tick.c's record has {library.tick_size()} bytes, tick_record.py's {ctypes.sizeof(Record)}")
    return library


class Keeper:
    """Arrays whose addresses are in a record live as long as this object."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def __call__(self, array: np.ndarray) -> int:
        """The address of an array."""
        self._arrays.append(np.ascontiguousarray(array))
        return self._arrays[-1].ctypes.data
