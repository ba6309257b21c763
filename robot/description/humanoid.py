"""humanoid: body28 whose forearms and hands are two hand22, a left one mirrored: 22 joints of the body, 25 in each arm's end."""

from dataclasses import replace

import numpy as np

from robot.description.actuators import Drive
from robot.description.body28 import FORWARD, UPPER_ARM_M, feet, stance_height_m, trunk_and_limbs
from robot.description.body_motors import FRAMES
from robot.description.hand22 import hand22
from robot.description.model import Joint, RobotModel
from robot.description.rotation import matrix_rpy
from robot.description.surgery import mirrored, prefixed, vec3

MOUNT_KG = 0.1  # hand22's elbow is the mount of a hand on a table; here it is a bracket


def humanoid() -> RobotModel:
    """Both hands hang beside the body, palms inward, thumbs forward. 57 kg in all."""
    right = hand22()
    light = tuple(replace(link, mass_kg=MOUNT_KG) if link.name == right.base_link else link for link in right.links)
    right = replace(right, links=light)
    hands = {"left": mirrored(right), "right": right}
    body = trunk_and_limbs(hands=False, carried_kg=2.0 * sum(link.mass_kg for link in right.links))
    links, joints, drives, tendons, tips = list(body.links), list(body.joints), list(body.drives), [], []
    for side, hand in hands.items():
        thumb_forward = 1.0 if side == "right" else -1.0
        # Columns: where the hand's x (thumb side), y (fingertips) and z (out of the palm) point in the body frame.
        turn = np.array([[thumb_forward, 0.0, 0.0], [0.0, 0.0, thumb_forward], [0.0, -1.0, 0.0]])
        part = prefixed(hand, f"{side}_")
        frame = FRAMES["elbow"]
        name = f"{side}_elbow_flexion"
        joints.append(
            Joint(
                name=name,
                parent=f"{side}_upper_arm",
                child=part.base_link,
                origin_m=(0.0, 0.0, -UPPER_ARM_M),
                rpy_rad=matrix_rpy(turn),
                axis=vec3(turn.T @ FORWARD),
                lower_rad=0.0,
                upper_rad=np.radians(140.0).item(),
                home_rad=np.radians(20.0).item(),
                max_torque_nm=frame.motor.peak_torque_nm,
                max_speed_rad_s=frame.motor.no_load_speed_rad_s,
                damping_nm_s=frame.damping_nm_s,
                source="Unitree G1 29dof URDF and human ranges",
            )
        )
        drives.append(
            Drive(
                name=name,
                motor=frame.motor,
                joint=name,
                servo_stiffness_nm_rad=frame.servo_stiffness_nm_rad,
                servo_damping_nm_s_rad=frame.servo_damping_nm_s_rad,
                source=frame.source,
            )
        )
        links += part.links
        joints += part.joints
        tendons += part.tendons
        tips += part.tips
    return RobotModel(
        name="humanoid",
        base_link="pelvis",
        links=tuple(links),
        joints=tuple(joints),
        tendons=tuple(tendons),
        drives=tuple(drives),
        tips=(*feet(), *tips),
        floating=True,
        base_height_m=stance_height_m(),
    )
