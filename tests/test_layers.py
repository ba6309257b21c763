"""One-way data flow: what each package may import.

Reads the imports that are written, those inside functions too; it cannot see importlib or entry-point strings. Relative imports
are refused so that every import names its package. The same reading refuses the calls that would execute what a file holds.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

ENGINES = {
    "gymnasium",
    "pybullet",
    "pybullet_data",
    "pybullet_utils",
    "mujoco",
    "numba",
    "llvmlite",  # comes with numba, whose intrinsics are written in it
    "viser",
    "av",
    "PIL",
    "trimesh",
    "coacd",
    "cma",
}
LEARNING = {"torch", "onnx", "onnxruntime", "tensorboard"}
WIRE = {
    "zmq",
    "zlib_ng",
    "msgspec",
    "tuf",
    "securesystemslib",
    "cryptography",
    "pyarrow",
    "prometheus_client",
    "starlette",
    "uvicorn",
}

MAY_IMPORT = {  # most specific package first; the standard library and numpy are free to all
    "robot.onboard": {"robot", "onnxruntime", "msgspec"},
    "robot.motorbus": {"robot", "dynamixel_sdk"},  # the SDK by importlib, when a bus is opened
    "robot": {"robot", "msgspec"},
    "sim": {"sim", "robot", "msgspec", *ENGINES},
    "policies.adapters": {"policies", "sim", "torch", "stable_baselines3", "rsl_rl", "tensordict"},
    "policies": {
        "policies",
        "robot",
        "sim",
        "msgspec",
        "gymnasium",
        *LEARNING,
        "ray",
        "PIL",
        "av",
    },  # the two: pictures of a policy
    "fleet.demo": {"fleet", "robot", "PIL"},  # starts the others as processes, so it needs none of them
    "fleet.ray_source": {"fleet", "robot", "ray"},  # read by Ray's workers, never by a hub
    "fleet": {"fleet", "robot", *WIRE},
    "flexor": {"robot", "tyro"},
}
MAY_REACH_ONBOARD = {"robot.onboard", "fleet"}  # nobody else may reach the runtime
REFUSED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
REFUSED_CALLS = {"eval", "exec", "compile", "__import__"}


@dataclass(frozen=True)
class Reading:
    """What was found, and how much was looked at: a check that read nothing proves nothing."""

    found: list[str]
    files: int
    imports: int


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imported_names(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "relative" if node.level else node.module
            names += [f"{prefix}.{alias.name}" for alias in node.names]
    return names


def called_names(tree: ast.AST) -> list[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [function.id for function in calls if isinstance(function, ast.Name)]


def may_import(package: str, name: str) -> bool:
    top = name.partition(".")[0]
    if top in REFUSED_MODULES:
        return False
    if within(name, "robot.onboard") and package not in MAY_REACH_ONBOARD:
        return False
    return top in sys.stdlib_module_names or top == "numpy" or top in MAY_IMPORT[package]


def read(root: Path) -> Reading:
    found, files, imports = [], 0, 0
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        package = next((p for p in MAY_IMPORT if within(module, p)), None)
        if package is None:
            continue
        files += 1
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = imported_names(tree)
        imports += len(names)
        found += [f"{module} may not import {name}" for name in names if not may_import(package, name)]
        found += [f"{module} may not call {name}" for name in called_names(tree) if name in REFUSED_CALLS]
    return Reading(found, files, imports)


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_planted_upward_import_is_found(tmp_path):
    plant(
        tmp_path,
        {
            "sim/good.py": "import math\nfrom robot.state import RobotState\n",
            "sim/bad.py": "def f():\n    import torch\nfrom robot import onboard\nfrom ..fleet import hub\n",
        },
    )
    reading = read(tmp_path)
    assert sorted(reading.found) == [
        "sim.bad may not import relative.hub",
        "sim.bad may not import robot.onboard",
        "sim.bad may not import torch",
    ]
    assert (reading.files, reading.imports) == (2, 5)


def test_training_and_deployment_may_not_import_each_other(tmp_path):
    plant(
        tmp_path,
        {
            "fleet/hub.py": "import policies.replay\nimport sim\n",
            "fleet/demo/cli.py": "import zmq\nfrom robot.onboard import loop\n",
            "policies/learner.py": "from fleet import packs\nfrom robot.onboard.load import load\n",
            "robot/onboard/loop.py": "import sim.engines\nimport torch\n",
            "robot/state.py": "from robot.onboard import loop\nimport onnxruntime\n",
        },
    )
    assert read(tmp_path).found == [
        "fleet.demo.cli may not import zmq",
        "fleet.demo.cli may not import robot.onboard.loop",
        "fleet.hub may not import policies.replay",
        "fleet.hub may not import sim",
        "policies.learner may not import fleet.packs",
        "policies.learner may not import robot.onboard.load.load",
        "robot.onboard.loop may not import sim.engines",
        "robot.onboard.loop may not import torch",
        "robot.state may not import robot.onboard.loop",
        "robot.state may not import onnxruntime",
    ]


def test_only_the_dispatcher_may_read_the_command_line(tmp_path):
    plant(tmp_path, {"flexor.py": "import tyro\n", "fleet/cli.py": "import tyro\n"})
    assert read(tmp_path).found == ["fleet.cli may not import tyro"]


def test_nothing_may_execute_what_a_file_holds(tmp_path):
    plant(tmp_path, {"robot/bad.py": "import pickle\nexec('x')\ny = eval('1')\nre.compile('a')\nmodel.eval()\n"})
    assert read(tmp_path).found == [
        "robot.bad may not import pickle",
        "robot.bad may not call exec",
        "robot.bad may not call eval",
    ]


def test_imports_flow_one_way():
    reading = read(REPOSITORY)
    assert reading.found == []
    assert reading.files >= 20  # of this repository, not of an empty folder
    assert reading.imports >= 100
