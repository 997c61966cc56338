"""FLOPs against products of sizes; counting changes no bit; cost.json, pages and tables have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from csv_rows import rows_of
from forked_run import everything
from small_run import run, tiny
from synthetic_run import write_run
from torch import nn

from reconverge.envs.errors import DamagedFile
from reconverge.eval import flops
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.flops import SecondPiece, counted, flops_of_query, flops_of_run, queries
from reconverge.eval.report import write_report
from reconverge.eval.run_results import read_run
from reconverge.eval.wording import flops as in_words
from reconverge.launch.curriculum_run import train
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.diffusion_policy import DiffusionPolicy


def test_forward_and_backward_of_a_linear_layer() -> None:
    """(B, m) by (m, n): 2 B m n forward; backward the same for the weights and, where it is asked for, for the input."""
    layer, batch = nn.Linear(5, 7), torch.ones(3, 5)
    result, forward = counted(lambda: layer(batch))
    assert forward == 2 * 3 * 5 * 7
    assert counted(lambda: result.sum().backward())[1] == 2 * 3 * 5 * 7
    deep = layer(batch.clone().requires_grad_())
    assert counted(lambda: deep.sum().backward())[1] == 2 * 2 * 3 * 5 * 7
    assert counted(lambda: nn.functional.conv1d(torch.ones(2, 3, 8), torch.ones(4, 3, 5)))[1] == 2 * (2 * 4 * 4) * 3 * 5
    assert counted(lambda: torch.ones(9) + 1)[1] == 0


@pytest.mark.parametrize(("pieces", "expected"), [(1, 1), (2, 2), (5, 2)])
def test_of_equal_pieces_the_second_is_counted(pieces: int, expected: int) -> None:
    """Piece k multiplies a vector of k rows, so that which of them was counted shows."""
    ticked: list[int] = []
    with SecondPiece(ticked.append, pieces) as piece:
        for number in range(1, pieces + 1):
            torch.ones(number, 2) @ torch.ones(2, 3)
            piece(1)
        torch.ones(50, 2) @ torch.ones(2, 3)
    assert piece.flops == 2 * expected * 2 * 3 and piece.done == pieces == sum(ticked)


def test_a_fault_in_the_piece_that_is_counted_ends_the_count() -> None:
    with pytest.raises(ZeroDivisionError), SecondPiece(lambda pieces: None, 3) as piece:
        piece(1)
        raise ZeroDivisionError
    with SecondPiece(lambda pieces: None, 0) as idle:
        pass
    assert idle.flops == idle.done == 0
    assert len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()) == 0


def test_queries_are_counted_per_chunk() -> None:
    results = [SimpleNamespace(steps=steps) for steps in (0, 1, 4, 5, 200)]
    assert queries(results, 4) == 0 + 1 + 1 + 2 + 50  # type: ignore[arg-type]


def test_a_run_is_the_sum_of_its_phases() -> None:
    stages = [{"one query": 2, "evaluate": 8}, {"one query": 2, "one update": 5, "update": 50}]
    stages.append({"one query": 2, "one update": 7, "update": 70, "replay": 1})
    assert flops_of_run(stages) == {"one query": 2, "one update": 7, "evaluate": 8, "update": 120, "replay": 1, "in all": 129}
    assert flops_of_run([]) == {} == flops_of_run([stages[0], {"one query": 2}]) == flops_of_run([{}, stages[1]])  # of an older version


# Through the real loop -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trust-region", "vr-mcl", "adaptive"])
def test_counting_changes_no_bit(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path, curriculum="point-reach:2", method=method)
    with monkeypatch.context() as patched:
        patched.setattr(flops.FlopCount, "__enter__", lambda self: self)
        patched.setattr(flops.FlopCount, "__exit__", lambda self, *_: None)
        plain = run(tmp_path / "plain", config)
    found = run(tmp_path / "counted", config)
    assert everything(plain) == everything(found)
    assert read_run(plain).cost["flops"]["in all"] == 0 < read_run(found).cost["flops"]["in all"]


def test_the_figures_of_a_run_by_hand(tmp_path: Path) -> None:
    """The update of a method that replays as many windows as it learns is two forward passes and one backward, and a teacher's one."""
    config = tiny(tmp_path, curriculum="point-reach:2", method="replay")
    results = read_run(run(tmp_path / "run", config))
    counts = results.cost["flops"]
    policy = DiffusionPolicy.load(results.folder / "checkpoints" / "stage-02")
    seen = torch.zeros(1, policy.config.window, policy.observation_size)
    batch, width = config.train.batch_size, policy.condition(seen, torch.zeros(1).long()).shape[1]
    sizes = (torch.zeros(batch, policy.config.horizon, policy.action_size), torch.zeros(batch).long(), torch.zeros(batch, width))

    def forward_and_backward() -> None:
        policy.predict_noise(*sizes).sum().backward()

    with torch.no_grad():
        once = counted(lambda: policy.predict_noise(*sizes))[1]
    trained = counted(forward_and_backward)[1]
    assert counts["one update"] == 2 * trained + once
    first = json.loads((results.folder / "checkpoints" / "stage-01" / "record.json").read_text())["record"]["flops"]
    assert first["one update"] == trained
    assert counts["update"] == 20 * (trained + 2 * trained + once)
    assert counts["one query"] == flops_of_query(policy)
    for phase, purpose in (("evaluate", "matrix"), ("recovery", "recovery")):
        chunks = [-(-row.steps // policy.config.executed) for row in results.episodes if row.purpose == purpose]
        assert counts[phase] == counts["one query"] * sum(chunks)
    assert counts["in all"] == sum(counts[name] for name in ("update", "generator", "replay", "evaluate", "recovery"))


def test_a_query_costs_in_proportion_to_its_steps(tmp_path: Path) -> None:
    policy = DiffusionPolicy.load(run(tmp_path / "run", tiny(tmp_path, curriculum="point-reach:1", method="finetune")) / "checkpoints" / "stage-01")
    one, two, four = (flops_of_query(policy.acting_with(sampler="ddim", sampling_steps=steps)) for steps in (1, 2, 4))
    assert 0 < one < two and four - two == 2 * (two - one)


def test_a_run_that_goes_on_counts_as_one_that_never_stopped(tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:2", method="replay")
    whole = run(tmp_path / "whole", config)
    part = run(tmp_path / "part", config)
    shutil.rmtree(part / "checkpoints" / "stage-02")
    with RunFolder.resume(part) as folder:
        train(config, folder, Progress("quiet"))
    assert read_run(part).cost["flops"] == read_run(whole).cost["flops"]


# Shown ---------------------------------------------------------------------------------------------------------------------------


def with_flops(folder: Path, seed: int, update: int) -> Path:
    cost = json.loads((write_run(folder, seed=seed) / "cost.json").read_text())
    counts = {"one query": 2_500_000, "one update": update, "update": 3 * update, "in all": 4 * update}
    (folder / "cost.json").write_text(json.dumps({**cost, "flops": counts}))
    return folder


def test_pages_and_tables_show_them_where_there_are_any(tmp_path: Path) -> None:
    folders = [with_flops(tmp_path / "0", 0, 1_000_000_000), with_flops(tmp_path / "1", 1, 3_000_000_000)]
    plain = write_run(tmp_path / "2", seed=2)
    single = write_report(folders[:1], tmp_path / "single.html").read_text()
    assert "one query 2.5 MFLOP, one update 1 GFLOP" in single and "in all 4 GFLOP" in single
    page = write_report([*folders, plain], tmp_path / "page.html").read_text()
    assert ">2 GFLOP<" in page and ">8 GFLOP<" in page
    write_tables([*folders, plain], tmp_path / "tables")
    (row,) = rows_of(tmp_path / "tables" / "cost.csv")
    assert (float(row["query_flops"]), float(row["update_flops"]), float(row["run_flops"])) == (2.5e6, 2e9, 8e9)
    write_tables([plain], tmp_path / "without")
    assert "update_flops" not in rows_of(tmp_path / "without" / "cost.csv")[0]
    assert "FLOP" not in write_report([plain], tmp_path / "plain.html").read_text()


@pytest.mark.parametrize("wrong", ["[1]", '{"in all": "many"}', "7"])
def test_counts_that_are_none_are_named(tmp_path: Path, wrong: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "cost.json").write_text(f'{{"flops": {wrong}}}')
    with pytest.raises(DamagedFile, match=r"cost\.json is damaged: its flops are"):
        read_run(folder)


def test_numbers_read_well() -> None:
    assert [in_words(count) for count in (12, 1234, 5.678e9, 2.4e22, None)] == ["12 FLOP", "1.23 kFLOP", "5.68 GFLOP", "2.4e+04 EFLOP", "–"]
