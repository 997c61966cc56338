"""What the command line accepts, refuses and answers; training itself is replaced."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_sweep import fill

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import ConfigError, RenderingUnavailable
from reconverge.envs.tasks import task_names
from reconverge.launch import doctor
from reconverge.launch.cli import guarded, main, parse
from reconverge.launch.commands import COMMANDS, Collect, ExportDemonstrations, Train
from reconverge.launch.commands.command import check_device
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.presets import PRESETS, find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder

HEAVY = ("torch", "mujoco", "metaworld", "diffusers", "matplotlib", "stable_baselines3")


def resolved(*words: str) -> RunConfig:
    """The configuration that `train` would use."""
    command = parse(Train, words, "reconverge train")
    assert isinstance(command, Train)
    return command.config


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said when words are refused, after checking the form: exit code 2, one or two lines, no traceback."""
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("reconverge: ") and len(said.err.splitlines()) <= 2
    return said.err


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Replace training, rendering and report; give what `train` and `render_videos` shall do."""
    monkeypatch.chdir(tmp_path)
    from reconverge.eval import report, video
    from reconverge.launch import curriculum_run

    def replace(train: Callable[..., None], render: Callable[..., Any] = lambda *_: []) -> None:
        def train_alone(config: object, folder: object, progress: object, lead: None, curriculum: object) -> None:
            assert lead is None, "no other process shares this run"
            train(config, folder, progress)

        monkeypatch.setattr(curriculum_run, "train", train_alone)
        monkeypatch.setattr(video, "render_videos", render)
        monkeypatch.setattr(report, "write_report", lambda runs, output, **settings: output.write_text("<html>"))

    return replace


# help and lists ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["cw10"], ["cw10", "--format", "hdf5", "--output-dir", "new"]])
def test_demonstrations_are_those_of_the_preset_where_no_flag_says_otherwise(words: list[str]) -> None:
    kind: type[Collect | ExportDemonstrations] = Collect if len(words) == 1 else ExportDemonstrations

    def taken(*flags: str) -> DemonstrationConfig:
        command = parse(kind, [*words, *flags], "reconverge")
        assert isinstance(command, kind)
        return command.demonstrations

    assert taken() == find_preset("quickstart").demonstrations == resolved().demonstrations
    assert taken("--preset", "cw10-paper") == find_preset("cw10-paper").demonstrations
    assert taken("--hasty", "True").hasty and not taken("--preset", "smoke", "--hasty", "False").hasty
    assert taken("--preset=cw10", "--paces", "0.5") == dataclasses.replace(find_preset("cw10").demonstrations, paces=(0.5,))


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("--preset smoke", "runs/smoke/trust-region/seed-0"),
        ("--preset smoke --curriculum point-reach:3 --method ewc --seed 4", "runs/smoke/ewc/seed-4"),
        ("--preset cw10 --curriculum cw10:shuffle-7", "runs/cw10-cw10-shuffle-7/trust-region/seed-0"),
        ("--curriculum tasks/mine.yaml", "runs/quickstart-mine/trust-region/seed-0"),
        ("--curriculum ../..", "runs/quickstart-%2E.%2F.%2E/trust-region/seed-0"),
        ("--curriculum mine.yaml --output-dir here", "here"),
    ],
)
def test_runs_of_other_curricula_do_not_lie_in_each_others_way(words: str, folder: str) -> None:
    command = parse(Train, words.split(), "reconverge train")
    assert isinstance(command, Train) and command._path == Path(folder)


@pytest.mark.parametrize("words", [[], ["--help"], *([name, "--help"] for name in COMMANDS), ["list", "tasks"], ["train", "--print-config"]])
def test_help_and_lists_answer_without_heavy_imports(words: list[str]) -> None:
    code = f"import sys; from reconverge.launch.cli import main; main({words!r}); print([name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
    assert len(answer.stdout.splitlines()) > 4 and answer.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_begins_with_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown and f"  reconverge {name}" in shown


def test_every_example_parses() -> None:
    for kind in COMMANDS.values():
        for name, words in re.findall(r"^ *reconverge ([a-z-]+)(.*)$", kind.__doc__ or "", re.MULTILINE):
            if not {"--resume", "--extend"} & set(words.split()):  # whose run must be there
                assert parse(COMMANDS[name], words.split(), name) is not None


@pytest.mark.parametrize(("what", "expected"), [("tasks", task_names()), ("methods", METHODS), ("presets", PRESETS), ("curricula", ["cw10", "cw20"])])
def test_lists(what: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(expected) <= set(listed)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"reconverge \d+\.\d+\.\d+\n", capsys.readouterr().out)


# what is read from the flags ---------------------------------------------------------------------------------------------------


def test_the_preset_is_the_base_and_flags_override_it() -> None:
    config = resolved("--preset", "smoke", "--policy.window", "4", "--train.updates=1500", "--train.batch_size", "64", "--method", "replay")
    assert (config.policy.window, config.train.updates, config.train.batch_size, config.method) == (4, 1500, 64, "replay")
    assert config.policy.mlp == find_preset("smoke").policy.mlp


def test_sequences_choices_and_switches() -> None:
    config = resolved("--recovery.grid", "1", "5", "--recovery.thresholds", "50", "--policy.sampler", "ddim", "--video.render", "False")
    assert (config.recovery.grid, config.recovery.thresholds, config.policy.sampler, config.video.render) == ((1, 5), (50,), "ddim", False)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_taken_as_it_is(name: str) -> None:
    assert resolved("--preset", name) == find_preset(name)
    assert resolved(f"--preset={name}") == find_preset(name)


def test_the_printed_configuration_is_the_resolved_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "smoke", "--seed", "5", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["seed"], printed["curriculum"]) == (5, "point-reach:3")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("train --policy.windw 4", "did you mean '--policy.window'?"),
        ("train --outputdir x", "did you mean '--output-dir'?"),
        ("train --preset quikstart", "did you mean 'quickstart'?"),
        ("train --method trust", "did you mean 'trust-region'?"),
        ("train --policy.denoiser unt", "did you mean 'unet'?"),
        ("train --curriculum cw11", "did you mean 'cw10'?"),
        ("train --curriculum nowhere.yaml", "nowhere.yaml"),
        ("train --policy.window x", "--policy.window"),
        ("train --policy.window 0", "policy.window is 0; it must be at least 1"),
        ("train --policy.executed 9", "exceed policy.horizon"),
        ("train --seed", "--seed"),
        ("train --resume nowhere", "holds no run"),
        ("train stray", "stray"),
        ("sweep --methods replai", "did you mean 'replay'?"),
        ("sweep --preset smok", "did you mean 'smoke'?"),
        ("sweep --results-dri x", "did you mean '--results-dir'?"),
        ("sweep --seeds 4..0", "--seeds holds '4..0'"),
        ("sweep --vary train.update=5", "did you mean 'train.updates'?"),
        ("sweep --vary replay.source=stord", "did you mean 'stored'?"),
        ("sweep --curriculum cw11", "did you mean 'cw10'?"),
        ("sweep --policy.window 0", "policy.window is 0; it must be at least 1"),
        ("sweep --jobs 0", "--jobs is 0; it must be at least 1"),
        ("list taks", "did you mean 'tasks'?"),
        ("list", "tasks"),
        ("evaluate", "RUN"),
        ("evaluate nowhere", "holds no run"),
        ("evaluate nowhere --episodes 0", "--episodes is 0; it must be at least 1"),
        ("evaluate nowhere --tasks hamer", "did you mean 'hammer-v3'?"),
        ("render nowhere", "holds no run"),
        ("recover nowhere", "holds no run"),
        ("report", "at least one run"),
        ("report nowhere", "holds no run"),
        ("collect cw11", "did you mean 'cw10'?"),
        ("collect cw10 --episodes 0", "demonstrations.episodes is 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(
    words: str, hint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint in refused(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []


# train -----------------------------------------------------------------------------------------------------------------------------


def test_train_keeps_the_command_renders_reports_and_shows_the_outcome(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: RunConfig, folder: RunFolder, progress: Progress) -> None:
        assert config == folder.config
        fill(folder)

    def render(run: Path, *_: Any) -> None:
        (run / "videos").mkdir()
        (run / "videos" / "grid.mp4").touch()

    training(train, render)
    assert main(["train", "--preset", "smoke", "--method", "replay", "--seed", "2"]) == 0
    folder = RunFolder.open(Path("runs/smoke/replay/seed-2"))
    assert folder.command_txt.read_text() == "reconverge train --preset smoke --method replay --seed 2\n"
    shown = capsys.readouterr().out
    assert re.search(r"point-reach-0 +80 +80 +49 to 94 +nan +- +10", shown)  # no episodes and no ceiling were written
    assert str(folder.report_html) in shown and str(folder.videos / "grid.mp4") in shown


def test_a_machine_that_cannot_render_still_gets_its_report(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def render(*_: Any) -> None:
        raise RenderingUnavailable("no off-screen OpenGL; install one with: apt-get install x")

    training(lambda config, folder, progress: fill(folder), render)
    assert main(["train", "--preset", "smoke", "--output-dir", "out"]) == 0
    said = capsys.readouterr()
    assert "apt-get install x" in said.err and "reconverge render out" in said.err
    assert Path("out/report.html").exists()


def test_an_interrupted_run_says_how_to_go_on_and_can(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    training(interrupted)
    assert main(["train", "--preset", "smoke", "--seed", "4", "--output-dir", "out"]) == 75
    assert "reconverge train --resume out" in capsys.readouterr().err

    training(lambda config, folder, progress: fill(folder))
    assert main(["train", "--resume", "out"]) == 0
    assert RunFolder.open(Path("out")).config.seed == 4


def test_a_second_run_needs_resume_or_overwrite(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    training(lambda config, folder, progress: fill(folder))
    words = ["train", "--preset", "smoke", "--output-dir", "out"]
    assert main(words) == 0
    capsys.readouterr()
    said = refused(capsys, *words)
    assert "--resume" in said and "--overwrite" in said
    assert main([*words, "--overwrite"]) == 0


def test_resume_with_another_setting_is_refused(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    training(lambda config, folder, progress: fill(folder))
    assert main(["train", "--preset", "smoke", "--output-dir", "out"]) == 0
    capsys.readouterr()
    assert "train.updates was" in refused(capsys, "train", "--resume", "out", "--train.updates", "7")
    assert "leave --overwrite" in refused(capsys, "train", "--resume", "out", "--overwrite")


def test_a_mendable_error_is_one_line_and_a_bug_keeps_its_traceback(training: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: Exception) -> Callable[..., None]:
        def train(*_: Any) -> None:
            raise error

        return train

    training(failing(ConfigError("the loss is not finite; lower it")))
    assert main(["train", "--preset", "smoke", "--output-dir", "a"]) == 2
    assert "reconverge: the loss is not finite; lower it\n" in capsys.readouterr().err
    training(failing(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError):
        main(["train", "--preset", "smoke", "--output-dir", "b"])


def test_a_closed_pipe_needs_no_words_and_is_no_success() -> None:
    line = f"{sys.executable} -m reconverge.launch list tasks | head -n 1"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert answer.stderr == "" and len(answer.stdout.splitlines()) == 1 and answer.returncode in (0, 141)  # 0: it had said all by then


def test_a_table_whose_reader_has_gone_is_no_bug() -> None:
    said = "from reconverge.launch.cli import guarded; from reconverge.launch.commands.tables import print_table; import sys, time"
    work = "def work():\n    time.sleep(0.5)\n    print_table([{'task': 'a'}], {'task': 'task'})\n    sys.stdout.flush()\n    return 2"
    line = f"{sys.executable} -c {shlex.quote(f'{said}{chr(10)}{work}{chr(10)}sys.exit(guarded(work))')} | true"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (answer.stderr, answer.returncode) == ("", 141)


@pytest.mark.parametrize("name", ["evaluate", "recover", "diagnose", "export"])
def test_published_tables_are_not_taken_for_a_run_that_has_not_got_far(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder.create(tmp_path / "out", find_preset("smoke"), "x") as folder:
        assert "no checkpoint yet; let it finish a stage" in refused(capsys, "evaluate", str(folder.path))
        fill(folder)
    said = refused(capsys, name, str(tmp_path / "out"))
    assert "holds the tables of a run alone" in said and f"the command in {folder.command_txt}" in said


# a device or a place that cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        ("gpu", "device is 'gpu'; use cpu, cuda or cuda:1"),
        ("cuda:x", "device is 'cuda:x'; use cpu, cuda or cuda:1"),
        ("cuda:7", "'cuda:7' is not there: the last of the GPUs that torch sees is cuda:0"),
    ],
)
def test_a_device_that_is_none_is_refused_in_a_line(device: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_device("cuda:0")
    with pytest.raises(ConfigError, match=re.escape(hint)):
        check_device(device)


def test_recover_refuses_a_device_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    RunFolder.create(tmp_path / "out", dataclasses.replace(find_preset("smoke"), device="cuda"), "x").close()
    assert "device 'cuda' is not available to torch" in refused(capsys, "recover", str(tmp_path / "out"))


def test_evaluate_makes_the_folder_of_its_output_and_shows_its_table_whatever_becomes_of_the_file(
    training: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"rate": 0.5, "wilson_low": 0.1, "wilson_high": 0.9}
    row = {"stage": 1, "task": "point-reach-0", "sampler": "ddim", "steps": 4, "temperature": 1.0, "episodes": 2, "successes": 1, **rates}
    other = {**row, "task": "point-reach-1", "episodes": 6, "successes": 5}
    monkeypatch.setattr("reconverge.launch.checkpoint_evaluation.evaluate", lambda *given, **named: [row, other])
    training(lambda config, folder, progress: fill(folder))
    assert main(["train", "--preset", "smoke", "--output-dir", "out"]) == 0
    assert main(["evaluate", "out", "--output", "new/deep/x.csv"]) == 0
    assert Path("new/deep/x.csv").read_text().startswith("stage,task,")
    capsys.readouterr()
    for flag in ("--output", "--episodes-output"):  # known ahead of what takes long
        assert main(["evaluate", "out", flag, "new"]) == 2
        assert capsys.readouterr() == ("", "reconverge: new is a folder; give the name of a file\n")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "new/x.csv")

    monkeypatch.setattr("reconverge.launch.run_tables.write_csv", full)
    assert main(["evaluate", "out", "--output", "new/x.csv"]) == 2
    said = capsys.readouterr()
    assert "point-reach-0" in said.out and "new/x.csv cannot be used" in said.err
    assert said.out.endswith("mean success 75.0 % (40.9 to 92.9); 8 episodes, one policy\n")


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_that_the_system_refuses_is_a_line_with_advice(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise OSError(number, os.strerror(number), "runs/x")

    assert guarded(work) == 2
    assert re.fullmatch(r"reconverge: runs/x cannot be used \(.+\); .+\n", capsys.readouterr().err)


# doctor ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "train --preset smoke --output-dir /proc/nope",
        "train --preset smoke --demonstrations.folder /proc/nope",
        "report out --output /proc/x.html",
    ],
)
def test_a_place_that_cannot_be_written_is_two_lines_at_most(
    words: str, training: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    training(lambda config, folder, progress: fill(folder))
    assert main(["train", "--preset", "smoke", "--output-dir", "out"]) == 0
    capsys.readouterr()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(words.split()) == 2
    assert "/proc" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "runs") == [name for name in before if name != "runs"]
    assert not (tmp_path / "runs" / "smoke").exists()


def test_doctor_prints_the_fix_beside_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "package_versions", lambda: {"numpy": "2.0", "torch": "absent"})
    assert main(["doctor"]) == 2
    assert re.search(r"FIX +packages +missing: torch\n +fix: .* -m pip install torch", capsys.readouterr().out)


@pytest.mark.mujoco
@pytest.mark.slow
def test_doctor_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in (0, 2)
    shown = capsys.readouterr().out
    assert all(subject in shown for subject in ("python", "packages", "machine", "torch", "rendering", "updates", "simulator"))


def test_what_a_command_needs_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render"]) == 2
    assert capsys.readouterr().err == "reconverge: render needs RUN (Run folder); see reconverge render --help\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_calls_a_value_by_its_kind(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that may be left out is PATH or INT there, and not {None}|PATH."""
    assert main([name, "--help"]) == 0
    assert not re.search(r"\{None\}\|[A-Z]+\b", capsys.readouterr().out)
