"""Every reader answers a hostile file with a typed error that names the file: no crash, no hang, no number that is none."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import re
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from changed_setting import changed
from hostile_files import FILES, HUGE_POLICIES, KINDS, consistent, handed_over, hostile_cases, hostile_policy, load, mutated
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays
from small_policy import DA, DO, small_policy

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.bounded_file import read_bounded
from reconverge.envs.errors import (
    ConfigError,
    DamagedFile,
    MissingLibrary,
    ProcessLost,
    ReconvergeError,
    RunFolderError,
    TrainingDiverged,
    UnknownName,
    shown,
)
from reconverge.envs.plain_json import parse_json
from reconverge.envs.plain_yaml import parse_yaml
from reconverge.eval.plain_picture import read_picture
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import config_text, flat, from_mapping, read_config, to_mapping
from reconverge.launch.job_plan import parse_variations
from reconverge.launch.run_folder import FREE_ON_RESUME, RunFolder
from reconverge.launch.sweep_view import _last_row
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.trust_region import TrustRegion
from reconverge.replay.config import ReplayConfig
from reconverge.replay.source import WindowPools
from reconverge.replay.stored_windows import StoredWindows

SHARED = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handed_over(tmp_path_factory.mktemp("handed over"))


@pytest.fixture
def replaced(folder: Path):
    """Replace files of the folder, with their hashes, and put them back at the end."""
    before: dict[Path, bytes] = {}

    def replace(name: str, data: bytes) -> None:
        for path in {folder / name, (folder / name).parent / "manifest.json"}:
            if path.exists():
                before.setdefault(path, path.read_bytes())
        consistent(folder / name, data)

    yield replace
    for path, data in before.items():
        path.write_bytes(data)


def test_the_folder_is_whole_before_it_is_spoilt(folder: Path) -> None:
    for name in ("config.yaml", "mine.yaml", "run/config.yaml", "run/rollouts", "policy/policy.json", "episodes/episodes.json"):
        load(folder, name)


def test_every_hostile_file_is_a_typed_error(folder: Path, replaced) -> None:
    """The bounds of a second and 200 MB are measured in a process of their own, see test_faults_files.py."""
    for what, name, data in hostile_cases(folder):
        if len(data) > 300_000:
            continue
        beside = {folder / name, (folder / name).parent / "manifest.json"}
        before = {path: path.read_bytes() for path in beside if path.exists()}
        replaced(name, data)
        try:
            with pytest.raises(ReconvergeError) as caught:
                load(folder, name)
            assert len(str(caught.value)) < 2000, (what, name)
        finally:
            for path, content in before.items():
                path.write_bytes(content)


def test_the_message_names_the_file_and_the_fix(folder: Path, replaced) -> None:
    replaced("policy/policy.safetensors", b"\x80\x04.")
    with pytest.raises(DamagedFile, match=r"policy\.safetensors is not a safetensors file.*redo it"):
        load(folder, "policy/policy.safetensors")


@pytest.mark.parametrize("name", ["config.yaml", "mine.yaml", "run/config.yaml", "run/episodes.csv", "run/cost.json", "policy/policy.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.rename(aside := path.with_name("aside"))
    listening = socket.socket(socket.AF_UNIX)
    try:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/zero")
            case "socket":
                with contextlib.chdir(path.parent):  # the path of a socket is short
                    listening.bind(path.name)
        started = time.monotonic()
        with pytest.raises(ReconvergeError):
            load(folder, name)
        assert time.monotonic() - started < 10
    finally:
        listening.close()
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        aside.rename(path)


# Numbers and messages ------------------------------------------------------------------------------------------------------------

FLOATS = [key for key, value in flat(RunConfig()).items() if isinstance(value, float)]
NUMBERS = [key for key, value in flat(RunConfig()).items() if isinstance(value, (int, float)) and not isinstance(value, bool)]


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("text", ["1e400", "-1e400", ".inf", ".nan", "1.0e+400", "1" + "0" * 60 + "e350"])
def test_no_setting_takes_a_number_that_is_none(key: str, text: str) -> None:
    nested = "{" + ": {".join(key.split(".")) + f": {text}" + "}" * len(key.split("."))
    with pytest.raises(ConfigError, match=re.escape(key.rpartition(".")[2])):
        from_mapping(RunConfig, parse_yaml(nested.encode(), "config.yaml"), "config.yaml")


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -(10**400)])
def test_no_number_is_in_range_that_is_none(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)):
        check(changed(key, value))


def test_a_message_shows_any_value_in_no_time() -> None:
    bomb: object = ["x" * 10**7]
    for _ in range(60):
        bomb = [bomb] * 10
    for value in (bomb, {str(number): bomb for number in range(1000)}, "x" * 10**7, 10**5000, b"\0" * 10**6, (1, 2), {"a": 1}):
        started = time.monotonic()
        assert len(shown(value)) < 300
        assert time.monotonic() - started < 1
    assert (shown([1, "a"]), shown(()), shown({"a": 1}), shown(None), shown(1.5)) == ("[1, 'a']", "()", "{'a'}", "None", "1.5")
    with pytest.raises(ConfigError):
        from_mapping(RunConfig, {"train": {"updates": bomb}}, "config.yaml")


def test_a_message_cannot_speak_to_the_terminal() -> None:
    assert "\x1b" not in str(UnknownName("setting", "\x1b[2Jx", ["seed"])) and len(str(UnknownName("setting", "x" * 10**6, ["seed"]))) < 300


@pytest.mark.parametrize(
    "text", ["2026-99-99", "1" + "0" * 5000, "&a 1,*a", "!!python/name:os.system ''", "[" * 5000, "\x00", "{a: 1, a: 2}", "1e400", ".nan"]
)
def test_what_a_command_line_varies_is_read_as_strictly(text: str) -> None:
    for key in ("seed", "train.updates", "train.optimizer.learning_rate"):
        with pytest.raises(ReconvergeError):
            parse_variations([f"{key}={text}"], RunConfig())


def test_a_spoilt_log_says_nothing_about_how_far_a_job_is(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    for line in (b"[" * 8000, b'{"stage": 1e400, "update": 1}', b'{"stage": NaN, "update": 1}', b"\xff", b'{"stage": [], "update": {}}', b"3"):
        log.write_bytes(line + b"\n")
        assert _last_row(log) is None
    log.unlink()
    os.mkfifo(log)
    assert _last_row(log) is None


# Weights -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "type", "nan", "infinity"])
def test_weights_that_are_not_the_policys_are_refused_by_name(folder: Path, replaced, change: str) -> None:
    arrays = load_file(folder / "policy" / "policy.safetensors")
    name = "denoiser.read.weight"
    match change:
        case "missing":
            del arrays[name]
        case "extra":
            arrays["denoiser.more"] = np.zeros(3, np.float32)
            name = "denoiser.more"
        case "shape":
            arrays[name] = arrays[name].T.copy()
        case "type":
            arrays[name] = arrays[name].astype(np.float64)
        case "nan" | "infinity":
            arrays[name][1, 1] = float(change)
    replaced("policy/policy.safetensors", save_arrays(arrays))
    with pytest.raises(DamagedFile, match=rf"policy\.safetensors.*'{re.escape(name)}'"):
        DiffusionPolicy.load(folder / "policy")


@pytest.mark.parametrize("what", HUGE_POLICIES)
def test_a_description_that_is_no_policys_is_refused_before_anything_is_built(folder: Path, replaced, what: str) -> None:
    description = json.loads((folder / "policy" / "policy.json").read_text())
    replaced("policy/policy.json", hostile_policy(description, HUGE_POLICIES[what]))
    started = time.monotonic()
    with pytest.raises(DamagedFile, match="policy"):
        DiffusionPolicy.load(folder / "policy")
    assert time.monotonic() - started < 10


def test_what_a_method_remembers_must_fit_and_is_taken_whole_or_not() -> None:
    region = TrustRegion(1.0, 4)
    good = {"mu": np.ones((2, 4), np.float32), "curvature": np.ones(2, np.float32), "centre": np.ones(2, np.float32)}
    spoilt = [{**good, "mu": np.ones((2, 5), np.float32)}, {**good, "centre": np.ones(3, np.float32)}, {**good, "mu": np.full((2, 4), np.nan)}]
    for arrays in [*spoilt, {**good, "curvature": np.ones(2, np.int64)}, {"mu": good["mu"]}, {}]:
        with pytest.raises(DamagedFile, match="learner"):
            region.load_arrays(arrays)
        assert len(region) == 0
    region.load_arrays(good)
    assert len(region) == 2


@pytest.mark.parametrize("name", ["x.times", "-1.times", "1", "1.times.more", "9999999.times", "²." + "times", ".", ""])
def test_pools_of_no_task_are_refused(name: str) -> None:
    with pytest.raises(DamagedFile, match="source"):
        WindowPools.of({name: np.zeros(3, np.float32)}, small_policy())


@pytest.mark.parametrize(
    ("task", "count", "sizes", "says"),
    [
        (2, 3, (2, DO, 4, DA), "windows of task 2, and the policy knows 2 tasks"),
        (1, 0, (2, DO, 4, DA), "a pool of task 1 without windows"),
        (1, 3, (3, DO, 4, DA), "'1.observations' has the shape"),
        (1, 3, (2, DO + 1, 4, DA), "'1.observations' has the shape"),
        (1, 3, (2, DO, 5, DA), "'1.actions' has the shape"),
        (1, 3, (2, DO, 4, DA + 1), "'1.actions' has the shape"),
    ],
)
def test_pools_that_are_not_the_policys_are_refused_before_any_is_taken(task: int, count: int, sizes: tuple[int, ...], says: str) -> None:
    def pool(task: int, count: int, window: int, seen: int, horizon: int, done: int) -> dict[str, np.ndarray]:
        shapes = {"observations": (count, window, seen), "actions": (count, horizon, done), "times": (count,)}
        return {f"{task}.{part}": np.zeros(shape, np.float32) for part, shape in shapes.items()}

    source, good = StoredWindows(ReplayConfig(source="stored")), pool(0, 4, 2, DO, 4, DA)
    with pytest.raises(DamagedFile, match=says):
        source.load_arrays({**good, **pool(task, count, *sizes)}, small_policy())
    assert not source.pools
    source.load_arrays({**good, **pool(1, 3, 2, DO, 4, DA)}, small_policy())
    assert {task: len(held) for task, held in source.pools.items()} == {0: 4, 1: 3}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + b"".join(chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 100, b"GIF89a" + bytes(50), png(100, 100), png(100, 100, chunk(b"IDAT", b"nonsense"), chunk(b"IEND", b"")),
        png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", zlib.compress(bytes(1000)))), png(12_000, 12_000, chunk(b"IDAT", zlib.compress(bytes(10**6)))),
        png(5_000, 5_000, chunk(b"IDAT", zlib.compress(bytes(10**6)))), png(0, 5), b"\x80\x04posix.", b"%!PS-Adobe\n(x) run\n",
        png(10, 10, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))), chunk(b"IDAT", zlib.compress(bytes(310))), chunk(b"IEND", b"")),
    ],
)  # fmt: skip
def test_a_hostile_picture_is_a_typed_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(data)
    with pytest.raises(DamagedFile, match=r"grid\.png is not a picture"):
        read_picture(tmp_path / "grid.png")


# A file that changes -------------------------------------------------------------------------------------------------------------


def test_what_is_refused_is_closed(tmp_path: Path) -> None:
    open_files = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(DamagedFile, match="not a regular file"):
            read_bounded(tmp_path, 10)
    assert len(os.listdir("/proc/self/fd")) == open_files


@pytest.mark.parametrize(
    "error",
    [UnknownName("task", "hamer", ["hammer"]), MissingLibrary("this", ["pyarrow"], "lerobot"), TrainingDiverged("the loss is nan"), ProcessLost("x")],
)
def test_an_error_of_another_process_says_the_same(error: ReconvergeError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "a", {"raw": b"x" * 1000})
    real = os.fstat
    for content in (b"y" * 1000, b"x" * 500, b""):
        (tmp_path / "a" / "raw").write_bytes(b"x" * 1000)

        def change(handle: int, content: bytes = content) -> os.stat_result:
            found = real(handle)
            if found.st_size == 1000:
                (tmp_path / "a" / "raw").write_bytes(content)
            return found

        monkeypatch.setattr(os, "fstat", change)
        with pytest.raises(DamagedFile, match="raw"):
            Artifact(tmp_path / "a")
        monkeypatch.undo()
    (tmp_path / "a" / "raw").write_bytes(b"x" * 1000)
    artifact = Artifact(tmp_path / "a")
    (tmp_path / "a" / "raw").write_bytes(b"y" * 1000)
    assert artifact.bytes("raw") == b"x" * 1000  # what was checked is what is used


def test_a_file_that_grows_is_read_as_far_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the log of a run that somebody watches."""
    path, real = tmp_path / "metrics.jsonl", os.fstat

    def grow(handle: int) -> os.stat_result:
        found = real(handle)
        with open(path, "ab") as file:
            file.write(b"more\n")
        return found

    monkeypatch.setattr(os, "fstat", grow)
    for content in (b"", b"a\n"):
        path.write_bytes(content)
        assert read_bounded(path, 1000) == content


