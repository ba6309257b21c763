"""The transmission's substep, compiled: the equations of `robot.transmission.reference.step` as one loop over motors.

All numbers live in one block of float64 and all indices in one block of int64, so that a call costs two array arguments instead
of forty. `TransmissionKernel` owns the blocks; its state arrays are views into them. Constants are laid out motor by motor, with
products, reciprocals and signs worked out beforehand, so that a motor costs five divisions and one exponential.
"""

from dataclasses import fields
from math import exp

import numpy as np
from numba import njit

from robot.description.actuators import COPPER_PER_K
from robot.errors import FlexorError
from robot.transmission.parameters import (
    AMBIENT_C,
    CREEP_RAD_S,
    ENERGY_TERMS,
    Parameters,
    TransmissionState,
)

MOTOR_STATE = ["spool_rad", "spool_rad_s", "current_a", "winding_c", "case_c"]
CABLE_STATE = ["contact_m", "tension_spool_n", "tension_joint_n", "damping_n"]


class LayoutError(FlexorError, ValueError):
    """Parameters whose flexor and extensor do not pass the same joints in the same order."""


@njit("void(float64[::1], int64[::1])", cache=True, fastmath=False)
def substep(x, ix):  # pragma: no cover - compiled
    n, g, m, k = ix[0], ix[1], ix[2], ix[3]  # tendons, gear drives, joints, arms
    motors = n + g
    h = x[0]
    o = 1
    q, o = x[o : o + m], o + m
    qd, o = x[o : o + m], o + m
    tau, o = x[o : o + m], o + m
    target, o = x[o : o + motors], o + motors
    target_step, o = x[o : o + motors], o + motors
    energy, o = x[o : o + 7], o + 7
    ms, o = x[o : o + 5 * motors].reshape(5, motors), o + 5 * motors
    cs, o = x[o : o + 8 * n].reshape(4, 2 * n), o + 8 * n
    motor, o = x[o : o + 17 * motors].reshape(motors, 17), o + 17 * motors
    cable, o = x[o : o + 20 * n].reshape(2 * n, 10), o + 20 * n
    joint, o = x[o : o + 7 * m].reshape(m, 7), o + 7 * m
    arm = x[o : o + 6 * k].reshape(k, 6)
    start = ix[4 : 5 + n]
    arm_joint = ix[5 + n : 5 + n + k]
    gear_joint = ix[5 + n + k :]

    for j in range(m):
        tau[j] = 0.0
    electrical = copper_j = gear_j = friction_j = viscous_j = stored = mechanical = 0.0
    for i in range(motors):
        J, kp, kd = motor[i, 0], motor[i, 1], motor[i, 2]
        t_w, t_c = ms[3, i], ms[4, i]
        load = yielding = 0.0
        given_f = given_e = paid_f = paid_e = grip_f = grip_e = 1.0
        f, e = 2 * i, 2 * i + 1
        if i < n:
            theta, omega0 = ms[0, i], ms[1, i]
            stored -= 0.5 * J * omega0 * omega0
            given_f = given_e = paid_f = paid_e = 0.0
            wrap_f, wrap_e = cable[f, 6], cable[e, 6]
            for a in range(start[i], start[i + 1]):
                qj, qdj = q[arm_joint[a]], qd[arm_joint[a]]
                bend_f, bend_e = arm[a, 1] * qj, arm[a, 3] * qj
                given_f += (arm[a, 0] + 0.5 * bend_f) * qj
                given_e += (arm[a, 2] + 0.5 * bend_e) * qj
                paid_f += (arm[a, 0] + bend_f) * qdj
                paid_e += (arm[a, 2] + bend_e) * qdj
                wrap_f += arm[a, 4] * abs(qj)
                wrap_e += arm[a, 4] * abs(qj)
            grip_f = exp(cable[f, 5] * wrap_f)
            grip_e = grip_f if cable[e, 5] * wrap_e == cable[f, 5] * wrap_f else exp(cable[e, 5] * wrap_e)
            w = cable[f, 4] + cable[f, 0] * theta
            if w + h * cable[f, 0] * omega0 > given_f:
                give = cable[f, 3] + h * cable[f, 9]
                load += cable[f, 0] * (cable[f, 1] * max(w - cs[0, f], 0.0) - give * paid_f)
                yielding += cable[f, 0] * cable[f, 0] * give
            w = cable[e, 4] + cable[e, 0] * theta
            if w + h * cable[e, 0] * omega0 > given_e:
                give = cable[e, 3] + h * cable[e, 9]
                load += cable[e, 0] * (cable[e, 1] * max(w - cs[0, e], 0.0) - give * paid_e)
                yielding += cable[e, 0] * cable[e, 0] * give
        else:  # a gear drive is its joint's angle and speed, and has no cable
            theta, omega0 = q[gear_joint[i - n]], qd[gear_joint[i - n]]
        momentum = J * omega0 - h * load
        derate = min(max((motor[i, 9] - t_w) * motor[i, 10], 0.0), 1.0)
        ohm = motor[i, 5] * (1.0 + COPPER_PER_K * (t_w - AMBIENT_C))
        siemens = 1.0 / ohm
        peak, stall, back = motor[i, 6] * derate, motor[i, 7] * siemens, motor[i, 8] * siemens
        target[i] += target_step[i]
        error = target[i] - theta
        if i < n:
            omega = (momentum + h * kp * error) / (J + h * (kd + h * kp + yielding))
            torque = kp * (error - h * omega) - kd * omega
        else:
            torque = kp * error - kd * omega0
            omega = omega0 + h * torque / J
        if torque > peak:
            omega = (momentum + h * peak) / (J + h * yielding)
            torque = peak
        if torque > stall - back * omega:
            omega = (momentum + h * stall) / (J + h * (back + yielding))
            torque = stall - back * omega
        if -torque > peak:
            omega = (momentum - h * peak) / (J + h * yielding)
            torque = -peak
        if -torque > stall + back * omega:
            omega = (momentum - h * stall) / (J + h * (back + yielding))
            torque = -stall - back * omega

        if i < n:
            theta += h * omega
            for side in range(2):
                c = f + side
                turn, k1, k2, damp = cable[c, 0], cable[c, 1], cable[c, 2], cable[c, 3]
                paid = paid_e if side else paid_f
                given = given_e if side else given_f
                grip = grip_e if side else grip_f
                u = cs[0, c]
                stored -= cs[1, c] * cs[1, c] * cable[c, 7] + cs[2, c] * cs[2, c] * cable[c, 8]
                w = cable[c, 4] + turn * theta
                if w > given:
                    below, above = k1 + grip * k2, grip * k1 + k2
                    share = 1.0 / (below * above)
                    lowest = (k1 * w + grip * k2 * given) * above * share
                    highest = (grip * k1 * w + k2 * given) * below * share
                    contact = min(max(u, lowest), highest)
                    tension = k1 * (w - contact)
                    force = k2 * (contact - given)
                    d = damp * (turn * omega - paid)
                    d = max(d, -min(force, tension))
                    friction_j += (tension - force) * (contact - u)
                    stored += tension * tension * cable[c, 7] + force * force * cable[c, 8]
                    viscous_j += h * d * (turn * omega - paid)
                    pull = force + d
                    for a in range(start[i], start[i + 1]):
                        j = arm_joint[a]
                        tau[j] += (arm[a, 2 * side] + arm[a, 2 * side + 1] * q[j]) * pull
                    mechanical += h * pull * paid
                else:
                    contact, tension, force, d = given, 0.0, 0.0, 0.0
                cs[0, c] = contact
                cs[1, c] = tension
                cs[2, c] = force
                cs[3, c] = d
            stored += 0.5 * J * omega * omega
        else:
            omega = omega0
            tau[gear_joint[i - n]] += torque
            mechanical += h * torque * omega
        current = torque * (motor[i, 15] if torque * omega >= -CREEP_RAD_S * abs(torque) else motor[i, 16])
        copper = ohm * current * current
        rotor = motor[i, 3] * current * omega
        t_w += motor[i, 11] * (copper - (t_w - t_c) * motor[i, 12])
        t_c += motor[i, 13] * ((t_w - t_c) * motor[i, 12] - (t_c - AMBIENT_C) * motor[i, 14])
        electrical += h * (copper + rotor)
        copper_j += h * copper
        gear_j += h * (rotor - torque * omega)
        ms[0, i] = theta
        ms[1, i] = omega
        ms[2, i] = current
        ms[3, i] = t_w
        ms[4, i] = t_c
    for j in range(m):
        if q[j] < joint[j, 0]:
            tau[j] += joint[j, 2] * (joint[j, 0] - q[j]) - joint[j, 3] * qd[j]
        if q[j] > joint[j, 1]:
            tau[j] += joint[j, 2] * (joint[j, 1] - q[j]) - joint[j, 3] * qd[j]
        tau[j] += joint[j, 5] * (joint[j, 6] - q[j]) - joint[j, 4] * qd[j]
    energy[0] += electrical
    energy[1] += copper_j
    energy[2] += gear_j
    energy[3] += friction_j
    energy[4] += viscous_j
    energy[5] += mechanical
    energy[6] += stored


