"""The compiled transmission is the numpy reference, to rounding, on every robot."""

from dataclasses import fields, replace

import numpy as np
import pytest
from robot_samples import finger2

from robot.description import ROBOTS, load
from robot.description.model import RobotModel
from robot.transmission import Parameters, TransmissionState, step
from sim.transmission_kernel import TransmissionKernel

AGREE = 1e-9  # relative to each array's largest value; rounding of sums in another order is about 1e-13
SUBSTEP_S = 0.005


def sprung() -> RobotModel:
    """A robot that uses every field: springs, angle-dependent arms, a synergy."""
    base = finger2()
    arms = tuple(replace(arm, flexor_slope_m=0.002, extensor_slope_m=0.001, wrap=0.5) for arm in base.tendons[1].arms)
    joints = tuple(replace(joint, spring_nm_rad=0.1, spring_rest_rad=0.2) for joint in base.joints)
    return replace(base, joints=joints, tendons=(replace(base.tendons[1], arms=arms, also=("mcp",)),))


@pytest.mark.parametrize("name", ["sprung", *ROBOTS])
def test_kernel_and_reference_agree_over_a_violent_trajectory(name):
    model = sprung() if name == "sprung" else load(name)
    p = Parameters.of(model)
    rng = np.random.default_rng(0)
    q, qd = np.array(model.home_rad), np.zeros(p.n_joints)
    kernel, state = TransmissionKernel(p, SUBSTEP_S), TransmissionState.at_rest(p, q)
    kernel.reset(state)
    links = np.array([1e-2 if joint.max_torque_nm > 3.0 else 2e-4 for joint in model.joints])  # roughly
    inertia = model.joint_inertia_kg_m2 + links
    compared, most_current = 0, 0.0
    for k in range(200):
        if k % 40 == 0:
            target = p.spool_target(rng.uniform(model.lower_rad - 0.2, model.upper_rad + 0.2), q)
        kernel.q_rad[:], kernel.qd_rad_s[:], kernel.target_rad[:] = q, qd, target
        kernel.step()
        torque = step(p, state, q, qd, target, SUBSTEP_S)
        np.testing.assert_allclose(kernel.torque_nm, torque, atol=AGREE * np.abs(torque).max())
        ours = kernel.state
        most_current = max(most_current, float((np.abs(ours.current_a) / p.peak_current).max()))
        for item in fields(state):
            expected = getattr(state, item.name)
            largest = max(np.abs(expected).max(initial=0.0), 1.0)
            np.testing.assert_allclose(getattr(ours, item.name), expected, rtol=AGREE, atol=AGREE * largest)
            compared += 1
        qd = qd + SUBSTEP_S * torque / inertia
        q = q + SUBSTEP_S * qd
    assert compared == 200 * len(fields(TransmissionState))
    assert most_current > 0.7  # the motors were driven hard
    assert (state.tension_joint_n >= 0.0).all()


def test_views_follow_the_kernel_and_copies_do_not():
    p = Parameters.of(finger2())
    kernel = TransmissionKernel(p, SUBSTEP_S)
    view, copy = kernel.state_views["spool_rad"], kernel.state.spool_rad
    kernel.target_rad[:] = 0.5
    kernel.step()
    assert (view != 0.0).all()
    assert (copy == 0.0).all()
