"""The other robots: what they are made of, and that surgery on a description keeps what it must."""

from dataclasses import replace
from math import radians

import mujoco
import numpy as np
import pytest
from robot_samples import finger2

import sim.engines
from robot.description import ROBOTS, load
from robot.description.hand11 import WELDED_DEG
from robot.description.mjcf import write_mjcf
from robot.description.model import RobotModel
from robot.description.surgery import mirrored, prefixed, weld
from robot.errors import UnknownNameError
from robot.kinematics import TipKinematics
from robot.state import Command
from robot.transmission import Parameters, TransmissionState, step
from sim.transmission_kernel import TransmissionKernel

SUBSTEP_S = 0.005
FOREARM = ("forearm_pronation", "wrist_flexion", "wrist_deviation")


def mass_kg(model: RobotModel) -> float:
    return sum(link.mass_kg for link in model.links)


@pytest.mark.parametrize(
    "name, joints, motors",
    [("hand11", 14, 9), ("hand22", 25, 25), ("hand25", 28, 28), ("body28", 28, 28), ("humanoid", 72, 72)],
)
def test_robots_have_the_joints_and_motors_they_are_named_for(name, joints, motors):
    model = load(name)
    assert model.name == name
    assert (len(model.joints), len(model.motor_names)) == (joints, motors)
    if name.startswith("hand"):
        assert model.joint_names[:3] == FOREARM
        assert len(model.joints) - 3 == int(name[4:])


def test_the_table_holds_nothing_else():
    assert list(ROBOTS) == ["hand11", "hand22", "hand25", "body28", "humanoid"]


# Surgery


def test_hand11_is_hand22_with_joints_welded_tip_for_tip():
    full, ablated = load("hand22"), load("hand11")
    ours, theirs = TipKinematics(ablated), TipKinematics(full)
    rng = np.random.default_rng(0)
    for _ in range(10):
        q11 = rng.uniform(ablated.lower_rad, ablated.upper_rad)
        q22 = np.zeros(25)
        for name, angle in zip(ablated.joint_names, q11):
            q22[full.index(name)] = angle
        for name, angle_deg in WELDED_DEG.items():
            q22[full.index(name)] = radians(angle_deg)
        assert ours.positions(q11) == pytest.approx(theirs.positions(q22), abs=1e-10)
    assert mass_kg(ablated) == pytest.approx(mass_kg(full))


def test_welding_an_unknown_joint_names_the_known_ones():
    model = finger2()
    with pytest.raises(UnknownNameError, match=r"unknown joint 'dip'.*Known: mcp, pip"):
        weld(list(model.links), list(model.joints), list(model.tips), "dip", 0.0)


def test_a_left_hand_is_the_mirror_image_of_a_right_one_in_every_posture():
    right = load("hand22")
    left = mirrored(right)
    ours, theirs = TipKinematics(left), TipKinematics(right)
    for q in np.random.default_rng(0).uniform(right.lower_rad, right.upper_rad, (10, 25)):
        assert ours.positions(q) == pytest.approx(theirs.positions(q) * [-1.0, 1.0, 1.0], abs=1e-12)


def test_mirroring_twice_is_doing_nothing():
    hand = load("hand22")
    q = np.array(hand.home_rad)
    twice = mirrored(mirrored(hand))
    assert TipKinematics(twice).positions(q) == pytest.approx(TipKinematics(hand).positions(q), abs=1e-15)
    assert [j.axis for j in twice.joints] == [j.axis for j in hand.joints]


def test_a_prefix_changes_names_and_nothing_else():
    hand = load("hand22")
    named = prefixed(hand, "left_")
    assert named.joint_names == tuple("left_" + name for name in hand.joint_names)
    assert named.motor_names == tuple("left_" + name for name in hand.motor_names)
    ours, theirs = Parameters.of(named), Parameters.of(hand)
    assert (ours.arm_joint == theirs.arm_joint).all()


# hand11: two joints on one motor


