"""The grid in which forgetting is seen: grid.mp4 and, as its last frame, grid.png.

    rows = tasks, columns = stages, the same episode along each row

                 1 · hammer    2 · push-wall   3 · faucet-close
    hammer       [ learned ]    [  ...    ]     [  back?  ]         border grey    no success yet
    push-wall    (   dark  )    [ learned ]     [   ...   ]                green   success reached
    faucet       (   dark  )    (   dark  )     [ learned ]                red     ended without success

Short clips freeze on their last frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from reconverge.envs.errors import DamagedFile
from reconverge.envs.gym_name import short_name
from reconverge.eval.clip import BACKGROUND, BORDER, CAPTION, TEXT, Clip, cell_of, cell_picture, even, font, write_video
from reconverge.eval.config import VideoConfig
from reconverge.eval.plain_picture import read_picture

CELL_DARK, TEXT_DIM = (27, 33, 40), (139, 151, 163)
HEADER, MARGIN, GAP = 30, 132, 6
LARGEST_GRID = (1920, 1440)
"""The grid's cells shrink until the whole picture fits into these pixels."""


def write_grid(clips: Sequence[Clip], curriculum: Sequence[str], folder: Path, config: VideoConfig) -> tuple[Path, Path]:
    """Write grid.mp4 and grid.png (its last frame, on which every border has its final colour).

    Args:
        clips: at most one per (stage, task).
        curriculum: the task of every stage, for the order of rows and the labels of columns.
        folder: where both files go.
        config: size of a frame, unless the grid would grow too large, and playback rate.
    """
    grid = _Grid.of(clips, curriculum, config)
    length = max(len(clip.steps) for clip in clips) + config.frames_per_second
    write_video(folder / "grid.mp4", (np.asarray(grid.picture(index)) for index in range(length)), config.frames_per_second)
    grid.picture(length).save(folder / "grid.png", optimize=True)
    return folder / "grid.mp4", folder / "grid.png"


def read_grid(folder: Path, curriculum: Sequence[str]) -> dict[tuple[int, str], Image.Image]:
    """(stage, task) -> its last frame, in its border, cut out of grid.png in a run's folder of videos; empty where nothing was rendered.

    Raises DamagedFile for a picture that cannot be read, or that is not the grid of the videos beside it.
    """
    poster = folder / "grid.png"
    if not poster.exists():
        return {}
    picture = read_picture(poster)
    shown = {match for path in folder.glob("stage-*.mp4") if (match := cell_of(path)) is not None}
    stages, tasks = sorted({stage for stage, _ in shown}), _rows([task for _, task in sorted(shown)], curriculum)
    pitch = (picture.width - MARGIN) // max(1, len(stages)), (picture.height - HEADER) // max(1, len(tasks))
    size = pitch[0] - 2 * BORDER - GAP, pitch[1] - 2 * BORDER - CAPTION - GAP
    if min(size) < 1 or _grid_size(len(stages), len(tasks), size) != picture.size:
        raise DamagedFile(f"{poster} is not the grid of the videos beside it; render the run again")
    corners = {cell: _corner((stages.index(cell[0]), tasks.index(cell[1])), size) for cell in shown}
    return {cell: picture.crop((x, y, x + pitch[0] - GAP, y + pitch[1] - GAP)) for cell, (x, y) in corners.items()}


@dataclass(frozen=True)
class _Grid:
    """The layout of the grid: a background with labels and dark cells, and the corner of each clip's cell in it."""

    base: Image.Image
    clips: tuple[Clip, ...]
    corners: tuple[tuple[int, int], ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, clips: Sequence[Clip], curriculum: Sequence[str], config: VideoConfig) -> _Grid:
        stages = sorted({clip.stage for clip in clips})
        tasks = _rows([clip.task for clip in clips], curriculum)
        size = _cell_size(config.size, len(stages), len(tasks))
        corners = tuple(_corner((stages.index(clip.stage), tasks.index(clip.task)), size) for clip in clips)
        return cls(_empty_grid([_stage_label(stage, curriculum) for stage in stages], tasks, size), tuple(clips), corners, size)

    def picture(self, index: int) -> Image.Image:
        """Frame `index` of the grid; clips that are over show their last frame."""
        picture = self.base.copy()
        for clip, corner in zip(self.clips, self.corners, strict=True):
            picture.paste(_grid_cell(clip, index, self.size), corner)
        return picture


def _rows(shown: Sequence[str], curriculum: Sequence[str]) -> list[str]:
    """The tasks that are shown, in the order of the curriculum."""
    return [task for task in dict.fromkeys([*curriculum, *shown]) if task in shown]


def _grid_cell(clip: Clip, index: int, size: tuple[int, int]) -> Image.Image:
    frames = clip.frames()
    shown = min(index, len(frames) - 1)
    frame = np.asarray(Image.fromarray(frames[shown]).resize(size, Image.Resampling.BILINEAR))
    return cell_picture(frame, clip.border(index), clip.caption(index))


def _empty_grid(columns: Sequence[str], tasks: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """Background, row and column labels, and a dark pane in every cell."""
    pitch = _pitch(size)
    picture = Image.new("RGB", _grid_size(len(columns), len(tasks), size), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for column, label in enumerate(columns):
        pen.text((MARGIN + column * pitch[0] + (pitch[0] - GAP) // 2, HEADER // 2), label, font=font(12), fill=TEXT_DIM, anchor="mm")
    for row, task in enumerate(tasks):
        middle = HEADER + row * pitch[1] + (pitch[1] - GAP) // 2
        pen.text((MARGIN - 10, middle), short_name(task).replace(" ", "\n"), font=font(12), fill=TEXT, anchor="rm", align="right")
        for column in range(len(columns)):
            x, y = _corner((column, row), size)
            pen.rectangle((x, y, x + pitch[0] - GAP - 1, y + pitch[1] - GAP - 1), fill=CELL_DARK)
    return picture


def _cell_size(wanted: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Width and height of a frame in the grid: `wanted`, or smaller in the same proportion until the grid fits LARGEST_GRID."""
    around = (2 * BORDER + GAP, 2 * BORDER + CAPTION + GAP)
    room = ((LARGEST_GRID[0] - MARGIN) / columns - around[0], (LARGEST_GRID[1] - HEADER) / rows - around[1])
    scale = min(1.0, room[0] / wanted[0], room[1] / wanted[1])
    return max(16, even(int(wanted[0] * scale))), max(16, even(int(wanted[1] * scale)))


def _pitch(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] + 2 * BORDER + GAP, size[1] + 2 * BORDER + CAPTION + GAP


def _grid_size(columns: int, rows: int, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a grid whose frames have this size."""
    pitch = _pitch(size)
    return even(MARGIN + columns * pitch[0]), even(HEADER + rows * pitch[1])


def _corner(place: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    pitch = _pitch(size)
    return MARGIN + place[0] * pitch[0], HEADER + place[1] * pitch[1]


def _stage_label(stage: int, curriculum: Sequence[str]) -> str:
    if stage == 0:
        return "untrained"
    return f"{stage} · {short_name(curriculum[stage - 1])}" if stage <= len(curriculum) else f"stage {stage}"
