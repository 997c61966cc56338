"""A checkpoint evaluated again: on more episodes, on some tasks, with other samplers. Nothing in the run folder changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from reconverge.envs.errors import ConfigError
from reconverge.envs.simulators import Simulators
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
SETTING = ("sampler", "steps", "temperature")
"""The columns of a row that say how the policy acted."""


def evaluate(
    folder: RunFolder,
    progress: Progress,
    *,
    stage: int | None = None,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    samplers: Sequence[SamplerName] = (),
    sampling_steps: Sequence[int] = (),
    temperatures: Sequence[float] = (),
    device: str | None = None,
) -> list[Row]:
    """One row per (sampler, denoising steps, temperature, task): the success of a stage's policy (the last by default), and its expert's as `expert`.

    What is left out is as in the run. Every combination meets the same episodes with the same initial noise. A task that fails in its
    simulator is noted and has no episodes, its rate is NaN; SimulatorFailure where that is so of all of them.
    """
    config = folder.config
    torch.set_num_threads(config.threads)
    checkpoint = checkpoint_of(folder, stage)
    trained = DiffusionPolicy.load(checkpoint, device or config.device)
    chosen = [find_task(name) for name in tasks or _learned_by(config, checkpoint, trained)]
    for task in chosen:
        trained.task_index(task)  # a task that the policy does not know is refused before any is rolled out
    own = config.policy
    settings = list(product(samplers or (own.sampler,), sampling_steps or (own.sampling_steps,), temperatures or (own.temperature,)))
    for _, steps, temperature in settings:
        if not 1 <= steps <= own.timesteps:
            raise ConfigError(f"--sampling-steps {steps} is outside 1 to {own.timesteps}, the policy's diffusion timesteps")
        if not 0 <= temperature <= 1:
            raise ConfigError(f"--temperatures {temperature:g} is outside 0 to 1")

    number = int(checkpoint.name.removeprefix("stage-"))
    ceilings = {ceiling.task: ceiling.rate for ceiling in read_run(folder.path).ceilings}
    starts, rows = evaluation_starts(chosen, episodes or config.evaluation.episodes), []
    with Simulators(config.evaluation.workers) as simulators, progress.phase("evaluate", planned_steps(starts) * len(settings)) as tick:
        for sampler, steps, temperature in settings:
            acting = trained.acting_with(sampler=sampler, sampling_steps=steps, temperature=temperature)
            done = rollout(acting, starts, simulators, tick=tick)
            for failure in done.failures:
                progress.note(f"not evaluated with {sampler}, {steps} steps, temperature {temperature:g}: {failure}")
            if not done.results:
                done.require_all()
            for task in chosen:
                valid = [result.success_any for result in done.of(task) if not result.invalid]
                setting = {"stage": number, "sampler": sampler, "steps": steps, "temperature": temperature}
                rows.append({**setting, "task": task.name, **rate_columns(sum(valid), len(valid)), "expert": ceilings.get(task.name)})
    return rows


def pooled(rows: Sequence[Row]) -> list[Row]:
    """One row per (sampler, steps, temperature), over all tasks."""
    pools: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        pools.setdefault(tuple(row[name] for name in SETTING), []).append(row)
    return [
        {**dict(zip(SETTING, setting, strict=True)), **rate_columns(sum(row["successes"] for row in pool), sum(row["episodes"] for row in pool))}
        for setting, pool in pools.items()
    ]


def _learned_by(config: RunConfig, checkpoint: Path, policy: DiffusionPolicy) -> Sequence[str]:
    """The tasks that a checkpoint's policy is there for: all of the run's, but its own stage's where every task has a policy of its own."""
    own = read_record(checkpoint)[0].tasks if config.method == "single" else []
    return own or policy.tasks
