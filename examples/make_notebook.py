"""Write `mujoco_curriculum.ipynb` from `mujoco_curriculum.py`: its `# %%` cells, without outputs.

    python examples/make_notebook.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

SCRIPT = Path(__file__).parent / "mujoco_curriculum.py"


def notebook(script: str) -> str:
    """The text of the notebook: a cell per `# %%` of the script, markdown where it says so."""
    cells = []
    for number, part in enumerate(re.split(r"^# %%", script, flags=re.MULTILINE)[1:]):
        marker, _, body = part.partition("\n")
        kind = "markdown" if marker.strip() == "[markdown]" else "code"
        body = body.strip("\n")
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if kind == "markdown" else body
        cell: dict[str, object] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        cells.append(cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCRIPT.with_suffix(".ipynb").write_text(notebook(SCRIPT.read_text()))
