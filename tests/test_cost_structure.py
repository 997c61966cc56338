"""Where the speed comes from, guarded by counting work, never by timing it. The simulator's own counts: test_metaworld_start.py."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_learner import SMALL, Source, learner_of, train
from small_policy import random_windows, small_policy
from torch.utils._python_dispatch import TorchDispatchMode

from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import AT_ONCE, SMALLEST_BATCH, evaluation_starts, rollout
from reconverge.policy.config import PolicyConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import CHUNK, SPECTRUM_DRAWS, rank1_fisher
from reconverge.policy.matrix_products import exact_by_onednn
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.normalizer import Normalizer


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str], Counter[int]]:
    """Counts calls of a method by the rows of their first argument."""

    def watch(owner: object, name: str) -> Counter[int]:
        calls, original = Counter[int](), getattr(owner, name)

        def counted(first: torch.Tensor, *rest: object) -> object:
            calls[len(first)] += 1
            return original(first, *rest)

        monkeypatch.setattr(owner, name, counted)
        return calls

    return watch


def test_an_update_is_one_forward_pass_and_one_of_the_teacher_for_the_replayed_half(count: Callable[[object, str], Counter[int]]) -> None:
    learner = train(learner_of(trust_region(Source(), SMALL, small_policy().parameter_count)), stages=1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 5)
    assert learner.teacher is not None
    own, teachers = count(learner.policy.denoiser, "denoise"), count(learner.teacher.denoiser, "denoise")
    learner.update()
    assert own == {32: 1} and teachers == {16: 1}


@pytest.mark.skipif(not exact_by_onednn(), reason="oneDNN is not there, or not float32, on this machine")
def test_the_products_of_an_update_go_to_onednn_and_those_of_the_penalty_do_not() -> None:
    learner = train(learner_of(trust_region(Source(), SMALL, small_policy().parameter_count)), stages=1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 5)
    region, seen = learner.method.hooks[1].region, []  # type: ignore[attr-defined]
    for part in learner.policy.denoiser.modules():
        part.register_forward_hook(lambda *_: seen.append(("forward", torch.backends.mkldnn.matmul.fp32_precision)))  # type: ignore[attr-defined]
    distances = region.distances

    def watched(theta: torch.Tensor) -> torch.Tensor:
        seen.append(("penalty", torch.backends.mkldnn.matmul.fp32_precision))  # type: ignore[attr-defined]
        return distances(theta)

    region.distances = watched
    learner.update()
    assert {("forward", "bf16"), ("penalty", "none")} == set(seen)


class LargeResults(TorchDispatchMode):
    """Counts the operations, by name, whose result has at least `size` numbers and is no view."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.names = size, Counter[str]()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        result = function(*given, **(named or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= self.size and not function.is_view:
            self.names[function.overloadpacket.__name__] += 1
        return result


def test_the_trust_region_adds_its_gradient_in_place_whatever_the_number_of_tasks() -> None:
    learner = train(learner_of(trust_region(Source(), SMALL, small_policy().parameter_count)), stages=2)
    region, gradient = learner.method.hooks[1].region, learner.parameters.gradient  # type: ignore[attr-defined]
    before, theta = gradient.clone(), learner.averaged + 0.01
    with LargeResults(len(gradient)) as made:
        region.add_gradient(theta, gradient)
    assert made.names == {"addmv_": 1} and not torch.equal(gradient, before) and len(region) == 2


def test_a_chunk_embeds_its_condition_once_and_denoises_with_one_timestep_for_all_rows(count: Callable[[object, str], Counter[int]]) -> None:
    policy = small_policy()
    conditions, steps = count(policy.denoiser, "embed_condition"), count(policy.denoiser, "denoise")
    windows = random_windows(5).all()
    policy.sample_chunk(windows.observations, windows.task, [torch.Generator().manual_seed(row) for row in range(5)])
    assert conditions == {5: 1} and steps == {5: policy.config.sampling_steps}


def test_tasks_are_evaluated_as_one_batch(count: Callable[[object, str], Counter[int]]) -> None:
    tasks = [find_task(f"point-reach-{number}") for number in range(3)]
    policy = DiffusionPolicy(PolicyConfig(), [task.name for task in tasks], 4, 2, Normalizer.for_task(tasks[0]), seed=0)
    batches = count(policy, "sample_chunk")
    with Simulators(0) as simulators:
        rollout(policy, evaluation_starts(tasks, 20), simulators)
        assert batches == {60: 8}  # 30 steps in chunks of 4
        rollout(policy, evaluation_starts(tasks[:1], 1), simulators)
    assert batches == {60: 8, SMALLEST_BATCH: 8} and AT_ONCE >= 500


def test_the_fisher_makes_two_passes_over_the_draws_and_holds_one_gradient_at_a_time() -> None:
    rows = Counter[int]()

    def losses(point: torch.Tensor, draws: tuple[torch.Tensor, ...]) -> torch.Tensor:
        rows[len(draws[0])] += 1
        return (draws[0] @ point).square()

    rank1_fisher(losses, torch.ones(3), (torch.randn(4 * CHUNK, 3),))
    assert rows == {CHUNK: 8, 1: SPECTRUM_DRAWS, SPECTRUM_DRAWS: SPECTRUM_DRAWS}
