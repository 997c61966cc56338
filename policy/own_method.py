"""How a package of yours brings a continual-learning method: one object, named by an entry point (docs/own_method.md).

    [project.entry-points."reconverge.methods"]          in your pyproject.toml
    anchor = "own_anchor:METHOD"

    METHOD = OwnMethod(lambda source, config, parameters, device: Method("anchor", (Anchor(),)))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reconverge.envs.errors import ConfigError
from reconverge.policy.config import TrainConfig
from reconverge.policy.hooks import Method
from reconverge.policy.methods.replay import WindowSource

Make = Callable[[WindowSource | None, TrainConfig, int, torch.device], Method]


@dataclass(frozen=True)
class OwnMethod:
    """What the entry point names.

    Attributes:
        make: (source, settings of `train`, number P of parameters, device) -> the method, freshly made for one run. The source draws
            windows of earlier tasks; it is None for a method that does not replay.
        replays: whether a replay source is to be built, as `replay.source` says, and filled at the end of every stage.
    """

    make: Make
    replays: bool = False

    def made(self, name: str, source: WindowSource | None, config: TrainConfig, parameters: int, device: torch.device) -> Method:
        """The method `name`. Raises ConfigError where `make` gives none, or hooks whose arrays would overwrite each other in a checkpoint."""
        method = self.make(source, config, parameters, device)
        if not isinstance(method, Method):
            raise ConfigError(f"method '{name}': make returned {type(method).__name__}; a reconverge.policy.hooks.Method was expected")
        names = [hook.name for hook in method.hooks]
        # A hook's arrays lie in the checkpoint as NAME.ARRAY, beside `optimizer.`, `values` and `averaged`.
        unfit = [found for found in names if names.count(found) > 1 or found in ("optimizer", "values", "averaged") or "." in found]
        if unfit:
            raise ConfigError(f"method '{name}': a hook is named '{unfit[0]}'; give every hook a `name` of its own, without a dot")
        return method
