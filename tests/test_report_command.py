"""`reconverge report`: which runs it finds, what it refuses before anything is written, and what it leaves as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from csv_rows import rows_of
from folder_contents import contents
from synthetic_run import write_run
from toy_sweep import toy, write_result

from reconverge.envs.errors import RunFolderError
from reconverge.launch.cli import main
from reconverge.launch.commands import Report


def test_the_command_finds_runs_at_any_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, seed in (("replay", 10), ("replay", 2), ("ewc", 2)):
        write_run(tmp_path / "results" / method / f"seed-{seed}", method=method, seed=seed)
    output, tables = tmp_path / "page.html", tmp_path / "tables"
    arguments = (tmp_path / "results", tmp_path / "results" / "ewc")
    assert Report(arguments, output=output, tables=tables, reference="ewc").run("") == 0
    assert "3 runs compared" in output.read_text() and "Differences from ewc" in output.read_text()
    assert output.read_text().index("replay, seed 2") < output.read_text().index("replay, seed 10")
    assert rows_of(tables / "paired.csv")[0]["method"] == "replay"
    assert str(tables) in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="holds no run"):
        Report((tmp_path / "empty",)).run("")


@pytest.mark.parametrize(("words", "hint"), [("runs/a --reference replay", "is a single run"), ("runs --reference repaly", "did you mean 'replay'?")])
def test_a_reference_that_makes_no_sense_is_refused_before_anything_is_written(
    words: str, hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_result(Path("runs/a"), toy(method="replay"))
    write_result(Path("runs/b"), toy(method="ewc"))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert main(["report", *words.split(), "--output", "new/page.html", "--tables", "tables"]) == 2
    assert hint in capsys.readouterr().err and {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_page_about_a_folder_leaves_the_only_run_in_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "results" / "replay" / "seed-0"
    write_result(run, toy(method="replay"))
    before = contents(run)
    assert main(["report", "results"]) == 0
    assert contents(run) == before and Path("runs/comparison.html").exists()
    assert main(["report", str(run)]) == 0
    assert (run / "summary.png").exists() and (run / "report.html").read_text() != "<html>"
