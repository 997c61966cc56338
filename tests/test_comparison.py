"""In what runs that stand beside each other are unlike."""

from __future__ import annotations

from pathlib import Path

from edited_run import with_fingerprint
from synthetic_run import write_run

from reconverge.eval.comparison import unlike
from reconverge.eval.report import write_report
from reconverge.eval.run_results import read_run


def test_the_page_names_commits_and_versions_of_torch(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    assert unlike([read_run(folder) for folder in folders]) == []
    for folder, commit, torch in ((folders[1], "f" * 40 + "+changes", "2.9.0"), (folders[2], None, "2.10.0")):
        with_fingerprint(folder, git_commit=commit, versions={"torch": torch})
    torch_by_run = f"the version of torch (2.9.0: {folders[0]}, {folders[1]}; 2.10.0: {folders[2]})"
    assert unlike([read_run(folder) for folder in folders]) == ["commits of the code (3)", torch_by_run]
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "Commit of the code: 0123456789ab, ffffffffffff+changes, unknown; torch 2.10.0, 2.9.0." in page
