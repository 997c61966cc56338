"""Generated replay: windows per second of `TrajectoryGenerator.generate` against a plain diffusers loop over the same network.

Both draw the same windows of one task from the same noise in the same number of steps; the plain loop denoises all of them as one
batch and is handed its noise. Beside it, from the cost.json of a run (by default the measured run in results/), the share that
training the generator and making the pool has in the whole run.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks import plain_diffusers
from benchmarks.harness import Bench, Peer, Side, close
from benchmarks.policies import random_windows
from reconverge.envs.curriculum import CW10
from reconverge.envs.tasks import find_task
from reconverge.policy.config import PolicyConfig
from reconverge.policy.denoiser import sinusoidal_features
from reconverge.policy.random_streams import RandomStreams, torch_stream
from reconverge.replay.config import GeneratorConfig
from reconverge.replay.trajectory_generator import CLIP, TIME_FEATURES, TrajectoryGenerator
from reconverge.replay.window_code import WindowCode

MEASURED_RUN = Path(__file__).resolve().parent.parent / "results" / "cw10-one-pace" / "trust-region" / "seed-0"
TASK, WORDS = 3, (0, 4)
BOUND = 1e-3  # in the task's units: metres, mostly


def run(bench: Bench) -> None:
    count = bench.pick(2048, 512, 16)
    generator = _generator(updates=bench.pick(200, 50, 2))
    plain = PlainGenerator(generator)
    _, times = generator.generate(TASK, count, *WORDS)
    noise = plain.noise(count)
    bench.compare(
        f"generate {count} windows, {generator.config.sampling_steps} steps",
        Peer.of("diffusers", "plain loop around diffusers' DDIMScheduler"),
        lambda: close("windows from the same noise", generator.generate(TASK, count, *WORDS)[0], plain.generate(times, noise), BOUND),
        Side(lambda: generator.generate(TASK, count, *WORDS), items=count),
        Side(lambda: plain.generate(times, noise), items=count),
        unit="windows/s",
        kind="same maths",
    )
    _share_of_a_run(bench)


class PlainGenerator:
    """The generator's network, code and statistics within a plain diffusers loop."""

    def __init__(self, generator: TrajectoryGenerator) -> None:
        self.generator = generator
        self.scheduler = plain_diffusers.ddim(generator.config.timesteps, CLIP, "v_prediction")

    def noise(self, count: int) -> Tensor:
        """What `generate` denoises: a stream per window."""
        streams = [torch_stream("generated window", TASK, window, *WORDS) for window in range(count)]
        return torch.stack([torch.randn(self.generator.code.size, generator=stream) for stream in streams])

    @torch.no_grad()
    def generate(self, times: Tensor, noise: Tensor) -> Tensor:
        own = self.generator
        label = one_hot(torch.full((len(times),), TASK), own.tasks).float()
        condition = torch.cat([label, sinusoidal_features(100 * times, TIME_FEATURES)], dim=-1)
        standardised = plain_diffusers.sample(
            self.scheduler, lambda noisy, timestep: own.denoiser(noisy, timestep, condition), noise, own.config.sampling_steps
        )
        return own.code.decode(own.mean[TASK] + own.spread[TASK] * standardised.clamp(-CLIP, CLIP))


def _generator(updates: int) -> TrajectoryGenerator:
    """A generator that has learned a little of one task."""
    policy = PolicyConfig()
    code = WindowCode(find_task(CW10[0]).layout, policy.window)
    generator = TrajectoryGenerator(GeneratorConfig(updates=updates), code, len(CW10), seed=0)
    windows = random_windows(policy, 1024, TASK)
    generator.learn(TASK, windows.all().observations, windows.times, [], RandomStreams(0, 4))
    return generator


def _share_of_a_run(bench: Bench) -> None:
    benchmark = "train the generator and make the pool"
    path = (bench.run or MEASURED_RUN) / "cost.json"
    if not path.exists():
        return bench.skip(benchmark, f"{path.name} is not there; train with --method trust-region, or give a run with --run")
    cost = json.loads(path.read_text())["phases"]
    if "generator" not in cost:
        return bench.skip(benchmark, "the run trained no generator")
    spent, whole = cost["generator"] + cost.get("replay", 0.0), sum(cost.values())
    words = f"{100 * spent / whole:.1f} % of the {whole:.0f} s of the run"
    bench.inform(benchmark, Peer("none: a run's own phases", "cost.json"), "s", spent, None, words)
    return None