@pytest.mark.parametrize("engine", sim.engines.ENGINES)
def test_one_motor_of_hand11_closes_two_joints_together_and_opens_them_again(engine):
    model = load("hand11")
    hand = sim.engines.make(engine, model)
    mcp, pip = model.index("index_mcp"), model.index("index_pip")
    try:
        hand.reset(None, np.random.default_rng(0))
        for angle in (1.2, 0.3):
            target = np.array(model.home_rad)
            target[[mcp, pip]] = angle
            for _ in range(50):
                state = hand.step(Command(target_rad=target))
            # the pair holds the sum of what its two joints take up, less what the springs stretch it; they share it out
            assert 10.0 * state.q_rad[mcp] + 8.0 * state.q_rad[pip] == pytest.approx(18.0 * angle, rel=0.06)
            assert state.q_rad[[mcp, pip]] == pytest.approx([angle, angle], abs=0.25)
            assert np.abs(state.qd_rad_s[[mcp, pip]]).max() < 0.1
    finally:
        hand.close()


def test_a_hand11_finger_gives_way_where_a_hand22_finger_does_not():
    """Pushed at the tip, MCP and PIP of a synergy move against each other with only springs in the way."""
    stiffness = {}
    for name in ("hand11", "hand22"):
        model = load(name)
        p = Parameters.of(model).without_friction()
        arms, joints = p.arms(np.array(model.home_rad)), [model.index(j) for j in ("index_mcp", "index_pip")]
        series = p.stiffness_spool * p.stiffness_joint / (p.stiffness_spool + p.stiffness_joint)
        matrix = (arms.T @ (series[:, None] * arms))[np.ix_(joints, joints)] + np.diag(p.spring_stiffness[joints])
        stiffness[name] = np.linalg.eigvalsh(matrix)[0]
    assert stiffness["hand11"] == pytest.approx(0.1, abs=0.03)  # its springs
    assert stiffness["hand22"] > 10.0 * stiffness["hand11"]


# hand25


def test_hand25_adds_three_joints_and_human_bones_to_hand22():
    ours, theirs = load("hand25"), load("hand22")
    assert set(ours.joint_names) - set(theirs.joint_names) == {"ring_arch", "index_roll", "thumb_roll"}
    assert ours.joints[ours.index("middle_pip")].origin_m[1] == 0.0446
    arms = Parameters.of(ours).arms(np.full(len(ours.joints), radians(90.0)))
    mcp = 2 * ours.motor_names.index("index_mcp")
    assert arms[mcp, ours.index("index_mcp")] == pytest.approx(14.4e-3, abs=1e-4)  # MyoHand FDP at 90 degrees


def test_neither_cable_of_any_hand_runs_slack_over_the_range():
    for name in ("hand11", "hand22", "hand25"):
        model = load(name)
        p = Parameters.of(model)
        for q in np.random.default_rng(0).uniform(model.lower_rad, model.upper_rad, (50, len(model.joints))):
            flexor, extensor = TransmissionState.at_rest(p, q).tension_joint_n.reshape(-1, 2).T
            assert flexor == pytest.approx(4.0, abs=0.1)
            assert extensor * p.spool[1::2] == pytest.approx(flexor * p.spool[0::2], rel=0.05)  # balanced on the spool


def test_a_hand_at_rest_pulls_at_no_joint_and_needs_no_current():
    for name in ("hand11", "hand22"):  # hand25's arms grow with posture
        model = load(name)
        p = replace(Parameters.of(model), spring_stiffness=np.zeros(len(model.joints)))
        state = TransmissionState.at_rest(p, model.home_rad)
        torque = step(
            p, state, model.home_rad, np.zeros(p.n_joints), p.spool_target(model.home_rad, model.home_rad), 0.005
        )
        assert np.abs(torque).max() < 1e-9
        assert np.abs(state.current_a).max() < 1e-9


def test_a_joint_is_said_to_bear_and_reach_what_its_motor_and_arms_give():
    checked = 0
    for name in ("hand11", "hand22", "hand25"):
        model = load(name)
        for tendon in model.tendons:
            pull = tendon.motor.peak_torque_nm / tendon.spool_flexor_m
            speed = tendon.motor.no_load_speed_rad_s * tendon.spool_flexor_m
            for driven in tendon.driven:
                joint = model.joints[model.index(driven)]
                arm = next(arm for arm in tendon.arms if arm.joint == driven)
                least, most = sorted(arm.flexor_m + arm.flexor_slope_m * q for q in (joint.lower_rad, joint.upper_rad))
                assert 0.95 * pull * least <= joint.max_torque_nm <= 1.05 * pull * most, (name, driven)
                assert 0.95 * speed / most <= joint.max_speed_rad_s <= 1.05 * speed / least, (name, driven)
                checked += 1
    assert checked == 14 + 25 + 28


