"""The rank-1 Fisher, mu and c, of the default policy: `rank1_fisher` against per-draw gradients.

    loop         one backward pass per draw into the network's own gradients (as mammoth's on-line EWC loops over samples)
    vmap(grad)   torch.func's per-sample gradients of the dictionary of parameters, 16 draws at a time

Both keep every gradient until mu is known, in a matrix that is made once, outside the time measured: making it anew costs more than
the gradients. 16 at a time was the fastest of 8, 16 and 64. Both are a few lines on top of torch and written here.
Ours also computes its health figures within the time measured.

Memory is the peak resident size (VmHWM of /proc/self/status, reset before the call through clear_refs; Linux) of a child process
that runs either the Fisher or plain inference of the same draws, in total and above what the process held before the call.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from benchmarks.harness import Bench, Equality, Peer, Side, relatively_close
from benchmarks.policies import random_windows, untrained
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import Draws, Rank1Fisher, denoising_draws, denoising_losses, rank1_fisher
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.random_streams import RandomStreams

BOUND = 1e-4
CHUNK = 16
DRAWS = 1024
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Problem:
    """A policy, its draws, and the room in which the peers keep all gradients, (n, P)."""

    def __init__(self, policy: DiffusionPolicy, count: int) -> None:
        self.policy, self.parameters = policy, FlatParameters(policy.denoiser)
        self.draws: Draws = denoising_draws(policy, random_windows(policy.config, 4096, task=0), count, RandomStreams(0, 1))
        self.losses = denoising_losses(policy, self.parameters)
        self.theta = self.parameters.values

    @cached_property
    def gradients(self) -> Tensor:
        return torch.zeros(len(self.draws[0]), len(self.theta))

    def draw(self, rows: slice) -> Draws:
        return tuple(part[rows] for part in self.draws)

    def ours(self) -> Rank1Fisher:
        return rank1_fisher(self.losses, self.theta, self.draws)


Estimator = Callable[[Problem], tuple[Tensor, float]]


def run(bench: Bench) -> None:
    problem = Problem(_policy(bench.size == "tiny"), bench.pick(DRAWS, DRAWS, 24))
    for name, estimator in ESTIMATORS.items():
        _compare(bench, problem, name, estimator)
    _memory(bench, _same_fisher(problem, by_vmap), len(problem.draws[0]))


def _compare(bench: Bench, problem: Problem, name: str, estimator: Estimator) -> None:
    bench.compare(
        f"rank-1 Fisher, {len(problem.draws[0])} draws, {len(problem.theta)} parameters",
        Peer.of("torch", name),
        lambda: _same_fisher(problem, estimator),
        Side(problem.ours),
        Side(lambda: estimator(problem)),
        unit="ms",
        kind="exact rewrite",
        share=2.5,
    )


def _policy(tiny: bool) -> DiffusionPolicy:
    return untrained(PolicyConfig(mlp=ResidualMLPConfig(16, 1, 8)) if tiny else PolicyConfig())


# The peers ---------------------------------------------------------------------------------------------------------------------


def by_loop(problem: Problem) -> tuple[Tensor, float]:
    gradient = problem.parameters.gradient  # the network's gradients are views of it
    for row, kept in enumerate(problem.gradients):
        gradient.zero_()
        _loss(problem.policy.denoiser, problem.policy, problem.draw(slice(row, row + 1))).backward()
        kept.copy_(gradient)
    return _mean_and_curvature(problem.gradients)


def by_vmap(problem: Problem) -> tuple[Tensor, float]:
    parameters = {name: value.detach() for name, value in problem.parameters.unflatten(problem.theta).items()}

    def loss(parameters: dict[str, Tensor], one: Draws) -> Tensor:
        network = partial(functional_call, problem.policy.denoiser, parameters)
        return _loss(lambda *inputs: network(inputs), problem.policy, tuple(part[None] for part in one))

    per_draw = vmap(grad(loss), in_dims=(None, 0))
    columns = problem.gradients.split([value.numel() for value in parameters.values()], dim=1)
    for start in range(0, len(problem.gradients), CHUNK):
        rows = slice(start, start + CHUNK)
        for kept, gradient in zip(columns, per_draw(parameters, problem.draw(rows)).values(), strict=True):
            kept[rows] = gradient.flatten(1)
    return _mean_and_curvature(problem.gradients)


ESTIMATORS: dict[str, Estimator] = {"per-draw loop of backward passes": by_loop, f"vmap(grad), {CHUNK} draws at a time": by_vmap}


def _loss(network: Callable[..., Tensor], policy: DiffusionPolicy, draws: Draws) -> Tensor:
    clean, condition, timestep, noise = draws
    return (network(policy.diffusion.add_noise(clean, noise, timestep), timestep, condition) - noise).square().mean()


def _mean_and_curvature(gradients: Tensor) -> tuple[Tensor, float]:
    """mu and c from all gradients, (n, P)."""
    mu = gradients.mean(0)
    return mu, float((gradients @ mu).double().square().mean() / mu.double().square().sum() ** 2)


def _same_fisher(problem: Problem, estimator: Estimator) -> Equality:
    fisher, (mu, curvature) = problem.ours(), estimator(problem)
    return relatively_close("mu", fisher.mu, mu, BOUND) & relatively_close("c", [fisher.curvature], [curvature], BOUND)


# Memory ------------------------------------------------------------------------------------------------------------------------


def _memory(bench: Bench, equality: Equality, count: int) -> None:
    benchmark, peer = "rank-1 Fisher, peak memory", Peer.of("torch", "inference of the same draws")
    if bench.size == "tiny":
        return bench.skip(benchmark, "measured in processes of their own, which the tiny size leaves out")
    if not CLEAR_REFS.exists():
        return bench.skip(benchmark, "needs Linux's /proc/self/clear_refs")
    fisher, inference = (_peak(what, count) for what in ("fisher", "inference"))
    bench.record_sizes(f"{benchmark} of the process", peer, fisher["peak_mb"], inference["peak_mb"], equality, unit="MB", kind="memory")
    bench.record_sizes(f"{benchmark} above the process before", peer, fisher["above_mb"], inference["above_mb"], equality, unit="MB", kind="memory")
    return None


def _peak(what: str, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.fisher", what, str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _child(what: str, count: int) -> None:
    """Run one of the two and print the peak of this process."""
    torch.set_num_threads(1)
    problem = Problem(_policy(tiny=False), count)
    with torch.no_grad():
        problem.losses(problem.theta, problem.draw(slice(2)))
    CLEAR_REFS.write_text("5")
    before = _status_mb("VmRSS")
    if what == "fisher":
        problem.ours()
    else:
        with torch.no_grad():
            problem.losses(problem.theta, problem.draws)
    peak = _status_mb("VmHWM")
    print(json.dumps({"peak_mb": peak, "above_mb": peak - before}))


def _status_mb(field: str) -> float:
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
