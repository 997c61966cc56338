"""The report: everything inside one file, every state of a run, figures that agree with the metrics."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from edited_run import with_fingerprint
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.curriculum import CW10
from reconverge.envs.errors import DamagedFile, RunFolderError
from reconverge.eval import plots, run_section, wording
from reconverge.eval.intervals import Interval
from reconverge.eval.report import write_report
from reconverge.eval.run_results import read_run
from reconverge.eval.task_failures import failure_sentences

VOID = {"meta", "img", "br", "input", "link", "path", "use", "rect"}


class Balance(HTMLParser):
    """Counts elements that are opened and not closed, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "poster") or (name == "href" and tag in ("link", "script"))]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_page_about_one_run_is_whole_and_fetches_nothing(run: Path, tmp_path: Path) -> None:
    page = read(write_report([run], tmp_path / "out" / "report.html"))
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert all(source.startswith("data:") for source in parser.fetched)
    assert "<script" not in page and not re.search(r"url\((?!#)", page) and "@import" not in page
    for heading in ("Success matrix", "Recovery", "Health of the trust region", "What is remembered", "Cost", "How it was made"):
        assert heading in page
    assert "reconverge train --curriculum synthetic" in page and "0 B of past data" in page and "849,412" in page


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert read(write_report([run], tmp_path / "a.html")) == read(write_report([run], tmp_path / "b.html"))


def test_several_runs_are_compared_by_method_over_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{method}-{seed}", method=method, seed=seed) for method in ("trust-region", "finetune") for seed in (0, 1)]
    page = read(write_report(runs, tmp_path / "report.html"))
    assert "4 runs compared" in page and "finetune − trust-region" in page
    assert page.count('<section id="run-') == 4
    assert "Not like for like" not in page


def test_unlike_runs_are_flagged(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", stages=POINT_REACH[:2])]
    assert "Not like for like: these runs differ in curricula" in read(write_report(runs, tmp_path / "report.html"))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_run_that_is_still_going_has_a_page(tmp_path: Path, done: int) -> None:
    folder = write_run(tmp_path / "run", done=done)
    (folder / "cost.json").unlink()
    page = read(write_report([folder], tmp_path / "report.html"))
    assert "not finished" in page and f"{done} of 3 stages" in page
    assert ">nan" not in page


def test_a_run_with_nothing_but_its_settings_has_a_page(run: Path, tmp_path: Path) -> None:
    for path in run.iterdir():
        if path.name not in ("config.yaml", "curriculum.yaml"):
            path.unlink()
    assert "nothing has been evaluated yet" in read(write_report([run], tmp_path / "report.html"))


def test_the_published_figures_stand_beside_the_published_order_only(run: Path, tmp_path: Path) -> None:
    cw3 = write_run(tmp_path / "cw3", stages=CW10[:3])
    assert "paper: trust region" in read(write_report([cw3], tmp_path / "cw3.html"))
    assert "paper: trust region" not in read(write_report([run], tmp_path / "other.html"))
    results = read_run(cw3)
    first = next(row for row in results.recoveries if (row.stage, row.task, row.threshold) == (2, "hammer-v3", 99))
    assert run_section.shown_recovery(results, first).published == ("60", "60")  # Table 16: task 1 after the switch to task 2


def test_never_is_written_out(tmp_path: Path) -> None:
    page = read(write_report([write_run(tmp_path / "run", method="finetune")], tmp_path / "report.html"))
    assert '<span class="never">never</span>' in page
    assert "This run has no trust region" in page


def test_a_repeated_task_and_a_probe_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", stages=(POINT_REACH[0], POINT_REACH[1], POINT_REACH[0]))
    for name in ("recovery.csv", "recovery_curves.csv"):
        text = read(folder / name)
        (folder / name).write_text(text + "".join(line + "\n" for line in text.replace("online", "probe").splitlines()[1:]))
    assert "Probe recovery" in read(write_report([folder], tmp_path / "report.html"))


def test_videos_are_embedded_up_to_the_limit(run: Path, tmp_path: Path) -> None:
    (run / "videos").mkdir()
    for name, length in (("grid.mp4", 300), ("stage-01-point-reach-0.mp4", 300), ("stage-02-point-reach-0.mp4", 9000)):
        (run / "videos" / name).write_bytes(b"v" * length)
    page = read(write_report([run], tmp_path / "report.html", video_limit_bytes=2000))
    assert page.count("data:video/mp4;base64,") == 2
    assert "Too large to embed" in page and "stage-02-point-reach-0.mp4" in page


def test_text_from_a_run_cannot_become_markup(run: Path, tmp_path: Path) -> None:
    (run / "command.txt").write_text("reconverge train --note '<script>alert(1)</script>'\n")
    assert "<script" not in read(write_report([run], tmp_path / "report.html"))


def test_what_cannot_be_reported_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(DamagedFile, match="not a run folder"):
        write_report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (wording.percent(0.8254), "82.5\N{NARROW NO-BREAK SPACE}%"),
        (wording.percent(float("nan")), "–"),
        (wording.points(-0.031), "−3.1"),
        (wording.points(-0.0001), "0.0"),
        (wording.size(0), "0 B"),
        (wording.size(3_400_000), "3.4 MB"),
        (wording.bounds(Interval(0.6, -2.9, 4.1, 2)), "0.0\N{NARROW NO-BREAK SPACE}% to 100.0\N{NARROW NO-BREAK SPACE}%"),
        (wording.bounds(Interval(0.6, float("nan"), float("nan"), 1)), ""),
        (wording.duration(59.96), "60.0 s"),
        (wording.duration(3723), "1 h 02 min"),
    ],
)
def test_numbers_read_well(text: str, wanted: str) -> None:
    assert text == wanted


