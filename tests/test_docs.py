"""Links in the documents lead somewhere, and commands in them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconverge.launch.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
COMMAND = re.compile(r"^`?reconverge ([a-z][a-z-]*)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_commands_exist(document: Path) -> None:
    text = document.read_text()
    targets = [link.partition("#") for link in LINK.findall(text) if "://" not in link]
    assert [path for path, _, _ in targets if path and not (document.parent / path).exists()] == []
    assert [place for path, _, place in targets if place and place not in _anchors(document.parent / path if path else document)] == []
    assert {name for code in CODE.findall(text) for name in COMMAND.findall(code)} - set(COMMANDS) == set()


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
