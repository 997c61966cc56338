"""A sweep: what its jobs are, which of them count as done, and how they are run, resumed and tabulated."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs import artifact
from reconverge.envs.errors import ConfigError, RunFolderError, UnknownName
from reconverge.launch import backend as local_backend
from reconverge.launch import job as jobs_in_folders
from reconverge.launch import run_tables, sweep
from reconverge.launch.backend import Order
from reconverge.launch.cli import main, parse
from reconverge.launch.commands import Sweep, Train
from reconverge.launch.commands.pages import runs_within
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.config_file import config_text, flat, read_config
from reconverge.launch.job import LEFT_OUT, Job, content, look
from reconverge.launch.job_plan import label, make_job, parse_changes, parse_seeds, parse_variations, plan_jobs, with_settings
from reconverge.launch.job_process import run_job
from reconverge.launch.presets import find_preset
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import MATRIX_COLUMNS, rate_columns, write_csv, write_tables
from reconverge.launch.sweep import Places, examine, last_words, publish
from reconverge.launch.sweep_cost import CostModel, makespan
from reconverge.launch.sweep_view import JobClock, Position, SweepView, position
from reconverge.policy.config import TrainConfig, TrustRegionConfig
from reconverge.policy.method_settings import OWN, READS, SET_ITSELF, is_read
from reconverge.replay.config import ReplayConfig

TOY = (
    "--preset smoke --curriculum point-reach:2 --train.updates 10 --train.log-every 5 --train.trust-region.draws 16 --replay.generator.updates 5 "
    "--replay.windows-per-task 16 --demonstrations.episodes 5 --demonstrations.workers 0 --evaluation.episodes 2 --evaluation.workers 0 "
    "--recovery.episodes 1 --recovery.grid 2 --video.episodes 0"
)
"""A run that takes a second or two once torch is there."""
ROOT = Path(__file__).resolve().parent.parent


def toy(**changes: Any) -> RunConfig:
    command = parse(Sweep, TOY.split(), "reconverge sweep")
    assert isinstance(command, Sweep)
    return dataclasses.replace(command.config, **changes)


def toy_job(**changes: Any) -> Job:
    return make_job(toy(**changes), "smoke")


def write_result(folder: Path, config: RunConfig, command: str = "reconverge train", successes: int = 8, stages: int | None = None) -> None:
    """The tables of a run as training leaves them, finished or up to a stage."""
    job = make_job(config, "smoke")
    with RunFolder.create(folder, config, command) as run:
        run.curriculum_yaml.write_text(job.curriculum.to_yaml())
        tasks, last = [stage.task.name for stage in job.curriculum.stages], len(job.curriculum.stages) if stages is None else stages
        rows = [{"stage": stage, "task": task, **rate_columns(successes, 10)} for stage in range(last + 1) for task in tasks]
        write_csv(run.success_matrix_csv, MATRIX_COLUMNS, rows)
        run.cost_json.write_text(json.dumps({"phases": {"update": 60.0}, "total_s": 60.0}))
        run.ceilings_csv.write_text("task,attempts,successes,rate,wilson_low,wilson_high\n")
        run.episodes_csv.write_text("")
        run.report_html.write_text("<html>")


class Finished:
    """A job that has ended with an exit code, after being asked a few times."""

    def __init__(self, code: int, polls: int = 0, ended: Callable[[], None] = lambda: None) -> None:
        self.code, self.polls, self.ended, self.asked, self.killed = code, polls, ended, False, False

    def exit_code(self) -> int | None:
        if self.asked or self.killed:
            return -15
        self.polls -= 1
        if self.polls >= 0:
            return None
        self.ended()
        self.ended = lambda: None
        return self.code

    def ask_to_end(self) -> None:
        self.asked = True

    def kill(self) -> None:
        self.killed = True


class Scripted:
    """A backend that writes results instead of training. `behave` may end a job otherwise."""

    def __init__(self, behave: Callable[[Order], Finished | None] = lambda order: None) -> None:
        self.behave = behave
        self.orders: list[Order] = []

    def start(self, order: Order) -> Finished:
        self.orders.append(order)
        other = self.behave(order)
        if other is None:
            self.train(order)
        return other or Finished(0)

    @staticmethod
    def train(order: Order) -> None:
        if order.overwrite or order.folder.exists():
            shutil.rmtree(order.folder)
        write_result(order.folder, read_config(order.config_file), order.command, successes=read_config(order.config_file).seed % 3 + 7)

    @property
    def started(self) -> list[str]:
        return [str(Path(*order.folder.parts[-2:])) for order in self.orders]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:
    """Replace the processes of `reconverge sweep`, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "POLL_S", 0.0)
    scripted = Scripted()
    monkeypatch.setattr(local_backend, "LocalBackend", lambda: scripted)
    yield scripted


def run(words: str) -> int:
    return main(["sweep", *TOY.split(), *shlex.split(words)])


# what a result depends on --------------------------------------------------------------------------------------------------------


