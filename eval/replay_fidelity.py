"""How real are replayed windows? Everything is measured beside the same figure of real windows that were held out.

A window is a point: its observations, normalised as the policy sees them and flattened, (D,).

    purity     share of windows whose nearest real window, among equally many of every task, is of their own task
    outside    share with any number outside the range that their task's real windows have shown
    distance   median distance to the nearest real window of their own task

Real windows overlap in time, so what is held out is held out by whole episodes: from the real windows of this comparison, not from the
policy's training. Tasks that look alike cannot be told apart by anybody, and each of D numbers may leave a range: the held-out windows
show how much of either is the data's own doing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 0.05  # a range is widened by this share of itself on either side
ROUNDING = 1e-3  # and by this much, in normalised units: a number that never varies has a range of zero
COMPARED_AT_ONCE = 256  # windows per matrix of distances


@dataclass(frozen=True)
class Fidelity:
    """Figures of some windows of one task; see the module's first lines."""

    purity: float
    outside: float
    distance: float


def fidelity(windows: Tensor, task: int, real: Tensor, real_task: Tensor) -> Fidelity:
    """Of `windows` (M, D), of one `task`, beside `real` windows (R, D) of the tasks `real_task` (R,)."""
    own = real[real_task == task]
    _, neighbour = nearest(windows, real)
    distance, _ = nearest(windows, own)
    return Fidelity(
        purity=float((real_task[neighbour] == task).float().mean()),
        outside=outside_share(windows, own),
        distance=float(distance.median()),
    )


def nearest(windows: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (M,) to and index (M,) of the nearest of `real` (R, D) for each of `windows` (M, D)."""
    parts = [torch.cdist(part, real, compute_mode="donot_use_mm_for_euclid_dist").min(1) for part in windows.split(COMPARED_AT_ONCE)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def outside_share(windows: Tensor, real: Tensor, margin: float = MARGIN) -> float:
    """Share of `windows` (M, D) with any number outside the range of that number in `real` (R, D), widened by the margin."""
    low, high = real.amin(0), real.amax(0)
    slack = margin * (high - low) + ROUNDING
    return float(((windows < low - slack) | (windows > high + slack)).any(1).float().mean())


def balanced(tables: dict[int, Tensor], limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Equally many windows of every task, at most `limit`, drawn without replacement: (R, D) and their tasks (R,)."""
    count = min(limit, *(len(windows) for windows in tables.values()))
    chosen = [windows[torch.randperm(len(windows), generator=generator)[:count].to(windows.device)] for windows in tables.values()]
    labels = torch.tensor(list(tables)).repeat_interleave(count)
    return torch.cat(chosen), labels.to(chosen[0].device)
