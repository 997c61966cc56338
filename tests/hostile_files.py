"""Files made to hang, crash or fill the memory of whoever reads them, and the folders in which they are put."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_arrays
from small_policy import small_policy
from synthetic_run import write_rollouts, write_run

from reconverge.envs.artifact import MANIFEST, Artifact, _sha256
from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.episodes import Episode, EpisodeStore
from reconverge.eval.run_results import read_run
from reconverge.eval.stored_rollouts import read_rollouts
from reconverge.launch.config_file import config_text, read_config
from reconverge.launch.presets import find_preset
from reconverge.policy.diffusion_policy import DiffusionPolicy

KIB, MIB = 1024, 1024**2
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b", ".join([b"*%c" % (name - 1)] * 9)) for name in range(ord("b"), ord("j"))
)

YAML: dict[str, bytes] = {
    "alias bomb": BOMB,
    "one alias": b"a: &a x\nb: *a",
    "anchor": b"seed: &a 3",
    "merge": b"<<: {seed: 3}",
    "python tag": b"seed: !!python/object/apply:os.system ['true']",
    "tag of a bool": b"seed: !!bool maybe",
    "tag of nothing": b"seed: !!int ''",
    "set": b"!!set {a, b}",
    "deep flow": b"seed: " + b"[" * 100_000,
    "deep maps": b"{a: " * 30_000,
    "deep blocks": b"- " * 60_000 + b"x",
    "deep keys": b"? " * 60_000,
    "double key": b"seed: 1\nseed: 2",
    "double key inside": b"train: {updates: 3, updates: 4}",
    "1e400": b"train: {optimizer: {learning_rate: 1e400}}",
    "1.0e+400": b"train: {optimizer: {learning_rate: 1.0e+400}}",
    "infinity": b"train: {optimizer: {learning_rate: .inf}}",
    "nan": b"train: {optimizer: {learning_rate: .nan}}",
    "an integer beyond every float": b"train: {optimizer: {learning_rate: 1" + b"0" * 60 + b"}}\nseed: 1" + b"0" * 60,
    "huge integer": b"seed: 1" + b"0" * 100_000,
    "huge binary": b"seed: 0b" + b"1" * 100_000,
    "huge hexadecimal": b"seed: 0x" + b"f" * 100_000,
    "huge base 60": b"seed: 1" + b":1" * 50_000,
    "huge float": b"seed: 0." + b"1" * 100_000,
    "no such day": b"seed: 2026-99-99",
    "a day": b"seed: 2026-01-01",
    "not UTF-8": b"seed: \xff",
    "UTF-16": "seed: x".encode("utf-16"),
    "NUL": b"seed: \x00",
    "escaped NUL": b'demonstrations: {folder: "\\0"}',
    "surrogate": b'demonstrations: {folder: "\\ud800"}',
    "list for a key": b"? [a, b]\n: c",
    "long key": b"x" * 100_000 + b": 1",
    "many keys": b"".join(b"k%d: 1\n" % number for number in range(12_000)),
    "many keys in one": b"{" + b"a," * 60_000 + b"}",
    "colons": b"a:" * 60_000,
    "flow simple keys": b"[" * 15 + b"a: b," * 20_000,
    "quotes": b'"' * 100_001,
    "comments": b"#" * 130_000,
    "tabs": b"\t" * 100_000,
    "directive": b"%YAML 9.9\n---\nseed: 1",
    "many documents": b"--- 1\n" * 20_000,
    "too large": b"a: 1\n" * 1_000_000,
    "nothing": b"",
    "zeros": bytes(4096),
    "value tag": b"seed: =",
    "nested value": b"seed: " + b"[" * 12 + b"1" + b"]" * 12,
    "terminal": b'"\\e[2J": 1',
}
"""Wrong as configuration and as curriculum."""

JSON: dict[str, bytes] = {
    "deep lists": b"[" * 1_000_000,
    "deep maps": b'{"a":' * 300_000,
    "just too deep": b"[" * 100 + b"]" * 100,
    "double key": b'{"a": 1, "a": 2}',
    "1e400": b'{"a": 1e400}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "huge integer": b'{"a": 1' + b"0" * 1_000_000 + b"}",
    "integer beyond every float": b'{"a": 1' + b"0" * 400 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "mark": b'\xef\xbb\xbf{"a": 1}',
    "NUL": b'{"a": "\\u0000"}',
    "surrogate": b'{"a": "\\ud800"}',
    "surrogate key": b'{"\\uDC00": 1}',
    "half": b'{"a": 1',
    "many lists": b"[" + b"[]," * 1_300_000 + b"[]]",
    "many keys": b"{" + b",".join(b'"%d":0' % number for number in range(400_000)) + b"}",
    "many quotes": b'"' + b'\\"' * 1_900_000,
    "one long string": b'{"a": "' + b"x" * 4_000_000,
    "wide": b'["' + "\U0001f600".encode() + b"x" * 5_000_000 + b'"]',
    "too large": b" " * (25 * MIB),
    "zeros": bytes(100_000),
    "bare": b"hammer",
    "list": b"[1, 2]",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.",
}


def tensors(header: object, numbers: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, whatever length it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def empty_tensors(count: int) -> bytes:
    """A header of tensors without numbers."""
    return b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(count)) + b"}"


def _tensor(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


SAFETENSORS: dict[str, bytes] = {
    "header of 2^63": tensors({}, length=2**63),
    "header of 2^64 - 1": tensors({}, length=2**64 - 1),
    "header beyond the end": tensors({}, length=1000),
    "large header": tensors(b'{"a":' + b" " * (3 * MIB) + b"{}}"),
    "deep header": tensors(b'{"a":' * 100_000),
    "overlap": tensors({"a": _tensor(0, 8, [2]), "b": _tensor(4, 12, [2])}, bytes(12)),
    "gap": tensors({"a": _tensor(0, 4, [1]), "b": _tensor(8, 12, [1])}, bytes(12)),
    "backwards": tensors({"a": _tensor(8, 0, [2])}, bytes(8)),
    "out of range": tensors({"a": _tensor(0, 2**40, [2**38])}, bytes(8)),
    "beyond 64 bits": tensors({"a": _tensor(0, 2**64, [2**62])}, bytes(8)),
    "shape overflows": tensors({"a": _tensor(0, 8, [2**62, 4])}, bytes(8)),
    "nothing of everything": tensors({"a": _tensor(0, 0, [0, 2**63])}),
    "negative": tensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)),
    "many dimensions": tensors({"a": _tensor(0, 4, [1] * 10_000)}, bytes(4)),
    "a million tensors": tensors(empty_tensors(1_000_000)),
    "many tensors": tensors(empty_tensors(30_000)),
    "strange numbers": tensors({"a": _tensor(0, 2, [1], "BF16")}, bytes(2)),
    "stranger numbers": tensors({"a": _tensor(0, 1, [1], "F8_E4M3")}, bytes(1)),
    "no such numbers": tensors({"a": _tensor(0, 4, [1], "object")}, bytes(4)),
    "double name": tensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "extra bytes": tensors({"a": _tensor(0, 4, [1])}, bytes(400)),
    "truncated": tensors({"a": _tensor(0, 400, [100])}, bytes(40)),
    "zeros": bytes(4096),
    "nothing": b"",
    "seven bytes": bytes(7),
    "list": tensors([1, 2]),
    "text": b"hammer-v3\n" * 100,
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.",
    "other arrays": save_arrays({"a": np.zeros(3, np.float32)}),
    "no arrays": save_arrays({}),
}
"""Wrong as the weights of a policy, as episodes and as rollouts."""

ROWS = "purpose,stage,update,task,episode_seed,success_any,success_final,first_success_step,steps,invalid\n"
ROW = "matrix,1,300,point-reach-0,3,1,1,9,30,0\n"
TABLES: dict[str, bytes] = {
    "huge cell": (ROWS + ROW.replace("matrix", "x" * 200_000)).encode(),
    "huge quoted cell": (ROWS + '"' + "x" * 60_000 + "\n").encode(),
    "huge header": b"x" * 200_000 + b"\n",
    "many columns": (",".join(f"c{number}" for number in range(9_000)) + "\n").encode(),
    "wrong columns": b"a,b\n1,2\n",
    "few cells": (ROWS + "matrix,1\n").encode(),
    "many cells": (ROWS + ROW.replace("\n", ",1" * 20_000 + "\n")).encode(),
    "no number": (ROWS + ROW.replace("300", "many")).encode(),
    "huge number": (ROWS + ROW.replace("300", "9" * 50_000)).encode(),
    "number with a fraction": (ROWS + ROW.replace("300", "3.5")).encode(),
    "not a flag": (ROWS + ROW.replace("1,1,9", "yes,1,9")).encode(),
    "stage beyond the run": (ROWS + ROW.replace("matrix,1", "matrix,999999999999")).encode(),
    "stage before the run": (ROWS + ROW.replace("matrix,1", "matrix,-5")).encode(),
    "carriage return inside": (ROWS + ROW.replace("point", "po\rint")).encode(),
    "NUL": (ROWS + ROW.replace("300", "3\0")).encode(),
    "not UTF-8": ROWS.encode() + b"\xff\n" + ROW.encode(),
    "UTF-16": (ROWS + ROW).encode("utf-16"),
    "zeros": bytes(100_000) + b"\n",
    "no line's end": b"x" * (20 * MIB),
    "too large": b"\n" * (65 * MIB),
    "millions of lines": b"\n" * (60 * MIB),
    "empty lines and one word": b"\n" * (4 * MIB) + b"word\n",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.\n",
}
"""Wrong as episodes.csv."""

HUGE_POLICIES: dict[str, dict[str, object]] = {
    "a width of a billion": {"config": {"mlp": {"width": 10**9}}},
    "a width of a hundred thousand": {"config": {"mlp": {"width": 100_000}}},
    "a billion blocks": {"config": {"mlp": {"blocks": 10**9}}},
    "many blocks": {"config": {"mlp": {"blocks": 100_000}}},
    "a billion timesteps": {"config": {"timesteps": 10**9}},
    "a large U-Net": {"config": {"denoiser": "unet", "unet": {"channels": [100_000, 100_000]}}},
    "channels that no group divides": {"config": {"denoiser": "unet", "unet": {"channels": [7, 9]}}},
    "a window of a billion": {"config": {"window": 10**9}},
    "a negative size": {"observation_size": -1},
    "a size that is none": {"observation_size": 5.5},
    "a million tasks": {"tasks": [str(number) for number in range(100_000)]},
    "a task twice": {"tasks": ["a", "a"]},
    "no tasks": {"tasks": []},
    "tasks that are none": {"tasks": [1, None]},
    "another sampler": {"config": {"sampler": "pickle"}},
    "a key too many": {"config": {"cell": 3}},
    "a position outside": {"positions": [1000]},
    "no configuration": {"config": None},
}


def consistent(path: Path, data: bytes) -> None:
    """Put `data` in place of a file and, in an artifact, its size and hash into the manifest: the hash says nothing about its author."""
    path.write_bytes(data)
    manifest = path.parent / MANIFEST
    if manifest.exists() and path != manifest:
        content = json.loads(manifest.read_text())
        content["files"][path.name] = {"sha256": _sha256(data), "bytes": len(data)}
        manifest.write_text(json.dumps(content))


def handed_over(folder: Path) -> Path:
    """A run, a policy and demonstrations as a colleague might hand them over."""
    write_run(folder / "run")
    write_rollouts(folder / "run")
    small_policy().save(folder / "policy")
    random = np.random.default_rng(0)
    episodes = [
        Episode("a", seed, random.normal(size=(5, 3)).astype(np.float32), random.normal(size=(4, 2)).astype(np.float32), np.ones(4, bool))
        for seed in range(3)
    ]
    EpisodeStore(folder / "episodes").write(episodes, {"attempts": 4})
    (folder / "config.yaml").write_text(config_text(find_preset("smoke")))
    (folder / "mine.yaml").write_text("name: mine\ntasks: [hammer-v3, {task: push-v3, updates: 3000}, hammer-v3]\nupdates: 1500\n")
    return folder


def load(folder: Path, name: str) -> object:
    """What reads the file `name` of a folder that was handed over."""
    reader: Callable[[Path], object]
    match name.split("/"):
        case ["config.yaml"]:
            return read_config(folder / "config.yaml")
        case ["mine.yaml"]:
            return load_curriculum(str(folder / "mine.yaml"))
        case ["run", "rollouts", *_]:
            reader = read_rollouts
        case ["run", *_]:
            reader = read_run
        case ["policy", *_]:
            reader = DiffusionPolicy.load
        case ["episodes", *_]:
            reader = lambda path: EpisodeStore(path).read()  # noqa: E731
        case _:
            reader = Artifact
    return reader(folder / name.split("/")[0])


def hostile_policy(description: dict[str, object], changes: dict[str, object]) -> bytes:
    """policy.json with some values replaced, one level deep."""
    changed = dict(description)
    for key, value in changes.items():
        inner = changed[key]
        if isinstance(value, dict) and isinstance(inner, dict):
            changed[key] = {**inner, **{name: {**inner[name], **new} if isinstance(new, dict) else new for name, new in value.items()}}
        else:
            changed[key] = value
    return json.dumps(changed).encode()


def hostile_cases(folder: Path) -> list[tuple[str, str, bytes]]:
    """(what, file to replace, content): every hostile file in every place where it could lie."""
    description = json.loads((folder / "policy" / "policy.json").read_text())
    cases = [(what, name, data) for what, data in YAML.items() for name in ("config.yaml", "mine.yaml")]
    cases += [(what, name, data) for what, data in YAML.items() if what in RAW_YAML for name in ("run/config.yaml", "run/curriculum.yaml")]
    in_run = [(what, data) for what, data in JSON.items() if what not in ("NUL",)]
    cases += [(what, "run/cost.json", data) for what, data in JSON.items()]
    cases += [(what, "run/metrics.jsonl", data + b"\n") for what, data in in_run if what not in ("NaN", "Infinity")]
    cases += [(what, name, data) for what, data in JSON.items() for name in ("policy/policy.json", "policy/manifest.json", "episodes/episodes.json")]
    arrays = ("policy/policy.safetensors", "episodes/episodes.safetensors", "run/rollouts/stage-01/point-reach-0.safetensors")
    cases += [(what, name, data) for what, data in SAFETENSORS.items() for name in arrays if not _harmless(what, name)]
    cases += [(what, "run/episodes.csv", data) for what, data in TABLES.items()]
    return cases + [(what, "policy/policy.json", hostile_policy(description, changes)) for what, changes in HUGE_POLICIES.items()]


RAW_YAML = ("alias bomb", "deep flow", "deep blocks", "double key", "huge integer", "huge base 60", "not UTF-8", "escaped NUL", "too large")


def _harmless(what: str, name: str) -> bool:
    """Rollouts may hold no episode, and arrays that are none."""
    return "rollouts" in name and what in ("other arrays", "no arrays", "many tensors", "nothing of everything", "double name", "zeros")


FILES = [
    "config.yaml", "mine.yaml", "run/config.yaml", "run/curriculum.yaml", "run/episodes.csv", "run/success_matrix.csv", "run/ledger.csv",
    "run/fisher.csv", "run/recovery.csv", "run/recovery_curves.csv", "run/ceilings.csv", "run/metrics.jsonl", "run/cost.json",
    "run/fingerprint.json", "run/command.txt",
    "run/rollouts/stage-01/point-reach-0.safetensors", "policy/policy.json", "policy/policy.safetensors", "policy/manifest.json",
    "episodes/episodes.json", "episodes/episodes.safetensors", "episodes/manifest.json",
]  # fmt: skip


def mutated(content: bytes, kind: str, place: int, other: int, data: bytes) -> bytes:
    """One mutation of a file: a flipped bit, a cut, a span twice or left out, some bytes in between or instead."""
    place, other = sorted((place % (len(content) + 1), other % (len(content) + 1)))
    match kind:
        case "flip":
            return content[:place] + bytes(byte ^ 1 << other % 8 for byte in content[place : place + 1]) + content[place + 1 :]
        case "cut":
            return content[:place]
        case "twice":
            return content[:other] + content[place:other] + content[other:]
        case "left out":
            return content[:place] + content[other:]
        case "between":
            return content[:place] + data + content[place:]
        case _:
            return data


KINDS = ["flip", "cut", "twice", "left out", "between", "instead"]
