"""The contract of reaching: fingertips to goals by relative joint targets. The simulated task and the mock are made for the same."""

from robot.contract import ActionTerm, Contract, Term, tip_axes
from robot.description.model import RobotModel

ENV_ID = "flexor/HandReach-v0"
SCALE_RAD = 0.2  # joint target per control step at full action: 5 rad/s at 25 Hz, a third of no-load speed
REACH_M = 0.3  # twice the hand's length from the wrist
MARGIN_RAD = 0.3  # a joint pushed past its stop is still seen where it is
SPEED_RAD_S = 30.0  # beyond any joint's largest


def reach_contract(
    model: RobotModel,
    *,
    control_hz: float = 25.0,
    env_id: str = ENV_ID,
    scale_rad: float = SCALE_RAD,
    still: tuple[str, ...] = (),
) -> Contract:
    """The contract of a reaching policy.

    Args:
        model: The robot; its driven joints are moved.
        control_hz: Commands per second.
        env_id: Environment it is for.
        scale_rad: Radians of joint target per unit of action.
        still: Joints that stay at home.
    """
    driven = {motor.joint for motor in (*model.tendons, *model.drives)}
    moved = tuple(name for name in model.joint_names if name in driven and name not in still)
    rows = [model.index(name) for name in moved]
    low, high = tuple(model.lower_rad[rows].tolist()), tuple(model.upper_rad[rows].tolist())
    n = len(moved)
    tips = tip_axes(model)
    reach = (REACH_M,) * len(tips)

    def term(name: str, unit: str, frame: str, low: tuple[float, ...], high: tuple[float, ...]) -> Term:
        elements = tips if frame == "palm" else moved
        return Term(name=name, elements=elements, unit=unit, frame=frame, low=low, high=high)

    return Contract(
        env_id=env_id,
        robot=model.name,
        robot_sha256=model.sha256,
        joint_names=model.joint_names,
        home_rad=tuple(model.home_rad.tolist()),
        control_hz=control_hz,
        observation=(
            term(
                "joint_position",
                "rad",
                "joint",
                tuple(x - MARGIN_RAD for x in low),
                tuple(x + MARGIN_RAD for x in high),
            ),
            term("joint_velocity", "rad/s", "joint", (-SPEED_RAD_S,) * n, (SPEED_RAD_S,) * n),
            term("joint_target", "rad", "joint", low, high),
            term("tip_position", "m", "palm", tuple(-x for x in reach), reach),
            term("goal_error", "m", "palm", tuple(-x for x in reach), reach),
            term("previous_action", "1", "joint_order", (-1.0,) * n, (1.0,) * n),
        ),
        action=ActionTerm(
            joints=moved,
            mode="relative",
            scale_rad=(scale_rad,) * n,
            offset_rad=(0.0,) * n,
            lower_rad=low,
            upper_rad=high,
        ),
        goal=tips,
        goal_unit="m",
        goal_frame="palm",
        motor_names=model.motor_names,
        servo_stiffness_n_m=tuple(t.servo_stiffness_n_m for t in model.tendons),
        servo_damping_n_s_m=tuple(t.servo_damping_n_s_m for t in model.tendons),
        drive_stiffness_nm_rad=tuple(d.servo_stiffness_nm_rad for d in model.drives),
        drive_damping_nm_s_rad=tuple(d.servo_damping_nm_s_rad for d in model.drives),
    )
