"""The diagnosis: what the checkpoints of a run say about the assumptions its method rests on.

    RUN/diagnostics/fisher_structure.csv   is the Fisher rank one?                  at every stage's optimum, on its own task
                    meta_gradient.csv      is the old-task update a meta-learner's? per stage and earlier task
                    optima_distance.csv    how far apart are the optima?            per pair of stages
                    replay_fidelity.csv    how real are the replayed windows?       per stage and earlier task
                    action_spread.csv      is there anything to sample?     per stage and task learned so far
                    executed_starts.csv    does acting from them succeed?           per task, with the teacher that has just learned it
                    window_strokes.csv     what do they look like?                  the same, drawn in replayed_windows.png

Stage t is looked at with what it learned beside: the teacher, the replay source and the trust region as they were at the end
of stage t - 1, and theta as it was at the end of stage t. For the meta-learners, whose update is no such sum, the gradient on their
replay stands for it. Real windows come from the demonstrations, collected again where they are not at hand. The run itself is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from reconverge.envs.artifact import write_file
from reconverge.envs.demonstrations import data_digest
from reconverge.envs.errors import ConfigError
from reconverge.envs.simulators import Simulators
from reconverge.eval import plots
from reconverge.eval.config import DiagnosisConfig
from reconverge.eval.diagnostics_results import DIRECTIONS, ExecutedRow, SpreadRow
from reconverge.eval.fisher_structure import FisherStructure
from reconverge.eval.optima_distance import optima_distances
from reconverge.eval.window_picture import Stroke, window_picture
from reconverge.launch.checkpoint import checkpoint_of, finished_stages
from reconverge.launch.progress import Progress
from reconverge.launch.run_demonstrations import collect_all
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import write_csv
from reconverge.launch.stage_diagnosis import StageDiagnosis
from reconverge.launch.stage_plan import StagePlan, plan_stages, run_curriculum
from reconverge.policy.exact_arithmetic import set_arithmetic

Row = dict[str, Any]
Tables = dict[str, list[Row]]

COLUMNS = {
    "fisher_structure": ("stage", "task", "first_timestep", "last_timestep", *(field.name for field in fields(FisherStructure))),
    "meta_gradient": ("stage", "task", "alpha", "batch", *DIRECTIONS, "meta_norm", "replay_norm", "penalty_norm"),
    "optima_distance": ("stage", "task", "other_stage", "other_task", "distance", "relative"),
    "replay_fidelity": (
        "stage", "task", "windows", "purity", "purity_real", "outside", "outside_real", "distance", "distance_real",
        "teacher_gap", "teacher_gap_real",
    ),
    "action_spread": tuple(field.name for field in fields(SpreadRow)),
    "executed_starts": tuple(field.name for field in fields(ExecutedRow)),
    "window_strokes": tuple(field.name for field in fields(Stroke)),
}  # fmt: skip


def diagnose(folder: RunFolder, progress: Progress, settings: DiagnosisConfig, stages: Sequence[int] = (), device: str | None = None) -> Tables:
    """Diagnose the given stages of a run (all finished ones by default), write the tables to its folder and return them.

    The tables of an earlier diagnosis are replaced. Raises ConfigError for a stage below 1, RunFolderError for one without a checkpoint.
    """
    if any(stage < 1 for stage in stages):
        raise ConfigError(f"--stages holds {min(stages)}; stage 1 is the first in which something is learned")
    config = folder.config if device is None else replace(folder.config, device=device)
    set_arithmetic(config.threads)
    checkpoint_of(folder, None)
    for stage in stages:
        checkpoint_of(folder, stage)
    chosen = [stage for stage in finished_stages(folder.checkpoints) if stage > 0 and (not stages or stage in stages)]
    plans = {plan.number: plan for plan in plan_stages(config, run_curriculum(folder, config))}
    with Simulators(config.evaluation.workers) as simulators:
        demonstrations = collect_all(list(plans.values()), config, simulators, progress)
    folder.keep_facts("demonstrations", {task.name: data_digest(found) for task, found in demonstrations.items()})

    tables: Tables = {name: [] for name in COLUMNS}
    optima: list[Tensor] = []
    with progress.phase("diagnose", len(chosen)) as tick:
        for stage in chosen:
            diagnosis = StageDiagnosis(config, settings, folder, plans, stage, demonstrations)
            tables["fisher_structure"] += diagnosis.fisher()
            tables["meta_gradient"] += diagnosis.alignment()
            tables["replay_fidelity"] += diagnosis.fidelity()
            tables["action_spread"] += diagnosis.spread()
            tables["executed_starts"] += diagnosis.executed()
            tables["window_strokes"] += diagnosis.pictured()
            optima.append(diagnosis.theta.cpu())
            tick()
    tables["optima_distance"] = _distances([plans[stage] for stage in chosen], optima)
    folder.check_held()
    (folder.path / "diagnostics").mkdir(exist_ok=True)
    for name, columns in COLUMNS.items():
        write_csv(folder.path / "diagnostics" / f"{name}.csv", columns, tables[name])
    picture = window_picture([Stroke(**row) for row in tables["window_strokes"]])
    if picture is not None:
        write_file(folder.path / "diagnostics" / "replayed_windows.png", plots.png(picture))
    return tables


def _distances(plans: Sequence[StagePlan], optima: Sequence[Tensor]) -> list[Row]:
    """One row per ordered pair of stages: the distance, and as a share of the first one's length."""
    distances, relative = optima_distances(optima)
    return [
        {"stage": one.number, "task": one.title, "other_stage": other.number, "other_task": other.title}
        | {"distance": float(distances[i, j]), "relative": float(relative[i, j])}
        for i, one in enumerate(plans)
        for j, other in enumerate(plans)
        if i != j
    ]
