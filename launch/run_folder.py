"""The folder of one run: where each file lies, who may write in it, and which configuration it belongs to.

    runs/quickstart/trust-region/seed-0/
      config.yaml  curriculum.yaml  command.txt  fingerprint.json      what was run
      ceilings.csv  episodes.csv  success_matrix.csv  recovery*.csv    what was measured
      metrics.jsonl  fisher.csv  ledger.csv  cost.json                 how it went
      files.json                                                       the seal: hashes of all these, while nobody writes
      checkpoints/stage-03/  rollouts/stage-03/  videos/  report.html
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from reconverge.envs.artifact import sweep_drafts, write_file
from reconverge.envs.errors import DamagedFile, RunFolderError, shown
from reconverge.envs.plain_json import read_json_object
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import HEADER, Difference, config_text, differences, read_config
from reconverge.launch.fingerprint import fingerprint, git_commit, package_versions
from reconverge.launch.machine_limits import free_bytes
from reconverge.launch.own_methods import method_package
from reconverge.launch.run_lock import RunLock
from reconverge.launch.seal import Sealed, seal, unseal

FREE_ON_RESUME = ("save_minutes", "demonstrations.workers", "demonstrations.folder", "evaluation.workers", "video.render")
"""Of the settings that change no result (eval/inert_settings.py), those that a resumed run may change: pictures of one run are all of one kind."""

LEAST_FREE_BYTES = 200_000_000
"""Room that there must be before a run starts or goes on."""


class RunFolder:
    """One run's folder; made by `create`, `resume` or `open`. The first two hold its lock until closed.

    with RunFolder.create(Path("runs/mine"), config, command="reconverge train ...") as folder:
        folder.metrics_jsonl.write_text(...)
    """

    def __init__(self, path: Path, lock: RunLock | None = None) -> None:
        self.path = path
        self._lock = lock
        self._sealed: Sealed = {}

    @classmethod
    def create(cls, path: Path, config: RunConfig, command: str, overwrite: bool = False, told: Mapping[str, Any] | None = None) -> RunFolder:
        """Start a run in a new or empty folder; with `overwrite`, in one that holds an earlier run, which is deleted.

        What is `told` of the run beside its versions is in its fingerprint from the start.

        Raises RunFolderError when the folder holds a run (and not `overwrite`), holds anything else, or is in use.
        """
        check(config)
        refuse_foreign(path)
        if holds_run(path) and not overwrite:
            raise RunFolderError(
                f"{path} already holds a run; continue it with --resume {shlex.quote(str(path))}, replace it with --overwrite, or choose another "
                "--output-dir"
            )
        path.mkdir(parents=True, exist_ok=True)
        _check_room(path)
        folder = cls(path, RunLock(path))
        try:
            folder._start(config, command, overwrite, told or {})
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def resume(cls, path: Path, config: RunConfig | None = None) -> RunFolder:
        """Go on in a folder that holds a run. With `config`, refuse one that differs from the saved configuration."""
        found = cls.open(path)
        found.refuse_other_settings(config or found.config, FREE_ON_RESUME, "leave these out to resume, or start afresh in another --output-dir")
        _check_room(path)
        lock = RunLock(path)
        folder = cls(path, lock)
        try:
            folder._sweep_drafts()
            folder._sealed = unseal(path)
        except BaseException:
            lock.release()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder that holds a run, to read from."""
        if not holds_run(path):
            raise RunFolderError(f"{path} holds no run (no config.yaml written by reconverge); give the folder that `train` printed")
        return cls(path)

    @property
    def config(self) -> RunConfig:
        """The resolved configuration of the run."""
        return read_config(self.config_yaml)

    def refuse_other_settings(self, given: RunConfig, free: Sequence[str], advice: str) -> None:
        """Raise RunFolderError where a configuration differs from the run's in other settings than the `free` ones."""
        changed = [found for found in differences(self.config, given) if found.key not in free]
        if changed:
            raise RunFolderError(f"{self.path} was started with another configuration: {_listed(changed)}; {advice}")

    @property
    def extended_after(self) -> tuple[int, ...]:
        """The stages after which the run was given more, by `train --extend`; what came before them was taken over from another folder."""
        stages = self.lines_of("extended_after")
        if not all(type(stage) is int and stage > 0 for stage in stages):
            raise DamagedFile(f"{self.fingerprint_json}: 'extended_after' must be a list of stages, not {shown(stages)}; start the run afresh")
        return tuple(stages)

    def lines_of(self, name: str) -> list[Any]:
        """A list in the fingerprint, empty where it is not there. Raises DamagedFile."""
        lines = self.read_fingerprint().get(name, [])
        if not isinstance(lines, list):
            raise DamagedFile(f"{self.fingerprint_json}: '{name}' must be a list, not {shown(lines)}; start the run afresh")
        return lines

    def read_fingerprint(self) -> dict[str, Any]:
        """Under what the run was made, and what is told of how it went. Raises DamagedFile."""
        try:
            return read_json_object(self.fingerprint_json)
        except (FileNotFoundError, DamagedFile) as error:
            raise DamagedFile(f"{self.fingerprint_json} cannot be read; start the run afresh with --overwrite") from error

    def describe_policy(self, parameters: int, denoiser: str) -> None:
        """Add what is known of the policy once it is built to the fingerprint."""
        self._add_to_fingerprint(parameters=parameters, denoiser=denoiser)

    def keep_facts(self, name: str, facts: dict[str, str]) -> None:
        """Add facts that must stay the same for the whole run to the fingerprint: digests of the data, the simulators.

        Raises RunFolderError when the run began with other ones; it names them.
        """
        begun = self.read_fingerprint().get(name, {})
        if not isinstance(begun, dict):
            raise DamagedFile(f"{self.fingerprint_json}: '{name}' must be a mapping, not {shown(begun)}; start the run afresh")
        changed = [key for key, fact in facts.items() if begun.get(key, fact) != fact]
        if changed:
            raise RunFolderError(
                f"{self.path} began with other {name} than are here now ({', '.join(changed)}); its tables would mix the two. "
                "Put back what it began with, or start afresh in another --output-dir"
            )
        if facts.keys() - begun.keys():
            self._add_to_fingerprint(**{name: {**begun, **facts}})

    def note_in_fingerprint(self, name: str, lines: list[str]) -> None:
        """Add to what is told of the run, each line once: `resumed_with` other versions, so that it is no longer exact; a stage that was
        `begun_again`."""
        self._add_to_fingerprint(**{name: list(dict.fromkeys([*self.lines_of(name), *lines]))})

    def keep_processes(self, now: int) -> list[str]:
        """Write down how many processes share the updates from here on; what that changes, such as `processes 2 -> 1`.

        Another number adds up gradients in another order, which shows in the last digits.
        """
        before = self.read_fingerprint().get("processes", 1)
        if now == before:
            return []
        self._add_to_fingerprint(processes=now)
        return [f"processes {before} -> {now}"]

    def version_changes(self) -> list[str]:
        """What is another version than when the run began: packages, such as `torch 2.12.0 -> 2.13.0`, and the git commit."""
        saved = self.read_fingerprint()
        now = {**package_versions(), "git commit": git_commit(), "method of": method_package(self.config.method)}
        before = {**saved.get("versions", {}), "git commit": saved.get("git_commit"), "method of": saved.get("method_package")}
        return [f"{name} {before[name]} -> {now[name]}" for name in now if name in before and before[name] != now[name]]

    def checkpoint(self, stage: int) -> Path:
        """Folder of a stage's checkpoint; stage 1 is the first, 0 the untrained policy."""
        return self.checkpoints / f"stage-{stage:02d}"

    def learning(self, stage: int) -> Path:
        """Folder of the save within a stage that is still learned."""
        return self.checkpoints / f"stage-{stage:02d}.learning"

    def consolidated(self, stage: int) -> Path:
        """Folder of the save of a stage that only lacks its evaluation."""
        return self.checkpoints / f"stage-{stage:02d}.consolidated"

    def stage_rollouts(self, stage: int) -> Path:
        """Folder of the recorded physics states of a stage's evaluation."""
        return self.rollouts / f"stage-{stage:02d}"

    @property
    def lock(self) -> Path | None:
        """Folder of the lock that is held, which goes when it is released; None in a folder that was opened to read."""
        return None if self._lock is None else self._lock.path

    @property
    def is_held(self) -> bool:
        """Whether no other process has taken the run over."""
        return self._lock is None or not self._lock.is_lost()

    def check_held(self) -> None:
        """Ahead of everything that is written: raise RunFolderError once another process has taken the run over, as two would mix their work."""
        if not self.is_held:
            raise RunFolderError(
                f"{self.path} is no longer held by this process: another one has taken it over, or its lock was deleted. Nothing more is written "
                f"there; once nobody works in it, go on from its last save with: {resume_command(self.path)}"
            )

    def close(self) -> None:
        """Seal the folder and let other processes in; one that another process has taken over is left to that."""
        if self._lock is not None:
            try:
                if holds_run(self.path) and not self._lock.is_lost():
                    with contextlib.suppress(OSError):  # a full disk: the folder stays as good as before, without a seal
                        seal(self.path, self._sealed)
            finally:
                self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.check_held()
        finally:
            self.close()

    def _start(self, config: RunConfig, command: str, overwrite: bool, told: Mapping[str, Any]) -> None:
        # Looked at again under the lock: another process may have come first.
        if holds_run(self.path):
            if not overwrite:
                raise RunFolderError(f"{self.path} was taken by another run just now; choose another --output-dir")
            _empty(self.path)
        self._sweep_drafts()
        unseal(self.path)
        write_file(self.command_txt, command.strip() + "\n")
        self._write_fingerprint({**fingerprint(method_package(config.method)), **told})
        write_file(self.config_yaml, config_text(config))

    def _sweep_drafts(self) -> None:
        """Remove what interrupted writes left behind; a checkpoint that stepped aside for one that never came is back."""
        for place in (self.path, self.checkpoints, self.videos, *self.rollouts.glob("stage-*")):
            sweep_drafts(place)

    def _add_to_fingerprint(self, **facts: Any) -> None:
        self._write_fingerprint({**self.read_fingerprint(), **facts})

    def _write_fingerprint(self, content: dict[str, Any]) -> None:
        self.check_held()
        write_file(self.fingerprint_json, json.dumps(content, indent=1) + "\n")

    @property
    def config_yaml(self) -> Path:
        return self.path / "config.yaml"

    @property
    def curriculum_yaml(self) -> Path:
        return self.path / "curriculum.yaml"

    @property
    def command_txt(self) -> Path:
        return self.path / "command.txt"

    @property
    def fingerprint_json(self) -> Path:
        return self.path / "fingerprint.json"

    @property
    def ceilings_csv(self) -> Path:
        return self.path / "ceilings.csv"

    @property
    def episodes_csv(self) -> Path:
        return self.path / "episodes.csv"

    @property
    def success_matrix_csv(self) -> Path:
        return self.path / "success_matrix.csv"

    @property
    def metrics_jsonl(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def cost_json(self) -> Path:
        return self.path / "cost.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"


def resume_command(path: Path) -> str:
    """The line with which a run goes on."""
    return shlex.join(["reconverge", "train", "--resume", str(path)])


def nested(one: Path, other: Path) -> bool:
    """Whether a folder is the other, or lies in it, or the other in it."""
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)