def another(value: Any) -> Any:
    """Some other value of the same kind; ranges do not matter to an address."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 7)
    return f"{value}x" if isinstance(value, str) else (0 if value is None else value) + 1


def with_value(config: Any, keys: list[str], value: Any) -> Any:
    return dataclasses.replace(config, **{keys[0]: value if len(keys) == 1 else with_value(getattr(config, keys[0]), keys[1:], value)})


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_the_address_changes_with_every_setting_but_those_that_no_result_depends_on(key: str) -> None:
    job = toy_job()
    changed = with_value(job.config, key.split("."), another(flat(job.config)[key]))
    other = Job(changed, job.curriculum)
    assert (other.address == job.address) == (key in LEFT_OUT or not is_read(key, job.config.method))


def test_every_key_that_is_left_out_exists_and_has_a_reason() -> None:
    assert set(LEFT_OUT) <= set(flat(RunConfig())) and all(LEFT_OUT.values())


def test_a_setting_counts_for_the_methods_that_read_it() -> None:
    assert READS.keys() == METHODS.keys() and all(any(key.startswith(prefix) for key in flat(RunConfig())) for prefix in OWN)
    weak, strong = (TrainConfig(trust_region=TrustRegionConfig(strength)) for strength in (1, 100))
    for method in METHODS:
        same = toy_job(method=method, train=weak).address == toy_job(method=method, train=strong).address
        assert same == (method not in ("ewc", "trust-region", "adaptive-trust-region"))
    assert is_read("train.trust_region.strength", "a-method-of-another-package")
    assert is_read("train.replay_weight", "replay") and not is_read("train.replay_weight", "finetune")


def test_a_setting_that_a_method_sets_itself_makes_no_other_job() -> None:
    assert SET_ITSELF.keys() <= METHODS.keys() and all(key in flat(RunConfig()) for keys in SET_ITSELF.values() for key in keys)
    for method, counts in (("t-dgr", False), ("replay", True)):
        freshest, redrawn = (toy_job(method=method, replay=ReplayConfig(pool=pool)).address for pool in ("freshest", "redrawn"))
        assert (freshest != redrawn) == counts == is_read("replay.pool", method)


def test_the_curriculum_counts_by_its_stages_not_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntasks: [point-reach-0, {task: point-reach-1, updates: 10}]\n")
    assert toy_job(curriculum=str(file)).address == toy_job().address
    file.write_text("name: mine\ntasks: [point-reach-0, {task: point-reach-1, updates: 11}]\n")
    assert toy_job(curriculum=str(file)).address != toy_job().address
    assert toy_job(curriculum="point-reach:3").address != toy_job().address


def test_the_simulators_count_in_the_version_that_the_run_had() -> None:
    job = make_job(RunConfig(curriculum="cw10:2"), "quickstart")
    assert content(job.config, job.curriculum, {"metaworld": "3.1.1", "mujoco": "3.3.0"})["simulators"] == ["metaworld 3.1.1, mujoco 3.3.0"]
    assert content(job.config, job.curriculum, {"mujoco": "3.9.9"})["simulators"] == ["metaworld unknown, mujoco 3.9.9"]
    assert toy_job().content["simulators"] == ["point-reach 1"]


def test_what_a_folder_holds(tmp_path: Path) -> None:
    job = toy_job()
    assert look(tmp_path / "run", job).state == "nothing"
    write_result(tmp_path / "run", job.config, stages=1)
    held = look(tmp_path / "run", job)
    assert (held.state, held.stages_done, held.seconds) == ("part", 1, 60.0)
    shutil.rmtree(tmp_path / "run")
    write_result(tmp_path / "run", toy(evaluation=dataclasses.replace(job.config.evaluation, workers=3)))
    assert look(tmp_path / "run", job).state == "result"
    other = look(tmp_path / "run", toy_job(method="replay", seed=1))
    assert other.state == "other" and "method was 'trust-region' and is now 'replay'; seed was 0 and is now 1" in other.reason
    (tmp_path / "run" / "success_matrix.csv").write_text("stage\nx\n")
    assert look(tmp_path / "run", job).state == "other"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    assert look(tmp_path / "notes", job).state == "foreign"


def test_a_finished_run_whose_cost_is_no_number_is_another(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy())
    for total_s in ("an hour", [1, 2]):
        (tmp_path / "run" / "cost.json").write_text(json.dumps({"total_s": total_s}))
        held = look(tmp_path / "run", toy_job())
        assert held.state == "other" and f"cost.json: total_s is {total_s!r}" in held.reason


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("refuse_foreign", PermissionError(13, "Permission denied")),
        ("stored_content", PermissionError(13, "Permission denied")),
        ("stored_content", ValueError("no")),
        ("stored_content", TypeError("no")),
        ("stored_content", RecursionError("no")),
    ],
)
def test_whatever_cannot_be_read_is_another(where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path / "run", toy())

    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(jobs_in_folders, where, fail)
    held = look(tmp_path / "run", toy_job())
    assert held.state == "other" and str(error) in held.reason


def test_the_table_by_which_a_run_is_finished_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(run_tables, "write_file", lambda path, content: written.append(path.name))
    write_tables(tmp_path, [], [], 1, (99,))
    assert written[-1] == "success_matrix.csv" and len(written) == len(set(written)) == 8


def test_a_resumed_run_says_that_its_code_is_another(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", toy(), "reconverge train") as folder:
        fingerprint = json.loads(folder.fingerprint_json.read_text())
        folder.fingerprint_json.write_text(json.dumps({**fingerprint, "git_commit": "0123abc"}))
        assert folder.version_changes() == [f"git commit 0123abc -> {fingerprint['git_commit']}"]


def test_a_run_that_was_stopped_before_its_report_is_a_part(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy())
    (tmp_path / "run" / "report.html").unlink()
    assert look(tmp_path / "run", toy_job()).state == "result"  # published tables
    (tmp_path / "run" / "checkpoints").mkdir()
    assert look(tmp_path / "run", toy_job()).state == "part"


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_a_setting_that_came_later_does_not_undo_what_is_finished(key: str, tmp_path: Path) -> None:
    """The stored file of a run from before the setting existed, in which it had today's default."""
    config = with_value(toy(), key.split("."), flat(RunConfig())[key]) if key != "curriculum" else toy()
    if key == "policy.sampling_steps" or key == "policy.timesteps":
        config = with_value(with_value(config, ["policy", "timesteps"], 100), ["policy", "sampling_steps"], 4)
    if key.startswith(("evaluation.episodes", "recovery.episodes", "video.episodes")):
        config = with_value(with_value(config, ["recovery", "episodes"], 20), ["evaluation", "episodes"], 50)
    write_result(tmp_path / "run", config)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    inner = stored
    for section in key.split(".")[:-1]:
        inner = inner[section]
    if key != "curriculum":
        del inner[key.rpartition(".")[2]]
    header = config_text(config).splitlines()[0]
    (tmp_path / "run" / "config.yaml").write_text(f"{header}\n{yaml.safe_dump(stored)}")
    assert look(tmp_path / "run", make_job(config, "smoke")).state == "result"