# body28 and humanoid


@pytest.mark.parametrize("name", ["body28", "humanoid"])
def test_a_body_weighs_57_kg_stands_1_73_m_tall_and_is_symmetric(name):
    model = load(name)
    assert mass_kg(model) == pytest.approx(57.0)
    compiled = mujoco.MjModel.from_xml_string(model.mjcf())
    data = mujoco.MjData(compiled)
    data.body(model.base_link)
    straight_hip_m = 0.067 + 0.426 + 0.424
    data.qpos[2] = straight_hip_m
    mujoco.mj_kinematics(compiled, data)
    head = [g for g in range(compiled.ngeom) if compiled.geom(g).name.startswith("thorax")][-1]
    assert data.geom_xpos[head][2] + compiled.geom_size[head][0] == pytest.approx(1.73)
    assert data.site("left_foot").xpos[2] == pytest.approx(0.0, abs=1e-12)
    for tip in model.tip_names:
        if tip.startswith("left_"):
            twin = data.site(tip.replace("left_", "right_")).xpos
            assert data.site(tip).xpos == pytest.approx(twin * [1.0, -1.0, 1.0], abs=1e-12)


def test_body28_has_12_joints_in_the_legs_2_in_the_waist_and_14_in_the_arms():
    names = load("body28").joint_names
    legs = [n for n in names if any(part in n for part in ("hip", "knee", "ankle"))]
    waist = [n for n in names if n.startswith("waist")]
    assert (len(legs), len(waist), len(names) - len(legs) - len(waist)) == (12, 2, 14)


def test_a_forearm_full_of_motors_weighs_three_kilograms():
    body, man = load("body28"), load("humanoid")
    lower_arm = sum(body.link(f"left_{part}").mass_kg for part in ("elbow", "forearm", "carpus"))
    assert lower_arm == pytest.approx(3.0)
    assert man.link("left_forearm").mass_kg == 3.0


