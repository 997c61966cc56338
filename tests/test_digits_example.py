"""Class-incremental image generation with the package's learner: the distance, the images, and the example from end to end."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from csv_rows import rows_of
from PIL import Image
from scipy.linalg import sqrtm
from source_files import ROOT

from reconverge.policy.diffusion_policy import DiffusionPolicy

sys.path.insert(0, str(ROOT / "examples"))
digits, image_classes, image_quality = (importlib.import_module(name) for name in ("digits", "image_classes", "image_quality"))
Gaussian, frechet_distance = image_quality.Gaussian, image_quality.frechet_distance


# The distance


def gaussian(seed: int, size: int = 5) -> Any:
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(size, size))
    return Gaussian(draw.normal(size=size), root @ root.T)


def test_the_frechet_distance_of_the_worked_example() -> None:
    one, other = Gaussian(np.array([0.0]), np.array([[1.0]])), Gaussian(np.array([3.0]), np.array([[4.0]]))
    assert frechet_distance(one, other) == pytest.approx(10)


def test_equal_sets_are_at_distance_zero_and_a_shifted_one_at_the_square_of_the_shift() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4))
    shifted = features + np.array([3.0, 0.0, 4.0, 0.0])
    assert frechet_distance(Gaussian.fitted(features), Gaussian.fitted(features.copy())) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(Gaussian.fitted(features), Gaussian.fitted(shifted)) == pytest.approx(25)


def test_the_distance_is_the_formula_and_symmetric() -> None:
    one, other = gaussian(1), gaussian(2)
    formula = np.square(one.mean - other.mean).sum() + np.trace(one.covariance + other.covariance - 2 * sqrtm(one.covariance @ other.covariance).real)
    assert frechet_distance(one, other) == pytest.approx(formula) == pytest.approx(frechet_distance(other, one))


def test_a_flat_gaussian_has_a_distance_too() -> None:
    """Fewer images than features: the covariance is singular."""
    few = np.random.default_rng(3).normal(size=(3, 6))
    assert frechet_distance(Gaussian.fitted(few), Gaussian.fitted(few + 1)) == pytest.approx(6)


# A folder of images


def write_images(folder: Path, count: int = 12) -> Path:
    """Two classes of 6 x 9 pixels: red ones that are bright above, blue ones that are bright below."""
    draw = np.random.default_rng(0)
    for name, channel, bright in (("blue", 2, slice(3, 6)), ("red", 0, slice(0, 3))):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.zeros((6, 9, 3), np.uint8)
            pixels[bright, :, channel] = draw.integers(180, 256, (3, 9))
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def test_a_folder_gives_classes_by_name_in_colour_or_grey(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    colour, grey = image_classes.from_folder(folder, 4, colour=True), image_classes.from_folder(folder, 4, colour=False)
    assert colour.names == grey.names == ("blue", "red") and [len(each) for each in colour.learned + colour.held_out] == [6] * 4
    assert colour.learned[0].shape == (6, 4, 4 * 3) and grey.learned[0].shape == (6, 4, 4)
    red = colour.learned[1].view(6, 4, 4, 3)
    assert (red[:, 0, :, 0] > 0.3).all() and (red[..., 1:] == -1).all() and (red[:, -1] == -1).all()


def test_a_folder_that_cannot_be_learned_is_refused_with_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(folder: Path, *words: str) -> str:
        assert digits.main(["--images", str(folder), "--output-dir", str(tmp_path / "out"), *words]) == 2
        return capsys.readouterr().err

    assert "0 sub-folders" in said(tmp_path / "absent")
    assert "class 'blue' has 5 PNG or JPEG files; at least 8" in said(write_images(tmp_path / "few", 5))
    assert "--size is 1" in said(write_images(tmp_path / "small"), "--size", "1")
    (write_images(tmp_path / "broken") / "red" / "03.png").write_bytes(b"\x89PNG and nothing else")
    assert "03.png is not a picture that can be read" in (answer := said(tmp_path / "broken")) and "take it out of the folder" in answer


# The example


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits") / "small"
    assert digits.main(["--small", "--generated", "60", "--output-dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_finetune_forgets_the_first_digits_and_replay_keeps_them(small: Path) -> None:
    figures = {(row["method"], row["figure"]): float(row["mean"]) for row in rows_of(small / "summary.csv")}
    learned = {(row["method"], row["class"]): float(row["share"]) for row in rows_of(small / "quality.csv") if row["stage"] == "1"}
    ended = {(row["method"], row["class"]): float(row["share"]) for row in rows_of(small / "quality.csv") if row["stage"] == "2"}
    for digit in "01":
        assert min(learned[method, digit] for method in ("finetune", "replay", "trust-region")) > 0.6
        assert ended["finetune", digit] < 0.3 and ended["replay", digit] > 0.5
    assert figures["finetune", "share_lost"] > figures["replay", "share_lost"] + 0.25
    assert figures["finetune", "distance_gained"] > figures["replay", "distance_gained"] + 2
    assert figures["trust-region - replay", "share"] == pytest.approx(figures["trust-region", "share"] - figures["replay", "share"])


@pytest.mark.slow
def test_the_tables_and_pictures_are_whole(small: Path) -> None:
    assert len(rows_of(small / "quality.csv")) == 3 * (2 + 4)
    fisher = rows_of(small / "fisher.csv")
    assert [(row["method"], row["stage"]) for row in fisher] == [("trust-region", "1"), ("trust-region", "2")]
    assert all(0 <= float(row["rank1_error"]) < 1.5 for row in fisher)
    for name in ("images.png", "curves.png"):
        with Image.open(small / name) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape[0] > 300 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert digits.main(["--small", "--output-dir", str(small)]) == 2  # results are not written over unasked


@pytest.mark.slow
def test_a_model_that_was_saved_generates_the_same_images(small: Path) -> None:
    model = DiffusionPolicy.load(small / "models" / "replay-seed-0")
    assert model.observation_size == 0 and model.tasks == tuple("0123")
    judge = image_quality.ImageJudge(image_classes.digits().first(4))
    ended = {row["class"]: float(row["distance"]) for row in rows_of(small / "quality.csv") if (row["method"], row["stage"]) == ("replay", "2")}
    for label, name in enumerate(model.tasks):
        assert judge.quality(digits.generate(model, label, 60, seed=0), label).distance == ended[name]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_one_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(digits, "STRUCTURE_DRAWS", 16)
    classes = image_classes.digits().first(2)
    judge, stages = image_quality.ImageJudge(classes), [[0], [1]]

    def run(seed: int) -> Any:
        config = digits.Digits(small=True)._config("trust-region", seed, classes.rows)
        train = replace(config.train, updates=8)
        return digits.learn_classes(replace(config, train=train), stages, classes, judge, generated=6)

    first, again, other = run(0), run(0), run(1)
    assert first.rows == again.rows != other.rows and first.fisher == again.fisher
    assert list(first.shown) == [(1, 0), (2, 0), (2, 1)]
    assert all(torch.equal(first.shown[place], again.shown[place]) for place in first.shown)


@pytest.mark.slow
def test_a_folder_of_coloured_images_is_learned(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    words = ["--images", str(write_images(tmp_path / "images")), "--size", "4", "--colour", "--small", "--classes-per-stage", "1"]
    assert digits.main([*words, "--methods", "replay", "--output-dir", str(tmp_path / "out")]) == 0
    last = {row["class"]: float(row["share"]) for row in rows_of(tmp_path / "out" / "quality.csv") if row["stage"] == "2"}
    assert set(last) == {"blue", "red"} and min(last.values()) > 0.8


def test_what_cannot_be_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, answer in ((["--methods", "replai"], "did you mean 'replay'"), (["--methods", "single"], "leave it out"),
                          (["--classes-per-stage", "0"], "at least 1")):  # fmt: skip
        assert digits.main([*words, "--output-dir", str(tmp_path / "out")]) == 2
        assert answer in capsys.readouterr().err
    pytest.importorskip("sklearn")
    assert digits.main(["--updates", "0", "--output-dir", str(tmp_path / "out")]) == 2
    assert "train.updates is 0" in capsys.readouterr().err
