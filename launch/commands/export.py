"""`reconverge export`: a policy handed over to who acts with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from reconverge.launch.commands.command import Command, MaybeFloat, MaybeInt, MaybePath, Run, at_least
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import SamplerName

if TYPE_CHECKING:
    from reconverge.launch.policy_export import ExportedStage


@dataclass(frozen=True)
class Export(Command):
    """Write the policy of a checkpoint as one folder that loads in three lines without a simulator, with a card that says what it is.

    `--format onnx` writes the whole chunk sampler as one graph, compares its actions with the policy's, and times both.

    Examples:
      reconverge export runs/quickstart/trust-region/seed-0
      reconverge export runs/quickstart/trust-region/seed-0 --stage 2 --output-dir handed/over
      reconverge export runs/quickstart/trust-region/seed-0 --format onnx
    """

    summary: ClassVar[str] = "a policy in one folder with its card, or as ONNX"

    path: Run
    """Run folder."""
    stage: MaybeInt = None
    """Stage whose checkpoint is taken; the last one when left out."""
    format: Literal["policy", "onnx"] = "policy"
    """`policy` for `DiffusionPolicy.load`, `onnx` for any runtime of that format."""
    output_dir: MaybePath = None
    """Folder to write; runs/exports/NAME when left out. An earlier export there is replaced, anything else is refused."""
    sampler: Annotated[SamplerName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Sampler that the policy acts with from now on; its own when left out. Another one needs a policy trained with
    `--policy.trained-timesteps all`, which `cw10` and `quickstart` do not do."""
    sampling_steps: MaybeInt = None
    """Denoising steps of the sampler; its own when left out. Another number needs the same."""
    temperature: MaybeFloat = None
    """Temperature that it acts with, 0 to 1; its own when left out."""

    def run(self, command_line: str) -> int:
        at_least("--stage", self.stage, 0)
        at_least("--sampling-steps", self.sampling_steps, 1)
        folder = RunFolder.open(self.path)
        from reconverge.launch.policy_export import read_stage, refuse_foreign_export, write_policy

        found = read_stage(folder, self.stage, self.sampler, self.sampling_steps, self.temperature)
        output = self.output_dir or Path("runs", "exports", found.name() + ("-onnx" if self.format == "onnx" else ""))
        refuse_foreign_export(output)
        if self.format == "onnx":
            _write_onnx(found, output)
        else:
            write_policy(found, output)
        print(f"policy: {output}\ncard:   {output / 'README.md'}")
        return 0


def _write_onnx(found: ExportedStage, output: Path) -> None:
    from reconverge.launch.onnx_export import check_parity, how_to_load, onnx_graph
    from reconverge.launch.policy_export import write_export

    graph = onnx_graph(found.policy)
    parity = check_parity(found.policy, graph)
    write_export(found, output, {"policy.onnx": graph}, how_to_load(found.policy, parity))
    print(f"largest difference from torch: {parity.difference:.2g} over {parity.rows} queries of all tasks")
    low, middle, high = parity.times_as_fast
    print(
        f"one chunk, 1 thread: onnxruntime {1000 * parity.onnx_s:.2f} ms, torch {1000 * parity.torch_s:.2f} ms, "
        f"{middle:.1f} times as fast (quartiles of pairs taken in turn: {low:.1f} to {high:.1f})"
    )
