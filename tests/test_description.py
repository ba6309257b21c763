"""A description that cannot exist is refused by field and value; one that can is what its primary numbers say."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from robot_samples import DOCUMENT, finger2, lever

import sim.engines
from robot import description
from robot.description import ROBOTS, DescriptionError, RobotModel, load
from robot.description.collision import colliding_pairs
from robot.description.model import Arm, Geom, Joint, Link, Tip
from robot.description.motors import LARGE, SMALL
from robot.errors import UnknownNameError
from robot.state import Command

FINGER = finger2()
MCP, PIP = FINGER.joints
TENDON = FINGER.tendons[1]
HAND22_SHA256 = "8a87f0f5f3a7caeb52588954834a0b0845077b41d795c206a4d269a50a928390"


def joint(**changes: object) -> Joint:
    return replace(MCP, **changes)  # type: ignore[arg-type]


def robot(**changes: object) -> RobotModel:
    return replace(FINGER, **changes)  # type: ignore[arg-type]


REFUSED = {
    "negative mass": (
        lambda: replace(FINGER.links[1], mass_kg=-0.03),
        r"link proximal: mass_kg must be > 0, got -0.03",
    ),
    "mass that is no number": (
        lambda: replace(FINGER.links[1], mass_kg=nan),
        "link proximal: mass_kg must be > 0, got nan",
    ),
    "link without a shape": (
        lambda: replace(FINGER.links[1], geoms=()),
        r"link proximal: needs at least one geom, got \(\)",
    ),
    "radius of zero": (lambda: Geom(shape="sphere", size_m=(0.0,)), r"geom sphere: size_m must be > 0, got \(0.0,\)"),
    "box of two numbers": (
        lambda: Geom(shape="box", size_m=(1.0, 1.0)),
        r"geom box: size_m needs 3 numbers, got \(1.0, 1.0\)",
    ),
    "unknown shape": (lambda: Geom(shape="cone", size_m=(1.0,)), "unknown geom shape 'cone'"),  # type: ignore[arg-type]
    "crossed range": (
        lambda: joint(lower_rad=1.0, upper_rad=0.5),
        r"joint mcp: lower_rad must be < upper_rad, got \(1.0, 0.5\)",
    ),
    "range that is no number": (lambda: joint(lower_rad=nan), "joint mcp: lower_rad must be < upper_rad"),
    "home outside its range": (lambda: joint(home_rad=2.0), "joint mcp: home_rad must be in range, got 2.0"),
    "axis of length two": (
        lambda: joint(axis=(2.0, 0.0, 0.0)),
        r"joint mcp: axis must have length 1, got \(2.0, 0.0, 0.0\)",
    ),
    "axis of length zero": (lambda: joint(axis=(0.0, 0.0, 0.0)), "joint mcp: axis must have length 1"),
    "no torque": (lambda: joint(max_torque_nm=0.0), "joint mcp: max_torque_nm must be > 0, got 0.0"),
    "no speed": (lambda: joint(max_speed_rad_s=-1.0), "joint mcp: max_speed_rad_s must be > 0, got -1.0"),
    "damping that drives": (lambda: joint(damping_nm_s=-0.1), "joint mcp: damping_nm_s must be >= 0, got -0.1"),
    "spring that pushes away": (lambda: joint(spring_nm_rad=-0.1), "joint mcp: spring_nm_rad must be >= 0, got -0.1"),
    "motor without resistance": (
        lambda: replace(SMALL, resistance_ohm=0.0),
        "motor small: resistance_ohm must be > 0, got 0.0",
    ),
    "gear that makes work": (
        lambda: replace(SMALL, gear_efficiency=1.1),
        "motor small: gear_efficiency must be <= 1, got 1.1",
    ),
    "derating that never starts": (
        lambda: replace(SMALL, derate_from_c=130.0),
        "derate_from_c must be < max_winding_c, got 130.0",
    ),
    "spool of no size": (
        lambda: replace(TENDON, spool_flexor_m=0.0),
        "tendon pip: spool_flexor_m must be > 0, got 0.0",
    ),
    "cable of no stiffness": (
        lambda: replace(TENDON, stiffness_n_m=-1.0),
        "tendon pip: stiffness_n_m must be > 0, got -1.0",
    ),
    "friction that helps": (lambda: replace(TENDON, friction=-0.1), "tendon pip: friction must be >= 0, got -0.1"),
    "tendon past its own joint": (
        lambda: replace(TENDON, joint="dip"),
        r"tendon pip: its own joint 'dip' must be among its arms",
    ),
    "joint passed twice": (lambda: replace(TENDON, arms=TENDON.arms * 2), "tendon pip: passes one joint twice"),
    "tendon over an unknown joint": (
        lambda: robot(
            tendons=(
                FINGER.tendons[0],
                replace(TENDON, arms=(*TENDON.arms, Arm(joint="pipp", flexor_m=0.01, extensor_m=0.01))),
            )
        ),
        "unknown joint of tendon pip 'pipp'. Did you mean 'pip'\\? Known: mcp, pip",
    ),
    "shape of no end": (
        lambda: Geom(shape="sphere", size_m=(inf,)),
        r"geom sphere: size_m must be finite, got \(inf,\)",
    ),
    "joint that is nowhere": (
        lambda: joint(origin_m=(0.0, nan, 0.0)),
        r"joint mcp: origin_m must be finite, got \(0.0, nan, 0.0\)",
    ),
    "arm that is no number": (
        lambda: Arm(joint="mcp", flexor_m=nan, extensor_m=0.01),
        "arm over mcp: flexor_m must be finite, got nan",
    ),
    "cable that never gives": (
        lambda: replace(TENDON, stiffness_n_m=inf),
        "tendon pip: stiffness_n_m must be finite, got inf",
    ),
    "tip that is nowhere": (
        lambda: replace(FINGER.tips[0], offset_m=(nan, 0.0, 0.0)),
        r"tip finger: offset_m must be finite",
    ),
    "two joints of one name": (
        lambda: robot(joints=(MCP, replace(PIP, name="mcp"))),
        r"joints: two of one name, got \['mcp'\]",
    ),
    "two links of one name": (
        lambda: robot(links=(*FINGER.links, FINGER.links[0])),
        r"links: two of one name, got \['palm'\]",
    ),
    "two motors of one name": (lambda: robot(tendons=(TENDON, TENDON)), r"motors: two of one name, got \['pip'\]"),
    "two motors on one joint": (
        lambda: robot(tendons=(*FINGER.tendons, replace(TENDON, name="spare"))),
        r"robot finger2: a joint needs one motor, got \['pip'\]",
    ),
    "joint without a motor": (
        lambda: robot(tendons=FINGER.tendons[:1]),
        r"robot finger2: joints without a motor, got \['pip'\]",
    ),
    "joint on an unknown link": (
        lambda: robot(joints=(MCP, replace(PIP, child="tip"))),
        "unknown link of joint pip 'tip'",
    ),
    "loop": (
        lambda: robot(joints=(MCP, replace(PIP, child="palm"))),
        "joint pip: child already has a parent, got 'palm'",
    ),
    "child before its parent": (
        lambda: robot(joints=(PIP, MCP)),
        "joint pip: parent must be reached by an earlier joint, got 'proximal'",
    ),
    "link that hangs in the air": (
        lambda: robot(joints=(MCP,), tendons=FINGER.tendons[:1]),
        r"robot finger2: every link needs a joint, got \['distal'\]",
    ),
    "unknown base": (lambda: robot(base_link="plam"), "unknown base link 'plam'. Did you mean 'palm'"),
    "tip on an unknown link": (
        lambda: robot(tips=(Tip(name="t", link="x", offset_m=(0, 0, 0)),)),
        "unknown link of tip t 'x'",
    ),
    "share above one": (lambda: robot(reflected_share=1.5), "reflected_share must be 0..1, got 1.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_exist_is_refused_by_field_and_value(case):
    make, message = REFUSED[case]
    with pytest.raises((DescriptionError, UnknownNameError), match=message):
        make()


def test_an_unknown_robot_is_answered_with_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown robot 'hand23'. Did you mean 'hand2[25]'\? Known: hand11, hand22"
    ):
        load("hand23")


def test_the_identity_of_hand22_is_what_artifacts_were_made_for():
    assert load("hand22").sha256 == HAND22_SHA256, (
        "every shipped artifact refuses this hand: restore its numbers or export again"
    )


@pytest.mark.parametrize(
    "changed",
    [
        robot(joints=(joint(damping_nm_s=0.006), PIP)),
        robot(joints=(joint(spring_nm_rad=0.01), PIP)),
        robot(tendons=(replace(FINGER.tendons[0], friction=0.09), TENDON)),
        robot(floating=True),
        robot(links=(*FINGER.links[:2], replace(FINGER.links[2], source="elsewhere"))),
    ],
)
def test_identity_changes_with_every_number(changed):
    assert changed.sha256 != FINGER.sha256


def test_a_field_younger_than_a_robot_does_not_change_its_identity():
    assert "spring_nm_rad" not in FINGER.as_dict()["joints"][0]
    assert robot(joints=(joint(spring_nm_rad=0.02), PIP)).as_dict()["joints"][0]["spring_nm_rad"] == 0.02


def monte_carlo_inertia(geom: Geom) -> np.ndarray:
    """Moments for one kilogram by throwing points into the shape, shape (3,)."""
    rng = np.random.default_rng(0)
    r, length = geom.size_m[0], geom.size_m[-1]
    if geom.shape == "box":
        p = rng.uniform(-0.5, 0.5, (400_000, 3)) * geom.size_m
    else:
        half = {"sphere": r, "cylinder": length / 2, "capsule": length / 2 + r}[geom.shape]
        p = rng.uniform(-1.0, 1.0, (800_000, 3)) * [r, half, r]
        axial = {"sphere": 0.0 * p[:, 1] + np.abs(p[:, 1]), "cylinder": 0.0 * p[:, 1]}.get(
            geom.shape, np.maximum(np.abs(p[:, 1]) - length / 2, 0.0)
        )
        p = p[p[:, 0] ** 2 + p[:, 2] ** 2 + axial**2 <= r * r]
    x, y, z = np.square(p).mean(axis=0)
    return np.array([y + z, x + z, x + y])


@pytest.mark.parametrize(
    "geom",
    [
        Geom(shape="sphere", size_m=(0.02,)),
        Geom(shape="box", size_m=(0.02, 0.05, 0.03)),
        Geom(shape="cylinder", size_m=(0.02, 0.05)),
        Geom(shape="capsule", size_m=(0.01, 0.05)),
        Geom(shape="capsule", size_m=(0.02, 0.01)),
    ],
    ids=lambda geom: f"{geom.shape}-{geom.size_m}",
)
def test_inertia_of_a_shape_is_that_of_points_thrown_into_it(geom):
    assert geom.unit_inertia() == pytest.approx(monte_carlo_inertia(geom), rel=0.01)


@pytest.mark.parametrize(
    "motor, peak_n, no_load_m_s, stall_n", [(SMALL, 110.0, 0.150, 220.0), (LARGE, 190.0, 0.120, 550.0)]
)
def test_a_motor_shows_the_cable_load_and_speed_it_was_made_from(motor, peak_n, no_load_m_s, stall_n):
    spool_m = 0.010
    assert motor.peak_torque_nm / spool_m == pytest.approx(peak_n)
    assert motor.no_load_speed_rad_s * spool_m == pytest.approx(no_load_m_s)
    stall_a = motor.bus_v / motor.resistance_ohm
    stall = stall_a * motor.torque_constant_nm_a * motor.gear_ratio * motor.gear_efficiency / spool_m
    assert stall == pytest.approx(stall_n)


def test_reflected_inertia_is_split_between_spool_and_joint_and_sums_to_the_true_one():
    hand = load("hand22")
    tendon = next(t for t in hand.tendons if t.joint == "index_pip")
    at_joint = tendon.motor.spool_inertia_kg_m2 * (8.0 / 10.0) ** 2
    assert hand.joint_inertia_kg_m2[hand.index("index_pip")] == pytest.approx(hand.reflected_share * at_joint)
    assert hand.reflected_inertia_kg_m2(1.0)[hand.index("index_pip")] == pytest.approx(at_joint)


def test_a_synergy_gives_every_joint_it_drives_its_armature():
    both = replace(FINGER.tendons[1], name="synergy", also=("mcp",))
    model = robot(tendons=(both,))
    assert both.driven == ("pip", "mcp")
    assert (model.joint_inertia_kg_m2 > 0.0).all()


def test_arrays_of_a_model_cannot_be_written_to():
    for array in (FINGER.lower_rad, FINGER.upper_rad, FINGER.home_rad, FINGER.joint_inertia_kg_m2):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_fingers_may_touch_each_other_but_not_their_own_neighbours():
    pairs = {frozenset(pair) for pair in colliding_pairs(load("hand22"))}
    assert frozenset(("index_distal", "thumb_distal")) in pairs
    assert frozenset(("index_distal", "palm")) in pairs
    assert frozenset(("index_distal", "index_middle")) not in pairs
    assert frozenset(("index_proximal", "palm")) not in pairs


def test_hand22_has_22_driven_joints_and_25_motors_on_a_forearm_of_three_joints():
    hand = load("hand22")
    assert hand.joint_names[:3] == ("forearm_pronation", "wrist_flexion", "wrist_deviation")
    assert len(hand.joints) - 3 == 22
    assert len(hand.motor_names) == 25
    assert sorted(hand.motor_names) == sorted(hand.joint_names)


def test_every_number_of_every_robot_carries_its_source():
    sources = [part.source for name in ROBOTS for part in (*load(name).links, *load(name).joints, *load(name).tendons)]
    assert len(sources) > 70
    assert all(len(source) >= 8 for source in sources)


@pytest.mark.parametrize("engine", sim.engines.ENGINES)
def test_the_documents_two_joint_finger_is_one_row_away_from_being_simulated(engine, monkeypatch):
    monkeypatch.setitem(ROBOTS, "finger2", finger2)
    model = description.load("finger2")
    hand = sim.engines.make(engine, model)
    try:
        state = hand.reset(None, np.random.default_rng(0))
        target = np.array([0.6, 0.9])
        for _ in range(50):
            state = hand.step(Command(target_rad=target))
        assert state.q_rad == pytest.approx(target, abs=0.03)
    finally:
        hand.close()
    load.cache_clear()


def test_a_lever_weighs_what_its_bar_weighs():
    bar = lever().link("bar")
    capsule = bar.geoms[0].unit_inertia()
    assert bar.principal_inertia_kg_m2 == pytest.approx(0.05 * capsule)
    assert bar.com_m == (0.0, 0.045, 0.0)
    assert Link(
        name="b", mass_kg=1.0, geoms=(Geom(shape="cylinder", size_m=(0.1, 0.2)),), source="x"
    ).principal_inertia_kg_m2[1] == pytest.approx(0.005)


def table_rows() -> dict[str, list[str]]:
    """Cells of the tables in docs/robot.md by the first cell; a joint has a row in two of them."""
    rows: dict[str, list[str]] = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) > 2:
            rows.setdefault(cells[0], []).extend(cells[1:])
    return rows


def test_the_documents_tables_are_hand22s_numbers():
    hand, rows = load("hand22"), table_rows()
    for joint in hand.joints:
        assert rows[joint.name][0] == f"{np.degrees(joint.lower_rad):.0f}..{np.degrees(joint.upper_rad):.0f}"
    for tendon in hand.tendons:
        own = next(arm for arm in tendon.arms if arm.joint == tendon.joint)
        cells = rows[tendon.name]
        assert f"{1e3 * own.flexor_m:.0f} / {1e3 * own.extensor_m:.0f}" in cells
        assert tendon.motor.name in cells
        passed = ", ".join(f"{arm.joint} {1e3 * arm.flexor_m:.0f}" for arm in tendon.arms if arm.joint != tendon.joint)
        assert (passed or "-") in cells
        peak = f"/ {tendon.motor.peak_torque_nm / tendon.spool_flexor_m * own.flexor_m:.2f}"
        assert any(cell.endswith(peak) for cell in cells)


def test_the_documents_tables_are_body28s_numbers():
    rows = table_rows()
    for joint, drive in zip(load("body28").joints, load("body28").drives):
        if not joint.name.startswith("right_"):
            cells = rows[joint.name.removeprefix("left_")]
            assert f"{drive.motor.peak_torque_nm:.0f}" in cells
            assert f"{np.degrees(joint.lower_rad):.0f}..{np.degrees(joint.upper_rad):.0f}" in cells
