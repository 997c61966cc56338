"""A method in a package of somebody else: the example, installed and run, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from csv_rows import rows_of
from small_policy import random_windows, small_policy
from small_run import tiny
from source_files import ROOT

from reconverge.envs.errors import ConfigError, UnknownName
from reconverge.envs.plain_json import read_json_object
from reconverge.eval.run_results import read_run
from reconverge.launch.cli import main
from reconverge.launch.commands.pages import report_on
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import read_config
from reconverge.launch.curriculum_run import train
from reconverge.launch.job import look
from reconverge.launch.job_plan import make_job, plan_jobs
from reconverge.launch.own_methods import brought_methods, check_method, load_own_method, method_package
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stop_request import Stopped
from reconverge.policy.config import TrainConfig
from reconverge.policy.hooks import Hook, Losses, Method
from reconverge.policy.learner import Learner
from reconverge.policy.own_method import OwnMethod
from reconverge.policy.windows import WindowBatch

EXAMPLE = ROOT / "examples" / "own_method"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *flags, "--target", folder / "site", folder / "source"], check=True)
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(site)
    return site


def bring(folder: Path, package: str, entry: str, code: str = "") -> None:
    """A package as pip would leave it: metadata and a module."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nSummary: what {package} does\n")
    (about / "entry_points.txt").write_text(f"[reconverge.methods]\n{entry}\n")
    (folder / f"{package}.py").write_text(code)


# The example -------------------------------------------------------------------------------------------------------------------


def test_the_example_is_at_most_40_lines() -> None:
    (module,) = EXAMPLE.glob("*.py")
    assert len(module.read_text().splitlines()) <= 40


