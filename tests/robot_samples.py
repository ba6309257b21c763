"""Small robots for tests. The two-joint finger is the one docs/robot.md writes down: the document's program is run to get it."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from robot.description.model import Arm, Geom, Joint, Link, RobotModel, Tendon, Tip
from robot.description.motors import SMALL

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "robot.md"
PROGRAM = re.compile(r"^```python run\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def finger2() -> RobotModel:
    """The finger of docs/robot.md: two joints, two motors, the second tendon passing the first joint."""
    (program,) = PROGRAM.findall(DOCUMENT.read_text())
    namespace: dict[str, object] = {"__name__": "finger2"}
    exec(compile(program, str(DOCUMENT), "exec"), namespace)
    return namespace["finger2"]()  # type: ignore[operator]


def lever(**changes: object) -> RobotModel:
    """One joint, one tendon with arms and spool steps of 10 mm: small enough to calculate by hand. `changes` go to the tendon."""
    tendon = Tendon(
        name="hinge",
        motor=SMALL,
        joint="hinge",
        arms=(Arm(joint="hinge", flexor_m=0.010, extensor_m=0.010, wrap=0.0),),
        spool_flexor_m=0.010,
        spool_extensor_m=0.010,
        stiffness_n_m=30.0e3,
        damping_n_s_m=15.0,
        pretension_n=4.0,
        friction=0.1,
        wrap_rad=2.0,
        servo_stiffness_n_m=30.0e3,
        servo_damping_n_s_m=800.0,
        source="test",
    )
    bar = Geom(shape="capsule", size_m=(0.009, 0.09), origin_m=(0.0, 0.045, 0.0))
    return RobotModel(
        name="lever",
        base_link="post",
        links=(
            Link(
                name="post", mass_kg=0.1, geoms=(Geom(shape="sphere", size_m=(0.01,), collides=False),), source="test"
            ),
            Link(name="bar", mass_kg=0.05, geoms=(bar,), source="test"),
        ),
        joints=(
            Joint(
                name="hinge",
                parent="post",
                child="bar",
                axis=(1.0, 0.0, 0.0),
                lower_rad=-1.0,
                upper_rad=1.5,
                max_torque_nm=1.1,
                max_speed_rad_s=15.0,
                damping_nm_s=0.0,
                source="test",
            ),
        ),
        tendons=(replace(tendon, **changes),),  # type: ignore[arg-type]
        tips=(Tip(name="tip", link="bar", offset_m=(0.0, 0.09, 0.0)),),
    )
