"""Checks of a run folder's bytes: every file against the hash that was kept of it, and whether what says how the run was made can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import MANIFEST, Artifact
from reconverge.envs.errors import DamagedFile, ReconvergeError, shown
from reconverge.envs.plain_json import read_json_object
from reconverge.launch.run_tables import CEILING_COLUMNS, ceiling_row, csv_text
from reconverge.launch.seal import SEAL, broken_seals, sealed_files
from reconverge.launch.stage_plan import demonstration_budgets, run_curriculum
from reconverge.launch.verified_run import Check, VerifiedRun, compared

TABLE_SUFFIXES = (".csv", ".json", ".jsonl", ".yaml")


def check_seal(run: VerifiedRun) -> Iterator[Check]:
    """Every file that the run listed when it let go of the folder; and no table beside them."""
    if not run.has(SEAL):
        yield Check(SEAL, "not checked", "there is none: the run is going on, was killed, or is older; settings, report and videos have no hashes")
        return
    seal = read_json_object(run.path / SEAL)
    listed = seal.get("files")
    if seal.get("version") != 1 or not isinstance(listed, dict) or not all(_is_entry(entry) for entry in listed.values()):
        raise DamagedFile(f"{SEAL} is damaged: a version or an entry is none that reconverge writes")
    later = {str(path.relative_to(run.path)) for path in sealed_files(run.path)} - set(listed)
    harmless = {f"{name} came later" for name in later if "/" in name or not name.endswith(TABLE_SUFFIXES)}
    changed = [words for words in broken_seals(run.path, listed) if words not in harmless]
    for words in changed:
        yield Check(SEAL, "DIFFERS", words)
    if not changed:
        yield Check(SEAL, "ok", f"{len(listed)} files are as they were when the run ended{f'; {len(harmless)} came later' if harmless else ''}")


def check_settings(run: VerifiedRun) -> Iterator[Check]:
    """Whether the files that say what was run can be read."""
    config = run.folder.config  # raises what is wrong with it
    run_curriculum(run.folder, config)
    fingerprint = read_json_object(run.folder.fingerprint_json)
    if not isinstance(fingerprint.get("versions"), dict):
        raise DamagedFile("fingerprint.json names no versions")
    if not run.folder.command_txt.read_text().startswith("reconverge "):
        yield Check("command.txt", "DIFFERS", "it does not begin with `reconverge`")
    resumed = run.folder.lines_of("resumed_with")
    exact = f"; it went on under other versions ({', '.join(map(shown, resumed))}), so its figures repeat approximately" if resumed else ""
    extends = f"; it extends {shown(fingerprint.get('extends'))}" if run.folder.extended_after else ""
    yield Check("settings", "ok", f"config.yaml, curriculum.yaml, fingerprint.json and command.txt can be read{extends}{exact}")


def check_checkpoints(run: VerifiedRun) -> Iterator[Check]:
    """Every checkpoint and save against the hashes in its manifest."""
    folders = sorted(path for path in run.folder.checkpoints.glob("stage-*") if path.is_dir())
    if not folders:
        alone = "neither weights nor, without hashes in files.json, ledger.csv, fisher.csv, metrics.jsonl and cost.json can be checked"
        yield Check("checkpoints", "not checked", f"there are none here: {alone}")
    for folder in folders:
        name = f"checkpoint {folder.name.removeprefix('stage-')}"
        try:
            artifact = Artifact(folder)
            _refuse_unlisted(folder)
        except (ReconvergeError, OSError) as error:
            yield Check(name, "DIFFERS", str(error))
        else:
            size = sum(len(artifact.bytes(file)) for file in artifact.names)
            yield Check(name, "ok", f"{len(artifact.names)} files, {size / 1e6:.1f} MB, match their hashes")


def _refuse_unlisted(folder: Path) -> None:
    """Raise DamagedFile unless the manifest of a sound artifact lists all that is there."""
    unlisted = {path.name for path in folder.iterdir()} - {*read_json_object(folder / MANIFEST)["files"], MANIFEST}
    if unlisted:
        raise DamagedFile(f"{folder} holds files that its {MANIFEST} does not list: {', '.join(sorted(unlisted))}")


def check_demonstrations(run: VerifiedRun) -> Iterator[Check]:
    """The demonstrations that the run names, where they are: hashes, and whether they are those it began with."""
    from reconverge.envs.demonstrations import Demonstrations, collection_name, data_digest
    from reconverge.envs.episodes import EpisodeStore

    if run.config is None or not run.plans:
        yield Check("demonstrations", "not checked", "the settings that name them cannot be read")
        return
    begun = read_json_object(run.folder.fingerprint_json).get("demonstrations") if run.has("fingerprint.json") else None
    root, ceilings, absent = Path(run.config.demonstrations.folder), [], 0
    for task, count in demonstration_budgets(run.plans).items():
        store = EpisodeStore(root / collection_name(task, run.config.demonstrations, count))
        if not store.folder.exists():
            absent += 1
            continue
        try:
            episodes, facts = store.read()
            _refuse_unlisted(store.folder)
        except (ReconvergeError, OSError) as error:
            yield Check("demonstrations", "DIFFERS", str(error))
            continue
        ceilings.append(ceiling_row(task.name, len(episodes), facts["attempts"]))
        digest = data_digest(Demonstrations(task, episodes, facts["attempts"], len(episodes)))
        if isinstance(begun, dict) and begun.get(task.name, digest) != digest:
            yield Check("demonstrations", "DIFFERS", f"{store.folder} holds others than the run began with")
        else:
            known = "are those that the run began with" if isinstance(begun, dict) and task.name in begun else "match their hashes"
            yield Check("demonstrations", "ok", f"{task.name}: {len(episodes)} episodes {known}")
    if absent:
        yield Check("demonstrations", "not checked", f"those of {absent} tasks are not below {root}")
    elif ceilings and run.has("ceilings.csv"):
        yield compared(run, "ceilings.csv", csv_text(CEILING_COLUMNS, ceilings), "the demonstrations")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
