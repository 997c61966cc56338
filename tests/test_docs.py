"""Links in the documents lead somewhere, commands in them exist, and measured tables are those of the results."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from docs_module import load
from source_files import ROOT, TOWER

from reconverge.launch.commands import COMMANDS
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import flat
from reconverge.launch.presets import find_preset

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


def test_measured_tables_and_pictures_are_those_of_the_results() -> None:
    tables = load("measured_tables")
    stale = [path.name for path in tables.DOCUMENTS if tables.filled(path.read_text(), path.parent) != path.read_text()]
    assert [*stale, *tables.stale_pictures()] == [], "python docs/measured_tables.py"


def test_the_page_of_settings_is_that_of_the_code() -> None:
    written = load("settings_page")
    assert written.PAGE.read_text(encoding="utf-8") == written.page(), "python docs/settings_page.py"


def test_the_page_of_settings_has_every_setting_with_its_meaning_and_what_presets_change() -> None:
    rows = dict(re.findall(r"^\| `--(\S+)` \| (.*) \|$", load("settings_page").page(), re.MULTILINE))
    assert set(rows) == {key.replace("_", "-") for key in flat(RunConfig())}
    assert rows["train.updates"] == "Gradient updates per stage, unless the curriculum gives its own. | 2000 | 500 | 1500 |  | 50000"
    assert rows["train.l2.strength"].startswith(r"lambda of (lambda / 2) \|\|theta - theta\*\|\|^2,")  # no markup, and no border of a cell
    assert rows["recovery.grid"].endswith(f"| 2 4 ... 50000, {len(find_preset('cw10-paper').recovery.grid)} values")


@pytest.mark.parametrize("room", TOWER)
def test_every_module_stands_in_the_map_of_the_code(room: str) -> None:
    words = re.split(r"^\w+/ ", (ROOT / "docs" / "architecture.md").read_text().partition(f"\n{room}/ ")[2], flags=re.MULTILINE)[0]
    named, families = set(re.findall(r"(\w+)\.py", words)), tuple(re.findall(r"(\w+_)\*\.py", words))
    modules = {path.stem for path in (ROOT / room).glob("[!_]*.py")}
    assert {name for name in modules - named if not (families and name.startswith(families))} == set() and modules >= named


def test_every_optional_extra_stands_in_the_table() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "docs" / "quickstart.md").read_text().partition("## Optional extras")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)} == set(extras)


def test_a_measured_table_is_copied_in_between_its_comments(tmp_path: Path) -> None:
    (tmp_path / "tables.md").write_text("## Success\n\n| a |\n| --- |\n\n## Just learned\n\n| b |\n| --- |\n")
    place = "before\n<!-- table: tables.md#just-learned -->\n{}<!-- end of table -->\nafter\n"
    filled = load("measured_tables").filled
    assert filled(place.format("| old |\n"), tmp_path) == filled(place.format(""), tmp_path) == place.format("| b |\n| --- |\n")
    (tmp_path / "tables.md").write_text("## Just learned\n\n| b |\n| --- |\n| x, y |\n| z |\n")
    assert filled(place.replace("learned", 'learned without ", "').format(""), tmp_path).splitlines()[2:-2] == ["| b |", "| --- |", "| z |"]
    assert filled(place.replace("learned", 'learned with ", "').format(""), tmp_path).splitlines()[2:-2] == ["| b |", "| --- |", "| x, y |"]
    with pytest.raises(KeyError, match="lost"):
        filled(place.format("").replace("just-learned", "lost"), tmp_path)
