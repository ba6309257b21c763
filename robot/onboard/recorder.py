"""Experience as it is lived: control steps into chunks, without growth."""

import time
import uuid
from collections.abc import Callable
from typing import Literal

import numpy as np

from robot.contract import Contract
from robot.errors import FlexorError
from robot.experience import MAX_STEPS, Chunk, ChunkHeader

Ended = Literal["no", "terminated", "truncated"]
Cohort = Literal["none", "control", "canary", "shadow"]


class RecorderError(FlexorError, ValueError):
    """A step that does not fit the chunk it belongs to."""


class Recorder:
    """Packs control steps into chunks of at most `steps_per_chunk`.

    A chunk carries the observation after its last action, which is the next step's; so a full chunk comes out with the step
    that follows it, or with `end`.

    Args:
        contract: Contract the observations and actions follow.
        policy_sha256: The artifact's `policy.onnx` that acts, "" if none.
        reward_names: Names of the reward terms.
        steps_per_chunk: Most steps in a chunk; 1-5 s of them is meant.
        cohort: Which group of a deployment this robot is in.
        clock_ns: UTC clock for `start_time_ns`.
    """

    def __init__(
        self,
        *,
        contract: Contract,
        policy_sha256: str,
        reward_names: tuple[str, ...],
        steps_per_chunk: int = 64,
        cohort: Cohort = "none",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not 0 < steps_per_chunk <= MAX_STEPS:
            raise RecorderError(f"steps_per_chunk must be 1..{MAX_STEPS}, got {steps_per_chunk}")
        if not reward_names:
            raise RecorderError("reward_names must name at least one term")
        self._contract_sha256, self._policy_sha256 = contract.sha256, policy_sha256
        self._control_hz = contract.control_hz
        self._reward_names, self._clock_ns = reward_names, clock_ns
        self._cohort: Cohort = cohort
        n, n_obs, n_act = steps_per_chunk, contract.observation_size, contract.action_size
        self._observation = np.zeros((n, n_obs), dtype=np.float32)
        self._action = np.zeros((n, n_act), dtype=np.float32)
        self._reward = np.zeros((n, len(reward_names)), dtype=np.float32)
        self._log_prob = np.zeros(n, dtype=np.float32)
        self._success = np.zeros(n, dtype=np.uint8)
        self._time_s = np.zeros(n, dtype=np.float64)
        self._count = 0
        self.begin()

    @property
    def reward_names(self) -> tuple[str, ...]:
        return self._reward_names

    @property
    def room(self) -> int:
        """Most steps in a chunk."""
        return len(self._time_s)

    @property
    def count(self) -> int:
        """Steps in the chunk so far."""
        return self._count

    @property
    def start_ns(self) -> int:
        """UTC of its first step."""
        return self._start_ns

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """The chunk's arrays by name, one row per step, for compiled code that writes steps itself and then calls `wrote`."""
        return {
            "observation": self._observation,
            "action": self._action,
            "reward": self._reward,
            "log_prob": self._log_prob,
            "success": self._success,
            "time_s": self._time_s,
        }

    def wrote(self, count: int, start_ns: int) -> None:
        """Somebody else wrote rows: so many there are now, the first at a UTC time."""
        self._count, self._start_ns = count, start_ns

    def seal_full(self, next_observation: np.ndarray) -> Chunk | None:
        """The chunk if it is full; a step acts on `next_observation` after it."""
        return self._seal("no", next_observation) if self._count == len(self._time_s) else None

    def begin(self, episode_id: str = "") -> None:
        """Start an episode; a fresh id is made where none is given.

        Raises:
            RecorderError: Steps of the last episode are still here; `end` it first.
        """
        if self._count:
            raise RecorderError(f"episode {self._episode_id} holds {self._count} steps; call end first")
        self._episode_id = episode_id or uuid.uuid4().hex
        self._first_step = self._count = self._start_ns = 0

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        log_prob: float,
        reward_terms: np.ndarray,
        success: bool,
        time_s: float,
    ) -> Chunk | None:
        """Record one step.

        Args:
            observation: Before the action, shape (observation_size,).
            action: As sampled, before clipping, shape (action_size,).
            log_prob: Its log density under the behaviour policy, NaN without noise.
            reward_terms: What the step earned, shape (len(reward_names),).
            success: Whether the goal held after the step.
            time_s: Robot clock at the observation [s].

        Returns:
            The chunk that was full before this step, if one was.
        """
        full = self.seal_full(observation)
        i = self._count
        if i == 0:
            self._start_ns = self._clock_ns()
        self._observation[i], self._action[i], self._reward[i] = observation, action, reward_terms
        self._log_prob[i], self._success[i], self._time_s[i] = log_prob, success, time_s
        self._count += 1
        return full

    def end(self, kind: Ended, last_observation: np.ndarray) -> Chunk | None:
        """End the episode ("no": it was cut off by a stop) and get what is left of it, None when nothing is."""
        chunk = self._seal(kind, last_observation) if self._count else None
        self.begin()
        return chunk

    def end_unseen(self) -> Chunk | None:
        """End after a step whose outcome no sensor could read: that step is dropped, its observation becomes the last."""
        if self._count:
            self._count -= 1
        chunk = self._seal("no", self._observation[self._count]) if self._count else None
        self.begin()
        return chunk

    def _seal(self, ended: Ended, last_observation: np.ndarray) -> Chunk:
        n = self._count
        chunk = Chunk(
            header=ChunkHeader(
                contract_sha256=self._contract_sha256,
                policy_sha256=self._policy_sha256,
                episode_id=self._episode_id,
                first_step=self._first_step,
                steps=n,
                observation_size=self._observation.shape[1],
                action_size=self._action.shape[1],
                reward_names=self._reward_names,
                ended=ended,
                cohort=self._cohort,
                control_hz=self._control_hz,
                start_time_ns=self._start_ns,
            ),
            observation=self._observation[:n].copy(),
            action=self._action[:n].copy(),
            reward=self._reward[:n].copy(),
            log_prob=self._log_prob[:n].copy(),
            success=self._success[:n].copy(),
            time_s=self._time_s[:n].copy(),
            last_observation=np.array(last_observation, dtype=np.float32),
        )
        self._first_step += n
        self._count = 0
        return chunk
