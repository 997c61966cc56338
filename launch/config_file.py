"""A configuration as YAML and back: what is saved beside the results, and what a resumed run is compared with.

Reading is strict, so that a typing error cannot pass for a setting: an unknown key is answered with the
nearest one, a value of the wrong type with its place and what was expected there.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from reconverge.envs.errors import ConfigError, DamagedFile, UnknownName
from reconverge.launch.config import RunConfig, check

HEADER = "# reconverge run: the resolved configuration\n"
D = TypeVar("D")


@dataclasses.dataclass(frozen=True)
class Difference:
    """One key in which two configurations differ, such as `train.updates`."""

    key: str
    saved: Any
    given: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.saved!r} and is now {self.given!r}"


def config_text(config: RunConfig) -> str:
    """The configuration as commented YAML; `read_config` reads it back to an equal one."""
    return HEADER + yaml.safe_dump(to_mapping(config), sort_keys=False)


def read_config(path: Path) -> RunConfig:
    """The checked configuration in a YAML file; keys that are absent keep their defaults.

    Raises:
        DamagedFile: the file cannot be read or is not YAML.
        UnknownName: a key that no setting has. ConfigError: a value of the wrong type or out of range.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise DamagedFile(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    config = from_mapping(RunConfig, content, str(path))
    check(config)
    return config


def to_mapping(config: Any) -> dict[str, Any]:
    """A dataclass as nested plain mappings, with tuples as lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_mapping(kind: type[D], content: Any, place: str) -> D:
    """The dataclass `kind` filled from a nested mapping; `place` says in messages where it was read."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{place} holds {_shown(content)}; a mapping of settings was expected")
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise UnknownName("setting", str(key), known, place)
    return kind(**{key: _value(hints[key], value, f"{place}: {key}") for key, value in content.items()})


def differences(saved: RunConfig, given: RunConfig) -> list[Difference]:
    """The settings in which two configurations differ, in the order of the configuration."""
    before, after = flat(saved), flat(given)
    return [Difference(key, before[key], after[key]) for key in before if before[key] != after[key]]


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting under its dotted key, such as `policy.window`."""
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        settings.update(flat(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value})
    return settings


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return list(value) if isinstance(value, tuple) else value


def _value(hint: Any, value: Any, place: str) -> Any:
    """`value` as the annotation `hint` wants it, or an error that names the place."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, place)
    if origin is typing.Literal:
        return _choice(typing.get_args(hint), value, place)
    if origin is tuple:
        return _sequence(typing.get_args(hint), value, place)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _value(options[0], value, place)
    return _scalar(hint, value, place)


def _choice(options: tuple[str, ...], value: Any, place: str) -> Any:
    if value not in options:
        raise UnknownName("value", str(value), options, place)
    return value


def _sequence(hints: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    fixed = hints[-1] is not Ellipsis
    if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(hints)):
        raise ConfigError(f"{place} is {_shown(value)}; a list of {len(hints) if fixed else 'any number of'} {hints[0].__name__} values was expected")
    return tuple(_value(hints[0], item, f"{place}[{index}]") for index, item in enumerate(value))


def _scalar(hint: type, value: Any, place: str) -> Any:
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3, which lacks a dot, as text.
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is not hint:
        raise ConfigError(f"{place} is {_shown(value)}; {hint.__name__} was expected")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