# which jobs there are --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [("0..4", (0, 1, 2, 3, 4)), ("0..2 7", (0, 1, 2, 7)), ("3", (3,)), ("5 0..1 1", (5, 0, 1)), ("2..2", (2,)), ("007", (7,))],
)
def test_seeds(words: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(words.split()) == expected


@pytest.mark.parametrize("word", ["4..0", "a", "", "-1", "0...4", "..3", "1.5", "0..999999999", "0,1", "²", "1" * 40])
def test_seeds_that_are_none(word: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds([word])


def test_variations_are_combined_and_read_as_in_a_file() -> None:
    found = parse_variations(["train.updates=1000,2000", "replay.source=stored,generator", "train.optimizer.learning_rate=1e-3"], RunConfig())
    assert len(found) == 4
    assert found[0] == {"train.updates": 1000, "replay.source": "stored", "train.optimizer.learning_rate": 0.001}
    assert parse_variations(["recovery.grid=[2,100],[]", "policy.task_conditioned=false"], RunConfig()) == [
        {"recovery.grid": (2, 100), "policy.task_conditioned": False},
        {"recovery.grid": (), "policy.task_conditioned": False},
    ]
    assert parse_variations(["train.updates=5,5"], RunConfig()) == [{"train.updates": 5}]
    assert parse_variations([], RunConfig()) == [{}]


def test_ablations_are_made_one_at_a_time_beside_the_base() -> None:
    changes = parse_changes(["policy.window=1,2", "train.replay_weight=1,3"], RunConfig())
    assert changes == [{"policy.window": 1}, {"train.replay_weight": 3.0}]  # 2 and 1 are what the base has
    jobs = plan_jobs(find_preset("smoke"), "smoke", ["replay", "ewc"], [0], [{"train.updates": 5}], changes)
    assert [str(job.path) for job in jobs] == [
        "replay/train.updates=5/seed-0",
        "ewc/train.updates=5/seed-0",
        "replay/policy.window=1,train.updates=5/seed-0",
        "ewc/policy.window=1,train.updates=5/seed-0",
        "replay/train.replay_weight=3.0,train.updates=5/seed-0",  # which ewc does not read
    ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train.update=5"], "did you mean 'train.updates'?"),
        (["seed=1"], "--ablate seed: use --seeds"),
        (["policy.window"], "--ablate policy.window: give KEY=VALUE"),
        (["policy.window=1", "policy.window=3"], "--ablate policy.window is given twice"),
        (["train.updates=6"], "train.updates is given with --vary and with --ablate"),
        (["policy.window=2"], "--ablate policy.window=2 is what the runs have anyway"),
    ],
)
def test_ablations_that_are_none(words: list[str], hint: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=re.escape(hint)):
        parse_changes(words, RunConfig(), ["train.updates"])


def test_an_ablation_that_no_method_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("--ablate train.meta.momentum: no result of replay or ewc depends on it")):
        plan_jobs(find_preset("smoke"), "smoke", ["replay", "ewc"], [0], changes=[{"train.meta.momentum": 0.5}])


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("train.update=5", "did you mean 'train.updates'?"),
        ("train=5", "unknown setting 'train'"),
        ("replay.source=stord", "did you mean 'stored'?"),
        ("train.updates=many", "int was expected"),
        ("train.updates=1,,2", "cannot be read"),
        ("train.updates=[", "cannot be read"),
        ("train.updates=", "has no value; give some, such as --vary train.updates=2000"),
        ("train.updates", "give KEY=VALUE"),
        ("method=replay", "use --methods"),
        ("seed=1", "use --seeds"),
        ("evaluation.workers=1,2", "no result depends on it"),
        ("train.updates=!!python/object/apply:os.system [x]", "cannot be read"),
    ],
)
def test_variations_that_are_none(word: str, hint: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=re.escape(hint)):
        parse_variations([word], RunConfig())


