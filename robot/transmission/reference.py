"""One substep of the tendon transmission, written like its equations. SI units; (n,) motors, (2 n,) cables, (m,) joints.

    wound    A = A0 + s rho theta            s = +1 flexor, -1 extensor; rho spool radius
    given    E = s e(q),  dE/dq = s R(q)     R moment arms
    tension  T = k1 (A - u), f = k2 (u - E)  u: where the cable stands in its guides; both zero when slack (A <= E)
    capstan  f exp(-mu w) <= T <= f exp(mu w)   u slides when a bound is met and sticks between (Euler; Kaneko 1991)
    joint    tau = R(q)^T s (f + d),  d = c (s rho omega - s R qd) where taut, and f + d >= 0
    spool    J domega/dt = tau_m - sum s rho (T + d)
    motor    i = tau_m / (N kt eta),  |i| <= i_peak derate(T_w),  |R i + N kt omega| <= V

The spool's equation is solved for its speed at the end of the substep (linearly implicit in servo, cable and back EMF), the
joints' by the engine afterwards with the torque found here: symplectic, and exact at rest.
"""

import numpy as np

from robot.transmission.parameters import AMBIENT_C, COPPER_PER_K, Parameters, TransmissionState


def step(
    p: Parameters, state: TransmissionState, q_rad: np.ndarray, qd_rad_s: np.ndarray, target_rad: np.ndarray, h_s: float
) -> np.ndarray:
    """Advance the transmission by one substep and give the torque on every joint.

    Args:
        p: Constants.
        state: Changed in place.
        q_rad, qd_rad_s: Joint angles and speeds, shape (m,) [rad], [rad/s].
        target_rad: Spool targets of the position servos, shape (n,) [rad].
        h_s: Substep [s].

    Returns:
        Joint torques including stops and bearings, shape (m,) [N m].
    """
    n, h = p.n_motors, h_s
    sign = np.tile([1.0, -1.0], n)
    k1, k2, rho, c = p.stiffness_spool, p.stiffness_joint, p.spool, p.damping
    arms = p.arms(q_rad)  # (2n, m)
    given = sign * p.excursion(q_rad)  # (2n,)
    paid = arms @ qd_rad_s  # (2n,) R qd
    stored_before = state.stored_j(p)

    # spool: implicit in omega
    wound = p.slack_offset + sign * rho * np.repeat(state.spool_rad, 2)
    taut = wound > given
    tension = np.where(taut, k1 * np.maximum(wound - state.contact_m, 0.0), 0.0)
    per_motor = lambda cable: cable.reshape(n, 2).sum(axis=1)  # noqa: E731
    load = per_motor(sign * rho * tension - np.where(taut, c * rho * paid, 0.0))
    yielding = per_motor(np.where(taut, rho**2 * (c + h * k1), 0.0))  # d load / d omega
    momentum = p.inertia * state.spool_rad_s - h * load

    derate = np.clip((p.max_winding_c - state.winding_c) / (p.max_winding_c - p.derate_from_c), 0.0, 1.0)
    resistance = p.resistance * (1.0 + COPPER_PER_K * (state.winding_c - AMBIENT_C))
    peak = p.peak_current * derate * p.torque_per_amp * p.efficiency
    stall = p.bus_v / resistance * p.torque_per_amp * p.efficiency
    back = p.torque_per_amp**2 * p.efficiency / resistance  # slope of the torque-speed line
    error = target_rad - state.spool_rad
    kp, kd = p.servo_stiffness, p.servo_damping
    omega = (momentum + h * kp * error) / (p.inertia + h * (kd + h * kp + yielding))
    torque = kp * (error - h * omega) - kd * omega
    for way in (1.0, -1.0):  # the current limit, then the torque-speed line, pushing and pulling
        over = way * torque > peak
        omega = np.where(over, (momentum + h * way * peak) / (p.inertia + h * yielding), omega)
        torque = np.where(over, way * peak, torque)
        over = way * torque > stall - way * back * omega
        omega = np.where(over, (momentum + h * way * stall) / (p.inertia + h * (back + yielding)), omega)
        torque = np.where(over, way * stall - back * omega, torque)
    state.spool_rad = state.spool_rad + h * omega

    # cable: slide or stick
    wound = p.slack_offset + sign * rho * np.repeat(state.spool_rad, 2)
    wrap = p.wrap + np.add.reduceat(p.arm_wrap * np.abs(q_rad[p.arm_joint]), p.arm_start[:-1])
    grip = np.exp(p.friction * wrap)
    lowest = (k1 * wound + grip * k2 * given) / (k1 + grip * k2)  # T = f exp(mu w)
    highest = (k1 * wound + k2 / grip * given) / (k1 + k2 / grip)  # T = f exp(-mu w)
    contact = np.where(wound > given, np.clip(state.contact_m, lowest, highest), given)
    tension = np.where(wound > given, k1 * (wound - contact), 0.0)
    force = np.where(wound > given, k2 * (contact - given), 0.0)
    damping = np.where(wound > given, c * (sign * rho * np.repeat(omega, 2) - sign * paid), 0.0)
    damping = np.maximum(damping, -np.minimum(force, tension))  # a cable cannot push
    friction_j = ((tension - force) * (contact - state.contact_m))[wound > given].sum()

    # joint
    pull = sign * (force + damping)
    tau = arms.T @ pull  # (m,)
    passive = np.where(q_rad < p.lower, p.limit_stiffness * (p.lower - q_rad) - p.limit_damping * qd_rad_s, 0.0)
    passive += np.where(q_rad > p.upper, p.limit_stiffness * (p.upper - q_rad) - p.limit_damping * qd_rad_s, 0.0)
    passive -= p.bearing_damping * qd_rad_s

    # electricity and heat
    driving = torque * omega >= 0.0
    current = torque / (p.torque_per_amp * np.where(driving, p.efficiency, 1.0 / p.efficiency))
    copper = resistance * current**2
    rotor = p.torque_per_amp * current * omega
    state.winding_c = state.winding_c + h * (copper - (state.winding_c - state.case_c) / p.winding_k_w) / p.winding_j_k
    leaving = (state.case_c - AMBIENT_C) / p.case_k_w
    state.case_c = state.case_c + h * ((state.winding_c - state.case_c) / p.winding_k_w - leaving) / p.case_j_k

    state.spool_rad_s, state.current_a, state.contact_m = omega, current, contact
    state.tension_spool_n, state.tension_joint_n, state.damping_n = tension, force, damping
    sliding = per_motor(damping * sign * rho) @ omega - damping * sign @ paid
    state.energy_j = state.energy_j + np.array(
        [
            h * (copper + rotor).sum(),
            h * copper.sum(),
            h * (rotor - torque * omega).sum(),
            friction_j,
            h * sliding,
            h * (tau @ qd_rad_s),
            state.stored_j(p) - stored_before,
        ]
    )
    return tau + passive
