"""A policy handed over: the folder, its card, acting without the training stack, and the ONNX graph beside the policy."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_policy import DO, small_policy
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.errors import ReconvergeError, RunFolderError
from reconverge.launch.cli import main
from reconverge.launch.policy_export import refuse_foreign_export
from reconverge.launch.run_tables import StageRecord
from reconverge.policy.config import UnetConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy, arrays_of

HEAVY = ("metaworld", "mujoco", "gymnasium", "stable_baselines3", "diffusers", "matplotlib", "scipy", "jinja2", "tyro", "rich", "imageio")
UNET = UnetConfig(channels=(8, 16), kernel=3, groups=4, timestep_features=8, attention_heads=2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three stages whose last two have checkpoints."""
    folder = write_run(tmp_path / "run")
    for stage in (2, 3):
        policy = small_policy(POINT_REACH, seed=stage)
        record = {"record": asdict(StageRecord(stage, [POINT_REACH[stage - 1]], 500)), "seconds": {}}
        files = {"policy.safetensors": arrays_of(policy.state_dict()), "policy.json": policy.description(), "record.json": record}
        write_artifact(folder / "checkpoints" / f"stage-{stage:02d}", files)
    return folder


def test_the_exported_policy_acts_as_the_checkpoint_does(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["export", str(run), "--stage", "2", "--output-dir", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    observations = np.random.default_rng(0).normal(size=(3, DO))
    exported, own = DiffusionPolicy.load(str(tmp_path / "out")), DiffusionPolicy.load(run / "checkpoints" / "stage-02")
    assert np.array_equal(exported.select_action(observations, POINT_REACH[1]), own.select_action(observations, POINT_REACH[1]))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    record = Artifact(tmp_path / "out").json("export.json")
    assert (record["stage"], record["method"], record["seed"]) == (2, "trust-region", 0)
    assert {cell["stage"] for cell in record["success"]} == {0, 1, 2}


def test_the_last_stage_is_the_default_and_has_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run)]) == 0
    assert DiffusionPolicy.load("runs/exports/synthetic-trust-region-seed-0-stage-03").tasks == POINT_REACH


