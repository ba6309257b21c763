"""What an installed copy holds: the shipped artifacts and the C that is compiled on the robot travel in the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_every_shipped_artifact_and_everything_that_is_read_beside_the_code(tmp_path):
    copy = tmp_path / "source"  # setuptools builds in the tree; keep ours clean
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(bytes.decode, tracked)):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    held = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    shipped = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "models").glob("*/*/*")) if path.is_file()]
    assert len(shipped) >= 3 and set(shipped) <= held
    beside = [p for p in ROOT.glob("robot/onboard/*.c")]
    assert beside and {p.relative_to(ROOT).as_posix() for p in beside} <= held
    assert not [name for name in held if name.startswith(("tests/", "out/", "runs/"))]
