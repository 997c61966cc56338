"""Draws the pictures of docs/concepts.md into docs/images: `.venv/bin/python docs/draw_concepts.py`.

The same versions give the same bytes. What is a measurement or an example in a picture is computed by the package's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.ticker import NullFormatter
from PIL import Image
from two_parameters import (
    NEW_OPTIMUM,
    OLD_OPTIMUM,
    RADIUS,
    STRENGTH,
    best_fit,
    descend,
    fisher_at_optimum,
    losses,
    mean_loss,
    new_task,
    one_direction,
    two_directions,
)

from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.tasks import find_task
from reconverge.eval.metrics import forgetting_end_of_own_task, forgetting_per_task
from reconverge.eval.plots import ACCENT, ACCENT_LIGHT, HEAT, INK, LINE, MUTED, STYLE, WARM, png
from reconverge.eval.recovery import Curve, dip, recovery_updates, updates_after_dip
from reconverge.launch.presets import find_preset
from reconverge.policy.config import PolicyConfig
from reconverge.policy.fisher import Draws, mean_gradient
from reconverge.policy.random_streams import RandomStreams, torch_stream
from reconverge.policy.windows import WindowTable
from reconverge.replay.trajectory_generator import TrajectoryGenerator
from reconverge.replay.window_code import WindowCode

IMAGES = Path(__file__).resolve().parent / "images"
GOLD = "#c08a1e"
CHUNKS = (ACCENT, WARM, GOLD)
Range = tuple[float, float]


# windows


def windows() -> Figure:
    """What a policy sees, predicts and executes, for the indexing of the CPU presets and of the published one."""
    figure = Figure(figsize=(9.2, 6.6), layout="constrained")
    ours, published = figure.subplots(2, 1)
    _windows(ours, PolicyConfig(), "CPU presets: To = 2, H = 4, Ha = 4; the chunk begins now (past_actions = 0)")
    paper = find_preset("cw10-paper").policy
    _windows(published, paper, "cw10-paper: To = 6, H = 8, Ha = 2; the chunk begins with the window (past_actions = To − 1 = 5)")
    return figure


def _windows(axes: Axes, policy: PolicyConfig, title: str) -> None:
    queries = range(3)
    first, last = 1 - policy.window, 2 * policy.executed + policy.horizon - policy.past_actions - 1
    last = max(last, 3 * policy.executed - 1)
    for query in queries:
        now, colour, row = query * policy.executed, CHUNKS[query], -2.3 * query
        for step in range(now - policy.window + 1, now + 1):
            _cell(axes, step, row, "o", facecolor="#eef1f4", edgecolor=MUTED)
        for step in range(now - policy.past_actions, now - policy.past_actions + policy.horizon):
            acted = now <= step < now + policy.executed
            _cell(axes, step, row - 0.85, "a", facecolor=colour if acted else "white", edgecolor=colour, text="white" if acted else colour)
        axes.text(first - 0.75, row - 0.42, f"query at k = {now}", ha="right", va="center", color=colour, fontweight="bold")
    below = -2.3 * 3 - 0.2
    for step in range(3 * policy.executed):
        _cell(axes, step, below, "a", facecolor=CHUNKS[step // policy.executed], edgecolor="white", text="white")
    axes.text(first - 0.75, below, "chunk queue: what is done", ha="right", va="center", color=INK)
    for step in range(first, last + 1):
        axes.text(step, below - 0.95, f"{step}".replace("-", "−"), ha="center", va="center", color=MUTED)
    axes.text(first - 0.75, below - 0.95, "step k", ha="right", va="center", color=MUTED)
    axes.set(xlim=(first - 6.6, max(last, 11) + 0.8), ylim=(below - 1.5, 0.8), title=title)
    _bare(axes)


def _cell(axes: Axes, step: float, row: float, letter: str, *, facecolor: str, edgecolor: str, text: str = INK) -> None:
    axes.add_patch(Rectangle((step - 0.44, row - 0.36), 0.88, 0.72, facecolor=facecolor, edgecolor=edgecolor, linewidth=1.1))
    axes.text(step, row, letter, ha="center", va="center", color=text, fontsize=8.5)


# a curriculum


def curriculum() -> Figure:
    """Stages with their parts, recovery points within them, and the rows of the success matrix that come of them."""
    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    axes = figure.add_subplot()
    grid, updates = find_preset("quickstart").recovery.grid, find_preset("quickstart").train.updates
    tasks = ("hammer", "push-wall", "faucet-close")
    for stage, task in enumerate(tasks):
        start, colour = 10.4 * stage, CHUNKS[stage]
        _block(axes, start, 0, 6.0, f"learn {task}\n{updates} updates", colour, "white")
        _block(axes, start + 6.1, 0, 2.0, "conso-\nlidate", ACCENT_LIGHT, INK)
        _block(axes, start + 8.2, 0, 1.9, "evalu-\nate", "#eef1f4", INK)
        if stage:
            for update in grid:
                axes.plot([start + 6 * update / updates] * 2, [-0.75, -1.15], color=INK, linewidth=1)
            axes.plot([start, start + 6], [-0.75] * 2, color=MUTED, linewidth=0.8)
            earlier = " and ".join(tasks[:stage])
            points = f"{', '.join(map(str, grid[:3]))}, ... {grid[-1]}"
            axes.text(start, -1.35, f"recovery points: {earlier}\nafter {points} updates", va="top", fontsize=8)
        axes.text(start + 7.1, 0.72, "optimum θ*, teacher,\nμ c b, generator, pool", ha="center", va="bottom", fontsize=7.5, color=MUTED)
        _matrix_row(axes, start + 8.2, stage + 1, tasks)
    axes.text(0, -0.75, "no earlier task:\nnothing to recover", va="top", fontsize=8, color=MUTED)
    axes.text(0, -2.3, "strong: the stage's own task\npale: earlier tasks\noutlined: the next task", va="top", fontsize=8, color=MUTED)
    axes.set(xlim=(-0.2, 31.0), ylim=(-4.0, 1.7))
    _bare(axes)
    return figure


def _block(axes: Axes, x: float, y: float, width: float, text: str, colour: str, ink: str) -> None:
    shape = FancyBboxPatch((x + 0.1, y - 0.55), width - 0.2, 1.1, boxstyle="round,pad=0,rounding_size=0.12", facecolor=colour, edgecolor="none")
    axes.add_patch(shape)
    axes.text(x + width / 2, y, text, ha="center", va="center", color=ink, fontsize=8.5)


def _matrix_row(axes: Axes, x: float, stage: int, tasks: Sequence[str]) -> None:
    for column in range(len(tasks)):
        measured = column <= stage  # the next task is measured too: what is known of it before it is learned
        own = column == stage - 1
        axes.add_patch(
            Rectangle(
                (x + 0.62 * column, -2.95),
                0.56,
                0.6,
                facecolor=to_rgba(CHUNKS[column], 1.0 if own else 0.35) if column < stage else "white",
                edgecolor=CHUNKS[column] if measured else LINE,
                linewidth=1.2,
            )
        )
    axes.add_patch(FancyArrowPatch((x + 0.95, -0.6), (x + 0.95, -2.25), arrowstyle="-|>", mutation_scale=8, color=MUTED, linewidth=0.8))
    axes.text(x + 0.95, -3.1, f"row {stage} of the\nsuccess matrix", ha="center", va="top", fontsize=7.5, color=MUTED)


# the success matrix, and recovery


MATRIX = np.array([[0.0, 0.1, 0.0], [0.8, 0.2, np.nan], [0.9, 0.6, 0.3], [0.5, 0.7, 1.0]])
"""The worked example of `reconverge.eval.metrics`."""
TRACE = Curve((0, 2, 6, 10, 25, 50, 100), (0.80, 0.70, 0.40, 0.20, 0.60, 0.72, 0.80))
"""That of `reconverge.eval.recovery`, whose reference is 0.8."""


def reading() -> Figure:
    """How forgetting is read from a success matrix, and recovery from a curve."""
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _read_matrix(left)
    _read_curve(right)
    return figure


def _read_matrix(axes: Axes) -> None:
    for stage, row in enumerate(MATRIX):
        for column, rate in enumerate(row):
            measured = not np.isnan(rate)
            colour = HEAT(rate) if measured else "white"
            axes.add_patch(Rectangle((column - 0.48, stage - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="none" if measured else LINE))
            axes.text(column, stage, f"{100 * rate:.0f}" if measured else "not measured", ha="center", va="center",
                      color="white" if measured and rate > 0.55 else INK if measured else MUTED, fontsize=9 if measured else 7)  # fmt: skip
        if stage:
            axes.add_patch(Rectangle((stage - 1.48, stage - 0.46), 0.96, 0.92, fill=False, edgecolor=WARM, linewidth=2))
    drops = forgetting_per_task(MATRIX)
    for column, drop in enumerate(drops):
        learned, left, points = (round(100 * rate) for rate in (MATRIX[column + 1, column], MATRIX[-1, column], drop))
        words = f"{learned} − {left}\n= {points} points".replace("-", "−")
        axes.text(column, 3.62, words, ha="center", va="top", color=WARM if drop > 0 else MUTED, fontsize=8.5)
    mean = 100 * forgetting_end_of_own_task(MATRIX)
    axes.text(1, 4.32, f"just learned − at the end; mean: forgetting {mean:.1f} points", ha="center", va="top", fontsize=8.5)
    axes.set(xlim=(-0.55, 2.55), ylim=(4.6, -0.55), title="Success in %: read down a column")
    axes.set_xticks(range(3), ["task 1", "task 2", "task 3"])
    axes.set_yticks(range(4), ["untrained", "after stage 1", "after stage 2", "after stage 3"])
    axes.xaxis.tick_top()
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _read_curve(axes: Axes) -> None:
    reference = TRACE.rates[0]
    updates, rates = np.array(TRACE.updates), 100 * np.array(TRACE.rates)
    axes.fill_between(updates, rates, 100 * reference, color=ACCENT_LIGHT, alpha=0.6, linewidth=0)
    axes.plot(updates, rates, color=ACCENT, marker="o", markersize=4)
    axes.axhline(100 * reference, color=MUTED, linewidth=0.9)
    axes.text(101, 100 * reference + 1, "reference 80 %: just after it was learned", ha="right", va="bottom", color=MUTED, fontsize=8)
    for threshold in (99, 90, 80):
        level, first, after = threshold * reference, recovery_updates(TRACE, reference, threshold), updates_after_dip(TRACE, reference, threshold)
        axes.axhline(level, color=MUTED, linewidth=0.8, dashes=(4, 3))
        if threshold < 99:
            axes.text(101, level - 1, f"{threshold} % of 80 = {level:.0f}", ha="right", va="top", color=MUTED, fontsize=7.5)
        axes.plot(after, np.interp(after, updates, rates), marker="o", markersize=9, markerfacecolor="none", markeredgecolor=WARM)
        words = f"back at {threshold} % after {after}" + (f" (first time: {first})" if first != after else "")
        axes.text(101, {99: 52, 90: 45, 80: 38}[threshold], words, ha="right", va="center", fontsize=8.5, color=WARM)
    bottom = int(np.argmin(rates))
    arrow = {"arrowstyle": "<->", "color": INK, "linewidth": 0.9}
    axes.annotate("", (updates[bottom], rates[bottom]), (updates[bottom], 100 * reference), arrowprops=arrow)
    axes.text(updates[bottom] + 5, 30, f"dip {100 * dip(TRACE, reference):.0f} points", fontsize=8.5, va="center")
    axes.set(xlabel="updates on the next task", ylabel="success on the earlier task, %", ylim=(0, 92), xlim=(-2, 103))
    axes.set_title("Recovery: an earlier task, while the next one is learned")


# replay


def replay() -> Figure:
    """Windows of the toy task point-reach-0: demonstrated, and generated by a generator that learned them, by start time."""
    task, settings = find_task("point-reach-0"), find_preset("smoke").replay.generator
    episodes = collect(task, DemonstrationConfig(episodes=60, workers=0), 60, None).episodes
    real = WindowTable.from_episodes(episodes, 0, window=2, horizon=4, past_actions=0, episode_horizon=task.horizon)
    generator = TrajectoryGenerator(settings, WindowCode(task.layout, 2), 1, 0)
    generator.learn(0, real.all().observations, real.times, [], RandomStreams(0, 1), lambda count: None)
    generated, times = generator.generate(0, 600, 0, 1)
    figure = Figure(figsize=(9.2, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    shown = torch.randperm(len(real), generator=torch_stream("shown windows"))[:600]
    _scatter(axes[0], real.all().observations[shown], real.times[shown], "600 demonstrated windows: dropped after the stage")
    points = _scatter(axes[1], generated, times, "600 generated windows: what is rehearsed")
    figure.colorbar(points, ax=list(axes), label="start time within the episode", shrink=0.85)
    return figure


def _scatter(axes: Axes, observations: torch.Tensor, times: torch.Tensor, title: str) -> Any:
    position = observations[:, -1, :2].numpy()
    points = axes.scatter(*position.T, c=times.numpy(), s=9, cmap="viridis", linewidths=0, vmin=0, vmax=0.5)
    axes.set(title=title, aspect="equal", xlabel="position x", ylabel="position y")
    return points


# averaged weights


def averaged() -> Figure:
    """The weights in training and their exponential moving average, on the two-parameter model."""
    task, decay, rate, updates = new_task(), 0.99, 0.08, 600
    theta, points, average, averages = torch.tensor([-1.5, 2.4]).double(), [], None, []
    generator = torch_stream("averaged weights")
    for _ in range(updates):
        rows = torch.randint(len(task[0]), (2,), generator=generator)
        theta = theta - rate * mean_gradient(losses, theta, tuple(part[rows] for part in task))
        average = theta.clone() if average is None else average.lerp(theta, 1 - decay)
        points.append(theta.numpy()), averages.append(average.numpy())
    raw, smooth = np.array(points), np.array(averages)
    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    plane, curve = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _contours(plane, task, WARM, (-2.2, 3.6), (-0.2, 2.8), "--")
    plane.plot(*raw.T, color=MUTED, linewidth=0.6, alpha=0.8, label="weights in training θ")
    plane.plot(*smooth.T, color=ACCENT, linewidth=2.2, label="their average (decay 0.99)")
    star = {"marker": "*", "markersize": 15, "color": GOLD, "markeredgecolor": "white", "linestyle": "none"}
    plane.plot(*smooth[-1], label="θ*, the average at the stage's end", **star)
    plane.legend(loc="lower left", fontsize=8)
    plane.set(title="One stage in the space of two parameters", xlabel="θ₁", ylabel="θ₂")
    plane.grid(False)
    least = mean_loss(best_fit(task), task)
    for path, style in ((raw, {"color": MUTED, "linewidth": 0.7}), (smooth, {"color": ACCENT, "linewidth": 2.0})):
        curve.plot([mean_loss(torch.from_numpy(point), task) - least for point in path], **style)
    curve.set(title="Loss above the least possible, over all draws", xlabel="update", yscale="log")
    curve.yaxis.set_minor_formatter(NullFormatter())
    return figure


# the trust region


def trust_region() -> Figure:
    """Old loss, new loss, penalty and paths: a Fisher of rank one, and one that is not."""
    figure = Figure(figsize=(9.2, 4.8), layout="constrained")
    exact, noisy = figure.subplots(1, 2, sharey=True)
    old = one_direction()
    _landscape(exact, old, "The old task used one direction: the Fisher has rank one")
    _band(exact, old, ACCENT)
    for path, style, words in (
        (descend(old), {"color": MUTED, "linestyle": "-"}, "no trust region"),
        (descend(old, strength=STRENGTH), {"color": ACCENT, "linewidth": 2.4}, f"penalty, λ = {STRENGTH:g}"),
        (descend(old, radius=RADIUS), {"color": GOLD, "linewidth": 1.6, "linestyle": (0, (1, 1.2))}, f"radius δ = {RADIUS:g}"),
    ):
        exact.plot(*path.points.T, label=f"{words}: old loss {path.old_loss:.2f}", zorder=4, **style)
        exact.plot(*path.points[-1], marker="o", markersize=5, color=style["color"], zorder=5)
    exact.legend(loc="lower right", fontsize=8, facecolor="white", framealpha=0.92, frameon=True, edgecolor="none")

    _landscape(noisy, two_directions(), "It used both: at the optimum μ is noise")
    alone = descend(two_directions())
    noisy.plot(*alone.points.T, color=MUTED, zorder=4, label=f"no trust region: old loss {alone.old_loss:.2f}")
    for sample, colour in enumerate(CHUNKS):
        draws = two_directions(sample)
        path = descend(draws, strength=STRENGTH)
        _band(noisy, draws, colour)
        noisy.plot(*path.points.T, color=colour, linewidth=2, zorder=4, label=f"penalty, draws {sample + 1}: old loss {path.old_loss:.2f}")
        noisy.plot(*path.points[-1], marker="o", markersize=5, color=colour, zorder=5)
    noisy.legend(loc="lower right", fontsize=8, facecolor="white", framealpha=0.92, frameon=True, edgecolor="none")
    return figure


X_RANGE, Y_RANGE = (-1.4, 3.4), (-1.6, 3.0)


def _landscape(axes: Axes, old: Draws, title: str) -> None:
    _contours(axes, old, "#5f86b8", X_RANGE, Y_RANGE, "-")
    _contours(axes, new_task(), WARM, X_RANGE, Y_RANGE, "--")
    axes.plot(*OLD_OPTIMUM, marker="*", markersize=14, color="#2b5a94", markeredgecolor="white", zorder=6, linestyle="none")
    axes.plot(*NEW_OPTIMUM, marker="*", markersize=14, color=WARM, markeredgecolor="white", zorder=6, linestyle="none")
    axes.text(-0.1, -0.12, "old optimum", ha="right", va="top", color="#2b5a94", fontsize=8.5, zorder=6)
    axes.text(2.08, 1.32, "new optimum", ha="left", va="bottom", color=WARM, fontsize=8.5, zorder=6)
    axes.set(title=title, xlabel="θ₁", ylabel="θ₂", xlim=X_RANGE, ylim=Y_RANGE, aspect="equal")
    axes.grid(False)


def _contours(axes: Axes, draws: Draws, colour: str, x_range: Range, y_range: Range, style: str) -> None:
    xs, ys = np.linspace(*x_range, 90), np.linspace(*y_range, 90)
    values = np.array([[mean_loss(torch.tensor([x, y]).double(), draws) for x in xs] for y in ys])
    levels = values.min() + np.array([0.02, 0.08, 0.2, 0.4, 0.7, 1.1, 1.7])
    axes.contour(xs, ys, values, levels, colors=colour, linewidths=0.7, linestyles=style, alpha=0.75)


def _band(axes: Axes, old: Draws, colour: str) -> None:
    """Where theta has travelled at most the radius: a strip across mu."""
    fisher = fisher_at_optimum(old)
    mu, half = fisher.mu.numpy() / fisher.mu_norm, np.sqrt(2 * RADIUS / fisher.curvature) / fisher.mu_norm
    along = np.array([-mu[1], mu[0]])
    corners = [10 * side * along + half * edge * mu for side, edge in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    axes.fill(*np.array(corners).T, color=colour, alpha=0.14, linewidth=0, zorder=1)


def _bare(axes: Axes) -> None:
    axes.set_xticks([]), axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


PICTURES: dict[str, Callable[[], Figure]] = {
    "windows": windows,
    "curriculum": curriculum,
    "reading": reading,
    "replay": replay,
    "averaged": averaged,
    "trust_region": trust_region,
}


def draw_all(folder: Path) -> None:
    """Each picture with the 256 colours that suit it best: a third of the bytes."""
    torch.set_num_threads(1)
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            path = folder / f"concept_{name}.png"
            drawn = Image.open(BytesIO(png(draw(), 130))).convert("RGB")
            drawn.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path.name:30} {path.stat().st_size / 1000:6.0f} KB")


if __name__ == "__main__":
    draw_all(IMAGES)
