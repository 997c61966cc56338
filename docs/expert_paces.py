"""How often Meta-World's scripts succeed at each pace, for `results/expert_paces.csv` and the table in `envs/expert_paces.py`.

    python docs/expert_paces.py                 all 50 tasks, ten minutes on one core
    python docs/expert_paces.py push-back-v3    prints, writes nothing

An attempt is one of a collection with the seed `SEED`, which no run uses. `steps` is how long a success takes, on average.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from reconverge.envs.episodes import episode_seed
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import METAWORLD_NAMES, find_task

PACES = (1.0, 0.7, 0.5, 0.35)
ATTEMPTS = 100
SEED = 1000
TABLE = Path(__file__).resolve().parent.parent / "results" / "expert_paces.csv"


def rows_of(name: str, simulators: Simulators) -> list[dict[str, object]]:
    """One row per pace."""
    task = find_task(name)
    seeds = [episode_seed("demonstration", SEED, name, attempt) for attempt in range(ATTEMPTS)]
    rows: list[dict[str, object]] = []
    for pace in PACES:
        found = [run for run in simulators.run_expert(task, seeds, 0, 0.0, (pace,)) if run is not None]
        steps = sum(len(run.actions) for run in found) / len(found) if found else None
        rows.append({"task": name, "pace": pace, "attempts": ATTEMPTS, "successes": len(found), "steps": "" if steps is None else f"{steps:.1f}"})
    return rows


def main(names: list[str]) -> None:
    rows: list[dict[str, object]] = []
    with Simulators(1) as simulators:
        for name in names or [f"{name}-v3" for name in METAWORLD_NAMES]:
            found = rows_of(name, simulators)
            print(name, *(f"{row['pace']}: {row['successes']} ({row['steps']})" for row in found), sep="   ", flush=True)
            rows += found
    if not names:
        with open(TABLE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
