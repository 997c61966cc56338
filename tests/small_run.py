"""Runs of the smoke preset on the toy world, trained in this process: one that learns its tasks, and a tiny one that takes a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.launch.config import RunConfig
from reconverge.launch.curriculum_run import train
from reconverge.launch.presets import find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder


def toy_config(folder: Path, **changes: object) -> RunConfig:
    """The smoke preset in this process, on one thread."""
    base = replace(
        find_preset("smoke"),
        threads=1,
        demonstrations=DemonstrationConfig(episodes=60, workers=0, folder=str(folder / "demonstrations")),
        evaluation=EvaluationConfig(episodes=20, workers=0),
        recovery=RecoveryConfig(episodes=10, grid=(2, 50, 300), probe_updates=400),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def run(path: Path, config: RunConfig) -> Path:
    with RunFolder.create(path, config, "test") as folder:
        train(config, folder, Progress("quiet"))
    return path


def tiny(folder: Path, **changes: object) -> RunConfig:
    base = find_preset("smoke")
    return toy_config(
        folder,
        train=replace(base.train, updates=20, log_every=3),
        replay=replace(base.replay, windows_per_task=32, generator=replace(base.replay.generator, updates=3)),
        evaluation=EvaluationConfig(episodes=3, workers=0),
        recovery=RecoveryConfig(episodes=3, grid=(2, 5), probe_updates=6),
        **changes,
    )
