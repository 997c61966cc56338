"""Rollout videos from the physics states that evaluation kept: one per cell, and the grid in which forgetting is seen.

    rows = tasks, columns = stages, the same episode along each row

                 1 · hammer    2 · push-wall   3 · faucet-close
    hammer       [ learned ]    [  ...    ]     [  back?  ]         border grey    no success yet
    push-wall    (   dark  )    [ learned ]     [   ...   ]                green   success reached
    faucet       (   dark  )    (   dark  )     [ learned ]                red     ended without success

Evaluation never draws: it stores states, and this pass re-creates each simulator, resets it with the episode's seed and draws
every `stride`-th state. Workers are spawned, because OpenGL does not survive a fork; one job is one task, so that its simulator
is built once. Short clips freeze on their last frame. Frames travel through files: a 10 x 10 grid does not fit into memory twice.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile, RenderingUnavailable, RunFolderError
from reconverge.envs.gym_name import short_name
from reconverge.envs.plain_arrays import parse_arrays
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file, task_of_file
from reconverge.envs.tasks import TaskEnv, find_task, make_env
from reconverge.eval.config import VideoConfig
from reconverge.eval.plain_picture import read_picture
from reconverge.eval.run_results import read_run

BACKGROUND, CELL_DARK, TEXT, TEXT_DIM = (18, 22, 27), (27, 33, 40), (232, 237, 241), (139, 151, 163)
PENDING, SOLVED, FAILED = (120, 131, 143), (52, 168, 102), (214, 69, 61)
BORDER, CAPTION, HEADER, MARGIN, GAP = 4, 18, 30, 132, 6
LARGEST_GRID = (1920, 1440)
"""The grid's cells shrink until the whole picture fits into these pixels."""

