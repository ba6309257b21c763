"""What a training run is, and the settings each task is trained with: one row per task, found by measuring (docs/learning.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.hindsight import HindsightConfig
from policies.ppo import PPOConfig
from policies.sac import SACConfig
from robot.errors import UnknownNameError

LEARNERS = ("ppo", "sac")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run is. Saved with it; a resumed run uses the saved one. Hindsight is used where the contract allows it.

    Attributes:
        env_id, engine, hand: The environment.
        seed: Of everything drawn.
        num_envs, workers: Simulated robots, and the processes they are spread over.
        hidden, activation: Of actor and critic.
        memory: Width of the actor's GRU cell, 0 for none.
        initial_std: Of the actions, at the start.
        imitate: Control steps of the task's script that a fresh policy watches and imitates before it learns; 0 for none.
        imitate_rounds: Rounds of these steps in which the policy acts and the script corrects it, after a first round of watching.
        began_with: The run whose networks it began with, in words; fresh ones when empty.
        level: The task's level; the task itself when empty.
        level_success: Begin at the task's easiest level, and go on to the next with the chapter after one in which this share of the
            episodes succeeded; 0 to stay at `level`.
        chapter_s: Simulated time until all environments start anew and a checkpoint is written; always more than an episode.
        overlap: Simulate with the last policy while learning; without it they take turns.
        mirror: Learn from mirror images too, where the robot has them.
        learner: "ppo" or "sac".
        ppo, hindsight, sac: Settings of the learners.
    """

    env_id: str
    engine: str = "mujoco"
    hand: str | None = None
    seed: int = 0
    num_envs: int = 32
    workers: int = 2
    hidden: tuple[int, ...] = (256, 128)
    activation: str = "elu"
    memory: int = 0
    initial_std: float = 0.5
    imitate: int = 0
    imitate_rounds: int = 0
    began_with: str = ""
    level: str = ""
    level_success: float = 0.0
    chapter_s: float = 12.8
    overlap: bool = True
    mirror: bool = True
    learner: str = "ppo"
    ppo: PPOConfig = field(default_factory=PPOConfig)
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)
    sac: SACConfig = field(default_factory=SACConfig)


# A body falls within a second at first: small noise, a long view, and a step small enough not to forget how to stand.
# Numbers of the walking recipe; the rate may rise and fall by itself.
BODY = {
    "num_envs": 32,
    "initial_std": 0.3,
    "chapter_s": 40.0,
    "ppo": PPOConfig(
        horizon=128,
        minibatch=1024,
        gamma=0.985,
        lam=0.95,
        learning_rate=3e-4,
        min_rate=2e-5,
        max_rate=1e-3,
        target_kl=0.015,
        entropy=0.003,
    ),
}
STANDING = {**BODY, "imitate": 8000, "level_success": 0.75}
# Walking begins without pushes: a body that is pushed over within seconds learns to stand and nothing else.
WALKING = {**BODY, "level_success": 0.2}
# Objects in the hand: relative targets at 20 Hz, drops end the episode.
IN_HAND: dict[str, Any] = {
    "num_envs": 32,
    "initial_std": 0.3,
    "chapter_s": 40.0,
    "ppo": PPOConfig(
        horizon=64,
        minibatch=512,
        gamma=0.985,
        lam=0.95,
        learning_rate=5e-4,
        min_rate=1e-4,
        max_rate=1e-3,
        target_kl=0.02,
    ),
}

# From a gait that turns the cube now and then: steps small enough to keep it, samples enough to see what unjams a cube.
TURNING = {
    **IN_HAND,
    "num_envs": 64,
    "imitate": 20_000,
    "imitate_rounds": 1,
    "ppo": replace(IN_HAND["ppo"], minibatch=1024, learning_rate=1e-4, min_rate=2e-5, target_kl=0.015),
}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "flexor/HandReach-v0": {},
    "flexor/HandGrasp-v0": {**IN_HAND, "imitate": 120_000, "imitate_rounds": 1},
    "flexor/HandRotateCube-v0": TURNING,
    "flexor/HandReorientCube-v0": IN_HAND,
    "flexor/HandTrace-v0": {
        "imitate": 9000,
        "imitate_rounds": 2,
        "ppo": PPOConfig(gamma=0.97, lam=0.95, target_kl=0.03),
    },
    "flexor/HandInsert-v0": IN_HAND,
    "flexor/BodyStand-v0": STANDING,
    "flexor/BodyWalk-v0": WALKING,
    "flexor/BodyCarry-v0": WALKING,
    "flexor/BodyPush-v0": WALKING,
}


def settings_of(env_id: str, **changes: Any) -> TrainConfig:
    """The settings a task is trained with; those of no row are `TrainConfig`'s.

    Args:
        changes: Fields that differ; None leaves one as it is. With a `level` it stays there.

    Raises:
        UnknownNameError: No such learner.
    """
    kept = {name: value for name, value in changes.items() if value is not None}
    if kept.get("level"):
        kept = {"level_success": 0.0, **kept}
    if kept.get("learner", "ppo") not in LEARNERS:
        raise UnknownNameError("learner", kept["learner"], LEARNERS)
    return replace(TrainConfig(env_id=env_id, **SETTINGS.get(env_id, {})), **kept)


def config_from(fields: Mapping[str, Any]) -> TrainConfig:
    """Settings from their JSON.

    Raises:
        KeyError, TypeError: A field is missing or unknown.
    """
    made = dict(fields)
    made["hidden"] = tuple(made["hidden"])
    for name, kind in (("ppo", PPOConfig), ("hindsight", HindsightConfig), ("sac", SACConfig)):
        made[name] = kind(**made[name])
    return TrainConfig(**made)
