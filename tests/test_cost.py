"""Where the time of a run went."""

import pytest

from reconverge.eval import plots
from reconverge.eval.cost import PhaseCost, by_phase


def test_the_example_of_the_modules_first_lines() -> None:
    update, evaluate = by_phase({"evaluate/simulate": 68, "evaluate/sample": 10, "evaluate": 0.2, "update": 485})
    assert update == PhaseCost("update", 485, {})
    assert evaluate.seconds == pytest.approx(78.2) and evaluate.parts == {"simulate": 68, "sample": 10}


def test_the_bar_names_each_large_phase_once_and_the_small_ones_together() -> None:
    figure = plots.cost_bar({"update": 900.0, "evaluate/simulate": 90.0, "evaluate": 4.0, "fisher": 3.0, "report": 3.0})
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["update 90 %", "evaluate 9 %", "rest 1 %"]
    assert plots.cost_bar({}) is None
