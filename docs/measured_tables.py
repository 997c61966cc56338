"""Tables and pictures in the documents that `reconverge report --tables` wrote: copied, tables in between two comments, and held to them by a test.

    <!-- table: ../results/cw10/tables/tables.md#success -->
    | method | seeds | ...
    <!-- end of table -->

The path is seen from the document; the name is that of a heading in the file. `<!-- table: PATH#NAME with "| 99 % |" -->` takes the rows that
hold these characters, `without ", "` those that do not. After a sweep: `reconverge report ... --tables ...`, then

    python docs/measured_tables.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {
    "cw10_methods.png": "cw10/tables/methods.png",
    "cw10_recovery.png": "cw10/tables/recovery-replay.png",
    "cw10_methods_temperature_1.png": "cw10-temperature-1/tables/methods.png",
}
"""Below docs/images -> below results."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACE = re.compile(
    r'(?P<begin><!-- table: (?P<path>\S+?)#(?P<name>\S+)(?: (?P<kind>with|without) "(?P<text>[^"]+)")? -->\n)'
    r"(?:(?!<!-- table:).)*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)


def filled(text: str, folder: Path) -> str:
    """The text of a document in `folder` with every table as it stands in its file.

    Raises KeyError for a table, OSError for a file that is not there.
    """


    def table(place: re.Match[str]) -> str:
        whole = tables_in(folder / place["path"])[place["name"]]
        return f"{place['begin']}{rows_of(whole, place['kind'], place['text'])}{place['end']}"

    return PLACE.sub(table, text)


def rows_of(table: str, kind: str | None, text: str | None) -> str:
    """A table's head and those of its rows that are `with` or `without` a text; all of them where there is none."""
    if kind is None or text is None:
        return table
    head, rows = table.splitlines(keepends=True)[:2], table.splitlines(keepends=True)[2:]
    return "".join([*head, *(row for row in rows if (text in row) == (kind == "with"))])


def tables_in(path: Path) -> dict[str, str]:
    """Heading, in small letters with hyphens, -> the table below it."""
    parts = re.split(r"^## (.+)\n\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name.lower().replace(" ", "-"): f"{body.strip()}\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


def stale_pictures() -> dict[str, Path]:
    """The name of every copy that is not as its source, with that source."""
    sources = {name: ROOT / "results" / source for name, source in PICTURES.items()}
    return {name: source for name, source in sources.items() if source.read_bytes() != (ROOT / "docs" / "images" / name).read_bytes()}


def main() -> int:
    failed = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        try:
            new = filled(text, document.parent)
        except (KeyError, OSError) as error:
            print(f"{document.relative_to(ROOT)}: left as it was, a table is missing: {error}")
            failed = 1
            continue
        if new != text:
            document.write_text(new, encoding="utf-8")
            print(f"{document.relative_to(ROOT)}: tables copied in anew")
    for name, source in stale_pictures().items():
        (ROOT / "docs" / "images" / name).write_bytes(source.read_bytes())
        print(f"docs/images/{name}: copied anew")
    return failed


if __name__ == "__main__":
    sys.exit(main())
