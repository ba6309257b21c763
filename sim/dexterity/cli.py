"""`flexor dexterity`."""

import sys
from pathlib import Path


def dexterity(
    hand: str = "hand22",
    engine: str = "pybullet",
    types: tuple[int, ...] = (),
    json: Path | None = None,
    html: Path | None = None,
) -> None:
    """Score a hand: the 33 grasps of the GRASP taxonomy and Kapandji's ten thumb positions, simulated from the shipped files.

    Args:
        hand: hand11, hand22 or hand25.
        engine: pybullet or mujoco.
        types: Only these grasp types, by number; all of them when none is named.
        json: Write the figures to this file.
        html: Write a page with a picture of every grasp to this file.

    Example:
        flexor dexterity --hand hand22 --engine mujoco --html dexterity.html
    """
    from robot.errors import UnknownNameError
    from robot.report import write_json
    from sim.dexterity.score import score, table
    from sim.engines import ENGINES

    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = score(hand, engine, types, say)
    print(table(result))
    if not result.same_hand:
        print(f"note: these were found with another description of {hand}; search again with sim.dexterity.search")
    if json is not None:
        write_json(json, command="dexterity", seed=None, results=result.as_json())
    if html is not None:
        from sim.dexterity.page import write_page

        write_page(html, result)
        print(f"page: {html}")
