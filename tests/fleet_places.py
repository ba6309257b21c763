"""A hub as a real process, and robots that are nothing but an uplink: what they report is up to the test."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fleet_helpers import free_ports

from fleet.errors import HubAwayError
from fleet.keys import make_keys
from fleet.messages import EpisodeResult, FallReport, Heartbeat, Tally
from fleet.operator import ask
from fleet.processes import environment
from fleet.sockets import HubAddress
from fleet.uplink import Line, Uplink
from robot.description import load
from robot.experience import Chunk, ChunkHeader

ROOT = Path(__file__).resolve().parents[1]
UP_S = 60.0
RUN = "import sys, flexor; sys.exit(flexor.main(sys.argv[1:]))"


class Place:
    """A folder with keys and a port; everything started in it ends with `close`."""

    def __init__(self, path: Path, robots: tuple[str, ...] = ("a", "b")) -> None:
        self.path, self.keys, self.port = path, path / "keys", free_ports(5)
        self.address = f"127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[str]] = []
        self.uplinks: list[Uplink] = []
        self.beats: dict[str, dict] = {}  # what each robot reports; a test may change it
        make_keys(self.keys, robots)

    def flexor(self, *words: object) -> subprocess.Popen[str]:
        """Start a subcommand."""
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, words)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def hub(self, *options: object) -> subprocess.Popen[str]:
        words = (
            "fleet",
            "hub",
            "--dir",
            self.path / "hub",
            "--keys",
            self.keys,
            "--port",
            self.port,
            "--reserve-mb",
            1,
        )
        process = self.flexor(*words, *options)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "ready on" in line:
                return process
        raise AssertionError(said)

    def robot(self, name: str, artifact: object, **options: object) -> subprocess.Popen[str]:
        """A whole robot process, on the mock unless told otherwise."""
        words = ["fleet", "robot", "--hub", self.address, "--keys", self.keys, "--name", name]
        words += ["--dir", self.path / name, "--artifact", artifact, "--rate", "fast"]
        for key, value in options.items():
            words += [f"--{key.replace('_', '-')}", value]
        return self.flexor(*words)

    def uplink(self, name: str, **beat: object) -> Uplink:
        """A robot that sends heartbeats with these fields."""
        fields = {
            "state": "running",
            "artifact": "hand_reach/v1",
            "robot_model": "hand22",
            "skills": ("hand_reach",),
            **beat,
        }
        self.beats[name] = fields
        hub = HubAddress(host="127.0.0.1", port=self.port)
        line = Line(hubs=[hub], robot=name, keys=self.keys, backoff_max_s=0.5)
        uplink = Uplink(line, self.path / f"spool_{name}", heartbeat=lambda: Heartbeat(**fields))  # type: ignore[arg-type]
        uplink.start()
        self.uplinks.append(uplink)
        return uplink

    def ask(self, command: str, **arguments: object) -> dict:
        return ask(self.address, self.keys, command, arguments)

    def wait(self, condition, what: str, command: str = "overview") -> dict:
        until_s = time.monotonic() + UP_S
        seen: object = "no answer"
        while time.monotonic() < until_s:
            with contextlib.suppress(HubAwayError):
                seen = self.ask(command)
                if condition(seen):
                    return seen  # type: ignore[return-value]
            time.sleep(0.1)
        raise AssertionError(f"not in {UP_S:g} s: {what}; {json.dumps(seen, default=str)[:3000]}")

    def close(self) -> None:
        for uplink in self.uplinks:
            uplink.finish(0.0)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def tally(**fields: object) -> Tally:
    return Tally(**{"policy_sha256": "a" * 64, "artifact": "hand_reach/v1", **fields})  # type: ignore[arg-type]


def episode(number: int = 0, **fields: object) -> EpisodeResult:
    given = {
        "episode_id": f"{number:032x}",
        "policy_sha256": "a" * 64,
        "artifact": "hand_reach/v1",
        "rollout": "",
        "stage": "",
        "generation": 0,
        "cohort": "none",
        "explored": True,
        "return_": 1.0,
        "success": True,
        "steps": 100,
        "seconds": 4.0,
        **fields,
    }
    return EpisodeResult(**given)  # type: ignore[arg-type]


def chunk(rng: np.random.Generator, episode_id: str, first_step: int = 0, steps: int = 50, **header: object) -> Chunk:
    n_obs, n_act = 24, 6
    given = {
        "contract_sha256": "c" * 64,
        "policy_sha256": "a" * 64,
        "episode_id": episode_id,
        "first_step": first_step,
        "steps": steps,
        "observation_size": n_obs,
        "action_size": n_act,
        "reward_names": ("progress", "effort"),
        "control_hz": 25.0,
        "start_time_ns": 1_700_000_000_000_000_000,
        **header,
    }
    f4 = np.float32
    return Chunk(
        header=ChunkHeader(**given),  # type: ignore[arg-type]
        observation=rng.normal(size=(steps, n_obs)).astype(f4),
        action=rng.normal(size=(steps, n_act)).astype(f4),
        reward=rng.normal(size=(steps, 2)).astype(f4),
        log_prob=rng.normal(size=steps).astype(f4),
        success=(rng.random(steps) < 0.5).astype(np.uint8),
        time_s=(first_step + np.arange(steps)) / 25.0,
        last_observation=rng.normal(size=n_obs).astype(f4),
    )


def fall(model_name: str = "hand22", states: int = 100, reason: str = "the cube was dropped") -> FallReport:
    """A made-up but possible motion: from the home posture towards the middle of the joints' ranges."""
    model = load(model_name)
    share = np.linspace(0.0, 1.0, states)[:, None] ** 2
    q_rad = model.home_rad + share * (0.5 * (model.lower_rad + model.upper_rad) - model.home_rad)
    tilt = 0.7 * share[:, 0]
    quat = np.stack([np.sin(tilt / 2), np.zeros(states), np.zeros(states), np.cos(tilt / 2)], axis=1)
    force = np.tile(3.0 * share, (1, len(model.tips)))
    return FallReport(
        episode_id="f" * 32,
        policy_sha256="a" * 64,
        artifact="hand_reach/v1",
        robot_model=model_name,
        reason=reason,
        states=states,
        time_s=(np.arange(states) / 25.0).astype("<f4").tobytes(),
        q_rad=q_rad.astype("<f4").tobytes(),
        imu_quat_xyzw=quat.astype("<f4").tobytes() if model.floating else b"",
        tip_force_n=force.astype("<f4").tobytes(),
        time_ns=time.time_ns(),
    )
