from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
import torch
from small_policy import random_windows, small_policy

from reconverge.policy.config import OptimizerConfig, TrainConfig, TrustRegionConfig, UpdateBudgetConfig
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.adaptive import adaptive_trust_region
from reconverge.policy.methods.bounds import finetune, single
from reconverge.policy.methods.ewc import StayTrue, ewc
from reconverge.policy.methods.l2 import l2
from reconverge.policy.methods.mas import mas
from reconverge.policy.methods.meta_learning import vr_mcl
from reconverge.policy.methods.replay import replay
from reconverge.policy.methods.si import si
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.windows import WindowBatch

SMALL = TrainConfig(updates=5, batch_size=16, trust_region=TrustRegionConfig(draws=32))


class Source:
    """Windows of task 0, seen or not."""

    tasks = (0,)

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch:
        return random_windows(task=0, seed=9).draw(count, generator)


def learner_of(method: Method, config: TrainConfig = SMALL, seed: int = 0) -> Learner:
    return Learner(small_policy(seed=seed), method, config, seed)


def train(learner: Learner, stages: int = 2, updates: int = 5) -> Learner:
    for stage in range(1, stages + 1):
        learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), updates)
        for _ in range(updates):
            learner.update()
        learner.end_stage()
    return learner


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, again, other = (train(learner_of(finetune(), seed=seed)).parameters.values for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    torch.manual_seed(1)
    first = train(learner_of(replay(Source()))).parameters.values
    torch.manual_seed(2)
    assert torch.equal(first, train(learner_of(replay(Source()))).parameters.values)


def test_one_update_is_the_papers_objective() -> None:
    """The gradient that the learner steps along, against autograd of the objective written out."""
    size = small_policy().parameter_count
    learner = learner_of(trust_region(Source(), SMALL.trust_region, size))
    train(learner, stages=1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 5)
    for _ in range(3):
        learner.update()
    region = learner.method.hooks[1].region  # type: ignore[attr-defined]
    theta, policy, update = learner.parameters.values.clone(), learner.policy, learner.update_index + 1

    current = learner.windows.draw(16, learner.streams.generator("windows", update))
    replayed = Source().draw(16, learner.streams.generator("replay", update))
    both = WindowBatch.concatenate([current, replayed])
    timestep, noise = policy.diffusion.draw(tuple(both.actions.shape), learner.streams.generator("noise", update))
    noisy = policy.diffusion.add_noise(both.actions, noise, timestep)
    condition = policy.condition(both.observations, both.task)
    assert learner.teacher is not None
    target = torch.cat([noise[:16], learner.teacher.predict_noise(noisy, timestep, condition)[16:]]).detach()
    learner.parameters.gradient.zero_()
    error = (policy.predict_noise(noisy, timestep, condition) - target).square()
    (error[:16].mean() + error[16:].mean()).backward()
    expected = learner.parameters.gradient + region.gradient(theta)

    figures = learner.update()
    assert figures.penalty is not None and torch.isclose(figures.penalty, region.penalty(theta))
    assert torch.allclose(figures.gradient_norm, expected.norm(), rtol=1e-4)
    clipped = expected * min(1.0, 1 / float(expected.norm()))
    assert torch.allclose(learner.parameters.gradient, clipped, atol=1e-6)


def test_large_gradients_are_clipped() -> None:
    class Explode(Hook):
        def adjust_gradients(self, learner: Learner) -> None:
            learner.parameters.gradient.mul_(1e6)

    learner = learner_of(Method("explode", (Explode(),)))
    learner.begin_stage(1, random_windows(), 5)
    learner.update()
    assert float(learner.parameters.gradient.norm()) < 1.001


def test_the_next_stage_starts_from_the_averaged_weights_which_are_the_teacher() -> None:
    learner = train(learner_of(finetune()), stages=1)
    assert torch.equal(learner.parameters.values, learner.averaged)
    assert learner.teacher is not None
    before = [parameter.clone() for parameter in learner.teacher.denoiser.parameters()]
    learner.begin_stage(2, random_windows(task=1), 5)
    learner.update()
    assert all(torch.equal(a, b) for a, b in zip(before, learner.teacher.denoiser.parameters(), strict=True))
    assert not torch.equal(learner.parameters.values, torch.cat([part.flatten() for part in before]))


def test_a_stronger_trust_region_moves_less_along_mu() -> None:
    moved = []
    for strength in (0.0, 1e4):
        config = TrainConfig(
            batch_size=16, trust_region=TrustRegionConfig(strength, 256), optimizer=OptimizerConfig(schedule="constant", max_gradient_norm=0)
        )
        learner = train(learner_of(ewc(config.trust_region, small_policy().parameter_count), config), stages=2, updates=40)
        region = learner.method.hooks[0].region  # type: ignore[attr-defined]
        moved.append(abs(float(region.distances(learner.parameters.values)[0])) / float(region.mu[0].norm()))
    assert moved[1] < 0.2 * moved[0]


def test_the_functional_form_raises_the_replay_weight_until_the_network_is_true_to_its_teacher() -> None:
    weights = []
    for radius in (1e-6, 1e6):
        config = TrainConfig(batch_size=16, trust_region=TrustRegionConfig(form="functional", radius=radius))
        learner = train(learner_of(trust_region(Source(), config.trust_region, 0), config), stages=2, updates=20)
        weights.append(learner.loss_weights)
    assert 1.5 < weights[0][1] <= StayTrue.MOST and StayTrue.LEAST <= weights[1][1] < 1


def test_tasks_seen_share_the_loss() -> None:
    learner = train(learner_of(replay(Source(), "tasks-seen")), stages=1)
    assert learner.loss_weights == (1.0, 1.0)  # the first task is alone
    learner.begin_stage(2, random_windows(task=1), 5)
    assert learner.loss_weights == (0.5, 0.5)


def test_bfloat16_rounds_the_products_of_an_update_and_nothing_that_is_kept() -> None:
    learners = [learner_of(trust_region(Source(), REGION, SIZE), replace(SMALL, precision=precision)) for precision in ("float32", "bfloat16")]
    exact, rounded = (train(learner).parameters.values for learner in learners)
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded) and (exact - rounded).norm() < 0.01 * exact.norm()
    assert learners[1].windows.all().actions.dtype == learners[1].averaged.dtype == torch.float32


