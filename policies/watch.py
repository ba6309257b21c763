"""Watching a policy in an environment: a line per episode, pictures, a film."""

import threading
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np

from policies.artifact import FileAct, PolicyFile
from policies.evaluate import baseline_policy, file_policy
from robot.artifacts import find_artifact
from sim.baselines import BASELINES

BIT_RATE = 2_000_000  # of the film; plenty for 480 x 360


class Film:
    """An mp4, one picture at a time."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self._av = av
        self._container = av.open(str(path), mode="w")
        self._stream = self._container.add_stream("libx264", rate=round(rate_hz))
        self._stream.bit_rate = BIT_RATE
        self._stream.pix_fmt = "yuv420p"
        self._sized = False

    def add(self, picture: np.ndarray) -> None:
        """One picture, shape (height, width, 3), uint8; even sizes."""
        if not self._sized:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._sized = True
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._sized:
            self._container.mux(self._stream.encode())
        self._container.close()


def watch(
    env_id: str,
    policy: str,
    *,
    engine: str,
    hand: str | None,
    level: str | None = None,
    steps: int,
    seed: int,
    frames: Path | None,
    video: Path | None,
    view: bool,
    say: Callable[[str], None],
) -> None:
    """Run a policy and show it; see `flexor sim --help`.

    Raises:
        UnknownNameError: No such environment, artifact, baseline, engine or hand; the message lists the known ones.
    """
    import sim  # noqa: F401 - registers the environments
    from sim.tasks import find

    find(env_id)
    make_act = baseline_policy(policy) if policy in BASELINES else file_policy(PolicyFile.load(find_artifact(policy)))
    wanted = frames is not None or video is not None
    env = gymnasium.make(env_id, engine=engine, hand=hand, level=level, render_mode="rgb_array" if wanted else None)
    film = Film(video, env.unwrapped.control_hz) if video is not None else None  # type: ignore[attr-defined]
    if frames is not None:
        frames.mkdir(parents=True, exist_ok=True)
    act = make_act(env)
    live = None
    if view:
        from sim.viewer import Live

        live = Live(env.unwrapped)  # type: ignore[arg-type]
        say(f"live view: {live.url}")
    episode, total = 0, 0.0
    observation, info = env.reset(seed=seed)
    try:
        for step in range(steps):
            action = act(observation, info)
            observation, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            if live is not None:
                live.show(info.get("metrics", {}))
            if wanted:
                picture = env.render()
                assert isinstance(picture, np.ndarray)
                if film is not None:
                    film.add(picture)
                if frames is not None:
                    _write_png(frames / f"{step:05d}.png", picture)
            if terminated or truncated:
                figures = "  ".join(f"{name} {value:.2f}" for name, value in info["metrics"].items())
                say(
                    f"episode {episode} (seed {seed + episode}): return {total:.2f}  success {info['success']}  {figures}"
                )
                episode, total = episode + 1, 0.0
                observation, info = env.reset(seed=seed + episode)
                if isinstance(act, FileAct):
                    act.begin()
        if live is not None:
            say("the view stays open until Ctrl-C")
            threading.Event().wait()
    finally:
        if live is not None:
            live.close()
        if film is not None:
            film.close()
        env.close()
    for place in (frames, video):
        if place is not None:
            say(f"wrote {place}")


def _write_png(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)