def test_a_key_is_varied_once() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        parse_variations(["train.updates=1", "train.updates=2"], RunConfig())


values = st.one_of(st.text(max_size=200), st.integers(), st.floats(), st.booleans(), st.lists(st.integers(), max_size=90).map(tuple))


@given(st.dictionaries(st.sampled_from(["curriculum", "train.updates", "recovery.grid"]), values, min_size=1))
def test_a_label_is_one_safe_part_of_a_path_in_any_order(settings: dict[str, Any]) -> None:
    found = label(settings)
    assert re.fullmatch(r"[A-Za-z0-9._=,+-]{1,140}", found) and found[0].isalpha()
    assert label(dict(reversed(settings.items()))) == found


@given(st.text(max_size=200), st.text(max_size=200))
def test_labels_keep_values_apart(first: str, second: str) -> None:
    assert (label({"curriculum": first}) == label({"curriculum": second})) == (first == second)


def test_a_label_can_be_read() -> None:
    assert label({"train.updates": 1000, "replay.source": "stored"}) == "replay.source=stored,train.updates=1000"
    assert label({}) == ""


def test_jobs_are_every_combination_seed_by_seed() -> None:
    jobs = plan_jobs(toy(), "smoke", ["finetune", "replay"], [0, 3], [{"train.updates": 10}, {"train.updates": 20}])
    assert [str(job.path) for job in jobs[:3]] == [
        "finetune/train.updates=10/seed-0",
        "replay/train.updates=10/seed-0",
        "finetune/train.updates=20/seed-0",
    ]
    assert len({job.address for job in jobs}) == len(jobs) == 8
    assert [job.config.seed for job in jobs] == [0] * 4 + [3] * 4 and jobs[2].updates == 40


def test_a_job_that_cannot_be_run_is_refused_before_any_is() -> None:
    with pytest.raises(ConfigError, match=r"train\.updates is 0"):
        plan_jobs(toy(), "smoke", ["replay"], [0], [{"train.updates": 5}, {"train.updates": 0}])
    with pytest.raises(UnknownName, match="did you mean 'cw10'"):
        plan_jobs(toy(), "smoke", ["replay"], [0], [{"curriculum": "cw11"}])
    with pytest.raises(ConfigError, match="more than 10000 jobs"):
        plan_jobs(toy(), "smoke", ["replay"], range(20_000))


def test_the_command_of_a_job_gives_its_configuration() -> None:
    config = with_settings(toy(seed=3), {"recovery.grid": [2, 5], "policy.task_conditioned": False, "method": "replay"})
    words = shlex.split(make_job(config, "smoke").command)
    assert words[:2] == ["reconverge", "train"]
    command = parse(Train, words[2:], "reconverge train")
    assert isinstance(command, Train) and command.config == config


def test_a_sweep_has_one_thread_a_job_unless_told_otherwise() -> None:
    assert find_preset("quickstart").threads == 2
    for words, threads in (("--preset quickstart", 1), ("--preset quickstart --threads 3", 3)):
        command = parse(Sweep, words.split(), "reconverge sweep")
        assert isinstance(command, Sweep) and command.config.threads == threads


# running them ----------------------------------------------------------------------------------------------------------------------