REGION = SMALL.trust_region
SIZE = small_policy().parameter_count
METHODS: dict[str, Callable[[], Method]] = {
    "penalty": lambda: trust_region(Source(), REGION, SIZE),
    "constraint": lambda: trust_region(Source(), replace(REGION, form="constraint", radius=1e-6), SIZE),
    "functional": lambda: trust_region(Source(), replace(REGION, form="functional"), SIZE),
    "diagonal": lambda: ewc(replace(REGION, fisher="diagonal"), SIZE),
    "l2": lambda: l2(SMALL.l2, SIZE),
    "mas": lambda: mas(replace(SMALL.mas, draws=32), SIZE),
    "si": lambda: si(SMALL.si, SIZE),
    "single": single,
    "vr-mcl": lambda: vr_mcl(Source(), SMALL),
    "adaptive": lambda: adaptive_trust_region(Source(), replace(SMALL, update_budget=UpdateBudgetConfig(draws=32)), SIZE),
}


@pytest.mark.parametrize("method", METHODS)
def test_arrays_carry_a_learner_over_a_stage_boundary(method: str) -> None:
    make = lambda: learner_of(METHODS[method]())  # noqa: E731
    whole = train(make(), stages=2)
    first = train(make(), stages=1)
    resumed = make()
    resumed.policy.load_state_dict(first.policy.state_dict())
    resumed.load_arrays(1, first.arrays())
    resumed.begin_stage(2, random_windows(task=1, seed=2), 5)
    for _ in range(5):
        resumed.update()
    resumed.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert all((resumed.arrays()[name] == array).all() for name, array in whole.arrays().items())


def test_there_is_no_teacher_in_the_first_stage_however_it_is_begun() -> None:
    learner = learner_of(METHODS["penalty"]())
    assert learner.teacher is None
    learner.load_arrays(0, learner.arrays())
    assert learner.teacher is None


@pytest.mark.parametrize("method", METHODS)
def test_underway_carries_a_learner_over_the_middle_of_a_stage(method: str) -> None:
    def after_three(learner: Learner) -> Learner:
        learner = train(learner, stages=1)
        learner.begin_stage(2, random_windows(task=1, seed=2), 5)
        for _ in range(3):
            learner.update()
        return learner

    whole = after_three(learner_of(METHODS[method]()))
    saved = {name: array.copy() for name, array in whole.underway().items()}
    resumed = train(learner_of(METHODS[method]()), stages=1)
    resumed.begin_stage(2, random_windows(task=1, seed=2), 5)
    resumed.load_underway(saved)
    for learner in (whole, resumed):
        learner.update()
        learner.update()
        learner.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
