"""What is said of demonstrations: worked examples, a real collection, damage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import Episode
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.data_statistics import data_statistics, in_ranges
from reconverge.launch.cli import main


def episode(seed: int, steps: int, goal: float) -> Episode:
    """Entry 0 counts the steps, 1 is 7, 2 the goal, 3 the count again; the action is at its bound in every second step."""
    count = np.arange(steps + 1, dtype=np.float32)
    observations = np.stack([count, np.full_like(count, 7), np.full_like(count, goal), count], axis=1)
    actions = np.where(np.arange(steps)[:, None] % 2, 1.0, 0.25 * goal).astype(np.float32)
    return Episode("t", seed, observations, actions, np.arange(steps) >= steps - 2)


def test_entries_are_told_apart() -> None:
    found = data_statistics([episode(0, 4, 0.1), episode(1, 6, 0.2)])
    assert [entry.kind for entry in found.observations] == ["varies", "constant", "goal", "repeats"]
    assert found.observations[3].repeats == 0
    assert (found.observations[0].low, found.observations[0].high) == (0, 6)
    assert found.actions[0].at_bounds == 0.5
    assert found.steps.tolist() == [4, 6] and found.starts[:, 2].tolist() == pytest.approx([0.1, 0.2])
    assert found.ends_solved == 1 and found.twins == 0
    assert data_statistics([episode(0, 4, 0.1), episode(1, 4, 0.1)]).twins == 1


def test_numbers_as_ranges() -> None:
    assert in_ranges([0, 1, 2, 3, 7, 10, 11]) == "0-3, 7, 10-11"
    assert in_ranges([]) == ""


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    with Simulators(0) as simulators:
        collect(find_task("point-reach-0"), DemonstrationConfig(), 6, tmp_path / "data", None, simulators)
    return tmp_path / "data"


def test_a_collection_as_table_and_page(collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", str(collected), "--page", str(page)]) == 0
    said = capsys.readouterr().out
    assert "point-reach-0" in said and "% of 6" in said and "2-3 are constant within an episode" in said
    text = page.read_text()
    assert "<svg" in text and "point-reach-0" in text and not re.search(r"(src|href)=.http|@import|<script", text)


def test_a_flipped_bit_and_an_empty_place_are_named(collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = collected.glob("*/episodes.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main(["inspect", str(collected)]) == 2
    assert "does not match its hash" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing")]) == 2
    assert "holds no demonstrations and is no run" in capsys.readouterr().err
