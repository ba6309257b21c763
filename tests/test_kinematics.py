"""Fingertips by the joint angles: equal to both engines' own, and their Jacobian to finite differences."""

import mujoco
import numpy as np
import pybullet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pybullet_utils.bullet_client import BulletClient
from robot_samples import finger2

from robot.description import ROBOTS, load
from robot.description.model import RobotModel
from robot.description.rotation import matrix_rpy, quat_xyzw, rpy_matrix
from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics, chain

HAND = load("hand22")
HANDS = [name for name in ROBOTS if name.startswith("hand")]
AXIS_DIGITS = 1e-8  # an oblique axis is written with six digits, so its length is one to 1e-7
ENGINE_AGREES_M = (
    2e-7  # PyBullet keeps link poses as they come out of its URDF reader, in single precision here and there
)


def postures(model: RobotModel, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(model.lower_rad, model.upper_rad, (count, len(model.joints)))


@pytest.mark.parametrize("name", HANDS)
def test_jacobian_is_the_finite_difference_of_the_tips(name):
    model = load(name)
    tips, d = TipKinematics(model), 1e-6
    for q in postures(model, 5):
        jacobian = tips.jacobian(q)
        for j in range(len(model.joints)):
            e = np.zeros(len(model.joints))
            e[j] = d
            slope = (tips.positions(q + e) - tips.positions(q - e)) / (2 * d)
            assert jacobian[:, :, j] == pytest.approx(slope, abs=AXIS_DIGITS)


@pytest.mark.parametrize("name", HANDS)
def test_tips_are_where_mujoco_puts_its_sites(name):
    model = load(name)
    compiled = mujoco.MjModel.from_xml_string(model.mjcf())
    data, tips = mujoco.MjData(compiled), TipKinematics(model, frame=model.base_link)
    for q in postures(model, 10):
        for joint, angle in zip(model.joint_names, q):
            data.joint(joint).qpos = angle
        mujoco.mj_kinematics(compiled, data)
        base = data.body(model.base_link)
        rotation = base.xmat.reshape(3, 3)
        for tip, p in zip(model.tip_names, tips.positions(q)):
            assert rotation @ p + base.xpos == pytest.approx(data.site(tip).xpos, abs=AXIS_DIGITS)


@pytest.mark.parametrize("name", HANDS)
def test_tips_are_where_pybullet_puts_its_links(name, tmp_path):
    model = load(name)
    path = tmp_path / "robot.urdf"
    path.write_text(model.urdf())
    bullet = BulletClient(connection_mode=pybullet.DIRECT)
    try:
        body = bullet.loadURDF(str(path), useFixedBase=True, flags=pybullet.URDF_USE_INERTIA_FROM_FILE)
        info = [bullet.getJointInfo(body, i) for i in range(bullet.getNumJoints(body))]
        joints, links = {i[1].decode(): i[0] for i in info}, {i[12].decode(): i[0] for i in info}
        origin, turn = bullet.getBasePositionAndOrientation(body)
        # Bullet's base pose is that of the base link's centre of mass
        frame = bullet.invertTransform(*bullet.getDynamicsInfo(body, -1)[3:5])
        origin, turn = bullet.multiplyTransforms(origin, turn, *frame)
        rotation = np.array(bullet.getMatrixFromQuaternion(turn)).reshape(3, 3)
        tips = TipKinematics(model, frame=model.base_link)
        for q in postures(model, 10):
            for joint, angle in zip(model.joint_names, q):
                bullet.resetJointState(body, joints[joint], angle)
            for tip, p in zip(model.tips, tips.positions(q)):
                state = bullet.getLinkState(body, links[tip.link], computeForwardKinematics=1)
                theirs = (
                    np.array(state[4]) + np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3) @ tip.offset_m
                )
                assert rotation @ p + origin == pytest.approx(theirs, abs=ENGINE_AGREES_M)
    finally:
        bullet.disconnect()


def test_a_finger_of_two_joints_is_where_trigonometry_says():
    model = finger2()
    (tip,) = TipKinematics(model).positions(np.array([0.3, 0.5]))
    y = 0.09 + 0.045 * np.cos(0.3) + 0.040 * np.cos(0.8)
    z = 0.045 * np.sin(0.3) + 0.040 * np.sin(0.8)
    assert tip == pytest.approx([0.0, y, z], abs=1e-15)


def test_tips_of_the_palm_frame_do_not_move_with_the_forearm():
    tips, q = TipKinematics(HAND), np.array(HAND.home_rad)
    moved = q.copy()
    moved[:3] += 0.3
    assert (tips.positions(moved) == tips.positions(q)).all()
    assert (tips.jacobian(q)[:, :, :3] == 0.0).all()


def test_the_chain_to_a_link_names_its_joints_from_the_root():
    assert [joint.name for joint in chain(HAND, "index_distal", "palm")] == [
        "index_abduction",
        "index_mcp",
        "index_pip",
        "index_dip",
    ]


def test_a_frame_that_is_no_ancestor_is_refused_with_those_that_are():
    with pytest.raises(UnknownNameError, match=r"unknown ancestor of link thumb_distal 'index_distal'.*palm"):
        chain(HAND, "thumb_distal", "index_distal")


angles = st.floats(-3.1, 3.1)


@given(angles, st.floats(-1.5, 1.5), angles)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_roll_pitch_yaw_and_quaternion_are_the_matrix_and_back(roll, pitch, yaw):
    matrix = rpy_matrix((roll, pitch, yaw))
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    assert rpy_matrix(matrix_rpy(matrix)) == pytest.approx(matrix, abs=1e-9)
    x, y, z, w = quat_xyzw(matrix)
    assert np.linalg.norm((x, y, z, w)) == pytest.approx(1.0)
    theirs = np.zeros(9)
    mujoco.mju_quat2Mat(theirs, np.array([w, x, y, z]))
    assert theirs.reshape(3, 3) == pytest.approx(matrix, abs=1e-12)


def test_roll_pitch_yaw_survives_the_gimbals_pole():
    matrix = rpy_matrix((0.4, np.pi / 2, 0.9))
    assert rpy_matrix(matrix_rpy(matrix)) == pytest.approx(matrix, abs=1e-7)
