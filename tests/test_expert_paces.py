"""Hasty scripts: which paces are left out, that the table is what was measured, and that only the tasks in it have other demonstrations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from csv_rows import rows_of
from source_files import ROOT

from reconverge.envs.demonstrations import collection_name
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.expert_paces import DEPENDABLE, fastest_dependable, unhurried
from reconverge.envs.tasks import METAWORLD_NAMES, find_task

MEASURED = ROOT / "results" / "expert_paces.csv"
PACES = (1.0, 0.7, 0.5, 0.35)


@pytest.mark.parametrize(
    ("rates", "fastest"),
    [
        ({1.0: 0.7, 0.7: 0.88, 0.5: 0.98, 0.35: 1.0}, 0.5),
        ({1.0: 0.9, 0.7: 1.0, 0.5: 0.0}, 1.0),  # a tenth less often is still dependable
        ({1.0: 0.77, 0.7: 0.85, 0.5: 0.85}, 1.0),  # starts that no pace solves do not count against the fastest
    ],
)
def test_the_fastest_dependable_pace(rates: dict[float, float], fastest: float) -> None:
    assert fastest_dependable(rates) == fastest


def test_paces_above_it_are_left_out() -> None:
    assert unhurried("push-back-v3", PACES) == tuple(pace for pace in PACES if pace <= DEPENDABLE["push-back-v3"])
    assert unhurried("push-back-v3", (1.0,)) == (1.0,)  # there is no other
    assert unhurried("hammer-v3", PACES) == PACES


def test_the_table_is_what_was_measured() -> None:
    rates: dict[str, dict[float, float]] = defaultdict(dict)
    for row in rows_of(MEASURED):
        rates[row["task"]][float(row["pace"])] = int(row["successes"]) / int(row["attempts"])
    assert set(rates) == {f"{name}-v3" for name in METAWORLD_NAMES}
    assert {task: pace for task, found in rates.items() if (pace := fastest_dependable(found)) < max(found)} == DEPENDABLE


def test_other_tasks_keep_the_demonstrations_that_they_have() -> None:
    hasty, calm = DemonstrationConfig(paces=PACES), DemonstrationConfig(paces=PACES, hasty=False)
    names = {name: [collection_name(find_task(name), config, 10) for config in (hasty, calm)] for name in ("hammer-v3", "push-back-v3")}
    assert names["hammer-v3"][0] == names["hammer-v3"][1]
    slow = replace(hasty, paces=unhurried("push-back-v3", PACES))
    assert names["push-back-v3"][1] == collection_name(find_task("push-back-v3"), slow, 10) != names["push-back-v3"][0]
