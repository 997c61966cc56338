"""A run that is killed and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_process import finished, start_command, wait_for
from run_files import TABLES

from reconverge.envs.seeding import numpy_stream

SHORT = [
    word
    for line in (
        "--preset smoke --threads 1 --demonstrations.episodes 10 --demonstrations.workers 0",
        "--train.updates 120 --train.log-every 20 --replay.generator.updates 60",
        "--evaluation.episodes 8 --evaluation.workers 0 --recovery.episodes 4 --recovery.grid 2 50 --video.episodes 0",
    )
    for word in line.split()
]


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reconverge.launch", "train", *words, "--quiet"]
    return start_command(command, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})


def final_state(run: Path) -> dict[str, bytes]:
    """Every table, and every file of the last checkpoint but the seconds that it took."""
    last = run / "checkpoints" / "stage-03"
    files = [run / name for name in TABLES] + [last / name for name in ("policy.safetensors", "learner.safetensors", "source.safetensors")]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The uninterrupted run, and the folder in which it lies and the demonstrations are."""
    folder = tmp_path_factory.mktemp("resume")
    finished(start(folder, *SHORT, "--output-dir", "golden"))
    return folder, final_state(folder / "golden")


def kill_and_resume(golden: tuple[Path, dict[str, bytes]], number: int) -> None:
    folder, expected = golden
    name, moment = f"killed-{number}", numpy_stream("kill", number)
    process = start(folder, *SHORT, "--output-dir", name)
    begun = folder / name / "checkpoints" / f"stage-{moment.integers(3):02d}"  # of the stages before the last
    wait_for(begun.exists, 120)
    time.sleep(float(moment.uniform(0, 0.4)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it has ended before"
    finished(start(folder, "--resume", name))
    found = final_state(folder / name)
    assert [key for key in expected if found[key] != expected[key]] == []


def test_a_killed_run_resumes_to_the_same_bits(golden: tuple[Path, dict[str, bytes]]) -> None:
    kill_and_resume(golden, 0)


@pytest.mark.faults
@pytest.mark.parametrize("number", range(1, 10))
def test_nine_more_random_moments(golden: tuple[Path, dict[str, bytes]], number: int) -> None:
    kill_and_resume(golden, number)


@pytest.mark.faults
@pytest.mark.mujoco
def test_asked_to_stop_at_any_moment_a_meta_world_run_has_left_within_five_seconds(tmp_path: Path) -> None:
    """Twelve moments of one run with worker processes, each resumed where the one before had stopped."""
    words = ["--preset", "quickstart", "--train.updates", "400", "--evaluation.episodes", "20", "--demonstrations.episodes", "20"]
    process, took_s = start(tmp_path, *words, "--output-dir", "run"), []
    for number in range(12):
        time.sleep(float(numpy_stream("stop", number).uniform(4, 25)))
        if process.poll() is not None:
            break
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        took_s.append(time.monotonic() - began_s)
        assert process.returncode in (0, 75, 130), said  # 130: before the run had begun
        begun = (tmp_path / "run" / "config.yaml").exists()
        process = start(tmp_path, *(["--resume", "run"] if begun else [*words, "--output-dir", "run"]))
    process.communicate(timeout=300)
    print(f"asked to stop at {len(took_s)} moments: left after {np.median(took_s):.2f} s (median), {max(took_s):.2f} s (longest)")
    assert max(took_s) < 5
