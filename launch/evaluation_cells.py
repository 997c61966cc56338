"""The evaluation of a checkpoint on many machines: a cell is one task with one way of acting.

    CELLS_DIR/<address>.json      {"cell": all that it depends on, "successes": 83, "episodes": 100, "failure": ""}

An episode is the same alone and in company (see `rollout`), hence so is the table. A cell is known by a hash of all that it depends on:
the weights, the task and its simulator, how the policy acts, the episodes, the versions of the packages. One that is there is not measured again.

`python -m reconverge.launch.evaluation_cells RUN STAGE TASK SAMPLER STEPS TEMPERATURE EPISODES SPLIT DEVICE RESULT` measures one cell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from reconverge.envs.artifact import MANIFEST, listed_files, write_file
from reconverge.envs.errors import DamagedFile, PartFailed
from reconverge.envs.plain_json import read_json, read_json_object
from reconverge.envs.simulator_fingerprint import simulator_fingerprint
from reconverge.envs.simulators import SimulatorFailure
from reconverge.envs.task import Task
from reconverge.eval.config import Split
from reconverge.launch.backend import ProcessOrder, Running
from reconverge.launch.checkpoint import checkpoint_of
from reconverge.launch.checkpoint_evaluation import Acting, Asked, EvaluationPlan, Row, evaluate, plan_evaluation
from reconverge.launch.cli import guarded
from reconverge.launch.commands.command import check_device
from reconverge.launch.fingerprint import package_versions
from reconverge.launch.job import address
from reconverge.launch.job_process import end_with_parent
from reconverge.launch.parts import PartOrder, in_words, run_parts
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import SamplerName
from reconverge.policy.diffusion_policy import DiffusionPolicy

MODULE = "reconverge.launch.evaluation_cells"
FORMAT = 1
POLICY_FILES = ("policy.safetensors", "policy.json")


@dataclass(frozen=True)
class CellResult:
    """Successes among the valid episodes of a cell; `failure` is why its simulators gave the task up, empty where they did not."""

    successes: int
    episodes: int
    failure: str = ""


@dataclass(frozen=True)
class EvaluationCell:
    """One cell of a plan; `device` is where its policy acts, `folder` holds the finished cells."""

    plan: EvaluationPlan
    acting: Acting
    task: Task
    device: str
    folder: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "format": FORMAT,
            "policy": _digests(self.plan.checkpoint),
            "task": self.task.name,
            "horizon": self.task.horizon,
            "simulator": simulator_fingerprint(self.task),
            "acting": list(self.acting),
            "episodes": self.plan.episodes,
            "split": self.plan.split,
            "device": self.device.partition(":")[0],
            "threads": self.plan.config.threads,
            "versions": package_versions(),
        }

    @cached_property
    def result(self) -> Path:
        return self.folder / f"{address(self.content)[:32]}.json"

    def order(self) -> PartOrder:
        plan, result = self.plan, self.result
        what = (self.task.name, *map(str, self.acting), str(plan.episodes), plan.split, self.device)
        words = (str(plan.folder.path), str(plan.stage), *what, str(result))
        name = f"{self.task.name} with {self.acting.words}"
        return PartOrder(name, MODULE, words, plan.folder.config_yaml, result.with_suffix(".log"), result, plan.config.threads, self.device)

    def read(self) -> CellResult | None:
        """None while it is not there, or damaged, which is the same."""
        try:
            found = read_json_object(self.result)
            result = CellResult(found["successes"], found["episodes"], found["failure"])
        except (OSError, DamagedFile, KeyError):
            return None
        sound = type(result.successes) is int and type(result.episodes) is int and isinstance(result.failure, str)
        return result if sound and 0 <= result.successes <= result.episodes <= self.plan.episodes and found.get("cell") == self.content else None

    def measure(self) -> CellResult:
        """Roll out its episodes here."""
        sampler, steps, temperature = self.acting
        asked = Asked(self.plan.stage, [self.task.name], self.plan.episodes, self.plan.split, [sampler], [steps], [temperature], self.device)
        try:
            (row,) = evaluate(self.plan.folder, Progress("quiet"), asked)
        except SimulatorFailure as failure:
            return CellResult(0, 0, str(failure))
        return CellResult(row["successes"], row["episodes"])

    def write(self, result: CellResult) -> None:
        write_file(self.result, json.dumps({"cell": self.content, **vars(result)}, indent=1) + "\n")


def cells_of(plan: EvaluationPlan, device: str, folder: Path) -> list[EvaluationCell]:
    """In the order of the table's rows."""
    return [EvaluationCell(plan, acting, task, device, folder) for acting in plan.settings for task in plan.tasks]


