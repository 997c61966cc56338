"""`reconverge push` and `reconverge pull`: the Hugging Face Hub, when asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.launch.commands.command import Command, MaybeName

Named = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


@dataclass(frozen=True)
class Push(Command):
    """Upload an exported policy, or demonstrations exported in LeRobot's layout, to the Hugging Face Hub, in one commit.

    The token is the environment's HF_TOKEN; nothing is asked. What an earlier push left there is replaced or removed, its history
    stays; other files are left alone.
    A policy's card and `export.json` name the command, the folder and the machine of its run: read them before they are public.

    Examples:
      reconverge push runs/exports/cw10-3-trust-region-seed-0-stage-03 me/three-tasks --private
      reconverge push runs/exports/cw10-3 me/cw10-demonstrations
    """

    summary: ClassVar[str] = "an export to the Hugging Face Hub"

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """What `reconverge export` or `reconverge export-demonstrations --format lerobot` has written."""
    repository: Named
    """Repository; it is made where it is not there."""
    private: bool = False
    """Make the repository private; one that is there and public is refused."""

    def run(self, command_line: str) -> int:
        from reconverge.launch.hub import push
        from reconverge.launch.hub_client import HubClient, read_repository

        name = read_repository(self.repository).name
        done = push(self.folder, name, self.private, HubClient())
        seen = "private" if self.private else "public, unless it was made private there"
        print(f"pushed: {done.repository} at {done.commit}\n        {done.bytes:,} bytes, {seen}")
        print(f"again:  reconverge pull {done.repository} --revision {done.commit} --output-dir FOLDER")
        return 0


@dataclass(frozen=True)
class Pull(Command):
    """Download a policy or demonstrations that `reconverge push` has uploaded: one commit, its hashes checked, into a new folder.

    Only files that an export has are taken: arrays, tables and text, no code and no pickle. A private repository needs HF_TOKEN.

    Examples:
      reconverge pull me/three-tasks --output-dir policies/three-tasks
      reconverge pull me/three-tasks --revision 9fceb02d0ae598e95dc970b74767f19372d61af8 --output-dir policies/three-tasks
      reconverge pull datasets/me/cw10-demonstrations --output-dir data/cw10
    """

    summary: ClassVar[str] = "a policy or demonstrations from the Hugging Face Hub"

    repository: Named
    """Repository; `datasets/OWNER/NAME` for demonstrations."""
    output_dir: Path
    """Folder to write; it must be new or empty."""
    revision: MaybeName = None
    """Commit, tag or branch; the last commit when left out. Only a commit's hash is the same for ever."""

    def run(self, command_line: str) -> int:
        from reconverge.launch.hub import pull
        from reconverge.launch.hub_client import HubClient, read_repository

        repository = read_repository(self.repository)
        commit = pull(repository, self.revision, self.output_dir, HubClient())
        print(f"pulled: {repository} at {commit}\nfolder: {self.output_dir}")
        print(_how_to_use(repository.kind, self.output_dir))
        return 0


def _how_to_use(kind: str, folder: Path) -> str:
    if kind == "dataset":
        return f"use:    {{task: TASK, expert: \"lerobot:{folder}\"}} as a stage of a curriculum"
    if (folder / "policy.onnx").exists():
        return f"use:    see {folder / 'README.md'}"
    return f'use:    DiffusionPolicy.load("{folder}"), see {folder / "README.md"}'
