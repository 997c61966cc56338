"""What is said about a job that failed."""

from __future__ import annotations

from pathlib import Path

from reconverge.launch.backend import last_words


def test_the_last_words_are_the_jobs_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(2, log) == "exit code 2"
    earlier = "reconverge: earlier error\n"
    log.write_text(f"{earlier}reconverge: the loss is nan\nworker 3 has ended\n\n")
    assert last_words(2, log, len(earlier)) == "the loss is nan"
    assert last_words(1, log, len(earlier)) == "worker 3 has ended"
    log.write_text(f"{earlier}worker 3 has ended\n")
    assert last_words(2, log, len(earlier)) == "exit code 2"
    assert last_words(-9, log) == "ended by SIGKILL; is there enough memory?" and last_words(-35, log) == "ended by signal 35"