def test_all_jobs_are_run_once_and_tabulated(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--methods finetune replay --seeds 0..1") == 0
    assert backend.started == ["finetune/seed-0", "replay/seed-0", "finetune/seed-1", "replay/seed-1"]
    said = capsys.readouterr()
    assert re.search(r"finetune +2 of 2 +75\.0 \(11\.5 to 100\.0\) +0\.0 +1\.0\n", said.out)  # what agrees has no interval
    assert "reconverge report runs/sweep/smoke\n" in said.out
    lines = said.err.splitlines()
    assert len(lines) == 8 and lines[0].startswith("start  finetune/seed-0  (log: runs/sweep/smoke/finetune/seed-0.log)")
    assert lines[1].startswith("done   finetune/seed-0: success 70.0 %, 1.0 minutes  [1/4 ended  eta 3:00]")
    assert RunFolder.open(Path("runs/sweep/smoke/replay/seed-1")).command_txt.read_text().startswith("reconverge train --preset smoke")

    assert run("--methods finetune replay --seeds 0..2") == 0
    assert backend.started[4:] == ["finetune/seed-2", "replay/seed-2"]


def test_variations_of_what_a_method_does_not_read_keep_files_of_their_own(backend: Scripted) -> None:
    """Their results have the same address; their tables are looked for in both folders."""
    for _ in range(2):  # the second time all are done
        assert run("--methods finetune --vary replay.source=stored,generator") == 0
        assert [read_config(order.config_file).replay.source for order in backend.orders] == ["stored", "generator"]
        assert len({order.curriculum_file for order in backend.orders}) == 2


def test_published_results_alone_suffice_elsewhere(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--methods replay --seeds 0 1 --results-dir results/toy"
    assert run(words) == 0
    published = Path("results/toy/replay/seed-1")
    assert {path.name for path in published.iterdir()} <= {*sweep.PUBLISHED, "files.json"} and not (published / "episodes.csv").exists()
    shutil.rmtree("runs")
    capsys.readouterr()
    assert run(words) == 0
    assert len(backend.orders) == 2
    said = capsys.readouterr().out
    assert "2 of 2" in said and "reconverge report results/toy" in said


def test_what_was_done_before_results_were_wanted_is_copied(backend: Scripted) -> None:
    assert run("--methods replay") == 0
    assert run("--methods replay --results-dir results") == 0
    assert len(backend.orders) == 1 and look(Path("results/replay/seed-0"), toy_job(method="replay")).state == "result"


def test_a_part_is_resumed_and_another_run_refused_or_redone(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/sweep/smoke/replay/seed-0")
    write_result(folder, toy(method="replay"), stages=1)
    assert run("--methods replay --train.updates 20") == 2
    said = capsys.readouterr()
    assert f"{folder}: train.updates was 10 and is now 20" in said.err and "--overwrite" in said.err and len(said.err.splitlines()) <= 2
    assert backend.orders == []

    backend.behave = lambda order: Finished(0)  # as if the resumed run had ended too early
    assert run("--methods replay") == 1
    assert not backend.orders[-1].overwrite and "ended after stage 1" in capsys.readouterr().out

    backend.behave = lambda order: None
    assert run("--methods replay --train.updates 20 --overwrite") == 0
    assert backend.orders[-1].overwrite
    assert run("--methods replay --train.updates 20 --overwrite") == 0
    assert len(backend.orders) == 2


def test_results_of_another_run_are_not_replaced_unasked(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(Path("results/replay/seed-0"), toy(method="replay", device="cuda"))
    words = "--methods replay --results-dir results"
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "device was 'cuda' and is now 'cpu'. To go on with what lies there, give --device cuda; else choose another --results-dir\n" in said
    assert run(f"{words} --overwrite") == 0
    assert read_config(Path("results/replay/seed-0/config.yaml")).device == "cpu"


def test_settings_that_are_all_that_differs_are_advised_as_they_were(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    def advice(config: RunConfig, words: str = "") -> str:
        write_result(Path("results/replay/seed-0"), config)
        assert run(f"--methods replay --results-dir results {words}") == 2
        shutil.rmtree("results")
        return capsys.readouterr().err.rpartition(". ")[2]

    trained_longer = toy(method="replay", train=dataclasses.replace(toy().train, updates=30))
    said = advice(trained_longer)
    assert said.startswith("To go on with what lies there, give --train.updates 30; else")
    write_result(Path("results/replay/seed-0"), trained_longer)
    assert run(f"--methods replay --results-dir results {said.partition('give ')[2].partition(';')[0]}") == 0 and backend.orders == []
    shutil.rmtree("results")
    assert "--policy.relative-scales-m 0.5 0.1 --recovery.grid 2 5;" in advice(
        with_settings(toy(method="replay"), {"policy.relative_scales_m": [0.5, 0.1], "recovery.grid": [2, 5]})
    )
    for other in (toy(method="replay", curriculum="point-reach:3"), toy(method="ewc"), toy(method="replay", seed=1)):
        assert advice(other) == "Choose another --results-dir\n"


def test_the_first_example_goes_on_with_the_tables_of_this_repository() -> None:
    words = re.findall(r"^ *reconverge sweep (.*)$", Sweep.__doc__ or "", re.MULTILINE)[0].split()
    command = parse(Sweep, words, "reconverge sweep")
    assert isinstance(command, Sweep) and command.results_dir is not None
    for job in command._planned()[:3]:
        assert look(ROOT / command.results_dir / job.path, job).state == "result"


@pytest.mark.parametrize("flags", ["", "--results-dir results", "--overwrite"])
def test_a_job_that_was_done_meanwhile_is_left(flags: str, backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    second = Path("runs/sweep/smoke/replay/seed-1")
    if flags == "--overwrite":
        write_result(second, toy(method="ewc"))

    def behave(order: Order) -> None:
        shutil.rmtree(second, ignore_errors=True)
        write_result(second, toy(method="replay", seed=1), successes=3)

    backend.behave = behave
    assert run(f"--methods replay --seeds 0..2 {flags}") == 0
    assert backend.started == ["replay/seed-0", "replay/seed-2"]
    said = capsys.readouterr()
    assert "3 of 3" in said.out and "leave  replay/seed-1  (it was done meanwhile)\ndone   replay/seed-1: success 30.0 %" in said.err
    if "results" in flags:
        assert look(Path("results/replay/seed-1"), toy_job(method="replay", seed=1)).state == "result"


def test_a_folder_that_was_taken_meanwhile_fails_its_job_alone(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    taken = Path("results/replay/seed-1")
    backend.behave = lambda order: None if taken.exists() else write_result(taken, toy(method="ewc", seed=1))
    assert run("--methods replay --seeds 0..2 --results-dir results") == 2
    assert backend.started == ["replay/seed-0", "replay/seed-2"]
    shown = capsys.readouterr().out
    assert "2 of 3" in shown and "results/replay/seed-1: method was 'ewc' and is now 'replay'" in shown
    assert read_config(taken / "config.yaml").method == "ewc"


def test_a_results_folder_that_cannot_be_written_is_noticed_first(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert run("--methods replay --results-dir file/results") == 2
    assert backend.orders == [] and "--results-dir file/results cannot be written (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize("other_was_faster", [False, True])
def test_tables_that_cannot_be_copied_fail_their_job_alone(
    other_was_faster: bool, backend: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swap_into_place = artifact.swap_into_place

    def swap(draft: Path, folder: Path) -> None:
        if folder.name == "seed-0":
            if other_was_faster:
                write_result(folder, toy(method="replay"))
            raise OSError(39, "Directory not empty")
        swap_into_place(draft, folder)

    monkeypatch.setattr(artifact, "swap_into_place", swap)
    for _ in range(2):  # the second time all are trained
        assert run("--methods replay --seeds 0..1 --results-dir results") == (0 if other_was_faster else 2)
        assert len(backend.orders) == 2 and look(Path("results/replay/seed-1"), toy_job(method="replay", seed=1)).state == "result"
        assert ("cannot be copied to results/replay/seed-0 (Directory not empty)" in capsys.readouterr().out) != other_was_faster
        assert not list(Path("results").rglob(".*"))


def test_a_copy_that_is_killed_leaves_the_old_or_the_new_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, target = tmp_path / "run", tmp_path / "results" / "seed-0"
    write_result(run, toy())
    write_result(target, toy(method="ewc"))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "swap_into_place", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            publish(run, target)
    assert look(target, toy_job(method="ewc")).state == "result"
    assert [folder.path for folder in runs_within([tmp_path / "results"])] == [target]  # not the draft

    publish(run, target)
    assert look(target, toy_job()).state == "result" and list(target.parent.iterdir()) == [target]


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, folder, rename = tmp_path / ".draft", tmp_path / "folder", os.rename
    for path in (draft, folder):
        path.mkdir()
        (path / path.name.strip(".")).touch()

    def fail(source: Path, target: Path) -> None:
        if source == draft:
            raise OSError(39, "Directory not empty")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="not empty"):
        artifact.swap_into_place(draft, folder)
    assert [path.name for path in folder.iterdir()] == ["folder"] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("words", "hint"), [("runs/a --reference replay", "is a single run"), ("runs --reference repaly", "did you mean 'replay'?")])
def test_a_reference_that_makes_no_sense_is_refused_before_anything_is_written(
    words: str, hint: str, backend: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(Path("runs/a"), toy(method="replay"))
    write_result(Path("runs/b"), toy(method="ewc"))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert main(["report", *words.split(), "--output", "new/page.html", "--tables", "tables"]) == 2
    assert hint in capsys.readouterr().err and {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_files_that_are_no_run_are_never_touched(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("results", "runs/sweep/smoke"):
        notes = Path(folder, "replay/seed-0/notes.txt")
        notes.parent.mkdir(parents=True)
        notes.touch()
        assert run("--methods replay --results-dir results --overwrite") == 2
        assert notes.exists() and "not a run's" in capsys.readouterr().err
        shutil.rmtree(notes.parent)


def test_the_copies_need_a_folder_of_their_own(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--output-dir out --results-dir ./out") == 2
    assert "a folder of their own" in capsys.readouterr().err


def test_a_dry_run_shows_and_does_nothing(backend: Scripted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("--methods replay --seeds 0..1 --dry-run") == 0
    assert "0 of 2 done, 2 to run: 40 gradient updates; minutes are estimated once a job is done" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [] and backend.orders == []
    write_result(Path("runs/sweep/smoke/replay/seed-0"), toy(method="replay"))
    write_result(Path("runs/sweep/smoke/replay/seed-1"), toy(method="replay", seed=1), stages=1)
    assert run("--methods replay --seeds 0..2 --dry-run") == 0
    shown = capsys.readouterr().out
    assert re.search(r"replay/seed-0 +done +20 +1\.0\n.*resume after stage 1 of 2 +20 +~0\.5\n.*start +20 +~1\.0\n", shown)
    assert "1 of 3 done, 2 to run: about 1.5 minutes with --jobs 1" in shown


def test_a_failure_does_not_stop_the_others(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    def behave(order: Order) -> Finished | None:
        code = {"seed-0": 2, "seed-1": 1, "seed-2": -signal.SIGKILL}.get(order.folder.name, 0)
        order.log.parent.mkdir(parents=True, exist_ok=True)
        order.log.write_text("stage 1/2\nreconverge: the loss is nan; lower it\n" if code == 2 else "Traceback\nZeroDivisionError: bug\n\n")
        return Finished(code) if code else None

    backend.behave = behave
    assert run("--methods replay --seeds 0..3") == 1
    shown = capsys.readouterr().out
    assert "replay  1 of 4" in shown and "3 of 4 jobs failed" in shown
    assert re.search(r"replay/seed-0 +2 +the loss is nan; lower it +runs/sweep/smoke/replay/seed-0\.log", shown)
    assert "ZeroDivisionError: bug" in shown and "ended by SIGKILL; is there enough memory?" in shown
    assert run("--methods replay --seeds 0") == 2  # all that failed can be mended


def test_the_last_words_are_the_jobs_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(2, log) == "exit code 2"
    earlier = "reconverge: earlier error\n"
    log.write_text(f"{earlier}reconverge: the loss is nan\nworker 3 has ended\n\n")
    assert last_words(2, log, len(earlier)) == "the loss is nan"
    assert last_words(1, log, len(earlier)) == "worker 3 has ended"
    log.write_text(f"{earlier}worker 3 has ended\n")
    assert last_words(2, log, len(earlier)) == "exit code 2"


def test_the_words_of_an_earlier_attempt_are_not_this_ones(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    log = Path("runs/sweep/smoke/replay/seed-0.log")
    log.parent.mkdir(parents=True)
    log.write_text("reconverge: an earlier error\n")

    def behave(order: Order) -> Finished:
        with open(log, "a") as file:
            file.write("stage 1/2\n")
        return Finished(2)

    backend.behave = behave
    assert run("--methods replay") == 2
    shown = capsys.readouterr().out
    assert "exit code 2" in shown and "earlier" not in shown


def test_an_interval_ends_where_rates_do() -> None:
    assert sweep._over_seeds([0.9, 1.0], lowest=0.0) == "95.0 (31.5 to 100.0)"
    assert sweep._over_seeds([0.0, 0.2], lowest=0.0) == "10.0 (0.0 to 100.0)"
    assert sweep._over_seeds([-0.9, 0.9], lowest=-100.0) == "0.0 (-100.0 to 100.0)"


def test_no_more_than_jobs_run_at_once(backend: Scripted) -> None:
    running: list[str] = []
    most: list[int] = []

    def behave(order: Order) -> Finished:
        running.append(order.folder.name)
        most.append(len(running))
        Scripted.train(order)
        return Finished(0, polls=3, ended=lambda: running.remove(order.folder.name))

    backend.behave = behave
    assert run("--methods replay --seeds 0..6 --jobs 3") == 0
    assert max(most) == 3 and len(most) == 7


def test_a_job_waits_while_another_collects_its_demonstrations(backend: Scripted) -> None:
    starts: list[tuple[str, bool]] = []

    def behave(order: Order) -> Finished:
        first = Path("runs/sweep/smoke/replay/seed-0/ceilings.csv")
        starts.append((order.folder.name, first.exists()))
        return Finished(0, polls=4, ended=lambda: Scripted.train(order))

    backend.behave = behave
    assert run("--methods replay --seeds 0..1 --jobs 2") == 0
    assert starts == [("seed-0", False), ("seed-1", True)]


def test_an_interrupted_sweep_ends_its_jobs_and_says_how_to_go_on(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []

    def behave(order: Order) -> Finished:
        if order.folder.name == "seed-1":
            raise KeyboardInterrupt
        (order.folder / ".lock-1").mkdir(parents=True)
        (order.folder / "ceilings.csv").touch()
        jobs.append(Finished(0, polls=10**9))
        return jobs[-1]

    backend.behave = behave
    assert run("--methods replay --seeds 0..1 --jobs 2") == 75
    assert jobs[0].asked and not jobs[0].killed
    assert "go on with the same command: reconverge sweep --preset smoke" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--methods replay --method ewc", "--seeds 1 --seed 5"])
def test_one_of_a_thing_beside_several_is_refused(words: str, backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "contradicts" in capsys.readouterr().err


def test_a_single_method_and_seed_may_be_given_in_the_singular(backend: Scripted) -> None:
    assert run("--method ewc --seed 5") == 0
    assert backend.started == ["ewc/seed-5"]


# cost and view ---------------------------------------------------------------------------------------------------------------------


def test_makespan() -> None:
    assert makespan([3, 2, 2], 2) == 4
    assert makespan([], 2) == 0
    assert makespan([1], 2, busy=[5.0, 2.0]) == 5


def test_the_cost_of_a_job_follows_its_method_and_updates() -> None:
    cost = CostModel()
    assert cost.seconds(toy_job()) is None
    cost.learn(toy_job(method="replay"), 40.0)  # 20 updates
    cost.learn(toy_job(method="finetune"), 20.0)
    longer = make_job(with_settings(toy(method="replay"), {"train.updates": 20}), "smoke")
    assert cost.seconds(longer) == 80.0 and cost.seconds(longer, 0.5) == 40.0
    assert cost.seconds(toy_job(method="ewc")) == 30.0  # the mean of all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Position(0, 0.0)),
        ('{"stage": 1, "update": 5}\n', Position(1, 0.25)),
        ('{"stage": 1, "update": 10}\n{"stage": 2, "update": 5}\n{"stage": 2, "upd', Position(2, 0.75)),
        ("no json\n", Position(0, 0.0)),
    ],
)
def test_the_position_of_a_job_is_read_from_its_rows(text: str, expected: Position, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    assert position(tmp_path / "metrics.jsonl", toy_job()) == expected
    assert position(tmp_path / "none", toy_job()) == Position(0, 0.0)


def test_joint_training_has_one_stage_with_all_updates(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": 2, "update": 5}\n')
    assert position(tmp_path / "metrics.jsonl", toy_job(method="joint")) == Position(2, 0.25)


def test_time_left_counts_from_where_a_job_was_taken_up(tmp_path: Path) -> None:
    file, now = tmp_path / "metrics.jsonl", [0.0]
    file.write_text('{"stage": 2, "update": 5}\n')  # as an interrupted run left it
    clock = JobClock(toy_job(), file, lambda: now[0])
    now[0] = 10.0
    file.write_text('{"stage": 1, "update": 10}\n')  # its checkpoint is at the end of stage 1
    clock.look()
    assert clock.eta_s is None and str(clock) == "stage 1/2"
    now[0] = 20.0
    file.write_text('{"stage": 2, "update": 5}\n')
    clock.look()
    assert clock.eta_s == 10.0 and str(clock) == "stage 2/2  eta 0:10"


def test_a_terminal_has_a_bar_per_job_and_one_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream, job = io.StringIO(), toy_job()
    (tmp_path / "metrics.jsonl").write_text('{"stage": 1, "update": 5}\n')
    clock = JobClock(job, tmp_path / "metrics.jsonl")
    with SweepView(4, 1, 2, CostModel(), stream=stream) as view:
        view.started(job, "start it")
        view.refresh([clock], [])
        view.ended(job, "done it", [], [job])
    shown = stream.getvalue()
    assert "trust-region/seed-0" in shown and "25 %" in shown and "stage 1/2" in shown and "done it  [2/4 ended]" in shown


# with real runs --------------------------------------------------------------------------------------------------------------------


def test_a_job_process_trains_and_goes_on_with_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_settings(toy(method="finetune"), {"demonstrations.folder": str(tmp_path / "demonstrations")})
    job, places = make_job(config, "smoke"), Places(tmp_path)
    assert run_job(job, places.folder(job)) == 0
    assert examine(job, places, False).todo == "nothing"
    shutil.rmtree(places.folder(job) / "checkpoints" / "stage-02")
    (places.folder(job) / "report.html").unlink()
    assert examine(job, places, False).todo == "resume"
    with_workers = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, workers=1))
    assert run_job(make_job(with_workers, "smoke"), places.folder(job), overwrite=True) == 0
    assert examine(job, places, False).todo == "nothing"
    assert "resumed after stage 1 of 2" in capsys.readouterr().err


def test_a_job_process_refuses_what_is_not_its_job(tmp_path: Path) -> None:
    """All of it before anything is trained."""
    file, folder = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text("tasks: [point-reach-0, point-reach-1]\n")
    job = make_job(toy(curriculum=str(file)), "smoke")
    file.write_text("tasks: [point-reach-0, {task: point-reach-2, updates: 11}]\n")
    changed = "stage 2 was 'point-reach-1, 10 updates, 5 demonstrations' and is now 'point-reach-2, 11 updates, 5 demonstrations'"
    with pytest.raises(RunFolderError, match=f"mine.yaml has changed since the sweep began: {changed}"):
        run_job(job, folder)
    assert not folder.exists()

    write_result(folder, toy(method="ewc"), stages=1)
    with pytest.raises(RunFolderError, match="method was 'ewc' and is now 'trust-region'"):
        run_job(job, folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="not a run's"):
        run_job(job, tmp_path / "notes", overwrite=True)


def test_a_job_process_never_deletes_what_is_finished(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy(), successes=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_job(toy_job(), tmp_path / "run", overwrite=True) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def start(folder: Path, words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reconverge.launch", "sweep", *TOY.split(), *words.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  # a test run in the background has it ignored, and hands that on
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not there() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert there(), process.communicate(timeout=60)


LONG = "--methods finetune --seeds 0 --train.updates 30000 --train.log-every 1"


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_stopped_leaves_no_process_and_its_job_resumes(blow: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "runs/sweep/smoke/finetune/seed-0"
    process = start(tmp_path, LONG)
    wait_for(lambda: (folder / "metrics.jsonl").exists(), process)
    process.send_signal(blow)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if blow == signal.SIGKILL else 75)
    assert blow == signal.SIGKILL or "go on with the same command: reconverge sweep" in said
    wait_for_release(folder)
    held = look(folder, make_job(read_config(folder / "config.yaml"), "smoke"))
    assert (held.state, held.stages_done) == ("part", 0)


def wait_for_release(folder: Path) -> None:
    """Until no living process holds the folder, which `resume` would refuse otherwise."""
    deadline = time.monotonic() + 30
    while list(folder.glob(".lock-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    with RunFolder.resume(folder):
        pass


def test_a_killed_job_is_resumed_and_a_failing_one_reported_beside_it(tmp_path: Path) -> None:
    variations = "--vary train.optimizer.learning_rate=1e-3,1e30"
    steady, diverging = (f"train.optimizer.learning_rate={rate}" for rate in ("0.001", "1e+30"))
    with RunFolder.create(tmp_path / "out/finetune" / steady / "seed-0", toy(method="finetune"), "as a run that was killed at once"):
        pass
    process = start(tmp_path, f"--methods finetune {variations} --output-dir out --jobs 2 --results-dir results")
    shown, said = process.communicate(timeout=240)
    assert process.returncode == 2, shown + said
    assert f"resume  finetune/{steady}/seed-0" in said and f"start  finetune/{diverging}/seed-0" in said
    assert re.search(rf"finetune/{re.escape(diverging)}/seed-0 +2 +the [a-z ]+ (is|are) (nan|inf|not finite) at stage 1", shown)
    assert re.search(rf"finetune/{steady} +1 of 1", shown)
    assert look(tmp_path / "results/finetune" / steady / "seed-0", toy_job(method="finetune")).state == "result"
    assert not (tmp_path / "results/finetune" / diverging).exists()


def test_a_page_about_a_folder_leaves_the_only_run_in_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "results" / "replay" / "seed-0"
    write_result(run, toy(method="replay"))
    contents = lambda: {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}  # noqa: E731
    before = contents()
    assert main(["report", "results"]) == 0
    assert contents() == before and Path("runs/comparison.html").exists()
    assert main(["report", str(run)]) == 0
    assert (run / "summary.png").exists() and (run / "report.html").read_text() != "<html>"
