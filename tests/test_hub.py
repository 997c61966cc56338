"""Push and pull against a hub on this machine: the same bits come back, and a hostile repository leaves nothing behind."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_hub import TOKEN, FakeHub, FakeRepository
from folder_contents import contents
from small_policy import DO, small_policy

from reconverge.envs.artifact import MANIFEST, manifest_of, write_artifact
from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.episodes import Episode
from reconverge.envs.tasks import find_task
from reconverge.launch.cli import main
from reconverge.launch.lerobot_export import write_lerobot
from reconverge.launch.policy_export import KIND
from reconverge.policy.diffusion_policy import DiffusionPolicy, arrays_of

pytest.importorskip("huggingface_hub")

Files = dict[str, bytes]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    found = FakeHub()
    with found.serving() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A policy as `reconverge export` writes it."""
    write_policy(tmp_path / "exported", "# it")
    return tmp_path / "exported"


def write_policy(folder: Path, card: str) -> None:
    policy = small_policy()
    files = {"policy.safetensors": arrays_of(policy.state_dict()), "policy.json": policy.description(), "export.json": {"kind": KIND}}
    write_artifact(folder, {**files, "README.md": card})


def test_a_policy_comes_back_with_the_same_bits_and_acts_the_same(
    hub: FakeHub, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(exported), "me/policy"]) == 0
    commit = hub.repositories["me/policy"].head
    assert f"reconverge pull me/policy --revision {commit} --output-dir" in capsys.readouterr().out
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 0
    assert f'DiffusionPolicy.load("{tmp_path / "pulled"}")' in capsys.readouterr().out
    assert contents(tmp_path / "pulled") == contents(exported)
    observations = np.random.default_rng(0).normal(size=(3, DO))
    own, pulled = DiffusionPolicy.load(exported), DiffusionPolicy.load(tmp_path / "pulled")
    assert np.array_equal(own.select_action(observations, "a"), pulled.select_action(observations, "a"))


