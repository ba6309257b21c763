"""All numbers a robot's sensors give as one vector: what is compiled reads and writes that, and a `RobotState` is cut out of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot.state import RobotState

SENSED = (
    "q_rad",
    "qd_rad_s",
    "motor_rad",
    "motor_rad_s",
    "motor_current_a",
    "motor_temperature_c",
    "tip_force_n",
    "imu_gyro_rad_s",
    "imu_quat_xyzw",
    "object_pose",
)  # fields of `RobotState`, in this order


@dataclass(frozen=True)
class Readings:
    """Where each sensed field is in the vector.

    Attributes:
        slices: By the field's name.
        size: Of the whole.
    """

    slices: Mapping[str, slice]
    size: int

    @staticmethod
    def of(sizes: Mapping[str, int]) -> "Readings":
        """The layout for fields of these sizes, see `sim.ranges.sizes_of`."""
        slices, end = {}, 0
        for name in SENSED:
            slices[name] = slice(end, end + sizes[name])
            end += sizes[name]
        return Readings(slices, end)

    def vector(self, state: RobotState) -> np.ndarray:
        """The readings of a state, shape (size,)."""
        return np.concatenate([getattr(state, name) for name in SENSED])

    def state(self, vector: np.ndarray, time_s: float, target_rad: np.ndarray) -> RobotState:
        """The state with these readings. Its arrays are parts of the vector, not copies."""
        at = self.slices
        return RobotState(
            time_s=time_s,
            q_rad=vector[at["q_rad"]],
            qd_rad_s=vector[at["qd_rad_s"]],
            target_rad=target_rad,
            motor_rad=vector[at["motor_rad"]],
            motor_rad_s=vector[at["motor_rad_s"]],
            motor_current_a=vector[at["motor_current_a"]],
            motor_temperature_c=vector[at["motor_temperature_c"]],
            tip_force_n=vector[at["tip_force_n"]],
            imu_gyro_rad_s=vector[at["imu_gyro_rad_s"]],
            imu_quat_xyzw=vector[at["imu_quat_xyzw"]],
            object_pose=vector[at["object_pose"]],
        )


__all__ = ["SENSED", "Readings"]
