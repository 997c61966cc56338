"""Frozen settings from plain nested mappings, as YAML and JSON hold them, strictly.

A typing error cannot pass for a setting: an unknown key is answered with the nearest one, a value of the wrong type with its place
and what was expected there, and a number that is none (1e400, .nan) is not taken for one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from reconverge.envs.errors import ConfigError, UnknownName, shown

D = TypeVar("D")


def from_mapping(kind: type[D], content: Any, place: str) -> D:
    """The dataclass `kind` filled from a nested mapping; `place` says in messages where it was read."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{place} holds {shown(content)}; a mapping of settings was expected")
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise UnknownName("setting", key if isinstance(key, str) else shown(key), known, place)
    return kind(**{key: _value(hints[key], value, f"{place}: {key}") for key, value in content.items()})


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
        raise UnknownName("value", value if isinstance(value, str) else shown(value), options, place)
    return value


def _sequence(hints: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    fixed = hints[-1] is not Ellipsis
    if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(hints)):
        raise ConfigError(f"{place} is {shown(value)}; a list of {len(hints) if fixed else 'any number of'} {hints[0].__name__} values was expected")
    return tuple(_value(hints[0], item, f"{place}[{index}]") for index, item in enumerate(value))


def _scalar(hint: Any, value: Any, place: str) -> Any:
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3, which lacks a dot, as text.
        with contextlib.suppress(ValueError, OverflowError):  # text that is none, and 1 with 400 zeros
            value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{place} is {shown(value)}; {hint.__name__} was expected")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{place} is {value}; a finite number was expected")
    return value
