"""Class-incremental image generation with the learner, the trust region and the replay of the robot policies.

An image is the action of a policy that observes nothing and is told its task, which is the class:

    robot policy    p(next H actions of Da numbers | last To observations, task)
    here            p(rows of an image             | nothing,              class)

So `DiffusionPolicy`, `Learner`, the methods, the Fisher, the trust region and generative replay are the package's own. What is new here are
the images (`image_classes.py`), how good generated ones are (`image_quality.py`), pictures (`image_plots.py`) and this order of events:

    stage 1   learn 0, 1      generate 0, 1             judge them
    stage 2   learn 2, 3      generate 0, 1, 2, 3       judge them        0 and 1 are rehearsed as the model of stage 1 draws them
    ...

Results and what they mean: docs/image_generation.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from image_classes import ImageClasses, digits, from_folder
from image_plots import forgetting_curves, watch_it_forget
from image_quality import ImageJudge
from torch import Tensor

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import ConfigError, RunFolderError, UnknownName
from reconverge.envs.seeding import Word
from reconverge.eval import metrics
from reconverge.eval.fisher_structure import fisher_structure, gradient_products
from reconverge.eval.intervals import Interval, mean_interval, paired_difference
from reconverge.eval.plots import png
from reconverge.launch.assembly import make_method
from reconverge.launch.cli import guarded, parse
from reconverge.launch.config import METHODS, REPLAYING, RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.run_tables import write_csv
from reconverge.policy.config import OptimizerConfig, PolicyConfig, ResidualMLPConfig, TrainConfig, TrustRegionConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import denoising_draws, denoising_losses
from reconverge.policy.learner import Learner
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.random_streams import RandomStreams, torch_stream
from reconverge.replay.config import ReplayConfig
from reconverge.replay.generated_windows import GeneratedWindows

SHOWN = 4  # generated images of a class in the picture
STRUCTURE_DRAWS = 256  # gradients among which the Fisher's structure is looked for
FIGURES = {"share": "in the class, %", "share_lost": "lost, points", "distance": "Frechet distance", "distance_gained": "gained"}


# One run: a method and a seed ------------------------------------------------------------------------------------------------------------


@dataclass
class ImageRun:
    """What a run gave.

    Attributes:
        rows: per stage and class seen: `share` in the wanted class and Frechet `distance`.
        fisher: per stage, how far the Fisher at its end is of rank one, and whether two halves of the penalty's own draws agree on its direction;
            only of methods that estimate it.
        shown: (stage, class) -> the first generated images, from the same noise at every stage.
        model: the image model at the end.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    fisher: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    model: DiffusionPolicy | None = None


class NothingSeen:
    """In the place of the trajectory generator: there are no observations to generate, and the teacher draws the whole image."""

    bytes = 0

    def learn(self, *_: object) -> None:
        pass

    def generate(self, task: int, count: int, *words: Word) -> tuple[Tensor, Tensor]:
        return torch.zeros(count, 1, 0), torch.zeros(count)


def learn_classes(config: RunConfig, stages: Sequence[Sequence[int]], classes: ImageClasses, judge: ImageJudge, generated: int) -> ImageRun:
    """Learn the classes stage by stage; after each, generate and judge all that were learned so far."""
    nothing = Normalizer(torch.zeros(0), torch.ones(0))
    policy = DiffusionPolicy(config.policy, classes.names, 0, classes.row_size, nothing, config.seed)
    source = GeneratedWindows(config.replay, NothingSeen()) if config.method in REPLAYING else None
    method = make_method(config, source, policy.parameter_count, policy.device)
    learner, run = Learner(policy, method, config.train, config.seed), ImageRun()

    seen: list[int] = []
    for stage, new in _planned(config.method, stages):
        seen += new
        updates = config.train.updates * (len(stages) if config.method == "joint" else 1)
        windows = classes.windows(new)
        learner.begin_stage(stage, windows, updates)
        for _ in range(updates):
            learner.update()
        learner.end_stage()
        for label in new if source else ():
            source.refill(label, windows, learner.teacher, RandomStreams(config.seed, stage))
        for figures in method.fisher_figures():
            penalty = {"penalty_draws": figures["draws"], "penalty_split_half_cosine": figures["split_half_cosine"]}
            run.fisher.append({"stage": stage, **penalty, **_structure(learner)})
        for label in seen:
            images = generate(learner.teacher, label, generated, config.seed)
            run.rows.append({"stage": stage, "class": classes.names[label], **judge.quality(images, label)._asdict()})
            run.shown[stage, label] = images[:SHOWN]
    run.model = learner.teacher
    return run


