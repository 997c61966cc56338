"""The chunk sampler as one ONNX graph, checked against the policy that it was made of.

    observations  (B, To, Do)   in the task's own units, the oldest first; the normaliser is inside the graph
    task          (B, T)        one-hot over the policy's tasks; absent where the policy is not told its task
    noise         (B, H, Da)    standard normal; the same noise gives the same actions
        -> actions (B, Ha, Da)  in [-1, 1], to be executed;  chunk (B, H, Da), all that was predicted

All denoising steps are unrolled into the graph, so that a controller asks once per chunk; B is free. `ddpm` draws noise on the way and
has no such form.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from reconverge.envs.errors import ConfigError, ReconvergeError
from reconverge.envs.optional_library import need_libraries
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream

if TYPE_CHECKING:
    import onnxruntime

TOLERANCE = 1e-4
"""Largest difference of an action from the policy's own that is let pass."""
PARITY_ROWS = 256
PAIRS = 300
"""Queries that are timed, of torch and of onnxruntime in turn."""


@dataclass(frozen=True)
class Parity:
    """What a graph gives beside the policy.

    Attributes:
        difference: largest absolute difference of an action, over `rows` queries of all tasks.
        torch_s, onnx_s: median seconds of one query (B = 1) on one thread, taken in turn.
        times_as_fast: quartiles of torch's seconds over onnxruntime's, pair by pair: lower, median, upper.
    """

    difference: float
    rows: int
    torch_s: float
    onnx_s: float
    times_as_fast: tuple[float, float, float]


class ChunkSampler(nn.Module):
    """The policy's sampler as a function of its noise."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, *told_and_noise: Tensor) -> tuple[Tensor, Tensor]:
        policy, told, noise = self.policy, told_and_noise[0] if len(told_and_noise) == 2 else None, told_and_noise[-1]
        prepared = policy.denoiser.embed_condition(policy.condition_told(observations, told))
        chunk = policy.diffusion.denoised(lambda noisy, timestep: policy.denoiser.denoise(noisy, timestep, prepared), noise)
        return policy.executed(chunk), chunk


def onnx_graph(policy: DiffusionPolicy) -> bytes:
    """The graph, serialised. Raises ConfigError for `ddpm`, MissingLibrary where the optional packages are missing."""
    if policy.config.sampler == "ddpm":
        raise ConfigError("sampler ddpm draws noise on the way, which no graph can; export with --sampler ddim or --sampler dpm-solver++")
    need_libraries(["onnx", "onnxscript", "onnxruntime"], "--format onnx", "onnx")
    sampler = ChunkSampler(policy.clone().eval())
    inputs, names = _queries(policy, rows=3, seed=0), input_names(policy)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            sampler, inputs, dynamo=True, verbose=False, input_names=names, output_names=["actions", "chunk"],
            dynamic_shapes=_batch_is_free(len(inputs), batch),
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    for key, value in (("tasks", "\n".join(policy.tasks)), ("executed", str(policy.config.executed)), ("made by", "reconverge export")):
        graph.metadata_props.add(key=key, value=value)
    return bytes(graph.SerializeToString())


def input_names(policy: DiffusionPolicy) -> list[str]:
    return ["observations", "task", "noise"] if policy.config.task_conditioned else ["observations", "noise"]


def check_parity(policy: DiffusionPolicy, graph: bytes) -> Parity:
    """Ask both the same. Raises ReconvergeError where an action differs by more than `TOLERANCE`."""
    session, names = _session(graph), input_names(policy)
    sampler = ChunkSampler(policy).eval()
    queries = _queries(policy, PARITY_ROWS, seed=1)
    with torch.no_grad():
        expected = sampler(*queries)[1].numpy()
    found = session.run(["chunk"], _fed(names, queries))[0]
    difference = float(np.abs(found - expected).max())
    if not difference < TOLERANCE:
        raise ReconvergeError(f"the ONNX graph's actions differ from the policy's by {difference:.2g}, more than {TOLERANCE:g}; nothing was written")
    torch_s, onnx_s = _timed(sampler, session, names, _queries(policy, 1, seed=2))
    low, middle, high = statistics.quantiles([own / other for own, other in zip(torch_s, onnx_s, strict=True)], n=4)
    return Parity(difference, PARITY_ROWS, statistics.median(torch_s), statistics.median(onnx_s), (low, middle, high))


def _timed(
    sampler: ChunkSampler, session: onnxruntime.InferenceSession, names: list[str], query: Sequence[Tensor]
) -> tuple[list[float], list[float]]:
    """Seconds of every query of (torch, onnxruntime). In turn, so that whatever else the machine does meets both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fed = _fed(names, query)
    asked: tuple[Callable[[], Any], ...] = (lambda: sampler(*query), lambda: session.run(["chunk"], fed))
    seconds: tuple[list[float], list[float]] = ([], [])
    try:
        with torch.inference_mode():
            for pair in range(PAIRS + 20):
                for ask, spent in zip(asked, seconds, strict=True):
                    began = time.perf_counter()
                    ask()
                    if pair >= 20:  # the first are warm-up
                        spent.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds


def _queries(policy: DiffusionPolicy, rows: int, seed: int) -> tuple[Tensor, ...]:
    """Observations over the normaliser's range and beyond it, every task in turn, noise."""
    generator, config = torch_stream("onnx", seed), policy.config
    spread = 2 * torch.randn(rows, config.window, policy.observation_size, generator=generator)
    observations = policy.normalizer.centre + policy.normalizer.scale * spread
    told = nn.functional.one_hot(torch.arange(rows) % len(policy.tasks), len(policy.tasks)).float()
    noise = torch.randn(rows, config.horizon, policy.action_size, generator=generator)
    return (observations, told, noise) if config.task_conditioned else (observations, noise)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch says about its own exporter, and about packages that it can do without."""
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        said.setLevel(level)


def _batch_is_free(inputs: int, batch: Any) -> tuple[Any, ...]:
    """One entry per argument of `forward`, of which the second gathers all the others."""
    return {0: batch}, tuple({0: batch} for _ in range(inputs - 1))


def _fed(names: Sequence[str], query: Sequence[Tensor]) -> dict[str, np.ndarray]:
    return {name: part.numpy() for name, part in zip(names, query, strict=True)}


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def how_to_load(policy: DiffusionPolicy, parity: Parity) -> str:
    """For the card."""
    config, task = policy.config, "task" if policy.config.task_conditioned else ""
    told = f'"task": np.eye({len(policy.tasks)}, dtype=np.float32)[[0]],  # (B, {len(policy.tasks)}): {", ".join(policy.tasks)}\n    ' if task else ""
    return f"""```python
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("policy.onnx")
actions, chunk = session.run(None, {{
    "observations": np.zeros((1, {config.window}, {policy.observation_size}), np.float32),  # (B, To, Do), the oldest first
    {told}"noise": np.random.default_rng(0).standard_normal((1, {config.horizon}, {policy.action_size}), np.float32),
}})
```

`actions` ({config.executed} steps) are to be executed before the next query, `chunk` is all that was predicted ({config.horizon} steps);
both in [-1, 1]. At the start of an episode the first observation stands {config.window} times. The normaliser is inside the graph, all
{config.sampling_steps} denoising steps are unrolled, B is free. Compared with the policy in torch over {parity.rows} queries: largest
difference of an action {parity.difference:.2g}."""
