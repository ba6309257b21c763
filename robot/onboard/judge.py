"""The process that tries an artifact: limits first, then onnxruntime. `python -m robot.onboard.judge` < case > verdict.

Started by `robot.onboard.admission.judge`. A file that crashes or hangs the native code takes only this process with it.
"""

import os
import resource
import struct
import sys

MAX_MEMORY_BYTES = 4 * 1024**3  # address space; onnxruntime and numpy map about 1 GB
MAX_CPU_S = 30
MAX_OPEN_FILES = 64


def limit() -> None:
    """Bound what this process may take; it can never raise these again."""
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),  # it writes no file
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def main() -> None:
    parent = os.getppid()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
        "1"  # before numpy loads: one thread, less memory
    )
    limit()
    import msgspec
    import numpy as np

    from robot.link import die_with_parent
    from robot.onboard.admission import Verdict
    from robot.onboard.artifact import from_bytes
    from robot.onboard.refusals import AdmissionError, GraphInterfaceError
    from robot.onboard.rehearsal import rehearse

    die_with_parent(parent)
    data = sys.stdin.buffer.read()
    seed, size = struct.unpack_from("<QQ", data)
    try:
        artifact = from_bytes(data[16 : 16 + size], golden=data[16 + size :])
        figures = rehearse(artifact, period_s=artifact.contract.dt_s, rng=np.random.default_rng(seed))
        verdict = Verdict(figures=figures)
    except AdmissionError as error:
        verdict = Verdict(error=type(error).__name__, text=str(error))
    except Exception as error:  # top of a process: whatever onnxruntime throws at a graph is a refusal
        kind = GraphInterfaceError.__name__ if "onnxruntime" in type(error).__module__ else "JudgeError"
        verdict = Verdict(error=kind, text=f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    main()
