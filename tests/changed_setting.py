"""A configuration with one dotted setting replaced."""

from __future__ import annotations

import dataclasses
from typing import Any

from reconverge.launch.config import RunConfig


def changed(key: str, value: Any) -> RunConfig:
    """The default configuration with one dotted setting replaced."""
    return with_value(RunConfig(), key.split("."), value)


def with_value(config: Any, keys: list[str], value: Any) -> Any:
    return dataclasses.replace(config, **{keys[0]: value if len(keys) == 1 else with_value(getattr(config, keys[0]), keys[1:], value)})
