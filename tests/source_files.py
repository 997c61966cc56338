"""The Python files of the five packages."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOWER = ("envs", "policy", "replay", "eval", "launch")
"""From the bottom to the top; a room may import what stands before it."""

FILES = [path for room in TOWER for path in sorted((ROOT / room).rglob("*.py"))]
