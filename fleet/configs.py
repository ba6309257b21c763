"""Options of a command from a TOML file. The keys are the options' names; the file is checked against the command's signature."""

import inspect
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from fleet.errors import FleetError
from robot.errors import UnknownNameError


class ConfigError(FleetError, ValueError):
    """A configuration file that cannot be read, or a value of another type than the option's."""


def overlay(command: Callable[..., Any], path: Path | None, given: dict[str, Any]) -> Any:
    """The options in force, as attributes.

    Args:
        command: The function whose parameters are the options.
        path: The file, None for none. Relative paths in it are seen from its folder.
        given: The values from the command line, by name. One that differs from its default wins over the file.

    Raises:
        ConfigError: The file is missing, no TOML, or a value is of the wrong type.
        UnknownNameError: A key that is no option; the known ones are listed.
    """
    parameters = inspect.signature(command).parameters
    options = {name: given[name] for name in parameters if name != "config"}
    if path is None:
        return SimpleNamespace(**options)
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    hints = typing.get_type_hints(command)
    for key, value in table.items():
        if key not in options:
            raise UnknownNameError(f"key in {path}", key, options)
        try:
            converted = msgspec.convert(value, hints[key], dec_hook=_path)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: {key}: {error}") from error
        if isinstance(converted, Path):
            converted = path.parent / converted
        if options[key] == parameters[key].default:
            options[key] = converted
    return SimpleNamespace(**options)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected a path as text, got `{value!r}`")
