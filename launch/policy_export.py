"""A policy handed over: one folder with everything that acting needs, and a card that says what it is.

    policy.safetensors  policy.json     weights with the normaliser inside, sizes and task names; `DiffusionPolicy.load` reads the folder
    policy.onnx                         or the chunk sampler as one graph, with `--format onnx`
    export.json                         run, stage, method, seed, curriculum, fingerprint, success: the card's figures for a program
    README.md                           the card
    manifest.json                       size and hash of every file

A checkpoint is what is read; nothing in the run's folder is touched.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import MANIFEST, write_artifact
from reconverge.envs.errors import ConfigError, RunFolderError
from reconverge.envs.plain_json import read_json_object
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.checkpoint import checkpoint_of, read_record
from reconverge.launch.model_card import learned, model_card
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import SamplerName
from reconverge.policy.diffusion_policy import DiffusionPolicy, arrays_of
from reconverge.policy.sampler_steps import late_start, unfit_steps, unfit_temperature

RECORD = "export.json"
KIND = "reconverge policy"


@dataclass(frozen=True)
class ExportedStage:
    """A policy and where it comes from.

    Attributes:
        stage: the stage after which it was kept; 0 is the untrained policy.
    """

    policy: DiffusionPolicy
    run: RunResults
    stage: int

    def name(self) -> str:
        """Such as `cw10-3-trust-region-seed-0-stage-03`."""
        curriculum = Path(self.run.curriculum).stem.replace(":", "-")
        return f"{curriculum}-{self.run.method}-seed-{self.run.seed}-stage-{self.stage:02d}"

    def record(self) -> dict[str, Any]:
        cells = [asdict(cell) for cell in self.run.cells if cell.stage <= self.stage]
        return {
            "kind": KIND, "run": str(self.run.folder), "stage": self.stage, "method": self.run.method, "seed": self.run.seed,
            "curriculum": list(self.run.stages), "policy": self.policy.description(), "fingerprint": self.run.fingerprint,
            "command": self.run.command, "success": cells,
        }  # fmt: skip


def read_stage(
    folder: RunFolder,
    stage: int | None,
    sampler: SamplerName | None = None,
    sampling_steps: int | None = None,
    temperature: float | None = None,
) -> ExportedStage:
    """The policy of a stage, or of the last; acting in another way where one is named.

    Raises RunFolderError, which names the stages that there are, and ConfigError for sampling steps that do not fit the timesteps or a
    temperature outside 0 to 1.
    """
    checkpoint = checkpoint_of(folder, stage)
    policy = DiffusionPolicy.load(checkpoint).eval()
    own = policy.config
    steps = own.sampling_steps if sampling_steps is None else sampling_steps
    if (problem := unfit_steps(sampler or own.sampler, steps, own) or late_start(sampler or own.sampler, own.timesteps, steps)) is not None:
        raise ConfigError(f"--sampling-steps is {steps}; {problem}")
    colder = own.temperature if temperature is None else temperature
    if (problem := unfit_temperature(sampler or own.sampler, colder)) is not None:
        raise ConfigError(f"--temperature is {colder:g}; {problem}")
    policy = policy.acting_with(sampler=sampler, sampling_steps=sampling_steps, temperature=temperature)
    return ExportedStage(policy, read_run(folder.path), read_record(checkpoint)[0].stage)


def write_policy(found: ExportedStage, folder: Path) -> None:
    """The policy as a folder that `DiffusionPolicy.load` reads, in one atomic step. Raises RunFolderError as `refuse_foreign_export`."""
    arrays, description = arrays_of(found.policy.state_dict()), found.policy.description()
    write_export(found, folder, {"policy.safetensors": arrays, "policy.json": description}, _how_to_load(found, folder))


def write_export(found: ExportedStage, folder: Path, files: dict[str, Any], how_to_load: str) -> None:
    """Files, record and card. An earlier export at `folder` is replaced."""
    refuse_foreign_export(folder)
    write_artifact(folder, {**files, RECORD: found.record(), "README.md": model_card(found.run, found.policy, found.stage, how_to_load)})


def refuse_foreign_export(folder: Path) -> None:
    """Raise RunFolderError when `folder` is there and neither empty nor an earlier export: what it holds would be lost."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not _holds_export(folder):
        raise RunFolderError(f"{folder} is there and holds no exported policy; nothing there is touched, choose another --output-dir")


def _holds_export(folder: Path) -> bool:
    """Whether an export wrote the folder, and all that lies in it."""
    try:
        listed = {*read_json_object(folder / MANIFEST)["files"], MANIFEST}
        return read_json_object(folder / RECORD)["kind"] == KIND and {entry.name for entry in folder.iterdir()} <= listed
    except Exception:  # whatever it is, it is not ours
        return False


def _how_to_load(found: ExportedStage, folder: Path) -> str:
    policy, task = found.policy, (*learned(found.run, found.stage), *found.policy.tasks)[0]
    needs = "torch, numpy and safetensors" + (", and diffusers for its sampler" if policy.config.sampler == "ddpm" else "")
    return f"""```python
from reconverge.policy.diffusion_policy import DiffusionPolicy
policy = DiffusionPolicy.load("{folder.name}")
action, state = policy.predict(observation, state, task="{task}")    # state is None at the start of an episode
```

Acting imports {needs}: no simulator (`pip install --no-deps .` in a clone of reconverge, beside them, will do). `observation` is
({policy.observation_size},) or (environments, {policy.observation_size}) in the task's own units, the normaliser is inside; actions are
({policy.action_size},) in [-1, 1]. `policy.select_action(observations, task=...)` is the same with the state kept inside; call
`policy.reset()` when an episode starts."""