@njit("void(float64[::1], int64[::1], float64[::1], float64[::1])", cache=True)
def _shafts(x, ix, target, shafts):  # pragma: no cover - compiled
    n, g, m, k = ix[0], ix[1], ix[2], ix[3]
    end = x.shape[0]
    arm = x[end - 6 * k :].reshape(k, 6)
    cable = x[end - 6 * k - 7 * m - 20 * n : end - 6 * k - 7 * m].reshape(2 * n, 10)
    start, arm_joint, gear_joint = ix[4 : 5 + n], ix[5 + n : 5 + n + k], ix[5 + n + k :]
    for i in range(n):
        given = 0.0
        for a in range(start[i], start[i + 1]):
            j = arm_joint[a]
            q = x[1 + j] if arm[a, 5] > 0.0 else target[j]
            given += (arm[a, 0] + 0.5 * arm[a, 1] * q) * q
        shafts[i] = given / cable[2 * i, 0]
    for i in range(g):
        shafts[n + i] = target[gear_joint[i]]


class TransmissionKernel:
    """A transmission bound to its numbers; `step` advances it in place.

    Attributes:
        parameters: The numbers.
        q_rad, qd_rad_s: Write the joint state here before a step, shape (m,).
        target_rad: Where the servos stand, shape (n + g,); moved by `target_step_rad` before each substep acts on it.
        target_step_rad: How far a drive that interpolates its target moves it per substep, shape (n + g,); 0 at first.
        torque_nm: Joint torques after a step, shape (m,).
        joints: Angles and speeds of the joints as one array, shape (2 m,).
        motors: Angles, speeds, currents and winding temperatures of the motors as one array, shape (4 (n + g),).

    Raises:
        LayoutError: The two cables of a tendon pass different joints.
    """

    def __init__(self, parameters: Parameters, substep_s: float) -> None:
        p, n, motors, m = parameters, parameters.n_tendons, parameters.n_motors, parameters.n_joints
        self.parameters, self.substep_s = p, substep_s
        arms, start = _arm_rows(p)
        tables = (_motor_rows(p, substep_s), _cable_rows(p), _joint_rows(p), arms)
        state = 1 + 3 * m + 2 * motors + len(ENERGY_TERMS) + len(MOTOR_STATE) * motors + len(CABLE_STATE) * 2 * n
        self._x = np.concatenate([np.zeros(state), *(table.ravel() for table in tables)])
        joints = p.arm_joint[_flexor_arms(p)]
        self._ix = np.concatenate([[n, motors - n, m, len(joints)], start, joints, p.gear_joint]).astype(np.int64)
        self._x[0] = substep_s
        at = 1

        def take(count: int) -> np.ndarray:
            nonlocal at
            at += count
            return self._x[at - count : at]

        self.q_rad, self.qd_rad_s, self.torque_nm = take(m), take(m), take(m)
        self.joints = self._x[1 : 1 + 2 * m]
        self.target_rad, self.target_step_rad = take(motors), take(motors)
        views = {"energy_j": take(len(ENERGY_TERMS))}
        self.motors = self._x[
            at : at + (len(MOTOR_STATE) - 1) * motors
        ]  # but the case's temperature, which nothing measures
        views |= {name: take(motors) for name in MOTOR_STATE} | {name: take(2 * n) for name in CABLE_STATE}
        self._views = {item.name: views[item.name] for item in fields(TransmissionState)}
        self.reset(TransmissionState.at_rest(p, np.zeros(m)))

    def reset(self, state: TransmissionState) -> None:
        """Take over a state; the arrays are copied."""
        for name, view in self._views.items():
            view[:] = getattr(state, name)

    @property
    def blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """All numbers and all indices, for compiled code that calls `substep`: the step [s], q, qd and torque of the joints come first."""
        return self._x, self._ix

    @property
    def state(self) -> TransmissionState:
        """A copy of the state as it stands."""
        return TransmissionState(**{name: view.copy() for name, view in self._views.items()})

    @property
    def state_views(self) -> dict[str, np.ndarray]:
        """The arrays of the state by name, not copied: read them before the next step."""
        return dict(self._views)

    def step(self) -> None:
        """One substep, from `q_rad`, `qd_rad_s` and `target_rad` to `torque_nm`."""
        substep(self._x, self._ix)

    def shafts(self, target_rad: np.ndarray) -> np.ndarray:
        """Where the output shafts fit joint targets, with the joints where `q_rad` has them: `Parameters.spool_target`, compiled."""
        shafts = np.empty(len(self.target_rad))
        _shafts(self._x, self._ix, target_rad, shafts)
        return shafts


