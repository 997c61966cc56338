"""Pictures of what a model generates stage by stage, in the style of the package's own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from image_classes import ImageClasses
from image_quality import ImageJudge
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from reconverge.eval.method_looks import Look, method_looks
from reconverge.eval.plots import MUTED, STYLE, WARM

Shown = Mapping[tuple[int, int], Tensor]
GAP = 1  # pixels between images of a tile


@mpl.rc_context(STYLE)
def watch_it_forget(shown: Mapping[str, Shown], stages: Sequence[Sequence[int]], classes: ImageClasses) -> Figure:
    """A panel per method, stage (down) x class: the same four noises as images of each class learned so far."""
    count = len(classes.names)
    figure = Figure(figsize=(0.8 + 0.52 * count, len(shown) * (0.5 + 0.52 * len(stages))), layout="constrained")
    figure.supxlabel("class; framed where it has just been learned", fontsize=9, color=MUTED)
    for axes, (method, images) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        axes.set_title(method)
        for (stage, label), each in images.items():
            axes.imshow(_tile(each, classes.channels), cmap="gray", vmin=0, vmax=1, extent=(label - 0.46, label + 0.46, stage + 0.46, stage - 0.46))
            if label in stages[stage - 1]:
                axes.add_patch(Rectangle((label - 0.48, stage - 0.48), 0.96, 0.96, fill=False, edgecolor=WARM, linewidth=1.4))
        axes.set(xlim=(-0.55, count - 0.45), ylim=(len(stages) + 0.55, 0.45), ylabel="stage", aspect="equal")
        axes.set_xticks(range(count), classes.names)
        axes.set_yticks(range(1, len(stages) + 1))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def forgetting_curves(
    rows: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]], stages: Sequence[Sequence[int]], classes: ImageClasses, judge: ImageJudge
) -> Figure:
    """Frechet distance over the stages, of all classes learned so far and of those of the first stage; a thin line per seed, bold the mean."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    first = {classes.names[label] for label in stages[0]}
    real = {name: each.distance for name, each in zip(classes.names, judge.of_real, strict=True)}
    panels = {"all classes learned so far": set(classes.names), f"classes of the first stage: {', '.join(sorted(first))}": first}
    for axes, (title, names) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        looks = method_looks({method: method for method, _ in rows})
        for number, method in enumerate(dict.fromkeys(method for method, _ in rows)):
            seeds = [_means(each, names) for (of, _), each in rows.items() if of == method]
            _curve(axes, seeds, method, number, looks[method])
        axes.axhline(np.mean([real[name] for name in names]), color=MUTED, linewidth=0.8, dashes=(4, 3), label="real images")
        axes.set(title=title, xlabel="stage", xticks=range(1, len(stages) + 1))
    figure.axes[0].set(ylabel="Frechet distance (lower is better)", ylim=(0, None))
    figure.axes[0].legend()
    return figure


def _means(rows: Sequence[Mapping[str, Any]], names: set[str]) -> dict[int, float]:
    stages = sorted({row["stage"] for row in rows})
    return {stage: float(np.mean([row["distance"] for row in rows if row["stage"] == stage and row["class"] in names])) for stage in stages}


def _curve(axes: Axes, seeds: Sequence[Mapping[int, float]], label: str, number: int, look: Look) -> None:
    stages = np.array(list(seeds[0])) + 0.05 * number  # side by side, where methods agree
    for seed in seeds if len(seeds) > 1 else ():
        axes.plot(stages, list(seed.values()), color=look.colour, linewidth=0.6, alpha=0.5)
    axes.plot(stages, np.mean([list(seed.values()) for seed in seeds], axis=0), color=look.colour, marker=look.marker, markersize=4, label=label)


def _tile(images: Tensor, channels: int) -> np.ndarray:
    """Up to four images (M, rows, columns x channels) as one of 2 x 2, values in [0, 1]."""
    side = images.shape[1]
    tile = np.full((2 * side + GAP, 2 * side + GAP, channels), np.nan)
    for number, image in enumerate((images.numpy().reshape(len(images), side, -1, channels) + 1) / 2):
        top, left = (side + GAP) * (number // 2), (side + GAP) * (number % 2)
        tile[top : top + side, left : left + side] = image
    return np.nan_to_num(tile, nan=1.0) if channels == 3 else tile[..., 0]
