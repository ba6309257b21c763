"""From motor to joint through a tendon: the physics no engine has. docs/transmission.md derives every equation.

`reference.step` is the model as its equations stand, in numpy; `sim.transmission_kernel` is the same step compiled, one call per
substep. tests/test_transmission_kernel.py holds the two together.
"""

from robot.transmission.parameters import Parameters, TransmissionState
from robot.transmission.reference import step

__all__ = ["Parameters", "TransmissionState", "step"]