def _motor_rows(p: Parameters, h_s: float) -> np.ndarray:
    per_amp, eta = p.torque_per_amp, p.efficiency
    columns = (
        p.inertia,
        p.servo_stiffness,
        p.servo_damping,
        per_amp,
        eta,
        p.resistance,
        p.peak_current * per_amp * eta,
        p.bus_v * per_amp * eta,
        per_amp**2 * eta,
        p.max_winding_c,
        1.0 / (p.max_winding_c - p.derate_from_c),
        h_s / p.winding_j_k,
        1.0 / p.winding_k_w,
        h_s / p.case_j_k,
        1.0 / p.case_k_w,
        1.0 / (per_amp * eta),
        eta / per_amp,
    )
    return np.stack(columns, axis=1)


def _cable_rows(p: Parameters) -> np.ndarray:
    k1, k2 = p.stiffness_spool, p.stiffness_joint
    sign = np.tile([1.0, -1.0], p.n_tendons)
    columns = (
        sign * p.spool,
        k1,
        k2,
        p.damping,
        p.slack_offset,
        p.friction,
        p.wrap,
        0.5 / k1,
        0.5 / k2,
        k1 * k2 / (k1 + k2),
    )
    return np.stack(columns, axis=1)


def _joint_rows(p: Parameters) -> np.ndarray:
    columns = (
        p.lower,
        p.upper,
        p.limit_stiffness,
        p.limit_damping,
        p.bearing_damping,
        p.spring_stiffness,
        p.spring_rest,
    )
    return np.stack(columns, axis=1)


