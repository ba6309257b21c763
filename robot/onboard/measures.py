"""Where each number of an observation comes from on a robot, and what a robot has not got to measure it with."""

from dataclasses import dataclass

from robot.contract import Contract
from robot.description.model import RobotModel


@dataclass(frozen=True)
class Source:
    """Of an observation term.

    Attributes:
        what: In a few words.
        on_a_bus: What it is on a hand of motors with no other sensors; "" where it is the same.
        needs: What the robot's description must have: "tips", "imu" or "".
    """

    what: str
    on_a_bus: str = ""
    needs: str = ""


SOURCES: dict[str, Source] = {
    "joint_position": Source("joint encoders", "computed from the spools: slack and stretch are not seen"),
    "joint_velocity": Source("joint encoders", "computed from the spools"),
    "joint_target": Source("the command in force"),
    "tracking_error": Source("command in force minus joint encoders", "computed from the spools"),
    "motor_position": Source("motor encoders"),
    "motor_current": Source("motor drives"),
    "tip_position": Source("forward kinematics of the joint encoders", "computed from the spools", "tips"),
    "tip_force": Source("fingertip force sensors", "not measured", "tips"),
    "base_gyro": Source("IMU, angular rate", "not measured", "imu"),
    "projected_gravity": Source("IMU, orientation", "not measured", "imu"),
    "gait_phase": Source("the controller's clock"),
    "goal": Source("whoever gives the goal"),
    "goal_position": Source("whoever gives the goal"),
    "goal_error": Source("goal minus forward kinematics", "computed from the spools", "tips"),
    "object_position": Source("a camera's pose tracker", "not measured"),
    "object_rotation": Source("a camera's pose tracker", "not measured"),
    "object_turn_to_goal": Source("goal against a camera's pose tracker", "not measured"),
    "object_goal_error": Source("goal minus a camera's pose tracker", "not measured"),
    "previous_action": Source("the controller's memory"),
}
UNKNOWN = Source("not known here")


def source_of(term: str) -> Source:
    return SOURCES.get(term, UNKNOWN)


def unmeasured(contract: Contract, model: RobotModel) -> list[tuple[str, str]]:
    """Observation terms that a robot cannot measure by its description, and why: (term, why)."""
    has = {"": True, "tips": bool(model.tips), "imu": model.floating}
    why = {"tips": "the description has no tips", "imu": "its base is fixed: no IMU"}
    return [
        (term.name, why[need])
        for term in contract.observation
        if not has[need := source_of(term.name).needs] and term.size
    ]


def not_on_a_bus(contract: Contract) -> list[str]:
    """Observation terms that a hand of motors without other sensors cannot measure."""
    return [term.name for term in contract.observation if source_of(term.name).on_a_bus == "not measured"]
