"""How good generated images of a class are: a Frechet distance to real ones, and the share that is taken for the class.

    frechet distance    |m - n|^2 + tr(S + R - 2 (S R)^(1/2))      of the Gaussians (m, S) and (n, R) of two sets of features

As in the FID (Heusel et al. 2017), with other features: those of the FID come from photographs. Here they are the first 16 principal
components of the real images that are learned, of all classes together. The unit is a squared difference of pixels in [-1, 1], summed over
the image.
Real images of a finite number are not at distance 0 from each other either: `ImageJudge.of_real` says what the learned ones get.

Worked example in one dimension: means 0 and 3, variances 1 and 4: 9 + 1 + 4 - 2 sqrt(4) = 10.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from image_classes import ImageClasses, MissingLibrary
from torch import Tensor

COMPONENTS = 16
NEIGHBOURS = 5


class Gaussian(NamedTuple):
    """mean (F,) and covariance (F, F)."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fitted(cls, features: np.ndarray) -> Gaussian:
        """To features (M, F), M > 1."""
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, >= 0; see the module's first lines."""
    # (S R)^(1/2) has the trace of (S^(1/2) R S^(1/2))^(1/2), which is symmetric.
    values, axes = np.linalg.eigh(first.covariance)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second.covariance @ root).clip(0)).sum()
    apart = np.square(first.mean - second.mean).sum()
    return max(0.0, float(apart + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared))


class Quality(NamedTuple):
    """Of images of one class: the share in [0, 1] that the classifier puts in it, and their Frechet distance to its held-out real images."""

    share: float
    distance: float


class ImageJudge:
    """Knows the real images: a classifier by the nearest held-out neighbours, and every class's held-out images as a Gaussian.

    Attributes:
        of_real: per class, the quality of the real images that are learned: what perfect generation would get, about.
        variance: share in [0, 1] of the learned images' variance that the features hold.
    """

    def __init__(self, real: ImageClasses) -> None:
        try:
            from sklearn.decomposition import PCA
            from sklearn.neighbors import KNeighborsClassifier
        except ImportError as missing:
            raise MissingLibrary('images are judged with scikit-learn: pip install -e ".[images]" in the clone of reconverge') from missing

        everything = np.concatenate([_flat(images) for images in real.learned])
        self._features = PCA(min(COMPONENTS, *everything.shape), svd_solver="full").fit(everything)
        self.variance = float(self._features.explained_variance_ratio_.sum())
        held_out = [_flat(images) for images in real.held_out]
        labels = np.repeat(np.arange(len(held_out)), [len(images) for images in held_out])
        self._classifier = KNeighborsClassifier(NEIGHBOURS).fit(np.concatenate(held_out), labels)
        self._real = [Gaussian.fitted(self._features.transform(images)) for images in held_out]
        self.of_real = [self.quality(images, label) for label, images in enumerate(real.learned)]

        sizes = ", ".join(f"{sum(map(len, halves))} images {word}" for halves, word in ((real.learned, "to learn"), (real.held_out, "held out")))
        self.description = (
            f"{len(real.names)} classes, {sizes}; Frechet distances in {self._features.n_components_} principal components, "
            f"which hold {100 * self.variance:.0f} % of the variance"
        )

    def quality(self, images: Tensor, label: int) -> Quality:
        """Of images (M, rows, columns x channels) that are meant to be of the class `label`."""
        flat = _flat(images)
        share = float((self._classifier.predict(flat) == label).mean())
        return Quality(share, frechet_distance(Gaussian.fitted(self._features.transform(flat)), self._real[label]))


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()
