"""Sampling an action chunk: a plain diffusers loop around the same network against `DiffusionPolicy.sample_chunk`.

The plain loop is handed its noise; ours draws it, one stream per row, within the time measured. Two networks: the residual MLP
of the default configuration with its own sampler, and the U-Net of the published shape (channels 256, 512, 1024) at fewer
steps than published, the same on both sides, because a step costs the same every time. The U-Net's peer has all its 83 M
parameters; ours leaves out the taps that only ever meet padding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import plain_diffusers
from benchmarks.full_unet import with_all_taps
from benchmarks.harness import Bench, Peer, Side, close
from benchmarks.policies import PAPER, random_windows, untrained
from reconverge.policy.conditional_unet import ConditionalUnet1D
from reconverge.policy.config import PolicyConfig, UnetConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream

BOUND = 1e-4  # of actions in [-1, 1]
UNET_STEPS = 3  # of the 50 published
SMALL_UNET = UnetConfig(channels=(16, 32), kernel=3, groups=4, timestep_features=16, attention_heads=2)


def run(bench: Bench) -> None:
    mlp = untrained(PolicyConfig()).clone()
    for batch in bench.pick((1, 50, 500), (1, 50, 500), (1, 3)):
        _compare(bench, "residual MLP", mlp, mlp, batch, share=0.5)
    unet = untrained(replace(PAPER, sampling_steps=UNET_STEPS, unet=bench.pick(PAPER.unet, PAPER.unet, SMALL_UNET))).clone()
    published = unet.clone()
    assert isinstance(unet.denoiser, ConditionalUnet1D)
    published.denoiser = with_all_taps(unet.denoiser)
    for batch in bench.pick((1, 50), (1, 50), (1, 3)):
        _compare(bench, "U-Net", unet, published, batch, share=2.0)


def _compare(bench: Bench, network: str, policy: DiffusionPolicy, plain: DiffusionPolicy, batch: int, share: float) -> None:
    scheduler = plain_diffusers.scheduler_of(plain)
    peer = Peer.of("diffusers", f"plain loop around diffusers' {type(scheduler).__name__}")
    windows = random_windows(policy.config, batch, task=0).all()
    noise, streams = noise_of(policy, batch), streams_of(batch)

    def theirs() -> Tensor:
        return plain_diffusers.sample_chunk(plain, scheduler, windows.observations, windows.task, noise)

    bench.compare(
        f"sample_chunk, {network}, batch {batch}, {policy.config.sampling_steps} steps",
        peer,
        lambda: close("chunks from the same noise", policy.sample_chunk(windows.observations, windows.task, streams_of(batch)), theirs(), BOUND),
        Side(lambda: policy.sample_chunk(windows.observations, windows.task, streams)),
        Side(theirs),
        unit="ms",
        kind="exact rewrite",
        share=share,
    )


def streams_of(batch: int) -> list[torch.Generator]:
    return [torch_stream("benchmark of sampling", row) for row in range(batch)]


def noise_of(policy: DiffusionPolicy, batch: int) -> Tensor:
    """What `sample_chunk` draws first from `streams_of(batch)`."""
    shape = (policy.config.horizon, policy.action_size)
    return torch.stack([torch.randn(shape, generator=stream) for stream in streams_of(batch)])
