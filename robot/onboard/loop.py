"""The control loop: wait for the deadline, read, observe, decide, filter, command. One process, one thread, absolute deadlines.

Per period: the robot's answer to the last command is read, the step's experience is made of it, it is observed, the policy
decides, the filter of `robot.safety` has the last word, the command goes out; then the process sleeps until the next deadline. It
wakes once per period: the answer is there by then. Latency is counted from the state being in hand until the command is handed to
the robot's link. A period whose predecessor is not over yet is skipped and counted as missed; the loop never runs two in a burst.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from robot import safety
from robot.contract import Interface
from robot.energy import copper_w, winding_ohm
from robot.errors import NotFiniteError
from robot.experience import Chunk
from robot.onboard.compiled import CompiledInference, CompilerError
from robot.onboard.deadlines import Deadlines
from robot.onboard.explore import checked_std, sample
from robot.onboard.filter import CompiledFilter, TargetFilter, make_filter
from robot.onboard.flight import FlightRecorder
from robot.onboard.inference import Inference
from robot.onboard.loop_report import LoopReport, Tally
from robot.onboard.realtime import Clock, MonotonicClock, by_signals_only, never, realtime, woken_by_signals
from robot.onboard.recorder import Recorder
from robot.onboard.robots import Robot
from robot.onboard.tick import Tick
from robot.onboard.tick_record import SILENT, TickError
from robot.safety import Fault, Mode
from robot.state import Command

WARM_UP_CALLS = 100
NOTHING_CHANGED = (0,) * len(safety.STAGES)
LATE_ANSWER = 0.25  # of a period: an answer that comes up to so late is used at once, a later one at the next deadline
SILENCE_S = 1.0  # a robot behind a link that says nothing for so long is a fault
DAMPING_PERIODS = 2  # after a fault the joints are damped for this long, then the loop ends


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a loop runs.

    Attributes:
        seconds: End after this long, None for no end [s].
        episodes: End after this many whole episodes, None for no end.
        paced: False to step as fast as the robot answers; deadlines mean nothing then.
        realtime: Ask for locked memory and real-time priority.
        exploration_std: Noise on the actions, shape (n_actions,), None to act without.
        blend_s: The policy fades in over this long when it takes over, at the start and after a `rearm`. A simulated
            episode starts as the policy was trained, with 0 [s].
    """

    seconds: float | None = None
    episodes: int | None = None
    paced: bool = True
    realtime: bool = False
    exploration_std: np.ndarray | None = None
    blend_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a period came to before the filter of states: a target to send, and the step to record."""

    observation: np.ndarray
    action: np.ndarray
    log_prob: float
    asked_rad: np.ndarray
    filtered: safety.Filtered


def drop(chunk: Chunk) -> None:
    """Keep no experience."""


class ControlLoop:
    """Drives one robot with one policy.

    Args:
        robot: What to drive; not closed.
        interface: The policy's contract, bound to that robot.
        inference: The policy.
        rng: Source of the exploration noise and of the seeds of the episodes.
        config: How.
        recorder: Takes the experience; None to keep none.
        on_chunk: Gets each chunk; must return fast.
        strangeness: Out-of-distribution score, None for none.
        should_stop: Asked once per period, or after each signal where `by_signals_only`.
        estop: The same; wins over everything.
        rearm: Asked once per period of DAMPING: an operator's word that the fault is gone. None to end after a fault.
        limiter: The filter; the fastest to be had here, made of the robot's limits, when None.
        flight: Keeps the last seconds, and is asked for a recording when a fault begins; not closed.
        clock: Time.
    """

    def __init__(
        self,
        robot: Robot,
        interface: Interface,
        inference: Inference,
        *,
        rng: np.random.Generator,
        config: LoopConfig,
        recorder: Recorder | None = None,
        on_chunk: Callable[[Chunk], None] = drop,
        strangeness: safety.Strangeness | None = None,
        should_stop: Callable[[], bool] = never,
        estop: Callable[[], bool] = never,
        rearm: Callable[[], bool] | None = None,
        limiter: TargetFilter | None = None,
        flight: FlightRecorder | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._robot, self._interface, self._inference = robot, interface, inference
        self._rng, self._config = rng, config
        self._recorder, self._on_chunk = recorder, on_chunk
        self._strangeness, self._should_stop, self._estop = strangeness, should_stop, estop
        self._clock: Clock = clock or MonotonicClock()
        contract = interface.contract
        std = np.zeros(contract.action_size) if config.exploration_std is None else config.exploration_std
        self._std = checked_std(std, contract.action_size)
        self._dt_s, self._period_ns = contract.dt_s, round(1e9 / contract.control_hz)
        self._filter = limiter or make_filter(safety.Limits.of(robot.model, contract.dt_s))
        self._limits = self._filter.limits
        self._rearm, self._flight = rearm, flight
        self._blend_periods = round(config.blend_s * contract.control_hz)
        self._blended = 0
        self._winding_ohm = winding_ohm(robot.model)
        self._tally = Tally.of(0 if config.seconds is None else round(config.seconds * contract.control_hz))
        self._watch, self._fault_text, self._strange_in_a_row = safety.Watch(), "", 0
        self._deadlines = Deadlines(self._clock, self._period_ns, self._tally)
        self._sent_ns, self._pressed, self._stopping = 0, False, False
        self._state_in_hand = True  # not where the compiled period was interrupted: what it saw last is nobody's
        self._noise, self._drawn = np.zeros(contract.action_size), False
        self._start_episode()
        self.in_python = ""  # why the period is Python's, "" where it is compiled
        self._tick = self._compile()

    def _compile(self) -> Tick | None:
        """The compiled period, where all that it needs is there; the loop in Python does the same."""
        robot, policy, limiter = self._robot, self._inference, self._filter
        if not isinstance(policy, CompiledInference):
            self.in_python = f"the network is run by {policy.name}, not by generated C"
            return None
        if not isinstance(limiter, CompiledFilter):
            self.in_python = "the safety filter is numpy's"
            return None
        if not (isinstance(self._clock, MonotonicClock) and self._config.paced):
            self.in_python = "it does not follow the system's clock"
            return None
        try:
            return Tick(
                self._interface,
                policy,
                limiter,
                robot,
                self._state,
                self._tally,
                strangeness=self._strangeness,
                flight=self._flight,
                recorder=self._recorder,
                noise=self._noise if self._std.any() else None,
                std=self._std,
                winding_ohm=self._winding_ohm,
                late_answer=LATE_ANSWER,
            )
        except (TickError, CompilerError) as error:
            self.in_python = str(error)
            return None

    @property
    def mode(self) -> Mode:
        """What the controller is doing."""
        return self._watch.mode

    @property
    def fault(self) -> Fault | None:
        """What is wrong, None if nothing is."""
        return self._watch.fault

    @property
    def compiled(self) -> bool:
        """Whether periods in which all is in order are done in C."""
        return self._tick is not None

    def run(self) -> LoopReport:
        """Run until the time or the episodes are over, a stop was asked for, or a fault was answered. Once.

        Raises:
            LinkError: The robot is gone. What was recorded has been handed on.
        """
        self._warm_up()
        with realtime(self._config.realtime) as refused, woken_by_signals() as wake_fd:
            start_ns, start_cpu_s = self._clock.now_ns(), self._clock.cpu_s()
            self._fresh_ns = start_ns
            try:
                self._periods(start_ns, wake_fd)
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    self._robot.send(Command(target_rad=self._damping_target()))
                raise
            finally:
                self._cut_off()
            return self._tally.report(
                seconds=(self._clock.now_ns() - start_ns) * 1e-9,
                cpu_s=self._clock.cpu_s() - start_cpu_s,
                fault=self._watch.fault,
                fault_text=self._fault_text,
                refused=refused,
            )

    def _warm_up(self) -> None:
        """Touch every buffer and page of the policy, then put its state back."""
        rng = np.random.default_rng(0)
        zeros = np.zeros(self._interface.contract.observation_size, dtype=np.float32)
        for _ in range(WARM_UP_CALLS):
            mean, _ = self._inference.act(zeros)
            sample(mean, self._std, rng.standard_normal(self._std.shape))
            self._filter(self._sent_rad, self._sent_rad, self._sent_rad, 0.0 * self._sent_rad)
        self._inference.reset()

    def _periods(self, start_ns: int, wake_fd: int) -> None:
        config, clock, tally = self._config, self._clock, self._tally
        end_ns = None if config.seconds is None else start_ns + round(config.seconds * 1e9)
        deadline_ns, now_ns, damped = start_ns, start_ns, 0
        if self._tick is not None:
            self._tick.run_on(wake_fd if by_signals_only(self._should_stop, self._estop) else -1, end_ns)
        while damped < DAMPING_PERIODS or self._rearm is not None:
            if (end_ns is not None and now_ns >= end_ns) or tally.episodes == config.episodes:
                return
            if self._stopping or self._should_stop():
                return
            done = False
            if self._tick is not None and self._in_order(self._tick):
                deadline_ns, now_ns, done = self._compiled_periods(self._tick, deadline_ns, now_ns, end_ns)
                if self._stopping:
                    return
            if not done:
                damping = self._watch.mode is Mode.DAMPING
                decision = self._period(now_ns)
                tally.periods += 1
                damped += self._watch.mode is Mode.DAMPING
                if damping and self._rearm is not None and self._rearm() and not self._estop():
                    self._take_over()
                if config.paced:
                    deadline_ns = self._deadlines.wait(deadline_ns + self._period_ns)
                self._answer(decision)
                now_ns = clock.now_ns()
                if config.paced and now_ns > deadline_ns + LATE_ANSWER * self._period_ns:
                    deadline_ns = self._deadlines.skip(deadline_ns, now_ns)
                    now_ns = clock.now_ns()
            if self._robot.feedback.over and self._watch.mode is Mode.POLICY:
                self._next_episode()
                deadline_ns = now_ns = clock.now_ns()  # a reset takes as long as it takes; then a whole period at rest

    def _in_order(self, tick: Tick) -> bool:
        """Whether the next period is the policy's, as far as anybody knows before it."""
        self._pressed = self._pressed or self._estop()
        return not self._pressed and tick.in_step and self._watch.fault is None and self._blended >= self._blend_periods

    def _compiled_periods(
        self, tick: Tick, deadline_ns: int, ready_ns: int, end_ns: int | None
    ) -> tuple[int, int, bool]:
        """Periods in which nothing is out of the ordinary, as many as come; then all is as if Python had done them.

        Returns:
            The last deadline met, since when the state is in hand, and False if that state is still to be answered: the
            compiled period would not, and Python knows the words for why.
        """
        record, code, done = tick.record, 0, True
        tick.load(
            self._memory,
            self._state,
            sent_rad=self._sent_rad,
            sent_ns=self._sent_ns,
            ready_ns=ready_ns,
            fresh_ns=self._fresh_ns,
            strange=self._strange_in_a_row,
        )
        try:
            while done := self._compiled_decision(tick):
                code = tick.read(deadline_ns + self._period_ns)
                deadline_ns = record.deadline_ns
                if code:
                    break
                if record.unanswered:
                    done = False
                    break
                self._pressed = self._estop()
                if self._pressed or self._should_stop() or (end_ns is not None and record.ready_ns >= end_ns):
                    break
        finally:
            self._strange_in_a_row = record.strange_in_a_row
            self._sent_ns, self._fresh_ns, before_s = record.sent_ns, record.fresh_ns, record.before_s
            if decided := tick.decided:
                self._watch = safety.advance(self._watch, fault=None)
                self._memory, self._sent_rad = tick.unload(self._memory.goal)
                self._state_in_hand = False
        self._deadlines.woken_ns = record.woken_ns
        if decided:
            self._state = tick.state(code) or self._state
            if code != SILENT:
                self._state_in_hand = True
            elif self._listen():
                self._state, self._state_in_hand = self._robot.receive(), True
            else:  # the state in hand is to be answered, by what its age says
                now_ns = self._clock.now_ns()
                return self._deadlines.skip(deadline_ns, now_ns), now_ns, False
            if self._interface.contract.goal:
                self._memory = replace(self._memory, goal=self._robot.feedback.goal)
        if code:
            self._account(before_s, stepped=True)
            self._record(tick.observation, tick.chosen, tick.log_prob, before_s)
            record.ready_ns = self._clock.now_ns()
            if record.ready_ns > deadline_ns + LATE_ANSWER * self._period_ns:
                deadline_ns = self._deadlines.skip(deadline_ns, record.ready_ns)
                record.ready_ns = self._clock.now_ns()
        return deadline_ns, record.ready_ns, done

    def _listen(self) -> bool:
        """Wait for a robot that is late by a period already, hearing stops meanwhile; False where it stays silent too long.

        What is silent may be a simulator on a busy machine, so it gets a second; a fault is never waited out.
        """
        if self._watch.fault is not None:
            return False
        end_ns = self._clock.now_ns() + round(1e9 * max(SILENCE_S, safety.STALE_PERIODS * self._dt_s))
        while not self._robot.ready(self._dt_s):
            self._pressed = self._pressed or self._estop()
            self._stopping = self._stopping or self._should_stop()
            if self._pressed or self._stopping or self._clock.now_ns() > end_ns:
                return False
        return True

    def _compiled_decision(self, tick: Tick) -> bool:
        """One decision; a chunk that is full is handed on once the command is out."""
        self._draw()
        if not tick.decide():
            return False
        self._drawn = False
        self._hand_on(tick.full_chunk())
        return True

    def _draw(self) -> None:
        """The noise of the next decision, once, whoever comes to it first: the compiled period or this one."""
        if not self._drawn and self._std.any():
            self._rng.standard_normal(out=self._noise)
            self._drawn = True

    def _take_over(self) -> None:
        """Back from DAMPING: the policy starts anew from where the joints are, and fades in."""
        self._watch, self._fault_text, self._strange_in_a_row = safety.rearm(self._watch), "", 0
        self._blended = 0
        self._memory = self._interface.memory(self._memory.goal)
        self._inference.reset()

    def _period(self, ready_ns: int) -> Decision | None:
        """Decide and command; gives what the policy decided, None where it was not heard."""
        had = self._watch.fault
        self._draw()
        decision, fault = self._decide(ready_ns) if had is None else (None, None)
        self._drawn = False
        self._watch = safety.advance(self._watch, fault=fault, estop=self._pressed or self._estop())
        self._pressed = False
        if self._watch.mode is Mode.POLICY and decision is not None:
            target = decision.filtered.target_rad
            self._count(decision.filtered)
        elif self._watch.mode is Mode.DAMPING:
            target, decision = self._damping_target(), None
        else:
            target, decision = self._sent_rad, None
        self._robot.send(Command(target_rad=target))
        self._sent_rad, self._sent_ns = target, self._clock.now_ns()
        self._tally.latency.add(self._sent_ns - ready_ns)
        began = had is None and self._watch.fault is not None
        if self._flight is not None:
            self._note(self._flight, decision, ready_ns, began=began)
        if began:
            self._cut_off()  # now, while the state in hand is what followed the policy's last action
        return decision

    def _damping_target(self) -> np.ndarray:
        return safety.damping_target(self._state.q_rad, self._sent_rad, self._limits)

    def _decide(self, ready_ns: int) -> tuple[Decision | None, Fault | None]:
        """What the policy wants, or what is wrong."""
        age_s = (ready_ns - self._fresh_ns) * 1e-9
        self._tally.late_states += safety.sensor_late(age_s, self._dt_s)
        if fault := safety.sensor_fault(age_s, self._dt_s):
            self._fault_text = self._with_complaint(f"{1e3 * age_s:.0f} ms")
            return None, fault
        try:
            observation = self._interface.observe(self._state, self._memory)
        except NotFiniteError as error:
            self._fault_text = self._with_complaint(error)
            return None, Fault.OBSERVATION
        if fault := self._strange(observation):
            return None, fault
        before_ns = self._clock.now_ns()
        try:
            mean, _ = self._inference.act(observation)
        except Exception as error:  # whatever native code throws: the robot must not be left with its last target
            self._fault_text = f"{type(error).__name__}: {error}"
            return None, Fault.INFERENCE
        self._tally.inference.add(self._clock.now_ns() - before_ns)
        action, log_prob = sample(mean, self._std, self._noise)
        try:
            asked_rad = self._interface.command(action, self._state).target_rad
        except NotFiniteError as error:
            self._fault_text = str(error)
            return None, Fault.ACTION
        wanted_rad = safety.blend(asked_rad, self._sent_rad, self._blended, self._blend_periods)
        self._blended += 1
        try:
            filtered = self._filter(wanted_rad, self._sent_rad, self._state.q_rad, self._state.qd_rad_s)
        except NotFiniteError as error:  # an encoder that this policy does not look at
            self._fault_text = self._with_complaint(error)
            return None, Fault.OBSERVATION
        decision = Decision(
            observation=observation, action=action, log_prob=log_prob, asked_rad=asked_rad, filtered=filtered
        )
        return decision, None

    def _with_complaint(self, text: object) -> str:
        """A fault's text, and what the robot itself has to say of it, where it says anything."""
        complaint = getattr(self._robot, "complaint", "")
        return f"{text}; {complaint}" if complaint else str(text)

    def _count(self, filtered: safety.Filtered) -> None:
        tally = self._tally
        tally.slewed += filtered.slew
        tally.clamped += filtered.position
        tally.slowed += filtered.velocity
        tally.eased += filtered.torque
        tally.braked += filtered.barrier

    def _note(self, flight: FlightRecorder, decision: Decision | None, ready_ns: int, *, began: bool) -> None:
        """One period into the flight recorder; the beginning of a fault asks for a recording once it is in."""
        flight.note(
            self._state,
            mode=self._watch.mode,
            fault=self._watch.fault,
            fault_text=self._fault_text,
            latency_us=(self._sent_ns - ready_ns) * 1e-3,
            changed=decision.filtered[1:] if decision else NOTHING_CHANGED,
            observation=decision.observation if decision else None,
            action=decision.action if decision else None,
            asked_rad=decision.asked_rad if decision else None,
            sent_rad=self._sent_rad,
            time_ns=time.time_ns(),
        )
        if began:
            flight.request("fault")

    def _strange(self, observation: np.ndarray) -> Fault | None:
        if self._strangeness is None:
            return None
        score = self._strangeness.score(observation)
        self._tally.strangeness_max = max(self._tally.strangeness_max, score)
        self._strange_in_a_row = self._strange_in_a_row + 1 if score > self._strangeness.limit else 0
        return Fault.STRANGE if self._strange_in_a_row >= self._strangeness.ticks else None

    def _answer(self, decision: Decision | None) -> None:
        """Read the robot's answer and make experience of the step.

        When the robot measured, nobody says: what is new is taken to be as old as the command it answers, a period at most.
        """
        before = self._state
        if self._config.paced and not self._robot.ready(self._dt_s) and not self._listen():
            return  # nothing new to act on: the state's age will tell
        self._state = self._robot.receive()
        self._account(before.time_s, stepped=decision is not None)
        if decision is None:
            return
        feedback = self._robot.feedback
        goal = feedback.goal if self._interface.contract.goal else None
        self._memory = self._interface.remember(self._memory, before, decision.action, goal)
        self._record(decision.observation, decision.action, decision.log_prob, before.time_s)

    def _record(self, observation: np.ndarray, action: np.ndarray, log_prob: float, robot_s: float) -> None:
        """Make experience of the step that the robot just answered."""
        if self._recorder is not None:
            feedback = self._robot.feedback
            self._hand_on(
                self._recorder.add(observation, action, log_prob, feedback.reward_terms, feedback.success, robot_s)
            )

    def _account(self, before_s: float, *, stepped: bool) -> None:
        """Count what the robot's answer tells."""
        feedback, tally = self._robot.feedback, self._tally
        if self._state.time_s > before_s:
            self._fresh_ns = max(self._sent_ns, self._clock.now_ns() - self._period_ns)
        heat_w = copper_w(self._winding_ohm, self._state.motor_current_a, self._state.motor_temperature_c)
        tally.copper_j += heat_w * self._dt_s
        if stepped:
            tally.steps += 1
            tally.success_steps += feedback.success
            tally.reward_sum += float(feedback.reward_terms.sum())

    def _hand_on(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._on_chunk(chunk)

    def _start_episode(self) -> None:
        self._state = self._robot.reset(None, self._rng)
        self._sent_rad, self._fresh_ns = self._state.target_rad, self._clock.now_ns()
        feedback = self._robot.feedback
        self._memory = self._interface.memory(feedback.goal if self._interface.contract.goal else None)
        self._inference.reset()
        if self._recorder is not None:
            self._recorder.begin(feedback.episode_id)

    def _next_episode(self) -> None:
        feedback = self._robot.feedback
        self._tally.episodes += 1
        self._tally.successes += feedback.success
        if self._recorder is not None:
            try:
                last = self._interface.observe(self._state, self._memory)
                self._hand_on(self._recorder.end("terminated" if feedback.terminated else "truncated", last))
            except NotFiniteError:
                self._hand_on(self._recorder.end_unseen())
        self._start_episode()

    def _cut_off(self) -> None:
        """Hand on what the running episode has so far."""
        if self._recorder is None:
            return
        try:
            last = self._interface.observe(self._state, self._memory) if self._state_in_hand else None
        except NotFiniteError:
            last = None
        self._hand_on(self._recorder.end_unseen() if last is None else self._recorder.end("no", last))
