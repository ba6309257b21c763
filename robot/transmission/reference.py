"""One substep of the tendon transmission, written like its equations. SI units; (n,) tendons, (g,) gear drives, (n + g,) motors,
(2 n,) cables, (m,) joints. docs/transmission.md derives them.

    wound    A = A0 + s rho theta            s = +1 flexor, -1 extensor; rho spool radius
    given    E = s e(q),  dE/dq = s R(q)     R moment arms
    tension  T = k1 (A - u), f = k2 (u - E)  u: where the cable stands in its guides; both zero when slack (A <= E)
    capstan  f exp(-mu w) <= T <= f exp(mu w)   u slides when a bound is met and sticks between (Euler; Kaneko 1991)
    joint    tau = R(q)^T s (f + d),  d = c (s rho omega - s R qd) where taut, and f + d >= 0
    spool    J domega/dt = tau_m - sum s rho (T + d)
    motor    i = tau_m / (N kt eta),  |i| <= i_peak derate(T_w),  |R i + N kt omega| <= V

The spool's equation is solved for its speed at the end of the substep (linearly implicit in servo, cable and back EMF), the
joints' by the engine afterwards with the torque found here: symplectic, and exact at rest. What a cable resists is taken against
the joints' own speed: against joints that stand still, a moving spool would drag `h k1 rho^2 omega` that no physics knows of.
A gear drive is the same motor with its joint for a spool, no cable, the joint's own inertia in place of J, and an explicit servo.
"""

import numpy as np

from robot.description.actuators import COPPER_PER_K
from robot.transmission.parameters import AMBIENT_C, CREEP_RAD_S, Parameters, TransmissionState


def step(
    p: Parameters, state: TransmissionState, q_rad: np.ndarray, qd_rad_s: np.ndarray, target_rad: np.ndarray, h_s: float
) -> np.ndarray:
    """Advance the transmission by one substep and give the torque on every joint.

    Args:
        p: Constants.
        state: Changed in place.
        q_rad, qd_rad_s: Joint angles and speeds, shape (m,) [rad], [rad/s].
        target_rad: Targets of the position servos at their output shafts, shape (n + g,) [rad].
        h_s: Substep [s].

    Returns:
        Joint torques including stops, springs and bearings, shape (m,) [N m].
    """
    n, h = p.n_tendons, h_s
    sign = np.tile([1.0, -1.0], n)
    k1, k2, rho, c = p.stiffness_spool, p.stiffness_joint, p.spool, p.damping
    arms = p.arms(q_rad)  # (2n, m)
    given = sign * p.excursion(q_rad)  # (2n,)
    paid = arms @ qd_rad_s  # (2n,) R qd
    stored_before = state.stored_j(p)

    # load on the spools, linear in their speed
    wound = p.slack_offset + sign * rho * np.repeat(state.spool_rad[:n], 2)
    # The joints' engine has moved on to where the spools are only now going: what counts is whether the cable will be taut then.
    taut = wound + h * sign * rho * np.repeat(state.spool_rad_s[:n], 2) > given
    tension = np.where(taut, k1 * np.maximum(wound - state.contact_m, 0.0), 0.0)
    give = np.where(
        taut, c + h * k1 * k2 / (k1 + k2), 0.0
    )  # rise of tension per speed between the cable's ends [N s/m]
    load, yielding = np.zeros(p.n_motors), np.zeros(p.n_motors)
    load[:n] = _per_motor(sign * rho * tension - give * rho * paid)
    yielding[:n] = _per_motor(rho**2 * give)  # d load / d omega

    # motors: implicit in omega
    shaft, omega_before = state.spool_rad.copy(), state.spool_rad_s.copy()
    shaft[n:], omega_before[n:] = q_rad[p.gear_joint], qd_rad_s[p.gear_joint]
    resistance = p.resistance * (1.0 + COPPER_PER_K * (state.winding_c - AMBIENT_C))
    omega, torque = _motor(p, shaft, omega_before, load, yielding, target_rad, resistance, state.winding_c, h)
    omega[n:] = omega_before[n:]  # a gear drive's speed is the engine's to find
    state.spool_rad = np.concatenate([shaft[:n] + h * omega[:n], shaft[n:]])

    # cable: slide or stick
    turn = sign * rho * np.repeat(omega[:n], 2)
    wound = p.slack_offset + sign * rho * np.repeat(state.spool_rad[:n], 2)
    taut = wound > given
    grip = np.exp(p.friction * (p.wrap + p.per_cable(p.arm_wrap * np.abs(q_rad[p.arm_joint]))))
    lowest = (k1 * wound + grip * k2 * given) / (k1 + grip * k2)  # T = f exp(mu w)
    highest = (k1 * wound + k2 / grip * given) / (k1 + k2 / grip)  # T = f exp(-mu w)
    contact = np.where(taut, np.clip(state.contact_m, lowest, highest), given)
    tension = np.where(taut, k1 * (wound - contact), 0.0)
    force = np.where(taut, k2 * (contact - given), 0.0)
    damping = np.where(taut, c * (turn - sign * paid), 0.0)
    damping = np.maximum(damping, -np.minimum(force, tension))  # a cable cannot push
    friction_j = ((tension - force) * (contact - state.contact_m))[taut].sum()

    # joint
    tau = arms.T @ (sign * (force + damping))  # (m,)
    np.add.at(tau, p.gear_joint, torque[n:])
    passive = np.where(q_rad < p.lower, p.limit_stiffness * (p.lower - q_rad) - p.limit_damping * qd_rad_s, 0.0)
    passive += np.where(q_rad > p.upper, p.limit_stiffness * (p.upper - q_rad) - p.limit_damping * qd_rad_s, 0.0)
    passive += p.spring_stiffness * (p.spring_rest - q_rad) - p.bearing_damping * qd_rad_s

    # electricity and heat
    driving = torque * omega >= -CREEP_RAD_S * np.abs(torque)
    current = torque / (p.torque_per_amp * np.where(driving, p.efficiency, 1.0 / p.efficiency))
    copper = resistance * current**2
    rotor = p.torque_per_amp * current * omega
    state.winding_c = state.winding_c + h * (copper - (state.winding_c - state.case_c) / p.winding_k_w) / p.winding_j_k
    leaving = (state.case_c - AMBIENT_C) / p.case_k_w
    state.case_c = state.case_c + h * ((state.winding_c - state.case_c) / p.winding_k_w - leaving) / p.case_j_k

    state.spool_rad_s, state.current_a, state.contact_m = omega, current, contact
    state.tension_spool_n, state.tension_joint_n, state.damping_n = tension, force, damping
    state.energy_j = state.energy_j + np.array(
        [
            h * (copper + rotor).sum(),
            h * copper.sum(),
            h * (rotor - torque * omega).sum(),
            friction_j,
            h * damping @ (turn - sign * paid),
            h * (tau @ qd_rad_s),
            state.stored_j(p) - stored_before,
        ]
    )
    return tau + passive


