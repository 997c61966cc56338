"""The tower: imports run downwards only, and the package list names every folder that holds Python files."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_files import FILES, ROOT, TOWER


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for module in imported(path):
        parts = module.split(".")
        assert parts[0] not in TOWER, f"'{module}' loads a second copy; import reconverge.{module}"
        if parts[0] == "reconverge":
            assert TOWER.index(parts[1]) <= TOWER.index(room), f"{room} must not import {module}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "envs"], ids=lambda path: path.name)
def test_envs_has_no_torch(path: Path) -> None:
    assert not {module.split(".")[0] for module in imported(path)} & {"torch", "diffusers", "stable_baselines3"}


def test_the_package_list_equals_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {str(path.parent.relative_to(ROOT)) for path in FILES}
    expected = {f"reconverge.{folder.replace('/', '.')}": folder for folder in folders}
    assert set(settings["packages"]) == set(expected)
    assert settings["package-dir"] == expected


def test_every_package_is_importable_from_a_wheel() -> None:
    assert all((path.parent / "__init__.py").exists() for path in FILES)
