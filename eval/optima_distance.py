"""How far apart the optima of the stages lie (arXiv 2602.20796 ties forgetting to this distance)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def optima_distances(optima: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(K, K) distances ||theta_i* - theta_j*|| of K optima (P,) each, and the same as a share of ||theta_i*||."""
    distances = torch.tensor([[float((first - second).norm()) for second in optima] for first in optima])
    lengths = torch.tensor([float(optimum.norm()) for optimum in optima])
    return distances, distances / lengths[:, None]
