"""A small run folder with plausible numbers and no training behind it: what `reconverge train` would have written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from reconverge.envs.seeding import numpy_stream
from reconverge.eval import recovery
from reconverge.eval.intervals import wilson
from reconverge.launch.config_file import HEADER

POINT_REACH = ("point-reach-0", "point-reach-1", "point-reach-2")
GRID = (2, 6, 10, 25, 50, 100, 200, 400)
EPISODES = 20
UPDATES = 500


def write_run(folder: Path, stages: Sequence[str] = POINT_REACH, method: str = "trust-region", seed: int = 0, done: int | None = None) -> Path:
    """A run over `stages` of which `done` are finished (default all); a larger `forgetting` for finetune than for the others."""
    folder.mkdir(parents=True)
    done = len(stages) if done is None else done
    matrix = _success_counts(stages, method, seed)
    _write_settings(folder, stages, method, seed)
    _write_matrix(folder, stages, matrix, done)
    _write_episodes(folder, stages, matrix, done)
    _write_recovery(folder, stages, matrix, method, seed, done)
    _write_upkeep(folder, stages, method, done)
    return folder


def write_rollouts(folder: Path, episode_seeds: Sequence[int] = (11,), states: int = 6) -> None:
    """Stored physics states of every task up to each stage; success at the last step for the task of the stage itself."""
    stages = [stage["task"] for stage in yaml.safe_load((folder / "curriculum.yaml").read_text())["tasks"]]
    for stage in range(1, len(stages) + 1):
        target = folder / "rollouts" / f"stage-{stage:02d}"
        target.mkdir(parents=True)
        for task in stages[:stage]:
            arrays = {}
            for episode_seed in episode_seeds:
                success = np.zeros(states - 1, dtype=np.uint8)
                success[-2:] = task == stages[stage - 1]
                arrays[f"{episode_seed}.states"] = np.linspace(-0.5, 0.5, states * 2).reshape(states, 2)
                arrays[f"{episode_seed}.success"] = success
            save_file(arrays, target / f"{task}.safetensors")


def _success_counts(stages: Sequence[str], method: str, seed: int) -> dict[tuple[int, str], int]:
    random, keep = numpy_stream("synthetic", method, seed), 0.15 if method == "finetune" else 0.95
    counts: dict[tuple[int, str], int] = {(0, task): int(random.binomial(EPISODES, 0.04)) for task in dict.fromkeys(stages)}
    level: dict[str, float] = {}
    for stage, task in enumerate(stages, start=1):
        level = {old: rate * keep for old, rate in level.items()} | {task: 0.92}
        counts |= {(stage, old): int(random.binomial(EPISODES, rate)) for old, rate in level.items()}
        if stage < len(stages):
            counts.setdefault((stage, stages[stage]), int(random.binomial(EPISODES, 0.1)))
    return counts


def _write_settings(folder: Path, stages: Sequence[str], method: str, seed: int) -> None:
    config = {
        "curriculum": "synthetic",
        "method": method,
        "seed": seed,
        "device": "cpu",
        "train": {"updates": UPDATES, "batch": 256},
        "policy": {"window": 2, "horizon": 4, "sampler": "ddim"},
        "evaluation": {"episodes": EPISODES},
    }
    (folder / "config.yaml").write_text(HEADER + yaml.safe_dump(config, sort_keys=False))
    entries = [{"task": task, "updates": UPDATES, "demonstrations": 100} for task in stages]
    (folder / "curriculum.yaml").write_text(yaml.safe_dump({"name": "synthetic", "tasks": entries}))
    (folder / "command.txt").write_text(f"reconverge train --curriculum synthetic --method {method} --seed {seed}\n")
    fingerprint = {
        "versions": {"torch": "2.9.0", "numpy": "2.3.0"},
        "git_commit": "0123456789abcdef",
        "simulator": "mujoco 3.3.0",
        "machine": "x86_64, 2 cores",
        "python": "3.12.1",
        "parameters": 849_412,
        "denoiser": "residual-mlp",
    }
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint))


def _write_matrix(folder: Path, stages: Sequence[str], matrix: dict[tuple[int, str], int], done: int) -> None:
    header = "stage,task,episodes,successes,rate,wilson_low,wilson_high"
    rows = [(stage, task, *_rated(successes, EPISODES)) for (stage, task), successes in sorted(matrix.items()) if stage <= done]
    write_csv(folder / "success_matrix.csv", header, rows)
    ceilings = [(task, *_rated(118 - index, 120)) for index, task in enumerate(dict.fromkeys(stages))]
    write_csv(folder / "ceilings.csv", "task,attempts,successes,rate,wilson_low,wilson_high", ceilings)


def _rated(successes: int, episodes: int) -> tuple[int, int, float, float, float]:
    return episodes, successes, successes / episodes, *wilson(successes, episodes)


def _write_episodes(folder: Path, stages: Sequence[str], matrix: dict[tuple[int, str], int], done: int) -> None:
    rows = []
    for (stage, task), successes in sorted(matrix.items()):
        if stage <= done:
            rows += [
                ("matrix", stage, stage * UPDATES, task, k, int(k < successes), int(k < successes), 9 if k < successes else "", 30, 0)
                for k in range(EPISODES)
            ]
    write_csv(
        folder / "episodes.csv", "purpose,stage,update,task,episode_seed,success_any,success_final,first_success_step,steps,invalid", rows
    )


def _write_recovery(folder: Path, stages: Sequence[str], matrix: dict[tuple[int, str], int], method: str, seed: int, done: int) -> None:
    random, points, figures = numpy_stream("synthetic curve", method, seed), [], []
    depth, back = (0.95, 0.05) if method == "finetune" else (0.5, 0.98)
    for stage in range(2, done + 1):
        for task in dict.fromkeys(stages[: stage - 1]):
            own = list(stages).index(task) + 1
            reference, start = matrix[own, task] / EPISODES, matrix[stage - 1, task]
            counts = [start]
            for update in GRID:
                rate = start / EPISODES * (1 - depth * min(1, update / 10)) + reference * back * depth * min(1, max(0, update - 10) / 150)
                counts.append(int(random.binomial(EPISODES, min(1.0, rate))))
            counts.append(matrix[stage, task])
            curve = recovery.Curve((0, *GRID, UPDATES), [count / EPISODES for count in counts])
            points += [("online", stage, task, update, EPISODES, count) for update, count in zip(curve.updates, counts, strict=True)]
            figures += [
                ("online", stage, task, threshold, _blank(recovery.recovery_updates(curve, reference, threshold)),
                 recovery.dip(curve, reference), recovery.dip_area(curve, reference), reference)
                for threshold in (99, 90, 80)
            ]  # fmt: skip
    write_csv(folder / "recovery_curves.csv", "kind,stage,task,update,episodes,successes", points)
    write_csv(folder / "recovery.csv", "kind,stage,task,threshold,updates,dip,dip_area,reference_rate", figures)


def _blank(updates: int | None) -> int | str:
    return "" if updates is None else updates


def _write_upkeep(folder: Path, stages: Sequence[str], method: str, done: int) -> None:
    ledger = [(stage, item, size, 0) for stage in range(1, done + 1) for item, size in _kept(stage, method)]
    write_csv(folder / "ledger.csv", "stage,item,bytes,past_task_data", ledger)
    if method == "trust-region":
        fisher = [(stage, stages[stage - 1], 2000, 0.031, 14.2, 0.83 - 0.2 * (stage % 3), 0.12, 0.41) for stage in range(1, done + 1)]
        write_csv(folder / "fisher.csv", "stage,task,draws,mu_norm,curvature,split_half_cosine,collinearity,spectral_ratio", fisher)
    lines = [
        {"stage": stage, "update": update, "loss": 0.9 * 0.995**update + 0.05, "replay_loss": 0.02 if stage > 1 else None, "penalty": 0.001,
         "gradient_norm": 0.4, "largest_gradient_norm": 0.7, "learning_rate": 1e-3}
        for stage in range(1, done + 1) for update in range(25, UPDATES + 1, 25)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    phases = {"demonstrations": 31.0, "update": 122.5, "generator": 60.1, "fisher": 4.2, "evaluate": 88.0, "recovery": 70.3, "checkpoint": 1.1}
    (folder / "cost.json").write_text(json.dumps({"phases": phases, "total_s": 380.0, "episodes_evaluated": 1240}))


def _kept(stage: int, method: str) -> list[tuple[str, int]]:
    kept = [("policy", 3_400_000), ("teacher", 3_400_000)]
    if method != "finetune":
        kept.append(("generator", 5_100_000))
    return [*kept, ("fisher", 3_400_000 * stage)] if method == "trust-region" else kept


def write_csv(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)
