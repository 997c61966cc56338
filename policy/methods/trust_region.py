"""Trust-region continual learning (arXiv 2602.02417, equation 8): replay, and a penalty that stays near every optimum."""

from __future__ import annotations

import torch

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.hooks import Method
from reconverge.policy.methods.ewc import StayNear
from reconverge.policy.methods.replay import Rehearse, WindowSource


def trust_region(source: WindowSource, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("trust-region", (Rehearse(source), StayNear(config, size, device)))
