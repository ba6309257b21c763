"""The documents hold: programs in them run, commands exist, links lead somewhere, and no machine's paths are in the repository.

A fenced block says after its language what is done with it: `python run` is executed, `sh check` has its commands looked up,
`text help` is what `flexor --help` prints, `text demo` a demo's last lines.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.demo.report import summary
from flexor import SUBCOMMANDS, overview

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w+) (run|check|help|demo)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
# Folders of somebody's machine, in pieces so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "|".join(("home", "root", "Users", "wo" + "rk")) + r")/\w+")


def blocks(text: str, language: str, mark: str) -> list[str]:
    return [body for lang, how, body in FENCE.findall(text) if (lang, how) == (language, mark)]


def unknown_commands(script: str) -> list[str]:
    """Lines of a shell block that name no target of the Makefile and no subcommand."""
    targets = re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    unknown = []
    for line in filter(None, (line.partition("#")[0].strip() for line in script.splitlines())):
        program, *words = line.split()
        known = (program == "make" and set(words) <= set(targets)) or (
            program == "flexor" and any(" ".join(words[:n]) in SUBCOMMANDS for n in (1, 2, 3))
        )
        if not known:
            unknown.append(line)
    return unknown


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links of a document that lead to nothing."""
    targets = [target for target, _ in LINK.findall(text) if "://" not in target]
    return [target for target in targets if not (path.parent / target).exists()]


def repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_readmes_program_has_twelve_lines_and_runs():
    programs = blocks((REPOSITORY / "README.md").read_text(), "python", "run")
    assert len(programs) == 1
    assert len(programs[0].strip().splitlines()) == 12
    done = subprocess.run([sys.executable, "-c", programs[0]], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "s of a moving hand" in done.stdout


def test_the_readme_shows_the_help_as_it_is():
    assert blocks((REPOSITORY / "README.md").read_text(), "text", "help") == [overview() + "\n"]


def test_the_readme_shows_the_lines_a_demo_ends_with():
    results = json.loads((REPOSITORY / "tests" / "samples" / "demo.json").read_text())
    (shown,) = blocks((REPOSITORY / "README.md").read_text(), "text", "demo")
    names = [line.split()[0] for line in summary(results, "out/demo/report.html")]
    assert [line.split()[0] for line in shown.splitlines()] == names


EXAMPLES = sorted(REPOSITORY.glob("examples/*.py"))


def test_there_are_examples():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_and_say_something(path):
    done = subprocess.run([sys.executable, "-W", "error", path], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_command_nobody_built_is_found():
    assert unknown_commands("make demo\nmake coffee\nflexor trian x # a typo\nrm -r x\n") == [
        "make coffee",
        "flexor trian x",
        "rm -r x",
    ]


def test_commands_in_the_documents_exist():
    scripts = [script for path in DOCUMENTS for script in blocks(path.read_text(), "sh", "check")]
    assert len(scripts) >= 2
    assert [line for script in scripts for line in unknown_commands(script)] == []


def test_a_link_to_nothing_is_found(tmp_path):
    (tmp_path / "there.md").write_text("")
    text = "[a](there.md) [b](there.md#part) [c](gone.md) ![d](https://example.org/x.png)"
    assert broken_links(tmp_path / "page.md", text) == ["gone.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(path):
    assert broken_links(path, path.read_text()) == []


def test_the_readme_has_links_to_check():
    assert len(LINK.findall((REPOSITORY / "README.md").read_text())) >= 5


def test_a_machines_path_is_found():
    assert MACHINE_PATH.search("see /" + "home/somebody/x") is not None
    assert MACHINE_PATH.search("see docs/" + "home/page, https://x.org/" + "home/page") is None


def test_no_machines_paths_are_in_the_repository():
    checked, found = 0, []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a network
        checked += 1
        found += [f"{path.relative_to(REPOSITORY)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []
    assert checked >= 30


def test_every_test_that_a_document_names_is_there():
    named = {
        (file, name)
        for path in DOCUMENTS
        for file, name in re.findall(r"`(tests/\w+\.py)::(test_\w+)`", path.read_text())
    }
    assert len(named) > 40  # docs/onboard.md's table
    gone = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (REPOSITORY / file).read_text()]
    assert gone == []
