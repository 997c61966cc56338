"""The benchmarks' harness, with a clock that only moves when told to; and every module's equality gate at a tiny size. Nothing here is timed."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from source_files import ROOT

from benchmarks import __main__ as runner
from benchmarks.harness import Bench, Equality, GateFailed, Peer, Side, Timing, close, identical, median_interval, relatively_close

PEER = Peer("a peer", "1.0")


class FakeClock:
    """Time that passes only where a contestant says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: Callable[[], float], items: float = 1) -> Side:
        def run() -> None:
            self.now += seconds()

        return Side(run, items)


def equal() -> Equality:
    return identical("numbers", [1.0, 2.0], [1.0, 2.0])


def test_the_ratio_of_known_durations_and_of_items() -> None:
    clock = FakeClock()
    bench = Bench("known", clock=clock)
    row = bench.compare("both", PEER, equal, clock.takes(lambda: 0.2, items=10), clock.takes(lambda: 0.3, items=5), unit="ms", kind="same maths")
    assert (row.ours, row.theirs, row.ratio) == pytest.approx((20.0, 60.0, 3.0))
    assert (row.ratio_low, row.ratio_high) == pytest.approx((3.0, 3.0))


def test_a_machine_that_slows_down_steadily_does_not_move_the_ratio() -> None:
    """A B B A: what each letter loses to the drift is the same."""
    clock = FakeClock()
    runs: Iterator[int] = iter(range(10**6))

    def slowed(seconds: float) -> Callable[[], float]:
        return lambda: seconds + 0.001 * next(runs)

    row = Bench("drift", clock=clock).compare("same", PEER, equal, clock.takes(slowed(1.0)), clock.takes(slowed(1.0)), unit="s", kind="same maths")
    assert row.ratio == pytest.approx(1.0, abs=1e-12)


def test_preparation_is_not_timed() -> None:
    clock = FakeClock()

    def prepare() -> None:
        clock.now += 100.0

    side = clock.takes(lambda: 1.0)
    timing = Bench("prepared", clock=clock).measure(Side(side.run, 1, prepare), side)
    assert timing.ours.tolist() == timing.theirs.tolist() and len(timing.ours) == 5


def test_the_interval_contains_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = []
    for _ in range(200):
        low, high = median_interval(2.0 * np.exp(0.2 * generator.standard_normal(20)))
        held.append(low <= 2.0 <= high)
    assert 0.88 <= np.mean(held) <= 0.99
    assert median_interval(np.array([1.0, 2.0, 4.0])) == median_interval(np.array([1.0, 2.0, 4.0]))


def test_the_geometric_mean_is_taken_block_by_block() -> None:
    timings = [Timing(np.array([1.0, 1.0, 9.0]), np.array([2.0, 4.0, 9.0])), Timing(np.array([1.0, 4.0]), np.array([8.0, 4.0]))]
    assert Timing.geometric_mean(timings).ratios == pytest.approx([4.0, 2.0])


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (lambda: identical("actions", [1.0, 2.0], [1.0, 2.5]), r"actions must be identical; 1 of 2 .* 5.000e-01 at \(1,\)"),
        (lambda: close("loss", torch.tensor(1.0), 1.1, 1e-3), "loss may differ by 0.001"),
        (lambda: close("loss", float("nan"), 1.0, 1e-3), "loss may differ by 0.001; largest difference inf"),
        (lambda: relatively_close("mu", [3.0, 4.0], [3.0, 4.1], 1e-4), "mu may differ by 0.0001 of its norm"),
        (lambda: close("windows", np.zeros((2, 3)), np.zeros(3), 1.0), r"windows has the shape \(2, 3\) here and \(3,\) there"),
    ],
)
def test_a_gate_that_fails_says_what_differed_and_nothing_is_timed(gate: Callable[[], Equality], message: str) -> None:
    def never() -> None:
        raise AssertionError("was run before both sides were shown to be equal")

    bench = Bench("unequal")
    with pytest.raises(GateFailed, match=f"^comparison: {message}"):
        bench.compare("comparison", PEER, gate, Side(never), Side(never), unit="s", kind="same maths")
    assert not bench.rows


def test_the_gates_state_what_was_checked() -> None:
    assert equal().words == "numbers identical (2 numbers)"
    both = close("loss", 1.0, 1.0 + 2e-6, 1e-5) & relatively_close("mu", [1.0], [1.0], 1e-4)
    assert both.words == "loss max difference 2.0e-06 (bound 1e-05); mu relative difference 0.0e+00 (bound 0.0001)"


def test_a_table_says_under_what_it_was_measured(tmp_path: Path) -> None:
    clock = FakeClock()
    bench = Bench("table", clock=clock)
    bench.compare("a, with a comma", PEER, equal, clock.takes(lambda: 1.0), clock.takes(lambda: 2.0), unit="s", kind="same maths")
    bench.inform("no ratio", PEER, "s", 1.0, None, "none")
    bench.tables["more"] = [{"earlier_tasks": 1, "overhead_percent": 2.34567}]
    assert [path.name for path in bench.write(tmp_path)] == ["table.csv", "more.csv"]
    with (tmp_path / "table.csv").open(newline="") as file:
        compared, informed = csv.DictReader(file)
    assert (compared["benchmark"], compared["peer"], compared["peer_version"], compared["kind"]) == ("a, with a comma", "a peer", "1.0", "same maths")
    assert (compared["ours"], compared["theirs"], compared["ratio"], compared["unit"]) == ("1", "2", "2", "s")
    assert all(compared[column] for column in ("equality", "threads", "commit", "machine", "date", "blocks", "ratio_low", "ratio_high"))
    assert informed["ratio"] == informed["theirs"] == ""
    assert (tmp_path / "more.csv").read_text() == "earlier_tasks,overhead_percent\n1,2.346\n"


def test_the_runner_goes_on_after_a_failed_gate_but_fails_and_writes_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unequal(bench: Bench) -> None:
        bench.gate("actions", lambda: identical("actions", [0.0], [1.0]))

    def fine(bench: Bench) -> None:
        bench.inform("something", PEER, "s", 1.0, None, "none")

    monkeypatch.setattr(importlib.import_module("benchmarks.fisher"), "run", unequal)
    monkeypatch.setattr(importlib.import_module("benchmarks.replay"), "run", fine)
    threads = torch.get_num_threads()
    try:
        assert runner.main(["fisher", "replay", "--quick", "--out", str(tmp_path)]) == 1
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr()
    assert "FAILED  fisher: actions: actions must be identical" in shown.err and "something" in shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["replay.csv"]


def test_help_and_unknown_names_answer_without_torch() -> None:
    line = "import sys, benchmarks.__main__ as r\ntry: r.main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", line, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m benchmarks update fisher" in shown and all(centre in shown for centre in runner.CENTRES)
    refused = subprocess.run([sys.executable, "-c", line, "fishes"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no cost centre 'fishes'; one of simulator" in refused.stderr


@pytest.mark.parametrize("centre", runner.CENTRES)
def test_every_cost_centre_passes_its_gates_at_a_tiny_size(centre: str) -> None:
    bench = Bench(centre, "tiny")
    importlib.import_module(f"benchmarks.{centre}").run(bench)
    assert all(row.equality for row in bench.rows)
    assert all(row.ratio is not None for row in bench.rows if row.kind not in ("different simulator", "information"))
    if not bench.rows:
        pytest.skip("; ".join(bench.skipped))
