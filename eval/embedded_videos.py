"""A run's videos inside its page, as data URIs, as long as there is room."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconverge.eval.plain_picture import read_picture
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class Video:
    title: str
    source: str
    poster: str = ""


def embedded_videos(run: RunResults, limit_bytes: int) -> dict[str, Any]:
    """The grid and then the single cells, latest stage first, as data URIs until the limit is reached; the rest by name."""
    folder, cells, left_out, room = run.folder / "videos", [], [], limit_bytes
    grid = None
    paths = [folder / "grid.mp4", *sorted(folder.glob("stage-*.mp4"), reverse=True)]
    for path in (path for path in paths if path.is_file()):
        size = path.stat().st_size * 4 // 3
        if size > room:
            left_out.append(path.name)
            continue
        room -= size
        video = Video(path.stem.replace("stage-", "stage ").replace("-v3", ""), _data_uri(path.read_bytes(), "video/mp4"), _poster(path))
        if path.name == "grid.mp4":
            grid = video
        else:
            cells.append(video)
    return {"grid": grid, "cells": cells, "left_out": left_out, "folder": str(folder)}


def _poster(video: Path) -> str:
    picture = video.with_suffix(".png")
    if not picture.is_file():
        return ""
    stream = io.BytesIO()
    read_picture(picture).save(stream, "JPEG", quality=82)
    return _data_uri(stream.getvalue(), "image/jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
