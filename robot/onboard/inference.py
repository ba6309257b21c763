"""From an observation to an action: generated C, or onnxruntime tuned for one small policy, or numpy, behind one protocol."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import numpy as np

from robot.artifacts import ACTIONS, JOINT_TARGETS, OBSERVATION, STATE_IN, STATE_OUT
from robot.errors import UnknownNameError
from robot.onboard.artifact import Artifact
from robot.onboard.codegen import CodegenError
from robot.onboard.compiled import CompiledInference, CompiledParityError, CompilerError
from robot.onboard.onnxfile import OnnxFile
from robot.onboard.operators import evaluate
from robot.onboard.ort import available, session


class Inference(Protocol):
    """A policy ready to act."""

    @property
    def name(self) -> str:
        """Which backend this is."""
        ...

    def reset(self) -> None:
        """Start an episode: the recurrent state, if there is one, goes to zero."""
        ...

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean action, shape (n_actions,), and joint targets [rad], shape (n_actions,), float32, fresh arrays.

        Args:
            observation: shape (observation_size,), float32.
        """
        ...


def buffers(file: OnnxFile) -> dict[str, np.ndarray]:
    """One float32 buffer per graph input and output."""
    return {port.name: np.zeros(port.shape, dtype=np.float32) for port in (*file.inputs, *file.outputs)}


class OnnxInference:
    """onnxruntime with inputs and outputs bound to fixed buffers, so that a call allocates nothing inside."""

    name = "onnxruntime"

    def __init__(self, artifact: Artifact) -> None:
        self._session = session(artifact.onnx)
        self._binding = self._session.io_binding()
        self._buffer = buffers(artifact.file)
        for ports, bind in (
            (artifact.file.inputs, self._binding.bind_input),
            (artifact.file.outputs, self._binding.bind_output),
        ):
            for port in ports:
                buffer = self._buffer[port.name]
                bind(port.name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        self._obs, self._actions = self._buffer[OBSERVATION][0], self._buffer[ACTIONS][0]
        self._targets = self._buffer[JOINT_TARGETS][0]
        self._recurrent = STATE_IN in self._buffer

    def reset(self) -> None:
        if self._recurrent:
            self._buffer[STATE_IN].fill(0.0)

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._obs[:] = observation
        self._session.run_with_iobinding(self._binding)
        if self._recurrent:
            self._buffer[STATE_IN][:] = self._buffer[STATE_OUT]
        return self._actions.copy(), self._targets.copy()


class NumpyInference:
    """The graph in numpy: no native code beyond numpy's, and the second opinion for the others."""

    name = "numpy"

    def __init__(self, artifact: Artifact) -> None:
        self._file = artifact.file
        self._state = buffers(artifact.file).get(STATE_IN)

    def reset(self) -> None:
        if self._state is not None:
            self._state = np.zeros_like(self._state)

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {OBSERVATION: np.asarray(observation, dtype=np.float32)[None]}
        if self._state is not None:
            inputs[STATE_IN] = self._state
        values = evaluate(self._file, inputs)
        if self._state is not None:
            self._state = values[STATE_OUT]
        return values[ACTIONS][0].copy(), values[JOINT_TARGETS][0].copy()


BACKENDS: dict[str, Callable[[Artifact], Inference]] = {
    "c": CompiledInference,
    "onnxruntime": OnnxInference,
    "numpy": NumpyInference,
}
AUTO_CALLS = 20  # of each backend, spaced
AUTO_PAUSE_S = 0.02  # at most: slower than 50 Hz caches are as cold and cores as idle


def choose(artifact: Artifact, pause: Callable[[float], None] = time.sleep) -> tuple[Inference, dict[str, float]]:
    """The fastest backend here, measured as the loop will call them, not in a hot loop: generated C where there is a compiler,
    onnxruntime where it is installed; numpy where there is neither.

    Returns:
        The policy, and the median time of a call of each backend that came up [us].
    """
    candidates: list[Inference] = [OnnxInference(artifact)] if available() else []
    with suppress(CodegenError, CompilerError, CompiledParityError):  # the others run everything that was admitted
        candidates.append(CompiledInference(artifact))
    candidates = candidates or [NumpyInference(artifact)]
    observation = np.zeros(artifact.contract.observation_size, dtype=np.float32)
    times_us: dict[str, list[float]] = {policy.name: [] for policy in candidates}
    for _ in range(AUTO_CALLS):
        for policy in candidates:
            pause(min(artifact.contract.dt_s, AUTO_PAUSE_S))
            start = time.perf_counter()
            policy.act(observation)
            times_us[policy.name].append((time.perf_counter() - start) * 1e6)
    medians = {name: float(np.median(times)) for name, times in times_us.items()}
    best = min(candidates, key=lambda policy: medians[policy.name])
    best.reset()
    return best, medians


def why_no_c(artifact: Artifact) -> str:
    """Why there is no generated C for this policy on this machine, "" where there is; "auto" does without and says nothing."""
    try:
        CompiledInference(artifact)
    except (CodegenError, CompilerError, CompiledParityError) as error:
        return str(error)
    return ""


def make_inference(artifact: Artifact, backend: str = "onnxruntime") -> Inference:
    """A policy ready to act, at the start of an episode. Admit the artifact first.

    Args:
        artifact: From `robot.onboard.artifact.load`.
        backend: One of `BACKENDS`, or "auto" for the one that is fastest here.

    Raises:
        UnknownNameError: No such backend.
        CodegenError, CompilerError, CompiledParityError: "c" was asked for and cannot be had.
    """
    if backend == "auto":
        return choose(artifact)[0]
    if backend not in BACKENDS:
        raise UnknownNameError("inference backend", backend, ("auto", *BACKENDS))
    return BACKENDS[backend](artifact)