def test_it_is_listed_from_its_metadata_alone(site: Path) -> None:
    code = (
        "import sys; from reconverge.launch.cli import main; main(['list', 'methods']); main(['train', '--help']);"
        "print([name for name in ('torch', 'own_a_gem') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True)
    line = next(line for line in answer.stdout.splitlines() if line.startswith("a-gem "))
    assert "no step that raises the loss on replayed windows (own-a-gem 0.1.0)" in line
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_it_trains_resumes_reports_and_is_a_job_like_any_other(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path, method="a-gem")
    with RunFolder.create(tmp_path / "whole", config, "reconverge train --method a-gem") as whole:
        train(config, whole, Progress("quiet"))
        report_on([whole], whole.report_html, Progress("quiet"))
    assert read_config(whole.config_yaml) == config
    assert "a-gem" in whole.report_html.read_text() and read_run(whole.path).finished
    logged = [json.loads(line) for line in whole.metrics_jsonl.read_text().splitlines()]
    assert any(row["vetoed"] > 0 for row in logged if row["stage"] > 1) and all(row["replay_loss"] is None for row in logged if row["stage"] == 1)
    assert any("generator" in row["item"] for row in rows_of(whole.path / "ledger.csv"))

    # stopped at an update of the second stage, and taken up again: the same bits
    broken, updates = tmp_path / "broken", 0
    original = Learner.update

    def update(learner: Learner) -> object:
        nonlocal updates
        updates += 1
        if updates == 27:
            os.kill(os.getpid(), 15)
        return original(learner)

    with monkeypatch.context() as patch, RunFolder.create(broken, config, "x") as folder:
        patch.setattr(Learner, "update", update)
        with pytest.raises(Stopped):
            train(config, folder, Progress("quiet"))
    with RunFolder.resume(broken, config) as folder:
        train(config, folder, Progress("quiet"))
    assert (broken / "episodes.csv").read_bytes() == whole.episodes_csv.read_bytes()
    weights = [path / "checkpoints" / "stage-03" / "policy.safetensors" for path in (broken, whole.path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    # a sweep knows it again, by name, settings, and the version of the package
    job = make_job(config, "smoke")
    assert job.path == Path("a-gem/seed-0") and look(whole.path, job).state == "result"
    assert read_json_object(whole.fingerprint_json)["method_package"] == "own-a-gem 0.1.0"
    monkeypatch.setattr("reconverge.launch.job.method_package", lambda name: "own-a-gem 0.2.0")
    newer = look(whole.path, make_job(config, "smoke"))
    assert newer.state == "other" and "own-a-gem 0.1.0" in newer.reason


def test_a_run_of_a_method_that_is_gone_can_still_be_read(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", RunConfig(method="a-gem"), "x") as folder:
        assert folder.config.method == "a-gem"
    with pytest.raises(UnknownName, match="unknown method 'a-gem'"):
        plan_jobs(RunConfig(), "smoke", ["a-gem"], [0])


def test_the_veto_is_the_projection_and_only_where_the_gradients_disagree(installed: Path) -> None:
    """After it the gradient has no part against that of the replay, and is the plain one where they agree (equation 11 of A-GEM)."""

    class Source:
        tasks = (1,)

        def draw(self, count: int, generator: torch.Generator, without: object = ()) -> WindowBatch:
            return random_windows(count, task=1, seed=5).all()

    method = load_own_method("a-gem").made("a-gem", Source(), TrainConfig(batch_size=8), 1, torch.device("cpu"))
    seen = set()
    for seed in range(8):
        learner = Learner(small_policy(seed=seed), method, TrainConfig(batch_size=8), seed=seed)
        learner.begin_stage(1, random_windows(task=0, seed=seed), 1)
        gradient = learner.parameters.gradient
        plain, reference = _gradients(learner, Source())
        gradient.zero_()
        losses = method.hooks[0].objective_gradient(learner)
        assert losses is not None and losses.current is not None and losses.replay is not None
        against = plain.dot(reference) < 0
        seen.add(bool(against))
        if against:
            assert abs(float(gradient.dot(reference))) < 1e-5 * float(plain.norm() * reference.norm()) + 1e-9
        else:
            assert torch.equal(gradient, plain)
    assert seen == {True, False}


def _gradients(learner: Learner, source: object) -> tuple[torch.Tensor, torch.Tensor]:
    gradient, found = learner.parameters.gradient, []
    current = learner.windows.draw(8, learner.stream("windows"))
    replayed = source.draw(8, learner.stream("replay"))  # type: ignore[attr-defined]
    for batches, purpose in (((current, None), "noise"), ((None, replayed), "replay noise")):
        gradient.zero_()
        losses = learner.losses(*batches, learner.stream(purpose))
        loss = losses.current if losses.current is not None else losses.replay
        assert loss is not None
        loss.backward()
        found.append(gradient.clone())
    return found[0], found[1]


# What is refused ---------------------------------------------------------------------------------------------------------------


def test_an_unknown_method_is_answered_with_the_nearest_of_all(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--method", "a-gme"]) == 2
    assert "unknown method 'a-gme'; did you mean 'a-gem'?" in capsys.readouterr().err
    check_method("a-gem")
    check_method("replay")
    assert method_package("replay") is None and method_package("nothing") is None


def test_a_name_that_is_taken_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path, "thief", "replay = thief:METHOD\n../up = thief:METHOD")
    monkeypatch.syspath_prepend(tmp_path)
    assert "replay" not in brought_methods() and "../up" not in brought_methods() and "replay" in METHODS


def test_two_packages_with_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path, "first", "mine = first:METHOD")
    bring(tmp_path, "second", "mine = second:METHOD")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"brought by both (first|second) 1.0 and (first|second) 1.0"):
        check_method("mine")


@pytest.mark.parametrize(
    ("code", "says"),
    [("", "cannot be imported"), ("METHOD = 5", "is int; a reconverge.policy.own_method.OwnMethod was expected")],
)
def test_an_entry_point_that_names_no_method(code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"empty{len(code)}"
    bring(tmp_path, package, f"mine = {package}:METHOD", code)
    monkeypatch.syspath_prepend(tmp_path)
    check_method("mine")
    with pytest.raises(ConfigError, match=says):
        load_own_method("mine")


def test_a_bug_in_the_package_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path, "buggy", "mine = buggy:METHOD", "import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        load_own_method("mine")


class _Named(Hook):
    def __init__(self, name: str) -> None:
        self.name = name

    def objective_gradient(self, learner: Learner) -> Losses | None:
        return None


@pytest.mark.parametrize("names", [("hook", "hook"), ("optimizer",), ("a.b",)])
def test_hooks_whose_arrays_would_collide_are_refused(names: tuple[str, ...]) -> None:
    own = OwnMethod(lambda *_: Method("mine", tuple(map(_Named, names))))
    with pytest.raises(ConfigError, match="a `name` of its own"):
        own.made("mine", None, TrainConfig(), 1, torch.device("cpu"))
    with pytest.raises(ConfigError, match="make returned int"):
        OwnMethod(lambda *_: 5).made("mine", None, TrainConfig(), 1, torch.device("cpu"))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "a" * 81, "a\nb"])
def test_a_method_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="method is"):
        check(replace(RunConfig(), method=name))