def missing_cells(cells: Sequence[EvaluationCell]) -> list[EvaluationCell]:
    """Those that are not there, and those whose simulators failed, which is tried again."""
    return [cell for cell in cells if (found := cell.read()) is None or found.failure]


def measure_cells(start: Callable[[ProcessOrder], Running], cells: Sequence[EvaluationCell], limit: int, progress: Progress) -> None:
    """Measure these cells, at most `limit` at once; `start` is that of a back end.

    Raises PartFailed for cells that ended with an error. Finished ones stay whatever happens; an interruption ends the running ones.
    """
    for cell in cells:
        cell.folder.mkdir(parents=True, exist_ok=True)
        if missing_cells([cell]):  # else the same command elsewhere has just finished it
            cell.result.unlink(missing_ok=True)
    with progress.phase("cells", len(cells)) as tick:
        failures = run_parts(start, [cell.order() for cell in cells], limit, tick)
    if failures:
        raise PartFailed(f"{len(failures)} of {len(cells)} cells were not measured; the same command goes on with them: {in_words(failures)}")


def table_rows(cells: Sequence[EvaluationCell], progress: Progress) -> list[Row]:
    """The rows that `evaluate` gives. Raises SimulatorFailure where every task of a setting failed, PartFailed for a cell that is not there."""
    rows: list[Row] = []
    failures: dict[Acting, list[str]] = {}
    for cell in cells:
        result = cell.read()
        if result is None:
            raise PartFailed(f"{cell.result} is not there though its process ended well; do all machines see {cell.folder.absolute()}?")
        if result.failure:
            progress.note(f"not evaluated with {cell.acting.words}: {result.failure}")
        failures.setdefault(cell.acting, []).append(result.failure)
        rows.append(cell.plan.row(cell.acting, cell.task, result.successes, result.episodes))
    for of_setting in failures.values():
        if all(of_setting):
            raise SimulatorFailure("; ".join(of_setting))
    return rows


def plan_cells(folder: RunFolder, cells_dir: Path, asked: Asked) -> list[EvaluationCell]:
    """The cells of an evaluation, with the errors of `evaluate`. The policy is only looked at, on the CPU."""
    checkpoint = checkpoint_of(folder, asked.stage)
    plan = plan_evaluation(folder, checkpoint, DiffusionPolicy.load(checkpoint), asked)
    return cells_of(plan, asked.device or folder.config.device, cells_dir)


def _digests(checkpoint: Path) -> list[str]:
    """SHA-256 of the files of the policy, as the manifest says; whoever loads the policy checks them."""
    files = listed_files(read_json(checkpoint / MANIFEST))
    return [files[name][1] for name in POLICY_FILES]


def main(words: Sequence[str]) -> int:
    """Measure one cell; its exit code means what it means for `reconverge evaluate`."""
    path, stage, task, sampler, steps, temperature, episodes, split, device, result = words

    def work() -> int:
        check_device(device)
        folder = RunFolder.open(Path(path))
        how = [cast(SamplerName, sampler)], [int(steps)], [float(temperature)]
        asked = Asked(int(stage), [task], int(episodes), cast(Split, split), *how, device)
        (cell,) = plan_cells(folder, Path(result).parent, asked)
        if cell.result != Path(result):
            here = ", ".join(f"{name} {version}" for name, version in cell.content["versions"].items())
            raise PartFailed(f"{path} is not the same here as where the command was started, or the packages are not; here are {here}")
        cell.write(cell.measure())
        return 0

    return guarded(work)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
