"""RobotModel -> MJCF: native tendons and armature, ready for MuJoCo's own viewer.

Each pull-pull pair becomes one fixed tendon, whose length is the flexor's excursion at the zero posture's moment arms, under a position
actuator as stiff as drive and cable in series. MuJoCo has no capstan friction, slack or motor heat: for those, the engine runs the
`for_torque_control` variant under the transmission.
"""

import numpy as np

from robot.description.collision import colliding_pairs
from robot.description.model import Geom, Joint, Link, RobotModel, Tendon
from robot.description.rotation import quat_xyzw, rpy_matrix
from robot.description.urdf import COLORS, link_color, numbers

CONTACT_FRICTION = "0.9 0.005 0.0001"  # rubber skin on smooth plastic; sliding, torsional, rolling


def write_mjcf(model: RobotModel, *, for_torque_control: bool = False) -> str:
    """The MJCF of a model.

    Args:
        model: The robot.
        for_torque_control: Write the variant that is simulated under the transmission: no tendons, no actuators, no joint
            limits (the stops are in the transmission), and only the joints' own share of reflected inertia as armature.
    """
    children: dict[str, list[Joint]] = {}
    for joint in model.joints:
        children.setdefault(joint.parent, []).append(joint)
    armature = model.reflected_inertia_kg_m2(model.reflected_share if for_torque_control else 1.0)
    tips = {tip.link: tip for tip in model.tips}
    x, y, z, w = quat_xyzw(rpy_matrix(model.base_rpy_rad))
    lines = [
        f'<mujoco model="{model.name}">',
        '<compiler angle="radian" autolimits="true" inertiafromgeom="false"/>',
        # The native servos' damping needs the implicit integrator; torques from outside are constant over a step.
        f'<option timestep="0.005" gravity="0 0 -9.81" integrator="{"Euler" if for_torque_control else "implicitfast"}" '
        'cone="pyramidal"/>',
        '<visual><global offwidth="960" offheight="720"/></visual>',
        "<asset>",
        *(f'<material name="{name}" rgba="{rgba}"/>' for name, rgba in COLORS.items()),
        "</asset>",
        "<worldbody>",
        '<light pos="0 0 1.5" dir="0 0 -1" directional="true"/>',
        *(['<geom name="floor" type="plane" size="0 0 0.1"/>'] if model.floating and not for_torque_control else []),
        f'<body name="{model.base_link}" pos="0 0 {model.base_height_m!r}" quat="{numbers((w, x, y, z))}">',
        *(['<freejoint name="root"/>'] if model.floating else []),
        *_content(model.link(model.base_link), set(tips)),
    ]

    def add(parent: str) -> None:
        for joint in children.get(parent, []):
            x, y, z, w = quat_xyzw(rpy_matrix(joint.rpy_rad))
            link = model.link(joint.child)
            lines.append(f'<body name="{link.name}" pos="{numbers(joint.origin_m)}" quat="{numbers((w, x, y, z))}">')
            limits = "" if for_torque_control else f' range="{joint.lower_rad!r} {joint.upper_rad!r}"'
            damping = 0.0 if for_torque_control else joint.damping_nm_s
            if joint.spring_nm_rad and not for_torque_control:
                limits += f' stiffness="{joint.spring_nm_rad!r}" springref="{joint.spring_rest_rad!r}"'
            lines.append(
                f'<joint name="{joint.name}" type="hinge" axis="{numbers(joint.axis)}"{limits} '
                f'armature="{float(armature[model.index(joint.name)])!r}" damping="{damping!r}"/>'
            )
            lines.extend(_content(link, set(tips)))
            if link.name in tips:
                lines.append(
                    f'<site name="{tips[link.name].name}" pos="{numbers(tips[link.name].offset_m)}" size="0.002"/>'
                )
            add(link.name)
            lines.append("</body>")

    add(model.base_link)
    lines += ["</body>", "</worldbody>", "<contact>"]
    for a, b in colliding_pairs(model):
        for geom_a in _solid_names(model.link(a)):
            lines += [
                f'<pair geom1="{geom_a}" geom2="{geom_b}" friction="{_pair_friction()}"/>'
                for geom_b in _solid_names(model.link(b))
            ]
    lines.append("</contact>")
    if not for_torque_control:
        lines += _tendons(model)
    return "\n".join([*lines, "</mujoco>", ""])


