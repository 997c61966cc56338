"""Demonstrations collected on many machines: a shard is a batch of attempts, which `collect` keeps beside an unfinished collection anyway.

    missing      batches that the collection is sure to need           hammer-v3-100-<digest>.partial/batch-0000 ... batch-0004
    run          each as a process of its own, wherever there is room  one whose machine dies is done again on another
    again        until none is missing: attempts that failed call for more batches
    collect      as on one machine; it finds all its batches there     the same bytes, however many machines made them

Started as `python -m reconverge.launch.demonstration_shards CURRICULUM.yaml BATCH SETTINGS`, the settings of the demonstrations
as JSON, this makes one shard.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import Curriculum, Stage, load_curriculum
from reconverge.envs.demonstrations import batch_folder, collect_batch, collection_name, missing_batches, partial_folder
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import ReconvergeError
from reconverge.envs.plain_json import parse_json
from reconverge.envs.task import Task
from reconverge.launch.backend import ProcessOrder, Running
from reconverge.launch.cli import guarded
from reconverge.launch.job import Job
from reconverge.launch.job_process import end_with_parent
from reconverge.launch.parts import PartOrder, in_words, run_parts
from reconverge.launch.progress import Progress
from reconverge.launch.stage_plan import demonstration_budgets

MODULE = "reconverge.launch.demonstration_shards"


@dataclass(frozen=True)
class Wanted:
    """Demonstrations of a task that shall be there: `episodes` of them, in the folder of `config`."""

    task: Task
    config: DemonstrationConfig
    episodes: int

    @property
    def collection(self) -> Path:
        return Path(self.config.folder) / collection_name(self.task, self.config, self.episodes)

    @property
    def curriculum_file(self) -> Path:
        return partial_folder(self.collection) / "curriculum.yaml"

    def missing(self) -> list[int]:
        """See `missing_batches`. None of an archive that may run code: only who trusts it opens it, and files do not hand trust on."""
        if self.task.expert is not None and self.task.expert.trusted:
            return []
        return missing_batches(self.task, self.config, self.episodes, Path(self.config.folder))

    def order(self, batch: int) -> PartOrder:
        config, curriculum_file = self.config, self.curriculum_file
        # One process simulates: room for more is left to more shards.
        settings = asdict(replace(config, episodes=self.episodes, workers=min(1, config.workers)))
        words = (str(curriculum_file), str(batch), json.dumps(settings))
        shard = batch_folder(self.collection, batch)
        return PartOrder(f"{self.task.name} batch {batch}", MODULE, words, curriculum_file, shard.with_suffix(".log"), shard)

    def write_task(self) -> None:
        """Write the file by which a shard's process knows the task."""
        self.curriculum_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.curriculum_file, Curriculum("shard", (Stage(1, self.task),)).to_yaml())


def wanted_by(jobs: Iterable[Job]) -> list[Wanted]:
    """What the jobs of a sweep need, each collection once."""
    wanted = [
        Wanted(task, replace(job.config.demonstrations, episodes=count), count)
        for job in jobs
        for task, count in demonstration_budgets(job.plans).items()
    ]
    return list({want.collection: want for want in wanted}.values())


def make_shards(start: Callable[[ProcessOrder], Running], wanted: Sequence[Wanted], limit: int, progress: Progress) -> list[str]:
    """Make every batch that the collections lack, at most `limit` at once; say which collections could not be given all of theirs, and why.

    `start` is that of a back end. Finished batches stay whatever happens; an interruption ends the running ones.
    """
    left, failed = list(wanted), []
    with progress.phase("demonstration batches") as tick:
        while left:
            parts: dict[PartOrder, Wanted] = {}
            for want in list(left):
                try:
                    missing = want.missing()
                except ReconvergeError as error:
                    failed.append(str(error))
                    missing = []
                if not missing:
                    left.remove(want)
                    continue
                want.write_task()
                parts |= {want.order(batch): want for batch in missing}
            tick.at(tick.done, tick.done + len(parts))
            failures = run_parts(start, parts, limit, tick)
            for want in {parts[failure.part]: None for failure in failures}:
                # A batch that is no longer missing is no failure: another process may have finished the collection, and cleared its batches away.
                lacking = {want.order(batch) for batch in want.missing()}
                if of_it := [failure for failure in failures if failure.part in lacking]:
                    failed.append(in_words(of_it))
                    left.remove(want)
    return failed


def main(words: Sequence[str]) -> int:
    """Make one shard; its exit code means what it means for `reconverge collect`."""
    curriculum_file, batch, text = words
    settings = parse_json(text.encode(), "the settings of a shard")
    config = DemonstrationConfig(**{**settings, "paces": tuple(settings["paces"])})

    def work() -> int:
        (task,) = load_curriculum(curriculum_file, trusting=False).tasks
        collect_batch(task, config, config.episodes, Path(config.folder), int(batch))
        return 0

    return guarded(work)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