def holds_run(path: Path) -> bool:
    """Whether a folder is recognisably a run's: its config.yaml begins with the line that `create` writes."""
    try:
        if not (path / "config.yaml").is_file():  # a pipe would be waited for
            return False
        with open(path / "config.yaml") as file:
            return file.readline(len(HEADER) + 1) == HEADER
    except (OSError, UnicodeDecodeError):
        return False


def _check_room(path: Path) -> None:
    free = free_bytes(path)
    if free < LEAST_FREE_BYTES:
        raise RunFolderError(
            f"the volume of {path} has {free / 1e6:.0f} MB left; a run needs {LEAST_FREE_BYTES / 1e6:.0f}. "
            "Make room, or choose another --output-dir"
        )


def refuse_foreign(path: Path) -> None:
    """Raise RunFolderError when `path` is a file, or a folder that holds anything but a run."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; choose a folder with --output-dir")
    if path.is_dir() and not holds_run(path) and any(not _passing(entry) for entry in path.iterdir()):
        raise RunFolderError(f"{path} holds files that are not a run's; nothing there is touched, choose another --output-dir")


def _passing(entry: Path) -> bool:
    """Locks, drafts, and the two files that are written before config.yaml makes a folder a run's."""
    return entry.name.startswith(".") or entry.name in ("command.txt", "fingerprint.json")


def _empty(path: Path) -> None:
    """Delete everything but the locks, config.yaml last: until then the folder stays recognisable."""
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".lock-")]
    for entry in sorted(entries, key=lambda entry: entry.name == "config.yaml"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _listed(changed: list[Difference], limit: int = 4) -> str:
    shown = "; ".join(str(difference) for difference in changed[:limit])
    return shown if len(changed) <= limit else f"{shown}; and {len(changed) - limit} more"
