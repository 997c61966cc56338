"""Trust-region continual learning (arXiv 2602.02417): replay, and a penalty (equation 8) or a radius (equation 6) around every optimum."""

from __future__ import annotations

import torch

from reconverge.policy.config import TrustRegionConfig, Weighting
from reconverge.policy.hooks import Method
from reconverge.policy.methods.ewc import stay_near
from reconverge.policy.methods.replay import Rehearse, WindowSource


def trust_region(
    source: WindowSource, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu", weighting: Weighting = "fixed"
) -> Method:
    """`size` is P, the number of parameters."""
    return Method("trust-region", (Rehearse(source, weighting), stay_near(config, size, device)))