def test_a_pinned_commit_stays_what_it_was(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    assert main(["push", str(exported), "me/policy"]) == 0
    first, before = hub.repositories["me/policy"].head, contents(exported)
    write_policy(exported, "# it, improved")
    assert main(["push", str(exported), "me/policy"]) == 0
    for name, flags, wanted in (("old", ["--revision", first], before), ("new", [], contents(exported))):
        assert main(["pull", "me/policy", "--output-dir", str(tmp_path / name), *flags]) == 0
        assert contents(tmp_path / name) == wanted


def test_a_push_deletes_what_an_earlier_one_left_and_nothing_else(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    repository = hub.repositories["me/policy"] = FakeRepository()
    others = {".gitattributes": b"", "notes.md": b"the owner's", "data/policy.onnx": b"the owner's"}
    first = repository.commit({**others, "policy.onnx": b"of an earlier push", "policy.safetensors": b"replaced"})
    assert main(["push", str(exported), "me/policy"]) == 0
    assert repository.commits[repository.head] == {**others, **contents(exported)}
    assert len(repository.commits) == 3 and "policy.onnx" in repository.commits[first]  # one commit; the one before stays


def test_fewer_demonstrations_leave_no_table_of_the_earlier_ones(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "set" / "meta").mkdir(parents=True)
    (tmp_path / "set" / "meta" / "info.json").write_text('{"codebase_version": "v3.0"}')
    tables = [tmp_path / "set" / "data" / "chunk-000" / f"file-00{number}.parquet" for number in (0, 1)]
    tables[0].parent.mkdir(parents=True)
    for table in tables:
        table.write_bytes(b"rows")
    assert main(["push", str(tmp_path / "set"), "me/demonstrations"]) == 0
    tables[1].unlink()
    assert main(["push", str(tmp_path / "set"), "me/demonstrations"]) == 0
    repository = hub.repositories["datasets/me/demonstrations"]
    assert repository.commits[repository.head].keys() == {"meta/info.json", "data/chunk-000/file-000.parquet", "README.md", MANIFEST}


def test_demonstrations_come_back_with_the_same_bits(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow.parquet")
    random = np.random.default_rng(0)
    episode = Episode(
        "point-reach-0", 3, random.normal(size=(6, 4)).astype(np.float32), random.uniform(-1, 1, (5, 2)).astype(np.float32), np.arange(5) == 4
    )
    write_lerobot([Demonstrations(find_task("point-reach-0"), [episode], 1, 1)], tmp_path / "set")
    for _ in range(2):  # the second one moves the tag
        assert main(["push", str(tmp_path / "set"), "me/demonstrations"]) == 0
    repository = hub.repositories["datasets/me/demonstrations"]
    assert repository.tags == {"v3.0": repository.head}
    assert main(["pull", "datasets/me/demonstrations", "--output-dir", str(tmp_path / "pulled")]) == 0
    assert f'expert: "lerobot:{tmp_path / "pulled"}"' in capsys.readouterr().out
    pulled = contents(tmp_path / "pulled")
    assert pulled.keys() - contents(tmp_path / "set").keys() == {"README.md", MANIFEST}
    assert contents(tmp_path / "set").items() <= pulled.items()


def test_what_no_export_has_written_is_not_pushed(hub: FakeHub, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artifact(tmp_path / "odd", {"export.json": {"kind": KIND}, ".netrc": "secret"})
    (tmp_path / "set" / "meta").mkdir(parents=True)
    (tmp_path / "set" / "meta" / "info.json").write_text('{"codebase_version": "v3.0"}')
    (tmp_path / "set" / "meta" / "stats.json").symlink_to("/etc/hostname")
    (tmp_path / "empty").mkdir()
    for name, said in (("odd", ".netrc"), ("set", "stats.json"), ("empty", "reconverge export"), ("absent", "reconverge export")):
        assert main(["push", str(tmp_path / name), "me/policy"]) == 2
        assert said in capsys.readouterr().err
    (exported / "README.md").write_text("changed")
    assert main(["push", str(exported), "me/policy"]) == 2
    assert "does not match its hash" in capsys.readouterr().err
    assert hub.requests == []


def test_without_a_token_nothing_is_pushed_and_public_things_are_pulled(
    hub: FakeHub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(exported), "me/public"]) == 0
    assert main(["push", str(exported), "me/secret", "--private"]) == 0
    monkeypatch.delenv("HF_TOKEN")
    hub.tokens.clear()
    capsys.readouterr()
    assert main(["push", str(exported), "me/policy"]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err and "me/policy" not in hub.repositories
    assert main(["pull", "me/public", "--output-dir", str(tmp_path / "public")]) == 0
    assert main(["pull", "me/secret", "--output-dir", str(tmp_path / "secret")]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err and not (tmp_path / "secret").exists()
    assert hub.tokens == {None}


def test_private_means_private(hub: FakeHub, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(exported), "me/policy"]) == 0
    before = hub.repositories["me/policy"].head
    assert main(["push", str(exported), "me/policy", "--private"]) == 2
    assert "public" in capsys.readouterr().err and hub.repositories["me/policy"].head == before
    assert main(["push", str(exported), "me/secret", "--private"]) == 0
    assert hub.repositories["me/secret"].private


@pytest.mark.parametrize("name", ["policy", "a/b/c", "../../etc/passwd", "me/..", "me/x y", "datasets/x", "https://huggingface.co/me/x"])
def test_odd_names_are_refused_before_anything_is_asked(name: str, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", name, "--output-dir", str(tmp_path / "pulled")]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err and hub.requests == []


def test_a_folder_that_holds_something_is_not_touched(hub: FakeHub, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(exported)
    assert main(["pull", "me/policy", "--output-dir", str(exported)]) == 2
    assert "not empty" in capsys.readouterr().err and contents(exported) == before and hub.requests == []


# Hostile repositories ------------------------------------------------------------------------------------------------------------


def listed(files: Mapping[str, bytes], **entries: Any) -> Files:
    """The files with a manifest that fits, and further or other entries in it."""
    manifest = json.loads(manifest_of(files))
    manifest["files"].update(entries)
    return {**files, MANIFEST: json.dumps(manifest).encode()}


def with_file(name: str, data: bytes) -> Callable[[Files], Files]:
    return lambda files: listed({**files, name: data})


def changed_byte(files: Files) -> Files:
    weights = bytearray(files["policy.safetensors"])
    weights[-1] ^= 1
    return {**listed(files), "policy.safetensors": bytes(weights)}


def longer_than_listed(files: Files) -> Files:
    return {**listed(files), "README.md": bytes(6_000_000)}


def shorter_than_listed(files: Files) -> Files:
    return {**listed(files), "README.md": b""}


def without_weights(files: Files) -> Files:
    return listed({name: data for name, data in files.items() if name != "policy.safetensors"})


def missing_file(files: Files) -> Files:
    return listed(files, **{"policy.onnx": {"bytes": 3, "sha256": "0" * 64}})


def claims_to_be_huge(files: Files) -> Files:
    return listed(files, **{"policy.onnx": {"bytes": 2**40, "sha256": "0" * 64}})


HOSTILE: dict[str, Callable[[Files], Files]] = {
    "leaves the folder": with_file("../evil.json", b"{}"),
    "absolute path": with_file("/tmp/evil.json", b"{}"),
    "other letters": with_file("polıcy.json", b"{}"),
    "pickle": with_file("policy.pt", pickle.dumps(1)),
    "code": with_file("setup.py", b""),
    "hidden": with_file(".git/config", b""),
    "pickle in place of arrays": with_file("policy.safetensors", pickle.dumps(list(range(100)))),
    "of another kind": with_file("export.json", b'{"kind": "other"}'),
    "no record": lambda files: listed({name: data for name, data in files.items() if name != "export.json"}),
    "not JSON": lambda files: {**files, MANIFEST: b"{"},
    "no manifest's content": lambda files: {**files, MANIFEST: b'{"version": 1, "files": {"README.md": 3}}'},
    "no manifest": dict,
    "manifest too long": lambda files: {**files, MANIFEST: bytes(6_000_000)},
    **{made.__name__: made for made in (changed_byte, longer_than_listed, shorter_than_listed, without_weights, missing_file, claims_to_be_huge)},
}
NOTHING_FETCHED = ("leaves the folder", "absolute path", "other letters", "pickle", "code", "hidden", "claims_to_be_huge")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_repository_is_refused_and_leaves_nothing(
    name: str, hub: FakeHub, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {file: data for file, data in contents(exported).items() if file != MANIFEST}
    hub.repositories["me/policy"] = FakeRepository()
    hub.repositories["me/policy"].commit(HOSTILE[name](files))
    before = sorted(tmp_path.rglob("*"))
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    if name in NOTHING_FETCHED:
        assert [path for path in hub.requests if "/resolve/" in path and not path.endswith(MANIFEST)] == []


def test_the_same_files_unharmed_are_taken(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    """What the refusals above are held against; a file that the manifest does not name is left where it is."""
    files = {file: data for file, data in contents(exported).items() if file != MANIFEST}
    hub.repositories["me/policy"] = FakeRepository()
    hub.repositories["me/policy"].commit({**listed(files), "weights.pt": b"never asked for", ".gitattributes": b""})
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 0
    assert contents(tmp_path / "pulled") == listed(files)


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 2
    said = capsys.readouterr().err
    assert "looking for me/policy failed" in said and len(said.splitlines()) == 1 and not (tmp_path / "pulled").exists()


def test_no_message_holds_the_token_or_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://somebody:hunter2@127.0.0.1:9")
    for token in ("hf_SECRET", "hf_SECRET\n", "hf_SECRET\x01", "hf_SECRET\u2028x"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 2
        said = capsys.readouterr().err
        assert "SECRET" not in said and "hunter2" not in said and len(said.splitlines()) == 1


def test_a_pull_that_does_not_fit_is_refused_ahead(
    hub: FakeHub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(exported), "me/policy"]) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 200_000_100, 200_000_100))  # type: ignore[attr-defined]
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 2
    assert "make room there" in capsys.readouterr().err and not (tmp_path / "pulled").exists()


def test_without_the_library_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["pull", "me/policy", "--output-dir", str(tmp_path / "pulled")]) == 2
    assert "pip install -e '.[hub]'" in capsys.readouterr().err
