"""A checkpoint evaluated again: on more episodes, on some tasks, with other samplers. Nothing in the run folder changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch

from reconverge.envs.errors import ConfigError
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import evaluation_starts, planned_steps, rollout
from reconverge.eval.run_results import read_run
from reconverge.launch.checkpoint import checkpoint_of, read_record
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import rate_columns
from reconverge.policy.config import SamplerName
from reconverge.policy.diffusion_policy import DiffusionPolicy

Row = dict[str, Any]


def evaluate(
    folder: RunFolder,
    progress: Progress,
    *,
    stage: int | None = None,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    samplers: Sequence[SamplerName] = (),
    sampling_steps: Sequence[int] = (),
    device: str | None = None,
) -> list[Row]:
    """One row per (sampler, denoising steps, task): the success of a stage's policy (the last by default), and its expert's as `expert`.

    What is left out is as in the run. Every combination meets the same episodes with the same initial noise. A task that fails in its
    simulator is noted and has no episodes, its rate is NaN; SimulatorFailure where that is so of all of them.
    """
    torch.set_num_threads(folder.config.threads)
    checkpoint = checkpoint_of(folder, stage)
    trained = DiffusionPolicy.load(checkpoint, device or folder.config.device)
    plan = plan_evaluation(folder, checkpoint, trained, tasks, episodes, samplers, sampling_steps)
    starts, rows = evaluation_starts(plan.tasks, plan.episodes), []
    with Simulators(folder.config.evaluation.workers) as simulators, progress.phase("evaluate", planned_steps(starts) * len(plan.settings)) as tick:
        for sampler, steps in plan.settings:
            done = rollout(trained.with_sampler(sampler, steps), starts, simulators, tick=tick)
            for failure in done.failures:
                progress.note(f"not evaluated with {sampler}, {steps} steps: {failure}")
            if not done.results:
                done.require_all()
            for task in plan.tasks:
                valid = [result.success_any for result in done.of(task) if not result.invalid]
                rows.append(plan.row(sampler, steps, task, sum(valid), len(valid)))
    return rows


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured of a checkpoint: every task with every (sampler, denoising steps), on its first `episodes` evaluation episodes."""

    folder: RunFolder
    checkpoint: Path
    tasks: list[Task]
    settings: list[tuple[SamplerName, int]]
    episodes: int

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

    def row(self, sampler: SamplerName, steps: int, task: Task, successes: int, episodes: int) -> Row:
        """A row of the table, from the successes among valid episodes; of a task that failed there are none."""
        row = {"stage": self.stage, "sampler": sampler, "steps": steps, "task": task.name}
        return {**row, **rate_columns(successes, episodes), "expert": self.ceilings.get(task.name)}


def plan_evaluation(
    folder: RunFolder,
    checkpoint: Path,
    policy: DiffusionPolicy,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    samplers: Sequence[SamplerName] = (),
    sampling_steps: Sequence[int] = (),
) -> EvaluationPlan:
    """See `evaluate`. Raises UnknownName for a task that the policy does not know, ConfigError for steps that its schedule does not have."""
    config = folder.config
    chosen = [find_task(name) for name in tasks or _learned_by(config, checkpoint, policy)]
    for task in chosen:
        policy.task_index(task)
    settings = list(product(samplers or (config.policy.sampler,), sampling_steps or (config.policy.sampling_steps,)))
    for _, steps in settings:
        if not 1 <= steps <= config.policy.timesteps:
            raise ConfigError(f"--sampling-steps {steps} is outside 1 to {config.policy.timesteps}, the policy's diffusion timesteps")
    return EvaluationPlan(folder, checkpoint, chosen, settings, episodes or config.evaluation.episodes)


def pooled(rows: Sequence[Row]) -> list[Row]:
    """One row per (sampler, steps), over all tasks."""
    settings = dict.fromkeys((row["sampler"], row["steps"]) for row in rows)
    pools = {key: [row for row in rows if (row["sampler"], row["steps"]) == key] for key in settings}
    return [
        {"sampler": sampler, "steps": steps, **rate_columns(sum(row["successes"] for row in pool), sum(row["episodes"] for row in pool))}
        for (sampler, steps), pool in pools.items()
    ]


def _learned_by(config: RunConfig, checkpoint: Path, policy: DiffusionPolicy) -> Sequence[str]:
    """The tasks that a checkpoint's policy is there for: all of the run's, but its own stage's where every task has a policy of its own."""
    own = read_record(checkpoint)[0].tasks if config.method == "single" else []
    return own or policy.tasks
