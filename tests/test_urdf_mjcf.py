"""The generated files, read back from the engines, are the model: masses, inertias, ranges, order, armature, tendons."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import mujoco
import numpy as np
import pybullet
import pytest
from pybullet_utils.bullet_client import BulletClient
from robot_samples import finger2

from robot.description import ROBOTS, load
from robot.description.collision import colliding_pairs
from robot.description.mjcf import write_mjcf
from robot.description.model import Joint, RobotModel
from robot.description.rotation import rpy_matrix
from robot.description.urdf import write_urdf

SINGLE = 1e-6  # PyBullet reports some numbers in single precision


def model(name: str) -> RobotModel:
    return finger2() if name == "finger2" else load(name)


def in_inertial_axes(robot: RobotModel, joint: Joint) -> np.ndarray:
    """A joint's axis in the axes its link's inertia is written in, which is where Bullet keeps it."""
    return rpy_matrix(robot.link(joint.child).geoms[0].rpy_rad).T @ joint.axis


NAMES = ("finger2", *ROBOTS)


@pytest.fixture
def bullet():
    client = BulletClient(connection_mode=pybullet.DIRECT)
    yield client
    client.disconnect()


def load_urdf(bullet: BulletClient, text: str, folder, flags: int = pybullet.URDF_USE_INERTIA_FROM_FILE) -> int:
    path = folder / "robot.urdf"
    path.write_text(text)
    return bullet.loadURDF(str(path), useFixedBase=True, flags=flags | pybullet.URDF_MAINTAIN_LINK_ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_pybullet_reads_back_the_models_joints_masses_and_inertias(name, bullet, tmp_path):
    robot = model(name)
    body = load_urdf(bullet, robot.urdf(), tmp_path)
    info = [bullet.getJointInfo(body, i) for i in range(bullet.getNumJoints(body))]
    assert sorted(i[1].decode() for i in info) == sorted(robot.joint_names)
    index = {i[1].decode(): i for i in info}
    for joint in robot.joints:
        read = index[joint.name]
        assert read[8:12] == pytest.approx(
            (joint.lower_rad, joint.upper_rad, joint.max_torque_nm, joint.max_speed_rad_s), rel=SINGLE
        )
        assert read[12].decode() == joint.child
        assert read[13] == pytest.approx(in_inertial_axes(robot, joint), abs=SINGLE)
    links = {i[12].decode(): i[0] for i in info} | {robot.base_link: -1}
    for link in robot.links:
        mass, _, inertia, *_ = bullet.getDynamicsInfo(body, links[link.name])
        fixed = link.name == robot.base_link  # PyBullet gives a fixed base no mass
        assert mass == pytest.approx(0.0 if fixed else link.mass_kg, rel=SINGLE)
        if not fixed:
            assert inertia == pytest.approx(link.principal_inertia_kg_m2, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_mujoco_reads_back_the_models_joints_masses_and_inertias_in_its_order(name):
    robot = model(name)
    compiled = mujoco.MjModel.from_xml_string(robot.mjcf())
    for joint, armature in zip(robot.joints, robot.reflected_inertia_kg_m2(1.0)):
        read = compiled.joint(joint.name)
        assert read.range == pytest.approx((joint.lower_rad, joint.upper_rad), abs=1e-12)
        assert read.axis == pytest.approx(joint.axis, abs=1e-6)
        assert compiled.dof_armature[read.dofadr[0]] == pytest.approx(armature, rel=1e-12)
        assert compiled.dof_damping[read.dofadr[0]] == pytest.approx(joint.damping_nm_s)
        assert read.stiffness[0] == pytest.approx(joint.spring_nm_rad)
        assert compiled.body(joint.child).parentid[0] == compiled.body(joint.parent).id
    for link in robot.links:
        body = compiled.body(link.name)
        assert body.mass[0] == pytest.approx(link.mass_kg, rel=1e-12)
        assert np.sort(body.inertia) == pytest.approx(np.sort(link.principal_inertia_kg_m2), rel=1e-9)
        assert body.ipos == pytest.approx(link.com_m, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_mujocos_tendons_and_actuators_are_the_models_motors_in_order(name):
    robot = model(name)
    compiled = mujoco.MjModel.from_xml_string(robot.mjcf())
    assert [compiled.actuator(i).name for i in range(compiled.nu)] == list(robot.motor_names)
    assert [compiled.tendon(i).name for i in range(compiled.ntendon)] == [tendon.name for tendon in robot.tendons]
    data = mujoco.MjData(compiled)
    q = np.random.default_rng(0).uniform(robot.lower_rad, robot.upper_rad)
    for joint, angle in zip(robot.joint_names, q):
        data.joint(joint).qpos = angle
    mujoco.mj_forward(compiled, data)
    for tendon in robot.tendons:
        length = sum(arm.flexor_m * q[robot.index(arm.joint)] for arm in tendon.arms)
        assert data.tendon(tendon.name).length[0] == pytest.approx(length, abs=1e-12)
        limit = tendon.motor.peak_torque_nm / tendon.spool_flexor_m
        assert compiled.actuator(tendon.name).forcerange == pytest.approx((-limit, limit))
        ratio = tendon.spool_extensor_m / tendon.spool_flexor_m
        cables, servo = tendon.stiffness_n_m * (1.0 + ratio**2), tendon.servo_stiffness_n_m
        gain = compiled.actuator(tendon.name).gainprm[0]
        assert gain == pytest.approx(cables * servo / (cables + servo))  # springs in series
    for drive in robot.drives:
        read = compiled.actuator(drive.name)
        assert read.gainprm[0] == pytest.approx(drive.servo_stiffness_nm_rad)
        assert read.forcerange == pytest.approx((-drive.motor.peak_torque_nm, drive.motor.peak_torque_nm))


@pytest.mark.parametrize("name", NAMES)
def test_the_simulated_variants_carry_the_joints_armature_and_nothing_else(name, bullet, tmp_path):
    robot = model(name)
    compiled = mujoco.MjModel.from_xml_string(write_mjcf(robot, for_torque_control=True))
    assert compiled.nu == compiled.ntendon == 0
    body = load_urdf(bullet, write_urdf(robot, for_torque_control=True), tmp_path)
    added = 0
    for i in range(bullet.getNumJoints(body)):
        info = bullet.getJointInfo(body, i)
        name = info[1].decode()
        j = robot.index(name)
        dof = compiled.joint(name).dofadr[0]
        assert compiled.jnt_limited[compiled.joint(name).id] == 0
        assert compiled.dof_damping[dof] == 0.0
        assert compiled.dof_armature[dof] == pytest.approx(robot.joint_inertia_kg_m2[j])
        axis = np.square(in_inertial_axes(robot, robot.joints[j]))
        if axis.max() > 0.999:  # a principal axis: the link must turn about it as heavily as in MuJoCo
            own = robot.link(robot.joints[j].child).principal_inertia_kg_m2
            assert np.array(bullet.getDynamicsInfo(body, i)[2]) @ axis == pytest.approx(
                own @ axis + robot.joint_inertia_kg_m2[j], rel=1e-4
            )
            added += 1
    assert added > len(robot.joints) // 2


@pytest.mark.parametrize("name", NAMES)
def test_the_mjcf_stands_alone_and_its_own_servos_hold_the_home_posture(name):
    robot = model(name)
    compiled = mujoco.MjModel.from_xml_string(robot.mjcf())
    data = mujoco.MjData(compiled)
    for joint, angle in zip(robot.joint_names, robot.home_rad):
        data.joint(joint).qpos = angle
    mujoco.mj_forward(compiled, data)
    for tendon in robot.tendons:
        data.actuator(tendon.name).ctrl = data.tendon(tendon.name).length[0]
    for drive in robot.drives:
        data.actuator(drive.name).ctrl = data.joint(drive.joint).qpos[0]
    for _ in range(200):
        mujoco.mj_step(compiled, data)
    assert data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number == 0
    q = np.array([data.joint(joint).qpos[0] for joint in robot.joint_names])
    if robot.floating:  # standing, without anybody who balances it
        assert data.body(robot.base_link).xpos[2] == pytest.approx(robot.base_height_m, abs=0.05)
        return
    assert np.abs(data.qvel).max() < 0.02  # at rest: an explicit integrator chatters here at 11 rad/s
    driven_alone = [robot.index(t.joint) for t in robot.tendons if not t.also]
    assert q[driven_alone] == pytest.approx(robot.home_rad[driven_alone], abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_name_no_other_file(name):
    for text in (model(name).urdf(), model(name).mjcf()):
        assert not re.search(r"filename=|file=|<include|meshdir", text)
        ElementTree.fromstring(text)


def test_the_urdf_has_one_element_a_line_because_pybullets_reader_fails_on_long_ones():
    lines = load("hand22").urdf().splitlines()
    assert max(map(len, lines)) < 250
    assert all(line.count("<") <= 2 for line in lines)


def test_mujoco_tests_exactly_the_models_pairs_for_contact():
    robot = load("hand22")
    compiled = mujoco.MjModel.from_xml_string(robot.mjcf())
    pairs = {
        frozenset((compiled.body(compiled.geom_bodyid[a]).name, compiled.body(compiled.geom_bodyid[b]).name))
        for a, b in zip(compiled.pair_geom1, compiled.pair_geom2)
    }
    assert pairs == {frozenset(pair) for pair in colliding_pairs(robot)}
    assert compiled.npair > 100


def test_a_range_that_was_written_wrong_would_be_seen():
    """The comparison above can fail: a planted fault in the text is read back."""
    robot = finger2()
    wrong = robot.mjcf().replace(repr(robot.joints[0].upper_rad), "1.0")
    compiled = mujoco.MjModel.from_xml_string(wrong)
    assert compiled.joint("mcp").range[1] != pytest.approx(robot.joints[0].upper_rad)


@pytest.mark.parametrize("name", ROBOTS)
def test_both_files_load_and_step_in_the_engines_own_loaders_where_flexor_is_not_imported(name, tmp_path):
    (tmp_path / "robot.urdf").write_text(load(name).urdf())
    (tmp_path / "robot.xml").write_text(load(name).mjcf())
    code = """
import sys, mujoco, pybullet
model = mujoco.MjModel.from_xml_path("robot.xml")
mujoco.mj_step(model, data := mujoco.MjData(model))
pybullet.connect(pybullet.DIRECT)
body = pybullet.loadURDF("robot.urdf", useFixedBase=True)
pybullet.stepSimulation()
assert not {"robot", "sim"} & set(sys.modules)
print(sum(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE), sum(pybullet.getJointInfo(body, i)[2] == 0 for i in range(pybullet.getNumJoints(body))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    joints = str(len(load(name).joints))
    assert done.stdout.split()[-2:] == [joints, joints]
