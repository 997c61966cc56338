"""A task of one's own in Python: any Gymnasium environment with Box observations and actions.

    from reconverge.envs.own_task import own_curriculum, own_task
    reach = own_task("Reacher-v5", success={"info": "reward_dist", "at_least": -0.05}, expert=my_experts.reach)
    Path("mine.yaml").write_text(own_curriculum("mine", [reach]).to_yaml())      # reconverge train --curriculum mine.yaml
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconverge.envs.curriculum import Curriculum, Stage, check_sizes
from reconverge.envs.errors import CurriculumError, shown
from reconverge.envs.expert_source import read_expert
from reconverge.envs.gym_name import GYM_PREFIX, gym_name
from reconverge.envs.success_rule import read_rule
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task


def own_task(
    environment: str,
    *,
    options: Mapping[str, Any] | None = None,
    success: Mapping[str, Any] | None = None,
    expert: str | Callable[..., Any] | None = None,
    trusted: bool = False,
) -> Task:
    """The task of a Gymnasium environment `[MODULE:]ID`.

    `options` go to gymnasium.make; other options make another task. `success` is a rule as in a curriculum file, such as
    `{"info": "reward_dist", "at_least": -0.05}`; without it the environment's own flag counts. `expert` is as in a curriculum file, or a
    function of a module (observation (Do,) -> action (Da,), both in the environment's units), which worker processes find by its name.
    Raises CurriculumError, UnsupportedEnvironment, UnknownName, MissingExpert or UntrustedExpert.
    """
    place = f"task '{environment}'"
    rule = None if success is None else read_rule(dict(success), place)
    task = find_task(str(gym_name(environment.removeprefix(GYM_PREFIX), options, rule, place)))
    if expert is None:
        return task
    return replace(task, expert=read_expert(expert if isinstance(expert, str) else _name_of(expert), place, trusted=trusted))


def own_curriculum(name: str, tasks: Sequence[Task]) -> Curriculum:
    """A curriculum of tasks in order; `to_yaml` gives its file. Raises CurriculumError where their sizes differ."""
    stages = tuple(Stage(number, task) for number, task in enumerate(tasks, 1))
    if not stages:
        raise CurriculumError(f"curriculum '{name}' has no task")
    check_sizes(stages, f"curriculum '{name}'")
    return Curriculum(name, stages)


def _name_of(function: Callable[..., Any]) -> str:
    """`python:MODULE:NAME` of a function that can be imported. Raises CurriculumError for any other."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or "<" in name or not name:
        raise CurriculumError(f"expert {shown(function)} cannot be imported by worker processes; put it into a module such as my_experts.py")
    return f"python:{module}:{name}"
