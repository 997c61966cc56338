"""How long a run will still take, from how long each phase took so far and how much of each is left.

    phase      unit                        stage 1    2    3
    update     gradient updates               1500 1500 1500       left: this stage's rest and the later ones' x seconds per update
    recovery   grid points x earlier tasks       0    7   14
    learning   grid points                       0    0    0       where the learning curve is asked for
    evaluate   tasks                             2    3    3
    generator, fisher, replay: once a stage

A phase that has not been seen yet has no pace: what is left is then a lower bound. Rendering and the report come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.eval.cost import by_phase
from reconverge.eval.run_results import RunResults

ORDER = ("recovery", "learning", "update", "fisher", "generator", "replay", "evaluate")
"""The phases of a stage; the first three take turns."""


class Remaining(NamedTuple):
    """Seconds left; `whole` is False where some phase has no pace yet, so that it will be longer."""

    seconds: float
    whole: bool


def remaining(run: RunResults, where: Mapping[str, Any], stage_only: bool = False) -> Remaining | None:
    """What is left of a run, or of its stage, that is at `where` (see `Progress.where`); None before its first stage and after its last."""
    stage, phase = where.get("stage"), where.get("phase")
    work = planned_work(run)
    if not isinstance(stage, int) or not 0 < stage < len(work) or phase in (None, "render", "report"):
        return None
    share = _shares_done(run, stage, where)
    paces = _paces(work, stage, share, where)
    later = [] if stage_only else work[stage + 1 :]
    left, whole = 0.0, True
    for name in ORDER:
        units = work[stage][name] * (1 - share[name]) + sum(following[name] for following in later)
        pace = paces.get(name)
        left += units * (pace or 0.0)
        whole = whole and (pace is not None or not units)
    return Remaining(left, whole)


def planned_work(run: RunResults) -> list[dict[str, float]]:
    """Units per phase of every stage; stage 0, the untrained policy, first."""
    learned: list[str] = []
    settings = _settings(run, "evaluation")
    later, following = settings.get("later_tasks", EvaluationConfig.later_tasks), settings.get("next_task", EvaluationConfig.next_task)
    work = [{**dict.fromkeys(ORDER, 0.0), "evaluate": float(len(run.tasks) if later or following else 0)}]
    for number, (task, updates) in enumerate(zip(run.stages, run.stage_updates, strict=True), 1):
        earlier = [] if run.method == "single" else [other for other in learned if other != task]
        learned += [] if task in learned else [task]
        ahead = set(run.stages[number:] if later else run.stages[number : number + 1] if following else ()) - set(learned)
        tasks = 1 if run.method == "single" else len(learned)
        work.append({
            **dict.fromkeys(ORDER, 1.0),
            "recovery": float(len(_grid(run, updates)) * len(earlier)), "learning": float(len(_learning_grid(run, updates))),
            "update": float(updates), "evaluate": float(tasks + len(ahead)),
        })  # fmt: skip
    if run.method == "joint":  # one stage of everything, numbered as the last
        updates, tasks = sum(run.stage_updates), len(run.tasks)
        together = {**dict.fromkeys(ORDER, 1.0), "recovery": 0.0, "learning": 0.0, "update": float(updates), "evaluate": float(tasks)}
        work[1:] = [dict.fromkeys(ORDER, 0.0) for _ in run.stages[1:]] + [together]
    return work


def _paces(work: list[dict[str, float]], stage: int, share: Mapping[str, float], where: Mapping[str, Any]) -> dict[str, float]:
    """Seconds per unit of every phase that was seen; one that a finished stage did not have takes none."""
    booked = {cost.phase: cost.seconds for cost in by_phase(where.get("seconds") or {})}
    done = {name: sum(earlier[name] for earlier in work[:stage]) + work[stage][name] * share[name] for name in ORDER}
    paces = {name: booked.get(name, 0.0) / units for name, units in done.items() if units}
    points = ("recovery", "learning")  # of which a phase is one point of many
    if where.get("rate") and where.get("total") and work[stage].get(where["phase"]) and where["phase"] not in points:
        paces[where["phase"]] = where["total"] / where["rate"] / work[stage][where["phase"]]
    return paces


def _shares_done(run: RunResults, stage: int, where: Mapping[str, Any]) -> dict[str, float]:
    """Of each phase of this stage, the share that is done."""
    phase = where["phase"] if where["phase"] in ORDER else "update" if "update" in where else "evaluate"
    at = ORDER.index(phase)
    shares = {name: float(number < at) for number, name in enumerate(ORDER)}
    if where.get("total"):
        shares[phase] = min(1.0, where.get("done", 0) / where["total"])
    if "update" in where:
        updates = run.updates_of(stage)
        shares["update"] = min(1.0, where["update"] / max(1, updates))
        for phase, grid in (("recovery", _grid(run, updates)), ("learning", _learning_grid(run, updates))):
            shares[phase] = sum(update < where["update"] for update in grid) / max(1, len(grid))
    return shares


def _grid(run: RunResults, updates: int) -> list[int]:
    return _within(_settings(run, "recovery").get("grid", RecoveryConfig.grid), updates)


def _learning_grid(run: RunResults, updates: int) -> list[int]:
    """With the point before the first update, which every learning curve has."""
    grid = _within(_settings(run, "evaluation").get("learning_grid", EvaluationConfig.learning_grid), updates)
    return [0, *grid] if grid else []


def _within(grid: Any, updates: int) -> list[int]:
    return [update for update in grid if isinstance(update, int) and update < updates] if isinstance(grid, (list, tuple)) else []


def _settings(run: RunResults, name: str) -> dict[str, Any]:
    found = run.config.get(name)
    return found if isinstance(found, dict) else {}
