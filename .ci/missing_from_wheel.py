"""Print the files of the five rooms that a wheel lacks: `python .ci/missing_from_wheel.py dist/reconverge-....whl`."""

import sys
import zipfile
from pathlib import Path

ROOMS = ("envs", "policy", "replay", "eval", "launch")
SHIPPED = (".py", ".csv", ".html")

root = Path(__file__).resolve().parent.parent
packed = set(zipfile.ZipFile(sys.argv[1]).namelist())
for room in ROOMS:
    for path in sorted((root / room).rglob("*")):
        name = f"reconverge/{path.relative_to(root).as_posix()}"
        if path.suffix in SHIPPED and name not in packed:
            print(name)
