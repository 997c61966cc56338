"""The published denoiser, a U-Net along the action sequence, without the work that cannot matter.

Dead taps. Deep in the U-Net the sequence is shorter than the kernel, and the outer taps never meet it:

    length 2, kernel 5, padding 2      input     .  .  x0 x1 .  .       . is padding
                                       output 0  0  1  2  3  4
                                       output 1     0  1  2  3  4

Taps 0 and 4 only ever multiply padding and never get a gradient; taps 1 to 3 with padding 1 give the same outputs. Every
convolution holds its live taps alone. `full_parameter_count` is the size of the form with all taps, which the papers state.

Conditioning. FiLM's linear layer acts on time and condition side by side, so it is the sum of two halves. In sampling the
condition is that of the query and the timestep that of all rows:

    prepared = unet.embed_condition(condition)              once per query, (B, C)
    noise = unet.denoise(noisy, timestep, prepared)         once per step, timestep (1,) for all rows or (B,)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from reconverge.policy.config import UnetConfig

FEW_ROWS = 31
"""Batch x length up to which a convolution on a CPU is made as one matrix product, which is faster up to 64. Its last bits differ, so rollouts, whose
batches have at least 32 rows, must not meet both."""


def sinusoidal_features(timestep: Tensor, count: int) -> Tensor:
    """(B,) -> (B, count): sines and cosines at geometrically spaced frequencies from 1 to 1/10,000."""
    frequencies = torch.exp(torch.arange(count // 2, device=timestep.device) * (-math.log(10_000) / (count // 2 - 1)))
    angles = timestep[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConditionalUnet1D(nn.Module):
    """(noisy chunk (B, H, Da), timestep (B,), condition (B, C)) -> predicted noise (B, H, Da), with FiLM and self-attention.

    Two residual blocks per level. Attention stands after the second and third level of the way down and in
    the bottleneck, as in arXiv 2602.02417. H must be divisible by 2 ** (levels - 1).
    """

    def __init__(self, config: UnetConfig, horizon: int, action_size: int, condition_size: int) -> None:
        super().__init__()
        levels = len(config.channels)
        if horizon % 2 ** (levels - 1):
            raise ValueError(f"horizon {horizon} must be divisible by {2 ** (levels - 1)} for a U-Net of {levels} levels")
        lengths = [horizon >> level for level in range(levels)]
        features = config.timestep_features
        self.timestep_features = features
        self.embed_time = nn.Sequential(nn.Linear(features, 4 * features), nn.Mish(), nn.Linear(4 * features, features))

        def block(inputs: int, outputs: int, length: int) -> _FiLMBlock:
            return _FiLMBlock(inputs, outputs, length, features, condition_size, config.kernel, config.groups)

        def attention(channels: int) -> nn.Module:
            return _SelfAttention(channels, config.attention_heads, config.groups) if config.attention_heads else nn.Identity()

        widths = [action_size, *config.channels]
        self.down = nn.ModuleList()
        for level, (length, (inputs, outputs)) in enumerate(zip(lengths, pairwise(widths), strict=True)):
            halve = _Conv(outputs, outputs, 3, length, stride=2) if level < levels - 1 else nn.Identity()
            attend = attention(outputs) if level > 0 else nn.Identity()
            self.down.append(nn.ModuleList([block(inputs, outputs, length), block(outputs, outputs, length), attend, halve]))

        deepest, length = config.channels[-1], lengths[-1]
        self.middle = nn.ModuleList([block(deepest, deepest, length), attention(deepest), block(deepest, deepest, length)])

        self.up = nn.ModuleList()
        for length, inputs, outputs in zip(lengths[:0:-1], config.channels[:0:-1], config.channels[-2::-1], strict=True):
            double = _DoublingConv(outputs, length)
            self.up.append(nn.ModuleList([block(2 * inputs, outputs, length), block(outputs, outputs, length), double]))
        first = config.channels[0]
        self.write = nn.Sequential(_ConvNormMish(first, first, horizon, config.kernel, config.groups), _Conv(first, action_size, 1, horizon))

    @property
    def full_parameter_count(self) -> int:
        """Parameters of the same network with all taps, live and dead: the published figure."""
        dead = sum(conv.full_shape.numel() - conv.weight.numel() for _, conv in _convolutions(self))
        return dead + sum(parameter.numel() for parameter in self.parameters())

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.denoise(noisy, timestep, self.embed_condition(condition))

    def embed_condition(self, condition: Tensor) -> Tensor:
        """The condition's half of every FiLM layer, side by side, for `denoise`: (B, C) -> (B, 2 x channels of all blocks)."""
        return torch.cat([film.condition_half(condition) for film in self._films()], dim=-1)

    def denoise(self, noisy: Tensor, timestep: Tensor, prepared: Tensor) -> Tensor:
        """(B, H, Da), a timestep per row (B,) or for all rows (1,), what `embed_condition` gave -> predicted noise (B, H, Da)."""
        time = self.embed_time(sinusoidal_features(timestep, self.timestep_features).to(noisy.dtype))
        halves = [film.time_half(time) for film in self._films()]
        films = iter((prepared + torch.cat(halves, dim=-1)).split([half.shape[-1] for half in halves], dim=-1))
        stream, skips = noisy.transpose(1, 2), []
        for first, second, attend, halve in self._levels(self.down):
            stream = attend(second(first(stream, next(films)), next(films)))
            skips.append(stream)
            stream = halve(stream)
        enter, attend, leave = self.middle
        stream = leave(attend(enter(stream, next(films))), next(films))
        for first, second, double in self._levels(self.up):
            stream = torch.cat([stream, skips.pop()], dim=1)
            stream = double(second(first(stream, next(films)), next(films)))
        return self.write(stream).transpose(1, 2)

    def _films(self) -> Iterator[_FiLM]:
        """In the order of `denoise`."""
        return (module for module in self.modules() if isinstance(module, _FiLM))

    @staticmethod
    def _levels(levels: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
        return (list(level.children()) for level in levels)


def live_range(length: int, kernel: int, stride: int, padding: int) -> slice:
    """The taps of a convolution that meet its sequence: tap j of output i reads input i * stride + j - padding.

    A transposed convolution writes where its adjoint reads: pass the length of its output.
    """
    outputs = (length + 2 * padding - kernel) // stride + 1
    live = [tap for tap in range(kernel) if any(0 <= i * stride + tap - padding < length for i in range(outputs))]
    return slice(live[0], live[-1] + 1)


def _convolutions(unet: nn.Module) -> Iterator[tuple[str, _Conv | _DoublingConv]]:
    return ((name, module) for name, module in unet.named_modules() if isinstance(module, _Conv | _DoublingConv))


class _Conv(nn.Conv1d):
    """A convolution over sequences of one length, padded by kernel // 2, that holds its live taps only.

    Attributes:
        live: the taps held, among those of the full kernel.
        full_shape: shape of the weight with all taps, from which the initial weights are cut.
        margin: padding on either side that the live taps need.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, length: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.live, self.full_shape = live_range(length, kernel, stride, kernel // 2), self.weight.shape
        self.margin = kernel // 2 - self.live.start
        _keep_live_taps(self)

    def forward(self, stream: Tensor) -> Tensor:
        if not _has_few_rows(stream):
            return super().forward(stream)
        padded = pad(stream, (self.margin, self.margin)).transpose(1, 2)  # (B, length, C)
        kernel, (stride,) = self.weight.shape[-1], self.stride
        starts = padded.shape[1] - kernel + 1
        windows = torch.stack([padded[:, tap : starts + tap : stride] for tap in range(kernel)], dim=-1)  # (B, outputs, C, kernel)
        return linear(windows.flatten(2), self.weight.flatten(1), self.bias).transpose(1, 2)


class _DoublingConv(nn.ConvTranspose1d):
    """The transposed convolution that doubles a sequence of one length, with its live taps only; attributes as in `_Conv`."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__(channels, channels, kernel_size=4, stride=2, padding=1)
        self.live, self.full_shape = live_range(2 * length, kernel=4, stride=2, padding=1), self.weight.shape
        self.margin = 1 - self.live.start
        _keep_live_taps(self)

    def forward(self, stream: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not _has_few_rows(stream):
            return super().forward(stream, output_size)
        kernel, length = self.weight.shape[-1], 2 * stream.shape[2]
        added = linear(stream.transpose(1, 2), self.weight.flatten(1).T).unflatten(2, (-1, kernel))  # what each input adds to the output
        added = added.transpose(1, 2)  # (B, C, length, kernel); taps 2 and 3 of an input meet taps 0 and 1 of the next
        output = sum(pad(added[..., tap : tap + 2].flatten(2), (tap, kernel - 2 - tap)) for tap in range(0, kernel, 2))
        assert isinstance(output, Tensor) and self.bias is not None
        return output[..., self.margin : self.margin + length] + self.bias[:, None]


def _keep_live_taps(conv: _Conv | _DoublingConv) -> None:
    conv.weight = nn.Parameter(conv.weight.detach()[..., conv.live].clone())
    conv.kernel_size, conv.padding = (conv.weight.shape[-1],), (conv.margin,)


def _has_few_rows(stream: Tensor) -> bool:
    if torch.compiler.is_compiling():  # a graph that is exported serves any number of rows
        return False
    return stream.device.type == "cpu" and stream.shape[0] * stream.shape[2] <= FEW_ROWS


class _ConvNormMish(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, length: int, kernel: int, groups: int) -> None:
        super().__init__(_Conv(inputs, outputs, kernel, length), nn.GroupNorm(groups, outputs), nn.Mish())


class _FiLMBlock(nn.Module):
    """Two convolutions; the modulation (B, 2 x outputs) scales and shifts every channel between them."""

    def __init__(self, inputs: int, outputs: int, length: int, time_size: int, condition_size: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = _ConvNormMish(inputs, outputs, length, kernel, groups)
        self.second = _ConvNormMish(outputs, outputs, length, kernel, groups)
        self.film = _FiLM(time_size, condition_size, 2 * outputs)
        self.skip = _Conv(inputs, outputs, 1, length) if inputs != outputs else nn.Identity()

    def forward(self, stream: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = modulation[..., None].chunk(2, dim=1)
        return self.second(self.first(stream) * scale + shift) + self.skip(stream)


class _FiLM(nn.Sequential):
    """Linear(Mish(cat(time, condition))) as the sum of its halves: W_t Mish(time) and W_c Mish(condition) + b."""

    def __init__(self, time_size: int, condition_size: int, outputs: int) -> None:
        super().__init__(nn.Mish(), nn.Linear(time_size + condition_size, outputs))
        self.time_size = time_size

    def time_half(self, time: Tensor) -> Tensor:
        mish, both = self
        assert isinstance(both, nn.Linear)
        return linear(mish(time), both.weight[:, : self.time_size])

    def condition_half(self, condition: Tensor) -> Tensor:
        mish, both = self
        assert isinstance(both, nn.Linear)
        return linear(mish(condition), both.weight[:, self.time_size :], both.bias)


class _SelfAttention(nn.Module):
    """Multi-head self-attention along the sequence, with a residual connection.

    The paper gives the number of heads and the parameter count of the whole network, not the normalisation.
    One norm before and one after the attention make the count agree: 83.27 M.
    """

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.norm_attended = nn.LayerNorm(channels)
        self.read = nn.Linear(channels, 3 * channels)
        self.write = nn.Linear(channels, channels)

    def forward(self, stream: Tensor) -> Tensor:
        batch, channels, length = stream.shape
        parts = self.read(self.norm(stream).transpose(1, 2).contiguous()).view(batch, length, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative, which the Fisher needs
            attended = scaled_dot_product_attention(query, key, value)
        attended = self.norm_attended(attended.transpose(1, 2).reshape(batch, length, channels))
        return stream + self.write(attended).transpose(1, 2)
