"""The environment: a Gymnasium env composed of a task, an engine, and one drawn robot. Its contract is its interface.

Observation and action tables: `flexor inspect` prints them; `RobotEnv.contract` holds them. The same object serves a controller in
another process through `robot_side`, which speaks states and commands instead of observations and actions.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robot.contract import Contract
from robot.description import load
from robot.errors import FlexorError, NotFiniteError, UnknownNameError
from robot.link_wire import TaskFeedback
from robot.state import Command, RobotState
from sim import engines
from sim.ranges import Ranges, sizes_of
from sim.tasks import Judgement, find
from sim.world import World, WorldState, quat_matrix

if TYPE_CHECKING:
    from sim.engines.robot import SimulatedRobot
    from sim.randomization import Draw

RENDER_SIZE_PX = (480, 360)
ROUNDING = 1e-6  # float32 that was clipped as float64
RENDER_MODES = ("rgb_array", "human")
# Worlds an environment keeps: a PyBullet client takes 30 MB and 50 ms to load, a MuJoCo model is small.
KEPT_WORLDS = {"pybullet": 3, "mujoco": 64}


class ActionError(FlexorError, ValueError):
    """An action the environment refuses; the message says why."""


class RobotEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task, one robot, one engine.

    Args:
        env_id: Which task, a key of `sim.tasks.TASKS`.
        engine: Which physics engine, one of `sim.engines.ENGINES`.
        hand: Which robot; the task's default when None.
        render_mode: None, "rgb_array", or "human": a live page in the browser, whose address goes to standard error.
        randomization: True draws a new robot, its sensors and what is around it from `ranges` at every reset; False is the nominal
            robot with perfect sensors.
        ranges: What is drawn: `sim.ranges.Ranges`, or those by name that differ from the task's and its defaults.
        level: An easier form of the task, one of its `levels`; the task itself when None.

    `info` of a step holds the reward terms, metrics, success and energy, at reset the goal and the drawn values; where the task has
    them, both hold `privileged`: numbers for a critic, named by `privileged_names`, which no policy may see.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 25}  # noqa: RUF012 - Gymnasium's own name

    def __init__(
        self,
        env_id: str,
        *,
        engine: str = "pybullet",
        hand: str | None = None,
        render_mode: str | None = None,
        randomization: bool = True,
        ranges: Ranges | Mapping[str, tuple[float, float]] | None = None,
        level: str | None = None,
    ) -> None:
        from sim.interface_kernel import CompiledInterface  # numba loads only where an environment is made

        task = find(env_id)
        hand = task.default_robot if hand is None else hand
        if hand not in task.robots:
            raise UnknownNameError(f"hand for {env_id}", hand, task.robots)
        if render_mode not in (None, *RENDER_MODES):
            raise UnknownNameError("render_mode", render_mode, RENDER_MODES)
        self.render_mode = render_mode
        self.model = load(hand)
        self.task = task(self.model)
        if level is not None:
            if level not in task.levels:
                raise UnknownNameError(f"level of {env_id}", level, task.levels)
            self.task.level = level
        self.engine = engine
        self._backends: dict[World, SimulatedRobot] = {}  # of the worlds drawn last, the newest at the end
        self.backend = self._in(self.task.world())
        self.dt = 1.0 / self.task.control_hz
        self.contract: Contract = self.task.contract()
        self.interface = self.contract.bind(self.model)
        self._nominal = self.backend.kernel.parameters
        self.backend.track(task.tracked)
        self._sizes = sizes_of(self.model, bool(task.tracked))
        self._compiled = CompiledInterface(self.interface, self.backend.sensed)
        self._ranges = ranges if isinstance(ranges, Ranges) else Ranges.of(task.ranges, ranges or {})
        self._randomization = randomization
        self._draw: Draw | None = None
        self.observation_space = _space(self.contract)
        self.action_space = spaces.Box(-1.0, 1.0, (self.contract.action_size,), np.float32)
        self.privileged_names = self.task.privileged_names
        self.privileged_space = spaces.Box(-np.inf, np.inf, (len(self.privileged_names),), np.float32)
        self._state: RobotState | None = None
        self._said = self.backend.readings  # what the sensors say
        self._world: WorldState | None = None
        self._steps, self._clock_s = 0, 0.0
        self._previous_action = np.zeros(self.contract.action_size)
        self._live: Any = None  # the page, in render mode "human"

    def _in(self, world: World) -> "SimulatedRobot":
        """The engine with a world in it, loaded where it is none of the last ones."""
        backend = self._backends.pop(world, None)
        if backend is None:
            backend = engines.make(self.engine, self.model, control_hz=self.task.control_hz, world=world)
            backend.track(self.task.tracked)
            while len(self._backends) >= KEPT_WORLDS[self.engine]:
                self._backends.pop(next(iter(self._backends))).close()
        self._backends[world] = backend
        return backend

    @property
    def control_hz(self) -> float:
        return self.task.control_hz

    @property
    def state(self) -> RobotState:
        """The true state, which a policy does not see.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    @property
    def world_state(self) -> WorldState:
        """The truth about base, bodies and contacts.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._world is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._world

    @property
    def measured(self) -> RobotState:
        """What this robot's sensors say."""
        true = self.state
        return self.backend.sensed.state(self._said.copy(), true.time_s, true.target_rad)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of the generator that everything is drawn from; it goes on where it was when None.
            options: `{"kind": NAME}` asks for one of the task's `kinds` for this episode; without it one is drawn.

        Raises:
            UnknownNameError: An option or kind that is not known; the message lists those that are.
        """
        super().reset(seed=seed)
        self.task.kind = self._kind_in(options or {})
        self.begin()
        info: dict[str, Any] = {"goal": self.task.goal, "randomization": self._draw.as_info() if self._draw else {}}
        self._tell(info)
        self._show({})
        return self._observation(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = self._checked(action)
        target = self._compiled.command(action, self.state.target_rad)
        judgement = self.advance(Command(target_rad=target), action)
        truncated = self._steps >= self.task.max_steps
        info = {
            "reward_terms": judgement.reward_terms,
            "metrics": judgement.metrics,
            "success": judgement.success,
            "is_success": judgement.success,
            "energy_j": self.backend.energy_j,  # electrical, all motors, this episode
            "heat_j": self.backend.heat_j,  # of it, what became heat in the windings
        }
        self._tell(info)
        self._show(judgement.metrics)
        reward = float(sum(judgement.reward_terms.values()))
        return self._observation(), reward, judgement.terminated, truncated, info

    def _observation(self) -> np.ndarray:
        """What the contract's `Interface` would observe; call it once per step."""
        first = self._steps == 0
        return self._compiled.observe(
            self._said, self.state.target_rad, self.task.goal, self._previous_action, self._clock_s, first=first
        )

    def _kind_in(self, options: Mapping[str, Any]) -> str:
        for name in options:
            if name != "kind":
                raise UnknownNameError("option of reset", name, ("kind",))
        kind = str(options.get("kind", ""))
        if kind and kind not in self.task.kinds:
            raise UnknownNameError(f"kind of {self.task.env_id}", kind, self.task.kinds)
        return kind

    def begin(self) -> None:
        """Draw a robot and an episode, and put the robot there."""
        rng = self.np_random
        world = self.task.draw_world(rng)
        if world is not None:
            self.backend = self._in(world)
        if self._randomization:
            self._draw_another(rng)
        self._state = self.backend.begin(self.task.start(rng))
        self._world = self.backend.world_state()
        self._push(self._state, self._world)
        self._said = self._draw.sensors.reset(self.backend.readings, rng) if self._draw else self.backend.readings
        self._previous_action = np.zeros(self.contract.action_size)
        self._steps, self._clock_s = 0, 0.0

    def advance(self, command: Command, action: np.ndarray) -> Judgement:
        """Apply a command for one control step and judge it."""
        self._state = self.backend.step(command)
        self._world = self.backend.world_state()
        judgement = self.task.judge(self._state, self._world, action, self._previous_action)
        self._push(self._state, self._world)
        self._said = self._draw.sensors.read(self.backend.readings) if self._draw else self.backend.readings
        self._previous_action = action
        self._steps += 1
        self._clock_s += self.dt  # as a robot's memory adds it up
        return judgement

    def _tell(self, info: dict[str, Any]) -> None:
        if self.privileged_names:
            info["privileged"] = self.task.privileged(self.state, self.world_state).astype(np.float32)

    def _draw_another(self, rng: np.random.Generator) -> None:
        from sim.randomization import draw

        self._draw = draw(
            self._ranges,
            rng,
            links=len(self.model.links),
            bodies=len(self.backend.world.bodies),
            readings=self._sizes,
            dt_s=self.dt,
            pushed=self.task.pushed,
        )
        self.backend.use(self._draw.parameters(self._nominal))
        self.backend.vary(self._draw.variation)
        self.backend.delay(self._draw.command_delay_s)

    def _push(self, state: RobotState, world: WorldState) -> None:
        rng = self.np_random
        pushes = self.task.proceed(state, world, rng)
        self.backend.push((*pushes, *self._draw.pushes.at(state.time_s, rng)) if self._draw else pushes)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self._previous_action.shape:
            raise ActionError(f"action must have shape {self.action_space.shape}, got {action.shape}")
        clipped = self._compiled.clipped(action, 1.0 + ROUNDING)
        if clipped is None:
            joints = self.contract.action.joints
            refuse_not_finite(action, joints)
            refuse_outside(action, joints)
        assert clipped is not None
        return clipped

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None  # in "human" the page follows by itself
        from sim.camera import picture

        return picture(self.backend, RENDER_SIZE_PX, goals_m=self.goal_points_m())

    def goal_points_m(self) -> np.ndarray:
        """Goals as points in the palm frame, for pictures, shape (n, 3); empty where a task's goal is no point."""
        if self.contract.goal_unit != "m":
            return np.zeros((0, 3))
        points = self.task.goal.reshape(-1, 3)
        if self.contract.goal_frame != "base":
            return points
        truth = self.world_state
        rotations, origins = truth.links
        palm = [link.name for link in self.model.links].index("palm")
        in_world = points @ quat_matrix(truth.base_quat_xyzw).T + truth.base_position_m
        return (in_world - origins[palm]) @ rotations[palm]

    def _show(self, figures: dict[str, float]) -> None:
        if self.render_mode == "human":
            if self._live is None:
                from sim.viewer import Live

                self._live = Live(self)
                print(f"{self.task.env_id}: {self._live.url}", file=sys.stderr, flush=True)
            self._live.show(figures)

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None
        for backend in self._backends.values():
            backend.close()


