"""Tables in the documents that `reconverge report --tables` wrote: copied in between two comments, and held to them by a test.

    <!-- table: ../results/cw10/tables/tables.md#success -->
    | method | seeds | ...
    <!-- end of table -->

The path is seen from the document; the name is that of a heading in the file. After a sweep: `reconverge report ... --tables ...`, then

    python docs/measured_tables.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACE = re.compile(r"(<!-- table: (\S+?)#(\S+) -->\n)(?:(?!<!-- table:).)*?(<!-- end of table -->)", re.DOTALL)


def filled(text: str, folder: Path) -> str:
    """The text of a document in `folder` with every table as it stands in its file.

    Raises KeyError for a table, OSError for a file that is not there.
    """
    return PLACE.sub(lambda place: f"{place[1]}{tables_in(folder / place[2])[place[3]]}{place[4]}", text)


def tables_in(path: Path) -> dict[str, str]:
    """Heading, in small letters with hyphens, -> the table below it."""
    parts = re.split(r"^## (.+)\n\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name.lower().replace(" ", "-"): f"{body.strip()}\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


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
    return failed


if __name__ == "__main__":
    sys.exit(main())
