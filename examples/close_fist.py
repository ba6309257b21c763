"""Drive a robot through the seam every robot stands behind: close the fingers of one that has no engine, in 25 steps.

Any other backend takes the same commands. Run it with `python examples/close_fist.py`; it needs only the base install.
"""

import numpy as np

from robot.description import load
from robot.mock import MockBackend
from robot.state import Command

STEPS = 25


def main() -> None:
    hand = load("hand22")
    backend = MockBackend(hand)
    fingers = [hand.index(name) for name in hand.joint_names if name.endswith(("_mcp", "_pip", "_dip"))]
    fist_rad = hand.home_rad.copy()
    fist_rad[fingers] = 0.8 * hand.upper_rad[fingers]
    state = backend.reset(None, np.random.default_rng(0))
    for step in range(1, STEPS + 1):
        share = step / STEPS  # a straight line in joint angles
        state = backend.step(Command(target_rad=(1.0 - share) * hand.home_rad + share * fist_rad))
    behind_deg = np.degrees(np.abs(fist_rad - state.q_rad)[fingers]).mean()
    print(f"after {state.time_s:.2f} s the fingers are {behind_deg:.1f}° from a fist on average")
    backend.close()


if __name__ == "__main__":
    main()
