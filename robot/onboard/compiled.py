"""The generated C as an inference backend: compiled on this machine, cached by hash, checked against the graph before use."""

import ctypes
import hashlib
import mmap
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION, STATE_IN, STATE_OUT
from robot.errors import FlexorError
from robot.onboard.artifact import Artifact
from robot.onboard.codegen import ALIGN, Generated, generate
from robot.onboard.operators import evaluate
from robot.onboard.rehearsal import random_observations

# No -ffast-math: it would let the compiler reorder sums and assume that NaN cannot be.
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
COMPILE_TIMEOUT_S = 60.0
PARITY = 1e-5  # relative above one
PARITY_SAMPLES = 64
HUGE_PAGE = 1 << 21  # bytes; x86-64's and ARM64's, where there are any


class CompilerError(FlexorError):
    """There is no C compiler here, or it refused; the other backends need none."""


class CompiledParityError(FlexorError):
    """The compiled code does not give the graph's answers on this machine."""


def cache_folder() -> Path:
    """Where compiled policies are kept: below XDG_CACHE_HOME, readable and writable by this user only."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise CompilerError(f"no home folder to keep compiled code in ({error}); set XDG_CACHE_HOME") from error
    return Path(home) / "flexor" / "onboard"


def _compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise CompilerError("no C compiler found (cc, gcc, clang); use --inference onnxruntime")
    return found


def _cpu_features() -> str:
    """What -march=native depends on; a cache may travel to another machine with its disk."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _owned(path: Path) -> bool:
    """Whether only this user can have put the file there."""
    info = path.stat()
    return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def load(text: str, folder: Path | None = None, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """The library of some C text, loaded; one that cannot be loaded (a disk that lost it) is compiled once more.

    Raises:
        CompilerError: See `build`; or what was compiled cannot be loaded here, as from a disk that allows no programs.
    """
    library = build(text, folder, flags)
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        library.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(build(text, folder, flags)))
    except OSError as error:
        raise CompilerError(f"compiled code in {library.parent} cannot be loaded: {error}") from error


def build(text: str, folder: Path | None = None, flags: tuple[str, ...] = FLAGS) -> Path:
    """The shared library of some C text, compiled unless it is in the cache.

    Args:
        text: The C.
        folder: The cache; `cache_folder()` when None.
        flags: For the compiler.

    Raises:
        CompilerError: No compiler, or it refused, or the cache is writable by others or cannot be written.
    """
    folder = folder or cache_folder()
    try:
        return _build(text, folder, flags)
    except OSError as error:
        raise CompilerError(f"no place for compiled code in {folder}: {error}; set XDG_CACHE_HOME") from error


def _build(text: str, folder: Path, flags: tuple[str, ...]) -> Path:
    compiler = _compiler()
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, timeout=COMPILE_TIMEOUT_S, check=False
    ).stdout
    key = hashlib.sha256(b"\0".join([text.encode(), " ".join(flags).encode(), version, _cpu_features().encode()]))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _owned(folder):
        raise CompilerError(f"others may write to {folder}; do: chmod 700 {folder}")
    library = folder / f"{key.hexdigest()[:32]}.so"
    if library.is_file() and _owned(library):
        return library
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source, draft = Path(work) / "policy.c", Path(work) / "policy.so"
        source.write_text(text)
        command = [compiler, *flags, "-shared", "-fPIC", "-o", str(draft), str(source), "-lm"]
        code, said = _compile(command)
        if code != 0:
            raise CompilerError(f"{compiler} refused the generated C:\n{said[:1000]}")
        draft.chmod(0o700)
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # robots are switched off at the battery
        os.replace(draft, library)
    return library


