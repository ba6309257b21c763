"""The commands that the fleet's pages show, typed one after the other into a shell of their own, with a robot or two beside them."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from fleet_places import ROOT, UP_S, Place
from onboard_helpers import artifact, model, write

PAGES = ("fleet_page.md", "jobs.md", "exports.md", "growing.md")
SERVES = ("fleet hub", "fleet web", "fleet robot")


def commands(page):
    for block in re.findall(r"^```sh check\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
        yield from (line for line in block.splitlines() if line.strip())


@pytest.mark.slow
def test_the_pages_commands_work_in_the_order_they_are_shown(tmp_path, monkeypatch):
    place = Place(tmp_path, ("left", "right"))
    ports = {
        "5570": str(place.port),
        "5580": str(place.port + 3),
        "5581": str(place.port + 4),
        "5590": str(place.port + 5),
    }
    monkeypatch.setattr("fleet_places.ROOT", tmp_path)  # where the commands run
    folder = write(tmp_path / "models/hand_reach/v1", artifact(model(seed=0)))
    ran = 0
    try:
        for page in PAGES:
            for line in commands(page):
                words = shlex.split(line)[1:]
                words = [re.sub(r"\b(5570|5580|5581|5590)\b", lambda m: ports[m[0]], word) for word in words]
                if "--keys" in words and "--hub" not in words and words[1] not in ("hub", "keys"):
                    words += ["--hub", place.address]
                process = place.flexor(*words)
                ran += 1
                if " ".join(words[:2]) in SERVES:
                    line_of_it = process.stdout.readline()
                    assert "ready" in line_of_it or "page of" in line_of_it, line_of_it
                    if words[1] == "hub":
                        place.robot("left", folder)
                        place.wait(lambda o: o["streams"]["steps"]["records"] > 3, "experience of a robot")
                    continue
                said, _ = process.communicate(timeout=UP_S)
                assert process.returncode == 0, f"{line}\n{said}"
    finally:
        place.close()
    assert ran >= 15


def test_every_page_shows_commands():
    assert all(len(list(commands(page))) >= 2 for page in PAGES)
    assert all((Path(ROOT) / "docs" / page).exists() for page in PAGES)


def fault_tests():
    """Name -> whether `make test` runs it, of every test with the number of a fault in its name."""
    found = {}
    for path in sorted((ROOT / "tests").glob("test_fleet_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and re.match(r"test_F\d\d_", node.name):
                found[node.name] = not any("slow" in ast.unparse(d) for d in node.decorator_list)
    return found


def test_every_fault_has_a_test_of_its_name_and_the_table_names_it():
    """The table of faults in docs/fleet.md: F1 to F22, each with a quick test that is there and carries its number."""
    tests = fault_tests()
    rows = dict(re.findall(r"^\| F(\d+) \|.*\| ([^|]+) \|$", (ROOT / "docs/fleet.md").read_text(), re.MULTILINE))
    assert list(map(int, rows)) == list(range(1, 23))
    for number, named in rows.items():
        names = re.findall(r"`(\w+)`", named)
        assert names, f"F{number} has no test"
        for name in names:
            assert tests.get(name), f"F{number}: {name} is not there, or slow"
            assert f"F{int(number):02d}_" in name
