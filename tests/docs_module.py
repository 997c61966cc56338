"""Modules of docs/, which is no package."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from source_files import ROOT

DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
