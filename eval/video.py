"""Rollout videos from the physics states that evaluation kept: one per cell of the success matrix, and their grid.

Evaluation never draws: it stores states, and this pass re-creates each simulator, resets it with the episode's seed and draws
every `stride`-th state. Workers are spawned, because OpenGL does not survive a fork; one job is one task, so that its simulator
is built once. Frames travel through files: a 10 x 10 grid does not fit into memory twice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np

from reconverge.envs.errors import RenderingUnavailable, RunFolderError
from reconverge.envs.gym_name import short_name
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file
from reconverge.envs.tasks import TaskEnv, find_task, make_env
from reconverge.eval.clip import Clip, cell_name, cell_picture, even, write_video
from reconverge.eval.config import VideoConfig
from reconverge.eval.run_results import read_run
from reconverge.eval.stored_rollouts import Rollout, read_rollouts
from reconverge.eval.video_grid import write_grid

PATIENCE_S = 300.0
"""How long it may take until another picture is drawn before the workers count as hanging: OpenGL does that where its driver is broken."""
LOOKED_AFTER_S = 1.0

OnProgress = Callable[[int, int], None]


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
    progress: OnProgress | None = None,
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
    return [*grid, *(videos / cell_name(stage, task) for stage, task in sorted(first))]


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


def draw_clip(env: TaskEnv, rollout: Rollout, config: VideoConfig, frames_file: Path) -> Clip:
    """Draw every `stride`-th state of an episode, and its last, into `frames_file`."""
    width, height = even(config.size[0]), even(config.size[1])
    last = len(rollout.states) - 1
    steps = tuple(dict.fromkeys([*range(0, last, config.stride), last]))
    env.reset(seed=rollout.episode_seed)
    with open(frames_file, "wb") as file:  # not mapped: on a full disk that ends the process
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (len(steps), height, width, 3)})
        for step in steps:
            file.write(np.asarray(env.draw(rollout.states[step], width, height), np.uint8).tobytes())
    solved = np.flatnonzero(rollout.success)
    return Clip(rollout.stage, rollout.task, frames_file, steps, int(solved[0]) + 1 if len(solved) else None)


def _draw_all(jobs: list[_Job], workers: int, progress: OnProgress | None) -> list[Clip]:
    clips: list[Clip] = []
    total = sum(len(job.rollouts) for job in jobs)
    with closing(_results(jobs, workers)) as results:
        for drawn in results:
            clips += drawn
            if progress:
                progress(len(clips), total)
    return clips


def _results(jobs: list[_Job], workers: int) -> Generator[list[Clip]]:
    if workers == 0:
        yield from map(_draw_task, jobs)
        return
    longest_first = sorted(jobs, key=lambda job: -sum(len(rollout.states) for rollout in job.rollouts))
    others = active_children()
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        left = {pool.submit(_draw_task, job) for job in longest_first}
        drawn, quiet_s = 0, 0.0
        try:
            while left:
                began_s = time.monotonic()
                done, left = wait(left, LOOKED_AFTER_S, FIRST_COMPLETED)
                before, drawn = drawn, _drawn_bytes(jobs)
                # Not the time for which this process was itself stopped.
                quiet_s = 0.0 if done or drawn != before else quiet_s + min(time.monotonic() - began_s, 2 * LOOKED_AFTER_S)
                if quiet_s > PATIENCE_S:
                    raise RenderingUnavailable(
                        f"no rendering process has drawn a picture for {PATIENCE_S / 60:.0f} minutes; they were ended. "
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


def _drawn_bytes(jobs: Sequence[_Job]) -> int:
    """So much lies in the files of frames and videos: it changes while anybody draws."""
    size = 0
    for path in [path for folder in {folder for job in jobs for folder in (job.frames_folder, job.videos_folder)} for path in folder.iterdir()]:
        with suppress(FileNotFoundError):  # the draft of a video that is whole by now
            size += path.stat().st_size
    return size


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
        write_video(job.videos_folder / cell_name(stage, job.task.name), frames, job.config.frames_per_second)
    return clips


def _captioned_frames(clip: Clip, config: VideoConfig) -> Iterator[np.ndarray]:
    """The frames of one cell's own video, with a caption; the end is held for half a second so that the verdict is seen."""
    frames = clip.frames()
    for index in range(len(frames) + config.frames_per_second // 2):
        shown = min(index, len(frames) - 1)
        cell = cell_picture(frames[shown], clip.border(shown), f"{short_name(clip.task)} · stage {clip.stage} · {clip.caption(shown)}")
        yield np.asarray(cell)
