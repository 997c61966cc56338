"""Trust-region continual learning (arXiv 2602.02417): replay, and a penalty (equation 8) or a radius (equation 6) around every optimum."""

from __future__ import annotations

import torch

from reconverge.policy.config import TrainConfig
from reconverge.policy.hooks import Method
from reconverge.policy.methods.ewc import trust_region_hook
from reconverge.policy.methods.replay import WindowSource, replay


def trust_region(source: WindowSource, config: TrainConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("trust-region", (*replay(source, config).hooks, trust_region_hook(config.trust_region, size, device)))
