"""How far a posture is from a grasp, compiled: contact gaps, overlaps, directions of pads, balance of the contact forces.

Unknowns x = angles of the hand's joints, object position (3) [m], rotation vector on top of a given turn (3) [rad], and one force
share >= 0 per contact.
"""

import numpy as np
from numba import njit

from sim.dexterity.geometry_kernel import (
    BOX,
    link_poses,
    moved_point,
    primitive_distance,
    product,
    segment_distance,
    solid_distance,
    turn_of,
)

ANY, PAD, RADIAL, ULNAR = 0, 1, 2, 3
PALM = 5
GAP_M = 1e-3  # residuals of lengths are in millimetres
PRESS_M = 0.0003  # contacts overlap by so much, so that the engines see them from the start
SLACK_M = 0.0005  # what bones may overlap each other: nothing, and half a millimetre in between
FACES = 0.6  # cosine that a surface must face the object with
TORQUE_M = 0.02  # arm that makes a torque as bad as a force
RAISED, LOWERED = 0.38, 0.45  # sines of 22 and 27 degrees: inside of what `pattern` asks for


@njit(cache=True)
def evaluate(
    x,
    n_q,
    hand,
    balls,
    bones,
    boxes,
    turn0,
    thing,
    points,
    com,
    contacts,
    keep,
    thumb,
    prior,
    prior_weight,
    place0,
    place_weight,
):  # pragma: no cover - compiled
    """Residuals (r,), and of every contact: point (3), normal into the hand (3), link.

    Args:
        hand: tree, at, turns, joint, n_links.
        balls: link, place, radius, part, level, pad, side.
        bones: ends, pairs.
        boxes: link, turn, place, size.
        turn0: Turn of the object that the rotation vector adds to, (3, 3).
        thing: kinds, sizes, turns, places of its primitives.
        points, com: On its surface, and its centre of mass.
        contacts: part, surface, lowest level, (c, 3).
        keep: Least gap of every ball and, last, of the palm, (s + 1,) [m].
        thumb: 1 abducted, -1 adducted; links at the ends of the thumb's first bone.
        prior, prior_weight: Of the joint angles, (n_q,).
        place0: Where the plan has the object, (3,).
        place_weight: Of position [1/m], of rotation [1/rad], and what unbalance of the contact forces counts as a millimetre, (3,).
    """
    tree, at, turns, joint, n_links = hand
    b_link, b_at, b_radius, b_part, b_level, b_pad, b_side = balls
    ends, pairs = bones
    x_link, x_turn, x_at, x_size = boxes
    kinds, sizes, o_turns, o_at = thing
    n_balls, n_contacts, n_boxes = b_link.shape[0], contacts.shape[0], x_link.shape[0]
    rotation, origin = link_poses(x[:n_q], tree, at, turns, joint, n_links)
    turn = product(turn_of(x[n_q + 3 : n_q + 6]), turn0)
    place = x[n_q : n_q + 3]

    centre = np.empty((n_balls, 3))
    gap = np.empty(n_balls)
    normal = np.empty((n_balls, 3))  # from the object into the hand
    local, out, moved = np.empty(3), np.empty(3), np.empty(3)
    for i in range(n_balls):
        for r in range(3):
            centre[i, r] = origin[b_link[i], r]
            for c in range(3):
                centre[i, r] += rotation[b_link[i], r, c] * b_at[i, c]
        for r in range(3):
            local[r] = 0.0
            for c in range(3):
                local[r] += turn[c, r] * (centre[i, c] - place[c])
        gap[i] = solid_distance(kinds, sizes, o_turns, o_at, local, out) - b_radius[i]
        for r in range(3):
            normal[i, r] = turn[r, 0] * out[0] + turn[r, 1] * out[1] + turn[r, 2] * out[2]

    # The object against the palm's boxes: every point of its surface
    palm_gap, palm_sum = 1e9, 0.0
    palm_point, palm_normal = np.zeros(3), np.zeros(3)
    box_turn = np.empty((n_boxes, 3, 3))
    box_at = np.empty((n_boxes, 3))
    for k in range(n_boxes):
        box_turn[k] = product(rotation[x_link[k]], x_turn[k])
        box_at[k] = moved_point(rotation[x_link[k]], origin[x_link[k]], x_at[k])
    for i in range(points.shape[0]):
        for r in range(3):
            moved[r] = place[r]
            for c in range(3):
                moved[r] += turn[r, c] * points[i, c]
        for k in range(n_boxes):
            for r in range(3):
                local[r] = 0.0
                for c in range(3):
                    local[r] += box_turn[k, c, r] * (moved[c] - box_at[k, c])
            d = primitive_distance(BOX, x_size[k], local, out)
            if d < palm_gap:
                palm_gap = d
                for r in range(3):
                    palm_point[r] = moved[r]
                    palm_normal[r] = -(
                        box_turn[k, r, 0] * out[0] + box_turn[k, r, 1] * out[1] + box_turn[k, r, 2] * out[2]
                    )
            if d < 0.0:
                palm_sum += d

    n_residuals = 2 * n_contacts + n_balls + 2 + pairs.shape[0] + n_balls + 6 + 2 + n_q + 6
    res = np.zeros(n_residuals)
    at_point = np.zeros((n_contacts, 3))
    at_normal = np.zeros((n_contacts, 3))
    at_link = np.zeros(n_contacts, dtype=np.int64)
    row = 0
    for c in range(n_contacts):
        part, surface, low = contacts[c, 0], contacts[c, 1], contacts[c, 2]
        if part == PALM:
            res[row] = (palm_gap + PRESS_M) / GAP_M
            at_point[c] = palm_point
            at_normal[c] = palm_normal
            row += 2
            continue
        best, chosen, facing = 1e9, -1, 0.0
        for i in range(n_balls):
            if b_part[i] != part or b_level[i] < low:
                continue
            face = 1.0
            if surface != ANY:
                face = 0.0
                sign = -1.0 if surface == ULNAR else 1.0
                for r in range(3):
                    way = 0.0
                    for k in range(3):
                        way += rotation[b_link[i], r, k] * (b_pad[i, k] if surface == PAD else sign * b_side[i, k])
                    face -= way * normal[i, r]
            else:  # not the back
                face = 0.0
                for r in range(3):
                    way = 0.0
                    for k in range(3):
                        way += rotation[b_link[i], r, k] * b_pad[i, k]
                    face -= way * normal[i, r]
                face += 0.6
            cost = abs(gap[i]) + 0.006 * max(0.0, FACES - face)
            if cost < best:
                best, chosen, facing = cost, i, face
        res[row] = (gap[chosen] + PRESS_M) / GAP_M
        res[row + 1] = max(0.0, FACES - facing) / 0.1
        for r in range(3):
            at_normal[c, r] = normal[chosen, r]
            at_point[c, r] = centre[chosen, r] - normal[chosen, r] * b_radius[chosen]
        at_link[c] = b_link[chosen]
        row += 2
    for i in range(n_balls):
        res[row] = min(0.0, gap[i] - keep[i]) / GAP_M
        row += 1
    res[row] = min(0.0, palm_gap - keep[n_balls]) / GAP_M
    res[row + 1] = 0.1 * palm_sum / GAP_M
    row += 2
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 0], pairs[k, 1]
        d = segment_distance(centre[ends[a, 0]], centre[ends[a, 1]], centre[ends[b, 0]], centre[ends[b, 1]])
        res[row] = min(0.0, d - b_radius[ends[a, 0]] - b_radius[ends[b, 0]] - SLACK_M) / GAP_M
        row += 1
    for i in range(n_balls):  # bones against the palm, all but those that hang on it
        if b_level[i] > 0:
            deep = 0.0
            for k in range(n_boxes):
                for r in range(3):
                    local[r] = 0.0
                    for c in range(3):
                        local[r] += box_turn[k, c, r] * (centre[i, c] - box_at[k, c])
                deep = min(deep, primitive_distance(BOX, x_size[k], local, out) - b_radius[i])
            res[row] = deep / GAP_M
        row += 1
    share = x[n_q + 6 :]
    total = 0.0
    for c in range(n_contacts):
        total += share[c]
        for r in range(3):
            moved[r] = at_point[c, r] - place[r]
            for k in range(3):
                moved[r] -= turn[r, k] * com[k]
        for r in range(3):
            res[row + r] += share[c] * at_normal[c, r] / place_weight[2]
            a, b = (r + 1) % 3, (r + 2) % 3
            res[row + 3 + r] += (
                share[c] * (moved[a] * at_normal[c, b] - moved[b] * at_normal[c, a]) / TORQUE_M / place_weight[2]
            )
    row += 6
    res[row] = (total - 2.0) / 0.1
    row += 1
    # The thumb's first bone: out of the palm's plane, or across the palm, when abducted; beside the palm when adducted
    length = 0.0
    for r in range(3):
        moved[r] = origin[thumb[2], r] - origin[thumb[1], r]
        length += moved[r] * moved[r]
    length = np.sqrt(length)
    if thumb[0] > 0:
        res[row] = min(max(0.0, RAISED - moved[2] / length), max(0.0, moved[0] / length + 0.02)) / 0.03
    else:
        res[row] = (max(0.0, moved[2] / length - LOWERED) + max(0.0, 0.02 - moved[0] / length)) / 0.03
    row += 1
    for j in range(n_q):
        res[row + j] = prior_weight[j] * (x[j] - prior[j])
    row += n_q
    for r in range(3):
        res[row + r] = place_weight[0] * (place[r] - place0[r])
        res[row + 3 + r] = place_weight[1] * x[n_q + 3 + r]
    return res, at_point, at_normal, at_link


@njit(cache=True)
def jacobian(
    x,
    n_q,
    hand,
    balls,
    bones,
    boxes,
    turn0,
    thing,
    points,
    com,
    contacts,
    keep,
    thumb,
    prior,
    prior_weight,
    place0,
    place_weight,
):  # pragma: no cover - compiled
    """Residuals and their derivatives by forward differences."""
    step = 1e-6
    base, _, _, _ = evaluate(
        x,
        n_q,
        hand,
        balls,
        bones,
        boxes,
        turn0,
        thing,
        points,
        com,
        contacts,
        keep,
        thumb,
        prior,
        prior_weight,
        place0,
        place_weight,
    )
    rows = np.empty((base.shape[0], x.shape[0]))
    other = x.copy()
    for j in range(x.shape[0]):
        other[j] = x[j] + step
        moved, _, _, _ = evaluate(
            other, n_q, hand, balls, bones, boxes, turn0, thing, points, com, contacts, keep, thumb, prior, prior_weight, place0,
            place_weight,
        )  # fmt: skip
        for r in range(base.shape[0]):
            rows[r, j] = (moved[r] - base[r]) / step
        other[j] = x[j]
    return base, rows