PATIENCE_S = 900.0
"""How long all workers together may take to finish a task before they count as hanging: OpenGL does that where its driver is broken."""
LARGEST_ROLLOUTS = 512 * MIB
"""Of one cell; a thousand episodes of Meta-World take 130 MB."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rollout:
    """One stored episode: physics states, (T+1, S) float64, and the success flag of each step, (T,)."""

    stage: int
    task: str
    episode_seed: int
    states: np.ndarray
    success: np.ndarray


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


@dataclass(frozen=True)
class _Job:
    """All clips of one task, drawn by one worker with one simulator."""

    task: Task
    rollouts: tuple[Rollout, ...]
    config: VideoConfig
    frames_folder: Path
    videos_folder: Path


def render_videos(
    run_folder: Path,
    config: VideoConfig | None = None,
    tasks: Collection[str] | None = None,
    stages: Collection[int] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Path]:
    """Render stored rollouts into RUN/videos: stage-SS-TASK.mp4 per cell and, of the whole run, grid.mp4 and its poster grid.png.

    Args:
        run_folder: a run whose `rollouts/` were kept.
        config: size, stride and rate; `config.episodes` per cell are shown one after the other, the grid shows the first.
        tasks, stages: render only these; None = all.
        workers: spawned processes; 0 draws in this one.
        progress: called with (clips drawn, clips in all).

    Raises RunFolderError when no states were kept, DamagedFile for unreadable ones, UnknownName for a task that is not built in,
    RenderingUnavailable when there is no OpenGL or it crashed.
    """
    config = config or VideoConfig()
    rollouts = _shown(read_rollouts(run_folder, tasks, stages), config.episodes)
    if not rollouts:
        raise RunFolderError(f"{run_folder / 'rollouts'} holds no matching episodes; train with --video.episodes 1 to keep some")
    videos = run_folder / "videos"
    videos.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reconverge-frames-") as folder:
        clips = _draw_all(_jobs(rollouts, config, Path(folder), videos), workers, progress)
        first = {(clip.stage, clip.task): clip for clip in reversed(clips)}
        whole = not tasks and not stages  # a part of the run does not replace the picture of all of it
        grid = list(write_grid(list(first.values()), read_run(run_folder).stages, videos, config)) if whole else []
    return [*grid, *(videos / _cell_name(stage, task) for stage, task in sorted(first))]


def read_rollouts(run_folder: Path, tasks: Collection[str] | None = None, stages: Collection[int] | None = None) -> list[Rollout]:
    """The stored episodes of the chosen tasks and stages, by stage, task and episode seed; DamagedFile for a file that holds none."""
    rollouts = []
    for path in sorted((run_folder / "rollouts").glob("stage-*/*.safetensors")):
        stage, task = _stage_of(path), task_of_file(path.stem)
        if (tasks is None or task in tasks) and (stages is None or stage in stages):
            rollouts += _read_rollout_file(path, stage, task)
    return rollouts


def write_video(path: Path, frames: Iterable[np.ndarray], frames_per_second: int) -> None:
    """Write uint8 frames, (height, width, 3) with even sizes, as an H.264 MP4 that browsers play; replaces `path` when whole."""
    draft = path.with_name(f".{path.stem}.writing-{os.getpid()}{path.suffix}")
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


# Drawing episodes --------------------------------------------------------------------------------------------------------------


def draw_clip(env: TaskEnv, rollout: Rollout, config: VideoConfig, frames_file: Path) -> Clip:
    """Draw every `stride`-th state of an episode, and its last, into `frames_file`."""
    width, height = _even(config.size[0]), _even(config.size[1])
    last = len(rollout.states) - 1
    steps = tuple(dict.fromkeys([*range(0, last, config.stride), last]))
    env.reset(seed=rollout.episode_seed)
    frames = np.lib.format.open_memmap(frames_file, mode="w+", dtype=np.uint8, shape=(len(steps), height, width, 3))
    for index, step in enumerate(steps):
        frames[index] = env.draw(rollout.states[step], width, height)
    frames.flush()
    solved = np.flatnonzero(rollout.success)
    return Clip(rollout.stage, rollout.task, frames_file, steps, int(solved[0]) + 1 if len(solved) else None)


def _draw_all(jobs: list[_Job], workers: int, progress: Progress | None) -> list[Clip]:
    clips: list[Clip] = []
    total = sum(len(job.rollouts) for job in jobs)
    with closing(_results(jobs, workers)) as results:
        for drawn in results:
            clips += drawn
            if progress:
                progress(len(clips), total)
    return clips


def _results(jobs: list[_Job], workers: int) -> Generator[list[Clip]]:
    if workers == 0 or len(jobs) == 1:
        yield from map(_draw_task, jobs)
        return
    longest_first = sorted(jobs, key=lambda job: -sum(len(rollout.states) for rollout in job.rollouts))
    others = active_children()
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        left = {pool.submit(_draw_task, job) for job in longest_first}
        try:
            while left:
                done, left = wait(left, PATIENCE_S, FIRST_COMPLETED)
                if not done:
                    raise RenderingUnavailable(
                        f"no rendering process has finished a task within {PATIENCE_S / 60:.0f} minutes; they were ended. "
                        "Run `reconverge doctor`, which tries every OpenGL, or choose one with MUJOCO_GL=egl or MUJOCO_GL=osmesa"
                    )
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise RenderingUnavailable(
                "a rendering process died without a word (out of memory, or its OpenGL crashed); "
                "run `reconverge doctor`, or render with fewer workers"
            ) from error
        finally:
            if left:  # broken off: what is left would be drawn to the end first
                for process in set(active_children()) - set(others):
                    process.kill()


def _draw_task(job: _Job) -> list[Clip]:
    """Draw all clips of a task and write its per-cell videos."""
    env = make_env(job.task)
    try:
        clips = []
        for number, rollout in enumerate(job.rollouts):
            clips.append(draw_clip(env, rollout, job.config, job.frames_folder / f"{task_file(job.task.name)}-{number}.npy"))
    finally:
        env.close()
    for stage in sorted({clip.stage for clip in clips}):
        chosen = [clip for clip in clips if clip.stage == stage]
        frames = (frame for clip in chosen for frame in _captioned_frames(clip, job.config))
        write_video(job.videos_folder / _cell_name(stage, job.task.name), frames, job.config.frames_per_second)
    return clips


def _captioned_frames(clip: Clip, config: VideoConfig) -> Iterator[np.ndarray]:
    """The frames of one cell's own video, with a caption; the end is held for half a second so that the verdict is seen."""
    frames = clip.frames()
    for index in range(len(frames) + config.frames_per_second // 2):
        shown = min(index, len(frames) - 1)
        cell = _cell_picture(frames[shown], clip.border(shown), f"{short_name(clip.task)} · stage {clip.stage} · {clip.caption(shown)}")
        yield np.asarray(cell)


# The grid ----------------------------------------------------------------------------------------------------------------------


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
    shown = {match for path in folder.glob("stage-*.mp4") if (match := _cell_of(path)) is not None}
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
    return _cell_picture(frame, clip.border(index), clip.caption(index))


def _cell_picture(frame: np.ndarray, border: tuple[int, int, int], caption: str) -> Image.Image:
    """A frame within its border, the caption on a strip below: (width + 2 BORDER) x (height + 2 BORDER + CAPTION)."""
    height, width = frame.shape[:2]
    cell = Image.new("RGB", (width + 2 * BORDER, height + 2 * BORDER + CAPTION), border)
    cell.paste(Image.fromarray(frame), (BORDER, BORDER))
    pen = ImageDraw.Draw(cell)
    pen.rectangle((BORDER, height + BORDER, width + BORDER - 1, height + BORDER + CAPTION - 1), fill=BACKGROUND)
    pen.text((BORDER + 5, height + BORDER + CAPTION // 2), caption, font=_font(11), fill=TEXT, anchor="lm")
    return cell


def _empty_grid(columns: Sequence[str], tasks: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """Background, row and column labels, and a dark pane in every cell."""
    pitch = _pitch(size)
    picture = Image.new("RGB", _grid_size(len(columns), len(tasks), size), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for column, label in enumerate(columns):
        pen.text((MARGIN + column * pitch[0] + (pitch[0] - GAP) // 2, HEADER // 2), label, font=_font(12), fill=TEXT_DIM, anchor="mm")
    for row, task in enumerate(tasks):
        middle = HEADER + row * pitch[1] + (pitch[1] - GAP) // 2
        pen.text((MARGIN - 10, middle), short_name(task).replace(" ", "\n"), font=_font(12), fill=TEXT, anchor="rm", align="right")
        for column in range(len(columns)):
            x, y = _corner((column, row), size)
            pen.rectangle((x, y, x + pitch[0] - GAP - 1, y + pitch[1] - GAP - 1), fill=CELL_DARK)
    return picture


def _cell_size(wanted: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Width and height of a frame in the grid: `wanted`, or smaller in the same proportion until the grid fits LARGEST_GRID."""
    around = (2 * BORDER + GAP, 2 * BORDER + CAPTION + GAP)
    room = ((LARGEST_GRID[0] - MARGIN) / columns - around[0], (LARGEST_GRID[1] - HEADER) / rows - around[1])
    scale = min(1.0, room[0] / wanted[0], room[1] / wanted[1])
    return max(16, _even(int(wanted[0] * scale))), max(16, _even(int(wanted[1] * scale)))


def _pitch(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] + 2 * BORDER + GAP, size[1] + 2 * BORDER + CAPTION + GAP


def _grid_size(columns: int, rows: int, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a grid whose frames have this size."""
    pitch = _pitch(size)
    return _even(MARGIN + columns * pitch[0]), _even(HEADER + rows * pitch[1])


def _corner(place: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    pitch = _pitch(size)
    return MARGIN + place[0] * pitch[0], HEADER + place[1] * pitch[1]


# Which episodes are shown ------------------------------------------------------------------------------------------------------


def _shown(rollouts: list[Rollout], episodes: int) -> list[Rollout]:
    """Per task the `episodes` seeds that most stages have, so that a row shows one episode under ever later policies."""
    shown = []
    for task in dict.fromkeys(rollout.task for rollout in rollouts):
        of_task = [rollout for rollout in rollouts if rollout.task == task]
        counts: dict[int, int] = {}
        for rollout in of_task:
            counts[rollout.episode_seed] = counts.get(rollout.episode_seed, 0) + 1
        chosen = sorted(counts, key=lambda seed: (-counts[seed], seed))[:episodes]
        shown += sorted((r for r in of_task if r.episode_seed in chosen), key=lambda r: (r.stage, chosen.index(r.episode_seed)))
    return shown


def _jobs(rollouts: Sequence[Rollout], config: VideoConfig, frames_folder: Path, videos_folder: Path) -> list[_Job]:
    return [
        _Job(find_task(task), tuple(rollout for rollout in rollouts if rollout.task == task), config, frames_folder, videos_folder)
        for task in dict.fromkeys(rollout.task for rollout in rollouts)
    ]


def _stage_of(path: Path) -> int:
    digits = path.parent.name.removeprefix("stage-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise DamagedFile(f"{path.parent} is no stage's folder; delete it")
    return int(digits)


def _read_rollout_file(path: Path, stage: int, task: str) -> list[Rollout]:
    try:
        arrays = parse_arrays(read_bounded(path, LARGEST_ROLLOUTS), str(path))
        seeds = sorted(int(key.removesuffix(".states")) for key in arrays if key.endswith(".states"))
        return [_checked(Rollout(stage, task, seed, arrays[f"{seed}.states"], arrays[f"{seed}.success"])) for seed in seeds]
    except (OSError, KeyError, ValueError, DamagedFile) as error:
        raise DamagedFile(f"{path} is not a whole rollout file ({str(error)[:200]}); delete it and render the others") from error


def _checked(rollout: Rollout) -> Rollout:
    """Raise ValueError unless there is a state before each step and after the last. Those of a simulator that broke may be NaN."""
    states, success = rollout.states, rollout.success
    if states.ndim != 2 or success.ndim != 1 or len(states) != len(success) + 1 or not 0 <= rollout.episode_seed < 2**63:
        raise ValueError(f"episode {rollout.episode_seed} has states of shape {states.shape} and flags of shape {success.shape}")
    if states.dtype.kind != "f":
        raise ValueError(f"the states of episode {rollout.episode_seed} are {states.dtype}")
    return rollout


def _cell_name(stage: int, task: str) -> str:
    return f"stage-{stage:02d}-{task_file(task)}.mp4"


def _cell_of(video: Path) -> tuple[int, str] | None:
    """The stage and task of a cell's video, by its name; None for a name that is no cell's, or of which the task was cut."""
    found = re.fullmatch(r"stage-(\d{2,9})-(.+)", video.stem, re.ASCII)
    try:
        return (int(found[1]), task_of_file(found[2])) if found else None
    except DamagedFile:
        return None


def _stage_label(stage: int, curriculum: Sequence[str]) -> str:
    if stage == 0:
        return "untrained"
    return f"{stage} · {short_name(curriculum[stage - 1])}" if stage <= len(curriculum) else f"stage {stage}"


def _even(pixels: int) -> int:
    return pixels - pixels % 2


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