def _planned(method: str, stages: Sequence[Sequence[int]]) -> list[tuple[int, Sequence[int]]]:
    """Stage number and new classes; `joint` has one stage of all, numbered as the last."""
    if method == "joint":
        return [(len(stages), [label for stage in stages for label in stage])]
    return list(enumerate(stages, start=1))


def generate(model: DiffusionPolicy, label: int, count: int, seed: int) -> Tensor:
    """Images (count, rows, columns x channels) of a class; the same noise for every model, so that one can be watched over the stages."""
    noise = [torch_stream("judged image", seed, label, number) for number in range(count)]
    return model.sample_chunk(torch.zeros(count, 1, 0), torch.full((count,), label), noise)


def _structure(learner: Learner) -> dict[str, float]:
    """Of the Fisher at the optimum just reached, over its images, timesteps and noise."""
    draws = denoising_draws(learner.policy, learner.windows, STRUCTURE_DRAWS, learner.streams, "structure")
    products = gradient_products(denoising_losses(learner.policy, learner.parameters), learner.parameters.values, draws)
    return asdict(fisher_structure(products, learner.streams.generator("structure signs")))


# All runs ----------------------------------------------------------------------------------------------------------------------------------


Runs = dict[tuple[str, int], ImageRun]


@dataclass(frozen=True)
class Digits:
    """Learn to generate images class by class, and watch which classes are forgotten.

    Examples:
        python examples/digits.py --methods finetune replay trust-region --seeds 0 1 2
        python examples/digits.py --small --output-dir runs/digits-small
        python examples/digits.py --images FOLDER --size 16 --colour --output-dir runs/mine
    """

    methods: tuple[str, ...] = ("finetune", "replay", "trust-region")
    """Methods to compare: those of `reconverge list methods` but `single`."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, the same for every method."""
    output_dir: Path = Path("runs/digits")
    """Folder for tables, pictures and models."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder with one sub-folder of PNG or JPEG images per class, in place of the digits."""
    size: int = 16
    """Pixels a side to which the images of a folder are squeezed."""
    colour: bool = False
    """Keep the colours of a folder's images."""
    classes_per_stage: int = 2
    """Classes that are learned together."""
    updates: int = 600
    """Gradient updates per stage."""
    strength: float = 12.0
    """lambda of the trust region."""
    pool: Literal["redrawn", "freshest"] = "redrawn"
    """Whether the newest model draws all earlier classes anew for the next stage, or each is drawn once by the model that has just learned it."""
    generated: int = 200
    """Images of every class that are generated and judged after every stage."""
    small: bool = False
    """Four classes and a small network with settings of its own: seconds, to see that it works."""
    overwrite: bool = False
    """Write into an output folder that holds results already."""

    def run(self, command: str) -> int:
        self._check()
        torch.set_num_threads(1)
        classes = from_folder(self.images, self.size, self.colour) if self.images else digits()
        classes = classes.first(4) if self.small else classes
        configs = {(method, seed): self._config(method, seed, classes.rows) for method in self.methods for seed in self.seeds}
        labels = list(range(len(classes.names)))
        stages = [labels[start : start + self.classes_per_stage] for start in labels[:: self.classes_per_stage]]

        judge, runs = ImageJudge(classes), {}
        print(judge.description, flush=True)
        for (method, seed), config in configs.items():
            start = time.monotonic()
            runs[method, seed] = learn_classes(config, stages, classes, judge, self.generated)
            figures = figures_of(runs[method, seed], stages, classes)
            print(f"{method}, seed {seed}: {100 * figures['share']:.1f} % in the wanted class, Frechet distance {figures['distance']:.2f} "
                  f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
        self._write(command, runs, stages, classes, judge)
        return 0

    def _check(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise UnknownName("method", method, METHODS)
            if method == "single":
                raise ConfigError("--methods single has a model per class, and here one model generates all; leave it out")
        if min(self.classes_per_stage, self.generated - 1, len(self.methods), len(self.seeds)) < 1:
            raise ConfigError("--classes-per-stage must be at least 1, --generated at least 2, and a method and a seed are needed")
        if (self.output_dir / "quality.csv").exists() and not self.overwrite:
            raise RunFolderError(f"{self.output_dir} holds results already; add --overwrite, or choose another --output-dir")

    def _config(self, method: str, seed: int, rows: int) -> RunConfig:
        width, blocks, rate, updates, batch, draws, pool = 192, 2, 4e-3, self.updates, 64, 4096, 256
        if self.small:
            width, blocks, rate, updates, batch, draws, pool = 128, 1, 1e-2, 400, 128, 256, 64
        config = RunConfig(
            method=method,
            seed=seed,
            policy=PolicyConfig(
                window=1, horizon=rows, executed=rows, relative_scales_m=(), mlp=ResidualMLPConfig(width, blocks), sampler="ddpm", sampling_steps=20
            ),
            train=TrainConfig(
                updates=updates,
                batch_size=batch,
                optimizer=OptimizerConfig(learning_rate=rate),
                trust_region=TrustRegionConfig(strength=self.strength, draws=draws),
            ),
            replay=ReplayConfig(pool=self.pool, windows_per_task=pool),
        )
        check(config)
        return config

    def _write(self, command: str, runs: Runs, stages: Sequence[Sequence[int]], classes: ImageClasses, judge: ImageJudge) -> None:
        summary = summarise(runs, stages, classes)
        print(f"\n{table(summary, judge)}")
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, rows in {
            "quality": [{"method": method, "seed": seed, **row} for (method, seed), run in runs.items() for row in run.rows],
            "fisher": [{"method": method, "seed": seed, **row} for (method, seed), run in runs.items() for row in run.fisher],
            "summary": summary,
        }.items():
            write_csv(self.output_dir / f"{name}.csv", list(rows[0]) if rows else ["method", "seed", "stage"], rows)
        write_file(self.output_dir / "command.txt", f"{command}\n")
        first = {method: runs[method, self.seeds[0]].shown for method in self.methods}
        write_file(self.output_dir / "images.png", png(watch_it_forget(first, stages, classes)))
        write_file(self.output_dir / "curves.png", png(forgetting_curves({key: run.rows for key, run in runs.items()}, stages, classes, judge)))
        for (method, seed), run in runs.items():
            run.model.save(self.output_dir / "models" / f"{method}-seed-{seed}")
        print(f"\ntables, pictures and models: {self.output_dir}")


def figures_of(run: ImageRun, stages: Sequence[Sequence[int]], classes: ImageClasses) -> dict[str, float]:
    """Means over classes: share and distance at the end, and what became of them since each class had just been learned."""
    own = [stage for stage, new in enumerate(stages, start=1) for _ in new]
    share, distance = (np.full((len(stages) + 1, len(own)), np.nan) for _ in range(2))
    for row in run.rows:
        place = row["stage"], classes.names.index(row["class"])
        share[place], distance[place] = row["share"], row["distance"]
    return {
        "share": metrics.average_success(share, own),
        "share_lost": metrics.forgetting_end_of_own_task(share, own),
        "distance": metrics.average_success(distance, own),
        "distance_gained": -metrics.forgetting_end_of_own_task(distance, own),
    }


def summarise(runs: Runs, stages: Sequence[Sequence[int]], classes: ImageClasses) -> list[dict[str, Any]]:
    """Every figure of every method, mean and 95 % interval over seeds; and, paired by seed, its difference from replay."""
    methods, seeds = (list(dict.fromkeys(key)) for key in zip(*runs, strict=True))
    found = {key: figures_of(run, stages, classes) for key, run in runs.items()}
    rows = []

    def add(name: str, interval: Callable[[str], Interval]) -> None:
        rows.extend({"method": name, "figure": figure, **interval(figure)._asdict()} for figure in FIGURES)

    for method in methods:
        add(method, lambda figure, method=method: mean_interval([found[method, seed][figure] for seed in seeds]))
    for method in methods if "replay" in methods else ():
        if method != "replay":
            pairs = [(found[method, seed], found["replay", seed]) for seed in seeds]
            add(f"{method} - replay", lambda figure, pairs=pairs: paired_difference(*zip(*((a[figure], b[figure]) for a, b in pairs), strict=True)))
    return rows


def table(summary: Sequence[dict[str, Any]], judge: ImageJudge) -> str:
    """The summary as text, a line per method."""
    lines = [f"{'':22}" + "".join(f"{heading:>25}" for heading in FIGURES.values())]
    real = {"share": np.mean([each.share for each in judge.of_real]), "distance": np.mean([each.distance for each in judge.of_real])}
    lines.append(f"{'real images':22}" + "".join(f"{_number(figure, real[figure]) if figure in real else '':>25}" for figure in FIGURES))
    for method in dict.fromkeys(row["method"] for row in summary):
        cells = [_with_interval(row) for row in summary if row["method"] == method]
        lines.append(f"{method:22}" + "".join(f"{cell:>25}" for cell in cells))
    return "\n".join(lines)


def _with_interval(row: dict[str, Any]) -> str:
    if np.isnan(row["mean"]):
        return "-"
    mean, low, high = (_number(row["figure"], row[name]) for name in ("mean", "low", "high"))
    return mean if np.isnan(row["low"]) else f"{mean} ({low} to {high})"


def _number(figure: str, value: float) -> str:
    return f"{100 * value:.1f}" if figure.startswith("share") else f"{value:.2f}"


def main(words: Sequence[str]) -> int:
    def work() -> int:
        command = parse(Digits, words, "python examples/digits.py")
        return 0 if command is None else command.run(" ".join(["python examples/digits.py", *words]))

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
