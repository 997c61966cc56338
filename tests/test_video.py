"""Videos: even sizes, captions and borders, the grid, and what is said when there is nothing to render."""

from __future__ import annotations

import time
from multiprocessing import active_children
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from synthetic_run import POINT_REACH, write_rollouts, write_run

from reconverge.envs.errors import DamagedFile, RenderingUnavailable, RunFolderError
from reconverge.eval import video, video_grid
from reconverge.eval.clip import FAILED, PENDING, SOLVED, Clip, write_video
from reconverge.eval.config import VideoConfig
from reconverge.eval.stored_rollouts import Rollout

CONFIG = VideoConfig(size=(64, 49), stride=2, frames_per_second=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run")
    write_rollouts(run, episode_seeds=(11, 12))
    return run


def test_render_writes_the_grid_its_poster_and_a_video_per_cell(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = video.render_videos(folder, CONFIG, workers=0, progress=lambda done, total: seen.append((done, total)))
    cells = [f"stage-{stage:02d}-{task}.mp4" for stage in (1, 2, 3) for task in POINT_REACH[:stage]]
    assert [path.name for path in paths] == ["grid.mp4", "grid.png", *cells]
    assert seen[-1] == (6, 6)
    assert {path.name for path in (folder / "videos").iterdir()} == {path.name for path in paths}  # no drafts are left
    assert iio.improps(folder / "videos" / "grid.mp4", plugin="pyav").shape[0] >= 4


def test_the_grid_ends_green_where_learned_red_where_lost_and_dark_where_not_measured(folder: Path) -> None:
    video.render_videos(folder, CONFIG, workers=0)
    poster = np.asarray(Image.open(folder / "videos" / "grid.png"))
    size = (64, 48)
    corners = {(column, row): video_grid._corner((column, row), size) for column in range(3) for row in range(3)}
    colours = {place: tuple(int(c) for c in poster[y + 1, x + 10]) for place, (x, y) in corners.items()}
    assert [colours[stage, stage] for stage in range(3)] == [SOLVED] * 3
    assert colours[1, 0] == colours[2, 0] == colours[2, 1] == FAILED
    assert colours[0, 1] == video_grid.CELL_DARK
    assert poster.shape[0] % 2 == 0 and poster.shape[1] % 2 == 0


def test_tasks_and_stages_can_be_chosen(folder: Path) -> None:
    paths = video.render_videos(folder, CONFIG, tasks=[POINT_REACH[0]], stages=[2, 3], workers=0)
    assert [path.name for path in paths] == ["stage-02-point-reach-0.mp4", "stage-03-point-reach-0.mp4"]


def test_spawned_workers_draw_the_same_grid(folder: Path) -> None:
    video.render_videos(folder, CONFIG, workers=0)
    alone = (folder / "videos" / "grid.png").read_bytes()
    video.render_videos(folder, CONFIG, workers=2)
    assert (folder / "videos" / "grid.png").read_bytes() == alone


def test_workers_that_draw_nothing_are_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(active_children())
    monkeypatch.setattr(video, "PATIENCE_S", 0.05)  # they have not even started by then
    monkeypatch.setattr(video, "LOOKED_AFTER_S", 0.02)
    with pytest.raises(RenderingUnavailable, match="no rendering process has drawn a picture for 0 minutes; they were ended"):
        video.render_videos(folder, CONFIG, workers=2)
    assert not set(active_children()) - before


def slowly(job: video._Job) -> list[Clip]:
    """In the place of drawing: the longest task for a minute, the others at once."""
    time.sleep(60 if job.task.name == POINT_REACH[0] else 0)
    return []


def test_whoever_is_asked_to_stop_does_not_wait_for_what_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before, began = set(active_children()), time.monotonic()
    monkeypatch.setattr(video, "_draw_task", slowly)
    with pytest.raises(KeyboardInterrupt):
        video.render_videos(folder, CONFIG, workers=2, progress=stop)
    assert not set(active_children()) - before and time.monotonic() - began < 40


def test_a_border_is_grey_then_green_or_red_and_stays(tmp_path: Path) -> None:
    solved = Clip(1, "a", tmp_path, (0, 2, 4, 5), solved_at=4)
    assert [solved.border(index) for index in range(6)] == [PENDING] * 2 + [SOLVED] * 4
    lost = Clip(1, "a", tmp_path, (0, 2, 4, 5), solved_at=None)
    assert [lost.border(index) for index in range(6)] == [PENDING] * 3 + [FAILED] * 3


def test_a_row_shows_the_episode_that_most_stages_have() -> None:
    empty = np.zeros((2, 1))
    rollouts = [Rollout(stage, "a", seed, empty, empty[1:]) for stage, seed in ((1, 5), (1, 9), (2, 9), (3, 9))]
    assert [(r.stage, r.episode_seed) for r in video._shown(rollouts, episodes=1)] == [(1, 9), (2, 9), (3, 9)]


def test_a_video_reads_back_as_it_was_written(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (20, 120, 220)]
    write_video(tmp_path / "grey.mp4", frames, frames_per_second=10)
    back = iio.imread(tmp_path / "grey.mp4", plugin="pyav")
    assert back.shape == (3, 48, 64, 3)
    assert np.abs(back.mean(axis=(1, 2, 3)) - [20, 120, 220]).max() < 4


def test_an_interrupted_or_odd_video_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_video(tmp_path / "odd.mp4", [np.zeros((49, 64, 3), np.uint8)], 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stages", "tasks"), [(1, 1), (10, 10), (20, 10), (3, 2)])
def test_grids_of_any_curriculum_fit_a_screen_with_even_cells(stages: int, tasks: int) -> None:
    size = video_grid._cell_size((240, 180), stages, tasks)
    pitch = video_grid._pitch(size)
    assert video_grid.MARGIN + stages * pitch[0] <= video_grid.LARGEST_GRID[0] and video_grid.HEADER + tasks * pitch[1] <= video_grid.LARGEST_GRID[1]
    assert size[0] % 2 == size[1] % 2 == 0


def test_nothing_to_render_says_how_to_get_something(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"--video\.episodes 1"):
        video.render_videos(write_run(tmp_path / "run"), CONFIG)


def test_a_damaged_rollout_file_is_named(folder: Path) -> None:
    damaged = folder / "rollouts" / "stage-02" / "point-reach-0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DamagedFile, match="stage-02/point-reach-0"):
        video.render_videos(folder, CONFIG, workers=0)
