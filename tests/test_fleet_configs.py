"""Options from a file: checked against the command's own signature."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from fleet import cli
from fleet.configs import ConfigError, overlay
from robot.errors import UnknownNameError

ROOT = Path(__file__).resolve().parents[1]


def command(
    hub: str = "127.0.0.1:5570",
    dir: Path = Path("hub"),
    port: int = 5570,
    web: int | None = None,
    config: Path | None = None,
):
    """A command."""


def given(**changes):
    return {"hub": "127.0.0.1:5570", "dir": Path("hub"), "port": 5570, "web": None, "config": None, **changes}


def written(tmp_path, text):
    path = tmp_path / "hub.toml"
    path.write_text(text)
    return path


def test_the_file_fills_in_and_the_command_line_wins(tmp_path):
    path = written(tmp_path, 'port = 6000\nweb = 6001\ndir = "data/hub"\n')
    options = overlay(command, path, given(port=7000))
    assert (options.port, options.web, options.dir) == (7000, 6001, tmp_path / "data/hub")
    assert overlay(command, None, given()).port == 5570


def test_an_unknown_key_lists_the_known_ones(tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"unknown key in .*hub.toml 'prot'\. Did you mean 'port'\? Known: hub, dir, port, web"
    ):
        overlay(command, written(tmp_path, "prot = 1\n"), given())


@pytest.mark.parametrize(
    "text, what", [("port = 'x'\n", "port: Expected `int`"), ("dir = 3\n", "dir: "), ("port = \n", "hub.toml")]
)
def test_a_bad_value_is_named(tmp_path, text, what):
    with pytest.raises(ConfigError, match=what):
        overlay(command, written(tmp_path, text), given())
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        overlay(command, tmp_path / "nothing.toml", given())


@pytest.mark.parametrize("name", ["hub", "robot"])
def test_the_documents_files_are_taken(tmp_path, name):
    page = (ROOT / "docs/fleet_page.md").read_text()
    (text,) = re.findall(rf"```toml\n# {name}.toml\n(.*?)```", page, re.DOTALL)
    function = getattr(cli, name)
    defaults = {p: v.default for p, v in inspect.signature(function).parameters.items()}
    options = overlay(function, written(tmp_path, text), defaults)
    assert {key: getattr(options, key) for key in ("name",)} == {"name": tomllib.loads(text)["name"]}
