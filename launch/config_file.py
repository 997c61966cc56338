"""A configuration as YAML and back: what is saved beside the results, and what a resumed run is compared with.

Reading is strict, so that a typing error cannot pass for a setting: an unknown key is answered with the
nearest one, a value of the wrong type with its place and what was expected there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_yaml import read_yaml
from reconverge.envs.strict_settings import from_mapping
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check

HEADER = "# reconverge run: the resolved configuration\n"


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
        DamagedFile: the file cannot be read or is not plain YAML.
        UnknownName: a key that no setting has. ConfigError: a value of the wrong type or out of range.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read ({error.strerror})") from error
    config = from_mapping(RunConfig, content, str(path))
    check(config)
    return config


def to_mapping(config: Any) -> dict[str, Any]:
    """A dataclass as nested plain mappings, with tuples as lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


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


def flag_words(key: str, value: Any) -> list[str]:
    """A setting as words of a command line, such as `--recovery.grid 2 100`."""
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{key.replace('_', '-')}", *map(str, values)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return list(value) if isinstance(value, tuple) else value
