"""The transmission's substep, compiled: the equations of `robot.transmission.reference.step` as one loop over motors.

All numbers live in one block of float64 and all indices in one block of int64, so that a call costs two array arguments instead
of forty. `TransmissionKernel` owns the blocks; its arrays are views into them.
"""

from dataclasses import fields
from math import exp

import numpy as np
from numba import njit

from robot.transmission.parameters import AMBIENT_C, COPPER_PER_K, ENERGY_TERMS, Parameters, TransmissionState

# Rows of the motor, cable, joint and arm tables, in the order of their fields.
MOTOR = [
    "inertia",
    "servo_stiffness",
    "servo_damping",
    "torque_per_amp",
    "efficiency",
    "resistance",
    "bus_v",
    "peak_current",
    "winding_k_w",
    "case_k_w",
    "winding_j_k",
    "case_j_k",
    "derate_from_c",
    "max_winding_c",
]
MOTOR_STATE = ["spool_rad", "spool_rad_s", "current_a", "winding_c", "case_c"]
CABLE = ["spool", "stiffness_spool", "stiffness_joint", "damping", "slack_offset", "friction", "wrap"]
CABLE_STATE = ["contact_m", "tension_spool_n", "tension_joint_n", "damping_n"]
JOINT = ["lower", "upper", "limit_stiffness", "limit_damping", "bearing_damping"]
ARM = ["arm_m", "arm_slope_m", "arm_wrap"]


@njit("void(float64[::1], int64[::1])", cache=True, fastmath=False)
def _substep(x, ix):  # pragma: no cover - compiled
    n, m, k = ix[0], ix[1], ix[2]
    h = x[0]
    o = 1
    q, o = x[o : o + m], o + m
    qd, o = x[o : o + m], o + m
    tau, o = x[o : o + m], o + m
    target, o = x[o : o + n], o + n
    energy, o = x[o : o + 7], o + 7
    motor, o = x[o : o + 14 * n].reshape(14, n), o + 14 * n
    ms, o = x[o : o + 5 * n].reshape(5, n), o + 5 * n
    cable, o = x[o : o + 14 * n].reshape(7, 2 * n), o + 14 * n
    cs, o = x[o : o + 8 * n].reshape(4, 2 * n), o + 8 * n
    joint, o = x[o : o + 5 * m].reshape(5, m), o + 5 * m
    arm = x[o : o + 3 * k].reshape(3, k)
    start = ix[3 : 3 + 2 * n + 1]
    arm_joint = ix[3 + 2 * n + 1 :]

    for j in range(m):
        tau[j] = 0.0
    electrical = copper_j = gear_j = friction_j = viscous_j = stored = 0.0
    wound = np.empty(2)
    given = np.empty(2)
    paid = np.empty(2)
    grip = np.empty(2)
    for i in range(n):
        J, kp, kd, per_amp, eta, r25, bus = (
            motor[0, i],
            motor[1, i],
            motor[2, i],
            motor[3, i],
            motor[4, i],
            motor[5, i],
            motor[6, i],
        )
        theta, omega0, t_w, t_c = ms[0, i], ms[1, i], ms[3, i], ms[4, i]
        stored -= 0.5 * J * omega0 * omega0
        load = yielding = 0.0
        for side in range(2):
            c = 2 * i + side
            s = 1.0 - 2.0 * side
            rho, k1, k2, damp = cable[0, c], cable[1, c], cable[2, c], cable[3, c]
            e = v = 0.0
            wrap = cable[6, c]
            for a in range(start[c], start[c + 1]):
                qj = q[arm_joint[a]]
                e += arm[0, a] * qj + 0.5 * arm[1, a] * qj * qj
                v += (arm[0, a] + arm[1, a] * qj) * qd[arm_joint[a]]
                wrap += arm[2, a] * abs(qj)
            given[side] = s * e
            paid[side] = v
            grip[side] = exp(cable[5, c] * wrap)
            wound[side] = cable[4, c] + s * rho * theta
            stored -= 0.5 * (cs[1, c] * cs[1, c] / k1 + cs[2, c] * cs[2, c] / k2)
            if wound[side] > given[side]:
                load += s * rho * k1 * max(wound[side] - cs[0, c], 0.0) - damp * rho * v
                yielding += rho * rho * (damp + h * k1)
        momentum = J * omega0 - h * load
        derate = min(max((motor[13, i] - t_w) / (motor[13, i] - motor[12, i]), 0.0), 1.0)
        ohm = r25 * (1.0 + COPPER_PER_K * (t_w - AMBIENT_C))
        peak = motor[7, i] * derate * per_amp * eta
        stall = bus / ohm * per_amp * eta
        back = per_amp * per_amp * eta / ohm
        error = target[i] - theta
        omega = (momentum + h * kp * error) / (J + h * (kd + h * kp + yielding))
        torque = kp * (error - h * omega) - kd * omega
        for side in range(2):
            way = 1.0 - 2.0 * side
            if way * torque > peak:
                omega = (momentum + h * way * peak) / (J + h * yielding)
                torque = way * peak
            if way * torque > stall - way * back * omega:
                omega = (momentum + h * way * stall) / (J + h * (back + yielding))
                torque = way * stall - back * omega
        theta += h * omega

        for side in range(2):
            c = 2 * i + side
            s = 1.0 - 2.0 * side
            rho, k1, k2, damp = cable[0, c], cable[1, c], cable[2, c], cable[3, c]
            w = cable[4, c] + s * rho * theta
            g = given[side]
            if w > g:
                gr = grip[side]
                lowest = (k1 * w + gr * k2 * g) / (k1 + gr * k2)
                highest = (k1 * w + k2 / gr * g) / (k1 + k2 / gr)
                contact = min(max(cs[0, c], lowest), highest)
                tension = k1 * (w - contact)
                force = k2 * (contact - g)
                d = damp * (s * rho * omega - s * paid[side])
                d = max(d, -min(force, tension))
                friction_j += (tension - force) * (contact - cs[0, c])
            else:
                contact, tension, force, d = g, 0.0, 0.0, 0.0
            pull = s * (force + d)
            for a in range(start[c], start[c + 1]):
                tau[arm_joint[a]] += (arm[0, a] + arm[1, a] * q[arm_joint[a]]) * pull
            viscous_j += h * d * (s * rho * omega - s * paid[side])
            stored += 0.5 * (tension * tension / k1 + force * force / k2)
            cs[0, c] = contact
            cs[1, c] = tension
            cs[2, c] = force
            cs[3, c] = d
        current = torque / (per_amp * (eta if torque * omega >= 0.0 else 1.0 / eta))
        copper = ohm * current * current
        rotor = per_amp * current * omega
        t_w += h * (copper - (t_w - t_c) / motor[8, i]) / motor[10, i]
        leaving = (t_c - AMBIENT_C) / motor[9, i]
        t_c += h * ((t_w - t_c) / motor[8, i] - leaving) / motor[11, i]
        electrical += h * (copper + rotor)
        copper_j += h * copper
        gear_j += h * (rotor - torque * omega)
        stored += 0.5 * J * omega * omega
        ms[0, i] = theta
        ms[1, i] = omega
        ms[2, i] = current
        ms[3, i] = t_w
        ms[4, i] = t_c
    mechanical = 0.0
    for j in range(m):
        mechanical += h * tau[j] * qd[j]
        if q[j] < joint[0, j]:
            tau[j] += joint[2, j] * (joint[0, j] - q[j]) - joint[3, j] * qd[j]
        if q[j] > joint[1, j]:
            tau[j] += joint[2, j] * (joint[1, j] - q[j]) - joint[3, j] * qd[j]
        tau[j] -= joint[4, j] * qd[j]
    energy[0] += electrical
    energy[1] += copper_j
    energy[2] += gear_j
    energy[3] += friction_j
    energy[4] += viscous_j
    energy[5] += mechanical
    energy[6] += stored