def test_a_size_that_is_not_the_manifests_is_refused_unread(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", {"raw": b"x"})
    with open(tmp_path / "a" / "raw", "wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    with pytest.raises(DamagedFile, match="raw does not match"):
        Artifact(tmp_path / "a")


# Anything at all -----------------------------------------------------------------------------------------------------------------

PLACES = st.integers(0, 10**6)
MUTATIONS = st.lists(st.tuples(st.sampled_from(KINDS), PLACES, PLACES, st.binary(max_size=40)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", FILES)
def test_only_typed_errors_come_out_of_any_file(folder: Path, replaced, name: str) -> None:
    content = (folder / name).read_bytes()

    @SHARED
    @given(MUTATIONS)
    def spoil(mutations: list[tuple[str, int, int, bytes]]) -> None:
        data = content
        for mutation in mutations:
            data = mutated(data, *mutation)
        replaced(name, data)
        try:
            load(folder, name)
        except ReconvergeError as error:
            assert len(str(error)) < 3000

    spoil()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_only_damage_comes_out_of_the_plain_readers(data: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(data, "x")
        except DamagedFile as error:
            assert str(error).startswith("x ")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@example("\\u0000")  # a backslash and letters
@example("\\")
@given(json_values)
def test_json_that_python_writes_reads_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "x") == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=1).encode(), "x") == value


def test_an_escaped_nul_is_refused_wherever_it_stands() -> None:
    for text in ("\0", "\\\0", "\\\\\0", "a\0b"):
        with pytest.raises(DamagedFile, match="NUL"):
            parse_json(json.dumps(text).encode(), "x")


# Configurations ------------------------------------------------------------------------------------------------------------------


def typos(name: str) -> list[str]:
    """A letter twice, one left out, two swapped, one more at the end."""
    swapped = name[:1] + name[2:3] + name[1:2] + name[3:]
    return [typo for typo in (name[:2] + name[1:], name[:-1], swapped, f"{name}s") if typo and typo != name]


def test_every_typing_error_in_a_key_is_answered_with_the_key() -> None:
    tried = 0
    for key in flat(RunConfig()):
        *sections, name = key.split(".")
        for typo in typos(name):
            content = to_mapping(RunConfig())
            inner = content
            for section in sections:
                inner = inner[section]
            if typo in inner:
                continue
            inner[typo] = inner.pop(name)
            with pytest.raises(UnknownName, match=rf"unknown setting '{typo}'.*did you mean '{name}'"):
                from_mapping(RunConfig, content, "config.yaml")
            tried += 1
    assert tried > 3 * len(flat(RunConfig()))


def other_values() -> list[tuple[str, object]]:
    """Another valid value for each setting on which results depend."""
    found: list[tuple[str, object]] = []
    for key, value in flat(RunConfig()).items():
        if key in FREE_ON_RESUME:
            continue
        if isinstance(value, bool):
            other: object = not value
        elif isinstance(value, (int, float)):
            other = value + 1 if isinstance(value, int) else value / 2 + 0.001
        else:
            continue
        try:
            check(changed(key, other))
        except ConfigError:
            continue
        found.append((key, other))
    return [*found, ("curriculum", "cw10:4"), ("method", "replay"), ("recovery.grid", (2, 6)), ("policy.sampler", "ddim")]


def test_a_run_is_not_resumed_with_any_other_setting(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", RunConfig(), "reconverge train"):
        pass
    others = other_values()
    assert len(others) >= 30
    for key, value in others:
        with pytest.raises(RunFolderError, match=re.escape(f"{key} was ")):
            RunFolder.resume(tmp_path / "run", changed(key, value))


def test_a_changed_file_is_another_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(config_text(changed("train.updates", 7)))
    assert read_config(file) == changed("train.updates", 7) != RunConfig()
    assert dataclasses.is_dataclass(read_config(file))
