"""The compiled transmission is the numpy reference, to rounding."""

from dataclasses import fields

import numpy as np

from robot.description import load
from robot.transmission import Parameters, TransmissionState, step
from sim.transmission_kernel import TransmissionKernel

AGREE = 1e-9  # relative to each array's largest value; rounding of sums in another order is about 1e-13


def test_kernel_and_reference_agree_over_a_violent_trajectory():
    model = load("hand22")
    p = Parameters.of(model)
    rng = np.random.default_rng(0)
    kernel, state = TransmissionKernel(p, 0.005), TransmissionState.at_rest(p, np.zeros(p.n_joints))
    q, qd = np.zeros(p.n_joints), np.zeros(p.n_joints)
    inertia = model.joint_inertia_kg_m2 + np.where(np.arange(p.n_joints) < 3, 1e-2, 2e-4)  # links, roughly
    compared, most_current = 0, 0.0
    for k in range(400):
        if k % 40 == 0:
            target = p.spool_target(rng.uniform(model.lower_rad - 0.2, model.upper_rad + 0.2), q)
        kernel.q_rad[:], kernel.qd_rad_s[:], kernel.target_rad[:] = q, qd, target
        kernel.step()
        torque = step(p, state, q, qd, target, 0.005)
        np.testing.assert_allclose(kernel.torque_nm, torque, atol=AGREE * np.abs(torque).max())
        ours = kernel.state
        most_current = max(most_current, float(np.abs(ours.current_a).max()))
        for item in fields(state):
            expected = getattr(state, item.name)
            np.testing.assert_allclose(getattr(ours, item.name), expected, rtol=AGREE, atol=AGREE * max(np.abs(expected).max(), 1.0))
            compared += 1
        qd = qd + 0.005 * torque / inertia
        q = q + 0.005 * qd
    assert compared == 400 * len(fields(TransmissionState))
    assert most_current > 0.9  # the current limit was met on the way
    assert (state.tension_joint_n >= 0.0).all()