def test_the_card_says_what_it_is(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--stage", "2", "--output-dir", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "# trust-region on synthetic, after stage 2 of 3, seed 0" in card
    assert 'DiffusionPolicy.load("mine")' in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| 2 (point-reach-1)")]
    assert len(rows) == 1 and len(rows[0]) == 4 and " to " in rows[0][2]
    assert not any(line.startswith("| 3 (") for line in card.splitlines())
    facts = ("point-reach-0 → point-reach-1", "0123456789abcdef", "mujoco 3.3.0", "| torch | 2.9.0 |", "the expert itself", "of 20 seeded episodes")
    for fact in facts:
        assert fact in card


@pytest.mark.parametrize(
    ("method", "stage", "said"),
    [
        ("trust-region", 2, ("learned 2 tasks one after the other", "| learned so far | point-reach-0 → point-reach-1 |", 'task="point-reach-0"')),
        ("joint", 3, ("learned 3 tasks all at once", f"| learned so far | {', '.join(POINT_REACH)} |", "| 3 (all tasks) |", 'task="point-reach-0"')),
        ("single", 2, ("learned one task alone, point-reach-1,", "| learned so far | point-reach-1 |", 'task="point-reach-1"')),
    ],
)
def test_the_card_names_the_tasks_that_this_policy_learned(method: str, stage: int, said: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("method: trust-region", f"method: {method}"))
    assert main(["export", str(run), "--stage", str(stage), "--output-dir", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert [words for words in said if words not in card] == []


@pytest.mark.parametrize("flags", [["--sampler", "dpm-solver++", "--sampling-steps", "2"], ["--temperature", "0"]])
def test_the_card_owns_up_to_another_way_of_acting(flags: list[str], run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), *flags, "--output-dir", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert re.search(r"It was measured with ddim, . steps, temperature 1; this policy was exported to act in another way\.", card)
    acts = DiffusionPolicy.load(tmp_path / "mine").config
    assert (acts.sampler, acts.sampling_steps, acts.temperature) == (("ddim", 4, 0.0) if "0" in flags else ("dpm-solver++", 2, 1.0))


def test_a_temperature_beyond_one_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--temperature", "1.5", "--output-dir", str(tmp_path / "mine")]) != 0
    assert "--temperature is 1.5; it must be from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_it_loads_and_acts_without_the_training_stack(run: Path, tmp_path: Path) -> None:
    """The three lines of the card, with every heavy package forbidden."""
    assert main(["export", str(run), "--output-dir", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    lines = card.partition("```python\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 3
    code = f"""
import sys
import numpy as np

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is forbidden")

sys.meta_path.insert(0, Forbidden())
observation, state = np.zeros(({DO},)), None
{chr(10).join(lines)}
print(action.shape, [name for name in {HEAVY!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stderr == "" and answer.stdout == "(2,) []\n"


# What is refused ---------------------------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_nothing_else(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--stage", "2", "--output-dir", str(out)]) == 0
    assert main(["export", str(run), "--output-dir", str(out)]) == 0
    assert Artifact(out).json("export.json")["stage"] == 3
    (out / "notes.txt").write_text("mine")
    for foreign in (out, run, run / "checkpoints" / "stage-03", run / "command.txt"):
        assert main(["export", str(run), "--output-dir", str(foreign)]) == 2
        assert "holds no exported policy; nothing there is touched" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_that_claims_to_be_an_export_must_look_like_one(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    refuse_foreign_export(tmp_path / "odd")
    refuse_foreign_export(tmp_path / "absent")
    (tmp_path / "odd" / "export.json").write_text('{"kind": "reconverge policy"}')
    with pytest.raises(RunFolderError):
        refuse_foreign_export(tmp_path / "odd")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--stage", "7"], "has no checkpoint of stage 7; it has stages 2, 3"),
        (["--stage", "-1"], "--stage is -1"),
        (["--sampling-steps", "21", "--sampler", "ddim"], "ddim takes 1 to 20 of 20 timesteps"),
        (["--sampling-steps", "20", "--sampler", "dpm-solver++"], "takes 1 to 19 of 20"),
        (["--sampling-steps", "10", "--sampler", "dpm-solver++"], "begins at timestep 10 of 20 instead of 18"),
        (["--format", "onx"], "did you mean 'onnx'?"),
        (["--format", "onnx", "--sampler", "ddpm"], "draws noise on the way"),
    ],
)
def test_what_cannot_be_exported_says_why(words: list[str], says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), *words, "--output-dir", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_optional_packages_the_line_that_installs_them_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconverge.envs.optional_library.find_spec", lambda name: None)
    assert main(["export", str(run), "--format", "onnx", "--output-dir", str(tmp_path / "out")]) == 2
    assert "pip install -e '.[onnx]'" in capsys.readouterr().err


# ONNX --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "dpm-solver++"},
        {"sampler": "ddim", "task_conditioned": False, "executed": 2, "past_actions": 1},
        {"sampler": "dpm-solver++", "sampling_steps": 2, "denoiser": "unet", "unet": UNET},
    ],
)
def test_the_graph_gives_the_policys_actions(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = _onnx()
    from reconverge.launch import onnx_export

    monkeypatch.setattr(onnx_export, "PAIRS", 2)
    policy = small_policy(POINT_REACH, **settings)
    graph = onnx_export.onnx_graph(policy)
    parity = onnx_export.check_parity(policy, graph)
    with pytest.raises(ReconvergeError, match="nothing was written"):
        onnx_export.check_parity(small_policy(POINT_REACH, seed=1, **settings), graph)
    assert parity.difference < 1e-5 and parity.times_as_fast[0] <= parity.times_as_fast[1] <= parity.times_as_fast[2]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [found.name for found in session.get_inputs()] == onnx_export.input_names(policy)
    assert session.get_modelmeta().custom_metadata_map["tasks"].split("\n") == list(POINT_REACH)


@pytest.mark.slow
def test_the_command_writes_the_graph_and_its_three_lines_work(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _onnx()
    assert main(["export", str(run), "--format", "onnx", "--output-dir", str(tmp_path / "graph")]) == 0
    said = capsys.readouterr().out
    assert "largest difference from torch" in said and "times as fast" in said
    assert Artifact(tmp_path / "graph").names == ["README.md", "export.json", "policy.onnx"]
    code = (tmp_path / "graph" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-c", f"{code}\nprint(actions.shape, chunk.shape)"]
    answer = subprocess.run(command, cwd=tmp_path / "graph", capture_output=True, text=True, check=False)
    assert answer.stdout == "(1, 4, 2) (1, 4, 2)\n"


def _onnx() -> Any:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    return pytest.importorskip("onnxruntime")
