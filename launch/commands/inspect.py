"""`reconverge inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from reconverge.envs.errors import ConfigError, ReconvergeError, RunFolderError
from reconverge.launch.commands.command import Command, MaybePath
from reconverge.launch.commands.tables import Columns, print_table

if TYPE_CHECKING:
    from reconverge.eval.data_page import Collection


@dataclass(frozen=True)
class Inspect(Command):
    """Show what demonstrations hold: lengths, ranges, actions at their bounds, entries that say nothing, the expert's success.

    A folder may be a collection, hold collections, or be a run, whose demonstrations are shown. Every file is checked against its hash.

    Examples:
      reconverge inspect runs/demonstrations
      reconverge inspect runs/quickstart/trust-region/seed-0 --page runs/data.html
    """

    summary: ClassVar[str] = "what demonstrations hold, as a table and as a page"

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...", help_behavior_hint="")]
    """Collections, folders that hold them, or runs."""
    page: MaybePath = None
    """HTML file for a page with pictures; none when left out."""

    def run(self, command_line: str) -> int:
        if not self.folders:
            raise ConfigError("inspect needs at least one folder, such as runs/demonstrations")
        places = list(dict.fromkeys(place for folder in self.folders for place in _collections(folder)))
        from reconverge.eval.data_page import entries_in_words, table_row, write_data_page

        collections = [_read(place) for place in places]
        columns: Columns = {"task": "task", "episodes": "episodes", "expert %": "expert's success", "steps": "steps"}
        columns = {**columns, "at bounds,\n% of actions": "at_bounds", "entries that\nvary": "varies", "entries of an\nobservation": "observation"}
        rows = [table_row(one) for one in collections]
        print_table(rows, {**columns, "MB": "megabytes"})
        for one in collections:
            said = "; ".join(f"{numbers} {kind}" for kind, numbers in entries_in_words(one.statistics) if kind != "vary")
            print(f"{one.statistics.task}: {f'entries {said}' if said else 'every entry of an observation varies'}")
            if one.statistics.twins:
                print(f"{one.statistics.task}: {one.statistics.twins} episodes repeat another's actions exactly")
        if self.page is not None:
            print(f"page: {write_data_page(collections, self.page)}")
        return 0


def _collections(folder: Path) -> Iterator[Path]:
    """The folders of collections that a path stands for. Raises RunFolderError where there is none."""
    from reconverge.envs.demonstrations import collection_name
    from reconverge.envs.episodes import INDEX
    from reconverge.launch.run_folder import RunFolder, holds_run
    from reconverge.launch.stage_plan import demonstration_budgets, plan_stages, run_curriculum

    if (folder / INDEX).is_file():
        yield folder
        return
    if holds_run(folder):
        run = RunFolder(folder)
        plans = plan_stages(run.config, run_curriculum(run, run.config))
        root = Path(run.config.demonstrations.folder)
        found = [root / collection_name(task, run.config.demonstrations, count) for task, count in demonstration_budgets(plans).items()]
        found = [path for path in found if path.is_dir()]
        missing = f"the demonstrations of {folder} are not below {root}; start where the run was started"
    else:
        found = sorted(path.parent for path in folder.glob(f"*/{INDEX}"))
        missing = f"{folder} holds no demonstrations and is no run; `reconverge collect cw10:3` makes some below runs/demonstrations"
    if not found:
        raise RunFolderError(missing)
    yield from found


def _read(place: Path) -> Collection:
    from reconverge.envs.episodes import EpisodeStore
    from reconverge.envs.tasks import find_task
    from reconverge.eval.data_page import Collection
    from reconverge.eval.data_statistics import data_statistics
    from reconverge.eval.wording import percent

    episodes, facts = EpisodeStore(place).read()
    if not episodes:
        raise RunFolderError(f"{place} holds no episodes; delete it and collect again")
    statistics, attempts = data_statistics(episodes), facts.get("attempts")
    told = {"expert's success": f"{percent(len(episodes) / attempts)} of {attempts}" if isinstance(attempts, int) and attempts else "-"}
    if isinstance(facts.get("simulator"), str):
        told["simulator"] = facts["simulator"]
    try:
        positions = find_task(statistics.task).layout.positions
    except ReconvergeError:  # a task of one's own that is not installed here
        positions = ()
    return Collection(place, statistics, told, positions)
