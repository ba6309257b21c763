"""The one place that makes onnxruntime sessions.

Why not `InferenceSession(path)`: its defaults spin a thread pool, which at 50 Hz costs a whole core for a policy of 200 kMAC and
gains nothing (docs/onboard.md).
"""

from importlib.util import find_spec
from typing import Any


def available() -> bool:
    """Whether onnxruntime is installed; where it is not, generated C or numpy runs the policy."""
    try:
        return find_spec("onnxruntime") is not None
    except ImportError:  # somebody hides it
        return False


def session(onnx: bytes) -> Any:
    """An onnxruntime session with one thread and no spinning. Loads onnxruntime, which generated C does without."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors reach us as exceptions
    for key, value in (
        ("session.intra_op.allow_spinning", "0"),
        ("session.inter_op.allow_spinning", "0"),
        ("session.set_denormal_as_zero", "1"),  # a decaying recurrent state must not slow the loop down
    ):
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
