"""A picture from a file that may be hostile: a PNG, of a size that a grid of videos has, whatever its header promises."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile

LARGEST_FILE = 32 * MIB
MOST_PIXELS = 16_000_000
"""Five times those of the largest grid. A few bytes of PNG can stand for a picture that fills the memory."""


def read_picture(path: Path, formats: Sequence[str] = ("PNG",), fix: str = "delete it and render the run again") -> Image.Image:
    """The picture in a file of one of the `formats`, in RGB. Raises DamagedFile, which names the `fix`, where there is none that can be read,
    or one that is far too large."""
    try:
        picture = Image.open(io.BytesIO(read_bounded(path, LARGEST_FILE)), formats=list(formats))
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"it has {picture.width} x {picture.height} pixels")
        return picture.convert("RGB")
    # SyntaxError: what Pillow calls a broken chunk.
    except (OSError, ValueError, SyntaxError, DamagedFile, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedFile(f"{path} is not a picture that can be read ({str(error)[:200]}); {fix}") from error
