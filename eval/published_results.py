"""The published Continual World 10 figures of arXiv 2602.02417 (its Tables 1, 2 and 16-23), to stand beside a run's own.

They were made with an 83 M parameter U-Net, 2,500 demonstrations and 50,000 updates per task, 100 evaluation episodes and
3-4 seeds: a yardstick, not a like-for-like comparison with a small run.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from reconverge.envs.curriculum import CW10

PUBLISHED_UPDATES = 50_000
"""Updates per task: where the observation of every published recovery ended."""


@dataclass(frozen=True)
class PublishedSuccess:
    """Final figures of one method, rates in [0, 1] with their standard errors over seeds."""

    method: str
    success: float
    success_se: float
    forgetting: float
    forgetting_se: float

    @property
    def just_learned(self) -> float:
        """Success just after a task was learned: what is left plus what was forgotten, by the paper's definition of forgetting."""
        return self.success + self.forgetting


def same_tasks_in_order(tasks: Sequence[str]) -> bool:
    """Whether a run's stages are the published ones or their beginning, so that (old task, transition) cells correspond."""
    return 0 < len(tasks) <= len(CW10) and tuple(tasks) == CW10[: len(tasks)]


@cache
def published_success() -> dict[str, PublishedSuccess]:
    """method -> final figures; the methods are finetune, ewc, replay, ftml, vr-mcl and trust-region."""
    columns = ("success", "success_se", "forgetting", "forgetting_se")
    rows = _rows("paper_cw10_success.csv")
    return {_method(row): PublishedSuccess(_method(row), *(float(row[column]) / 100 for column in columns)) for row in rows}


@cache
def published_recovery() -> dict[tuple[str, int, int, int], int | None]:
    """(method, old stage, new stage, threshold in %) -> updates until recovery; None = never. A missing key was not published."""
    return {
        (_method(row), int(row["old_task"]), int(row["new_task"]), int(row["threshold_percent"])): int(row["updates"]) if row["updates"] else None
        for row in _rows("paper_cw10_recovery.csv")
    }


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("reconverge.eval") / "published" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _method(row: dict[str, str]) -> str:
    return row["method"].replace("_", "-")
