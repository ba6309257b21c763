"""What the hand is made of: its joints, how far they go, and which other joints each tendon passes on its way.

Run it with `python examples/describe_hand.py`; it needs only the base install.
"""

from math import degrees

from robot.description import load


def main() -> None:
    hand = load("hand22")
    mass_kg = sum(link.mass_kg for link in hand.links)
    print(f"{hand.name}: {len(hand.joints)} joints, {len(hand.tendons)} motors, {mass_kg:.2f} kg\n")
    print(f"{'joint':<20}{'least':>8}{'most':>8}   its tendon also passes")
    passed = {tendon.joint: [arm.joint for arm in tendon.arms if arm.joint != tendon.joint] for tendon in hand.tendons}
    for joint in hand.joints:
        low, high = degrees(joint.lower_rad), degrees(joint.upper_rad)
        print(f"{joint.name:<20}{low:>7.0f}°{high:>7.0f}°   {', '.join(passed[joint.name])}")


if __name__ == "__main__":
    main()
