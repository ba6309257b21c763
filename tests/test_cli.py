"""The dispatcher: what it finds, what it refuses and how, and how little it imports."""

import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flexor

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = "tests.samples.cli_sample"
HELP_S = 0.5  # what `flexor --help` may take, the interpreter's start included


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    for name in ("greet", "refuse", "lacking", "broken", "interrupted"):
        monkeypatch.setitem(flexor.SUBCOMMANDS, name, (f"{SAMPLE}:{name}", "a sample"))
    monkeypatch.setitem(flexor.SUBCOMMANDS, "fleet greet", (f"{SAMPLE}:greet", "a sample of two words"))


def test_the_table_has_rows():
    assert len(flexor.SUBCOMMANDS) >= 1


@pytest.mark.parametrize("name", flexor.SUBCOMMANDS)
def test_every_row_is_built_documented_and_has_an_example(name):
    text = inspect.getdoc(flexor.resolve(name)) or ""
    assert "Example:" in text
    assert f"flexor {name}" in text
    assert flexor.SUBCOMMANDS[name][1] in flexor.overview()


@pytest.mark.parametrize("name", flexor.SUBCOMMANDS)
def test_every_help_is_complete_and_shows_the_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        flexor.main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert f"usage: flexor {name}" in shown
    assert "Example:" in shown
    for parameter in inspect.signature(flexor.resolve(name)).parameters.values():
        word = parameter.name.rstrip("_")
        assert word.replace("_", "-") in shown.lower() or word in shown.lower()


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_is_the_table(argv, capsys):
    assert flexor.main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in flexor.SUBCOMMANDS)


def test_a_group_shows_its_own_rows(sample, capsys):
    assert flexor.main(["fleet"]) == 0
    shown = capsys.readouterr().out
    assert "fleet greet" in shown
    assert "  demo" not in shown


def test_help_imports_nothing_heavy_and_is_quick():
    program = "import flexor, sys; flexor.main(['--help']); print(*sys.modules, file=sys.stderr)"
    taken_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        taken_s.append(time.perf_counter() - began_s)
    imported = set(done.stderr.split())
    assert "robot.errors" in imported
    assert imported.isdisjoint({"numpy", "tyro", "torch", "pybullet", "gymnasium", "onnxruntime", "zmq", "msgspec"})
    assert min(taken_s) < HELP_S


def test_parameters_without_a_default_are_positional(sample, capsys):
    assert flexor.main(["greet", "hand_reach", "localhost:7", "--seconds", "0.5"]) == 3
    assert capsys.readouterr().out == "hand_reach localhost:7 0.5 None\n"
    assert flexor.main(["fleet", "greet", "a", "b", "--json", "x.json"]) == 3
    assert capsys.readouterr().out == "a b 2 x.json\n"


def test_an_unknown_subcommand_is_refused_with_the_known_ones(capsys):
    assert flexor.main(["demmo"]) == flexor.EXIT_REFUSED
    shown = capsys.readouterr().err
    assert shown.startswith("flexor: unknown subcommand 'demmo'. Did you mean 'demo'? Known: ")
    assert all(name in shown for name in flexor.SUBCOMMANDS)


def test_an_unknown_subcommand_of_a_group_lists_the_group(sample, capsys):
    assert flexor.main(["fleet", "great"]) == flexor.EXIT_REFUSED
    shown = capsys.readouterr().err
    assert "unknown subcommand 'fleet great'. Did you mean 'fleet greet'?" in shown
    assert "refuse" not in shown


def test_a_group_without_rows_is_unknown(monkeypatch, capsys):
    monkeypatch.setitem(flexor.GROUPS, "surgery", "not built yet")
    assert flexor.main(["surgery"]) == 2
    assert "unknown subcommand 'surgery'" in capsys.readouterr().err


def test_an_unknown_option_leaves_with_two(sample, capsys):
    with pytest.raises(SystemExit) as left:
        flexor.main(["greet", "a", "b", "--secnds", "1"])
    assert left.value.code == 2
    assert "--secnds" in capsys.readouterr().err


def test_a_refusal_is_a_message_and_no_traceback(sample, capsys):
    assert flexor.main(["refuse"]) == 2
    assert (
        capsys.readouterr().err
        == "flexor refuse: unknown hand 'hand23'. Did you mean 'hand22'? Known: hand22, hand11\n"
    )


def test_a_missing_extra_is_named(sample, capsys):
    assert flexor.main(["lacking"]) == 2
    shown = capsys.readouterr().err
    assert "needs 'pybullet_utils'" in shown
    assert 'pip install "flexor[sim]"' in shown


def test_a_module_no_extra_brings_is_a_fault_of_ours(sample):
    with pytest.raises(ModuleNotFoundError, match="nobody"):
        flexor.main(["broken"])


def test_an_interrupt_is_one_line_and_130(sample, capsys):
    assert flexor.main(["interrupted"]) == 130
    assert capsys.readouterr().err == "\nflexor interrupted: interrupted\n"


def test_the_environments_are_listed(capsys):
    assert flexor.main(["envs"]) == 0
    assert "flexor/HandReach-v0" in capsys.readouterr().out


def test_the_extras_named_are_those_of_the_project():
    declared = (REPOSITORY / "pyproject.toml").read_text()
    assert {extra for extra in flexor.EXTRA_OF_MODULE.values() if f"\n{extra} = [" not in declared} == set()
