"""An artifact is whole or not there: any damage is found before a number is used."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconverge.envs import artifact
from reconverge.envs.artifact import MANIFEST, Artifact, draft_of, swap_into_place, sweep_abandoned, sweep_drafts, write_artifact, write_file
from reconverge.envs.errors import DamagedFile

ARRAYS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.array([True, False]), "empty": np.zeros((0, 3))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "stage-01", {"x.safetensors": ARRAYS, "x.json": {"n": [1, None, 0.1]}, "log.txt": "grüße", "raw": b"\x00\x01"})
    return tmp_path / "stage-01"


def test_what_was_written_is_read(folder: Path) -> None:
    artifact = Artifact(folder)
    assert artifact.names == ["log.txt", "raw", "x.json", "x.safetensors"] and "raw" in artifact
    for name, value in artifact.arrays("x.safetensors").items():
        np.testing.assert_array_equal(value, ARRAYS[name])
        assert value.dtype == ARRAYS[name].dtype
    assert artifact.json("x.json") == {"n": [1, None, 0.1]}
    assert artifact.text("log.txt") == "grüße" and artifact.bytes("raw") == b"\x00\x01"


def test_arrays_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).T[::-1]
    write_artifact(tmp_path / "v", {"v.safetensors": {"v": array}})
    np.testing.assert_array_equal(Artifact(tmp_path / "v").arrays("v.safetensors")["v"], array)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["x.safetensors", "x.json", "log.txt", "raw"]))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        with pytest.raises(DamagedFile, match=path.name):
            Artifact(folder)
    finally:
        path.write_bytes(content)


def test_every_truncation_and_extra_bytes_are_found(folder: Path) -> None:
    path = folder / "x.safetensors"
    content = path.read_bytes()
    for damaged in [*(content[:cut] for cut in range(0, len(content), 7)), content + b"\x00", bytes(len(content))]:
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            Artifact(folder)


def test_a_missing_file_folder_or_manifest_is_found(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="nowhere"):
        Artifact(tmp_path / "nowhere")
    (folder / "raw").unlink()
    with pytest.raises(DamagedFile, match="raw is missing"):
        Artifact(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(DamagedFile, match=MANIFEST):
        Artifact(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"files": 3}', '{"files": null}', '{"files": {"a": 3}}', '{"files": {"a": {}}}', "\x00", "[" * 10000],
)
def test_an_unreadable_manifest_is_found(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedFile, match=MANIFEST):
        Artifact(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ".", "", "a\0b"])
def test_a_manifest_cannot_point_outside_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": "", "bytes": 0}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedFile):
        Artifact(folder)


def test_an_unknown_file_of_an_artifact_is_named(folder: Path) -> None:
    with pytest.raises(DamagedFile, match=r"no file 'y\.json'"):
        Artifact(folder).json("y.json")


def test_replacing_leaves_only_the_new_content(folder: Path) -> None:
    write_artifact(folder, {"y.json": {}})
    assert Artifact(folder).names == ["y.json"]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "y.json"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_write_keeps_the_old_content(folder: Path) -> None:
    with pytest.raises(TypeError):
        write_artifact(folder, {"new.json": {"not json": object()}})
    assert "raw" in Artifact(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_file(path, "old")
    write_file(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def no_answer(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ESTALE, "Stale file handle")


def test_two_processes_of_one_number_have_drafts_of_their_own(tmp_path: Path) -> None:
    assert draft_of(tmp_path / "a") != draft_of(tmp_path / "a")


def test_what_others_may_still_be_writing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".a.writing-1-2").mkdir()
    sweep_abandoned(tmp_path)
    assert (tmp_path / ".a.writing-1-2").exists()
    monkeypatch.setattr(artifact, "ABANDONED_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", no_answer)  # somebody else's
        sweep_abandoned(tmp_path)
    sweep_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "call"), [(os, "open"), (Path, "stat"), (Path, "is_symlink"), (os, "fstat")])
def test_a_file_system_that_does_not_answer_is_no_damage(module: object, call: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module, call, no_answer)
        with pytest.raises(OSError, match="Stale file handle"):
            Artifact(folder)
    Artifact(folder)


def test_what_an_interrupted_write_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".a.writing-1").mkdir()
    (tmp_path / ".b.writing-2").write_text("")
    (tmp_path / ".hidden").write_text("")
    sweep_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, folder, rename = tmp_path / ".draft", tmp_path / "folder", os.rename
    for path in (draft, folder):
        path.mkdir()
        (path / path.name.strip(".")).touch()

    def fail(source: Path, target: Path) -> None:
        if source == draft:
            raise OSError(39, "Directory not empty")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="not empty"):
        swap_into_place(draft, folder)
    assert [path.name for path in folder.iterdir()] == ["folder"] and len(list(tmp_path.iterdir())) == 2
