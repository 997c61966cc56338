"""The U-Net in its published form: PyTorch's own convolutions with whole kernels, of which some taps only ever meet padding."""

from __future__ import annotations

import copy

from torch import nn

from reconverge.policy.conditional_unet import ConditionalUnet1D, _Conv, _DoublingConv


def with_all_taps(unet: ConditionalUnet1D) -> ConditionalUnet1D:
    """A copy that computes the same; random numbers stand at the taps that `unet` leaves out."""
    full = copy.deepcopy(unet)
    for parent in list(full.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _Conv | _DoublingConv):
                outputs, inputs, kernel = child.full_shape
                whole: nn.Conv1d | nn.ConvTranspose1d
                if isinstance(child, _Conv):
                    whole = nn.Conv1d(inputs, outputs, kernel, child.stride[0], padding=kernel // 2)
                else:
                    whole = nn.ConvTranspose1d(outputs, inputs, kernel, stride=2, padding=1)
                whole.to(child.weight.dtype)
                whole.weight.data[..., child.live] = child.weight.data
                whole.bias = child.bias
                setattr(parent, name, whole)
    return full
