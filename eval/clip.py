"""A drawn episode: its frames in a border whose colour says how it went, and the video of one cell of the success matrix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reconverge.envs.artifact import draft_of
from reconverge.envs.errors import DamagedFile
from reconverge.envs.task_files import task_file, task_of_file

BACKGROUND, TEXT = (18, 22, 27), (232, 237, 241)
PENDING, SOLVED, FAILED = (120, 131, 143), (52, 168, 102), (214, 69, 61)
BORDER, CAPTION = 4, 18


@dataclass(frozen=True)
class Clip:
    """A drawn episode: uint8 frames, (F, height, width, 3), in a .npy file; the simulator step of each; the step of success."""

    stage: int
    task: str
    frames_file: Path
    steps: tuple[int, ...]
    solved_at: int | None

    def frames(self) -> np.ndarray:
        return np.load(self.frames_file, mmap_mode="r", allow_pickle=False)

    def border(self, index: int) -> tuple[int, int, int]:
        """The colour of the border at frame `index`; later than the last frame counts as the last."""
        if self.solved_at is not None and self.steps[min(index, len(self.steps) - 1)] >= self.solved_at:
            return SOLVED
        return FAILED if index >= len(self.steps) - 1 else PENDING

    def caption(self, index: int) -> str:
        """The step of frame `index` and, for those who do not tell red from green, the verdict."""
        verdict = {PENDING: "", SOLVED: " · success", FAILED: " · failed"}[self.border(index)]
        return f"step {self.steps[min(index, len(self.steps) - 1)]}{verdict}"


def cell_picture(frame: np.ndarray, border: tuple[int, int, int], caption: str) -> Image.Image:
    """A frame within its border, the caption on a strip below: (width + 2 BORDER) x (height + 2 BORDER + CAPTION)."""
    height, width = frame.shape[:2]
    cell = Image.new("RGB", (width + 2 * BORDER, height + 2 * BORDER + CAPTION), border)
    cell.paste(Image.fromarray(frame), (BORDER, BORDER))
    pen = ImageDraw.Draw(cell)
    pen.rectangle((BORDER, height + BORDER, width + BORDER - 1, height + BORDER + CAPTION - 1), fill=BACKGROUND)
    pen.text((BORDER + 5, height + BORDER + CAPTION // 2), caption, font=font(11), fill=TEXT, anchor="lm")
    return cell


def write_video(path: Path, frames: Iterable[np.ndarray], frames_per_second: int) -> None:
    """Write uint8 frames, (height, width, 3) with even sizes, as an H.264 MP4 that browsers play; replaces `path` when whole."""
    draft = draft_of(path)
    draft = draft.with_name(f"{draft.name}{path.suffix}")  # by which the writer knows what it writes
    try:
        with iio.imopen(draft, "w", plugin="pyav") as file:
            file.init_video_stream("libx264", fps=frames_per_second, pixel_format="yuv420p")
            for frame in frames:
                if frame.shape[0] % 2 or frame.shape[1] % 2:
                    raise ValueError(f"H.264 with 4:2:0 colour needs even sizes, got {frame.shape[1]} x {frame.shape[0]}")
                file.write_frame(np.ascontiguousarray(frame))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def cell_name(stage: int, task: str) -> str:
    """The name of a cell's video."""
    return f"stage-{stage:02d}-{task_file(task)}.mp4"


def cell_of(video: Path) -> tuple[int, str] | None:
    """The stage and task of a cell's video, by its name; None for a name that is no cell's, or of which the task was cut."""
    found = re.fullmatch(r"stage-(\d{2,9})-(.+)", video.stem, re.ASCII)
    try:
        return (int(found[1]), task_of_file(found[2])) if found else None
    except DamagedFile:
        return None


def even(pixels: int) -> int:
    """At most one pixel less: a size that 4:2:0 colour can have."""
    return pixels - pixels % 2


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of captions and labels, which Pillow brings along."""
    return ImageFont.load_default(size)
