"""One picture of a run to show around: its success matrix beside the last frames of its videos."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from reconverge.envs.artifact import write_file
from reconverge.eval import plots
from reconverge.eval.plain_picture import read_picture
from reconverge.eval.run_results import read_run

HEIGHT, GAP = 720, 24
DOTS_PER_INCH = 300  # more than is shown, so that the matrix of a short curriculum is not enlarged


def write_summary_picture(run_folder: Path) -> Path:
    """Write RUN/summary.png; without videos it holds the matrix alone. Raises DamagedFile for a run or a poster that cannot be read."""
    pictures = [Image.open(io.BytesIO(plots.png(plots.success_matrix(read_run(run_folder)), DOTS_PER_INCH))).convert("RGB")]
    poster = run_folder / "videos" / "grid.png"
    if poster.exists():
        pictures.append(read_picture(poster))
    scaled = [picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS) for picture in pictures]
    whole = Image.new("RGB", (sum(picture.width for picture in scaled) + GAP * (len(scaled) - 1), HEIGHT), "white")
    left = 0
    for picture in scaled:
        whole.paste(picture, (left, 0))
        left += picture.width + GAP
    data = io.BytesIO()
    whole.save(data, "PNG", optimize=True)
    path = run_folder / "summary.png"
    write_file(path, data.getvalue())
    return path