def test_a_task_that_failed_is_said_to_have_failed(run: Path, tmp_path: Path) -> None:
    assert read_run(run).failures == () and "Tasks failed" not in read(write_report([run], tmp_path / "before.html"))
    lines = (run / "success_matrix.csv").read_text().splitlines()
    (run / "success_matrix.csv").write_text("".join(line + "\n" for line in lines if not line.startswith("3,point-reach-0")))
    error = "3,{},{},point-reach-0,17,3,\"RuntimeError: the <arm>, fell off\"\n"
    header = "stage,purpose,update,task,episode_seed,attempts,error\n"
    (run / "failures.csv").write_text(header + error.format("matrix", 500) + error.format("recovery", 2) + error.format("recovery", 50))
    results = read_run(run)
    assert list(results.failed_at) == [(3, "point-reach-0")] and results.finished
    assert np.isnan(results.matrix[3, 0])
    assert failure_sentences(results)[1].startswith("task 'point-reach-0' FAILED while stage 3 was learned, at update 2, 50 and is not measured")
    page = read(write_report([run], tmp_path / "report.html"))
    assert page.count("Tasks failed") == 1 and "the &lt;arm&gt;, fell off" in page and ">failed<" in page
    assert read(write_report([run, write_run(tmp_path / "b", seed=1)], tmp_path / "both.html")).count("Tasks failed") == 2


def test_a_last_stage_of_which_every_task_failed_was_evaluated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", done=2)
    (folder / "failures.csv").write_text("stage,purpose,update,task,episode_seed,attempts,error\n3,matrix,500,point-reach-0,17,3,gone\n")
    assert read_run(folder).finished
    assert "Tasks failed" in read(write_report([folder], tmp_path / "report.html"))


def test_figures_are_png_too(run: Path) -> None:
    assert plots.png(plots.success_matrix(read_run(run)), dots_per_inch=40).startswith(b"\x89PNG")


def test_the_matrix_of_joint_has_one_row_for_all_tasks_and_none_of_a_single_one(run: Path, tmp_path: Path) -> None:
    joint = write_run(tmp_path / "joint", method="joint")
    for folder, names, outlined in (
        (run, ["untrained", *(f"{stage} · {task}" for stage, task in enumerate(POINT_REACH, start=1)), "expert"], 3),
        (joint, ["untrained", "all tasks", "expert"], 0),
    ):
        (axes,) = plots.success_matrix(read_run(folder)).axes
        assert [label.get_text() for label in axes.get_yticklabels()] == names
        assert sum(not patch.get_fill() for patch in axes.patches) == outlined
        assert ("Outlined" in read(write_report([folder], tmp_path / "report.html"))) == (outlined > 0)


def test_a_task_that_is_learned_twice_is_outlined_twice_and_only_in_stages_that_are_done(tmp_path: Path) -> None:
    stages = [*POINT_REACH, *POINT_REACH]
    run = read_run(write_run(tmp_path / "run", stages=stages, done=4))
    (axes,) = plots.success_matrix(run).axes
    corners = [patch.get_xy() for patch in axes.patches if not patch.get_fill()]
    assert sorted((x + 0.5, y + 0.5) for x, y in corners) == [(0, 1), (0, 4), (1, 2), (2, 3)]
    shaded = [len(strip.patches) for strip in plots.task_curves(run).axes]
    assert shaded == [2, 2, 2]


def test_how_a_run_was_made_is_said_in_words(tmp_path: Path) -> None:
    digests = {"point-reach-0": "10eb0fc97ffb" + "0" * 52}
    run = with_fingerprint(write_run(tmp_path / "run"), demonstrations=digests, begun_again=["the loss leapt", "again"])
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<dt>demonstrations</dt><dd>point-reach-0 10eb0fc97ffb</dd><dt>begun again</dt><dd>the loss leapt; again</dd>" in page
