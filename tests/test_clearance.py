"""The distance between fingers: the compiled geometry against points sampled on every capsule's axis."""

import numpy as np
import pytest

from robot.description import load
from robot.description.collision import colliding_pairs
from robot.kinematics import chain, rpy_matrix
from sim.clearance import Clearance, _capsule

HAND = load("hand22")
POINTS = np.linspace(0.0, 1.0, 120)


def turn(axis, angle):
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def axis_points(name, q):
    """Points on the axis of a link's capsule in the base frame, and its radius."""
    link = HAND.link(name)
    ends, radius = _capsule(link.geoms[0])
    points = ends[0] + POINTS[:, None] * (ends[1] - ends[0])
    for joint in reversed(chain(HAND, name, HAND.base_link)):
        rotation = rpy_matrix(joint.rpy_rad) @ turn(joint.axis, q[HAND.index(joint.name)])
        points = points @ rotation.T + np.array(joint.origin_m)
    return points, radius


@pytest.mark.parametrize("seed", range(4))
def test_the_least_gap_is_the_least_over_all_pairs_and_points(seed):
    q = np.random.default_rng(seed).uniform(HAND.lower_rad, HAND.upper_rad)
    solid = {name for pair in colliding_pairs(HAND) for name in pair}
    axes = {name: axis_points(name, q) for name in solid}
    gaps = [
        np.linalg.norm(axes[a][0][:, None] - axes[b][0][None], axis=2).min() - axes[a][1] - axes[b][1]
        for a, b in colliding_pairs(HAND)
    ]
    assert len(gaps) > 50
    assert Clearance(HAND).smallest_m(q) == pytest.approx(min(gaps), abs=5e-4)  # the spacing of the points
    assert Clearance(HAND).smallest_m(q) <= min(gaps) + 1e-12