def _solid_names(link: Link) -> list[str]:
    return [f"{link.name}_{i}" for i, geom in enumerate(link.geoms) if geom.collides]


def _pair_friction() -> str:
    sliding, torsional, rolling = CONTACT_FRICTION.split()
    return f"{sliding} {sliding} {torsional} {rolling} {rolling}"


def _content(link: Link, tips: set[str]) -> list[str]:
    carrier = link.geoms[0]
    x, y, z, w = quat_xyzw(rpy_matrix(carrier.rpy_rad))
    lines = [
        f'<inertial pos="{numbers(carrier.origin_m)}" quat="{numbers((w, x, y, z))}" mass="{link.mass_kg!r}" '
        f'diaginertia="{numbers(link.principal_inertia_kg_m2)}"/>'
    ]
    for i, geom in enumerate(link.geoms):
        lines.append(_geom(f"{link.name}_{i}", geom, link_color(link.name, tips)))
    return lines


def _geom(name: str, geom: Geom, color: str) -> str:
    matrix = rpy_matrix(geom.rpy_rad)
    if geom.shape in ("capsule", "cylinder"):  # MuJoCo's lie along z, ours along y
        matrix = matrix @ rpy_matrix((-np.pi / 2.0, 0.0, 0.0))
        size = (geom.size_m[0], geom.size_m[1] / 2.0)
    elif geom.shape == "box":
        size = tuple(edge / 2.0 for edge in geom.size_m)
    else:
        size = geom.size_m
    x, y, z, w = quat_xyzw(matrix)
    # Robot geoms touch each other through explicit pairs only (contype 0) and everything else through bit 1.
    contact = 'contype="0" conaffinity="1"' if geom.collides else 'contype="0" conaffinity="0"'
    return (
        f'<geom name="{name}" type="{geom.shape}" size="{numbers(size)}" pos="{numbers(geom.origin_m)}" '
        f'quat="{numbers((w, x, y, z))}" material="{color}" friction="{CONTACT_FRICTION}" {contact}/>'
    )


def _tendons(model: RobotModel) -> list[str]:
    lines = ["<tendon>"]
    for tendon in model.tendons:
        lines.append(f'<fixed name="{tendon.name}">')
        lines += [f'<joint joint="{arm.joint}" coef="{arm.flexor_m!r}"/>' for arm in tendon.arms]
        lines.append("</fixed>")
    lines += ["</tendon>", "<actuator>"]
    for tendon in model.tendons:
        peak = tendon.motor.peak_torque_nm / tendon.spool_flexor_m
        lines.append(
            f'<position name="{tendon.name}" tendon="{tendon.name}" kp="{_series(tendon)!r}" kv="{tendon.servo_damping_n_s_m!r}" '
            f'forcerange="{-peak!r} {peak!r}"/>'
        )
    for drive in model.drives:
        peak = drive.motor.peak_torque_nm
        lines.append(
            f'<position name="{drive.name}" joint="{drive.joint}" kp="{drive.servo_stiffness_nm_rad!r}" '
            f'kv="{drive.servo_damping_nm_s_rad!r}" forcerange="{-peak!r} {peak!r}"/>'
        )
    return [*lines, "</actuator>"]


def _series(tendon: Tendon) -> float:
    """Stiffness of the drive's servo in series with its two cables [N/m], in flexor cable units."""
    ratio = tendon.spool_extensor_m / tendon.spool_flexor_m
    cables = tendon.stiffness_n_m * (1.0 + ratio**2)
    return 1.0 / (1.0 / cables + 1.0 / tendon.servo_stiffness_n_m)
