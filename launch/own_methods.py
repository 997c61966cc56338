"""Methods by name: those of this package, and those that other installed packages bring through the entry-point group `reconverge.methods`.

Looking them up reads the metadata of what is installed and nothing else: names for the command line, and as the line of
description the one of the package. The module behind a name is imported when a run is assembled with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from reconverge.envs.errors import ConfigError, UnknownName
from reconverge.launch.config import METHOD_NAME, METHODS

if TYPE_CHECKING:
    from reconverge.policy.own_method import OwnMethod

GROUP = "reconverge.methods"


@dataclass(frozen=True)
class BroughtMethod:
    """A method that an installed package brings: what its metadata say of it.

    Attributes:
        package: name and version of the package, such as `own-anchor 0.1.0`.
    """

    name: str
    description: str
    package: str
    entry: EntryPoint


def brought_methods() -> dict[str, BroughtMethod]:
    """The methods of other packages by name, in order. A name that is taken here keeps its meaning, and one that no folder could have is left out.

    Raises ConfigError where two packages bring the same name: which one is meant must not depend on the order of the path.
    """
    found: dict[str, BroughtMethod] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name in METHODS or not re.fullmatch(METHOD_NAME, entry.name, re.ASCII):
            continue
        method = _described(entry)
        other = found.setdefault(entry.name, method)
        if other.entry.value != entry.value or other.package != method.package:
            raise ConfigError(f"method '{entry.name}' is brought by both {other.package} and {method.package}; uninstall one of them")
    return found


def described_methods() -> dict[str, str]:
    """Every method with one line of description; of those of other packages it names the package."""
    return {**METHODS, **{name: f"{found.description} ({found.package})" for name, found in brought_methods().items()}}


def check_method(name: str) -> None:
    """Raise UnknownName, with the nearest one, for a method that neither this package nor another installed one has. Imports none."""
    if name not in METHODS and name not in (brought := brought_methods()):
        raise UnknownName("method", name, [*METHODS, *brought])


def method_package(name: str) -> str | None:
    """Name and version of the package that brings a method; None for those of this package, and where it is not installed."""
    found = None if name in METHODS else brought_methods().get(name)
    return None if found is None else found.package


def load_own_method(name: str) -> OwnMethod:
    """Import a method of another package. Raises UnknownName as `check_method`, ConfigError when what is named there is no OwnMethod.

    What goes wrong inside the module is that package's bug, and keeps its traceback.
    """
    from reconverge.policy.own_method import OwnMethod

    check_method(name)
    found = brought_methods()[name]
    try:
        method = found.entry.load()
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != found.entry.module:
            raise
        raise ConfigError(f"method '{name}': {found.package} names {found.entry.value}, which cannot be imported ({error})") from error
    if not isinstance(method, OwnMethod):
        said = f"{found.entry.value} is {type(method).__name__}; a reconverge.policy.own_method.OwnMethod was expected"
        raise ConfigError(f"method '{name}' of {found.package}: {said}")
    return method


def _described(entry: EntryPoint) -> BroughtMethod:
    if entry.dist is None:
        return BroughtMethod(entry.name, "a method of your own", entry.module, entry)
    about = entry.dist.metadata
    return BroughtMethod(entry.name, str(about["Summary"] or "a method of your own"), f"{about['Name']} {entry.dist.version}", entry)