def _compile(command: list[str]) -> tuple[int, str]:
    """The compiler's exit status and what it said. A driver starts further programs; none of them outlives this call.

    Raises:
        CompilerError: It took too long.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, to be ended as a whole
    ) as driver:
        try:
            _, said = driver.communicate(timeout=COMPILE_TIMEOUT_S)
        except BaseException as error:
            os.killpg(driver.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompilerError(f"{command[0]} took more than {COMPILE_TIMEOUT_S:g} s") from error
            raise
    return driver.returncode, said


class CompiledInference:
    """Generated C behind the `Inference` protocol.

    Raises:
        CodegenError: The graph has a part without C.
        CompilerError: See `build`.
        CompiledParityError: Its answers are not the graph's.
    """

    name = "c"

    def __init__(self, artifact: Artifact, folder: Path | None = None) -> None:
        generated = generate(artifact.file)
        self._library = load(generated.c, folder)
        self._call = self._library.act
        self._call.argtypes, self._call.restype = (ctypes.c_void_p, ctypes.c_void_p), None
        self._weights, self._io = _together(generated.weights, generated.io_size)
        self._w, self._at = self._weights.ctypes.data, self._io.ctypes.data
        # Buffers, shared with compiled code that calls the same function (`tick.c`).
        self.observation, self.actions = self._view(generated, OBSERVATION), self._view(generated, ACTIONS)
        self._targets = self._view(generated, JOINT_TARGETS)
        recurrent = STATE_IN in generated.at
        self.state = (self._view(generated, STATE_IN), self._view(generated, STATE_OUT)) if recurrent else None
        check_parity(self, artifact)

    def _view(self, generated: Generated, name: str) -> np.ndarray:
        at, shape = generated.at[name]
        return self._io[at : at + shape[-1]]

    @property
    def pointers(self) -> tuple[int | None, int, int]:
        """The function, its weights and its tensors; for compiled code that calls it."""
        return ctypes.cast(self._call, ctypes.c_void_p).value, self._w, self._at

    def reset(self) -> None:
        if self.state is not None:
            self.state[0].fill(0.0)

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.observation[:] = observation
        self._call(self._w, self._at)
        if self.state is not None:
            self.state[0][:] = self.state[1]
        return self.actions.copy(), self._targets.copy()


def _together(weights: np.ndarray, io_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the weights, and zeros for the tensors after them, in huge pages where the system has them.

    A core that slept has forgotten where pages are; a megabyte of weights in pages of 4 KiB is then looked up 256 times, from cold
    memory, which takes as long as reading it.
    """
    start = -(-weights.size // ALIGN) * ALIGN
    size = -(-4 * (start + io_size) // HUGE_PAGE) * HUGE_PAGE
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, dtype=np.float32)
    room = room[(-room.ctypes.data % HUGE_PAGE) // 4 :]
    room[: weights.size] = weights
    return room[: weights.size], room[start : start + io_size]


def check_parity(policy: CompiledInference, artifact: Artifact) -> float:
    """The largest difference from the graph in numpy, over golden and random observations, the state carried along, and from the
    golden answers.

    Raises:
        CompiledParityError: It is more than `PARITY`.
    """
    rng = np.random.default_rng(0)
    rows = [random_observations(artifact.contract, PARITY_SAMPLES, rng)]
    if OBSERVATION in artifact.golden:
        rows.append(artifact.golden[OBSERVATION].reshape(-1, rows[0].shape[1]))
    state = {p.name: np.zeros(p.shape, dtype=np.float32) for p in artifact.file.inputs if p.name == STATE_IN}
    policy.reset()
    worst = 0.0
    for row in np.concatenate(rows):
        expected = evaluate(artifact.file, {OBSERVATION: row[None].astype(np.float32), **state})
        state = {name: expected[STATE_OUT] for name in state}
        for got, name in zip(policy.act(row), (ACTIONS, JOINT_TARGETS)):
            want = expected[name][0]
            worst = float(np.maximum(worst, (np.abs(got - want) / np.maximum(np.abs(want), 1.0)).max()))
    worst = float(np.maximum(worst, _from_golden(policy, artifact)))
    policy.reset()
    if not worst <= PARITY:
        raise CompiledParityError(
            f"compiled code and graph, or its golden answers, differ by {worst:.3g}, more than {PARITY:g}"
        )
    return worst


def _from_golden(policy: CompiledInference, artifact: Artifact) -> float:
    """The largest difference from the golden answers; 0 where an artifact in memory has none, which admission refuses."""
    golden, worst = artifact.golden, 0.0
    rows = {name: golden[name].reshape(len(golden[name]), -1) for name in golden}
    if not {OBSERVATION, ACTIONS, JOINT_TARGETS} <= set(rows) or (policy.state is not None and STATE_IN not in rows):
        return 0.0
    for i, observation in enumerate(rows[OBSERVATION]):
        if policy.state is not None:
            policy.state[0][:] = rows[STATE_IN][i]
        got: dict[str, np.ndarray] = dict(zip((ACTIONS, JOINT_TARGETS), policy.act(observation)))
        if policy.state is not None:
            got[STATE_OUT] = policy.state[0]
        for name in got.keys() & rows.keys():
            apart = np.abs(got[name] - rows[name][i]) / np.maximum(np.abs(rows[name][i]), 1.0)
            worst = float(np.maximum(worst, apart.max()))
    return worst
