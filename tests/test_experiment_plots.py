"""Figures of an experiment: who looks how, where names and bounds stand, which counts stand beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edited_run import keep_lines
from hand_run import B, hand_run
from matplotlib.axes import Axes
from synthetic_run import write_run

from reconverge.envs.curriculum import CW10
from reconverge.eval.experiment import Experiment, summarise
from reconverge.eval.experiment_figures import recovery_names
from reconverge.eval.experiment_plots import _apart, _Line, _over_stages, average_over_stages, final_success, looks_of, method_dots
from reconverge.eval.markdown_tables import markdown_tables
from reconverge.eval.method_looks import METHODS, method_looks
from reconverge.eval.plots import PAPER
from reconverge.eval.recovery_plots import recovery_triangles
from reconverge.eval.run_results import read_run
from reconverge.launch.own_methods import METHODS as OF_THIS_PACKAGE


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def cw10(folder: Path, *methods: str) -> Experiment:
    return summarise([read_run(write_run(folder / f"{method}-{seed}", CW10, method, seed)) for method in methods for seed in (0, 1)])


# Looks -------------------------------------------------------------------------------------------------------------------------


def test_every_method_of_this_package_has_a_look_of_its_own() -> None:
    assert set(METHODS) == set(OF_THIS_PACKAGE)
    assert len({colour for colour, _ in METHODS.values()}) == len({marker for _, marker in METHODS.values()}) == len(METHODS)


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    few, many = (method_looks({name: name for name in names}) for names in (("replay", "mine"), ("adaptive", "ewc", "mine", "replay")))
    assert few["replay"] == many["replay"] and few["mine"] == many["mine"]
    assert few["mine"].colour not in {colour for colour, _ in METHODS.values()}


def test_variations_are_shades_of_their_method_and_all_differ() -> None:
    labels = [*(f"replay, batch_size={number}" for number in range(40)), "replay"]
    looks = method_looks({label: "replay" for label in labels})
    assert looks["replay"] == ("#0072b2", "o", "-")  # the method itself, though it comes last
    assert len(set(looks.values())) == len(labels)
    assert len({(look.colour, look.marker) for look in list(looks.values())[:24]}) == 24  # of a figure of dots, which has no lines
    assert looks[labels[0]].marker == "o" and looks[labels[0]].colour != "#0072b2"


def test_lines_have_the_colours_of_their_methods(tmp_path: Path) -> None:
    groups = cw10(tmp_path, "replay", "finetune").groups
    axes = average_over_stages(groups).axes[0]
    assert {looks_of(groups)[group.label].colour for group in groups} <= {line.get_color() for line in axes.lines}


# Places ------------------------------------------------------------------------------------------------------------------------


def test_names_keep_apart_and_within_the_axes() -> None:
    assert _apart([0.9, 0.5, 0.5], [0.1, 0.1, 0.1]) == pytest.approx([0.9, 0.55, 0.45])
    assert _apart([1.0, 0.99, 0.98], [0.1, 0.1, 0.1]) == pytest.approx([0.95, 0.85, 0.75])
    assert _apart([0.5, 0.45, 0.0], [0.1, 0.2, 0.1]) == pytest.approx([0.55, 0.4, 0.05])


def test_lines_that_end_high_are_named_in_a_panel_of_their_own(tmp_path: Path) -> None:
    runs = [hand_run(tmp_path / method, method, 0, final) for method, final in (("replay", (9, 9, 10)), ("ewc", (9, 9, 9)), ("finetune", (0, 0, 10)))]
    whole, upper = average_over_stages(summarise(runs).groups).axes
    assert texts(whole) == ["finetune (1)"] and texts(upper) == ["replay (1)", "ewc (1)"]
    assert whole.get_ylim()[0] < 0 and 70 < upper.get_ylim()[0] < 80
    (alone,) = average_over_stages(summarise([runs[0], runs[2]]).groups).axes
    assert texts(alone) == ["replay (1)", "finetune (1)"]


def test_where_nothing_was_ever_lost_there_is_nothing_to_enlarge() -> None:
    looks = method_looks({"replay": "replay", "ewc": "ewc"})
    (whole,) = _over_stages([_Line(name, look, np.array([100.0, 100.0])) for name, look in looks.items()], "after stage", "Success").axes
    assert sorted(texts(whole)) == ["ewc", "replay"] and whole.get_ylim() == (-2.5, 102.5)


def test_a_line_is_named_where_its_last_measured_point_is() -> None:
    looks = method_looks({"replay": "replay", "ewc": "ewc", "mas": "mas"})
    values = {"replay": [90.0, 95.0, np.nan], "ewc": [90.0, 92.0, 91.0], "mas": [np.nan] * 3}
    _, upper = _over_stages([_Line(name, looks[name], np.array(found)) for name, found in values.items()], "after stage", "Success").axes
    assert texts(upper) == ["replay", "ewc"]
    ends = [text.xy for text in upper.texts if not text.get_text()]
    assert ends == [(2, 95.0), (3, 91.0)]


def test_a_stage_that_one_seed_did_not_measure_is_drawn_as_the_tables_have_it(tmp_path: Path) -> None:
    folders = [hand_run(tmp_path / str(seed), "replay", seed, (6, 9, 10)).folder for seed in (0, 1)]
    keep_lines(folders[1] / "success_matrix.csv", lambda line: not line.startswith(f"3,{B},"))
    experiment = summarise([read_run(folder) for folder in folders])
    (line,) = [line for line in average_over_stages(experiment.groups).axes[0].lines if len(line.get_xdata()) > 1]
    assert line.get_ydata() == pytest.approx([80, 85, 100 * 25 / 30])


def test_a_method_of_which_one_seed_was_measured_is_drawn_hollow(tmp_path: Path) -> None:
    folders = [hand_run(tmp_path / str(seed), "replay", seed, (6, 9, 10)).folder for seed in (0, 1)]
    keep_lines(folders[1] / "success_matrix.csv", lambda line: not line.startswith(f"3,{B},"))
    for which, hollow in ((folders[:1], True), (folders, True)):
        dots = [line for line in method_dots(summarise([read_run(folder) for folder in which])).axes[0].lines if line.get_marker() == "o"]
        assert {line.get_markerfacecolor() == PAPER for line in dots} == {hollow}


def test_bounds_end_where_a_rate_can_be(tmp_path: Path) -> None:
    runs = [hand_run(tmp_path / str(seed), "replay", seed, final) for seed, final in enumerate(((10, 10, 10), (6, 6, 6)))]
    experiment = summarise(runs)
    assert experiment.methods[0].success.interval.high > 1
    left, _ = method_dots(experiment).axes
    assert max(float(x) for line in left.lines for x in line.get_xdata()) == 100


def test_the_best_method_comes_first_and_the_high_end_is_enlarged_where_several_end(tmp_path: Path) -> None:
    finals = {"finetune": (0, 0, 10), "ewc": (9, 9, 9), "replay": (9, 9, 10)}
    runs = [hand_run(tmp_path / method, method, 0, final) for method, final in finals.items()]
    left, upper, _ = method_dots(summarise(runs)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["replay", "ewc", "finetune"]
    assert upper.get_title("left") == "The same from 85 % on" and {line.get_ydata()[0] for line in upper.lines} == {-0.04, 0.96}
    only, _ = method_dots(summarise(runs[1:])).axes
    assert only.get_title("left") == "Success at the end, %, from 85 on" and only.get_xlim() == (84.5, 100.5)
    alone, _ = method_dots(summarise(runs[2:])).axes
    assert alone.get_title("left") == "Success at the end, %" and alone.get_xlim() == (-2, 102)


# Numbers -----------------------------------------------------------------------------------------------------------------------


def test_the_mean_of_a_figure_is_that_of_the_tables(tmp_path: Path) -> None:
    """0.8 and 0.9 have the mean 85; in the figure it was added up in another order than in the tables, and rounded to another digit."""
    experiment = summarise([hand_run(tmp_path / str(seed), "replay", seed, final) for seed, final in enumerate(((9, 8, 8), (9, 7, 10)))])
    mean = texts(final_success(experiment).axes[0])[-1]
    assert mean == f"{100 * experiment.methods[0].success.interval.mean:.1f}" and f"| {mean} (" in markdown_tables(experiment)


def test_recovery_compares_equal_counts_and_says_for_how_long_one_looked(tmp_path: Path) -> None:
    experiment = cw10(tmp_path, "replay")
    figure = recovery_triangles(experiment.cells)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert titles == [
        f"{count} at {threshold} %, within {last} updates"
        for count, last in (("here, after the dip", 500), ("here, first time", 500), ("published, first time", "50,000"))
        for threshold in (99, 90, 80)
    ]
    assert figure.get_suptitle().startswith("replay: updates until an earlier task is back, median over 2 seeds")
    hatched = [axes.get_title("left") for axes in figure.axes for patch in axes.patches if patch.get_hatch()]
    assert hatched == ["published, first time at 90 %, within 50,000 updates"] * 7  # task 3 was published at 70 % there


def test_a_cell_in_which_half_of_the_seeds_dipped_waited_for_nothing_as_the_tables_say(tmp_path: Path) -> None:
    lost = ((8, 2, 2, 8), (8, 8, 8, 8), (9, 9, 9, 9))
    experiment = summarise([hand_run(tmp_path / "0", "mas", 0, (8, 9, 10)), hand_run(tmp_path / "1", "mas", 1, (8, 9, 10), lost)])
    after_dip = recovery_triangles(experiment.cells).axes[0]
    assert texts(after_dip).count("·") == 3


def test_recovery_of_a_method_that_was_not_published_has_the_own_counts_only(tmp_path: Path) -> None:
    figure = recovery_triangles(cw10(tmp_path, "mas").cells)
    assert len([axes for axes in figure.axes if axes.get_title("left")]) == 6


def test_figures_of_recovery_are_named_by_method() -> None:
    names = recovery_names(["ewc", "ewc, fisher=diagonal", "a b", "a/b", "x" * 300])
    assert list(names.values())[:4] == ["recovery-ewc", "recovery-ewc-fisher-diagonal", "recovery-a-b", "recovery-a-b-4"]
    assert len(names["x" * 300]) < 120
