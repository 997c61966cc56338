"""A task's file lies in the folder that it was meant for, whatever the task is called, and no other task has it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.artifact import MANIFEST, Artifact, write_artifact
from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.demonstrations import collection_name
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import DamagedFile, ReconvergeError
from reconverge.envs.task import ObservationLayout, Task
from reconverge.envs.task_files import LONGEST_NAME, task_file, task_of_file
from reconverge.envs.tasks import task_names
from reconverge.eval.clip import cell_name
from reconverge.eval.stored_rollouts import read_rollouts

PIECES = ["..", ".", "/", "\\", "\0", "~", "%2F", "%", "C:", "con", "NUL.txt", "com1", "é", "e\u0301", "\u202e", "\uff0f", "\u2215"]
PIECES += ["a" * 300, " ", "\n", "-rf", "*", "$(x)"]
HOSTILE = sorted(
    {"".join(pair) for pair in itertools.product(PIECES, repeat=2)}
    | {"", "/etc/passwd", "../../x", "..\\..\\x", "a/../../b", "gym:my_module:Env/v0", "gym:a/b", ".hidden", "x.", "stage-01"}
    | {"a" * 100_000, "\ud800"}
)
"""More than 500 names that lead elsewhere, are reserved, spelt in two ways, endless, or mean something to a shell."""


def test_names_of_built_in_tasks_stay_as_they_are() -> None:
    assert [task_file(name) for name in task_names()] == task_names()
    assert [task_of_file(name) for name in task_names()] == task_names()


def test_no_hostile_name_leaves_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert len(HOSTILE) >= 200
    for name in HOSTILE:
        for path in (root / f"{task_file(name)}.safetensors", root / cell_name(1, name)):
            path.write_bytes(b"")
            assert path.resolve().parent == root.resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert len(list(root.iterdir())) == 2 * len(HOSTILE)  # none was written over another


def test_no_hostile_name_leaves_the_folder_of_the_demonstrations() -> None:
    named = [Task(name, "point-reach", 4, 2, 60, 0.1, "", ObservationLayout((0, 4))) for name in HOSTILE if name != "\ud800"]
    folders = [collection_name(task, DemonstrationConfig(), 3) for task in named]
    assert len(set(folders)) == len(folders) and all(Path(folder).name == folder and len(folder) < 220 for folder in folders)
    hammer = Task("hammer-v3", "point-reach", 4, 2, 60, 0.1, "", ObservationLayout((0, 4)))
    assert collection_name(hammer, DemonstrationConfig(), 3).startswith("hammer-v3-3-")


@given(st.lists(st.text(max_size=200), unique=True, max_size=5))
def test_two_names_never_share_a_file_and_the_name_comes_back(names: list[str]) -> None:
    files = [task_file(name) for name in names]
    assert len(set(files)) == len(names) and all(0 < len(file) <= LONGEST_NAME and Path(file).name == file for file in files)
    assert all(task_of_file(file) == name for name, file in zip(names, files, strict=True) if "~" not in file)


@pytest.mark.parametrize("stem", ["a~0123", "%FF", "%41", "\udcff"])
def test_a_file_name_that_is_no_tasks_is_refused(stem: str) -> None:
    with pytest.raises(DamagedFile, match="task"):
        task_of_file(stem)


def test_a_folder_that_is_no_stages_is_refused(tmp_path: Path) -> None:
    for name in ("stage-x", "stage-", "stage-" + "9" * 200, "stage-²"):
        (tmp_path / name / "rollouts" / name).mkdir(parents=True)
        (tmp_path / name / "rollouts" / name / "a.safetensors").write_bytes(b"")
        with pytest.raises(DamagedFile, match="no stage's folder"):
            read_rollouts(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in HOSTILE if len(name) < 400][::20])
def test_a_curriculum_of_hostile_names_is_refused_and_writes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReconvergeError):
        load_curriculum(name)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_does_not_show_files_from_outside_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    write_artifact(tmp_path / "a", {"raw": b"x", "again": b"x"})
    (tmp_path / "a" / "again").unlink()
    (tmp_path / "a" / "again").symlink_to("raw")
    assert Artifact(tmp_path / "a").bytes("again") == b"x"  # a link within the folder shows nothing new
    for target in (secret, "../secret", "again", tmp_path / "nowhere"):
        (tmp_path / "a" / "raw").unlink()
        (tmp_path / "a" / "raw").symlink_to(target)
        with pytest.raises(DamagedFile, match=r"leads out|cannot be found|is missing"):
            Artifact(tmp_path / "a")
    (tmp_path / "a" / MANIFEST).rename(tmp_path / MANIFEST)
    (tmp_path / "a" / MANIFEST).symlink_to(tmp_path / MANIFEST)
    with pytest.raises(DamagedFile, match="leads out"):
        Artifact(tmp_path / "a")
