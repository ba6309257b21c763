"""Reading an artifact on the training side: the file run by onnxruntime, with what it says about itself.

The robot's own loader, with its admission checks, is `robot.onboard`; this one measures files we made ourselves.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from robot import artifacts
from robot.contract import Contract
from robot.errors import FlexorError

# A network this small gains nothing from a thread pool, and spinning threads cost a core each.
SESSION_CONFIG = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}


class ArtifactFileError(FlexorError, ValueError):
    """A policy.onnx that is not one of ours; the message says what is wrong with it."""


@dataclass(frozen=True)
class PolicyFile:
    """An exported policy, run by onnxruntime on one thread.

    Attributes:
        session: The open file.
        contract: What the file says it expects.
        data: The file's bytes.
        label: `name/version` where the folder says so.
    """

    session: onnxruntime.InferenceSession
    contract: Contract
    data: bytes
    label: str

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @staticmethod
    def from_bytes(data: bytes, label: str = "(bytes)") -> "PolicyFile":
        """The policy in the bytes of a policy.onnx.

        Raises:
            ArtifactFileError: Not a model, without a contract, or with other inputs or outputs than the contract's.
            ContractError: The contract in it is none.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for key, value in SESSION_CONFIG.items():
            options.add_session_config_entry(key, value)
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no narrower base
            raise ArtifactFileError(f"{label} is not a model onnxruntime can load: {error}") from error
        properties = session.get_modelmeta().custom_metadata_map
        if artifacts.CONTRACT_KEY not in properties:
            raise ArtifactFileError(f"{label} has no {artifacts.CONTRACT_KEY!r}; metadata: {sorted(properties)}")
        contract = Contract.from_json(properties[artifacts.CONTRACT_KEY])
        shapes = {port.name: port.shape for port in (*session.get_inputs(), *session.get_outputs())}
        for name, width in (
            (artifacts.OBSERVATION, contract.observation_size),
            (artifacts.ACTIONS, contract.action_size),
            (artifacts.JOINT_TARGETS, contract.action_size),
        ):
            if shapes.get(name) != [1, width]:
                raise ArtifactFileError(f"{label}: {name!r} must be [1, {width}], got {shapes.get(name)}")
        if shapes.get(artifacts.STATE_IN) != shapes.get(artifacts.STATE_OUT):
            raise ArtifactFileError(
                f"{label}: {artifacts.STATE_IN!r} and {artifacts.STATE_OUT!r} must be alike, got "
                f"{shapes.get(artifacts.STATE_IN)} and {shapes.get(artifacts.STATE_OUT)}"
            )
        return PolicyFile(session, contract, data, label)

    @staticmethod
    def load(folder: Path) -> "PolicyFile":
        """The policy in an artifact folder."""
        folder = folder.resolve()
        return PolicyFile.from_bytes(
            (folder / artifacts.POLICY_FILE).read_bytes(), f"{folder.parent.name}/{folder.name}"
        )

    @cached_property
    def properties(self) -> dict[str, str]:
        """All metadata of the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    @property
    def training(self) -> dict[str, Any]:
        """How the policy came about, as its exporter said."""
        return json.loads(self.properties.get(artifacts.TRAINING_KEY, "{}"))

    @cached_property
    def memory_size(self) -> int:
        """Width of the recurrent state, 0 where there is none."""
        return next((port.shape[1] for port in self.session.get_inputs() if port.name == artifacts.STATE_IN), 0)

    def step(self, observation: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(action, joint targets [rad], the state that follows) for one observation of shape (n,), float32.

        Args:
            memory: Recurrent state, shape (memory_size,); zeros at an episode's start.
        """
        feed = {artifacts.OBSERVATION: np.ascontiguousarray(observation, dtype=np.float32)[None]}
        names = [artifacts.ACTIONS, artifacts.JOINT_TARGETS]
        if not self.memory_size:
            action, target = self.session.run(names, feed)
            return np.asarray(action)[0], np.asarray(target)[0], memory
        feed[artifacts.STATE_IN] = np.ascontiguousarray(memory, dtype=np.float32)[None]
        action, target, after = self.session.run([*names, artifacts.STATE_OUT], feed)
        return np.asarray(action)[0], np.asarray(target)[0], np.asarray(after)[0]

    @property
    def initial_memory(self) -> np.ndarray:
        """The recurrent state at an episode's start, shape (memory_size,)."""
        return np.zeros(self.memory_size, dtype=np.float32)

    def run(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(action, joint targets [rad]) at an episode's start for one observation of shape (n,), each of shape (m,), float32."""
        action, target, _ = self.step(observation, self.initial_memory)
        return action, target

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The mean action for one observation, clipped to -1..1 as the contract says, shape (m,), float32."""
        return np.clip(self.run(observation)[0], -1.0, 1.0)


class FileAct:
    """A policy file that acts through an episode: it carries the recurrent state, and `begin` puts it back to zero."""

    def __init__(self, policy: PolicyFile) -> None:
        self._policy = policy
        self.begin()

    def begin(self) -> None:
        """An episode starts."""
        self._memory = self._policy.initial_memory

    def __call__(self, observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        action, _, self._memory = self._policy.step(observation, self._memory)
        return np.clip(action, -1.0, 1.0)
