"""A work in parts gives the bytes of the same work in one piece, and does no part twice: batches of demonstrations, cells of an evaluation.

The parts run in this process here, one after the other; tests/test_ray_backend.py gives them to a cluster.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from folder_contents import contents
from small_run import run, tiny

from reconverge.envs.demonstrations import BATCH, collect, missing_batches
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import PartFailed, UnsupportedEnvironment
from reconverge.envs.simulators import SimulatorFailure, Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.launch import demonstration_shards, evaluation_cells, parts
from reconverge.launch.backend import LocalBackend, ProcessOrder
from reconverge.launch.checkpoint_evaluation import Asked, Row, evaluate
from reconverge.launch.cli import main
from reconverge.launch.demonstration_shards import Wanted, make_shards, wanted_by
from reconverge.launch.evaluation_cells import EvaluationCell, measure_cells, missing_cells, plan_cells, table_rows
from reconverge.launch.parts import PartOrder, run_parts
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder

TASK = find_task("point-reach-1")
MAINS = {demonstration_shards.MODULE: demonstration_shards.main, evaluation_cells.MODULE: evaluation_cells.main}


class Ended:
    def __init__(self, code: int) -> None:
        self.code = code

    def exit_code(self) -> int:
        return self.code

    def ask_to_end(self) -> None: ...
    def kill(self) -> None: ...


class Here:
    """A back end of this process; `names` are the parts that it was given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, order: ProcessOrder) -> Ended:
        assert isinstance(order, PartOrder)
        self.names.append(order.name)
        order.log.touch()
        return Ended(MAINS[order.module](order.arguments))


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The expert fails in two of three attempts; the list holds the seeds that were tried."""
    whole, tried = Simulators.run_expert, list[int]()

    def run_expert(self: Simulators, task: Task, episode_seeds: list[int], *settings: float) -> list[Episode | None]:
        tried.extend(episode_seeds)
        return [episode if seed % 3 == 0 else None for seed, episode in zip(episode_seeds, whole(self, task, episode_seeds, *settings), strict=True)]

    monkeypatch.setattr(Simulators, "run_expert", run_expert)
    yield tried


def wanted(folder: Path, episodes: int, task: Task = TASK) -> Wanted:
    return Wanted(task, DemonstrationConfig(episodes, workers=0, folder=str(folder)), episodes)


def gathered(want: Wanted) -> None:
    collect(want.task, want.config, want.episodes, Path(want.config.folder))


# parts -----------------------------------------------------------------------------------------------------------------------------


def part(folder: Path, name: str, code: str) -> PartOrder:
    return PartOrder(name, code, (), folder / "order", folder / f"{name}.log", folder / f"{name}.result")


class Code:
    """Runs the module's name as code, in a process of this machine."""

    def __init__(self, order: ProcessOrder) -> None:
        assert isinstance(order, PartOrder)
        self.words, self.log = [sys.executable, "-c", order.module], order.log


def test_a_part_that_fails_stops_no_other_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SEEN_WITHIN_S", 0.5)
    good = [part(tmp_path, f"good {number}", f"open({str(tmp_path / f'good {number}.result')!r}, 'w')") for number in range(2)]
    bad = [
        part(tmp_path, "bad", "print('reconverge: no room'); raise SystemExit(2)"),
        part(tmp_path, "bug", "1 / 0"),
        part(tmp_path, "idle", "print('all well')"),
    ]
    late = part(tmp_path, "late", f"open({str(tmp_path / 'late.result')!r}, 'w'); 1 / 0")  # another one was faster: its result is there
    ended: list[int] = []
    failures = run_parts(lambda order: LocalBackend().start(Code(order)), [*bad, *good, late, good[0]], 2, lambda: ended.append(1))  # type: ignore[arg-type]
    assert sorted(str(failure) for failure in failures) == [
        f"bad: no room (log: {tmp_path}/bad.log)",
        f"bug: ZeroDivisionError: division by zero (log: {tmp_path}/bug.log)",
        f"idle: it ended well, and left no {tmp_path}/idle.result; do all machines see that folder? (log: {tmp_path}/idle.log)",
    ]
    assert len(ended) == 6 and not good[0].log.exists()


