"""What a sweep has found, method by method: the table at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from reconverge.eval import headlines
from reconverge.eval.intervals import mean_interval
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.job import Job
from reconverge.launch.sweep_plan import Entry, Places


def summary_rows(entries: Sequence[Entry], places: Places, done: Iterable[Job]) -> list[dict[str, str]]:
    """A row per method and variation over the seeds that are done: success and forgetting with their interval over seeds, minutes."""
    finished, rows = set(done), []
    for group in dict.fromkeys(entry.job.group for entry in entries):
        of_group = [entry.job for entry in entries if entry.job.group == group]
        runs = [read_run(places.tables(job)) for job in of_group if job in finished]
        rows.append({
            "method": group,
            "seeds": f"{len(runs)} of {len(of_group)}",
            "success": _over_seeds([headlines.final_success(run).mean for run in runs], lowest=0.0),
            "forgetting": _over_seeds([headlines.forgetting(run).mean for run in runs], lowest=-100.0),
            "minutes": _mean_minutes(runs),
        })  # fmt: skip
    return rows


def _over_seeds(shares: Sequence[float], lowest: float) -> str:
    """A mean in percent with its interval, cut to what can be: from `lowest` to 100; one value, or values that agree, have none."""
    found = mean_interval([100 * share for share in shares])
    if found.size == 0:
        return "-"
    if math.isnan(found.low):
        return f"{found.mean:.1f}"
    return f"{found.mean:.1f} ({max(lowest, found.low):.1f} to {min(100.0, found.high):.1f})"


def _mean_minutes(runs: Sequence[RunResults]) -> str:
    seconds = [float(run.cost["total_s"]) for run in runs if run.cost.get("total_s")]
    return f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "-"
