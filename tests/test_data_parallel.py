"""Several processes that share a run: shares add up, ranks stay bit-identical, and the run equals that of one process to round-off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked_run import everything
from small_learner import SIZE, SMALL, ByTask, Source, region
from small_policy import random_windows, small_policy
from torch import Tensor

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.errors import ConfigError
from reconverge.eval.run_results import read_run
from reconverge.launch.cli import main
from reconverge.launch.config import RunConfig
from reconverge.launch.presets import find_preset
from reconverge.launch.process_rank import ProcessRank, check_shares
from reconverge.policy.config import TrainConfig
from reconverge.policy.data_parallel import Ranks
from reconverge.policy.hooks import Hook, Losses, Method
from reconverge.policy.learner import Learner, UpdateFigures
from reconverge.policy.matrix_products import _setting
from reconverge.policy.methods.adaptive import adaptive_trust_region
from reconverge.policy.methods.bounds import finetune, single
from reconverge.policy.methods.ewc import ewc
from reconverge.policy.methods.meta_learning import ftml, vr_mcl
from reconverge.policy.methods.replay import replay
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.one_process import OneProcess

ROUND_OFF = 1e-5


# Shares ------------------------------------------------------------------------------------------------------------------------


def test_every_row_has_one_rank_as_in_the_modules_first_lines() -> None:
    current = [len(range(4)[Ranks(rank, 3).rows]) for rank in range(3)]
    rows = [list(range(7)[Ranks(rank, 3).rows]) for rank in range(3)]
    assert rows == [[0, 3, 6], [1, 4], [2, 5]] and current == [2, 1, 1]


class RanksInThreads(Ranks):
    """Ranks that are threads of this process: everything but the sockets."""

    def __init__(self, rank: int, count: int, board: dict[int, Tensor], turn: threading.Barrier) -> None:
        super().__init__(rank, count)
        self._board, self._turn = board, turn

    def add_up(self, vector: Tensor) -> None:
        self._board[self.rank] = vector.clone()
        self._turn.wait(30)
        total = sum(self._board[rank] for rank in range(self.count))
        self._turn.wait(30)
        vector.copy_(total)


ONE_BY_ONE = threading.Lock()
"""Initial weights and forward-mode derivatives, of which the Fisher is made, are not safe in threads; ranks proper are processes."""


def stages_of(learner: Learner, ranks: OneProcess | Ranks) -> list[UpdateFigures]:
    figures = []
    for stage in (1, 2):
        with ONE_BY_ONE:
            learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), 5)
        learner.ranks = ranks
        figures += [learner.update() for _ in range(5)]
        with ONE_BY_ONE:
            learner.end_stage()
    return figures


def together(count: int, make: Callable[[], Learner]) -> tuple[list[Learner], list[list[UpdateFigures]]]:
    """The same two stages in `count` ranks side by side."""
    board: dict[int, Tensor] = {}
    turn = threading.Barrier(count)
    setting = getattr(_setting(), "fp32_precision", None)
    learners, found = [make() for _ in range(count)], {}

    def work(rank: int) -> None:
        try:
            found[rank] = stages_of(learners[rank], RanksInThreads(rank, count, board, turn))
        except BaseException:
            turn.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if setting is not None:
        _setting().fp32_precision = setting  # of the whole process: threads leave it as they interleave
    return learners, [found[rank] for rank in range(count)]


METHODS: dict[str, Callable[[], Method]] = {
    "finetune": finetune,
    "single": single,
    "replay": lambda: replay(Source(), SMALL),
    "ewc": lambda: ewc(SMALL.trust_region, SIZE),
    "trust-region": lambda: trust_region(Source(), SMALL, SIZE),
    "constraint": lambda: trust_region(Source(), region("constraint"), SIZE),
    "functional": lambda: trust_region(Source(), region("functional"), SIZE),
    "adaptive-trust-region": lambda: adaptive_trust_region(Source(), SMALL, SIZE),
    "ftml": lambda: ftml(Source(), SMALL),
    "vr-mcl": lambda: vr_mcl(Source(), SMALL),
}


def assert_rows_equal(row: Mapping[str, float | None], whole: Mapping[str, float | None]) -> None:
    """To round-off. What is a difference of nearly equal numbers has fewer digits: one unit in the last place of the initial weights
    changes the replay loss here by up to 2 %, the penalty by 17 %, and the gradient that has its part by 7e-5."""
    few_digits = {"replay_loss": 5e-2, "penalty": 5e-1} | ({} if whole["penalty"] is None else {"gradient_norm": 1e-3, "largest_gradient_norm": 1e-3})
    assert row.keys() == whole.keys()
    for name, value in whole.items():
        bound = few_digits.get(name, ROUND_OFF)
        assert row[name] == (None if value is None else pytest.approx(value, rel=bound, abs=1e-6)), (name, row)


@pytest.mark.parametrize("method", METHODS)
def test_ranks_make_the_steps_of_one_process(method: str) -> None:
    def make(config: TrainConfig = SMALL) -> Learner:
        return Learner(small_policy(), METHODS[method](), config, 0)

    alone = make()
    expected = stages_of(alone, OneProcess())
    learners, figures = together(3, make)
    for learner in learners:
        assert torch.equal(learner.parameters.values, learners[0].parameters.values)
        apart = (learner.parameters.values - alone.parameters.values).norm() / alone.parameters.values.norm()
        assert apart < 1e-6  # of the vector: AdamW divides a gradient of nearly nothing by itself, so single weights may be further off
    for one in figures:
        for found, whole in zip(one, expected, strict=True):
            assert_rows_equal(found.row(), whole.row())


def test_ranks_measure_the_same_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not those of one process to the last bit, so it may draw other windows; the ranks may not part."""
    monkeypatch.setattr("reconverge.policy.methods.replay.MEASURED_EVERY", 2)
    config = replace(SMALL, replay_priority=0.5)
    learners, _ = together(3, lambda: Learner(small_policy(("a", "b", "c")), replay(ByTask((0, 1, 2)), config), config, 0))
    shares = [learner.method.figures() for learner in learners]
    assert shares[0] == shares[1] == shares[2] and sum(shares[0].values()) == pytest.approx(1.0)
    assert torch.equal(learners[0].parameters.values, learners[2].parameters.values)


