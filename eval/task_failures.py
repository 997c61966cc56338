"""Tasks that failed in their simulators, in words: what is left out must be said wherever figures are shown."""

from __future__ import annotations

from collections.abc import Iterable

from reconverge.eval.run_results import FailureRow, RunResults

DURING = "while stage {stage} was learned, at update {updates}"
WHERE = {"matrix": "after stage {stage}", "recovery": DURING, "learning": DURING}


def failure_sentences(run: RunResults) -> list[str]:
    """A sentence per task, stage and purpose, in the order of the file; empty where nothing failed."""
    grouped: dict[tuple[str, int, str], list[FailureRow]] = {}
    for row in run.failures:
        grouped.setdefault((row.task, row.stage, row.purpose), []).append(row)
    return [_sentence(rows) for rows in grouped.values()]


def _sentence(rows: list[FailureRow]) -> str:
    last = rows[-1]
    where = WHERE.get(last.purpose, "in stage {stage}").format(stage=last.stage, updates=_listed(row.update for row in rows))
    return (
        f"task '{last.task}' FAILED {where} and is not measured there: its simulator failed {last.attempts} times in a row, "
        f"last in episode seed {last.episode_seed}: {last.error}"
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(numbers)))
