"""The animation of README.md: the same episode under the policy of every stage, in two runs of one curriculum.

    reconverge train --preset quickstart --method finetune
    reconverge train --preset quickstart
    .venv/bin/python docs/animate_forgetting.py hammer runs/quickstart/finetune/seed-0 runs/quickstart/trust-region/seed-0

Reads the runs' videos of the task, writes docs/images/forgetting.gif.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw

from reconverge.envs.gym_name import short_name
from reconverge.envs.tasks import find_task
from reconverge.eval.clip import cell_name, font
from reconverge.eval.run_results import read_run

OUTPUT = Path(__file__).resolve().parent / "images" / "forgetting.gif"
PAPER, INK = (255, 255, 255), (27, 33, 40)
MARGIN, HEADER, GAP = 118, 24, 6
EVERY, MILLISECONDS, REST = 2, 100, 12
"""Of the video's frames every second one is shown, for so long; the last one for so many."""


def main(task: str, *runs: str) -> None:
    name, found = find_task(task).name, [read_run(Path(run)) for run in runs]
    clips = [[iio.imread(run.folder / "videos" / cell_name(stage, name)) for stage in range(1, run.stages_done + 1)] for run in found]
    columns = [f"after {short_name(stage)}" for stage in found[0].stages]
    rows = ["fine-tuning" if run.method == "finetune" else "replay and\ntrust region" for run in found]
    length = max(len(clip) for row in clips for clip in row)
    moments = [*range(0, length, EVERY), *[length] * REST]
    pictures = [_picture(columns, rows, [[clip[min(moment, len(clip) - 1)] for clip in row] for row in clips]) for moment in moments]
    palette = pictures[-1].quantize(96, method=Image.Quantize.MEDIANCUT)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames[0].save(OUTPUT, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{OUTPUT}: {len(frames)} frames, {OUTPUT.stat().st_size / 1e6:.2f} MB")


def _picture(columns: list[str], rows: list[str], cells: list[list[np.ndarray]]) -> Image.Image:
    """The cells of one moment, runs down and stages across, with their labels."""
    height, width = cells[0][0].shape[:2]
    page = Image.new("RGB", (MARGIN + len(columns) * (width + GAP), HEADER + len(rows) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(page)
    for column, words in enumerate(columns):
        pen.text((MARGIN + column * (width + GAP) + width / 2, HEADER / 2), words, font=font(14), fill=INK, anchor="mm")
    for row, words in enumerate(rows):
        top = HEADER + row * (height + GAP)
        pen.multiline_text((MARGIN - 10, top + height / 2), words, font=font(14), fill=INK, anchor="rm", align="right")
        for column, cell in enumerate(cells[row]):
            page.paste(Image.fromarray(cell), (MARGIN + column * (width + GAP), top))
    return page


if __name__ == "__main__":
    main(*sys.argv[1:])
