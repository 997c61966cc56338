"""AdamW on the flat parameter vector, with a learning rate that rises and falls within a stage."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from reconverge.policy.config import OptimizerConfig
from reconverge.policy.flat_parameters import FlatParameters


def make_optimizer(parameters: FlatParameters, config: OptimizerConfig, updates: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """A fresh optimizer and its schedule over `updates` updates; the gradient is read from `parameters.gradient`."""
    theta = torch.nn.Parameter(parameters.values)
    theta.grad = parameters.gradient
    optimizer = torch.optim.AdamW([theta], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    if config.schedule == "constant":
        return optimizer, LambdaLR(optimizer, lambda update: 1.0)
    # One step more than updates: the schedule is asked for a rate once after the last one.
    return optimizer, OneCycleLR(
        optimizer, config.learning_rate, total_steps=updates + 1, pct_start=config.warmup_fraction, cycle_momentum=False
    )
