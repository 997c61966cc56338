"""What doctor tries in a process of its own, because it loads native libraries: each trial returns plain values.

    python -c "from reconverge.launch.doctor_trials import answer; answer('golden')"      prints them as one line of JSON
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from statistics import median
from typing import Any

MEASURED_FOR_S = 1.0


def answer(trial: str, *words: str) -> None:
    """Run one of `TRIALS` and print what it returns."""
    print(json.dumps(TRIALS[trial](*words)))


def golden() -> dict[str, Any]:
    """The golden episodes played here: how they compare, and how long their steps took, with models compiled and episodes reset."""
    from reconverge.envs.golden_episodes import compare, play, read_golden

    recorded = read_golden().episodes
    started_s = time.perf_counter()
    played = list(play())
    spent_s = time.perf_counter() - started_s
    return {**asdict(compare(recorded, played)), "seconds": spent_s, "steps": sum(episode.steps for episode in played)}


def renderer(back_end: str) -> dict[str, Any]:
    """Draw a picture off-screen; `by` is what OpenGL calls itself."""
    from reconverge.envs.rendering import draw_probe

    draw_probe(back_end)
    return {"by": _opengl_name()}


def torch() -> dict[str, Any]:
    """Which device torch would use, its threads, and how many updates of a network of the default size it makes per second.

    Forward, backward and AdamW step, batch 256 + 256.
    """
    import torch as library

    layers = [layer for _ in range(6) for layer in (library.nn.Linear(256, 256), library.nn.SiLU())]
    network, batch = library.nn.Sequential(*layers), library.zeros(512, 256)
    optimizer = library.optim.AdamW(network.parameters())

    def update() -> None:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()

    update()
    took_s: list[float] = []
    while sum(took_s) < MEASURED_FOR_S:
        started_s = time.perf_counter()
        update()
        took_s.append(time.perf_counter() - started_s)
    device = library.cuda.get_device_name() if library.cuda.is_available() else ""
    return {"cuda": device, "threads": library.get_num_threads(), "updates_per_s": 1.0 / median(took_s)}


def _opengl_name() -> str:
    try:
        from OpenGL import GL

        name: Any = GL.glGetString(GL.GL_RENDERER)
    except Exception:  # a decoration: the picture was drawn
        return ""
    return name.decode(errors="replace") if isinstance(name, bytes) else ""


TRIALS: dict[str, Any] = {"golden": golden, "renderer": renderer, "torch": torch}
