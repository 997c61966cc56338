"""The worked example runs from nothing to a report, as a script and as a notebook, which are the same code."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_policy import small_policy
from small_run import run, tiny
from source_files import ROOT
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from reconverge.envs.curriculum import CW10, load_curriculum
from reconverge.envs.own_task import own_task
from reconverge.envs.tasks import find_task
from reconverge.eval.config import VideoConfig
from reconverge.launch.cli import main
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer

EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "mujoco_curriculum.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_the_hard_tasks_are_of_cw10_and_in_its_order() -> None:
    tasks = [stage.task.name for stage in load_curriculum(str(EXAMPLES / "cw10_hard.yaml")).stages]
    assert len(tasks) == 5 and tasks == [task for task in CW10 if task in tasks]


def test_the_notebook_is_the_script_without_outputs() -> None:
    written = subprocess.run(
        [sys.executable, "-c", "import make_notebook as m; print(m.notebook(m.SCRIPT.read_text()), end='')"],
        cwd=EXAMPLES, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert written.stdout == NOTEBOOK.read_text(), "run: python examples/make_notebook.py"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells() if cell["cell_type"] == "code")


RUNNER = """
import json, sys
sys.path.insert(0, EXAMPLES)
space = {"__name__": "__main__"}
if __name__ == "__main__":  # worker processes import this file
    with open(NOTEBOOK) as file:
        cells = json.load(file)["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
"""
"""What a notebook server does, without one."""


@pytest.mark.slow
@pytest.mark.mujoco
@pytest.mark.parametrize("form", ["script", "notebook"])
def test_it_runs_from_nothing_to_a_report(form: str, tmp_path: Path) -> None:
    runner = tmp_path / "runner.py"
    runner.write_text(f"EXAMPLES, NOTEBOOK = {str(EXAMPLES)!r}, {str(NOTEBOOK)!r}\n{RUNNER}")
    started = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(SCRIPT if form == "script" else runner), "--quick"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert started.returncode == 0, started.stderr[-3000:]
    run = tmp_path / "runs" / "mujoco-quick" / "run"
    assert (run / "report.html").stat().st_size > 10_000 and "expert" in (run / "curriculum.yaml").read_text()
    assert "mean success" in started.stdout and started.stdout.count("standard deviation") >= 5


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--quik", 2), ("stray", 2)])
def test_help_and_unknown_words_start_nothing(word: str, code: int, tmp_path: Path) -> None:
    answer = subprocess.run([sys.executable, str(SCRIPT), word], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert answer.returncode == code and "--quick" in answer.stdout + answer.stderr and list(tmp_path.iterdir()) == []


def test_stable_baselines3_evaluates_the_policy_in_a_gymnasium_environment() -> None:
    task = own_task("Pendulum-v1", success={"return_at_least": -200})
    policy = DiffusionPolicy(small_policy().config, [task.name], 3, 1, Normalizer(torch.zeros(3), torch.ones(3)), seed=0)
    env = Monitor(gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=12), np.float32(-1), np.float32(1)))
    env.reset(seed=0)
    returns, lengths = evaluate_policy(policy, env, n_eval_episodes=3, return_episode_rewards=True)
    assert isinstance(lengths, list) and lengths == [12, 12, 12] and len(set(returns)) == 3  # type: ignore[arg-type]


@pytest.mark.mujoco
def test_the_policy_of_the_readme_acts_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hammer = find_task("hammer")
    sizes, config = (hammer.observation_size, hammer.action_size), PolicyConfig(mlp=ResidualMLPConfig(width=16, blocks=1))
    folder = tmp_path / "runs" / "quickstart" / "trust-region" / "seed-0" / "checkpoints" / "stage-03"
    DiffusionPolicy(config, (hammer.name,), *sizes, Normalizer.for_task(hammer, None), 0).save(folder)
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["truncated"] and not names["solved"] and names["action"].shape == (4,)


def test_what_the_readme_does_with_a_run(tmp_path: Path) -> None:
    path = run(tmp_path / "run", replace(tiny(tmp_path, curriculum="point-reach:2"), video=VideoConfig(episodes=1)))
    assert main(["render", str(path), "--quiet"]) == 0 and (path / "videos" / "grid.mp4").stat().st_size > 0
    few = [word for setting in ("draws", "batch", "windows", "starts") for word in (f"--{setting}", "4")]
    assert main(["diagnose", str(path), "--stages", "2", "--quiet", *few]) == 0
    assert (path / "diagnostics").is_dir()
