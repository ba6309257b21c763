"""What the demo types: the commands of every stage as words after `flexor`, and where each leaves its files. Nothing runs here."""

from dataclasses import dataclass
from pathlib import Path

ENV = "flexor/HandReach-v0"
ARTIFACT = "hand_reach"
HAND = "hand22"
ROBOTS = ("r1", "r2", "r3")
KILLED = "r2"
STRANGER = "stranger"

TRAIN_ENGINE = "mujoco"  # the faster one
TEST_ENGINE = "pybullet"  # the reference: what is released must pass there
EPISODES = 100
EVAL_SEED = 1000  # far from the seeds of training, which count up from the demo's
ROBOT_SEED = 2000
RUN_S = 20.0
PICTURE_STEPS = 100
LEARN_SHARE = 1.0 / 3.0  # of the minutes the first training had


@dataclass(frozen=True)
class Places:
    """Where everything of one demo lies."""

    out: Path

    @property
    def logs(self) -> Path:
        return self.out / "logs"

    @property
    def train(self) -> Path:
        return self.out / "train"

    @property
    def train2(self) -> Path:
        return self.out / "train2"

    @property
    def models(self) -> Path:
        return self.out / "models"

    def artifact(self, version: str) -> Path:
        return self.models / ARTIFACT / version

    @property
    def keys(self) -> Path:
        return self.out / "keys"

    def admission(self, robot: str) -> Path:
        """The file that lets a robot in; without it its key is unknown to the hub."""
        return self.keys / "allow" / f"{robot}.key"

    @property
    def hub(self) -> Path:
        return self.out / "hub"

    @property
    def robots(self) -> Path:
        return self.out / "robots"

    @property
    def packs(self) -> Path:
        return self.out / "packs"

    @property
    def frames(self) -> Path:
        return self.out / "frames"

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    @property
    def figures(self) -> Path:
        return self.out / "demo.json"

    def json(self, name: str) -> Path:
        return self.out / f"{name}.json"


Words = tuple[str, ...]


def words(*parts: object) -> Words:
    return tuple(str(part) for part in parts)


def train(places: Places, *, minutes: float, seed: int) -> Words:
    return words(
        "train", ENV, "--engine", TRAIN_ENGINE, "--out", places.train, "--minutes", f"{minutes:g}", "--seed", seed,
        "--json", places.json("train"),
    )  # fmt: skip


def learn(places: Places, *, minutes: float, seed: int) -> Words:
    """Go on from v1 with what the fleet lived through."""
    return words(
        "train", ENV, "--from-packs", places.packs, "--init", places.train, "--out", places.train2,
        "--minutes", f"{minutes:g}", "--seed", seed, "--json", places.json("learn"),
    )  # fmt: skip


def export(places: Places, version: str) -> Words:
    run = {"v1": places.train, "v2": places.train2}[version]
    return words("export", run, "--name", ARTIFACT, "--out", places.models)


def evaluate(places: Places, version: str) -> Words:
    baselines = ("--baselines",) if version == "v1" else ()
    return words(
        "eval", places.artifact(version), "--engine", TEST_ENGINE, "--episodes", EPISODES, "--seed", EVAL_SEED, *baselines,
        "--json", places.json(f"eval_{version}"),
    )  # fmt: skip


def onboard(places: Places) -> Words:
    return words(
        "run", places.artifact("v1"), "--backend", TEST_ENGINE, "--seconds", f"{RUN_S:g}", "--json", places.json("run")
    )


def pictures(places: Places) -> Words:
    return words(
        "sim", ENV, "--engine", TEST_ENGINE, "--policy", places.artifact("v1"), "--frames", places.frames,
        "--steps", PICTURE_STEPS,
    )  # fmt: skip


def keys(places: Places, robots: tuple[str, ...]) -> Words:
    return words("fleet", "keys", "--dir", places.keys, "--robots", ",".join(robots))


def hub(places: Places, port: int) -> Words:
    return words("fleet", "hub", "--dir", places.hub, "--keys", places.keys, "--port", port)


def robot(places: Places, hub_at: str, name: str) -> Words:
    """Each robot has its own seed: its own hand, its own goals, its own noise."""
    seed = ROBOT_SEED + (*ROBOTS, STRANGER).index(name)
    return words(
        "fleet", "robot", "--hub", hub_at, "--keys", places.keys, "--name", name, "--dir", places.robots / name,
        "--artifact", places.artifact("v1"), "--backend", TEST_ENGINE, "--rate", "fast", "--seed", seed,
    )  # fmt: skip


def status(places: Places, hub_at: str, *, count: bool) -> Words:
    """`count` reads the hub's whole log, record by record; otherwise its cursors are told."""
    counted = "--count" if count else "--no-count"
    return words("fleet", "status", "--hub", hub_at, "--keys", places.keys, counted, "--json", places.json("status"))


def packs(places: Places) -> Words:
    return words("fleet", "export", "--dir", places.hub, "--out", places.packs)


def deploy(places: Places, hub_at: str) -> Words:
    return words("fleet", "deploy", places.artifact("v2"), "--hub", hub_at, "--keys", places.keys)
