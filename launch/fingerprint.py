"""Under what a run was made: versions, commit, simulator and machine; enough to explain a difference later."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("reconverge", "torch", "numpy", "scipy", "gymnasium", "mujoco", "metaworld", "diffusers", "safetensors", "stable-baselines3")


def fingerprint(method_package: str | None = None) -> dict[str, Any]:
    """Everything but the policy's size, which is known once the policy is built. Imports none of the packages.

    `method_package` is name and version of the package that brings the method, where it is another one than this.
    """
    versions = package_versions()
    return {
        "versions": versions,
        "git_commit": git_commit(),
        "simulator": f"metaworld {versions['metaworld']}, mujoco {versions['mujoco']}",
        "machine": machine(),
        "python": platform.python_version(),
        **({} if method_package is None else {"method_package": method_package}),
    }


def package_versions() -> dict[str, str]:
    """Installed version of each package that can change a result; `absent` for a missing one."""
    return {name: installed_version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, with `+changes` when files differ; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return f"{commit}+changes" if commit and _git(root, "status", "--porcelain", "--untracked-files=no") else commit


def machine() -> str:
    """Such as `AMD EPYC 7B13, 2 cores, Linux x86_64`."""
    return f"{_processor()}, {usable_cores()} cores, {platform.system()} {platform.machine()}"


def usable_cores() -> int:
    """Cores that this process may use, which containers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_version(name: str) -> str:
    """Of a package, or `absent`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _git(root: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown processor"
