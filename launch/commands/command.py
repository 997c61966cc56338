"""What every command of the command line is, and the checks that several share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.launch.config_checks import check_device_name

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
# What may be left out. Its help says what is taken then, in place of "(default: None)" and "(default: )".
MaybePath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
MaybeFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
MaybeName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Value = TypeVar("Value")
Several = Annotated[tuple[Value, ...], tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Command:
    """What every command has: a line for the overview, and `run`, which returns the exit code."""

    summary: ClassVar[str] = ""

    def run(self, command_line: str) -> int:
        """`command_line` is what the user typed, shell-quoted; a run folder keeps it."""
        raise NotImplementedError


def check_device(device: str) -> None:
    """Refuse a device that this machine lacks before anything is collected or written."""
    check_device_name(device)
    import torch

    kind, _, number = device.partition(":")
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    if not available[kind]:
        raise ConfigError(f"device '{device}' is not available to torch {torch.__version__} on this machine; use --device cpu")
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device '{device}' is not there: the last of the GPUs that torch sees is cuda:{count - 1}; use --device cuda")


def at_least(flag: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise ConfigError(f"{flag} is {value}; it must be at least {low}")
