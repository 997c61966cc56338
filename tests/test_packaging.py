"""What pyproject.toml, requirements.lock, the Makefile and .ci promise each other."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib.metadata import EntryPoint, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from source_files import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PINNED = {canonical(requirement.name): requirement for requirement in LOCK}


def declared() -> list[Requirement]:
    project = PROJECT["project"]
    return [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["dev"], *PROJECT["build-system"]["requires"])]


def test_the_lock_holds_one_exact_version_each() -> None:
    assert len(PINNED) == len(LOCK)
    for requirement in LOCK:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_satisfies_what_is_declared(requirement: Requirement) -> None:
    pin = str(PINNED[canonical(requirement.name)].specifier).removeprefix("==")
    assert requirement.specifier.contains(pin)


def test_the_lock_is_complete() -> None:
    """Whatever a pinned package requires here is pinned too, so that nothing is chosen at install time."""
    for name in PINNED:
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonical(needed.name) in PINNED, f"{name} requires {needed.name}"


def test_what_is_installed_is_what_is_locked() -> None:
    for name, requirement in PINNED.items():
        assert requirement.specifier.contains(version(name)), name


def test_the_command_exists() -> None:
    assert PROJECT["project"]["scripts"] == {"reconverge": "reconverge.launch.cli:enter"}
    assert callable(EntryPoint("reconverge", PROJECT["project"]["scripts"]["reconverge"], "console_scripts").load())


def test_data_files_are_in_the_wheel_list() -> None:
    shipped = PROJECT["tool"]["setuptools"]["package-data"]
    for room in ("envs", "policy", "replay", "eval", "launch"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                patterns = shipped.get(f"reconverge.{room}", [])
                assert any(path.relative_to(ROOT / room).match(pattern) for pattern in patterns), path


def test_the_scripts_parse_and_can_be_run() -> None:
    for name in ("run", "install", "wheel"):
        path = ROOT / ".ci" / name
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", str(path)], check=True)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "environment")], check=True)


def test_make_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("train", "test", "check", "smoke", "wheel", "install"):
        assert re.search(rf"^  make {target} +\w", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no-such-python", "'no-such-python' was not found; install Python 3.11, 3.12 or 3.13"),
        ("old", "Python 3.11, 3.12 or 3.13 is needed"),
        ("bare", "lacks venv or ensurepip"),
    ],
)
def test_a_python_that_will_not_do_is_named_with_the_mend(python: str, message: str, tmp_path: Path) -> None:
    answers = {
        "old": 'case "$*" in *sys.exit*) exit 1;; *) echo "Python 3.9.1";; esac',
        "bare": 'case "$*" in *ensurepip*) exit 1;; *) echo python3.11;; esac',
    }
    if python in answers:
        fake = tmp_path / python
        fake.write_text(f"#!/bin/sh\n{answers[python]}\n")
        fake.chmod(0o755)
        python = str(fake)
    line = f". {ROOT}/.ci/environment; make_environment {tmp_path}/venv"
    answer = subprocess.run(["bash", "-euc", line], env={**os.environ, "PYTHON": python}, capture_output=True, text=True, check=False)
    assert answer.returncode == 1 and message in answer.stderr and len(answer.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()
