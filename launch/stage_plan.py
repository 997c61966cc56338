"""What a run will do: its curriculum with every budget filled in, as stages to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconverge.envs.curriculum import Curriculum, load_curriculum
from reconverge.envs.task import Task
from reconverge.launch.config import RunConfig
from reconverge.launch.run_folder import RunFolder


@dataclass(frozen=True)
class StagePlan:
    """One stage as it will be trained. `joint` has one stage of all tasks, numbered as the last."""

    number: int
    tasks: tuple[Task, ...]
    updates: int
    demonstrations: tuple[int, ...]

    @property
    def title(self) -> str:
        return self.tasks[0].name if len(self.tasks) == 1 else f"all {len(self.tasks)} tasks"


def plan_stages(config: RunConfig, curriculum: Curriculum) -> list[StagePlan]:
    """The stages of a run, with the budgets of the curriculum's file or else of the configuration."""
    stages = curriculum.resolved(config.train.updates, config.demonstrations.episodes).stages
    single = [StagePlan(stage.number, (stage.task,), stage.updates or 0, (stage.demonstrations or 0,)) for stage in stages]
    if config.method != "joint":
        return single
    demonstrations = demonstration_budgets(single)
    return [StagePlan(len(single), tuple(demonstrations), sum(plan.updates for plan in single), tuple(demonstrations.values()))]


def demonstration_budgets(plans: Sequence[StagePlan]) -> dict[Task, int]:
    """Demonstrations of each task; one that comes twice with different budgets is collected once, at the larger."""
    budgets: dict[Task, int] = {}
    for plan in plans:
        for task, count in zip(plan.tasks, plan.demonstrations, strict=True):
            budgets[task] = max(count, budgets.get(task, 0))
    return budgets


def run_curriculum(folder: RunFolder, config: RunConfig) -> Curriculum:
    """The curriculum of a run: as it was when the run began, whatever has become of the user's file since.

    No archive is trusted by it: folder and configuration may be somebody else's.
    """
    begun = folder.curriculum_yaml.exists()
    return load_curriculum(str(folder.curriculum_yaml) if begun else config.curriculum, trusting=False)