def test_never_more_parts_run_than_may_and_an_interruption_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Ended):
        asked = polls = 0

        def exit_code(self) -> int | None:  # type: ignore[override]
            self.polls += 1
            if self.polls == 5:
                raise KeyboardInterrupt
            return 130 if self.asked else None

        def ask_to_end(self) -> None:
            self.asked = 1

    started: list[Slow] = []

    def start(order: ProcessOrder) -> Slow:
        started.append(Slow(0))
        return started[-1]

    monkeypatch.setattr(parts, "POLL_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run_parts(start, [part(tmp_path, f"{number}", "") for number in range(5)], 2)
    assert [slow.asked for slow in started] == [1, 1]


# demonstrations --------------------------------------------------------------------------------------------------------------------


def test_batches_made_apart_give_the_bytes_of_a_collection_in_one_piece(tmp_path: Path) -> None:
    here, progress = Here(), Progress("quiet")
    wants = [wanted(tmp_path / "apart", episodes, find_task(f"point-reach-{episodes % 2}")) for episodes in (45, 20)]
    assert make_shards(here.start, wants, 4, progress) == []
    assert len(here.names) == len(set(here.names)) == 4
    assert not list((tmp_path / "apart").rglob("*.log"))
    for want in wants:
        gathered(want)
        gathered(replace(want, config=replace(want.config, folder=str(tmp_path / "whole"))))
    assert contents(tmp_path / "apart") == contents(tmp_path / "whole")
    assert make_shards(here.start, wants, 4, progress) == [] and len(here.names) == 4


def test_a_shard_is_told_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = Wanted(TASK, DemonstrationConfig(7, 3, 2, (0.5, 1.0), 1, str(tmp_path), 0.1, hasty=False), 7)
    want.write_task()
    seen: list[object] = []
    monkeypatch.setattr(demonstration_shards, "collect_batch", lambda *given: seen.append(given))
    assert demonstration_shards.main(want.order(4).arguments) == 0
    assert seen == [(TASK, want.config, 7, tmp_path, 4)]


def test_no_batch_is_made_that_one_machine_would_not_have_made(tmp_path: Path, unsure: list[int]) -> None:
    gathered(wanted(tmp_path / "whole", 30))
    whole, unsure[:] = list(unsure), []
    here, want = Here(), wanted(tmp_path / "apart", 30)
    assert missing_batches(TASK, want.config, 30, tmp_path / "apart") == [0, 1]  # if all of them succeed
    assert make_shards(here.start, [want], 4, Progress("quiet")) == []
    assert sorted(unsure) == sorted(whole) and len(whole) > 3 * BATCH
    gathered(want)
    assert contents(tmp_path / "apart") == contents(tmp_path / "whole")


def test_a_batch_that_is_lost_or_damaged_is_made_again_alone(tmp_path: Path) -> None:
    here, want = Here(), wanted(tmp_path, 60)
    make_shards(here.start, [want], 4, Progress("quiet"))
    batches = sorted(tmp_path.glob("*.partial/batch-*"))
    shutil.rmtree(batches[0])
    (batches[2] / "episodes.safetensors").write_bytes(b"half")
    assert make_shards(here.start, [want], 4, Progress("quiet")) == []
    assert here.names[3:] == ["point-reach-1 batch 0", "point-reach-1 batch 2"]


def test_an_expert_that_cannot_teach_ends_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulators, "run_expert", lambda self, task, seeds, *settings: [None] * len(seeds))
    here, want = Here(), wanted(tmp_path, 30)
    assert make_shards(here.start, [want], 4, Progress("quiet")) == []
    assert len(here.names) <= 6
    with pytest.raises(UnsupportedEnvironment, match="reached its goal in 0 of 100 attempts"):
        gathered(want)


def test_a_batch_that_fails_is_named_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(self: Simulators, task: Task, seeds: list[int], *settings: float) -> list[Episode | None]:
        raise SimulatorFailure(f"{task.name} fell apart")

    other = wanted(tmp_path, 20, find_task("point-reach-2"))
    make_shards(Here().start, [other], 4, Progress("quiet"))
    monkeypatch.setattr(Simulators, "run_expert", give_up)
    (failure,) = make_shards(Here().start, [wanted(tmp_path, 20), other], 4, Progress("quiet"))
    assert failure.startswith("point-reach-1 batch 0: exit code 2 (log: ")
    assert other.missing() == [] and wanted(tmp_path, 20).missing() == [0]


def test_a_batch_of_a_collection_that_another_process_finished_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faster(Here):
        def start(self, order: ProcessOrder) -> Ended:
            gathered(want)
            return Ended(0)

    want = wanted(tmp_path, 20)
    monkeypatch.setattr(parts, "SEEN_WITHIN_S", 0.0)
    assert make_shards(Faster().start, [want], 4, Progress("quiet")) == []


def test_a_sweep_wants_each_collection_once(tmp_path: Path) -> None:
    from toy_sweep import toy_job

    jobs = [toy_job(method=method, seed=seed) for method in ("replay", "joint") for seed in range(2)]
    assert [(want.task.name, want.episodes) for want in wanted_by(jobs)] == [("point-reach-0", 5), ("point-reach-1", 5)]


