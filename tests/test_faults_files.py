"""The long version of test_hostile_files.py: every byte of real files, a minute of fuzzing, and the bounds of a second and 200 MB.

    pytest -m faults tests/test_faults_files.py -s        RECONVERGE_FUZZ_S=86400 fuzzes for a day
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_files import FILES, KINDS, consistent, handed_over, load, mutated
from small_run import tiny

from reconverge.envs.artifact import MANIFEST, Artifact
from reconverge.envs.errors import DamagedFile, ReconvergeError
from reconverge.launch.curriculum_run import train
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import ResidualMLPConfig

pytestmark = pytest.mark.faults

FUZZ_S = float(os.environ.get("RECONVERGE_FUZZ_S", "60"))
MOST_S, MOST_MB = 1.0, 200.0

RUNNER = """
import json, os, resource, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from hostile_files import load, hostile_cases, consistent
from reconverge.envs.errors import ReconvergeError

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path(sys.argv[2])
for name in ("config.yaml", "mine.yaml", "run/config.yaml", "run/rollouts", "policy/policy.json", "episodes/episodes.json"):
    load(folder, name)  # what is imported late is no file's fault
cases = hostile_cases(folder)
for number, (what, name, data) in enumerate(cases):
    place = (folder / name)
    kept = {path: path.read_bytes() for path in {place, place.parent / "manifest.json"} if path.exists()}
    consistent(place, data)
    cases[number] = (what, name, b"")
    del data
    child = os.fork()
    if child == 0:
        before, started = peak_mb(), time.process_time()
        wall = time.monotonic()
        try:
            load(folder, name)
            said = "nothing"
        except ReconvergeError as error:
            said = type(error).__name__
        except BaseException as error:
            said = f"ESCAPED {type(error).__name__}: {str(error)[:100]}"
        spent = time.process_time() - started
        print(json.dumps([what, name, said, round(spent, 3), round(time.monotonic() - wall, 3), round(peak_mb() - before, 1)]), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(json.dumps([what, name, f"DIED {status}", 0, 0, 0]), flush=True)
    for path, content in kept.items():
        path.write_bytes(content)
"""


def test_every_hostile_file_takes_less_than_a_second_and_200_mb(tmp_path: Path) -> None:
    """Seconds of the processor, so that a busy machine does not count; memory as the kernel's high-water mark of a process of its own."""
    folder = handed_over(tmp_path / "handed over")
    command = [sys.executable, "-c", RUNNER, str(Path(__file__).parent), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    slowest, largest = max(rows, key=lambda row: row[3]), max(rows, key=lambda row: row[5])
    print(f"\n{len(rows)} hostile files (what, file, error, processor s, s, MB); slowest {slowest}, largest {largest}")
    assert len(rows) > 200
    assert [row for row in rows if row[2].startswith(("ESCAPED", "DIED", "nothing"))] == []
    assert [row for row in rows if row[3] > MOST_S or row[5] > MOST_MB] == []


# Every bit and every cut of real files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The last checkpoint of a run over two toy tasks, and the demonstrations that it collected."""
    folder = tmp_path_factory.mktemp("real")
    config = replace(tiny(folder), curriculum="point-reach:2")
    small = replace(config.policy, mlp=ResidualMLPConfig(width=16, blocks=1, timestep_features=8))
    config = replace(config, policy=small, demonstrations=replace(config.demonstrations, episodes=3))
    generator = replace(config.replay.generator, width=8, blocks=1)
    config = replace(config, replay=replace(config.replay, generator=generator))
    with RunFolder.create(folder / "run", config, "reconverge train") as run, Progress.in_terminal(quiet=True) as progress:
        train(config, run, progress)
        checkpoint = run.checkpoint(2)
    assert "source.safetensors" in Artifact(checkpoint)
    return [checkpoint, *sorted((folder / "demonstrations").iterdir())]


def files_of(folders: list[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]


def refused(folder: Path) -> bool:
    try:
        Artifact(folder)
    except DamagedFile:
        return True
    return False


def flip(path: Path, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def test_a_thousand_flipped_bits_are_found(real: list[Path]) -> None:
    choice = random.Random(0)
    files = files_of(real)
    bits = [(path, choice.randrange(8 * path.stat().st_size)) for path in choice.choices(files, [path.stat().st_size for path in files], k=1000)]
    bits += [(path, bit) for path in files if path.name == MANIFEST for bit in range(8 * path.stat().st_size)]
    found = 0
    for path, bit in bits:
        flip(path, bit)
        found += refused(path.parent)
        flip(path, bit)
    print(f"\n{found} of {len(bits)} flipped bits found: 1,000 anywhere in {len(files)} files, and every bit of the {len(real)} manifests")
    assert found == len(bits)
    assert not any(map(refused, real))


def test_every_truncation_is_found(real: list[Path]) -> None:
    found, cuts = 0, 0
    for path in files_of(real):
        content = path.read_bytes()
        for length in range(len(content) - 1, -1, -1):
            os.truncate(path, length)
            found, cuts = found + refused(path.parent), cuts + 1
        path.write_bytes(content)
    print(f"\n{found} of {cuts} truncations found: every length of every file")
    assert found == cuts
    assert not any(map(refused, real))


def test_zeros_and_extra_bytes_are_found(real: list[Path]) -> None:
    for path in files_of(real):
        content = path.read_bytes()
        half = len(content) // 2
        zeroed = content[:half] + bytes(len(content) - half)
        for spoilt in (bytes(len(content)), zeroed, content + b"\0", content + b" ", b"\0" + content, content * 2):
            path.write_bytes(spoilt)
            assert refused(path.parent) or (path.name == MANIFEST and spoilt == content + b" ")  # a blank after JSON says nothing
        path.write_bytes(content)


def test_a_truncated_file_that_was_read_already_kills_nobody(real: list[Path]) -> None:
    """Files that are mapped into memory end a process with SIGBUS when they are cut; these are not mapped."""
    for folder in real:
        copy = folder.with_name(f"{folder.name}-copy")
        shutil.copytree(folder, copy)
        artifact = Artifact(copy)
        for path in files_of([copy]):
            os.truncate(path, 0)
        for name in artifact.names:
            assert artifact.arrays(name) if name.endswith(".safetensors") else artifact.json(name)
        shutil.rmtree(copy)


# A minute of anything ------------------------------------------------------------------------------------------------------------


def any_mutation(choice: random.Random) -> tuple[str, int, int, bytes]:
    return choice.choice(KINDS), choice.randrange(10**6), choice.randrange(10**6), choice.randbytes(choice.randrange(40))


def test_a_minute_of_mutations_brings_only_typed_errors(tmp_path: Path, real: list[Path]) -> None:
    folder = handed_over(tmp_path / "handed over")
    choice, until = random.Random(time.time_ns()), time.monotonic() + FUZZ_S
    before = {name: (folder / name).read_bytes() for name in FILES}
    tried, errors = 0, 0
    while time.monotonic() < until:
        name = choice.choice(FILES)
        data = before[name]
        mutations = [any_mutation(choice) for _ in range(choice.randint(1, 5))]
        for mutation in mutations:
            data = mutated(data, *mutation)
        manifest = (folder / name).parent / MANIFEST
        listed = manifest.read_bytes() if manifest.exists() else None
        consistent(folder / name, data)
        try:
            load(folder, name)
        except ReconvergeError:
            errors += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} escaped from {name} after {mutations}: {error}") from error
        tried += 1
        (folder / name).write_bytes(before[name])
        if listed is not None:
            manifest.write_bytes(listed)
    print(f"\n{tried} mutated files in {FUZZ_S:.0f} s: {errors} typed errors, {tried - errors} read all the same, nothing else")
    assert tried > 100 * FUZZ_S / 60