def test_a_rank_without_a_replayed_row_has_no_share_of_that_loss() -> None:
    config = replace(SMALL, batch_size=6, replay_ratio=0.2)  # one replayed row for three ranks
    alone = Learner(small_policy(), replay(Source(), SMALL), config, 0)
    expected = stages_of(alone, OneProcess())[-1].replay_loss
    _, figures = together(3, lambda: Learner(small_policy(), replay(Source(), SMALL), config, 0))
    assert expected is not None and all(float(one[-1].replay_loss) == pytest.approx(float(expected), rel=1e-2) for one in figures)


class Drifting(Hook):
    """Steps along the gradient of its own rows alone."""

    def objective_gradient(self, learner: Learner) -> Losses:
        losses = learner.losses(learner.windows.draw(8, learner.stream("windows")), None, learner.stream("noise"))
        learner.weighted(losses).backward()
        return losses


def test_an_own_objective_that_forgets_the_others_sets_them_apart() -> None:
    learners, _ = together(2, lambda: Learner(small_policy(), Method("drifting", (Drifting(),)), SMALL, 0))
    assert not torch.equal(learners[0].parameters.values, learners[1].parameters.values)


# What is refused ---------------------------------------------------------------------------------------------------------------


class Mail(Ranks):
    """Rank 0 and a rank that listens to it in the same thread: what is told waits until it is asked for."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.letters: list[Tensor] = []
        self.listening = False

    def _send(self, content: Tensor) -> None:
        if self.listening:
            content.copy_(self.letters.pop(0))
        else:
            self.letters.append(content.clone())


def test_joint_has_no_stage_before_its_own_in_any_process() -> None:
    """Its one stage has the number of all tasks: nobody may look for what an earlier stage left."""
    from reconverge.launch.assembly import assemble
    from reconverge.launch.data_parallel_run import Lead, _take_stage

    base = find_preset("smoke")
    optimizer = replace(base.train.optimizer, carry_second_moment=True)
    config = replace(base, method="joint", train=replace(base.train, batch_size=16, optimizer=optimizer))
    tasks = load_curriculum("point-reach:3").tasks
    first, other = assemble(config, tasks), assemble(replace(config, seed=7), tasks)
    mail = Mail()
    Lead(mail).begin_stage(first, 3, 5, random_windows(task=0), None)
    mail.listening = True
    _, stage, updates, before = mail.listen(4)
    _take_stage(other, stage, updates, before, mail)
    assert torch.equal(other.learner.parameters.values, first.learner.parameters.values)
    assert (other.learner.stage, other.learner.teacher, other.learner.second_moment) == (3, None, None)


def test_what_cannot_be_shared_is_refused() -> None:
    config = RunConfig()
    check_shares(config, ProcessRank(0, 128, 0))
    for unfit, says in ((replace(config, device="cuda:1"), "each takes its own GPU"), (config, "train.batch_size is 256")):
        with pytest.raises(ConfigError, match=says):
            check_shares(unfit, ProcessRank(0, 129, 0))
    with pytest.raises(ConfigError, match="more processes on this machine than its 0 GPUs" if torch.cuda.device_count() == 0 else "GPUs"):
        check_shares(replace(config, device="cuda"), ProcessRank(99, 100, 99))


def test_only_train_is_shared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["list", "tasks"]) == 2
    assert "torchrun started 2 processes, each of which would list all by itself; only `train` shares its work" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["list", "methods"]) == 0


# Two processes, started by torchrun ----------------------------------------------------------------------------------------------

SHORT = [
    word
    for line in (
        "--preset smoke --threads 1 --curriculum point-reach:2 --demonstrations.episodes 8 --demonstrations.workers 0",
        "--train.updates 30 --train.log-every 5 --train.batch-size 32 --train.trust-region.draws 64",
        "--replay.generator.updates 10 --replay.windows-per-task 64",
        "--evaluation.episodes 3 --evaluation.workers 0 --recovery.episodes 2 --recovery.grid 2 10 --video.episodes 0 --quiet",
    )
    for word in line.split()
]
LONG = [*SHORT, "--train.updates", "150", "--train.log-every", "25", "--save-minutes", "0", "--method", "finetune"]
"""Saves after every update, so that it is still in mid-stage when it is broken off; `RESUMED` goes on without that."""
RESUMED = ["--resume", "run", "--save-minutes", "5", "--quiet"]
ALONE = """
import sys
from reconverge.launch.cli import main
assert main(sys.argv[1:]) == 0
assert not {"reconverge.policy.data_parallel", "reconverge.launch.data_parallel_run"} & set(sys.modules)
"""


def start(folder: Path, *words: str, processes: int = 2) -> subprocess.Popen[str]:
    shared = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "reconverge.launch"]
    command = [sys.executable, *(shared if processes > 1 else ["-c", ALONE]), "train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=300)[1]
    except subprocess.TimeoutExpired:
        process.terminate()  # which torchrun passes on
        raise AssertionError(f"it does not end: {process.communicate(timeout=60)[1]}") from None


@contextlib.contextmanager
def in_mid_stage(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes that has saved once within its first stage."""
    process = start(folder, *LONG, "--output-dir", "run")
    try:
        deadline_s = time.monotonic() + 240
        while not (folder / "run/checkpoints/stage-01.learning").exists():
            assert process.poll() is None and time.monotonic() < deadline_s, said(process)
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def rows(run: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_equal_to_round_off(found: Path, expected: Path) -> None:
    for row, whole in zip(rows(found), rows(expected), strict=True):
        assert_rows_equal(row, whole)


@pytest.mark.slow
def test_two_processes_give_the_run_of_one(tmp_path: Path) -> None:
    assert not said(start(tmp_path, *SHORT, "--output-dir", "alone", processes=1))
    words = said(process := start(tmp_path, *SHORT, "--output-dir", "shared"))
    assert process.returncode == 0, words
    assert_equal_to_round_off(tmp_path / "shared", tmp_path / "alone")
    shared, alone = everything(tmp_path / "shared"), everything(tmp_path / "alone")
    assert set(shared) == set(alone) and shared["ledger.csv"] == alone["ledger.csv"]
    fingerprints = [read_run(tmp_path / name).fingerprint for name in ("shared", "alone")]
    assert [fingerprint.get("processes") for fingerprint in fingerprints] == [2, None]


@pytest.mark.slow
def test_stopped_in_two_processes_it_goes_on_in_one(tmp_path: Path) -> None:
    with in_mid_stage(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert "reconverge: stopped; go on with: reconverge train --resume run" in said(process)
    assert not said(start(tmp_path, *RESUMED, processes=1))
    assert not said(start(tmp_path, *LONG, "--save-minutes", "5", "--output-dir", "alone", processes=1))
    before = [row for row in rows(tmp_path / "run") if row["stage"] == 1]
    assert [row["update"] for row in before] == list(range(25, 151, 25))  # without gap or repeat
    assert before[0]["loss"] == pytest.approx(rows(tmp_path / "alone")[0]["loss"], rel=1e-3)
    fingerprint = read_run(tmp_path / "run").fingerprint
    assert fingerprint["resumed_with"] == ["processes 2 -> 1"] and fingerprint["processes"] == 1


def workers(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> process, of what torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in children:
        for line in Path(f"/proc/{child}/environ").read_text().split("\0"):
            if line.startswith("RANK="):
                found[int(line.removeprefix("RANK="))] = int(child)
    return found


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for torchrun's processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all_in_words_and_the_run_goes_on(rank: int, tmp_path: Path) -> None:
    with in_mid_stage(tmp_path) as process:
        os.kill(workers(process)[rank], signal.SIGKILL)
        text = said(process)
    assert process.returncode != 0
    assert text.count("reconverge: another process of this run ended or does not answer") == 1 and "go on with --resume" in text
    said(resumed := start(tmp_path, *RESUMED))
    assert resumed.returncode == 0 and read_run(tmp_path / "run").finished


@pytest.mark.slow
def test_what_rank_0_refuses_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    text = said(start(tmp_path, *SHORT, "--output-dir", "run"))
    assert text.count("reconverge: ") == 1 and "nothing there is touched" in text