# cells -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("cells")
    config = tiny(folder, curriculum="point-reach:2", method="finetune")
    config = replace(config, train=replace(config.train, updates=150), recovery=replace(config.recovery, grid=()))
    return RunFolder.open(run(folder / "run", config))


def in_cells(start: Callable[[ProcessOrder], Ended], cells: list[EvaluationCell]) -> list[Row]:
    measure_cells(start, missing_cells(cells), 4, Progress("quiet"))
    return table_rows(cells, Progress("quiet"))


def test_cells_give_the_rows_of_an_evaluation_in_one_piece_and_none_is_measured_twice(trained: RunFolder, tmp_path: Path) -> None:
    here, before = Here(), contents(trained.path)
    cells = plan_cells(trained, tmp_path, Asked(episodes=12, samplers=("ddim", "dpm-solver++"), sampling_steps=(1, 5)))
    rows = in_cells(here.start, cells)
    assert rows == evaluate(trained, Progress("quiet"), Asked(episodes=12, samplers=("ddim", "dpm-solver++"), sampling_steps=(1, 5)))
    assert len({row["successes"] for row in rows}) > 2, rows
    assert len(here.names) == 8 and sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 8
    assert contents(trained.path) == before

    fewer = plan_cells(trained, tmp_path, Asked(episodes=12, samplers=("ddim",), sampling_steps=(5,), tasks=["point-reach-1"]))
    assert missing_cells(fewer) == []
    for cells in (plan_cells(trained, tmp_path, Asked(episodes=2)), plan_cells(trained, tmp_path, Asked(stage=1))):
        assert missing_cells(cells) == cells, "other episodes, other weights: other cells"


def test_a_damaged_cell_is_measured_again(trained: RunFolder, tmp_path: Path) -> None:
    cells = plan_cells(trained, tmp_path, Asked())
    rows = in_cells(Here().start, cells)
    whole = cells[0].result.read_text()
    for damaged in (whole[:20], json.dumps({**json.loads(whole), "successes": 10**6}), json.dumps({**json.loads(whole), "cell": {}}), "[]"):
        cells[0].result.write_text(damaged)
        assert missing_cells(cells) == [cells[0]]
    assert in_cells(Here().start, cells) == rows and cells[0].result.read_text() == whole


def test_a_task_whose_simulators_fail_has_no_episodes_and_is_tried_again(trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = EvaluationCell.measure
    fall_apart = lambda cell: evaluation_cells.CellResult(0, 0, "it fell apart") if cell.task == TASK else whole(cell)  # noqa: E731
    monkeypatch.setattr(EvaluationCell, "measure", fall_apart)
    cells = plan_cells(trained, tmp_path, Asked())
    first, second = in_cells(Here().start, cells)
    assert first["episodes"] == 3 and second["episodes"] == 0 and math.isnan(second["rate"])
    with pytest.raises(SimulatorFailure, match="it fell apart"):
        in_cells(Here().start, plan_cells(trained, tmp_path, Asked(tasks=["point-reach-1"])))
    monkeypatch.setattr(EvaluationCell, "measure", whole)
    assert [cell.task for cell in missing_cells(cells)] == [TASK]
    assert in_cells(Here().start, cells) == evaluate(trained, Progress("quiet"))


def test_a_machine_with_other_packages_measures_nothing(trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = plan_cells(trained, tmp_path, Asked())
    assert [cell.result.parent for cell in cells] == [tmp_path] * 2  # worked out here, before the other machine's packages are
    monkeypatch.setattr(evaluation_cells, "package_versions", lambda: {"torch": "1.0"})
    with pytest.raises(PartFailed, match="2 of 2 cells were not measured; the same command goes on with them: point-reach-0 with "):
        measure_cells(Here().start, cells, 1, Progress("quiet"))
    assert not list(tmp_path.glob("*.json"))


# the command line ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["collect point-reach:1", "evaluate nowhere"])
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--jobs 2", "--jobs goes with --backend ray, and this is local"),
        ("--ray-address 10.0.0.1:6379", "--ray-address goes with --backend ray"),
        ("--backend ray --jobs 0", "--jobs is 0; it must be at least 1"),
        ("--backend ray --gpus-per-job 1.5", "Ray gives fractions of one GPU only"),
        ("--backend slurm", "did you mean|known: "),
    ],
)
def test_options_of_a_cluster_are_checked(command: str, words: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), *words.split()]) == 2
    said = capsys.readouterr().err
    assert any(part in said for part in hint.split("|"))


def test_collect_shows_how_often_the_expert_succeeds(tmp_path: Path, unsure: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "point-reach:1", "--episodes", "5", "--workers", "0", "--folder", str(tmp_path), "--quiet"]) == 0
    task, kept, attempts, percent, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (task, kept) == ("point-reach-0", "5") and int(percent) == round(100 * 5 / int(attempts)) < 100
