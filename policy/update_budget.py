"""How far each module of the network may move in a stage, from how the new task agrees with the last one.

Published (arXiv 2602.20796, algorithm 1): on arrival of a task, compare its gradient with the last task's; an unrelated task gets more
trainable modules, a related one fewer. Threshold, counts and schedule are not published, and at the end of a stage that
stage's own gradient is noise. So what is compared here (ours) is what the last stage *did*:

    s_m = cos( g_new , theta_start - theta_end )        per module m; g_new: gradient of the new task's loss at the start,
                                                        theta_start - theta_end: minus the move that the last stage made

    s_m > 0   the new task wants to go on where the last one went: related, little budget
    s_m < 0   it wants to undo it:                          unrelated, much budget

    soft      rho_m = rho_min + (1 - rho_min) sigmoid(k (kappa - s_m))               multiplies every step of module m
    hard      a share rho of the modules is trained, from s of all parameters together; those with the most gradient
              per unit of old-task curvature, ||g_new,m||^2 / sum_i E||g_i,m||^2; the others are frozen

Worked example, rho_min = 0.2, k = 10, kappa = 0: s = 0.1 gives 0.2 + 0.8 sigmoid(-1) = 0.415; s = -0.1 gives 0.785.

Multiplying the step rather than the gradient matters: AdamW divides a scaled gradient by its own scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from reconverge.policy.config import UpdateBudgetConfig
from reconverge.policy.flat_parameters import FlatParameters

ROUNDING = 1e-6
"""A share of the modules that exceeds a whole number by no more than this is that number."""


def modules_of(parameters: FlatParameters) -> dict[str, slice]:
    """The network's modules as slices of the flat vector: the MLP's blocks and the U-Net's levels one by one, all else by its top name."""
    slices: dict[str, slice] = {}
    start = 0
    for name, shape in parameters.shapes.items():
        stop = start + torch.Size(shape).numel()
        one_by_one = re.match(r"(blocks|down|up)\.\d+", name)  # such as blocks.0 of blocks.0.layers.1.weight
        module = one_by_one[0] if one_by_one else name.partition(".")[0]
        slices[module] = slice(slices[module].start if module in slices else start, stop)
        start = stop
    return slices


def alignment(gradient: Tensor, move: Tensor, modules: Sequence[slice]) -> Tensor:
    """(M,) cosine of `gradient` (P,) with minus the `move` (P,) that the last stage made, per module; 0 where either vanishes."""
    return torch.stack([cosine_similarity(gradient[part], -move[part], dim=0, eps=1e-20) for part in modules])


def soft_budget(scores: Tensor, config: UpdateBudgetConfig, generator: torch.Generator) -> Tensor:
    """(M,) step multipliers in [rho_min, 1] from the modules' alignments (M,); the `random` control permutes them."""
    budget = _budget(scores, config)
    return budget[torch.randperm(len(budget), generator=generator)] if config.control == "random" else budget


def hard_budget(score: Tensor, gain: Tensor, config: UpdateBudgetConfig, generator: torch.Generator) -> Tensor:
    """(M,) of 0 and 1: how many are trained follows from `score` (), which from `gain` (M,); at least one."""
    least = math.ceil(config.least * len(gain) - ROUNDING)
    count = max(1, least, round(float(_budget(score, config)) * len(gain)))
    order = torch.randperm(len(gain), generator=generator) if config.control == "random" else gain.argsort(descending=True)
    budget = torch.zeros_like(gain)
    budget[order[:count]] = 1.0
    return budget


def _budget(scores: Tensor, config: UpdateBudgetConfig) -> Tensor:
    if config.control == "constant":
        scores = torch.full_like(scores, config.threshold)
    sign = -1.0 if config.control == "opposite" else 1.0
    return config.least + (1 - config.least) * torch.sigmoid(config.sharpness * (config.threshold - sign * scores))


def module_gains(gradient: Tensor, curvature: Tensor, modules: Sequence[slice]) -> Tensor:
    """(M,) squared gradient (P,) per unit of the earlier tasks' curvature (M,)."""
    squared = torch.stack([gradient[part].square().sum() for part in modules])
    return squared / curvature.clamp_min(torch.finfo(curvature.dtype).tiny)