def test_a_humanoids_palms_face_its_thighs_and_its_thumbs_point_forward():
    model = load("humanoid")
    compiled = mujoco.MjModel.from_xml_string(model.mjcf())
    data = mujoco.MjData(compiled)
    mujoco.mj_kinematics(compiled, data)
    for side, inward in (("left", -1.0), ("right", 1.0)):
        palm = data.body(f"{side}_palm").xmat.reshape(3, 3)
        assert palm[:, 1] == pytest.approx([0.0, 0.0, -1.0], abs=1e-9)  # fingers down
        assert palm[:, 2] == pytest.approx([0.0, inward, 0.0], abs=1e-9)
        assert data.site(f"{side}_thumb").xpos[0] > data.site(f"{side}_index").xpos[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_positive_angles_flex_on_both_sides(sign):
    model = load("body28")
    compiled = mujoco.MjModel.from_xml_string(model.mjcf())
    data = mujoco.MjData(compiled)

    def moved(joint: str, tip: str) -> np.ndarray:
        data.qpos[7:] = 0.0
        mujoco.mj_kinematics(compiled, data)
        before = data.site(tip).xpos.copy()
        data.joint(joint).qpos = 0.2 * sign
        mujoco.mj_kinematics(compiled, data)
        return (data.site(tip).xpos - before) * sign

    for side, outward in (("left", 1.0), ("right", -1.0)):
        assert moved(f"{side}_hip_pitch", f"{side}_foot")[0] > 0.05  # forward
        assert moved(f"{side}_knee", f"{side}_foot")[0] < -0.05  # heel to the back
        assert moved(f"{side}_ankle_pitch", f"{side}_foot")[2] > 0.005  # toes up
        assert moved(f"{side}_hip_roll", f"{side}_foot")[1] * outward > 0.05  # apart
        assert moved(f"{side}_elbow_flexion", f"{side}_hand")[0] > 0.05
        assert moved(f"{side}_shoulder_roll", f"{side}_hand")[1] * outward > 0.05


@pytest.mark.parametrize("name", ["body28", "humanoid"])
def test_a_drives_servo_is_stable_at_the_engines_substep_with_the_least_inertia_it_can_feel(name):
    model = load(name)
    assert len(model.drives) > 20
    for drive in model.drives:
        inertia = model.drive_inertia_kg_m2(drive)
        k, c = drive.servo_stiffness_nm_rad, drive.servo_damping_nm_s_rad
        assert SUBSTEP_S**2 * k / inertia + 2.0 * SUBSTEP_S * c / inertia < 3.0, drive.name  # the limit is 4
        assert model.reflected_inertia_kg_m2(0.0)[model.index(drive.joint)] <= inertia


def test_a_gear_drive_holds_a_load_by_load_over_stiffness():
    model = load("body28")
    p = Parameters.of(model)
    knee = model.index("left_knee")
    drive = next(d for d in model.drives if d.joint == "left_knee")
    q = np.array(model.home_rad)
    q[knee] += 0.1
    torque = step(p, TransmissionState.at_rest(p, q), q, np.zeros(28), p.spool_target(model.home_rad, q), SUBSTEP_S)
    assert torque[knee] == pytest.approx(-0.1 * drive.servo_stiffness_nm_rad)


def test_a_gear_drive_respects_its_torque_speed_line():
    model = load("body28")
    p = Parameters.of(model)
    q, target = np.zeros(28), np.full(28, 100.0)  # pulled as hard as it goes
    q = np.clip(q, p.lower, p.upper)
    peak = np.array([d.motor.peak_torque_nm for d in model.drives])
    no_load = np.array([d.motor.no_load_speed_rad_s for d in model.drives])
    joints = [model.index(d.joint) for d in model.drives]
    bearing = p.bearing_damping
    for share in (0.0, 0.3, 0.8, 1.0):
        qd = np.zeros(28)
        qd[joints] = share * no_load
        state = TransmissionState.at_rest(p, q)
        torque = step(p, state, q, qd, target, 1e-6)[joints] + (bearing * qd)[joints]
        line = 2.5 * peak * (1.0 - share)  # stall is 2.5 times the peak
        assert torque == pytest.approx(np.minimum(peak, line), rel=1e-3, abs=1e-3 * peak.max())


@pytest.mark.parametrize("name", ["body28", "humanoid"])
def test_the_kernel_holds_a_standing_body_as_mujocos_own_servos_do(name):
    model = load(name)
    native = mujoco.MjModel.from_xml_string(model.mjcf())
    floor = '<worldbody>\n<geom name="floor" type="plane" size="0 0 0.1"/>'
    driven = mujoco.MjModel.from_xml_string(write_mjcf(model, for_torque_control=True).replace("<worldbody>", floor))
    heights = []
    for compiled, transmission in ((native, False), (driven, True)):
        data = mujoco.MjData(compiled)
        qpos = [int(compiled.joint(n).qposadr[0]) for n in model.joint_names]
        dof = [int(compiled.joint(n).dofadr[0]) for n in model.joint_names]
        data.qpos[qpos] = model.home_rad
        mujoco.mj_forward(compiled, data)
        p = Parameters.of(model)
        kernel = TransmissionKernel(p, SUBSTEP_S)
        kernel.reset(TransmissionState.at_rest(p, np.array(model.home_rad)))
        kernel.target_rad[:] = p.spool_target(model.home_rad, model.home_rad)
        for tendon in () if transmission else model.tendons:
            data.actuator(tendon.name).ctrl = data.tendon(tendon.name).length[0]
        for drive in () if transmission else model.drives:
            data.actuator(drive.name).ctrl = data.joint(drive.joint).qpos[0]
        for _ in range(200):
            if transmission:
                kernel.q_rad[:], kernel.qd_rad_s[:] = data.qpos[qpos], data.qvel[dof]
                kernel.step()
                data.qfrc_applied[dof] = kernel.torque_nm
            mujoco.mj_step(compiled, data)
        heights.append(float(data.qpos[2]))
    assert heights[0] == pytest.approx(heights[1], abs=0.002)
    assert heights[0] == pytest.approx(model.base_height_m, abs=0.03)


def test_a_body_cannot_have_a_motor_twice():
    body = load("body28")
    with pytest.raises(ValueError, match="a joint needs one motor, got \\['left_knee'\\]"):
        replace(body, drives=(*body.drives, replace(body.drives[0], name="spare", joint="left_knee")))
