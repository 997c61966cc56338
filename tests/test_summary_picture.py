import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_run import POINT_REACH, write_rollouts, write_run

from reconverge.envs.errors import DamagedFile
from reconverge.eval.clip import FAILED, SOLVED
from reconverge.eval.config import VideoConfig
from reconverge.eval.run_results import read_run
from reconverge.eval.summary_picture import WIDTH, evenly_spaced, summary_figure, write_summary_picture
from reconverge.eval.video import render_videos
from reconverge.eval.video_grid import read_grid


def labels(axes) -> tuple[list[str], list[str]]:
    return [text.get_text() for text in axes.get_yticklabels()], [text.get_text() for text in axes.get_xticklabels()]


def test_matrix_and_frames_have_stages_down_and_tasks_across(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (alone,) = summary_figure(read_run(folder), {}).axes
    assert labels(alone)[0][1:4] == ["1 · point-reach-0", "2 · point-reach-1", "3 · point-reach-2"]
    write_rollouts(folder)
    render_videos(folder, VideoConfig(size=(64, 48)), workers=0)
    _, frames = summary_figure(read_run(folder), read_grid(folder / "videos", POINT_REACH)).axes
    assert labels(frames) == (["after 1", "after 2", "after 3"], list(POINT_REACH))
    assert len(frames.images) == 6 and [text.get_text() for text in frames.texts] == ["not learned yet"] * 3
    picture = Image.open(io.BytesIO(write_summary_picture(folder).read_bytes()))
    assert abs(picture.width - WIDTH) < 20


def test_frames_are_cut_out_of_the_grid_cell_by_cell(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_rollouts(folder)
    render_videos(folder, VideoConfig(size=(64, 48)), workers=0)
    frames = read_grid(folder / "videos", POINT_REACH)
    assert set(frames) == {(stage, task) for stage in (1, 2, 3) for task in POINT_REACH[:stage]}
    for (stage, task), frame in frames.items():
        border = {tuple(map(int, pixel)) for pixel in np.concatenate([np.asarray(frame)[edge] for edge in (0, -1)])}
        assert border == {SOLVED if task == POINT_REACH[stage - 1] else FAILED}
    (folder / "videos" / f"stage-02-{POINT_REACH[0]}.mp4").unlink()
    assert len(read_grid(folder / "videos", POINT_REACH)) == 5
    Image.new("RGB", (200, 100)).save(folder / "videos" / "grid.png")
    with pytest.raises(DamagedFile, match="is not the grid of the videos beside it; render the run again"):
        write_summary_picture(folder)


def test_of_many_tasks_four_are_shown_after_the_stages_in_which_they_were_learned(tmp_path: Path) -> None:
    assert evenly_spaced(list("abcdefghij")) == list("adgj")
    assert evenly_spaced(list("abcd")) == list("abcd")
    tasks = [f"point-reach-{number}" for number in range(10)]
    run = read_run(write_run(tmp_path / "run", tasks))
    frame = Image.new("RGB", (4, 3))
    _, axes = summary_figure(run, {(stage, task): frame for stage in range(1, 11) for task in tasks[:stage]}).axes
    assert labels(axes) == (["after 1", "after 4", "after 7", "after 10"], [tasks[number] for number in (0, 3, 6, 9)])
