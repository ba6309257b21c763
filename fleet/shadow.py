"""A candidate that looks over the active policy's shoulder: it gets the same observations, its actions are compared and thrown away.

The first stage of a careful deployment. Runs in a thread of its own, on chunks the control loop has handed over already; when it is slower than the robot it
skips whole chunks and waits for the next episode to begin, so that a policy with memory sees what it would have seen.
"""

import queue
import threading

import numpy as np

from robot.experience import Chunk
from robot.onboard.artifact import Artifact
from robot.onboard.inference import Inference, make_inference

WAITING_CHUNKS = 8


class Shadow(threading.Thread):
    """Watches with one candidate at a time. Start it, `watch` an artifact, `offer` it chunks.

    Attributes:
        sha256: Of the candidate, "" for none.
        steps: It has seen.
        bad: Steps at which it failed, or its action was not finite or of another shape.
        difference: Mean absolute difference of its actions to those that were taken.
    """

    def __init__(self) -> None:
        super().__init__(name="fleet-shadow", daemon=True)
        self._queue: queue.Queue[Chunk | None] = queue.Queue(WAITING_CHUNKS)
        self._lock = threading.Lock()
        self._inference: Inference | None = None
        self._next: tuple[str, int] | None = None  # episode and step it can go on with
        self.sha256, self.steps, self.bad, self.difference = "", 0, 0, 0.0

    def watch(self, artifact: Artifact | None) -> None:
        """Begin with a candidate, or end."""
        sha256 = artifact.sha256 if artifact is not None else ""
        if sha256 == self.sha256:
            return
        inference = make_inference(artifact) if artifact is not None else None
        with self._lock:
            self._inference, self._next = inference, None
            self.sha256, self.steps, self.bad, self.difference = sha256, 0, 0, 0.0

    def offer(self, chunk: Chunk) -> None:
        """A chunk the robot lived through; never waits."""
        if self._inference is None:
            return
        try:
            self._queue.put_nowait(chunk)
        except queue.Full:
            return  # the gap is seen by its step numbers

    def stop(self) -> None:
        self.watch(None)
        self._queue.put(None)

    def run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            with self._lock:
                self.see(chunk)

    def see(self, chunk: Chunk) -> None:
        """Run the candidate over a chunk."""
        inference, header = self._inference, chunk.header
        if inference is None:
            return
        if header.first_step == 0:
            inference.reset()
        elif self._next != (header.episode_id, header.first_step):
            self._next = None
            return
        for observation, taken in zip(chunk.observation, chunk.action):
            try:
                action, _ = inference.act(observation)
                fine = action.shape == taken.shape and bool(np.isfinite(action).all())
            except Exception:  # whatever a model can do wrong: that is what this is here to find
                fine = False
            self.steps += 1
            self.bad += not fine
            if fine:
                self.difference += (float(np.abs(action - taken).mean()) - self.difference) / self.steps
        self._next = (header.episode_id, header.first_step + header.steps)
