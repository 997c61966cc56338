"""AdamW on the flat parameter vector, with a learning rate that rises and falls within a stage."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from reconverge.policy.config import OptimizerConfig
from reconverge.policy.flat_parameters import FlatParameters


def make_optimizer(parameters: FlatParameters, config: OptimizerConfig, updates: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """A fresh optimizer and its schedule over `updates` updates; the gradient is read from `parameters.gradient`."""
    theta = torch.nn.Parameter(parameters.values)
    theta.grad = parameters.gradient
    optimizer = torch.optim.AdamW([theta], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    if config.schedule == "constant":
        return optimizer, LambdaLR(optimizer, lambda update: 1.0)
    return optimizer, LambdaLR(optimizer, lambda update: one_cycle(update, updates, config.warmup_fraction))


def one_cycle(update: int, updates: int, warmup_fraction: float) -> float:
    """Share of the peak learning rate before 0-based `update`: half a cosine up from 1/25, half a cosine down to 0."""
    warmup = warmup_fraction * updates
    if update < warmup:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * update / warmup)) / 2
    return (1 + math.cos(math.pi * min(1.0, (update - warmup) / max(updates - warmup, 1)))) / 2
