"""Small images by class: scikit-learn's digits, or a folder with one sub-folder of PNG or JPEG files per class.

Pixels are in [-1, 1], black to white, and an image is (rows, columns x channels): its rows are what the steps of a chunk of actions are to
a robot policy. Every second image of a class is held out: it is never learned, and is what generated images are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reconverge.envs.errors import ConfigError, ReconvergeError
from reconverge.eval.plain_picture import read_picture
from reconverge.policy.windows import WindowBatch, WindowTable

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
FEWEST = 8  # images of a class: half are held out, and a spread is estimated from each half


class MissingLibrary(ReconvergeError, ImportError):
    """A library that only this example needs is not installed; the message gives the line that installs it."""


@dataclass(frozen=True)
class ImageClasses:
    """Images of several classes.

    Attributes:
        names: of the classes, in the order in which they are learned.
        learned, held_out: per class, images (M, rows, columns x channels) in [-1, 1].
        channels: 1 grey, 3 red, green, blue.
    """

    names: tuple[str, ...]
    learned: tuple[Tensor, ...]
    held_out: tuple[Tensor, ...]
    channels: int = 1

    @classmethod
    def of(cls, images: dict[str, Tensor], channels: int = 1) -> ImageClasses:
        return cls(tuple(images), tuple(each[0::2] for each in images.values()), tuple(each[1::2] for each in images.values()), channels)

    @property
    def rows(self) -> int:
        return self.learned[0].shape[1]

    @property
    def row_size(self) -> int:
        return self.learned[0].shape[2]

    def first(self, count: int) -> ImageClasses:
        """The first `count` classes only."""
        return replace(self, names=self.names[:count], learned=self.learned[:count], held_out=self.held_out[:count])

    def windows(self, classes: Sequence[int]) -> WindowTable:
        """The images of some classes as what a policy learns: the image is the action, the class is the task, nothing is observed."""
        images = torch.cat([self.learned[label] for label in classes])
        labels = torch.cat([torch.full((len(self.learned[label]),), label) for label in classes])
        return WindowTable(WindowBatch(torch.zeros(len(images), 1, 0), images, labels), torch.zeros(len(images)))


def digits() -> ImageClasses:
    """1,797 handwritten digits of 8 x 8 pixels, which are part of scikit-learn; dark ink on white."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise MissingLibrary('the digits are part of scikit-learn: pip install -e ".[images]" in the clone of reconverge') from missing

    found = load_digits()
    pixels = torch.from_numpy(1 - found.images / 8).float()
    labels = torch.from_numpy(found.target)
    return ImageClasses.of({str(digit): pixels[labels == digit] for digit in range(10)})


def from_folder(folder: Path, size: int, colour: bool) -> ImageClasses:
    """The classes are the sub-folders by name; every image is squeezed to `size` x `size` pixels.

    Raises ConfigError where there are no two classes or a class has too few images, DamagedFile for a file that is no image.
    """
    if size < 2:
        raise ConfigError(f"--size is {size}; an image needs at least 2 pixels a side")
    places = sorted(place for place in folder.iterdir() if place.is_dir()) if folder.is_dir() else []
    if len(places) < 2:
        raise ConfigError(f"--images {folder} holds {len(places)} sub-folders; put the images of every class into one of its own, at least two")
    files = {place.name: sorted(file for file in place.iterdir() if file.suffix.lower() in FORMATS) for place in places}
    for name, found in files.items():
        if len(found) < FEWEST:
            raise ConfigError(f"--images {folder}: class '{name}' has {len(found)} PNG or JPEG files; at least {FEWEST} are needed")
    images = {name: torch.stack([_read(file, size, colour) for file in found]) for name, found in files.items()}
    return ImageClasses.of(images, channels=3 if colour else 1)


def _read(file: Path, size: int, colour: bool) -> Tensor:
    picture = read_picture(file, (FORMATS[file.suffix.lower()],), "take it out of the folder")
    small = picture.convert("RGB" if colour else "L").resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, np.float32) / 127.5 - 1).reshape(size, -1)