def _flexor_arms(p: Parameters) -> np.ndarray:
    """Positions of the flexors' arms in the sparse arrays; the extensors' follow each tendon's."""
    counts = np.diff(p.arm_start)
    return np.flatnonzero(np.repeat(np.arange(counts.shape[0]) % 2 == 0, counts))


def _arm_rows(p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Rows (flexor arm, its slope, extensor arm, its slope, wrap, whether by encoder), the extensor's negated, and where each tendon's start."""
    counts = np.diff(p.arm_start)
    flexor = _flexor_arms(p)
    extensor = np.setdiff1d(np.arange(p.arm_joint.shape[0]), flexor, assume_unique=True)
    same = np.array_equal(counts[0::2], counts[1::2]) and np.array_equal(p.arm_joint[flexor], p.arm_joint[extensor])
    if not (same and np.array_equal(p.arm_wrap[flexor], p.arm_wrap[extensor])):
        raise LayoutError("the flexor and the extensor of every tendon must pass the same joints in the same order")
    rows = (
        p.arm_m[flexor],
        p.arm_slope_m[flexor],
        -p.arm_m[extensor],
        -p.arm_slope_m[extensor],
        p.arm_wrap[flexor],
        p.arm_by_encoder[flexor].astype(np.float64),
    )
    return np.stack(rows, axis=1), np.concatenate([[0], np.cumsum(counts[0::2])])
