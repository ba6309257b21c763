"""Which links of a robot can touch which: a rule on the kinematic tree, not a list to maintain."""

from itertools import combinations

from robot.description.model import RobotModel


def colliding_pairs(model: RobotModel) -> list[tuple[str, str]]:
    """Pairs of links that the engines test for contact.

    Links of one finger and links that meet at a joint are left out: their shapes overlap at the joint by design. A finger's
    middle and distal links may touch the palm; its proximal link hangs on it.
    """
    parent = {joint.child: joint.parent for joint in model.joints}
    solid = [link.name for link in model.links if any(geom.collides for geom in link.geoms)]

    def ancestors(name: str) -> list[str]:
        """Solid links from `name` up to the base, nearest first."""
        found = []
        while name in parent:
            name = parent[name]
            if name in solid:
                found.append(name)
        return found

    pairs = []
    for a, b in combinations(solid, 2):
        up_a, up_b = ancestors(a), ancestors(b)
        if a in up_b or b in up_a:
            chain = up_b[: up_b.index(a) + 1] if a in up_b else up_a[: up_a.index(b) + 1]
            branches = sum(1 for joint in model.joints if joint.parent == chain[-1])
            if len(chain) == 1 or branches < 2:  # neighbours, or two links of one finger
                continue
        elif up_a and up_b and up_a[0] == up_b[0] and "metacarpal" in a + b:
            continue  # roots of neighbouring rays
        pairs.append((a, b))
    return pairs
