"""What the walking tasks share: commands of forward speed and turning, a gait clock, and what a step is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, pi, sin

import numpy as np

from robot.contract import Term
from robot.description.model import RobotModel
from robot.state import RobotState
from sim.tasks.body import CYCLE_S, TOUCH_N, BodyTask, Gait, jerk, near, tilt, tilt_deg, unrest
from sim.tasks.task import Judgement, clock
from sim.world import Push, WorldState

RAMP_M_S2, RAMP_RAD_S2 = 0.8, 1.2  # how fast a command reaches its new value
HOLD_S = (3.0, 7.0)  # how long a command stays
STANDING = 0.1  # share of commands that say: stand
STILL = 0.08  # commands below this, in m/s and rad/s, are standing
SWING_RAD = 0.5  # knees bend by this much in a swing: 8 cm under the sole when hip and ankle go along
STANCE = 0.55  # share of the gait's cycle: a step takes half a cycle, a foot stands for more than half of it
PUSH_EVERY_S = 5.0
STEADY_M_S = (0.3, 1.0)  # commands of the easiest level, within those of the task
SLOW_S = 0.8  # speeds are averaged over a cycle before they are called an error
SUCCESS_M_S = 0.15  # mean speed error of an episode that counts, if it did not end in a fall


@dataclass(frozen=True, kw_only=True)
class Level:
    """A form of the walking tasks.

    Attributes:
        straight: Commands are straight ahead at `STEADY_M_S`; all the task's speeds and turns else.
        force: Share of the task's own that pushes and pulls have.
        every_s: Between two pushes.
        backwards: Share of the commands that go back, where the task's do at all; uniform over its speeds else.
        flat: No start on or near uneven ground.
    """

    straight: bool = False
    force: float = 1.0
    every_s: float = PUSH_EVERY_S
    backwards: float = 0.0
    flat: bool = False


LEVELS = {
    "steady": Level(straight=True, force=0.0, flat=True),
    # What bodies fall by is going back, by command or pushed; the more of the samples are about it, the sooner it is learned.
    "turning": Level(force=0.0, backwards=0.4, flat=True),
    "nudged": Level(force=0.5, every_s=2.0, backwards=0.4),
    "shoved": Level(force=1.0, every_s=2.5, backwards=0.4),
    "beyond": Level(force=1.5, every_s=3.0, backwards=0.4),
    "all": Level(),
}


def feet_in_time(gait: Gait, phase: float) -> float:
    """Share of the feet that stand when the clock says stand and lift when it says lift."""
    left, right = phase < STANCE, (phase + 0.5) % 1.0 < STANCE
    return 0.5 * ((gait.left_n > TOUCH_N) == left) + 0.5 * ((gait.right_n > TOUCH_N) == right)


def bent(phase: float) -> float:
    """How far a knee is bent beyond standing at a phase of its leg: not while it stands, most in the middle of its swing [rad]."""
    return SWING_RAD * sin(pi * (phase - STANCE) / (1.0 - STANCE)) if phase > STANCE else 0.0


def progress(speed: float, command: float) -> float:
    """Share of the command that is reached, -1..1: a slope that leads there from anywhere."""
    return max(-1.0, min(1.0, speed / command)) if abs(command) > STILL else 0.0


class Walking(BodyTask):
    """60 s of walking by command. What differs between tasks: where commands come from, what pushes, what else ends it.

    Attributes:
        speeds_m_s, turns_rad_s: Least and most that is commanded.
        push_m_s: Strength of a push every `PUSH_EVERY_S`, as the speed it would give the whole body.

    `LEVELS` are its easier forms: a body that is pushed over within seconds learns nothing of walking.
    """

    levels = tuple(LEVELS)
    level = "all"

    max_steps = 3000  # 60 s
    speeds_m_s: tuple[float, float]
    turns_rad_s: tuple[float, float]
    push_m_s: float
    goal_names = ("forward", "yaw")  # m/s, rad/s
    reward_names = (
        "speed",
        "progress",
        "turn",
        "sideways",
        "alive",
        "feet",
        "knees",
        "upright",
        "height",
        "unrest",
        "posture",
        "smooth",
        "power",
        "load",
        "fall",
    )
    metric_names = ("speed_error_m_s", "turn_error_rad_s", "tilt_deg", "power_w", "walked_m", "survived_s")

    def __init__(self, model: RobotModel, arms_rad: Mapping[str, float] | None = None) -> None:
        super().__init__(model, arms_rad)
        self._knees = np.array([model.index("left_knee"), model.index("right_knee")])
        self._begin()

    def _begin(self) -> None:
        self._command, self._wanted = np.zeros(2), np.zeros(2)
        self._change_s = self._push_s = 0.0
        self._slow = [0.0, 0.0]  # error of speed and turning, averaged over a cycle
        self._sums = [0.0] * 5
        self._steps = 0
        self._push_steps = 0

    def extra_terms(self) -> tuple[Term, ...]:
        goal = Term(
            name="goal", elements=self.goal_names, unit="m/s, rad/s", frame="heading", low=(-0.5, -1.0), high=(1.5, 1.0)
        )
        return goal, clock(CYCLE_S)

    @property
    def goal(self) -> np.ndarray:
        return self._command.copy()

    def commanded(self, rng: np.random.Generator) -> None:
        """Draw the first command and the time of the first push."""
        self._begin()
        self._push_s = rng.uniform(1.0, LEVELS[self.level].every_s)
        self._draw_command(0.0, rng)
        self._command = self._wanted.copy() if rng.random() < 0.5 else np.zeros(2)

    def _draw_command(self, now_s: float, rng: np.random.Generator) -> None:
        self._change_s = now_s + rng.uniform(*HOLD_S)
        if LEVELS[self.level].straight:
            low, high = STEADY_M_S
            self._wanted = np.array([rng.uniform(low, min(high, self.speeds_m_s[1])), 0.0])
            return
        stand, straight, back = rng.random(3)
        least, most = self.speeds_m_s
        if least < 0.0 and back < LEVELS[self.level].backwards:
            most = min(0.0, most)
        speed, turn = rng.uniform(least, most), rng.uniform(*self.turns_rad_s)
        self._wanted = np.array([speed, 0.0 if straight < 0.3 else turn]) * (stand >= STANDING)

    def proceed(self, state: RobotState, world: WorldState, rng: np.random.Generator) -> Sequence[Push]:
        now_s, dt = state.time_s, 1.0 / self.control_hz
        if now_s >= self._change_s:
            self._draw_command(now_s, rng)
        most = np.array([RAMP_M_S2, RAMP_RAD_S2]) * dt
        self._command = self._command + np.minimum(np.maximum(self._wanted - self._command, -most), most)
        force = LEVELS[self.level].force
        if not force:
            return ()
        if now_s >= self._push_s:
            self._push_s += LEVELS[self.level].every_s
            self.shove(force * self.push_m_s, rng)
            self.disturb(rng)
        return (*self.pushing(), *self.pulls(force))

    def disturb(self, rng: np.random.Generator) -> None:
        """What else changes when a push begins; nothing here."""

    def pulls(self, force: float) -> tuple[Push, ...]:
        """What pulls all the time, at a share of its full force; nothing here."""
        return ()

    def astray(self, world: WorldState) -> float:
        """How far what it carries or pushes is from its place, 1 where it is lost; it has nothing here."""
        return 0.0

    def judge(self, state: RobotState, world: WorldState, action: np.ndarray, previous_action: np.ndarray) -> Judgement:
        gait = self.gait(state, world)
        astray = self.astray(world)
        over = gait.fallen or astray > 1.0
        speed, turn = self._command.tolist()
        phase = (state.time_s / CYCLE_S) % 1.0
        power = min(max(world.electrical_w, 0.0), 5000.0)
        terms = {
            "speed": 1.5 * near(gait.forward_m_s - speed, 0.4),
            "progress": progress(gait.forward_m_s, speed),
            "turn": 0.8 * near(gait.yaw_rad_s - turn, 0.3),
            "sideways": -1.0 * gait.left_m_s**2,
            "alive": 0.5,  # at 1 and with falls at -50 it stood still, whatever was commanded: walking was not worth the risk
            # Also where it is told to stand: a body that steps on the spot catches a push with the next step (docs/learning.md).
            "feet": 0.3 * feet_in_time(gait, phase),
            "knees": 0.6 * self._knees_in_time(state, phase),
            "upright": -3.0 * tilt(gait),
            "height": -20.0 * min(0.0, gait.height_m - 0.85) ** 2,
            "unrest": -0.05 * unrest(gait),
            "posture": -0.5 * self.wander(state),
            "smooth": -0.3 * jerk(action, previous_action),
            "power": -8e-4 * power,
            "load": -(min(astray, 1.0) ** 2),
            "fall": -10.0 if over else 0.0,
        }
        self._note(gait, power)
        return Judgement(
            reward_terms=terms,
            terminated=over,
            success=bool(not over and self._sums[0] / self._steps < SUCCESS_M_S),
            metrics=self._metrics(),
        )

    def _knees_in_time(self, state: RobotState, phase: float) -> float:
        """1 where both knees bend as the clock says, 0.3 where one misses a whole swing."""
        left, right = (state.q_rad[self._knees] - self._home[self._knees]).tolist()
        left, right = left - bent(phase), right - bent((phase + 0.5) % 1.0)
        return exp(-5.0 * (left * left + right * right))

    def _note(self, gait: Gait, power_w: float) -> None:
        share, dt = 1.0 / (SLOW_S * self.control_hz), 1.0 / self.control_hz
        speed, turn = self._command.tolist()
        slow = self._slow
        slow[0] += share * (gait.forward_m_s - speed - slow[0])
        slow[1] += share * (gait.yaw_rad_s - turn - slow[1])
        self._steps += 1
        for i, value in enumerate((abs(slow[0]), abs(slow[1]), tilt_deg(gait), power_w, dt * gait.forward_m_s)):
            self._sums[i] += value

    def _metrics(self) -> dict[str, float]:
        n = self._steps
        speed, turn, tilted, power, walked = self._sums
        return {
            "speed_error_m_s": speed / n,
            "turn_error_rad_s": turn / n,
            "tilt_deg": tilted / n,
            "power_w": power / n,
            "walked_m": walked,
            "survived_s": n / self.control_hz,
        }