def refuse_not_finite(action: np.ndarray, joints: tuple[str, ...]) -> None:
    """Refuse an action with a NaN or an infinity.

    Raises:
        NotFiniteError: The joints are named.
    """
    bad = {joints[i]: float(action[i]) for i in np.flatnonzero(~np.isfinite(action))}
    if bad:
        raise NotFiniteError("action", bad)


def refuse_outside(action: np.ndarray, joints: tuple[str, ...], prefix: str = "") -> None:
    """Refuse an action outside the space.

    Raises:
        ActionError: A number outside -1..1 by more than rounding; the joints are named.
    """
    if np.abs(action).max(initial=0.0) > 1.0 + ROUNDING:
        outside = np.flatnonzero(np.abs(action) > 1.0 + ROUNDING)[:8]
        bad = {f"{prefix}{joints[i]}": round(float(action[i]), 6) for i in outside}
        raise ActionError(f"actions must lie in -1..1, got {bad}; clip them first")


def _space(contract: Contract) -> spaces.Box:
    """Bounds that hold: a term's range widened by itself on either side, for a blow or a bent stop can leave the range."""
    low, high = contract.observation_low, contract.observation_high
    return spaces.Box(2 * low - high, 2 * high - low, dtype=np.float32)


class EnvSide:
    """A `RobotEnv` as the robot end of a link: states out, commands in. See `robot.link.RobotSide`."""

    def __init__(self, env: RobotEnv) -> None:
        self._env = env
        action = env.contract.action
        self._moved = np.array([env.model.index(joint) for joint in action.joints])
        self._scale, self._offset = np.array(action.scale_rad), np.array(action.offset_rad)

    @property
    def model(self):
        return self._env.model

    @property
    def control_hz(self) -> float:
        return self._env.control_hz

    @property
    def env_id(self) -> str:
        return self._env.task.env_id

    def reset(self, rng_seed: int) -> tuple[RobotState, TaskFeedback]:
        gymnasium.Env.reset(self._env, seed=rng_seed)
        self._env.begin()
        return self._env.measured, self._feedback(None, False)

    def step(self, command: Command) -> tuple[RobotState, TaskFeedback]:
        judgement = self._env.advance(command, self._action_of(command))
        return self._env.measured, self._feedback(judgement, self._env._steps >= self._env.task.max_steps)

    def _action_of(self, command: Command) -> np.ndarray:
        """The action that a command amounts to, which the reward for smoothness is about."""
        zero = (
            self._env.measured.target_rad[self._moved] if self._env.contract.action.mode == "relative" else self._offset
        )
        return np.clip((command.target_rad[self._moved] - zero) / self._scale, -1.0, 1.0)

    def _feedback(self, judgement: Judgement | None, truncated: bool) -> TaskFeedback:
        names = self._env.task.reward_names
        terms = judgement.reward_terms if judgement else dict.fromkeys(names, 0.0)
        return TaskFeedback(
            goal=self._env.task.goal,
            reward_names=names,
            reward_terms=np.array([terms[name] for name in names]),
            terminated=bool(judgement and judgement.terminated),
            truncated=truncated,
            success=bool(judgement and judgement.success),
        )

    def close(self) -> None:
        self._env.close()


def robot_side(env_id: str, robot: str, engine: str) -> EnvSide:
    """The simulated robot of an environment, for `robot.link.serve`. Nothing is drawn before a reset, which brings its own seed."""
    return EnvSide(RobotEnv(env_id, engine=engine, hand=robot or None))
