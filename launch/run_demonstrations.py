"""The demonstrations of a run: collected, or taken from earlier runs where they are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reconverge.envs.demonstrations import Demonstrations, collect
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.stage_plan import StagePlan, demonstration_budgets


def collect_all(plans: Sequence[StagePlan], config: RunConfig, simulators: Simulators, progress: Progress) -> dict[Task, Demonstrations]:
    """Those of every task of the planned stages, as many as its most demanding stage asks for."""
    wanted, collected = demonstration_budgets(plans), {}
    with progress.phase("demonstrations", sum(wanted.values())) as tick:
        for task, count in wanted.items():
            before = tick.done

            def show(done: int, of: int, before: int = before) -> None:
                tick.at(before + done)

            collected[task] = collect_task(task, count, config, simulators, show)
            tick.at(before + count)
    return collected


def collect_task(
    task: Task, count: int, config: RunConfig, simulators: Simulators, progress: Callable[[int, int], None] | None = None
) -> Demonstrations:
    return collect(task, config.demonstrations, count, Path(config.demonstrations.folder), progress, simulators)