def _per_motor(cable: np.ndarray) -> np.ndarray:
    return cable.reshape(-1, 2).sum(axis=1)


def _motor(p, shaft, omega_before, load, yielding, target_rad, resistance, winding_c, h):
    """Speed at the end of the substep and torque over it: the servo, unless the current limit or the torque-speed line holds."""
    derate = np.clip((p.max_winding_c - winding_c) / (p.max_winding_c - p.derate_from_c), 0.0, 1.0)
    peak = p.peak_current * derate * p.torque_per_amp * p.efficiency
    stall = p.bus_v / resistance * p.torque_per_amp * p.efficiency
    back = p.torque_per_amp**2 * p.efficiency / resistance  # slope of the torque-speed line
    momentum = p.inertia * omega_before - h * load
    error, kp, kd = target_rad - shaft, p.servo_stiffness, p.servo_damping
    omega = (momentum + h * kp * error) / (p.inertia + h * (kd + h * kp + yielding))
    torque = kp * (error - h * omega) - kd * omega
    n = (
        p.n_tendons
    )  # a gear drive's load is the engine's to know, so its servo acts on what is: a held load stands on kp
    torque[n:] = (kp * error - kd * omega_before)[n:]
    omega[n:] = (omega_before + h * torque / p.inertia)[n:]
    for way in (1.0, -1.0):  # pushing and pulling
        over = way * torque > peak
        omega = np.where(over, (momentum + h * way * peak) / (p.inertia + h * yielding), omega)
        torque = np.where(over, way * peak, torque)
        over = way * torque > stall - way * back * omega
        omega = np.where(over, (momentum + h * way * stall) / (p.inertia + h * (back + yielding)), omega)
        torque = np.where(over, way * stall - back * omega, torque)
    return omega, torque
