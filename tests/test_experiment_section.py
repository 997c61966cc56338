"""The section of a page about an experiment: what it rests on, what it leaves out, and that an experiment without results has one."""

from __future__ import annotations

import re
from pathlib import Path

from hand_run import hand_run
from synthetic_run import write_run

from reconverge.envs.curriculum import CW10
from reconverge.eval.report import write_report


def test_the_page_of_an_experiment_says_what_it_rests_on(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"replay-{seed}", CW10, "replay", seed) for seed in (0, 1)]
    folders += [write_run(tmp_path / "trust-region", CW10, "trust-region", 0)]
    page = write_report(folders, tmp_path / "page.html").read_text()
    one_seed = "one seed, so the interval is the binomial one"
    for text in ("Differences from replay", "Who came back sooner", "88.3\N{NARROW NO-BREAK SPACE}% ± 0.4", one_seed):
        assert text in page
    assert page.count("<summary>All cells of") == 2 and ">nan" not in page


def test_the_page_says_no_dip_where_the_median_is_the_floor_and_cuts_bounds_to_what_can_be(tmp_path: Path) -> None:
    """Dips of 0.8, 0.8, 0.9 in one seed and 0.4 thrice in the other: a mean of 0.62, whose interval reaches beyond both ends."""
    falls = (((8, 0, 0, 0), (8, 0, 0, 0), (9, 0, 0, 0)), ((8, 8, 4, 8), (8, 8, 4, 8), (9, 9, 5, 9)))
    runs = [hand_run(tmp_path / f"r{seed}", "replay", seed, (8, 9, 10)) for seed in (0, 1)]
    runs += [hand_run(tmp_path / f"f{seed}", "finetune", seed, (0, 0, 10), curves) for seed, curves in enumerate(falls)]
    page = write_report([run.folder for run in runs], tmp_path / "page.html").read_text()
    assert len(re.findall(r">\s*no dip\s*</td>", page)) == 2 and "61.7<br><small>0.0 to 100.0</small>" in page
    assert "peak forgetting, points" in page and "backward transfer, points" in page and "forward transfer, points" not in page


def test_the_page_of_many_runs_leaves_out_the_single_ones(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / f"{seed}", seed=seed) for seed in range(7)], tmp_path / "page.html").read_text()
    assert "There is one method only" in page and '<section id="run-' not in page
    assert ">published" not in page and "s.e." not in page


def test_an_experiment_without_a_single_result_has_a_page(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / method, method=method, done=0) for method in ("replay", "ewc")]
    for folder in folders:
        for name in ("cost.json", "ledger.csv", "success_matrix.csv"):
            (folder / name).unlink()
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "No online recovery was measured" in page and ">nan" not in page
