"""Networks that predict the noise in an action chunk.

Both map (noisy chunk (B, H, Da), diffusion timestep (B,), condition (B, C)) to the predicted noise (B, H, Da). A sampler asks
many times about one condition, so the same map comes in two steps:

    prepared = network.embed_condition(condition)           once per query
    noise = network.denoise(noisy, timestep, prepared)      once per denoising step, timestep (1,) for all rows or (B,)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from reconverge.policy.conditional_unet import ConditionalUnet1D, sinusoidal_features
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig


def build_denoiser(config: PolicyConfig, action_size: int, condition_size: int) -> ConditionalUnet1D | ResidualMLP:
    if config.denoiser == "unet":
        return ConditionalUnet1D(config.unet, config.horizon, action_size, condition_size)
    return ResidualMLP(config.mlp, config.horizon * action_size, condition_size)


class ResidualMLP(nn.Module):
    """A residual stream over the flattened chunk; the denoiser of choice on a CPU (0.85 M parameters in CW10)."""

    def __init__(self, config: ResidualMLPConfig, size: int, condition_size: int) -> None:
        super().__init__()
        self.timestep_features = config.timestep_features
        self.parts = (size, config.timestep_features, condition_size)
        self.read = nn.Linear(sum(self.parts), config.width)
        self.blocks = nn.ModuleList(_MLPBlock(config.width) for _ in range(config.blocks))
        self.write = nn.Sequential(nn.LayerNorm(config.width), nn.SiLU(), nn.Linear(config.width, size))

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.denoise(noisy, timestep, self.embed_condition(condition))

    def embed_condition(self, condition: Tensor) -> Tensor:
        """What the condition adds to the stream at its beginning, (B, width)."""
        return linear(condition, self.read.weight.split(self.parts, dim=1)[2], self.read.bias)

    def denoise(self, noisy: Tensor, timestep: Tensor, prepared: Tensor) -> Tensor:
        read_chunk, read_time, _ = self.read.weight.split(self.parts, dim=1)
        time = sinusoidal_features(timestep, self.timestep_features).to(noisy.dtype)
        stream = prepared + linear(time, read_time) + linear(noisy.flatten(1), read_chunk)
        for block in self.blocks:
            stream = block(stream)
        return self.write(stream).view(noisy.shape)


class _MLPBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.layers(stream)
