"""One self-contained page about one run or several: no network, no script, videos inside.

`write_report` reads the folders, turns each into the plain records that `report_template.html` lays out, and writes the page
atomically. All judgement is in `metrics`, `headlines` and `recovery`; `run_section` and `experiment_section` only arrange and word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import RunFolderError
from reconverge.eval.experiment_section import experiment_section
from reconverge.eval.page_template import page_template
from reconverge.eval.published_results import published_success, same_tasks_in_order
from reconverge.eval.run_results import RunResults, read_run
from reconverge.eval.run_section import run_section

VIDEO_LIMIT_BYTES = 24_000_000
SINGLE_RUNS = 6
"""A page about more runs than this leaves out what is said about each of them alone."""


def write_report(runs: Sequence[Path], output: Path, video_limit_bytes: int = VIDEO_LIMIT_BYTES, reference: str | None = None) -> Path:
    """Write the page about `runs` to `output` and return it.

    Args:
        runs: run folders; more than one are an experiment: grouped by method and settings, and compared.
        output: the HTML file; its folder is created.
        video_limit_bytes: videos beyond this size in all are named instead of embedded.
        reference: the method, or the label of a group, that the others are compared with; see `experiment.find_reference`.

    Raises DamagedFile for a folder or file that cannot be read, RunFolderError without any run, UnknownName for the reference.
    """
    if not runs:
        raise RunFolderError("a report needs at least one run folder; `reconverge report RUN...`")
    results = [read_run(Path(folder)) for folder in runs]
    single = results if len(results) <= SINGLE_RUNS else []
    page = page_template().render(
        title=_title(results),
        sections=[run_section(run, index, video_limit_bytes // len(results)) for index, run in enumerate(single, start=1)],
        experiment=experiment_section(results, reference) if len(results) > 1 else None,
        published=published_success() if all(same_tasks_in_order(run.stages) for run in results) else {},
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, page)
    return output


def _title(runs: Sequence[RunResults]) -> str:
    curricula = ", ".join(dict.fromkeys(run.curriculum for run in runs))
    return f"{curricula}: {runs[0].name}" if len(runs) == 1 else f"{curricula}: {len(runs)} runs compared"
