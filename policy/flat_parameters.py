"""All parameters of a module as one vector.

The trust region, the moving average, gradient clipping, checkpoints and the optimizer all work on theta in R^P;
with the parameters laid out in one buffer each of them is a line.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """Moves a module's parameters into one buffer (P,); the module's tensors become views of it.

    Attributes:
        values: (P,) the parameters.
        gradient: (P,) their gradient; `backward` adds into it.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters.values()])
        self.gradient = torch.zeros_like(self.values)
        for (name, view), slot in zip(self.unflatten(self.values).items(), self.unflatten(self.gradient).values(), strict=True):
            parameters[name].data, parameters[name].grad = view, slot

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector (P,) with the names and shapes of the parameters."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        pieces = vector.split(sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def __len__(self) -> int:
        return self.values.numel()
