"""A checkpoint evaluated again: on more episodes, on some tasks, with other samplers. Nothing in the run folder changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from reconverge.envs.errors import ConfigError
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval.config import Split
from reconverge.eval.rollout import evaluation_starts, planned_steps, rollout
from reconverge.eval.run_results import read_run
from reconverge.launch.checkpoint import checkpoint_of, read_record
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import EPISODE_COLUMNS, rate_columns
from reconverge.policy.config import SamplerName
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.exact_arithmetic import set_arithmetic
from reconverge.policy.sampler_steps import unfit_steps, unfit_temperature

Row = dict[str, Any]
EACH_COLUMNS = ("split", "sampler", "sampling_steps", "temperature", *EPISODE_COLUMNS)
"""Of an episode: its list, how the policy acted, then the columns of `episodes.csv`, with which task and episode_seed pair it."""


class Acting(NamedTuple):
    """How a policy acts; the fields are columns of a row."""

    sampler: SamplerName
    steps: int
    temperature: float

    @property
    def words(self) -> str:
        return f"{self.sampler}, {self.steps} steps, temperature {self.temperature:g}"

    def policy(self, trained: DiffusionPolicy) -> DiffusionPolicy:
        """A copy that acts so."""
        return trained.acting_with(sampler=self.sampler, sampling_steps=self.steps, temperature=self.temperature)


@dataclass(frozen=True)
class Asked:
    """What of a checkpoint shall be measured. What is left out is as in the run; of stages the last, of tasks all that the policy is there for.

    Every combination of `samplers`, `sampling_steps` (denoising steps) and `temperatures` is a way of acting.
    """

    stage: int | None = None
    tasks: Sequence[str] = ()
    episodes: int | None = None
    split: Split | None = None
    samplers: Sequence[SamplerName] = ()
    sampling_steps: Sequence[int] = ()
    temperatures: Sequence[float] = ()
    device: str | None = None


def evaluate(folder: RunFolder, progress: Progress, asked: Asked = Asked(), each: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """One row per (sampler, denoising steps, temperature, task): the success of a stage's policy, and its expert's as `expert`.

    Every way of acting meets the same episodes with the same initial noise. A task that fails in its simulator is noted and has no episodes,
    its rate is NaN; SimulatorFailure where that is so of all of them. `each` is given every episode, as a row with `EACH_COLUMNS`.
    """
    set_arithmetic(folder.config.threads)
    checkpoint = checkpoint_of(folder, asked.stage)
    trained = DiffusionPolicy.load(checkpoint, asked.device or folder.config.device)
    plan = plan_evaluation(folder, checkpoint, trained, asked)
    updates = read_record(checkpoint)[0].updates
    starts, rows = evaluation_starts(plan.tasks, plan.episodes, plan.split), []
    with Simulators(folder.config.evaluation.workers) as simulators, progress.phase("evaluate", planned_steps(starts) * len(plan.settings)) as tick:
        for acting in plan.settings:
            done = rollout(acting.policy(trained), starts, simulators, tick=tick)
            for failure in done.failures:
                progress.note(f"not evaluated with {acting.words}: {failure}")
            if not done.results:
                done.require_all()
            way = {"split": plan.split, "sampler": acting.sampler, "sampling_steps": acting.steps, "temperature": acting.temperature}
            for result in done.results:
                each({**way, "purpose": "evaluate", "stage": plan.stage, "update": updates, **asdict(result)})
            for task in plan.tasks:
                valid = [result.success_any for result in done.of(task) if not result.invalid]
                rows.append(plan.row(acting, task, sum(valid), len(valid)))
    return rows


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured of a checkpoint: every task with every way of acting, on the first `episodes` episodes of a split."""

    folder: RunFolder
    checkpoint: Path
    tasks: list[Task]
    settings: list[Acting]
    episodes: int
    split: Split

    @cached_property
    def config(self) -> RunConfig:
        return self.folder.config

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """Task -> success of its expert, where the run says it."""
        return {ceiling.task: ceiling.rate for ceiling in read_run(self.folder.path).ceilings}

    @property
    def stage(self) -> int:
        return int(self.checkpoint.name.removeprefix("stage-"))

    def row(self, acting: Acting, task: Task, successes: int, episodes: int) -> Row:
        """A row of the table, from the successes among valid episodes; of a task that failed there are none."""
        rate = rate_columns(successes, episodes)
        return {"stage": self.stage, **acting._asdict(), "task": task.name, "split": self.split, **rate, "expert": self.ceilings.get(task.name)}


def plan_evaluation(folder: RunFolder, checkpoint: Path, policy: DiffusionPolicy, asked: Asked) -> EvaluationPlan:
    """Each task and way of acting once, whatever was asked twice.

    Raises UnknownName for a task that the policy does not know, ConfigError for steps or a temperature out of range.
    """
    config, own = folder.config, folder.config.policy
    chosen = list(dict.fromkeys(find_task(name) for name in asked.tasks or _learned_by(config, checkpoint, policy)))
    for task in chosen:
        policy.task_index(task)
    ways = product(asked.samplers or (own.sampler,), asked.sampling_steps or (own.sampling_steps,), asked.temperatures or (own.temperature,))
    settings = [Acting(*way) for way in dict.fromkeys(ways)]
    for acting in settings:
        if (problem := unfit_steps(acting.sampler, acting.steps, own)) is not None:
            raise ConfigError(f"--sampling-steps {acting.steps}: {problem}")
        if (problem := unfit_temperature(acting.sampler, acting.temperature)) is not None:
            raise ConfigError(f"--temperatures {acting.temperature:g} for {acting.sampler}: {problem}")
    episodes, split = asked.episodes or config.evaluation.episodes, asked.split or config.evaluation.split
    return EvaluationPlan(folder, checkpoint, chosen, settings, episodes, split)


def pooled(rows: Sequence[Row]) -> list[Row]:
    """One row per (sampler, steps, temperature), over all tasks."""
    pools: dict[Acting, list[Row]] = {}
    for row in rows:
        pools.setdefault(Acting(*(row[name] for name in Acting._fields)), []).append(row)
    return [
        {**acting._asdict(), **rate_columns(sum(row["successes"] for row in pool), sum(row["episodes"] for row in pool))}
        for acting, pool in pools.items()
    ]


def _learned_by(config: RunConfig, checkpoint: Path, policy: DiffusionPolicy) -> Sequence[str]:
    """The tasks that a checkpoint's policy is there for: all of the run's, but its own stage's where every task has a policy of its own."""
    own = read_record(checkpoint)[0].tasks if config.method == "single" else []
    return own or policy.tasks