class TransmissionKernel:
    """A transmission bound to its numbers; `step` advances it in place.

    Attributes:
        q_rad, qd_rad_s: Write the joint state here before a step, shape (m,).
        target_rad: Spool targets, shape (n,).
        torque_nm: Joint torques after a step, shape (m,).
    """

    def __init__(self, parameters: Parameters, substep_s: float) -> None:
        p, n, m, k = parameters, parameters.n_motors, parameters.n_joints, parameters.arm_joint.shape[0]
        self.parameters, self.substep_s = p, substep_s
        size = (
            1
            + 3 * m
            + n
            + len(ENERGY_TERMS)
            + (len(MOTOR) + len(MOTOR_STATE) + 2 * len(CABLE) + 2 * len(CABLE_STATE)) * n
        )
        self._x = np.zeros(size + len(JOINT) * m + len(ARM) * k)
        self._ix = np.concatenate([[n, m, k], p.arm_start, p.arm_joint]).astype(np.int64)
        self._x[0] = substep_s
        at = 1

        def take(*shape: int) -> np.ndarray:
            nonlocal at
            count = int(np.prod(shape))
            view = self._x[at : at + count].reshape(shape)
            at += count
            return view

        self.q_rad, self.qd_rad_s, self.torque_nm, self.target_rad = take(m), take(m), take(m), take(n)
        self._energy = take(len(ENERGY_TERMS))
        for names, width, state in (
            (MOTOR, n, False),
            (MOTOR_STATE, n, True),
            (CABLE, 2 * n, False),
            (CABLE_STATE, 2 * n, True),
            (JOINT, m, False),
            (ARM, k, False),
        ):
            table = take(len(names), width)
            if state:
                for name, row in zip(names, table):
                    setattr(self, f"_{name}", row)
            else:
                for name, row in zip(names, table):
                    row[:] = getattr(p, name)
        self.reset(TransmissionState.at_rest(p, np.zeros(m)))

    def reset(self, state: TransmissionState) -> None:
        """Take over a state; the arrays are copied."""
        for item in fields(state):
            view = self._energy if item.name == "energy_j" else getattr(self, f"_{item.name}")
            view[:] = getattr(state, item.name)

    @property
    def state(self) -> TransmissionState:
        """A copy of the state as it stands."""
        return TransmissionState(**{name: view.copy() for name, view in self.state_views.items()})

    @property
    def state_views(self) -> dict[str, np.ndarray]:
        """The arrays of the state by name, not copied: read them before the next step."""
        return {
            f.name: self._energy if f.name == "energy_j" else getattr(self, f"_{f.name}")
            for f in fields(TransmissionState)
        }

    def step(self) -> None:
        """One substep, from `q_rad`, `qd_rad_s` and `target_rad` to `torque_nm`."""
        _substep(self._x, self._ix)
